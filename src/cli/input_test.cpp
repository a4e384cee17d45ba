#include "cli/input.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fulmar::cli {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;

std::vector<std::string> lines_of(const std::vector<std::string>& chunks) {
  LineSplitter splitter;
  std::vector<std::string> lines;
  for (const auto& chunk : chunks) {
    splitter.feed(chunk, [&](std::string_view line) { lines.emplace_back(line); });
  }
  if (!splitter.rest().empty()) lines.emplace_back(splitter.rest());
  return lines;
}

TEST(LineSplitter, splits_at_every_newline_and_keeps_other_bytes) {
  EXPECT_THAT(lines_of({"a\r\n\nb\0c\nd"s}), ElementsAre("a\r", "", "b\0c"s, "d"));
  EXPECT_THAT(lines_of({"a\n"}), ElementsAre("a"));
  EXPECT_THAT(lines_of({""}), ElementsAre());
}

TEST(LineSplitter, does_not_care_how_the_stream_is_cut) {
  const auto text = "one\n\ntwo\nthree"s;
  for (std::size_t first = 0; first <= text.size(); ++first) {
    for (std::size_t second = first; second <= text.size(); ++second) {
      EXPECT_THAT(lines_of({text.substr(0, first), text.substr(first, second - first), text.substr(second)}),
                  ElementsAre("one", "", "two", "three"));
    }
  }
}

TEST(ReadFile, names_the_file_that_cannot_be_read) {
  const auto missing = read_file("/nonexistent/file");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message,
            "cannot open '/nonexistent/file' given by -f: No such file or directory");
  const auto directory = read_file("/");
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().message, "cannot read '/' given by -f: Is a directory");
}

}  // namespace
}  // namespace fulmar::cli
