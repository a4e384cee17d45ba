#include "cli/help.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fulmar::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Help, lists_every_option_of_the_command_and_none_of_the_other) {
  for (const auto& row : option_table()) {
    const std::string name{row.long_name.empty() ? row.short_name : row.long_name};
    const auto listed = row.long_name.empty() ? "\n  " + name + " " : name;
    if (row.pub) {
      EXPECT_THAT(help(Command::pub), HasSubstr(listed));
    } else {
      EXPECT_THAT(help(Command::pub), Not(HasSubstr(listed + " "))) << listed;
    }
    if (row.sub) {
      EXPECT_THAT(help(Command::sub), HasSubstr(listed));
    }
  }
}

TEST(Help, fits_into_120_columns) {
  for (const auto& text : {help(), help(Command::pub), help(Command::sub)}) {
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
