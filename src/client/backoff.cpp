#include "client/backoff.hpp"

#include <algorithm>

namespace fulmar {

Backoff::Backoff(Limits limits, std::uint64_t seed) : limits_(limits), ceiling_(limits.min) {
  std::seed_seq sequence{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  random_.seed(sequence);
}

std::chrono::milliseconds Backoff::next() {
  std::uniform_int_distribution<std::int64_t> draw(limits_.min.count(), ceiling_.count());
  const std::chrono::milliseconds delay(draw(random_));
  ceiling_ = std::min(ceiling_ * 2, limits_.max);
  return delay;
}

void Backoff::link_lost(std::chrono::milliseconds uptime) {
  if (uptime >= limits_.stable_after) ceiling_ = limits_.min;
}

}  // namespace fulmar
