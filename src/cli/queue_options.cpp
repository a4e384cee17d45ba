#include "cli/queue_options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/near_miss.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using enum QueueCommand;
using namespace std::chrono_literals;
using queue::Duration;
using queue::duration_text;
using queue::parse_duration;
using queue::Settings;

constexpr auto any_number = QueueCommandOptions::unlimited;

constexpr auto command_rows = std::to_array<QueueCommandRow>({
    {add, "add", "[JSON]", "hand in work", 0, 1},
    {work, "work", "-- COMMAND [ARG...]", "run a command for each item", 0, 0},
    {list, "list", "", "the items, as a table or as JSON", 0, 0},
    {show, "show", "ID", "all there is to know about one item", 1, 1},
    {stats, "stats", "", "how many are in which state", 0, 0},
    {watch, "watch", "", "the same, live", 0, 0},
    {next, "next", "", "claim items by hand (also: claim)", 0, 0},
    {complete, "complete", "LEASE...", "a claimed item is done", 1, any_number},
    {fail, "fail", "LEASE...", "an attempt failed", 1, any_number},
    {extend, "extend", "LEASE...", "more time for a claimed item", 1, any_number},
    {release, "release", "LEASE...", "give a claimed item back", 1, any_number},
    {cancel, "cancel", "ID...", "do not do it", 1, any_number},
    {retry, "retry", "ID...", "once more, what failed or was cancelled", 0, any_number},
    {remove, "remove", "ID...", "delete items", 1, any_number},
    {purge, "purge", "", "delete finished items", 0, 0},
    {pause, "pause", "", "nothing is claimed any more", 0, 0},
    {resume, "resume", "", "items are claimed again", 0, 0},
    {settings, "settings", "[NAME=VALUE...]", "see and change how the queue works", 0, any_number},
    {queues, "queues", "", "the queues of the store", 0, 0},
    {export_items, "export", "", "write items to a file: YAML or JSON lines", 0, 0},
    {import_items, "import", "FILE", "read items from such a file", 1, 1},
    {migrate, "migrate", "FROM TO", "copy a queue into another store", 2, 2},
    {repair, "repair", "[URL]", "get a damaged store going again", 0, 1},
});

template <typename... Commands>
constexpr std::uint32_t of(Commands... commands) {
  return ((1U << static_cast<unsigned>(commands)) | ...);
}
constexpr std::uint32_t everywhere = ~0U;
constexpr std::uint32_t writing = of(add, next, complete, QueueCommand::fail, extend, release, cancel, retry,
                                     remove, work, import_items, migrate, purge, pause, resume, settings);

std::string in_quotes(std::string_view text) { return "'" + std::string(text) + "'"; }

// --- values -----------------------------------------------------------------------------------------------------------

using Options = QueueCommandOptions;
using queue::Time;

template <typename T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string no_duration(std::string_view text) {
  return "invalid time span " + in_quotes(text) + ": expected e.g. 30s, 250ms, 5m, 1h30m, 2d";
}

template <auto Member>
std::string take_duration(Options& options, std::string_view text, Time) {
  const auto duration = parse_duration(text);
  if (!duration) return no_duration(text);
  options.*Member = *duration;
  return {};
}

template <auto Member>
std::string take_text(Options& options, std::string_view text, Time) {
  options.*Member = std::string(text);
  return {};
}

template <auto Member>
std::string take_switch(Options& options, std::string_view, Time) {
  options.*Member = true;
  return {};
}

std::string take_time(std::string_view text, Time now, std::optional<Time>& time) {
  time = text == "now" ? now : queue::parse_time(text);
  if (time) return {};
  return "invalid time " + in_quotes(text) +
         ": expected ISO 8601, e.g. 2026-02-06T10:00:00Z or 2026-02-06 10:00+01:00 (without an offset it is "
         "UTC)";
}

std::string take_in(std::string_view text, Time now, int sign, std::optional<Time>& time) {
  const auto duration = parse_duration(text);
  if (!duration) return no_duration(text);
  time = now + sign * *duration;
  return {};
}

std::string take_count(std::string_view text, std::uint64_t max, std::uint64_t& count) {
  const auto number = number_of<std::uint64_t>(text);
  if (!number || *number < 1 || *number > max)
    return "invalid number " + in_quotes(text) + ": expected 1 to " + std::to_string(max);
  count = *number;
  return {};
}

void split(std::string_view text, std::vector<std::string>& into) {
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    if (comma > 0) into.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
}

std::string take_statuses(Options& options, std::string_view text, Time) {
  std::vector<std::string> words;
  split(text, words);
  for (const auto& word : words) {
    const auto status = queue::parse_status(word);
    if (!status) {
      constexpr auto names =
          std::to_array<std::string_view>({"pending", "processing", "completed", "failed", "cancelled"});
      const auto meant = near_miss(word, names);
      return "unknown status " + in_quotes(word) +
             (meant.empty() ? ": expected pending, processing, completed, failed or cancelled"
                            : ", did you mean " + in_quotes(meant) + "?");
    }
    options.statuses.push_back(*status);
  }
  return words.empty() ? "--status is empty" : "";
}

std::string take_durability(Options& options, std::string_view text, Time) {
  options.durability = queue::parse_durability(text);
  if (options.durability) return {};
  return "invalid durability " + in_quotes(text) + ": expected commit, interval or none";
}

std::string take_format(Options& options, std::string_view text, Time) {
  options.format = queue::parse_item_format(text);
  if (options.format) return {};
  return "invalid format " + in_quotes(text) + ": expected yaml or json";
}

std::string take_conflict(Options& options, std::string_view text, Time) {
  if (text == "refuse") return options.on_conflict = queue::OnConflict::refuse, "";
  if (text == "skip") return options.on_conflict = queue::OnConflict::skip, "";
  if (text == "replace") return options.on_conflict = queue::OnConflict::replace, "";
  return "invalid value " + in_quotes(text) + " for --on-conflict: expected refuse, skip or replace";
}

// --- the table --------------------------------------------------------------------------------------------------------

constexpr auto option_rows = std::to_array<QueueOptionRow>({
    {"--type", "NAME", "what kind of work it is (default: task)", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return o.item.type = v, ""; }},
    {"--priority", "N", "higher first (default: 0); or critical 100, high 75, medium 50, low 25", of(add),
     [](Options& o, std::string_view v, Time) -> std::string {
       const auto priority = queue::parse_priority(v);
       if (!priority)
         return "invalid priority " + in_quotes(v) +
                ": expected a whole number, or critical, high, medium or low";
       return o.item.priority = *priority, "";
     }},
    {"--at", "TIME", "not before: ISO 8601, UTC unless it has an offset", of(add),
     [](Options& o, std::string_view v, Time now) { return take_time(v, now, o.item.scheduled_at); }},
    {"--in", "SPAN", "not before that long from now: 30s, 5m, 1h30m, 2d", of(add),
     [](Options& o, std::string_view v, Time now) { return take_in(v, now, 1, o.item.scheduled_at); }},
    {"--max-retries", "N", "attempts in all (default: the queue's, 3 at first)", of(add),
     [](Options& o, std::string_view v, Time) -> std::string {
       const auto number = number_of<int>(v);
       if (!number || *number < 1 || *number > queue::Limits::attempts)
         return "invalid number " + in_quotes(v) + " for --max-retries: expected 1 to 1000000";
       return o.item.max_retries = number, "";
     }},
    {"--unique-key", "KEY", "when a live item has this key no second one is made; prints its id", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return o.item.unique_key = v, ""; }},
    {"--depends-on", "ID,...", "not before these are completed; may be repeated", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return split(v, o.item.depends_on), ""; }},
    {"--metadata", "JSON", "an object that goes with the item", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return o.item.metadata = v, ""; }},
    {"--id", "ID", "instead of a new one", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return o.item.id = v, ""; }},
    {"--file", "PATH", "the payload, or with --lines the items, from a file; - is stdin", of(add),
     [](Options& o, std::string_view v, Time) -> std::string { return o.file = v, ""; }},
    {"--lines", "",
     "many items from stdin or --file: each line a JSON object with payload, type, priority, ...", of(add),
     take_switch<&Options::lines>},
    {"--payload-lines", "", "the same, but each line is a payload", of(add),
     take_switch<&Options::payload_lines>},
    {"--ids", "", "with --lines: print the id of each item instead of their number", of(add),
     take_switch<&Options::ids>},

    {"--type", "NAME,...", "of these types only; may be repeated",
     of(next, work, list, export_items, purge, retry),
     [](Options& o, std::string_view v, Time) -> std::string { return split(v, o.claim.types), ""; }},
    {"--worker", "NAME", "who claims (default: HOST:PROCESS)", of(next, work),
     [](Options& o, std::string_view v, Time) -> std::string { return o.claim.worker = v, ""; }},
    {"--lease", "SPAN", "how long it is reserved (default: the queue's, 60s at first)",
     of(next, work, extend),
     [](Options& o, std::string_view v, Time) -> std::
                                                  string {
                                                    o.claim.lease = parse_duration(v);
                                                    return o.claim.lease ? "" : no_duration(v);
                                                  }},
    {"--items", "N", "at most this many at once, 1 to 1000 (default: 1)", of(next),
     [](Options& o, std::string_view v, Time) {
       std::uint64_t count = 0;
       auto wrong = take_count(v, queue::Limits::claim_items, count);
       o.claim.items_max = count;
       return wrong;
     }},
    {"--wait", "SPAN", "until there is something, this long at most (default: not at all)", of(next),
     take_duration<&Options::wait>},
    {"--request-id", "ID", "asking again with the same worker and id gives the same items", of(next),
     [](Options& o, std::string_view v, Time) -> std::string { return o.claim.request_id = v, ""; }},
    {"--peek", "", "only look at what would come next", of(next), take_switch<&Options::peek>},

    {"--result", "JSON", "what came of it", of(complete), take_text<&Options::result>},
    {"--error", "TEXT", "why", of(QueueCommand::fail), take_text<&Options::error>},
    {"--retry-in", "SPAN", "the next attempt after this time instead of the growing pause",
     of(QueueCommand::fail), take_duration<&Options::retry_in>},
    {"--for-good", "", "no more attempts", of(QueueCommand::fail), take_switch<&Options::for_good>},
    {"--all", "", "every failed item instead of named ones", of(retry), take_switch<&Options::all>},

    {"--status", "S,...", "pending, processing, completed, failed, cancelled (default: all)",
     of(list, export_items), take_statuses},
    {"--status", "S,...", "completed, failed, cancelled (default: these three)", of(purge), take_statuses},
    {"--blocked", "", "only what waits for another item", of(list), take_switch<&Options::blocked>},
    {"--limit", "N", "at most this many (default: 100); all", of(list),
     [](Options& o, std::string_view v, Time) -> std::string {
       if (v == "all") return o.limit = Options::unlimited, "";
       std::uint64_t count = 0;
       auto wrong = take_count(v, 1'000'000'000, count);
       o.limit = count;
       return wrong.empty() ? wrong : wrong + ", or all";
     }},
    {"--newest", "", "the newest first", of(list), take_switch<&Options::newest_first>},
    {"--older-than", "SPAN", "only what was finished at least that long ago", of(purge),
     [](Options& o, std::string_view v, Time now) { return take_in(v, now, -1, o.before); }},
    {"--before", "TIME", "only what was finished before: ISO 8601", of(purge),
     [](Options& o, std::string_view v, Time now) { return take_time(v, now, o.before); }},
    {"--yes", "", "do it; without it purge only tells how many it would delete", of(purge),
     take_switch<&Options::yes>},
    {"--interval", "SPAN", "how often (default: 1s)", of(watch),
     [](Options& o, std::string_view v, Time) -> std::string {
       const auto duration = parse_duration(v);
       if (!duration || *duration < 50ms)
         return "invalid time span " + in_quotes(v) + " for --interval: at least 50ms";
       return o.interval = *duration, "";
     }},

    {"--jobs", "N", "commands that run at the same time, 1 to 1024 (default: 1)", of(work),
     [](Options& o, std::string_view v, Time) {
       std::uint64_t count = 0;
       auto wrong = take_count(v, 1024, count);
       o.jobs = count;
       return wrong;
     }},
    {"--time-limit", "SPAN", "a command that runs longer is killed, and its attempt has failed", of(work),
     take_duration<&Options::time_limit>},
    {"--retry-in", "SPAN", "the next attempt after exit code 75 comes after this time (default: 60s)",
     of(work), take_duration<&Options::retry_in>},
    {"--result", "", "keep what the command writes to stdout as the item's result", of(work),
     take_switch<&Options::take_result>},
    {"--until-empty", "", "end when there is nothing that can be claimed", of(work),
     take_switch<&Options::until_empty>},
    {"--count", "N", "end after this many", of(work, watch),
     [](Options& o, std::string_view v, Time) { return take_count(v, 1'000'000'000'000, o.count); }},

    {"--format", "yaml|json", "default: by the name of the file; else export: yaml, import: by the content",
     of(import_items, export_items), take_format},
    {"--output", "FILE", "instead of stdout; complete or not at all", of(export_items),
     take_text<&Options::output>},
    {"--on-conflict", "HOW", "an id that is there already: refuse (default), skip or replace",
     of(import_items, migrate), take_conflict},
    {"--dry-run", "", "check everything, change nothing", of(import_items, migrate, repair),
     take_switch<&Options::dry_run>},

    {"--json", "", "JSON instead of text", of(add, list, show, stats, watch, settings),
     take_switch<&Options::json>},
    {"--durability", "LEVEL", "of what this command changes: commit, interval, none (default: the queue's)",
     writing, take_durability},
    {"--queue", "URL", "the store (default: $FULMAR_QUEUE, else a file of yours)", everywhere & ~of(migrate),
     take_text<&Options::url>},
    {"--name", "NAME", "the queue in the store (default: default)", everywhere & ~of(queues),
     take_text<&Options::name>},
    {"--lock-timeout", "SPAN", "how long to wait for other processes (default: 10s)", everywhere,
     [](Options& o, std::string_view v, Time) -> std::string {
       const auto duration = parse_duration(v);
       if (!duration) return no_duration(v);
       o.lock_timeout = std::chrono::ceil<std::chrono::milliseconds>(*duration);
       return {};
     }},
    {"--quiet", "", "no progress, no notes", everywhere, take_switch<&Options::quiet>},
    {"--help", "", "this text", everywhere, nullptr},
});

// --- parsing ----------------------------------------------------------------------------------------------------------

std::string unknown_option(std::string_view word, QueueCommand command) {
  const std::string start = "unknown option " + in_quotes(word);
  const auto has_name = [&](const QueueOptionRow& row) { return row.name == word; };
  if (const auto row = std::ranges::find_if(option_rows, has_name); row != option_rows.end()) {
    const auto other =
        std::ranges::find_if(command_rows, [&](const auto& one) { return row->belongs_to(one.command); });
    return start + ": it belongs to fulmar queue " + std::string(other->name);
  }
  std::vector<std::string_view> names;
  for (const auto& row : option_rows)
    if (row.belongs_to(command)) names.push_back(row.name);
  if (const auto equals = word.find('='); equals != std::string_view::npos) {
    const auto name = std::ranges::find(names, word.substr(0, equals));
    if (name != names.end())
      return start + ": the value is a word of its own: " + std::string(*name) + " " +
             std::string(word.substr(equals + 1));
  }
  const auto meant = near_miss(word, names);
  return start + (meant.empty() ? "" : ", did you mean " + in_quotes(meant) + "?");
}

std::string wrong_arguments(const QueueCommandRow& row, const Options& options) {
  const auto count = options.arguments.size();
  const std::string usage = "fulmar queue " + std::string(row.name) +
                            (row.arguments.empty() ? "" : " " + std::string(row.arguments));
  if (count < row.arguments_min) return "something is missing: " + usage;
  if (count > row.arguments_max)
    return "too much: " + in_quotes(options.arguments[row.arguments_max]) + "; it is " + usage;
  return {};
}

std::string default_url(const QueueEnvironment& environment, Options& options) {
  if (const auto url = environment("FULMAR_QUEUE"); url && !url->empty()) return *url;
  options.url_is_default = true;
  if (const auto data = environment("XDG_DATA_HOME"); data && data->starts_with('/'))
    return "sqlite:" + *data + "/fulmar/queue.db";
  if (const auto home = environment("HOME"); home && home->starts_with('/'))
    return "sqlite:" + *home + "/.local/share/fulmar/queue.db";
  return {};
}

// What several options together must not be.
std::string contradiction(const Options& o) {
  switch (o.command) {
    case add:
      if (o.lines && o.payload_lines) return "--lines and --payload-lines cannot be used together";
      if ((o.lines || o.payload_lines) && !o.arguments.empty())
        return "a payload and --lines cannot be used together";
      if ((o.lines || o.payload_lines) && (!o.item.id.empty() || !o.item.unique_key.empty()))
        return "--id and --unique-key belong to one item; with --lines each line has its own";
      if (o.file && !o.arguments.empty()) return "the payload is there twice: as an argument and as --file";
      if (o.ids && !o.lines && !o.payload_lines) return "--ids goes with --lines or --payload-lines";
      return {};
    case complete:
      if (!o.result.empty() && o.arguments.size() > 1) return "--result belongs to one lease";
      return {};
    case retry:
      if (o.all != o.arguments.empty())
        return o.all ? "--all and ids cannot be used together" : "nothing to retry: name ids, or give --all";
      if (!o.all && !o.claim.types.empty()) return "--type goes with --all";
      return {};
    case purge:
      for (const auto status : o.statuses)
        if (queue::is_live(status))
          return "--status " + std::string(to_string(status)) +
                 " of purge: only what is completed, failed or cancelled is purged; cancel it first";
      return {};
    case work:
      if (o.program.empty()) return "no command given: fulmar queue work [options] -- COMMAND [ARG...]";
      return {};
    case next:
      if (o.peek && o.wait) return "--peek and --wait cannot be used together";
      return {};
    default: return {};
  }
}

}  // namespace

std::span<const QueueCommandRow> queue_commands() { return command_rows; }
std::span<const QueueOptionRow> queue_option_rows() { return option_rows; }

const QueueCommandRow& row_of(QueueCommand command) {
  return *std::ranges::find(command_rows, command, &QueueCommandRow::command);
}

std::optional<QueueCommand> queue_command_of(std::string_view word) {
  if (word == "claim") return next;
  const auto row = std::ranges::find(command_rows, word, &QueueCommandRow::name);
  return row == command_rows.end() ? std::nullopt : std::optional(row->command);
}

ParsedQueue parse_queue(std::span<const std::string_view> words, const QueueEnvironment& environment,
                        Time now) {
  ParsedQueue parsed;
  const auto wrong = [&](std::string text) {
    parsed.error = std::move(text);
    return parsed;
  };
  if (words.empty()) return wrong("no command given: add, work, list, stats, ...");
  if (words.front() == "--help") {
    parsed.help = true;
    return parsed;
  }
  parsed.command = queue_command_of(words.front());
  if (!parsed.command) {
    std::vector<std::string_view> names{"claim"};
    for (const auto& row : command_rows) names.push_back(row.name);
    const auto meant = near_miss(words.front(), names);
    return wrong("unknown command " + in_quotes(words.front()) +
                 (meant.empty() ? "" : ", did you mean " + in_quotes(meant) + "?"));
  }
  Options options;
  options.command = *parsed.command;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const auto word = words[i];
    if (word == "--") {
      auto& rest = options.command == work ? options.program : options.arguments;
      rest.insert(rest.end(), words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
      break;
    }
    if (word.size() < 2 || word[0] != '-') {
      options.arguments.emplace_back(word);
      continue;
    }
    const auto row = std::ranges::find_if(option_rows, [&](const QueueOptionRow& one) {
      return one.name == word && one.belongs_to(options.command);
    });
    if (row == option_rows.end()) return wrong(unknown_option(word, options.command));
    if (!row->take) {
      parsed.help = true;
      return parsed;
    }
    if (!row->value.empty() && i + 1 == words.size())
      return wrong(std::string(word) + " needs a value: " + std::string(word) + " " +
                   std::string(row->value));
    if (auto text = row->take(options, row->value.empty() ? "" : words[++i], now); !text.empty())
      return wrong(std::move(text));
  }
  if (options.command == work && !options.arguments.empty())
    return wrong("unexpected " + in_quotes(options.arguments[0]) +
                 ": the command to run comes after --: fulmar queue work -- " + options.arguments[0]);
  if (auto text = wrong_arguments(row_of(options.command), options); !text.empty())
    return wrong(std::move(text));
  if (auto text = contradiction(options); !text.empty()) return wrong(std::move(text));
  if (options.command == repair && !options.arguments.empty()) {
    if (!options.url.empty())
      return wrong("the store is there twice: as --queue and as " + in_quotes(options.arguments[0]));
    options.url = options.arguments[0];
  }
  if (options.url.empty() && options.command != migrate) options.url = default_url(environment, options);
  if (options.url.empty() && options.command != migrate)
    return wrong("which queue? neither --queue nor FULMAR_QUEUE nor HOME is set: add --queue sqlite:PATH");
  parsed.options = std::move(options);
  return parsed;
}

// --- settings ---------------------------------------------------------------------------------------------------------

namespace {

struct Setting {
  std::string_view name;
  std::string (*get)(const Settings&);
  bool (*set)(Settings&, std::string_view);
  std::string_view expects;
};

template <auto Member>
constexpr Setting duration_setting(std::string_view name) {
  return {name, [](const Settings& s) { return duration_text(s.*Member); },
          [](Settings& s, std::string_view text) {
            const auto value = parse_duration(text);
            if (value) s.*Member = *value;
            return value.has_value();
          },
          "a time span, e.g. 30s"};
}
template <auto Member>
constexpr Setting optional_duration_setting(std::string_view name) {
  return {name, [](const Settings& s) { return s.*Member ? duration_text(*(s.*Member)) : "for ever"; },
          [](Settings& s, std::string_view text) {
            const auto value = parse_duration(text);
            const bool none = text == "none" || text == "for ever";
            if (value || none) s.*Member = value;
            return value || none;
          },
          "a time span, e.g. 7d, or none: they are kept for ever"};
}
template <auto Member>
constexpr Setting optional_count_setting(std::string_view name) {
  return {name, [](const Settings& s) { return s.*Member ? std::to_string(*(s.*Member)) : "none"; },
          [](Settings& s, std::string_view text) {
            const auto value = number_of<std::uint64_t>(text);
            if (value || text == "none") s.*Member = value;
            return value || text == "none";
          },
          "a whole number, or none"};
}

constexpr auto all_settings = std::to_array<Setting>({
    optional_count_setting<&Settings::max_size>("max_size"),
    {"default_max_retries", [](const Settings& s) { return std::to_string(s.default_max_retries); },
     [](Settings& s, std::string_view text) {
       const auto value = number_of<int>(text);
       if (value) s.default_max_retries = *value;
       return value.has_value();
     },
     "a whole number, 1 or more"},
    duration_setting<&Settings::lease>("lease"),
    duration_setting<&Settings::backoff_min>("backoff_min"),
    duration_setting<&Settings::backoff_max>("backoff_max"),
    optional_duration_setting<&Settings::keep_completed>("keep_completed"),
    optional_duration_setting<&Settings::keep_failed>("keep_failed"),
    optional_count_setting<&Settings::keep_finished_max>("keep_finished_max"),
    {"durability", [](const Settings& s) { return std::string(to_string(s.durability)); },
     [](Settings& s, std::string_view text) {
       const auto value = queue::parse_durability(text);
       if (value) s.durability = *value;
       return value.has_value();
     },
     "commit, interval or none"},
    duration_setting<&Settings::sync_interval>("sync_interval"),
    {"durable_claim", [](const Settings& s) { return std::string(s.durable_claim ? "yes" : "no"); },
     [](Settings& s, std::string_view text) {
       const bool yes = text == "yes" || text == "true";
       if (yes || text == "no" || text == "false") return s.durable_claim = yes, true;
       return false;
     },
     "yes or no"},
});

}  // namespace

std::vector<std::pair<std::string, std::string>> settings_text(const Settings& settings) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& one : all_settings) all.emplace_back(one.name, one.get(settings));
  return all;
}

std::string change_setting(Settings& settings, std::string_view assignment) {
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos)
    return "invalid setting " + in_quotes(assignment) + ": expected NAME=VALUE, e.g. lease=30s";
  const auto name = assignment.substr(0, equals);
  const auto value = assignment.substr(equals + 1);
  const auto one = std::ranges::find(all_settings, name, &Setting::name);
  if (one == all_settings.end()) {
    std::vector<std::string_view> names;
    for (const auto& setting : all_settings) names.push_back(setting.name);
    const auto meant = near_miss(name, names);
    return "unknown setting " + in_quotes(name) +
           (meant.empty() ? "" : ", did you mean " + in_quotes(meant) + "?");
  }
  if (one->set(settings, value)) return {};
  return "invalid value " + in_quotes(value) + " for " + std::string(name) + ": expected " +
         std::string(one->expects);
}

// --- leases -----------------------------------------------------------------------------------------------------------

std::string lease_text(const queue::LeaseKey& lease) {
  std::string digits(16, '0');
  auto token = lease.token;
  for (std::size_t i = digits.size(); i-- > 0; token >>= 4) digits[i] = "0123456789abcdef"[token & 15];
  return lease.id + ":" + digits;
}

std::optional<queue::LeaseKey> parse_lease(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || text.size() - colon - 1 != 16) return std::nullopt;
  queue::LeaseKey lease{.id = std::string(text.substr(0, colon)), .token = 0};
  const auto digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), lease.token, 16);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return lease;
}

}  // namespace fulmar::cli
