// The texts of `fulmar queue --help`.
#include <algorithm>
#include <array>

#include "cli/queue_options.hpp"

namespace fulmar::cli {
namespace {

using enum QueueCommand;

constexpr std::string_view store_text = R"(
Which queue: --queue URL, else the environment variable FULMAR_QUEUE, else sqlite:~/.local/share/fulmar/queue.db
(in XDG_DATA_HOME where that is set).
  sqlite:PATH           one machine, many processes
  yaml:PATH             a file that people read and edit; for some hundred items
  postgresql://HOST/DB  many machines
One store holds many queues: --name; the first is called "default".
)";

constexpr std::string_view exit_text = R"(
Exit codes: 0 success; 1 a mistake on the command line; 10 next: nothing to claim;
11 no such item or store; 12 the item's state does not allow it; 13 the lease is lost; 14 the queue is full;
15 there already; 16 no item: not JSON, too large, a cycle; 17 the store cannot be read or written, or did not
answer in time; 18 the store was made by a newer version; 65 the store is damaged, or lines of the input are no items.
)";

struct Text {
  QueueCommand command;
  std::string_view about;
  std::string_view examples;
};

constexpr auto texts = std::to_array<Text>({
    {add,
     R"(The payload is a JSON object of at most 1 MiB: the argument, or --file, or stdin with -; without one it is {}.
Prints the id. When it has returned, the item survives a power cut (--durability commit).

With --lines each line of stdin is an item: a JSON object with payload, type, priority, at, in, max_retries, metadata,
unique_key, depends_on and id, all of them optional; the options say what a line leaves out. Lines that are no items
are told and left out; the exit code is 65 then. Lines that come fast are handed in together, slow ones one by one.
)",
     R"(  fulmar queue add '{"image":17}' --type resize --priority high
  fulmar queue add --in 5m --unique-key nightly '{"job":"report"}'
  fulmar queue add --at 2026-02-06T10:00:00+01:00 --file job.json
  fulmar queue add --depends-on 0G2M1V5T0C3XA,0G2M1V5T0C3XB '{"step":3}'
  seq 1000 | jq -c '{payload: {n: .}, priority: (. % 10)}' | fulmar queue add --lines
)"},
    {work,
     R"(Claims items, and runs COMMAND for each: in a process group of its own, with the payload on stdin and in the environment
  FULMAR_ITEM_ID, _TYPE, _ATTEMPT (1 = the first), _MAX_RETRIES, _PRIORITY, _CREATED_AT, _METADATA (JSON), _LEASE
  FULMAR_QUEUE, FULMAR_QUEUE_NAME    so that 'fulmar queue add' in the command hands in to the same queue

How the command ends decides:
  exit code 0    the item is completed; with --result, what it wrote to stdout is kept (JSON, or a text)
  exit code 75   not now: the next attempt comes after --retry-in
  exit code 65   never: no more attempts
  anything else  the attempt failed; the next one comes after a pause that grows
The error of a failed attempt is the exit code and the last lines of stderr.

The lease is extended while the command runs. When it is lost all the same, the command is killed, with what it has
started; so it is when this worker dies, by kill -9 too. The item is then claimed by another worker.
Ctrl-C or SIGTERM: claims no more and waits for the commands that run. A second one kills them, and their items are
given back at once, without an attempt counted; the exit code is the signal's then.
)",
     R"(  fulmar queue work -- ./resize.sh                       one at a time, until Ctrl-C
  fulmar queue work --jobs 4 --type resize -- ./resize.sh
  fulmar queue work --until-empty --time-limit 10m -- sh -c 'jq .image | xargs -I{} convert {}.png {}.jpg'
)"},
    {list,
     R"(In the order of submission. A pending item is "scheduled" before its time, "waiting" for items it depends on, and
"blocked" when one of these has failed. With --json a line for each, as export writes it.
)",
     R"(  fulmar queue list
  fulmar queue list --status failed                      the dead letters
  fulmar queue list --json --limit all | jq -r 'select(.priority > 5) | .id'
)"},
    {show, "", R"(  fulmar queue show 0G2M1V5T0C3XA
  fulmar queue show 0G2M1V5T0C3XA --json | jq .payload
)"},
    {stats, "Counted from the items themselves, as of one moment.\n",
     R"(  fulmar queue stats
  fulmar queue stats --json | jq .pending
)"},
    {watch, "On a terminal a screen that is written over, else a line each time. Ctrl-C ends it.\n",
     R"(  fulmar queue watch
  fulmar queue watch --interval 10s >> queue.log
)"},
    {next,
     R"(Claims the most urgent items and prints a line of JSON for each: "lease", which complete, fail, extend and release take,
"until", and the item. The item comes back when its lease is over. Exit code 10: there was nothing.
)",
     R"~(  item=$(fulmar queue next --wait 1h --lease 10m) && echo "$item" | jq .payload
  fulmar queue complete "$(echo "$item" | jq -r .lease)"
  fulmar queue next --peek --items 10                    what would come, without claiming it
)~"},
    {complete, "LEASE is what next printed as \"lease\": ID:TOKEN.\n",
     R"(  fulmar queue complete 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d
  fulmar queue complete 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d --result '{"bytes":4711}'
)"},
    {QueueCommand::fail,
     R"(While there are attempts left the item is pending again, after a pause that doubles with each; then it has failed, and
stays as a dead letter. LEASE is what next printed as "lease".
)",
     R"(  fulmar queue fail 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d --error 'no such image' --for-good
  fulmar queue fail 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d --retry-in 10m
)"},
    {extend, "Prints until when the item is reserved now. LEASE is what next printed as \"lease\".\n",
     "  fulmar queue extend 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d --lease 10m\n"},
    {release,
     "It is pending again at once, and no attempt is counted. LEASE is what next printed as \"lease\".\n",
     "  fulmar queue release 0G2M1V5T0C3XA:5d0c1f2e3a4b5c6d\n"},
    {cancel, "What is pending or processing. A worker that has it is told that its lease is lost.\n",
     "  fulmar queue cancel 0G2M1V5T0C3XA\n"},
    {retry, "What has failed or was cancelled is pending again, with all its attempts.\n",
     R"(  fulmar queue retry 0G2M1V5T0C3XA
  fulmar queue retry --all --type resize                 all failed ones of this type
)"},
    {remove, "Not what is being worked on, nor what a live item waits for.\n",
     "  fulmar queue remove 0G2M1V5T0C3XA\n"},
    {purge,
     "Without --yes it tells how many it would delete, and exits with 1. What a live item waits for stays.\n",
     R"(  fulmar queue purge --status completed --older-than 7d
  fulmar queue purge --status completed --older-than 7d --yes
)"},
    {pause,
     "Items are still handed in, and what is claimed is finished. It holds for all workers, and after a "
     "restart.\n",
     "  fulmar queue pause\n"},
    {resume, "Ends a pause: items are claimed again.\n", "  fulmar queue resume\n"},
    {settings,
     R"(They are kept in the store, so that every program works by the same:
  max_size             live items at most, then the queue is full; none
  default_max_retries  attempts in all, of items that do not say otherwise
  lease                how long an item is reserved for a worker that does not say otherwise
  backoff_min, _max    the pause after the first failed attempt; it doubles up to the second
  keep_completed, keep_failed, keep_finished_max   finished items are deleted after this time, and above this number
  durability           commit: on the disk when a command returns; interval: within sync_interval; none
  durable_claim        yes: an attempt is counted even when the machine goes down with it
)",
     R"(  fulmar queue settings
  fulmar queue settings max_size=10000 lease=5m keep_completed=7d
)"},
    {queues, "", "  fulmar queue queues --queue sqlite:jobs.db\n"},
    {export_items,
     R"(YAML for people: one document that the yaml: store reads, too. JSON lines for programs: one item a line.
)",
     R"(  fulmar queue export --output queue.yaml
  fulmar queue export --format json --status failed | jq -r .error_message | sort | uniq -c
)"},
    {import_items,
     R"(FILE is what export wrote, perhaps edited, or - for stdin. Ids, states and times stay as they are. All or nothing: an
error names the line and the column. Older shapes are read, too: lists under tasks: or queue:, CRITICAL to LOW,
in_progress, blockedBy, dependencies, task_id. Without --name items go to the queue that the file names.
)",
     R"(  fulmar queue import queue.yaml --dry-run
  fulmar queue import queue.yaml --on-conflict replace
)"},
    {migrate,
     R"(Every queue with its settings, or only --name; ids, states and times stay as they are. All or nothing, and counted again
in the end. FROM is not changed; stop its workers first.
)",
     R"(  fulmar queue migrate yaml:tasks.yaml sqlite:tasks.db --dry-run
  fulmar queue migrate yaml:tasks.yaml sqlite:tasks.db
)"},
    {repair,
     R"(yaml: a file that does not parse is set aside, and its backup takes its place. sqlite: a damaged file is set aside, and
what is readable of it is carried over. A store that is sound is left as it is.
)",
     "  fulmar queue repair yaml:tasks.yaml\n"},
});

std::string padded(std::string text, std::size_t width) {
  text.append(width - std::min(width, text.size()), ' ');
  return text;
}

std::string option_lines(QueueCommand command) {
  std::string lines = "\nOptions:\n";
  for (const auto& row : queue_option_rows()) {
    if (!row.belongs_to(command)) continue;
    const std::string name =
        "  " + std::string(row.name) + (row.value.empty() ? "" : " " + std::string(row.value));
    lines += padded(name, 23) + (name.size() >= 23 ? "  " : "") + std::string(row.help) + "\n";
  }
  return lines;
}

}  // namespace

std::string queue_help() {
  std::string text = R"(fulmar queue: work that is not forgotten, and not done twice at the same time.

Usage: fulmar queue <command> [options]

Commands:
)";
  for (const auto& row : queue_commands())
    text +=
        padded("  " + std::string(row.name) + (row.arguments.empty() ? "" : " " + std::string(row.arguments)),
               29) +
        std::string(row.purpose) + "\n";
  text += R"(
  --help   this text; of a command: fulmar queue add --help
)";
  text += store_text;
  text += R"(
A first minute:
  fulmar queue add '{"image":17}'                        prints the id
  fulmar queue work -- sh -c 'cat; echo " done"'         in a second terminal; Ctrl-C ends it
  fulmar queue stats
)";
  return text + std::string(exit_text);
}

std::string queue_help(QueueCommand command) {
  const auto& row = row_of(command);
  const auto& words = *std::ranges::find(texts, command, &Text::command);
  std::string text = "fulmar queue " + std::string(row.name) + ": " + std::string(row.purpose) +
                     ".\n\nUsage: fulmar queue " + std::string(row.name) + " [options]" +
                     (row.arguments.empty() ? "" : " " + std::string(row.arguments)) + "\n";
  if (!words.about.empty()) text += "\n" + std::string(words.about);
  text += option_lines(command);
  text += "\nExamples:\n" + std::string(words.examples);
  return text + std::string(store_text) + std::string(exit_text);
}

}  // namespace fulmar::cli
