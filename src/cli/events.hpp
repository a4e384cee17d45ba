#pragma once
// Events: the one place where a command's main thread waits: for the client's news (a bell that any thread
// rings), for SIGINT and SIGTERM, for a file to become readable or writable, and for a point in time.
//
// While an Events lives, SIGINT and SIGTERM are blocked in the thread that made it and in all that this one
// starts (make it before the client), and SIGPIPE is ignored: a closed pipe is an error of write().
//
// Thread-safety: ring() from any thread; the rest from the main thread.

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

namespace fulmar::cli {

// A descriptor to wait for; -1 = none.
struct WaitFile {
  int fd = -1;
  short events = 0;  // POLLIN, POLLOUT
};

class Events {
 public:
  using Clock = std::chrono::steady_clock;

  Events();
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Ends the current wait(), or the next one; a system call only when somebody waits.
  void ring();

  // Returns when ring() was called since the last wait(), a signal has come, `file` is ready (then true) or
  // it is `until`. May return early.
  bool wait(WaitFile file = {}, std::optional<Clock::time_point> until = {});

  // SIGINT or SIGTERM, once it has come.
  std::optional<int> signal() const { return signal_; }
  // The same, and forgets it: for the next one.
  std::optional<int> take_signal() { return std::exchange(signal_, std::nullopt); }
  // From now on a signal ends the process, as if it had never been held back.
  void release_signals();

 private:
  int bell_ = -1;
  int signals_ = -1;
  sigset_t former_{};
  bool released_ = false;
  std::optional<int> signal_;
  std::atomic<bool> rung_{false};
  std::atomic<bool> waiting_{false};
};

}  // namespace fulmar::cli
