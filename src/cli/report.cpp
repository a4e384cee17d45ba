#include "cli/report.hpp"

#include <unistd.h>

namespace fulmar::cli {
namespace {

void say(std::string line) {
  line += '\n';
  [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void Report::error(std::string_view text) const {
  if (!quiet_) say("Error: " + std::string(text));
}

void Report::warning(std::string_view text) const {
  if (!quiet_) say("Warning: " + std::string(text));
}

void Report::plain(std::string_view text) const {
  if (!quiet_) say(std::string(text));
}

void Report::usage(std::string_view command, std::string_view text) {
  const std::string name = command.empty() ? "fulmar" : "fulmar " + std::string(command);
  say("Error: " + std::string(text) + "\nUse '" + name + " --help' to see usage.");
}

}  // namespace fulmar::cli
