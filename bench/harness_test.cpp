#include "harness.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "probes.hpp"
#include "report.hpp"

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

TEST(Table, shows_medians_and_how_many_times_better_ours_is) {
  const auto row = [](const char* library, double rate, double cost) {
    return Row{.library = library,
               .version = "1",
               .messages_per_s = rate,
               .cpu_s_per_million = cost,
               .allocations_per_message = cost > 1 ? 6.0 : 0.0};
  };
  const Cell ours{{row("ours", 100, 1), row("ours", 5'000'000, 1), row("ours", 6'000'000, 1)}};
  const Cell theirs{{row("theirs", 1'000'000, 3)}};
  EXPECT_EQ(ours.median().messages_per_s, 5'000'000);
  const std::vector<Cell> cells{ours, theirs};
  const auto text = table(cells, "ours");
  EXPECT_NE(text.find("5 000 000"), text.npos) << text;
  EXPECT_NE(text.find("100-6 000 000"), text.npos) << text;
  EXPECT_NE(text.find("x 5 "), text.npos) << text;
  EXPECT_NE(text.find("x 3 "), text.npos) << text;
  EXPECT_NE(text.find("none"), text.npos) << text;
}

}  // namespace
}  // namespace fulmar::bench
