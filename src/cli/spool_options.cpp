#include "cli/spool_options.hpp"

#include <algorithm>
#include <vector>

#include "base/near_miss.hpp"

namespace fulmar::cli {
namespace {

struct Switch {
  std::string_view name;
  bool SpoolOptions::* target;  // none: --help
  std::string_view help;
  unsigned of = ~0u;  // the commands that have it, a bit each

  static constexpr unsigned bit(SpoolCommand command) { return 1u << static_cast<unsigned>(command); }
  bool belongs_to(SpoolCommand command) const { return (of & bit(command)) != 0; }
};

constexpr auto switches = std::to_array<Switch>({
    {"--json", &SpoolOptions::json, "print one JSON object instead of the table",
     Switch::bit(SpoolCommand::inspect)},
    {"--all", &SpoolOptions::all, "also messages that are acknowledged and not overwritten yet",
     Switch::bit(SpoolCommand::export_messages)},
    {"--yes", &SpoolOptions::yes, "do it; without it purge only tells what it would remove",
     Switch::bit(SpoolCommand::purge)},
    {"--bad", &SpoolOptions::bad, "remove the files that were set aside as damaged, and no message",
     Switch::bit(SpoolCommand::purge)},
    {"--quiet", &SpoolOptions::quiet, "no progress on the terminal"},
    {"--help", nullptr, "this text"},
});

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

std::string meant_by(std::string_view word, std::span<const std::string_view> names) {
  const auto meant = near_miss(word, names);
  return meant.empty() ? "" : ", did you mean " + quoted(meant) + "?";
}

std::string switch_lines(SpoolCommand command) {
  constexpr std::size_t column = 12;
  std::string lines = "\nOptions:\n";
  for (const auto& row : switches) {
    if (!row.belongs_to(command)) continue;
    std::string line = "  " + std::string(row.name);
    line.append(column - std::min(column, line.size()), ' ');
    lines += line + row.help.data() + "\n";
  }
  return lines;
}

std::string unknown_switch(std::string_view word, SpoolCommand command) {
  const std::string start = "unknown option " + quoted(word);
  if (const auto row = std::ranges::find(switches, word, &Switch::name); row != switches.end()) {
    const auto other =
        std::ranges::find_if(spool_commands, [&](SpoolCommand one) { return row->belongs_to(one); });
    return start + ": it belongs to fulmar spool " + std::string(name_of(*other));
  }
  std::vector<std::string_view> names;
  for (const auto& row : switches)
    if (row.belongs_to(command)) names.push_back(row.name);
  return start + meant_by(word, names);
}

constexpr std::string_view inspect_text = R"(fulmar spool inspect: what is in a spool.

Usage: fulmar spool inspect DIR [--json] [--quiet]

Reads every file and writes none; a process may be using the spool meanwhile.
)";
constexpr std::string_view inspect_examples = R"(
Examples:
  fulmar spool inspect /var/lib/app/spool

    spool /var/lib/app/spool, in use by process 4711
      waiting  1200 messages, 240.1 KiB; the oldest for 2 h 13 min (since 2026-01-02 03:04:05)
      cursor   acknowledged up to 150, and 3 above; the next message gets 1354
      files    2 segments, 1 spare, 0 set aside; 12.0 MiB

    FILE                  STATE         MESSAGES  WAITING      SIZE  BEGUN
    0000000000000001.seg  waiting            800      647   4.0 MiB  2026-01-02 03:02:11
    ...

  fulmar spool inspect DIR --json | jq .waiting          1200

Exit codes: 0 success, also when there is damage; 1 no such folder, no spool, another version, no permission.
)";

constexpr std::string_view verify_text = R"(fulmar spool verify: is a spool sound?

Usage: fulmar spool verify DIR [--quiet]

Checks the headers, every checksum and the numbers for gaps. Reads every file and writes none; a process may be
using the spool meanwhile. Files set aside earlier (*.bad) are told and do not count.
)";
constexpr std::string_view verify_examples = R"(
Examples:
  fulmar spool verify /var/lib/app/spool

    sound: 1353 messages in 2 segments, 1200 waiting; 8.0 MiB read in 0.1 s

  or, with exit code 65, a line for each finding and the sum:

    0000000000000001.seg: message 17, which was waiting, is missing: damaged, or never synced
    damaged: 1 finding, 1 waiting message lost; 1352 messages in 2 segments are sound, 1199 waiting

Exit codes: 0 sound; 65 damaged; 1 no such folder, no spool, another version, no permission.
)";

constexpr std::string_view export_text = R"(fulmar spool export: the messages that wait, as JSON lines.

Usage: fulmar spool export DIR [--all] [--quiet] > messages.jsonl

Oldest first, a line each. Reads every file and writes none; a process may be using the spool meanwhile.
)";
constexpr std::string_view export_examples = R"(
Examples:
  fulmar spool export /var/lib/app/spool

    {"tst":"2026-01-02T03:04:05.678000Z+0000","topic":"rig/7","qos":1,"retain":0,"payloadlen":2,"payload":"21",
     "sequence":151,"acknowledged":false,"released":false}                                       (in one line)

  fulmar spool export DIR | jq -r 'select(.payload) | .topic + " " + .payload'
  fulmar spool export DIR --all | wc -l

tst is the time of storing. A payload that is not UTF-8 is in "payload_base64" instead; "properties" and "expires"
are there when the message has them. docs/cli.md describes every member.

Exit codes: 0 success; 65 all that is readable was printed, but messages are missing; 1 nothing to read, or to print to.
)";

constexpr std::string_view purge_text = R"(fulmar spool purge: throw away what waits in a spool.

Usage: fulmar spool purge DIR --yes [--quiet]
       fulmar spool purge DIR --bad --yes

The messages that wait are not delivered any more. No process may be using the spool. The last file stays, with
nothing in it that waits: numbers go on where they were.
)";
constexpr std::string_view purge_examples = R"(
Examples:
  fulmar spool purge /var/lib/app/spool               tells what it would remove, and fails
  fulmar spool purge /var/lib/app/spool --yes

    purged 1200 waiting messages; 4.0 MiB freed, 8.0 MiB kept for what comes

  fulmar spool purge /var/lib/app/spool --bad --yes

    removed 0000000000000002.seg.bad
    removed 1 file set aside; 4.0 MiB freed

Exit codes: 0 success; 1 not done: without --yes, in use by a process, no such folder, no spool, no permission.
)";

}  // namespace

std::string_view name_of(SpoolCommand command) {
  switch (command) {
    case SpoolCommand::inspect: return "inspect";
    case SpoolCommand::verify: return "verify";
    case SpoolCommand::export_messages: return "export";
    case SpoolCommand::purge: return "purge";
  }
  return "";
}

ParsedSpool parse_spool(std::span<const std::string_view> words) {
  ParsedSpool parsed;
  const auto wrong = [&](std::string text) {
    parsed.error = std::move(text);
    return parsed;
  };
  if (words.empty()) return wrong("no command given: inspect, verify, export or purge");
  if (words.front() == "--help") {
    parsed.help = true;
    return parsed;
  }
  const auto command =
      std::ranges::find(spool_commands, words.front(), [](SpoolCommand one) { return name_of(one); });
  if (command == spool_commands.end()) {
    std::vector<std::string_view> names;
    for (const auto one : spool_commands) names.push_back(name_of(one));
    return wrong("unknown command " + quoted(words.front()) + meant_by(words.front(), names));
  }
  parsed.command = *command;
  SpoolOptions options;
  options.command = *command;
  bool switches_end = false;
  bool named = false;
  for (const auto word : words.subspan(1)) {
    if (!switches_end && word == "--") {
      switches_end = true;
    } else if (!switches_end && word.starts_with('-')) {
      const auto row = std::ranges::find(switches, word, &Switch::name);
      if (row == switches.end() || !row->belongs_to(*command)) return wrong(unknown_switch(word, *command));
      if (!row->target) {
        parsed.help = true;
        return parsed;
      }
      options.*row->target = true;
    } else if (named) {
      return wrong("one folder at a time: " + quoted(options.directory) + " and " + quoted(word));
    } else {
      options.directory = word;
      named = true;
    }
  }
  if (options.directory.empty()) {
    return wrong("no folder given: fulmar spool " + std::string(name_of(*command)) +
                 " DIR, the spool_dir of the client");
  }
  parsed.options = std::move(options);
  return parsed;
}

std::string spool_help() {
  return R"(fulmar spool: look into the folder in which messages wait on disk (ClientConfig::spool_dir).

Usage: fulmar spool <command> DIR [options]

Commands:
  inspect  what is in it             fulmar spool inspect /var/lib/app/spool
  verify   is it sound?              fulmar spool verify /var/lib/app/spool
  export   the messages as JSON      fulmar spool export /var/lib/app/spool > messages.jsonl
  purge    throw the messages away   fulmar spool purge /var/lib/app/spool --yes

  --help   this text; of a command: fulmar spool inspect --help

Exit codes: 0 success; 1 failure; 65 verify and export: the spool is damaged.
)";
}

std::string spool_help(SpoolCommand command) {
  const auto assembled = [&](std::string_view head, std::string_view examples) {
    return std::string(head) + switch_lines(command) + std::string(examples);
  };
  switch (command) {
    case SpoolCommand::inspect: return assembled(inspect_text, inspect_examples);
    case SpoolCommand::verify: return assembled(verify_text, verify_examples);
    case SpoolCommand::export_messages: return assembled(export_text, export_examples);
    case SpoolCommand::purge: return assembled(purge_text, purge_examples);
  }
  return {};
}

}  // namespace fulmar::cli
