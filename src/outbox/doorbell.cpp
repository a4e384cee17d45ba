#include "outbox/doorbell.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace fulmar::outbox {
namespace {

long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value, const timespec* until) {
  return syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG, value,
                 until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void Doorbell::ring() {
  if (state_.load(std::memory_order_seq_cst) == asleep &&
      state_.exchange(up, std::memory_order_seq_cst) == asleep) {
    futex(state_, FUTEX_WAKE, 1, nullptr);
  }
}

void Doorbell::sleep_until(Clock::time_point deadline) {
  timespec until{};
  const timespec* limit = nullptr;
  if (deadline != Clock::time_point::max()) {
    // FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC, which is what steady_clock counts.
    const auto since_epoch = std::max(deadline.time_since_epoch(), Clock::duration::zero());
    until.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
    until.tv_nsec = (since_epoch % std::chrono::seconds(1)).count();
    limit = &until;
  }
  futex(state_, FUTEX_WAIT_BITSET, asleep, limit);
  state_.store(up, std::memory_order_relaxed);
}

}  // namespace fulmar::outbox
