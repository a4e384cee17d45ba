#pragma once
// SharedHistogram: a PowerHistogram that many threads add to.
// Thread-safety: all functions from any thread. A snapshot taken during add() may lack that value in the sum.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "fulmar/telemetry.hpp"

namespace fulmar::telemetry {

class SharedHistogram {
 public:
  void add(std::uint64_t value) {
    const std::size_t bucket = value <= 1 ? 0 : static_cast<std::size_t>(std::bit_width(value - 1));
    counts_[std::min(bucket, PowerHistogram::buckets - 1)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }
  PowerHistogram snapshot() const {
    PowerHistogram copy;
    copy.sum = sum_.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < copy.counts.size(); ++i)
      copy.counts[i] = counts_[i].load(std::memory_order_relaxed);
    return copy;
  }

 private:
  std::array<std::atomic<std::uint64_t>, PowerHistogram::buckets> counts_{};
  std::atomic<std::uint64_t> sum_{0};
};

}  // namespace fulmar::telemetry
