// fulmard: the daemon. Reads flags, puts the configuration together and runs.

#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "daemon/app.hpp"
#include "daemon/config.hpp"
#include "daemon/screen.hpp"

namespace {

using namespace fulmar::daemon;

constexpr std::string_view version = FULMAR_VERSION;

constexpr std::string_view footer =
    R"(Every key of the configuration can be set in the file, by the environment or by --set;
--check-config shows them all with their values and where these came from.

Examples:
  fulmard --live                                  try it: a broker of its own, this machine's measurements
  fulmard --live --url mqtt://broker.example      the same with your broker
  fulmard --config /etc/fulmar.toml               as a service
  fulmard --config /etc/fulmar.toml --check-config
  fulmard --live --rate-hz 1000 --set telemetry.batch_size=500

Exit codes: 0 stopped as asked, 1 cannot run, 2 bad flags or configuration, 3 stopped, but records were lost
or the broker was never reached, 130 second Ctrl-C.)";

struct Flags {
  std::string config;
  bool check_config = false;
  bool live = false;
  bool broker = false;
  std::optional<std::string> url, client_id, rate_hz, log_level;
  std::vector<std::string> set;
};

void declare(CLI::App& app, Flags& flags) {
  app.add_option("--config", flags.config, "Read this TOML file")
      ->envname("FULMAR_CONFIG")
      ->type_name("FILE");
  app.add_flag("--check-config", flags.check_config,
               "Print the effective configuration, or its problems, and exit");
  app.add_flag("--live", flags.live, "Show a live status; without a URL, run with a broker of its own");
  app.add_flag("--broker", flags.broker,
               "Without a URL, run with a broker of its own (mosquitto on a loopback port)");
  app.add_option("--url", flags.url, "Broker, as mqtt://[user[:password]@]host[:port]")->type_name("URL");
  app.add_option("--client-id", flags.client_id, "MQTT client identifier")->type_name("ID");
  app.add_option("--rate-hz", flags.rate_hz, "Samples of this machine per second, 0.1 to 1000")
      ->type_name("HZ");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warning, error or off")
      ->type_name("LEVEL");
  app.add_option("--set", flags.set, "Set any key, such as telemetry.batch_size=200; may be repeated")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
  app.set_version_flag("--version", fmt::format("fulmard {}", version));
  app.footer(std::string(footer));
}

// The flags as configuration; the text of the problem when one of --set is malformed.
std::optional<std::string> collect(const Flags& flags, ConfigSources& sources) {
  const auto add = [&](const char* key, const std::optional<std::string>& value) {
    if (value) sources.flags.emplace_back(key, *value);
  };
  add("mqtt.url", flags.url);
  add("mqtt.client_id", flags.client_id);
  add("telemetry.host.rate_hz", flags.rate_hz);
  add("log.level", flags.log_level);
  for (const std::string& text : flags.set) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) return fmt::format("--set {}: expected KEY=VALUE", text);
    sources.flags.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  if (!flags.config.empty()) sources.file = flags.config;
  sources.environment = process_environment();
  sources.live = flags.live;
  sources.broker = flags.live || flags.broker;
  return std::nullopt;
}

void complain(std::string_view text) { write_all(STDERR_FILENO, fmt::format("fulmard: {}\n", text)); }

int run(int argc, char** argv) {
  CLI::App app("fulmard sends measurements to an MQTT broker and never blocks the one who takes them.",
               "fulmard");
  Flags flags;
  declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app.exit(wanted);
  } catch (const CLI::ParseError& error) {
    complain(fmt::format("{}; fulmard --help lists the flags", error.what()));
    return exit_bad_config;
  }

  ConfigSources sources;
  if (const auto problem = collect(flags, sources)) {
    complain(*problem);
    return exit_bad_config;
  }
  auto loaded = load_config(sources);
  if (!loaded) {
    for (const std::string& problem : loaded.error()) complain(problem);
    return exit_bad_config;
  }
  if (flags.check_config) return write_all(STDOUT_FILENO, loaded->effective) ? exit_ok : exit_failed;
  return run_app({.loaded = std::move(*loaded), .live = flags.live, .version = version});
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    complain(error.what());
    return exit_failed;
  }
}
