#include "telemetry/period_histogram.hpp"

#include <gtest/gtest.h>

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;

double ms(std::chrono::nanoseconds d) { return std::chrono::duration<double, std::milli>(d).count(); }

TEST(PeriodHistogram, says_nothing_when_it_has_seen_nothing) {
  const auto s = PeriodHistogram().snapshot();
  EXPECT_EQ(s.count, 0u);
  EXPECT_EQ(s.p999, 0ns);
  EXPECT_EQ(s.max, 0ns);
}

TEST(PeriodHistogram, knows_quantiles_to_within_one_percent_and_the_maximum_exactly) {
  PeriodHistogram h;
  for (int i = 1; i <= 1000; ++i) h.record(std::chrono::microseconds(100 * i));  // 0.1 ms .. 100 ms
  const auto s = h.snapshot();
  EXPECT_EQ(s.count, 1000u);
  EXPECT_NEAR(ms(s.p50), 50.0, 0.5);
  EXPECT_NEAR(ms(s.p99), 99.0, 1.0);
  EXPECT_NEAR(ms(s.p999), 99.9, 1.0);
  EXPECT_EQ(s.max, 100ms);
}

TEST(PeriodHistogram, one_outlier_in_a_thousand_is_the_maximum_and_not_the_p999) {
  PeriodHistogram h;
  for (int i = 0; i < 999; ++i) h.record(100ms);
  h.record(5s);
  const auto s = h.snapshot();
  EXPECT_NEAR(ms(s.p999), 100.0, 1.0);
  EXPECT_EQ(s.max, 5s);
}

TEST(PeriodHistogram, a_quantile_is_never_above_the_maximum) {
  PeriodHistogram h;
  h.record(100'000'001ns);
  EXPECT_EQ(h.snapshot().p50, 100'000'001ns);
}

TEST(PeriodHistogram, takes_the_smallest_and_the_largest_values) {
  PeriodHistogram h;
  h.record(-1ns);
  h.record(0ns);
  h.record(std::chrono::hours(48));
  const auto s = h.snapshot();
  EXPECT_EQ(s.count, 3u);
  EXPECT_EQ(s.p50, 0ns);
  EXPECT_EQ(s.max, std::chrono::hours(48));
}

}  // namespace
}  // namespace fulmar::telemetry
