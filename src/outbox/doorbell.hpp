#pragma once
// How a producer wakes a consumer that sleeps, and makes no system call when it does not.
//
// The handshake, the same for both classes below. Consumer: announce the sleep, look at the queue once more, sleep.
// Producer: commit to the queue, then look whether the sleep was announced. Commit, announcement and both looks are
// sequentially consistent, so at least one of the two sees the other and no wake-up is lost.

#include <atomic>
#include <chrono>
#include <cstdint>

namespace fulmar::outbox {

// For a consumer that sleeps in something of its own (an event loop). Thread-safe.
class SleepFlag {
 public:
  // Producer, after commit: must it wake the consumer? True for one producer per announcement.
  bool must_wake() {
    return asleep_.load(std::memory_order_seq_cst) && asleep_.exchange(false, std::memory_order_seq_cst);
  }
  // Consumer: about to sleep; look at the queue again after this.
  void announce() { asleep_.store(true, std::memory_order_seq_cst); }
  void awake() { asleep_.store(false, std::memory_order_relaxed); }

 private:
  std::atomic<bool> asleep_{false};
};

// For a consumer that is a thread of its own: sleeps on a futex.
//
//   consumer:  for (;;) { if (work()) continue; bell.announce(); if (has_work()) { bell.awake(); continue; }
//                         bell.sleep_until(deadline); }
//   producer:  commit(); bell.ring();
class Doorbell {
 public:
  using Clock = std::chrono::steady_clock;

  void ring();  // any thread; a system call only when the consumer sleeps or is about to
  void announce() { state_.store(asleep, std::memory_order_seq_cst); }
  void awake() { state_.store(up, std::memory_order_relaxed); }
  // After announce(). Returns when rung or at the deadline; spurious returns are possible.
  void sleep_until(Clock::time_point deadline);
  void sleep() { sleep_until(Clock::time_point::max()); }

 private:
  static constexpr std::uint32_t up = 0, asleep = 1;
  std::atomic<std::uint32_t> state_{up};
};

}  // namespace fulmar::outbox
