#include "results.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

namespace fulmar::bench {
namespace {

const std::vector<Column> columns{{"messages_per_s", "messages/s", Better::more},
                                  {"cpu_s_per_million", "CPU s/M"},
                                  {"allocations_per_message", "alloc/msg"}};

Row row(const char* library, std::vector<double> rates, double cost) {
  return {.library = library,
          .version = "1",
          .labels = {{"qos", "1"}, {"state", "down"}},
          .figures = {{"messages_per_s", std::move(rates)},
                      {"cpu_s_per_million", {cost}},
                      {"allocations_per_message", {cost > 1 ? 6.0 : 0.0}}}};
}

TEST(Table, shows_medians_and_how_many_times_better_ours_is) {
  const std::vector<Row> rows{row("fulmar", {100, 5'000'000, 6'000'000}, 1), row("theirs", {1'000'000}, 3)};
  EXPECT_EQ(rows.front().median("messages_per_s"), 5'000'000);
  const auto text = table(rows, columns);
  EXPECT_NE(text.find("5 000 000"), text.npos) << text;
  EXPECT_NE(text.find("100-6 000 000"), text.npos) << text;
  EXPECT_NE(text.find("x 5 "), text.npos) << text;
  EXPECT_NE(text.find("x 3 "), text.npos) << text;
  EXPECT_NE(text.find("none"), text.npos) << text;
}

TEST(Table, shows_a_library_that_measured_nothing_with_its_note) {
  std::vector<Row> rows{row("fulmar", {1}, 1),
                        {.library = "theirs", .version = "2", .labels = {}, .figures = {}}};
  rows.back().add_note("not possible");
  rows.back().add_note("not possible");
  const auto text = table(rows, columns);
  EXPECT_NE(text.find("theirs 2"), text.npos) << text;
  EXPECT_NE(text.find("theirs 2: not possible\n"), text.npos) << text;
  EXPECT_EQ(text.find("better than theirs"), text.npos) << text;
}

TEST(Numbers, have_three_significant_digits_and_groups_of_thousands) {
  EXPECT_EQ(number(1'234'567), "1 230 000");
  EXPECT_EQ(number(-123'456), "-123 000");
  EXPECT_EQ(number(45.12), "45.1");
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(not_measured), "-");
}

TEST(Results, come_back_from_their_file_as_they_were_written) {
  const auto file = std::filesystem::path(::testing::TempDir()) / "fulmar-bench-results.json";
  Results results{.suite = "publish",
                  .machine = "a \"machine\"",
                  .measured = "2026-01-02 03:04 UTC",
                  .quick = true,
                  .busy = 0.25,
                  .skipped = {{"theirs", "not installed"}},
                  .rows = {row("fulmar", {1, 3, 2}, 1)}};
  results.rows.front().distribution = {{10, 3}, {20, 1}};
  results.rows.front().note = "cut off";
  ASSERT_TRUE(write_json(file, results));
  const auto back = read_json(file);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->suite, results.suite);
  EXPECT_EQ(back->machine, results.machine);
  EXPECT_EQ(back->measured, results.measured);
  EXPECT_TRUE(back->quick);
  EXPECT_EQ(back->busy, 0.25);
  EXPECT_EQ(back->skipped, results.skipped);
  ASSERT_EQ(back->rows.size(), 1u);
  const Row& one = back->rows.front();
  EXPECT_EQ(one.labels, results.rows.front().labels);
  EXPECT_EQ(one.figures, results.rows.front().figures);
  EXPECT_EQ(one.distribution, results.rows.front().distribution);
  EXPECT_EQ(one.note, "cut off");
  EXPECT_TRUE(std::isnan(one.median("nothing")));
  std::filesystem::remove(file);
}

TEST(Results, say_which_file_is_missing_or_is_none) {
  const auto missing = read_json("/nonexistent/publish.json");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("/nonexistent/publish.json"), std::string::npos);
  const auto file = std::filesystem::path(::testing::TempDir()) / "fulmar-bench-none.json";
  ASSERT_TRUE(write_file(file, "[]"));
  EXPECT_FALSE(read_json(file));
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace fulmar::bench
