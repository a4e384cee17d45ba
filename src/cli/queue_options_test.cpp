#include "cli/queue_options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Words = std::vector<std::string_view>;

const queue::Time now = *queue::parse_time("2026-02-06T10:00:00Z");

std::optional<std::string> home_only(std::string_view name) {
  return name == "HOME" ? std::optional<std::string>("/home/me") : std::nullopt;
}

ParsedQueue parse(const Words& words) { return parse_queue(words, home_only, now); }
std::string error_of(const Words& words) { return parse(words).error; }

TEST(QueueOptions, of_an_item_are_where_they_belong) {
  const auto parsed =
      parse({"add", "--type", "resize", "{}", "--priority", "HIGH", "--in", "1h30m", "--unique-key", "k",
             "--depends-on", "A,B", "--depends-on", "C", "--max-retries", "7", "--queue", "yaml:q"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto& item = parsed.options->item;
  EXPECT_THAT(parsed.options->arguments, ElementsAre("{}"));
  EXPECT_EQ(item.type, "resize");
  EXPECT_EQ(item.priority, 75);
  EXPECT_EQ(item.scheduled_at, now + 90min);
  EXPECT_EQ(item.unique_key, "k");
  EXPECT_THAT(item.depends_on, ElementsAre("A", "B", "C"));
  EXPECT_EQ(item.max_retries, 7);
  EXPECT_EQ(parsed.options->url, "yaml:q");
}

TEST(QueueOptions, take_values_that_begin_with_a_dash) {
  EXPECT_EQ(parse({"add", "--priority", "-5"}).options->item.priority, -5);
  EXPECT_THAT(parse({"add", "--", "--odd"}).options->arguments, ElementsAre("--odd"));
  EXPECT_THAT(parse({"add", "-"}).options->arguments, ElementsAre("-"));
}

TEST(QueueOptions, leave_the_command_of_work_alone) {
  const auto parsed = parse({"work", "--jobs", "3", "--", "grep", "--quiet", "--", "x"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_EQ(parsed.options->jobs, 3u);
  EXPECT_FALSE(parsed.options->quiet);
  EXPECT_THAT(parsed.options->program, ElementsAre("grep", "--quiet", "--", "x"));
}

TEST(QueueOptions, find_the_queue_in_the_environment_or_in_the_home_folder) {
  const auto url = [](std::vector<std::pair<std::string_view, std::string>> variables) {
    const auto parsed = parse_queue(
        Words{"stats"},
        [&](std::string_view name) -> std::optional<std::string> {
          for (const auto& [key, value] : variables)
            if (key == name) return value;
          return std::nullopt;
        },
        now);
    return parsed.options ? parsed.options->url : parsed.error;
  };
  EXPECT_EQ(url({{"FULMAR_QUEUE", "sqlite:q.db"}, {"HOME", "/home/me"}}), "sqlite:q.db");
  EXPECT_EQ(url({{"HOME", "/home/me"}}), "sqlite:/home/me/.local/share/fulmar/queue.db");
  EXPECT_EQ(url({{"XDG_DATA_HOME", "/data"}, {"HOME", "/home/me"}}), "sqlite:/data/fulmar/queue.db");
  EXPECT_EQ(url({}),
            "which queue? neither --queue nor FULMAR_QUEUE nor HOME is set: add --queue sqlite:PATH");
}

TEST(QueueOptions, know_claim_as_another_name_of_next) {
  EXPECT_EQ(parse({"claim"}).options->command, QueueCommand::next);
}

TEST(QueueOptions, mistakes_are_named_with_what_is_possible) {
  EXPECT_THAT(error_of({}), StartsWith("no command given: add, work"));
  EXPECT_EQ(error_of({"ad"}), "unknown command 'ad', did you mean 'add'?");
  EXPECT_EQ(error_of({"add", "--prioity", "5"}), "unknown option '--prioity', did you mean '--priority'?");
  EXPECT_EQ(error_of({"add", "--priority=5"}),
            "unknown option '--priority=5': the value is a word of its own: --priority 5");
  EXPECT_EQ(error_of({"list", "--peek"}), "unknown option '--peek': it belongs to fulmar queue next");
  EXPECT_EQ(error_of({"add", "--priority"}), "--priority needs a value: --priority N");
  EXPECT_EQ(error_of({"add", "--priority", "urgent"}),
            "invalid priority 'urgent': expected a whole number, or critical, high, medium or low");
  EXPECT_EQ(error_of({"add", "--in", "soon"}),
            "invalid time span 'soon': expected e.g. 30s, 250ms, 5m, 1h30m, 2d");
  EXPECT_THAT(error_of({"add", "--at", "tomorrow"}),
              StartsWith("invalid time 'tomorrow': expected ISO 8601"));
  EXPECT_EQ(error_of({"add", "{}", "{}"}), "too much: '{}'; it is fulmar queue add [JSON]");
  EXPECT_EQ(error_of({"complete"}), "something is missing: fulmar queue complete LEASE...");
  EXPECT_EQ(error_of({"list", "--status", "complet"}), "unknown status 'complet', did you mean 'completed'?");
  EXPECT_EQ(
      error_of({"purge", "--status", "pending"}),
      "--status pending of purge: only what is completed, failed or cancelled is purged; cancel it first");
  EXPECT_EQ(error_of({"work"}), "no command given: fulmar queue work [options] -- COMMAND [ARG...]");
  EXPECT_EQ(error_of({"work", "./run"}),
            "unexpected './run': the command to run comes after --: fulmar queue work -- ./run");
  EXPECT_EQ(error_of({"retry"}), "nothing to retry: name ids, or give --all");
  EXPECT_EQ(error_of({"retry", "--all", "A"}), "--all and ids cannot be used together");
  EXPECT_EQ(error_of({"add", "--lines", "{}"}), "a payload and --lines cannot be used together");
}

TEST(QueueOptions, settings_are_changed_by_name) {
  queue::Settings settings;
  for (const auto* one : {"max_size=100", "lease=5m", "keep_completed=none", "keep_failed=7d",
                          "durability=interval", "durable_claim=yes", "default_max_retries=9"})
    EXPECT_EQ(change_setting(settings, one), "") << one;
  EXPECT_EQ(settings.max_size, 100u);
  EXPECT_EQ(settings.lease, 5min);
  EXPECT_EQ(settings.keep_completed, std::nullopt);
  EXPECT_EQ(settings.keep_failed, 168h);
  EXPECT_EQ(settings.durability, queue::Durability::interval);
  EXPECT_TRUE(settings.durable_claim);
  EXPECT_EQ(settings.default_max_retries, 9);
  EXPECT_EQ(change_setting(settings, "max_size=none"), "");
  EXPECT_EQ(settings.max_size, std::nullopt);
  EXPECT_EQ(change_setting(settings, "lease"),
            "invalid setting 'lease': expected NAME=VALUE, e.g. lease=30s");
  EXPECT_EQ(change_setting(settings, "leese=1"), "unknown setting 'leese', did you mean 'lease'?");
  EXPECT_EQ(change_setting(settings, "lease=x"),
            "invalid value 'x' for lease: expected a time span, e.g. 30s");
}

TEST(QueueOptions, what_settings_print_they_also_take) {
  queue::Settings settings;
  settings.lease = 90min + 1ms;
  settings.max_size = 7;
  queue::Settings copy;
  for (const auto& [name, value] : settings_text(settings)) {
    auto text = value;
    if (text != "for ever") std::erase(text, ' ');
    EXPECT_EQ(change_setting(copy, std::string(name).append("=").append(text)), "");
  }
  EXPECT_EQ(copy, settings);
}

TEST(QueueOptions, a_lease_is_an_id_and_a_token) {
  const queue::LeaseKey lease{.id = "odd:id", .token = 0x00ab'cdef'0123'4567};
  EXPECT_EQ(lease_text(lease), "odd:id:00abcdef01234567");
  EXPECT_EQ(parse_lease("odd:id:00abcdef01234567"), lease);
  for (const auto* wrong :
       {"", "id", "id:", ":00abcdef01234567", "id:00abcdef0123456", "id:00abcdef0123456x"})
    EXPECT_FALSE(parse_lease(wrong)) << wrong;
}

TEST(QueueHelp, fits_into_120_columns_and_has_options_examples_and_exit_codes) {
  std::vector<std::string> all{queue_help()};
  for (const auto& row : queue_commands()) {
    const auto text = queue_help(row.command);
    const auto name = std::string(row.name);
    EXPECT_THAT(text, HasSubstr("\nUsage: fulmar queue " + name + " [options]"));
    const auto examples = text.find("\nExamples:\n");
    ASSERT_NE(examples, std::string::npos);
    EXPECT_NE(text.find("fulmar queue " + name, examples), std::string::npos) << text;
    for (const auto& option : queue_option_rows()) {
      if (!option.belongs_to(row.command)) continue;
      EXPECT_THAT(text, HasSubstr(std::string(option.help)));
    }
    EXPECT_THAT(queue_help(), HasSubstr("\n  " + name + " "));
    all.push_back(text);
  }
  for (const auto& text : all) {
    EXPECT_THAT(text, HasSubstr("\nExit codes: 0 "));
    for (std::size_t begin = 0; begin < text.size();) {
      const auto end = text.find('\n', begin);
      ASSERT_NE(end, std::string::npos) << "the last line has an end";
      EXPECT_LE(end - begin, 120u) << text.substr(begin, end - begin);
      begin = end + 1;
    }
  }
}

TEST(QueueHelp, examples_are_accepted) {
  for (const auto& row : queue_commands()) {
    const auto text = queue_help(row.command);
    const auto begin = text.find("\nExamples:\n");
    for (auto at = text.find("  fulmar queue ", begin); at < text.size();
         at = text.find("  fulmar queue ", at + 1)) {
      if (text[at - 1] != '\n') continue;
      const auto line = text.substr(at + 15, text.find('\n', at) - at - 15);
      std::vector<std::string> words(1);
      char quote = 0;
      bool comment = false;
      for (std::size_t i = 0; i < line.size() && !comment; ++i) {
        const char c = line[i];
        if (quote ? c == quote : c == '\'' || c == '"')
          quote = quote ? '\0' : c;
        else if (!quote && (line.substr(i, 3) == "   " || c == '|' || c == '>'))
          comment = true;
        else if (!quote && c == ' ')
          words.emplace_back();
        else
          words.back() += c;
      }
      std::erase(words, "");
      const Words views(words.begin(), words.end());
      EXPECT_EQ(parse(views).error, "") << line;
    }
  }
}

}  // namespace
}  // namespace fulmar::cli
