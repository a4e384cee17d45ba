#include "cli/spool_options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace fulmar::cli {
namespace {

using testing::HasSubstr;
using Words = std::vector<std::string_view>;

TEST(SpoolOptions, are_a_command_a_folder_and_switches_in_any_order) {
  const auto parsed = parse_spool(Words{"purge", "--bad", "/spool", "--yes"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_EQ(parsed.options->command, SpoolCommand::purge);
  EXPECT_EQ(parsed.options->directory, "/spool");
  EXPECT_TRUE(parsed.options->bad);
  EXPECT_TRUE(parsed.options->yes);
  EXPECT_FALSE(parsed.options->json);
}

TEST(SpoolOptions, a_folder_may_begin_with_a_dash_behind_two_dashes) {
  const auto parsed = parse_spool(Words{"inspect", "--json", "--", "--json"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_EQ(parsed.options->directory, "--json");
}

TEST(SpoolOptions, mistakes_are_named_with_what_is_possible) {
  const auto error = [](const Words& words) { return parse_spool(words).error; };
  EXPECT_EQ(error({}), "no command given: inspect, verify, export or purge");
  EXPECT_EQ(error({"inspekt"}), "unknown command 'inspekt', did you mean 'inspect'?");
  EXPECT_EQ(error({"/var/spool"}), "unknown command '/var/spool'");
  EXPECT_EQ(error({"inspect"}), "no folder given: fulmar spool inspect DIR, the spool_dir of the client");
  EXPECT_EQ(error({"inspect", ""}), "no folder given: fulmar spool inspect DIR, the spool_dir of the client");
  EXPECT_EQ(error({"inspect", "a", "b"}), "one folder at a time: 'a' and 'b'");
  EXPECT_EQ(error({"inspect", "a", "--yes"}), "unknown option '--yes': it belongs to fulmar spool purge");
  EXPECT_EQ(error({"inspect", "a", "--jsn"}), "unknown option '--jsn', did you mean '--json'?");
  EXPECT_EQ(error({"verify", "a", "-x"}), "unknown option '-x'");
}

TEST(SpoolOptions, help_needs_no_folder_and_knows_its_command) {
  EXPECT_TRUE(parse_spool(Words{"--help"}).help);
  const auto parsed = parse_spool(Words{"verify", "--help"});
  EXPECT_TRUE(parsed.help);
  EXPECT_EQ(parsed.command, SpoolCommand::verify);
}

TEST(SpoolHelp, fits_into_120_columns_and_has_examples_and_exit_codes) {
  std::vector<std::string> texts{spool_help()};
  for (const auto command : spool_commands) {
    texts.push_back(spool_help(command));
    EXPECT_THAT(texts.back(), HasSubstr("\nExamples:\n  fulmar spool " + std::string(name_of(command))));
    EXPECT_THAT(texts.back(), HasSubstr("\n  --help    this text\n"));
    EXPECT_THAT(spool_help(), HasSubstr("\n  " + std::string(name_of(command)) + " "));
  }
  for (const auto& text : texts) {
    EXPECT_THAT(text, HasSubstr("\nExit codes: 0 "));
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
