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
  static HeldRecord plain(std::byte* memory) { return HeldRecord(reinterpret_cast<std::uintptr_t>(memory)); }
  // The same, size_for(record, true).
  static HeldRecord stored(std::byte* memory, const StoredState& state) {
    new (memory + RecordView(memory).block_size()) StoredState(state);
    return HeldRecord(reinterpret_cast<std::uintptr_t>(memory) | 1);
  }
  static std::size_t size_for(RecordView record, bool stored) {
    return record.block_size() + (stored ? sizeof(StoredState) : 0);
  }

  explicit operator bool() const { return bits_ != 0; }
  bool is_stored() const { return (bits_ & 1) != 0; }
  RecordView view() const { return RecordView(memory()); }
  const RecordHeader& header() const { return view().header(); }
  // Only of a stored one.
  StoredState& state() const { return *reinterpret_cast<StoredState*>(memory() + view().block_size()); }
  std::byte* memory() const { return reinterpret_cast<std::byte*>(bits_ & ~std::uintptr_t{1}); }
  std::size_t size() const { return size_for(view(), is_stored()); }

 private:
  explicit HeldRecord(std::uintptr_t bits) : bits_(bits) {}

  std::uintptr_t bits_;
};

}  // namespace fulmar::mqtt
