#pragma once
// What every benchmark needs: a clock for single calls, a histogram, and child processes to measure in.
//
// A benchmark measures each case in a process of its own (run_child), so that memory, threads and a library's
// globals do not leak from one case into the next; the program executes itself with the case's arguments.
//
// Thread-safety: plain values; run_child() belongs to a single-threaded parent.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

// Time stamps for single calls: the time-stamp counter where the processor has one that runs at a constant
// rate, else the steady clock. now() waits until the instructions before it have finished.
class CallClock {
 public:
  CallClock();  // calibrates for 20 ms

  static std::uint64_t now() {
#if defined(__x86_64__)
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    asm volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high)::"memory");
    return std::uint64_t{high} << 32 | low;
#else
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
  }
  double ns(double ticks) const { return ticks * ns_per_tick_; }
  // The median distance of two time stamps with nothing between them; to be subtracted from a measured call.
  std::uint64_t overhead_ticks() const { return overhead_ticks_; }

 private:
  double ns_per_tick_ = 1;
  std::uint64_t overhead_ticks_ = 0;
};

// Log-linear: exact below 128, then 128 buckets per power of two (error < 0.8 %). The maximum is exact.
class Histogram {
 public:
  void add(std::uint64_t value);
  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }
  // The smallest bucket bound such that `fraction` of the values are not above it; 0 when empty.
  std::uint64_t percentile(double fraction) const;

 private:
  static constexpr unsigned sub_bits = 7;
  static std::size_t bucket(std::uint64_t value);
  static std::uint64_t bucket_top(std::size_t index);

  std::array<std::uint64_t, (64 - sub_bits + 1) << sub_bits> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

double median(std::vector<double> values);  // 0 when empty

// What a child measured, by name.
using Figures = std::map<std::string, double, std::less<>>;

// Executes this program again with `arguments` and collects what it reports by report_figures(). Errors: the
// child's own words when it exited with a failure; timeout, after which it was killed.
Result<Figures> run_child(std::span<const std::string> arguments, std::chrono::seconds time_limit);

// In the child: hand the figures, or the reason why there are none, to the parent; to stdout when started by
// hand.
void report_figures(const Figures& figures);
void report_failure(std::string_view reason);

// One line about the machine: processor, cores, kernel, compiler.
std::string machine();

}  // namespace fulmar::bench
