#include "harness.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <stop_token>
#include <thread>

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

TEST(Histogram, is_a_distribution_with_every_value_below_its_bound) {
  Histogram histogram;
  for (std::uint64_t value = 1; value <= 1000; ++value) histogram.add(value);
  const auto distribution = histogram.distribution(2);
  std::uint64_t seen = 0;
  for (const auto& [bound, count] : distribution) {
    seen += count;
    EXPECT_LE(static_cast<double>(seen) * 2, bound);
  }
  EXPECT_EQ(seen, 1000u);
  EXPECT_LT(distribution.size(), 130u) << "coarse enough for a file";
  Distribution twice = distribution;
  merge(twice, distribution);
  ASSERT_EQ(twice.size(), distribution.size());
  EXPECT_EQ(twice.back().second, 2 * distribution.back().second);
}

TEST(Parameters, come_back_from_their_arguments) {
  const auto back =
      Parameters::parse(Parameters().set("seconds", 0.5).set("state", "down").set("qos", 2u).arguments());
  EXPECT_EQ(back.number<double>("seconds"), 0.5);
  EXPECT_EQ(back.number<unsigned>("qos"), 2u);
  EXPECT_EQ(back.text("state"), "down");
  EXPECT_EQ(back.text("nothing"), "");
  EXPECT_EQ(back.number<int>("nothing"), 0);
}

Result<ChildReport> run_script(std::string script, const Control& control = {},
                               std::chrono::seconds limit = std::chrono::seconds(20)) {
  const std::vector<std::string> command{"/bin/sh", "-c", std::move(script)};
  return run_child(command, {}, limit, control);
}

TEST(Child, reports_figures_samples_distributions_and_a_note) {
  const auto report = run_script(
      R"(echo '{"figures":{"a":1.5},"samples":{"b":[1,2]},"distributions":{"c":[[10,3]]},"note":"n"}' >&$FULMAR_BENCH_REPORT_FD)");
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->figures.at("a"), 1.5);
  EXPECT_EQ(report->samples.at("b"), (std::vector<double>{1, 2}));
  EXPECT_EQ(report->distributions.at("c"), (Distribution{{10, 3}}));
  EXPECT_EQ(report->note, "n");
}

TEST(Child, asks_and_is_answered_before_it_reports) {
  std::string asked;
  const auto report = run_script(R"(echo '? how many' >&$FULMAR_BENCH_REPORT_FD; read answer;
                                    echo "{\"note\":\"$answer\"}" >&$FULMAR_BENCH_REPORT_FD)",
                                 [&](std::string_view command) {
                                   asked = command;
                                   return std::string("seven");
                                 });
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(asked, "how many");
  EXPECT_EQ(report->note, "seven");
}

TEST(Child, that_fails_says_why_in_its_own_words_or_by_its_exit_code) {
  const auto told = run_script(R"(echo '{"failure":"no CONNACK"}' >&$FULMAR_BENCH_REPORT_FD; exit 1)");
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().message, "no CONNACK");
  const auto silent = run_script("exit 3");
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().message, "exit code 3 and no report");
  const auto babble = run_script("echo hello >&$FULMAR_BENCH_REPORT_FD");
  ASSERT_FALSE(babble);
  EXPECT_NE(babble.error().message.find("hello"), std::string::npos);
}

TEST(Child, that_takes_too_long_is_ended) {
  const auto report = run_script("exec sleep 60", {}, std::chrono::seconds(1));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::timeout);
}

TEST(BusyElsewhere, is_a_fraction_that_includes_other_threads) {
  const std::jthread busy([](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
    }
  });
  const double fraction = busy_elsewhere(std::chrono::milliseconds(300));
  EXPECT_GT(fraction, 0.5 / std::thread::hardware_concurrency());
  EXPECT_LE(fraction, 1);
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
