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
