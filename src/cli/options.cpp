#include "cli/options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/near_miss.hpp"
#include "cli/format.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "telemetry/line_source.hpp"

namespace fulmar::cli {
namespace {

// Options of mosquitto_pub and mosquitto_sub that Fulmar does not have.
constexpr auto foreign = std::to_array<std::string_view>({
    "-A",
    "-D",
    "--property",
    "-S",
    "--unix",
    "--proxy",
    "--cafile",
    "--capath",
    "--cert",
    "--key",
    "--keyform",
    "--ciphers",
    "--insecure",
    "--psk",
    "--psk-identity",
    "--tls-alpn",
    "--tls-engine",
    "--tls-engine-kpass-sha1",
    "--tls-use-os-certs",
    "--tls-version",
    "-U",
    "--unsubscribe",
    "--random-filter",
});

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

template <typename Number>
bool read_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

// One walk over the words. Each take_* reports the first mistake through error(); the caller stops then.
class Parser {
 public:
  Parser(Command command, std::span<const std::string_view> words) : command_(command), words_(words) {}

  // The next option's row, or null at the end, at --help and after a mistake.
  const OptionRow* next();
  std::string_view value() const { return value_; }
  bool help() const { return help_; }
  Command command() const { return command_; }
  const std::string& error() const { return error_; }
  bool fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }
  // "-q", for messages: the word as it was written.
  std::string_view word() const { return word_; }

  bool take(std::uint16_t& number, long long min, long long max, std::string_view what);
  bool take(std::string& text, std::string_view what);
  bool take_qos(QoS& qos, std::string_view what);

 private:
  bool unknown();

  Command command_;
  std::span<const std::string_view> words_;
  std::string_view word_;
  std::string_view value_;
  bool help_ = false;
  std::string error_;
};

const OptionRow* Parser::next() {
  if (!error_.empty() || words_.empty()) return nullptr;
  word_ = words_.front();
  words_ = words_.subspan(1);
  const auto rows = option_table();
  const auto row = std::ranges::find_if(rows, [&](const OptionRow& candidate) {
    return candidate.belongs_to(command_) && !word_.empty() &&
           (word_ == candidate.short_name || word_ == candidate.long_name);
  });
  if (row == rows.end()) {
    unknown();
    return nullptr;
  }
  if (row->long_name == "--help") {
    help_ = true;
    return nullptr;
  }
  if (!row->value.empty()) {
    if (words_.empty()) {
      fail(std::string(word_) + " needs a value: " + std::string(word_) + " <" + std::string(row->value) +
           ">");
      return nullptr;
    }
    value_ = words_.front();
    words_ = words_.subspan(1);
  }
  return &*row;
}

bool Parser::unknown() {
  const std::string start = "unknown option " + quoted(word_);
  const auto is_it = [&](const OptionRow& row) { return word_ == row.short_name || word_ == row.long_name; };
  const auto rows = option_table();
  if (const auto row = std::ranges::find_if(rows, is_it); !word_.empty() && row != rows.end()) {
    const auto other = std::ranges::find_if(commands, [&](Command c) { return row->belongs_to(c); });
    return fail(start + ": it belongs to fulmar " + std::string(name_of(*other)));
  }
  if (std::ranges::find(foreign, word_) != foreign.end()) {
    return fail("option " + quoted(word_) + " is not supported by fulmar " + std::string(name_of(command_)));
  }
  if (!word_.starts_with('-')) {
    const bool input = command_ == Command::telemetry;
    return fail(start + ": every value follows an option, e.g. " +
                (input ? "--source " + std::string(word_) : "-t topic"));
  }
  std::vector<std::string_view> names;
  for (const auto& row : rows) {
    if (row.belongs_to(command_) && !row.long_name.empty()) names.push_back(row.long_name);
  }
  const auto meant = near_miss(word_, names);
  return fail(meant.empty() ? start : start + ", did you mean " + quoted(meant) + "?");
}

bool Parser::take(std::uint16_t& number, long long min, long long max, std::string_view what) {
  long long given = 0;
  if (!read_number(value_, given) || given < min || given > max) {
    return fail("invalid " + std::string(what) + " " + quoted(value_) + " for " + std::string(word_) +
                ": expected " + std::to_string(min) + " to " + std::to_string(max));
  }
  number = static_cast<std::uint16_t>(given);
  return true;
}

bool Parser::take(std::string& text, std::string_view what) {
  if (!mqtt::is_valid_utf8(value_)) {
    return fail("the " + std::string(what) + " given by " + std::string(word_) + " is not valid UTF-8");
  }
  text = value_;
  return true;
}

bool Parser::take_qos(QoS& qos, std::string_view what) {
  if (value_ != "0" && value_ != "1" && value_ != "2") {
    return fail("invalid " + std::string(what) + " " + quoted(value_) + " for " + std::string(word_) +
                ": expected 0, 1 or 2");
  }
  qos = static_cast<QoS>(value_[0] - '0');
  return true;
}

// A topic may be 64 KiB long; a message shows its beginning.
std::string shown(std::string_view topic) {
  constexpr std::size_t shown_max = 80;
  return topic.size() <= shown_max ? quoted(topic) : quoted(topic.substr(0, shown_max)) + "...";
}

bool check_name(Parser& parser, std::string_view topic, std::string_view what) {
  const auto error = mqtt::check_topic_name(topic);
  if (error == mqtt::TopicError::none) return true;
  return parser.fail("invalid " + std::string(what) + " " + shown(topic) + ": " +
                     std::string(to_string(error)));
}

bool check_filter(Parser& parser, std::string_view filter, std::string_view what) {
  const auto error = mqtt::check_topic_filter(filter);
  if (error == mqtt::TopicError::none) return true;
  return parser.fail("invalid " + std::string(what) + " " + shown(filter) + ": " +
                     std::string(to_string(error)));
}

// --- options of both commands ------------------------------------------------------------------------------

// What is known of the connection while the words are read.
struct CommonDraft {
  CommonOptions options;
  std::optional<std::string> host;
  std::optional<std::uint16_t> port;
  std::optional<std::string> url;
  std::optional<std::uint32_t> expiry;
  std::optional<std::string> will_topic;
  std::optional<std::string> will_payload;
  QoS will_qos = QoS::at_most_once;
  bool will_retain = false;
};

constexpr std::uint32_t expiry_never = 0xffffffff;

bool take_expiry(Parser& parser, std::optional<std::uint32_t>& expiry) {
  long long seconds = 0;
  if (parser.value() == "-1" || parser.value() == "∞") {
    seconds = expiry_never;
  } else if (!read_number(parser.value(), seconds) || seconds < 0 || seconds > expiry_never) {
    return parser.fail("invalid session expiry interval " + quoted(parser.value()) +
                       " for -x: expected 0 to 4294967295 seconds, or -1 for no expiry");
  }
  expiry = static_cast<std::uint32_t>(seconds);
  return true;
}

bool take_version(Parser& parser, ProtocolVersion& version) {
  const auto value = parser.value();
  if (value == "mqttv311" || value == "311") {
    version = ProtocolVersion::v3_1_1;
  } else if (value == "mqttv5" || value == "5") {
    version = ProtocolVersion::v5;
  } else if (value == "mqttv31" || value == "31") {
    return parser.fail("MQTT 3.1 is not supported: expected -V mqttv311 or mqttv5");
  } else {
    return parser.fail("invalid protocol version " + quoted(value) + " for -V: expected mqttv311 or mqttv5");
  }
  return true;
}

// Splits mqtt://authority/topic. The topic is taken as it stands, as mosquitto's clients do.
bool take_url(Parser& parser, CommonDraft& draft, std::string& topic) {
  const auto url = parser.value();
  constexpr std::string_view scheme = "mqtt://";
  if (url.starts_with("mqtts://")) return parser.fail("-L mqtts://...: TLS is not supported by this version");
  if (!url.starts_with(scheme)) {
    return parser.fail("unsupported URL scheme for -L: expected mqtt://[user[:password]@]host[:port]/topic");
  }
  auto slash = url.find('/', scheme.size());
  if (parser.command() == Command::telemetry && slash == std::string_view::npos) slash = url.size();
  if (slash == std::string_view::npos) {
    return parser.fail("the URL for -L has no topic: expected mqtt://[user[:password]@]host[:port]/topic");
  }
  if (!mqtt::is_valid_utf8(url)) return parser.fail("the URL for -L is not valid UTF-8");
  draft.url = url.substr(0, slash);
  draft.host.reset();
  draft.port.reset();
  topic = url.substr(std::min(slash + 1, url.size()));
  return true;
}

bool take_host(Parser& parser, std::optional<std::string>& host) {
  // The host becomes a part of a URL: nothing in it may end that part.
  const auto value = parser.value();
  const bool plain = std::ranges::none_of(value, [](char c) {
    return static_cast<unsigned char>(c) <= ' ' ||
           std::string_view("/?#@[]\\").find(c) != std::string_view::npos;
  });
  if (value.empty() || !plain) {
    return parser.fail("invalid host " + quoted(value) + " for " + std::string(parser.word()) +
                       ": expected a name or an address; a URL goes with -L");
  }
  host = value;
  return true;
}

// `topic` receives the topic of -L. False: the option is not a common one, or it was wrong.
bool take_common(Parser& parser, const OptionRow& row, CommonDraft& draft, std::string& topic, bool& known) {
  auto& options = draft.options;
  known = true;
  const auto text = [&](auto& target, std::string_view what) { return parser.take(target.emplace(), what); };
  if (row.short_name == "-h") return take_host(parser, draft.host);
  if (row.short_name == "-p") return parser.take(draft.port.emplace(), 1, 65'535, "port");
  if (row.short_name == "-L") return take_url(parser, draft, topic);
  if (row.short_name == "-q") return parser.take_qos(options.qos, "QoS");
  if (row.short_name == "-i") return text(options.client_id, "client identifier");
  if (row.short_name == "-I") return text(options.id_prefix, "client identifier");
  if (row.short_name == "-u") return text(options.username, "user name");
  if (row.short_name == "-P") return options.password = parser.value(), true;
  if (row.short_name == "-V") return take_version(parser, options.protocol);
  if (row.short_name == "-c") return options.clean_start = false, true;
  if (row.short_name == "-x") return take_expiry(parser, draft.expiry);
  if (row.short_name == "-M")
    return parser.take(options.max_inflight.emplace(), 1, 65'535, "number of messages");
  if (row.short_name == "-k") {
    std::uint16_t seconds = 0;
    if (!parser.take(seconds, 5, 3'600, "keepalive")) return false;
    options.keepalive = std::chrono::seconds(seconds);
    return true;
  }
  if (row.short_name == "-d") return options.debug = true, true;
  if (row.long_name == "--quiet") return options.quiet = true, true;
  if (row.long_name == "--nodelay") return true;
  if (row.long_name == "--will-topic") {
    return text(draft.will_topic, "topic") && check_name(parser, *draft.will_topic, "will topic");
  }
  if (row.long_name == "--will-payload") return draft.will_payload = parser.value(), true;
  if (row.long_name == "--will-qos") return parser.take_qos(draft.will_qos, "will QoS");
  if (row.long_name == "--will-retain") return draft.will_retain = true, true;
  known = false;
  return false;
}

std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    if (comma > 0) parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

std::vector<std::string> broker_urls(const CommonDraft& draft, const Environment& environment) {
  const std::string port = draft.port ? ":" + std::to_string(*draft.port) : "";
  if (draft.host || (draft.port && !draft.url)) {
    const std::string host = draft.host.value_or("localhost");
    return {"mqtt://" + (host.contains(':') ? "[" + host + "]" : host) + (port.empty() ? ":1883" : port)};
  }
  if (draft.url) {
    // -p after -L: another port on the same host.
    if (port.empty()) return {*draft.url};
    const auto host_start = draft.url->find('@') == std::string::npos ? std::string_view("mqtt://").size()
                                                                      : draft.url->rfind('@') + 1;
    const auto bracket = draft.url->find(']', host_start);
    const auto colon = draft.url->find(':', bracket == std::string::npos ? host_start : bracket);
    return {draft.url->substr(0, colon) + port};
  }
  if (const auto given = environment("MQTT_URL"); given && !given->empty()) return split_at_commas(*given);
  return {"mqtt://localhost:1883"};
}

bool finish_common(Parser& parser, CommonDraft& draft, const Environment& environment) {
  auto& options = draft.options;
  const bool v5 = options.protocol == ProtocolVersion::v5;
  options.urls = broker_urls(draft, environment);
  if (options.client_id && options.client_id->empty())
    return parser.fail("invalid client identifier: -i is empty");
  if (options.client_id && options.id_prefix) return parser.fail("-i and -I cannot be used together");
  const bool named = options.client_id || options.id_prefix;
  if (!options.clean_start && !named) return parser.fail("-c needs a client identifier: add -i id");
  if (v5) {
    options.session_expiry =
        std::chrono::seconds(draft.expiry.value_or(options.clean_start ? 0 : expiry_never));
    if (options.session_expiry.count() == expiry_never && !named) {
      return parser.fail("a session without expiry (-x) needs a client identifier: add -i id");
    }
  } else if (options.password && !options.username) {
    return parser.fail("-P needs a user name in MQTT 3.1.1: add -u name, or use -V mqttv5");
  }
  if (draft.will_topic) {
    options.will =
        WillMessage{*draft.will_topic, draft.will_payload.value_or(""), draft.will_qos, draft.will_retain};
  } else if (draft.will_payload) {
    return parser.fail("--will-payload needs --will-topic");
  } else if (draft.will_retain) {
    return parser.fail("--will-retain needs --will-topic");
  }
  return true;
}

// --- pub ---------------------------------------------------------------------------------------------------

bool take_repeat_delay(Parser& parser, std::chrono::nanoseconds& delay) {
  double seconds = 0;
  constexpr double seconds_max = 1e9;
  if (!read_number(parser.value(), seconds) || !(seconds >= 0) || seconds > seconds_max) {
    return parser.fail("invalid time " + quoted(parser.value()) +
                       " for --repeat-delay: expected seconds, 0 or more");
  }
  delay = std::chrono::nanoseconds(std::llround(seconds * 1e9));
  return true;
}

bool take_pub(Parser& parser, const OptionRow& row, PubOptions& options) {
  using Source = PubOptions::Source;
  const auto source = [&](Source kind) {
    if (options.source != Source::none) return parser.fail("only one of -f, -l, -m, -n and -s can be given");
    options.source = kind;
    options.text = parser.value();
    return true;
  };
  if (row.short_name == "-t") {
    return parser.take(options.topic, "topic") && check_name(parser, options.topic, "topic");
  }
  if (row.short_name == "-m") return source(Source::message);
  if (row.short_name == "-f") return source(Source::file);
  if (row.short_name == "-l") return source(Source::stdin_lines);
  if (row.short_name == "-s") return source(Source::stdin_whole);
  if (row.short_name == "-n") return source(Source::null);
  if (row.short_name == "-r") return options.retain = true, true;
  if (row.long_name == "--repeat-delay") return take_repeat_delay(parser, options.repeat_delay);
  // --repeat
  if (!read_number(parser.value(), options.repeat) || options.repeat == 0) {
    return parser.fail("invalid number " + quoted(parser.value()) + " for --repeat: expected 1 or more");
  }
  return true;
}

// --- sub ---------------------------------------------------------------------------------------------------

bool add_filter(Parser& parser, std::vector<std::string>& filters, std::string filter,
                std::string_view what) {
  if (!check_filter(parser, filter, what)) return false;
  if (std::ranges::find(filters, filter) == filters.end()) filters.push_back(std::move(filter));
  return true;
}

bool take_sub(Parser& parser, const OptionRow& row, SubOptions& options) {
  std::string text;
  if (row.short_name == "-t") {
    return parser.take(text, "topic filter") && add_filter(parser, options.filters, text, "topic filter");
  }
  if (row.short_name == "-T") {
    return parser.take(text, "topic filter") && add_filter(parser, options.filter_outs, text, "topic filter");
  }
  if (row.short_name == "-C") {
    if (read_number(parser.value(), options.count) && options.count > 0) return true;
    return parser.fail("invalid message count " + quoted(parser.value()) + " for -C: expected 1 or more");
  }
  if (row.short_name == "-W") {
    std::uint32_t seconds = 0;
    if (!read_number(parser.value(), seconds) || seconds == 0) {
      return parser.fail("invalid timeout " + quoted(parser.value()) + " for -W: expected 1 or more seconds");
    }
    options.timeout = std::chrono::seconds(seconds);
    return true;
  }
  if (row.short_name == "-F") {
    if (const auto format = Format::compile(parser.value()); !format)
      return parser.fail(format.error().message);
    options.format = parser.value();
    return true;
  }
  if (row.short_name == "-v") return options.verbose = true, true;
  if (row.short_name == "-N") return options.end_of_line = false, true;
  if (row.short_name == "-R") return options.skip_retained = true, true;
  if (row.short_name == "-E") return options.exit_when_subscribed = true, true;
  if (row.long_name == "--pretty") return options.pretty = true, true;
  if (row.long_name == "--retained-only") return options.retained_only = true, true;
  if (row.long_name == "--retain-as-published") return options.retain_as_published = true, true;
  options.remove_retained = true;  // --remove-retained
  return true;
}

// --- telemetry ---------------------------------------------------------------------------------------------

bool take_seconds(Parser& parser, double min, double max, std::string_view expected, double& seconds) {
  if (read_number(parser.value(), seconds) && seconds >= min && seconds <= max) return true;
  return parser.fail("invalid time " + quoted(parser.value()) + " for " + std::string(parser.word()) +
                     ": expected " + std::string(expected));
}

bool take_attribute(Parser& parser, TelemetryOptions& options) {
  const auto equals = parser.value().find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return parser.fail("invalid attribute " + quoted(parser.value()) +
                       " for --attributes: expected name=value");
  }
  if (!mqtt::is_valid_utf8(parser.value()))
    return parser.fail("an attribute given by --attributes is not valid UTF-8");
  options.attributes.emplace_back(parser.value().substr(0, equals), parser.value().substr(equals + 1));
  return true;
}

bool take_size(Parser& parser, std::size_t min, std::size_t max, std::string_view what, std::size_t& size) {
  if (read_number(parser.value(), size) && size >= min && size <= max) return true;
  return parser.fail("invalid " + std::string(what) + " " + quoted(parser.value()) + " for " +
                     std::string(parser.word()) + ": expected " + std::to_string(min) + " to " +
                     std::to_string(max));
}

bool take_telemetry(Parser& parser, const OptionRow& row, TelemetryOptions& options) {
  auto& config = options.config;
  constexpr double rate_min = 0.001, rate_max = telemetry::LineSource::rate_hz_max;
  constexpr double seconds_max = 1e9;
  double seconds = 0;
  const auto as_duration = [&] { return std::chrono::nanoseconds(std::llround(seconds * 1e9)); };
  if (row.long_name == "--topic" || row.long_name == "--attributes-topic") {
    auto& topic = row.long_name == "--topic" ? config.topic : config.attributes_topic;
    return parser.take(topic, "topic") && check_name(parser, topic, "topic");
  }
  if (row.long_name == "--source") {
    if (parser.value().empty())
      return parser.fail("--source is empty: expected host, - or the path of a file");
    options.source = parser.value();
    return true;
  }
  if (row.long_name == "--format") {
    const auto format = telemetry::record_format_of(parser.value());
    if (!format)
      return parser.fail("invalid format " + quoted(parser.value()) +
                         " for --format: expected auto, json or csv");
    options.format = *format;
    return true;
  }
  if (row.long_name == "--rate") {
    if (read_number(parser.value(), options.rate_hz) && options.rate_hz >= rate_min &&
        options.rate_hz <= rate_max)
      return true;
    return parser.fail("invalid rate " + quoted(parser.value()) +
                       " for --rate: expected records per second, 0.001 to 10000000");
  }
  if (row.long_name == "--batch-size")
    return take_size(parser, 1, 10'000, "number of records", config.batch_size);
  if (row.long_name == "--batch-bytes")
    return take_size(parser, 1'000, std::size_t{16} << 20, "number of bytes", config.batch_bytes);
  if (row.long_name == "--batch-interval") {
    if (!take_seconds(parser, 0.01, 3'600, "0.01 to 3600 seconds", seconds)) return false;
    config.batch_interval = std::chrono::milliseconds(std::llround(seconds * 1e3));
    return true;
  }
  if (row.long_name == "--batch-wrapper") return config.batch_wrapper = config.wrapper_sequence = true;
  if (row.long_name == "--queue")
    return take_size(parser, 2, std::size_t{1} << 24, "number of records", config.queue_capacity);
  if (row.long_name == "--fields") {
    if (!mqtt::is_valid_utf8(parser.value()))
      return parser.fail("the names given by --fields are not valid UTF-8");
    const auto names = split_at_commas(parser.value());
    if (names.empty()) return parser.fail("--fields names nothing: expected name,name,...");
    config.fields.insert(config.fields.end(), names.begin(), names.end());
    return true;
  }
  if (row.long_name == "--attributes") return take_attribute(parser, options);
  if (row.long_name == "--spool") {
    if (parser.value().empty()) return parser.fail("--spool is empty: expected the path of a folder");
    options.spool_dir = parser.value();
    return true;
  }
  if (row.long_name == "--spool-bytes")
    return take_size(parser, std::size_t{1} << 20, std::size_t{1} << 40, "number of bytes",
                     options.spool_bytes);
  if (row.long_name == "--durability") {
    if (parser.value() != "spill" && parser.value() != "write_ahead")
      return parser.fail("invalid durability " + quoted(parser.value()) +
                         " for --durability: expected spill or write_ahead");
    options.durability = parser.value() == "spill" ? Durability::spill : Durability::write_ahead;
    return true;
  }
  if (row.long_name == "--duration") {
    if (!take_seconds(parser, 0.001, seconds_max, "seconds, more than 0", seconds)) return false;
    options.duration = as_duration();
    return true;
  }
  if (row.long_name == "--count") {
    if (read_number(parser.value(), options.count) && options.count > 0) return true;
    return parser.fail("invalid number " + quoted(parser.value()) + " for --count: expected 1 or more");
  }
  // -W
  if (!take_seconds(parser, 0.001, seconds_max, "seconds, more than 0", seconds)) return false;
  options.patience = as_duration();
  return true;
}

bool check_telemetry(Parser& parser, TelemetryOptions& options, bool qos_given) {
  if (!qos_given) options.config.qos = QoS::at_least_once;
  if (options.config.qos == QoS::exactly_once)
    return parser.fail("invalid QoS '2' for -q: telemetry is sent with 0 or 1");
  if (options.source == "host" && options.rate_hz != 0 && (options.rate_hz < 0.1 || options.rate_hz > 1'000))
    return parser.fail("--rate of this machine's measurements: expected 0.1 to 1000 per second");
  if (options.source == "host" && options.format != telemetry::RecordFormat::automatic)
    return parser.fail("--format goes with a file or standard input, not with --source host");
  if (options.spool_dir.empty() && options.durability != Durability::spill)
    return parser.fail("--durability write_ahead needs a folder to write to: add --spool folder");
  return true;
}

template <typename T>
Parsed<T> result_of(const Parser& parser, T options) {
  if (parser.help()) return {.options = std::nullopt, .help = true, .error = {}};
  if (!parser.error().empty()) return {.options = std::nullopt, .help = false, .error = parser.error()};
  return {.options = std::move(options), .help = false, .error = {}};
}

}  // namespace

Parsed<PubOptions> parse_pub(std::span<const std::string_view> words, const Environment& environment) {
  Parser parser(Command::pub, words);
  CommonDraft draft;
  PubOptions options;
  while (const auto* row = parser.next()) {
    bool known = false;
    std::string url_topic;
    if (take_common(parser, *row, draft, url_topic, known)) {
      if (row->short_name == "-L" && check_name(parser, url_topic, "topic")) options.topic = url_topic;
    } else if (!known) {
      take_pub(parser, *row, options);
    }
  }
  if (parser.help() || !parser.error().empty()) return result_of(parser, std::move(options));
  if (options.topic.empty()) {
    parser.fail("no topic given: add -t topic");
  } else if (options.source == PubOptions::Source::none) {
    parser.fail("no message given: add one of -m text, -f path, -l, -s and -n");
  } else {
    finish_common(parser, draft, environment);
  }
  options.common = std::move(draft.options);
  return result_of(parser, std::move(options));
}

Parsed<SubOptions> parse_sub(std::span<const std::string_view> words, const Environment& environment) {
  Parser parser(Command::sub, words);
  CommonDraft draft;
  SubOptions options;
  while (const auto* row = parser.next()) {
    bool known = false;
    std::string url_topic;
    if (take_common(parser, *row, draft, url_topic, known)) {
      if (row->short_name == "-L" && !url_topic.empty()) {
        add_filter(parser, options.filters, url_topic, "topic filter");
      }
    } else if (!known) {
      take_sub(parser, *row, options);
    }
  }
  if (parser.help() || !parser.error().empty()) return result_of(parser, std::move(options));
  if (options.filters.empty()) {
    parser.fail("no topic given: add -t filter");
  } else if (options.skip_retained && options.retained_only) {
    parser.fail("-R and --retained-only together leave nothing to print");
  } else if (options.retain_as_published && draft.options.protocol != ProtocolVersion::v5) {
    parser.fail("--retain-as-published needs MQTT 5.0: add -V mqttv5");
  } else {
    finish_common(parser, draft, environment);
  }
  options.common = std::move(draft.options);
  return result_of(parser, std::move(options));
}

Parsed<TelemetryOptions> parse_telemetry(std::span<const std::string_view> words,
                                         const Environment& environment, bool stdin_is_terminal) {
  Parser parser(Command::telemetry, words);
  CommonDraft draft;
  TelemetryOptions options;
  options.config.queue_capacity = TelemetryOptions::queue_default;
  options.source = stdin_is_terminal ? "host" : "-";
  bool qos_given = false;
  while (const auto* row = parser.next()) {
    bool known = false;
    std::string url_topic;
    if (take_common(parser, *row, draft, url_topic, known)) {
      qos_given = qos_given || row->short_name == "-q";
      if (!url_topic.empty() && check_name(parser, url_topic, "topic")) options.config.topic = url_topic;
    } else if (!known) {
      take_telemetry(parser, *row, options);
    }
  }
  options.config.qos = draft.options.qos;
  if (parser.error().empty() && !parser.help() && check_telemetry(parser, options, qos_given))
    finish_common(parser, draft, environment);
  options.common = std::move(draft.options);
  return result_of(parser, std::move(options));
}

ClientConfig client_config(const CommonOptions& options, std::string fallback_id, long process_id) {
  ClientConfig config;
  config.urls = options.urls;
  config.client_id = options.client_id   ? *options.client_id
                     : options.id_prefix ? *options.id_prefix + std::to_string(process_id)
                                         : std::move(fallback_id);
  config.username = options.username;
  config.password = options.password;
  config.protocol = options.protocol;
  config.keepalive = options.keepalive;
  config.clean_start = options.clean_start;
  config.session_expiry = options.session_expiry;
  config.max_inflight = options.max_inflight.value_or(config.max_inflight);
  config.will = options.will;
  return config;
}

}  // namespace fulmar::cli
