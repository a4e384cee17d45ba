// fulmar: the command line.

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "base/near_miss.hpp"
#include "cli/exit_code.hpp"
#include "cli/help.hpp"
#include "cli/pub.hpp"
#include "cli/queue.hpp"
#include "cli/queue_options.hpp"
#include "cli/report.hpp"
#include "cli/spool.hpp"
#include "cli/spool_options.hpp"
#include "cli/sub.hpp"
#include "cli/telemetry.hpp"

namespace fulmar::cli {
namespace {

int print(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return written ? exit_success : exit_failure;
}

std::optional<std::string> environment(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

template <typename Options>
int run(Command command, const Parsed<Options>& parsed, int (*run_command)(const Options&)) {
  if (parsed.help) return print(help(command));
  if (!parsed.options) {
    Report::usage(name_of(command), parsed.error);
    return exit_failure;
  }
  return run_command(*parsed.options);
}

int unknown(std::string_view word) {
  constexpr auto names =
      std::to_array<std::string_view>({"pub", "sub", "telemetry", "spool", "queue", "help"});
  const auto meant = near_miss(word, names);
  const std::string hint = meant.empty() ? "" : ", did you mean '" + std::string(meant) + "'?";
  Report::usage("", "unknown command '" + std::string(word) + "'" + hint);
  return exit_failure;
}

int main_of(std::span<const std::string_view> words) {
  if (words.empty()) {
    Report::usage("", "no command given: pub, sub, telemetry, spool or queue");
    return exit_failure;
  }
  const auto command = words.front();
  const auto rest = words.subspan(1);
  if (command == "pub") return run(Command::pub, parse_pub(rest, environment), run_pub);
  if (command == "sub") return run(Command::sub, parse_sub(rest, environment), run_sub);
  if (command == "telemetry") {
    return run(Command::telemetry, parse_telemetry(rest, environment, isatty(STDIN_FILENO) == 1),
               run_telemetry);
  }
  if (command == "spool") return run_spool(rest);
  if (command == "queue") return run_queue(rest);
  if (command == "--version" || command == "version") return print(version());
  if (command != "help" && command != "--help") return unknown(command);
  if (rest.empty()) return print(help());
  for (const auto one : commands)
    if (rest.front() == name_of(one)) return print(help(one));
  if (rest.front() == "spool") {
    for (const auto one : spool_commands)
      if (rest.size() > 1 && rest[1] == name_of(one)) return print(spool_help(one));
    return print(spool_help());
  }
  if (rest.front() == "queue") {
    const auto one = rest.size() > 1 ? queue_command_of(rest[1]) : std::nullopt;
    return print(one ? queue_help(*one) : queue_help());
  }
  return unknown(rest.front());
}

}  // namespace
}  // namespace fulmar::cli

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  try {
    return fulmar::cli::main_of(words);
  } catch (const std::exception& error) {
    // Nothing of ours throws; this is memory, threads or descriptors running out.
    std::fprintf(stderr, "Error: %s\n", error.what());
    return fulmar::cli::exit_failure;
  }
}
