#pragma once
// StopSignals: SIGINT, SIGTERM and SIGHUP (the terminal was closed) as an event. The first one asks for a clean stop; a
// second one means "now" and calls `on_second` on a thread of its own, whatever the main thread is waiting for. Those that
// come within 0.25 s of the first belong to it: a process and its group are often signalled both. SIGPIPE is ignored: a
// closed pipe is an error of write() for the one who writes.
//
// Construct it before any other thread is started: the threads inherit that the signals are blocked.
// Thread-safety: requested() and event() from any thread.

#include <atomic>
#include <functional>
#include <thread>

namespace fulmar::daemon {

class StopSignals {
 public:
  explicit StopSignals(std::function<void()> on_second);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const { return signal_.load(std::memory_order_acquire) != 0; }
  int signal() const { return signal_.load(std::memory_order_acquire); }  // 0 = none yet
  int event() const { return event_; }  // a descriptor that is readable once a stop was asked for

 private:
  void run();

  const std::function<void()> on_second_;
  int event_ = -1, quit_ = -1, signals_ = -1;
  std::atomic<int> signal_{0};
  std::thread thread_;
};

}  // namespace fulmar::daemon
