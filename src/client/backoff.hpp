#pragma once
// Backoff: how long to wait before the next connection attempt.
// The ceiling doubles from `min` to `max`; each delay is drawn evenly from [min, ceiling], so that a fleet does not return
// in step. Starts over only after the link has stayed up for `stable_after`, so that a flapping broker is not hammered.
//
// Not thread-safe: owned by the connection. Deterministic for a given seed.

#include <chrono>
#include <cstdint>
#include <random>

namespace fulmar {

class Backoff {
 public:
  struct Limits {
    std::chrono::milliseconds min{500};
    std::chrono::milliseconds max{5'000};
    std::chrono::milliseconds stable_after{10'000};
  };

  Backoff(Limits limits, std::uint64_t seed);

  // The delay before the next attempt. Invariant 1: limits.min <= delay <= limits.max.
  std::chrono::milliseconds next();

  // The next delays are drawn up to limits.max: for refusals that will not go away by themselves.
  void at_maximum() { ceiling_ = limits_.max; }

  // Call when the link went down after having been up for `uptime`.
  void link_lost(std::chrono::milliseconds uptime);

 private:
  Limits limits_;
  std::chrono::milliseconds ceiling_;
  std::minstd_rand random_;  // 8 bytes: jitter needs no better one
};

}  // namespace fulmar
