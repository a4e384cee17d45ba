#pragma once
// HandlerTable: which handlers want a topic. Changed by users' threads, read by the dispatch thread through immutable
// snapshots, so that no handler ever runs under a lock. The I/O thread does not know it.
//
// Thread-safety: all functions from any thread. The lock is held for the length of a table copy.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/client.hpp"

namespace fulmar {

class HandlerTable {
 public:
  struct Entry {
    std::string filter;
    std::uint64_t id = 0;
    MessageHandler handler;
    std::atomic<bool> active{true};  // false: unsubscribed after the snapshot was taken
  };
  using Snapshot = std::vector<std::shared_ptr<Entry>>;

  // Adds a handler or replaces that of the same filter; returns the entry's id, never 0.
  std::uint64_t set(std::string_view filter, MessageHandler handler);
  // Removes the entry if it is still the one with this id. No call of its handler begins after this returns.
  bool remove(std::string_view filter, std::uint64_t id);

  std::shared_ptr<const Snapshot> snapshot() const;
  // Grows with every change: a reader keeps its snapshot while this stands still.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Snapshot> entries_ = std::make_shared<Snapshot>();
  std::uint64_t last_id_ = 0;
  std::atomic<std::uint64_t> generation_{0};
};

}  // namespace fulmar
