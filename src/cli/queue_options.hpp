#pragma once
// The words of `fulmar queue <command> [arguments] [options]`: one table of commands and one of options, for parsing and for
// the help texts (queue_help.cpp).
//
// Grammar: the command comes first; arguments and options follow in any order. An option takes its value from the word
// that follows, whatever that looks like. "--" ends the options; for `work` what follows it is the command to run. The
// first mistake ends the parsing.
//
// Thread-safety: pure functions; plain values.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/queue_types.hpp"
#include "fulmar/result.hpp"
#include "queue/item_files.hpp"

namespace fulmar::cli {

enum class QueueCommand : std::uint8_t {
  add,
  next,
  complete,
  fail,
  extend,
  release,
  cancel,
  retry,
  remove,
  list,
  show,
  stats,
  watch,
  work,
  import_items,
  export_items,
  migrate,
  repair,
  purge,
  pause,
  resume,
  settings,
  queues,
};

struct QueueCommandRow {
  QueueCommand command;
  std::string_view name;
  std::string_view arguments;  // as the usage line has them
  std::string_view purpose;
  std::size_t arguments_min;
  std::size_t arguments_max;
};
std::span<const QueueCommandRow> queue_commands();  // in the order of the help
const QueueCommandRow& row_of(QueueCommand command);
std::optional<QueueCommand> queue_command_of(std::string_view word);  // also "claim", for next

struct QueueCommandOptions {
  static constexpr std::size_t unlimited = static_cast<std::size_t>(-1);

  QueueCommand command{};
  std::vector<std::string> arguments;
  std::string url;
  bool url_is_default = false;  // a file in the user's data folder
  std::string name;
  std::optional<queue::Durability> durability;
  std::chrono::milliseconds lock_timeout{10'000};
  bool quiet = false;
  bool json = false;

  queue::NewItem item;  // add: what all items have that do not say otherwise
  std::optional<std::string> file;
  bool lines = false;
  bool payload_lines = false;
  bool ids = false;

  queue::ClaimRequest claim;            // next, work; `types` also of list, export, purge, retry
  std::optional<queue::Duration> wait;  // next
  bool peek = false;                    // next
  std::string result;                   // complete
  std::string error = "failed by 'fulmar queue fail'";  // fail
  std::optional<queue::Duration> retry_in;              // fail, work
  bool for_good = false;                                // fail
  bool all = false;                                     // retry

  std::vector<queue::Status> statuses;                 // list, export, purge
  std::optional<std::size_t> limit;                    // list; unlimited = all
  bool newest_first = false;                           // list
  bool blocked = false;                                // list
  std::optional<queue::Time> before;                   // purge
  bool yes = false;                                    // purge
  queue::Duration interval = std::chrono::seconds(1);  // watch
  std::uint64_t count = 0;                             // watch, work; 0 = no end

  std::vector<std::string> program;           // work
  std::size_t jobs = 1;                       // work
  std::optional<queue::Duration> time_limit;  // work
  bool until_empty = false;                   // work
  bool take_result = false;                   // work

  std::optional<queue::ItemFormat> format;  // import, export
  queue::OnConflict on_conflict = queue::OnConflict::refuse;
  bool dry_run = false;
  std::string output;  // export; empty = stdout
};

struct ParsedQueue {
  std::optional<QueueCommandOptions> options;  // set when all is well
  bool help = false;                           // --help: of `command`, or of all
  std::optional<QueueCommand> command;         // as far as it is known
  std::string error;                           // else: one line without "Error: "
};
// `environment` is asked for FULMAR_QUEUE when --queue is not given, and for XDG_DATA_HOME and HOME then.
using QueueEnvironment = std::function<std::optional<std::string>(std::string_view name)>;
ParsedQueue parse_queue(std::span<const std::string_view> words, const QueueEnvironment& environment,
                        queue::Time now);

struct QueueOptionRow {
  std::string_view name;
  std::string_view value;  // what follows it; empty = a switch
  std::string_view help;
  std::uint32_t of;  // the commands that have it, a bit each
  // Puts the value where it belongs; the text of the problem when it cannot.
  std::string (*take)(QueueCommandOptions& options, std::string_view value, queue::Time now);

  bool belongs_to(QueueCommand command) const { return (of >> static_cast<unsigned>(command) & 1) != 0; }
};
std::span<const QueueOptionRow> queue_option_rows();

// The settings of a queue by name: "max_size", "lease", ...
std::vector<std::pair<std::string, std::string>> settings_text(const queue::Settings& settings);
// "lease=30s"; the text of the problem when it cannot.
std::string change_setting(queue::Settings& settings, std::string_view assignment);

// A lease on the command line: "ID:TOKEN", 16 hexadecimal digits.
std::string lease_text(const queue::LeaseKey& lease);
std::optional<queue::LeaseKey> parse_lease(std::string_view text);

// The texts of --help.
std::string queue_help();
std::string queue_help(QueueCommand command);

}  // namespace fulmar::cli
