#include "goals.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace fulmar::bench {
namespace {

Row publish_row(const char* library, double rate, double allocations) {
  return {.library = library,
          .version = "1",
          .labels = {{"qos", "1"}, {"window", "1000"}},
          .figures = {{"messages_per_s", {rate}}, {"allocations_per_message", {allocations}}}};
}

const Goal& goal_of(const std::vector<Goal>& all, std::string_view what) {
  const auto found = std::ranges::find(all, what, &Goal::what);
  EXPECT_NE(found, all.end()) << what;
  return *found;
}

std::vector<Goal> goals_with(double rate, double rival_rate, double allocations = 0) {
  const std::vector<Results> suites{
      {.suite = "publish",
       .rows = {publish_row("fulmar", rate, allocations), publish_row("theirs", rival_rate, 6)}}};
  return goals(suites);
}

TEST(Goals, are_met_by_the_figure_or_by_ten_times_the_best_rival) {
  EXPECT_TRUE(goal_of(goals_with(4.1e6, 1e6), "QoS 1, window 1000").met);
  EXPECT_FALSE(goal_of(goals_with(3.9e6, 1e6), "QoS 1, window 1000").met);
  EXPECT_TRUE(goal_of(goals_with(3.9e6, 0.39e6), "QoS 1, window 1000").met);
  EXPECT_EQ(goal_of(goals_with(3e6, 1e6), "QoS 1, window 1000").rival, "theirs: x 3");
}

std::vector<Goal> append_goals_with(double rate, double bare_rate) {
  const auto row = [](const char* library, double value) {
    return Row{.library = library,
               .version = "1",
               .labels = {{"what", "append"}, {"sync", "batch"}, {"batch", "256"}, {"files", "recycled"}},
               .figures = {{"entries_per_s", {value}}}};
  };
  const std::vector<Results> suites{
      {.suite = "spool", .rows = {row("fulmar", rate), row("bare file", bare_rate)}}};
  return goals(suites);
}

TEST(Goals, of_the_disk_log_are_met_by_the_figure_or_by_a_share_of_what_the_disk_leaves) {
  const char* append = "spool, append, each batch of 256 synced, files recycled";
  EXPECT_TRUE(goal_of(append_goals_with(1.1e6, 2e6), append).met);
  EXPECT_TRUE(goal_of(append_goals_with(0.46e6, 0.5e6), append).met);
  EXPECT_FALSE(goal_of(append_goals_with(0.44e6, 0.5e6), append).met);
  EXPECT_EQ(goal_of(append_goals_with(0.46e6, 0.5e6), append).measured, "460 k/s, 92 % of a bare loop's");
  EXPECT_EQ(goal_of(append_goals_with(0.46e6, 0.5e6), append).rival, "") << "a bare loop is no rival";
}

TEST(Goals, of_a_callers_tail_are_shown_beside_a_bare_copy_and_met_by_the_figure_alone) {
  const auto row = [](const char* library, const char* state, double tail) {
    return Row{.library = library,
               .version = "1",
               .labels = {{"state", state}, {"manner", "burst"}},
               .figures = {{"caller_ns_p999", {tail}}}};
  };
  const auto goal = [&](double tail, double bare) {
    const std::vector<Results> suites{
        {.suite = "latency", .rows = {row("fulmar", "down", tail), row("bare copy", "up", bare)}}};
    return goal_of(goals(suites), "publish() in a burst, p99.9, down");
  };
  EXPECT_TRUE(goal(400, 1'500).met);
  EXPECT_FALSE(goal(1'200, 1'500).met);
  EXPECT_EQ(goal(400, 1'500).measured, "400 ns, a bare copy 1.5 µs");
  EXPECT_EQ(goal(400, 1'500).rival, "") << "a bare copy is no rival";
}

Row queue_row(const char* library, const char* depth, double rate) {
  return {.library = library,
          .version = "1",
          .labels = {{"what", "one"},
                     {"safety", "not synced"},
                     {"payload_bytes", "128"},
                     {"depth", depth},
                     {"scheduled", "0"},
                     {"batch", "1"}},
          .figures = {{"enqueue_per_s", {rate}}}};
}

TEST(Goals, of_a_deep_work_queue_compare_it_with_a_shallow_one) {
  const auto with = [](double deep) {
    const std::vector<Results> suites{
        {.suite = "queue",
         .rows = {queue_row("fulmar", "1000", 50e3), queue_row("fulmar", "1000000", deep),
                  queue_row("fulmar postgresql", "1000000", 1e6), queue_row("theirs", "1000000", 10e3)}}};
    return goals(suites);
  };
  const char* what = "queue, 1,000,000 wait, enqueue";
  EXPECT_TRUE(goal_of(with(46e3), what).met);
  EXPECT_EQ(goal_of(with(46e3), what).measured, "92 %");
  EXPECT_FALSE(goal_of(with(44e3), what).met);
  EXPECT_EQ(goal_of(with(46e3), "queue, not synced, 1,000,000 wait, enqueue").rival, "theirs: x 4.6")
      << "our queue on another store is no rival";
}

TEST(Goals, of_zero_allow_nothing) {
  EXPECT_TRUE(goal_of(goals_with(1, 1, 0), "allocations a message published, worst case").met);
  EXPECT_FALSE(goal_of(goals_with(1, 1, 0.03), "allocations a message published, worst case").met);
}

TEST(Goals, that_were_not_measured_are_not_met) {
  const auto all = goals_with(1, 1);
  const auto& goal = goal_of(all, "reconnect, median");
  EXPECT_TRUE(goal.measured.empty());
  EXPECT_FALSE(goal.met);
}

TEST(Goals, of_a_maximum_look_at_the_worst_repetition) {
  const std::vector<Results> suites{{.suite = "reconnect",
                                     .rows = {{.library = "fulmar",
                                               .version = "1",
                                               .labels = {},
                                               .figures = {{"reconnect_ms", {0.2, 0.3, 9}}}}}}};
  const auto all = goals(suites);
  EXPECT_TRUE(goal_of(all, "reconnect, median").met);
  EXPECT_FALSE(goal_of(all, "reconnect, maximum").met);
}

}  // namespace
}  // namespace fulmar::bench
