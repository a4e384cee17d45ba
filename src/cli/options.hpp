#pragma once
// The options of `fulmar pub`, `fulmar sub` and `fulmar telemetry`: one table for parsing and for the help
// texts, with the names, the grammar and the checks of mosquitto_pub and mosquitto_sub 2.0.
//
// Grammar: every option is a word of its own and takes its values from the words that follow, whatever they
// look like (`-m -x` sends "-x"). Short options are not bundled, there is no `--name=value` and nothing but
// options. The first mistake ends the parsing.
//
// Thread-safety: pure functions; plain values.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fulmar/client_config.hpp"
#include "fulmar/result.hpp"
#include "fulmar/telemetry.hpp"
#include "telemetry/record_reader.hpp"

namespace fulmar::cli {

enum class Command : std::uint8_t { pub, sub, telemetry };
inline constexpr std::array commands{Command::pub, Command::sub, Command::telemetry};
std::string_view name_of(Command command);  // "pub", "sub", "telemetry"

// --- the table ---------------------------------------------------------------------------------------------

struct OptionRow {
  std::string_view short_name;  // "-h"; empty = none
  std::string_view long_name;   // "--host"; empty = none
  std::string_view value;       // what follows it, e.g. "host"; empty = a switch
  std::string_view help;
  unsigned of = ~0u;  // the commands that have it, a bit each

  static constexpr unsigned bit(Command command) { return 1u << static_cast<unsigned>(command); }
  bool belongs_to(Command command) const { return (of & bit(command)) != 0; }
};
std::span<const OptionRow> option_table();

// --- what the words meant ----------------------------------------------------------------------------------

struct CommonOptions {
  std::vector<std::string> urls;  // mqtt://[user[:password]@]host[:port], without a topic
  std::optional<std::string> client_id;
  std::optional<std::string> id_prefix;
  std::optional<std::string> username;
  std::optional<std::string> password;
  ProtocolVersion protocol = ProtocolVersion::v3_1_1;
  std::chrono::seconds keepalive{60};
  bool clean_start = true;
  std::chrono::seconds session_expiry{0};
  std::optional<std::uint16_t> max_inflight;
  std::optional<WillMessage> will;
  QoS qos = QoS::at_most_once;
  bool debug = false;
  bool quiet = false;
};

struct PubOptions {
  enum class Source : std::uint8_t { none, message, file, stdin_whole, stdin_lines, null };
  CommonOptions common;
  std::string topic;
  Source source = Source::none;
  std::string text;  // -m: the message; -f: the path
  bool retain = false;
  std::uint32_t repeat = 1;
  std::chrono::nanoseconds repeat_delay{0};
};

struct SubOptions {
  CommonOptions common;
  std::vector<std::string> filters;      // without repetitions
  std::vector<std::string> filter_outs;  // -T
  std::optional<std::string> format;     // -F
  std::uint64_t count = 0;               // -C; 0 = no end
  std::chrono::seconds timeout{0};       // -W; 0 = none
  bool verbose = false;
  bool end_of_line = true;
  bool skip_retained = false;  // -R
  bool retained_only = false;
  bool retain_as_published = false;
  bool remove_retained = false;
  bool exit_when_subscribed = false;  // -E
  bool pretty = false;
};

struct TelemetryOptions {
  static constexpr std::size_t queue_default = 16'384;
  CommonOptions common;
  TelemetryConfig config;
  std::string source;  // "host", "-" or a path
  telemetry::RecordFormat format = telemetry::RecordFormat::automatic;
  double rate_hz = 0;  // 0 = the source's own
  std::vector<std::pair<std::string, std::string>> attributes;
  std::chrono::nanoseconds duration{0};  // 0 = no end
  std::uint64_t count = 0;               // 0 = no end
  std::chrono::nanoseconds patience{0};  // -W; 0 = for ever
  std::string spool_dir;                 // empty = none
  std::size_t spool_bytes = std::size_t{1} << 30;
  Durability durability = Durability::spill;
};

template <typename T>
struct Parsed {
  std::optional<T> options;  // set when all is well
  bool help = false;         // --help
  std::string error;         // else: one line without "Error: "
};

// `environment` is asked for MQTT_URL when none of -h, -p and -L is given.
using Environment = std::function<std::optional<std::string>(std::string_view name)>;
Parsed<PubOptions> parse_pub(std::span<const std::string_view> words, const Environment& environment);
Parsed<SubOptions> parse_sub(std::span<const std::string_view> words, const Environment& environment);
// Without --source it is standard input, or this machine where that is a terminal.
Parsed<TelemetryOptions> parse_telemetry(std::span<const std::string_view> words,
                                         const Environment& environment, bool stdin_is_terminal);

// The configuration of the client; `fallback_id` is the identifier when neither -i nor -I names one,
// `process_id` what -I appends.
ClientConfig client_config(const CommonOptions& options, std::string fallback_id, long process_id);

}  // namespace fulmar::cli
