#include "telemetry/period_histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fulmar::telemetry {

std::size_t PeriodHistogram::bucket_of(std::uint64_t ns) {
  if (ns < (std::uint64_t{1} << sub_bits)) return static_cast<std::size_t>(ns);
  const auto octave = static_cast<unsigned>(std::bit_width(ns)) - sub_bits;  // >= 1
  const std::size_t sub = static_cast<std::size_t>(ns >> (octave - 1)) & ((std::size_t{1} << sub_bits) - 1);
  return std::min((std::size_t{octave} << sub_bits) + sub, buckets - 1);
}

std::uint64_t PeriodHistogram::upper_end(std::size_t bucket) {
  const std::size_t octave = bucket >> sub_bits;
  const std::uint64_t sub = bucket & ((std::size_t{1} << sub_bits) - 1);
  if (octave == 0) return sub;
  return (((std::uint64_t{1} << sub_bits) + sub + 1) << (octave - 1)) - 1;
}

void PeriodHistogram::record(std::chrono::nanoseconds period) {
  const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(period.count(), 0));
  // One writer: load and store are enough.
  auto& count = counts_[bucket_of(ns)];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (ns > max_ns_.load(std::memory_order_relaxed)) max_ns_.store(ns, std::memory_order_relaxed);
}

PeriodHistogram::Snapshot PeriodHistogram::snapshot() const {
  std::array<std::uint64_t, buckets> counts;
  Snapshot s;
  for (std::size_t i = 0; i < buckets; ++i) s.count += counts[i] = counts_[i].load(std::memory_order_relaxed);
  const std::uint64_t max_ns = max_ns_.load(std::memory_order_relaxed);
  s.max = std::chrono::nanoseconds(max_ns);
  if (s.count == 0) return s;

  const auto quantile = [&](double q) {
    const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(s.count)));
    std::uint64_t seen = 0;
    std::size_t i = 0;
    while (i + 1 < buckets && (seen += counts[i]) < rank) ++i;
    return std::chrono::nanoseconds(std::min(upper_end(i), max_ns));
  };
  s.p50 = quantile(0.5);
  s.p99 = quantile(0.99);
  s.p999 = quantile(0.999);
  return s;
}

}  // namespace fulmar::telemetry
