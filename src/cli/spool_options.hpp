#pragma once
// The words of `fulmar spool <command> DIR [options]` and the texts of its --help.
//
// Grammar: the command comes first; the folder and the switches follow in any order. "--" ends the switches, for a folder
// whose name begins with "-". The first mistake ends the parsing.
//
// Thread-safety: pure functions; plain values.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace fulmar::cli {

enum class SpoolCommand : std::uint8_t { inspect, verify, export_messages, purge };
inline constexpr std::array spool_commands{SpoolCommand::inspect, SpoolCommand::verify,
                                           SpoolCommand::export_messages, SpoolCommand::purge};
std::string_view name_of(SpoolCommand command);  // "inspect", "verify", "export", "purge"

struct SpoolOptions {
  SpoolCommand command{};
  std::string directory;
  bool json = false;   // inspect
  bool all = false;    // export: what is acknowledged, too
  bool yes = false;    // purge
  bool bad = false;    // purge: only the files set aside
  bool quiet = false;  // no progress
};

struct ParsedSpool {
  std::optional<SpoolOptions> options;  // set when all is well
  bool help = false;                    // --help: of `command`, or of all
  std::optional<SpoolCommand> command;  // as far as it is known
  std::string error;                    // else: one line without "Error: "
};
ParsedSpool parse_spool(std::span<const std::string_view> words);

std::string spool_help();
std::string spool_help(SpoolCommand command);

}  // namespace fulmar::cli
