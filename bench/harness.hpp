#pragma once
// What every benchmark needs: a clock for single calls, a histogram, and child processes to measure in.
//
// A benchmark measures each case in a process of its own (run_child), so that memory, threads and a library's
// globals do not leak from one case into the next. The child is this program again, or a script that drives a
// library of its language; both get `key=value` arguments and answer in the same way:
//
//   one line of JSON to the file descriptor in FULMAR_BENCH_REPORT_FD (stdout when started by hand):
//     {"figures": {name: number}, "samples": {name: [number, ...]},
//      "distributions": {name: [[upper bound, count], ...]}, "note": text}, each of them if there is any,
//     or {"failure": text}
//   before it, any number of lines "? COMMAND", each answered with one line on the child's stdin (Control).
//
// Thread-safety: plain values; run_child() belongs to a single-threaded parent.

#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
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
  std::uint64_t ticks(std::chrono::nanoseconds time) const {
    return static_cast<std::uint64_t>(static_cast<double>(time.count()) / ns_per_tick_);
  }
  // The median distance of two time stamps with nothing between them; to be subtracted from a measured call.
  std::uint64_t overhead_ticks() const { return overhead_ticks_; }

 private:
  double ns_per_tick_ = 1;
  std::uint64_t overhead_ticks_ = 0;
};

// Values and how often they came, as a plot needs them: upper bounds in ascending order.
using Distribution = std::vector<std::pair<double, std::uint64_t>>;
// Both together; bounds that are equal become one.
void merge(Distribution& into, const Distribution& other);

// Log-linear: exact below 128, then 128 buckets per power of two (error < 0.8 %). The maximum is exact.
class Histogram {
 public:
  void add(std::uint64_t value);
  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }
  // The smallest bucket bound such that `fraction` of the values are not above it; 0 when empty.
  std::uint64_t percentile(double fraction) const;
  // Every value times `unit`, in 16 buckets per power of two.
  Distribution distribution(double unit) const;

 private:
  static constexpr unsigned sub_bits = 7;
  static std::size_t bucket(std::uint64_t value);
  static std::uint64_t bucket_top(std::size_t index);

  std::array<std::uint64_t, (64 - sub_bits + 1) << sub_bits> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

double median(std::vector<double> values);  // 0 when empty

// What a child is to do, as `key=value` arguments; the parent gives every key that the child asks for.
class Parameters {
 public:
  Parameters() = default;
  static Parameters parse(std::span<const std::string> arguments);

  Parameters& set(std::string key, std::string_view value);
  template <typename Number>
    requires std::is_arithmetic_v<Number>
  Parameters& set(std::string key, Number value) {
    return set(std::move(key), std::to_string(value));
  }
  std::string_view text(std::string_view key) const;  // empty when it was not given
  template <typename Number>
  Number number(std::string_view key) const {  // 0 when it was not given
    Number value{};
    const auto found = text(key);
    std::from_chars(found.data(), found.data() + found.size(), value);
    return value;
  }
  std::vector<std::string> arguments() const;

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

// What a child measured, by name.
using Figures = std::map<std::string, double, std::less<>>;
struct ChildReport {
  Figures figures{};
  std::map<std::string, std::vector<double>, std::less<>> samples{};  // a figure that was taken several times
  std::map<std::string, Distribution, std::less<>> distributions{};
  std::string note{};  // what a reader must know: why there is no figure, what was cut off
};

// Answers a child's "? COMMAND" with one line.
using Control = std::function<std::string(std::string_view command)>;

// Executes `command` (empty: this program again with "--child") with `arguments` and collects its report. Errors:
// the child's own words when it reported a failure; timeout, after which it was killed.
Result<ChildReport> run_child(std::span<const std::string> command, std::span<const std::string> arguments,
                              std::chrono::seconds time_limit, const Control& control = {});

// In the child: hands the report, or the reason why there is none, to the parent. Only the first call counts; any thread.
void report(const ChildReport& result);
void report_failure(std::string_view reason);

// One line about the machine: processor, cores, kernel, compiler.
std::string machine();

}  // namespace fulmar::bench
