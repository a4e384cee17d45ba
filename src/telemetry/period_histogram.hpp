#pragma once
// PeriodHistogram: how long the periods of a loop really were. Buckets grow with the value, so a quantile is known to
// within 0.8 % from nanoseconds to minutes, in 37 KiB and without allocation.
//
// Thread-safety: record() on one thread, snapshot() on any.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace fulmar::telemetry {

class PeriodHistogram {
 public:
  struct Snapshot {
    std::uint64_t count = 0;
    std::chrono::nanoseconds p50{0}, p99{0}, p999{0};  // the upper end of the bucket; never above max
    std::chrono::nanoseconds max{0};                   // exact
  };

  void record(std::chrono::nanoseconds period);
  Snapshot snapshot() const;

 private:
  static constexpr unsigned sub_bits = 7;
  static constexpr unsigned octaves = 36;  // up to 2^43 ns, 2.4 hours; anything longer counts as that
  static constexpr std::size_t buckets = (octaves + 1) << sub_bits;

  static std::size_t bucket_of(std::uint64_t ns);
  static std::uint64_t upper_end(std::size_t bucket);

  std::array<std::atomic<std::uint64_t>, buckets> counts_{};
  std::atomic<std::uint64_t> max_ns_{0};
};

}  // namespace fulmar::telemetry
