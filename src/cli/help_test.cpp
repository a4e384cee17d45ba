#include "cli/help.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace fulmar::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Help, lists_every_option_of_the_command_and_none_of_the_others) {
  for (const auto command : commands) {
    const auto text = help(command);
    for (const auto& row : option_table()) {
      const std::string name{row.long_name.empty() ? row.short_name : row.long_name};
      const auto listed = row.long_name.empty() ? "\n  " + name + " " : name;
      const bool elsewhere = std::ranges::any_of(option_table(), [&](const OptionRow& other) {
        return other.belongs_to(command) && other.long_name == row.long_name &&
               other.short_name == row.short_name;
      });
      if (row.belongs_to(command)) {
        EXPECT_THAT(text, HasSubstr(listed));
        EXPECT_THAT(text, HasSubstr(std::string(row.help)));
      } else if (!elsewhere) {
        EXPECT_THAT(text, Not(HasSubstr(listed + " "))) << listed;
      }
    }
  }
}

TEST(Help, fits_into_120_columns) {
  for (const auto& text : {help(), help(Command::pub), help(Command::sub), help(Command::telemetry)}) {
    for (std::size_t begin = 0; begin < text.size();) {
      const auto end = text.find('\n', begin);
      ASSERT_NE(end, std::string::npos) << "the last line has an end";
      EXPECT_LE(end - begin, 120u) << text.substr(begin, end - begin);
      begin = end + 1;
    }
  }
}

}  // namespace
}  // namespace fulmar::cli
