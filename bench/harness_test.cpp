#include "harness.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "probes.hpp"

namespace fulmar::bench {
namespace {

TEST(Histogram, gives_small_values_back_exactly) {
  Histogram histogram;
  for (std::uint64_t value = 1; value <= 100; ++value) histogram.add(value);
  EXPECT_EQ(histogram.count(), 100u);
  EXPECT_EQ(histogram.percentile(0.5), 50u);
  EXPECT_EQ(histogram.percentile(0.99), 99u);
  EXPECT_EQ(histogram.percentile(1), 100u);
}

TEST(Histogram, is_off_by_less_than_a_percent_everywhere) {
  for (std::uint64_t value = 1; value < (std::uint64_t{1} << 62); value = value * 3 + 1) {
    Histogram histogram;
    histogram.add(value);
    histogram.add(UINT64_MAX);
    const auto found = histogram.percentile(0.5);
    EXPECT_GE(found, value);
    EXPECT_LE(found - value, value / 100) << value;
  }
}

TEST(Histogram, keeps_the_exact_maximum_and_nothing_when_empty) {
  Histogram histogram;
  EXPECT_EQ(histogram.percentile(0.5), 0u);
  histogram.add(1'000'003);
  EXPECT_EQ(histogram.percentile(0.999), 1'000'003u);
  EXPECT_EQ(histogram.max(), 1'000'003u);
}

TEST(CallClock, measures_a_known_wait) {
  const CallClock clock;
  const auto begin = CallClock::now();
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  while (std::chrono::steady_clock::now() < until) {
  }
  EXPECT_GE(clock.ns(static_cast<double>(CallClock::now() - begin)), 19e6);
}

TEST(AllocationCounter, counts_malloc_and_new_only_while_enabled) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "the sanitizers bring their own malloc";
  AllocationCounter::enable(true);
  const auto before = AllocationCounter::count();
  void* volatile by_malloc = std::malloc(100);
  int* volatile by_new = new int(1);
  const auto counted = AllocationCounter::count() - before;
  AllocationCounter::enable(false);
  EXPECT_EQ(counted, 2u);
  delete by_new;
  std::free(by_malloc);
  void* volatile uncounted = std::malloc(100);
  EXPECT_EQ(AllocationCounter::count() - before, 2u);
  std::free(uncounted);
}

}  // namespace
}  // namespace fulmar::bench
