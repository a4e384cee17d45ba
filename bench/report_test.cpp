#include "report.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "columns.hpp"

namespace fulmar::bench {
namespace {

Row publish_row(const char* library, double rate, double allocations) {
  return {.library = library,
          .version = "1",
          .labels = {{"qos", "1"}, {"window", "1000"}},
          .figures = {{"messages_per_s", {rate}}, {"allocations_per_message", {allocations}}}};
}

TEST(MarkdownTable, compares_with_the_best_rival_of_each_column_and_keeps_notes) {
  std::vector<Row> rows{publish_row("fulmar", 4e6, 0), publish_row("slow", 1e5, 2),
                        publish_row("fast", 1e6, 6)};
  rows[1].note = "cut off";
  const auto text = markdown_table(rows, publish_columns());
  EXPECT_NE(text.find("| *better than the best rival* | x 4 |"), text.npos) << text;
  EXPECT_NE(text.find("- slow 1: cut off"), text.npos) << text;
  // Every line of a table has as many cells.
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    EXPECT_EQ(std::ranges::count(line, '|'), static_cast<std::ptrdiff_t>(publish_columns().size() + 2))
        << line;
  }
}

TEST(Report, is_written_from_whatever_suites_there_are) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "fulmar-bench-report";
  std::filesystem::remove_all(folder);
  EXPECT_FALSE(write_report(folder, folder / "report"));
  ASSERT_TRUE(write_json(folder / "publish.json", {.suite = "publish",
                                                   .machine = "a machine",
                                                   .measured = "today",
                                                   .quick = true,
                                                   .busy = 0.5,
                                                   .skipped = {{"theirs", "not installed"}},
                                                   .rows = {publish_row("fulmar", 4e6, 0)}}));
  const auto written = write_report(folder, folder / "report");
  ASSERT_TRUE(written) << written.error().message;
  std::ifstream in(folder / "report" / "report.md");
  std::stringstream page;
  page << in.rdbuf();
  for (const char* words : {"a machine", "theirs: not installed", "--quick", "up to 50 %",
                            "![Throughput of one connection](throughput.svg)"}) {
    EXPECT_NE(page.str().find(words), std::string::npos) << words;
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "report" / "throughput.svg"));
  EXPECT_TRUE(std::filesystem::exists(folder / "report" / "publish.json"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace fulmar::bench
