#pragma once
// Output: the way to stdout. The dispatch thread appends whole messages, the main thread writes what has come
// together since its last write: a lone message goes out at once, a burst in few large writes, and a slow
// reader holds up the writer alone until `bytes_max` wait; then append() waits, and by it the socket.
//
// Invariants
//   1. Messages leave whole and in the order of append().
//   2. A reader that stops reading cannot keep a signal from being seen: no write can block.
//
// Thread-safety: append() from one thread, close() from any; write_all() from the main thread.

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>

#include "cli/events.hpp"

namespace fulmar::cli {

class Output {
 public:
  static constexpr std::size_t bytes_max = std::size_t{4} << 20;

  Output(int fd, Events& events);

  // Waits while there is no room; does nothing once closed.
  void append(std::string_view message);

  enum class Result { written, closed_by_reader, failed, signal };
  // Writes everything appended so far.
  Result write_all();
  // append() does not wait any more.
  void close();
  int error() const { return error_; }  // errno of `failed`

 private:
  int fd_;
  Events& events_;
  std::size_t chunk_;  // that much never blocks once the file is writable
  int error_ = 0;

  std::mutex mutex_;
  std::condition_variable room_;
  std::string waiting_;
  bool closed_ = false;

  std::string writing_;  // main thread
  std::size_t written_ = 0;
};

}  // namespace fulmar::cli
