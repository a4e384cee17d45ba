#pragma once
// HeldRecord: a record in the session's own memory. One that a disk log keeps ("stored") has what the session knows of it
// behind its block. It is one pointer whose lowest bit tells which of the two it is, so that plain messages pay nothing.
//
// Not thread-safe; owns nothing by itself: the session acquires and releases the memory.

#include <cstddef>
#include <cstdint>
#include <new>

#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/session.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

struct StoredState {
  std::uint64_t position = 0;
  Resumed how = Resumed::fresh;  // of a waiting record: what former processes have done for it
  // Not success: the server does not take the message again, and the exchange is only brought to its end.
  ReasonCode refusal = ReasonCode::success;
};

class HeldRecord {
 public:
  HeldRecord() = default;  // trivial: it lives in a union; HeldRecord{} is none

  // `memory`: size_for(record, false) bytes that begin with the record's block.
  static HeldRecord plain(std::byte* memory) { return HeldRecord(memory); }
  // The same, size_for(record, true).
  static HeldRecord stored(std::byte* memory, const StoredState& state) {
    new (memory + RecordView(memory).block_size()) StoredState(state);
    return HeldRecord(memory + 1);
  }
  static std::size_t size_for(RecordView record, bool stored) {
    return record.block_size() + (stored ? sizeof(StoredState) : 0);
  }

  explicit operator bool() const { return at_ != nullptr; }
  bool is_stored() const { return (reinterpret_cast<std::uintptr_t>(at_) & 1) != 0; }
  RecordView view() const { return RecordView(memory()); }
  const RecordHeader& header() const { return view().header(); }
  // Only of a stored one.
  StoredState& state() const { return *reinterpret_cast<StoredState*>(memory() + view().block_size()); }
  std::byte* memory() const { return at_ - (is_stored() ? 1 : 0); }
  std::size_t size() const { return size_for(view(), is_stored()); }

 private:
  explicit HeldRecord(std::byte* at) : at_(at) {}

  std::byte* at_;  // the block, or one byte further when it is a stored one: blocks are aligned
};

}  // namespace fulmar::mqtt
