#pragma once
// The daemon's configuration: one table of keys, three places they can come from. Flags win over the environment, the
// environment over the TOML file, the file over the defaults.
//
// In strings of the file ${NAME} is the environment variable NAME, ${NAME:default} has a default, and $${ is a plain ${.
// Every problem is found in one go, each on a line that names the key, the place, the value and what was expected.
//
// Thread-safety: plain values and pure functions; load_config() reads files.

#include <cstdint>
#include <expected>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/queue_keeper.hpp"
#include "fulmar/client_config.hpp"
#include "fulmar/telemetry.hpp"
#include "telemetry/host_source.hpp"
#include "telemetry/line_source.hpp"

namespace fulmar::daemon {

struct DaemonConfig {
  DaemonConfig();  // the daemon's defaults where they differ from the library's

  ClientConfig mqtt;
  std::optional<std::filesystem::path> password_file{};
  bool telemetry_enabled = false;
  TelemetryConfig telemetry;
  bool host_enabled = true;
  telemetry::HostSource::Config host;
  std::string source = "host";            // "host", or what `lines` reads: "-" or a path
  telemetry::LineSource::Config lines{};  // without its path
  QueueKeeper::Config queue;
  std::string log_level = "info";  // trace, debug, info, warning, error, off
  std::string log_file{};          // empty = standard error
};

struct ConfigSources {
  std::optional<std::filesystem::path> file{};
  std::vector<std::pair<std::string, std::string>> environment{};  // everything, name and value
  std::vector<std::pair<std::string, std::string>> flags{};        // "telemetry.batch_size", "200"
  bool live = false;    // telemetry is on unless something else is said
  bool broker = false;  // the daemon brings a broker of its own when no URL is given
};

struct LoadedConfig {
  DaemonConfig config;
  bool needs_broker = false;  // no URL was given, and `broker` was
  // The effective configuration as a TOML document that says in comments where each value came from; secrets redacted.
  std::string effective;
};

std::expected<LoadedConfig, std::vector<std::string>> load_config(const ConfigSources& sources);

std::vector<std::pair<std::string, std::string>> process_environment();

// ${NAME}, ${NAME:default} and $${. The error is the text of the problem.
using Lookup = std::function<std::optional<std::string>(std::string_view name)>;
std::expected<std::string, std::string> substitute(std::string_view text, const Lookup& lookup);

// The URL without its password.
std::string redacted_url(std::string_view url);

}  // namespace fulmar::daemon
