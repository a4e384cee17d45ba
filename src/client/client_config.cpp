#include "fulmar/client_config.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <type_traits>
#include <utility>

#include "base/near_miss.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "net/endpoint.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;

// For a line of text: on one line, and not without end.
std::string quoted(std::string_view value) {
  constexpr std::size_t shown_max = 200;
  std::string text = "\"";
  for (const char c : value.substr(0, shown_max))
    text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text + (value.size() > shown_max ? "\"..." : "\"");
}

// --- the environment ---------------------------------------------------------------------------------------------------

// Reads the value of a variable into the configuration; says what is wrong with it, or nothing.
using Wrong = std::optional<std::string>;
using Read = Wrong (*)(std::string_view value, ClientConfig& config);

struct Variable {
  std::string_view name;
  Read read;
};

Wrong expected(std::string_view value, std::string_view what) {
  return "is " + quoted(value) + "; expected " + std::string(what);
}

template <typename Number>
bool parse_number(std::string_view text, Number& into) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc{} && end == text.data() + text.size();
}

// `Field` gives a part of the configuration: a pointer to a member, or a function for one that lies deeper.
template <auto Field>
Wrong text(std::string_view value, ClientConfig& config) {
  std::invoke(Field, config) = std::string(value);
  return {};
}

// Seconds with an optional fraction, where the field has one.
template <auto Field>
Wrong seconds(std::string_view value, ClientConfig& config) {
  auto& into = std::invoke(Field, config);
  using Duration = std::remove_reference_t<decltype(into)>;
  double number = 0;
  if (!parse_number(value, number) || !std::isfinite(number) || number < 0 || number > 1e9)
    return expected(value, "a number of seconds");
  if (std::is_same_v<Duration, std::chrono::seconds> && number != std::floor(number))
    return expected(value, "whole seconds");
  into = std::chrono::round<Duration>(std::chrono::duration<double>(number));
  return {};
}

template <auto Field>
Wrong bytes(std::string_view value, ClientConfig& config) {
  return parse_number(value, std::invoke(Field, config)) ? Wrong{} : expected(value, "a number of bytes");
}

template <auto Field>
Wrong count(std::string_view value, ClientConfig& config) {
  return parse_number(value, std::invoke(Field, config)) ? Wrong{} : expected(value, "a whole number");
}

template <auto Field>
Wrong boolean(std::string_view value, ClientConfig& config) {
  std::string lower(value);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto is_one_of = [&](auto... words) { return ((lower == words) || ...); };
  auto& into = std::invoke(Field, config);
  into = is_one_of("true", "1", "yes", "on");
  if (into || is_one_of("false", "0", "no", "off")) return {};
  return expected(value, "true or false");
}

Wrong urls(std::string_view value, ClientConfig& config) {
  config.urls.clear();
  for (std::size_t begin = 0; begin <= value.size();) {
    const auto comma = std::min(value.find(',', begin), value.size());
    config.urls.emplace_back(value.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return {};
}

Wrong password_file(std::string_view path, ClientConfig& config) {
  std::ifstream file{std::string(path), std::ios::binary};
  std::string content((std::istreambuf_iterator<char>(file)), {});
  if (!file.is_open() || file.bad()) return "names " + quoted(path) + ", which cannot be read";
  if (content.ends_with('\n')) content.pop_back();
  if (content.ends_with('\r')) content.pop_back();
  config.password = std::move(content);
  return {};
}

Wrong protocol(std::string_view value, ClientConfig& config) {
  if (value == "5" || value == "5.0") {
    config.protocol = ProtocolVersion::v5;
  } else if (value == "3.1.1") {
    config.protocol = ProtocolVersion::v3_1_1;
  } else {
    return expected(value, "5 or 3.1.1");
  }
  return {};
}

Wrong overflow(std::string_view value, ClientConfig& config) {
  constexpr std::array<std::pair<std::string_view, Overflow>, 5> words{
      {{"spool", Overflow::spool},
       {"drop_newest", Overflow::drop_newest},
       {"drop_oldest", Overflow::drop_oldest},
       {"reject", Overflow::reject},
       {"block", Overflow::block}}};
  for (const auto& [word, policy] : words) {
    if (value != word) continue;
    config.overflow = policy;
    return {};
  }
  return expected(value, "spool, drop_newest, drop_oldest, reject or block");
}

Wrong durability(std::string_view value, ClientConfig& config) {
  constexpr std::array<std::pair<std::string_view, Durability>, 3> words{
      {{"memory", Durability::memory},
       {"spill", Durability::spill},
       {"write_ahead", Durability::write_ahead}}};
  for (const auto& [word, how] : words) {
    if (value != word) continue;
    config.durability = how;
    return {};
  }
  return expected(value, "memory, spill or write_ahead");
}

Wrong wakeup(std::string_view value, ClientConfig& config) {
  constexpr std::string_view lazy = "lazy:";
  unsigned ms = 0;
  if (value == "eager") {
    config.wakeup.lazy_interval = 0us;
  } else if (value.starts_with(lazy) && parse_number(value.substr(lazy.size()), ms) && ms >= 1 &&
             ms <= 1000) {
    config.wakeup.lazy_interval = std::chrono::milliseconds(ms);
  } else {
    return expected(value, "eager, or lazy:MS with 1 to 1000 milliseconds");
  }
  return {};
}

using C = ClientConfig;
constexpr std::string_view password_variable = "MQTT_PASSWORD";
constexpr std::string_view password_file_variable = "MQTT_PASSWORD_FILE";
constexpr std::array variables = std::to_array<Variable>({
    {"MQTT_URL", urls},
    {"MQTT_CLIENT_ID", text<&C::client_id>},
    {"MQTT_USERNAME", text<&C::username>},
    {password_variable, text<&C::password>},
    {password_file_variable, password_file},
    {"MQTT_SOURCE_NAME", text<&C::source_name>},
    {"MQTT_PROTOCOL", protocol},
    {"MQTT_KEEPALIVE", seconds<&C::keepalive>},
    {"MQTT_CLEAN_START", boolean<&C::clean_start>},
    {"MQTT_SESSION_EXPIRY", seconds<&C::session_expiry>},
    {"MQTT_ENABLE_HEALTH", boolean<&C::enable_health>},
    {"MQTT_ENABLE_HEARTBEAT", boolean<&C::enable_heartbeat>},
    {"MQTT_HEARTBEAT_INTERVAL", seconds<&C::heartbeat_interval>},
    {"MQTT_DEDUPE_TTL", seconds<&C::dedupe_ttl>},
    {"MQTT_DEDUPE_MAX_ENTRIES", count<&C::dedupe_max_entries>},
    {"MQTT_RECONNECT_MIN_DELAY", seconds<&C::reconnect_min_delay>},
    {"MQTT_RECONNECT_MAX_DELAY", seconds<&C::reconnect_max_delay>},
    {"MQTT_CONNECT_TIMEOUT", seconds<&C::connect_timeout>},
    {"MQTT_OUTBOX_BYTES", bytes<&C::outbox_bytes>},
    {"MQTT_INBOUND_BYTES", bytes<&C::inbound_bytes>},
    {"MQTT_OVERFLOW", overflow},
    {"MQTT_WAKEUP", wakeup},
    {"MQTT_CA_FILE", text<[](C& c) -> auto& { return c.tls.ca_file; }>},
    {"MQTT_CERT_FILE", text<[](C& c) -> auto& { return c.tls.cert_file; }>},
    {"MQTT_KEY_FILE", text<[](C& c) -> auto& { return c.tls.key_file; }>},
    {"MQTT_TLS_INSECURE", boolean<[](C& c) -> auto& { return c.tls.insecure; }>},
    {"MQTT_SPOOL_DIR", text<&C::spool_dir>},
    {"MQTT_SPOOL_BYTES", bytes<&C::spool_bytes>},
    {"MQTT_DURABILITY", durability},
});

constexpr auto variable_names = [] {
  std::array<std::string_view, variables.size()> names;
  std::ranges::transform(variables, names.begin(), &Variable::name);
  return names;
}();

}  // namespace

Result<ClientConfig> ClientConfig::from_env() { return from_env(ClientConfig{}); }

Result<ClientConfig> ClientConfig::from_env(ClientConfig config, const char* const* environment) {
  std::string problems;
  const auto problem = [&](std::string_view name, std::string_view what) {
    problems += (problems.empty() ? "" : "\n") + std::string(name) + " " + std::string(what);
  };
  bool password = false, in_file = false;
  for (environment = environment ? environment : environ; *environment; ++environment) {
    const std::string_view line(*environment);
    const auto equals = line.find('=');
    if (!line.starts_with("MQTT_") || equals == std::string_view::npos) continue;
    const auto name = line.substr(0, equals);
    const auto variable = std::ranges::find(variables, name, &Variable::name);
    if (variable == variables.end()) {
      const auto near = near_miss(name, variable_names);
      problem(name, near.empty() ? "is not known; remove it"
                                 : "is not known; did you mean " + std::string(near) + "?");
    } else if (const auto wrong = variable->read(line.substr(equals + 1), config)) {
      problem(name, *wrong);
    }
    password |= name == password_variable;
    in_file |= name == password_file_variable;
  }
  if (password && in_file)
    problem(password_file_variable, "and MQTT_PASSWORD are both set; keep one of them");
  if (!problems.empty()) return fail(Errc::invalid_config, problems);
  return config;
}

// --- the whole ---------------------------------------------------------------------------------------------------------

namespace {

// Collects what is wrong, one line each.
class Problems {
 public:
  explicit Problems(const ClientConfig& config) : config_(config) {}

  std::vector<std::string> found() && { return std::move(found_); }

  void server();
  void identity();
  void connection();
  void vitals();
  void bounds();
  void spool();
  void tls();
  void will();

 private:
  void check(bool good, std::string text) {
    if (!good) found_.push_back(std::move(text));
  }
  template <typename Value>
  void range(std::string_view what, Value value, std::type_identity_t<Value> min,
             std::type_identity_t<Value> max, std::string_view unit = "") {
    check(value >= min && value <= max, std::string(what) + " is " + std::to_string(value) + "; expected " +
                                            std::to_string(min) + " to " + std::to_string(max) +
                                            std::string(unit));
  }
  void mqtt_text(std::string_view what, std::string_view value) {
    check(value.size() <= 65'535,
          std::string(what) + " has " + std::to_string(value.size()) + " bytes; expected at most 65535");
    check(mqtt::is_valid_utf8(value), std::string(what) + " is not valid UTF-8");
  }
  bool any_url(auto&& wanted) const { return std::ranges::any_of(config_.urls, wanted); }

  const ClientConfig& config_;
  std::vector<std::string> found_;
};

bool speaks_tls(std::string_view url) {
  const auto begins = [&](std::string_view scheme) {
    return std::ranges::equal(url.substr(0, scheme.size()), scheme,
                              [](unsigned char a, char b) { return std::tolower(a) == b; });
  };
  return begins("mqtts://") || begins("wss://");
}

void Problems::server() {
  check(!config_.urls.empty(), "urls (MQTT_URL) is empty; expected mqtt://host[:port]");
  for (const auto& url : config_.urls) {
    if (const auto endpoint = net::parse_url(url); !endpoint)
      found_.push_back("urls (MQTT_URL): " + endpoint.error().message);
  }
}

void Problems::identity() {
  check(!config_.client_id.empty(),
        "client_id (MQTT_CLIENT_ID) is empty; give this client a name of its own");
  mqtt_text("client_id (MQTT_CLIENT_ID)", config_.client_id);
  mqtt_text("source_name (MQTT_SOURCE_NAME)", config_.source_name);
  if (config_.username) mqtt_text("username (MQTT_USERNAME)", *config_.username);
  if (!config_.password) return;
  check(config_.password->size() <= 65'535, "password (MQTT_PASSWORD) has more than 65535 bytes");
  // [MQTT-3.1.2-22]: 3.1.1 has no password without a user name.
  const bool has_user = config_.username || any_url([](const std::string& url) {
                          const auto endpoint = net::parse_url(url);
                          return endpoint && endpoint->username;
                        });
  check(has_user || config_.protocol == ProtocolVersion::v5,
        "password (MQTT_PASSWORD) is set without username (MQTT_USERNAME), which MQTT 3.1.1 forbids");
}

void Problems::connection() {
  range("keepalive (MQTT_KEEPALIVE)", config_.keepalive.count(), 1, 3600, " s");
  range("session_expiry (MQTT_SESSION_EXPIRY)", config_.session_expiry.count(), 0, 4'294'967'295, " s");
  range("connect_timeout (MQTT_CONNECT_TIMEOUT)", config_.connect_timeout.count(), 100, 3'600'000, " ms");
  range("reconnect_min_delay (MQTT_RECONNECT_MIN_DELAY)", config_.reconnect_min_delay.count(), 100, 3'600'000,
        " ms");
  check(config_.reconnect_max_delay >= config_.reconnect_min_delay && config_.reconnect_max_delay <= 24h,
        "reconnect_max_delay (MQTT_RECONNECT_MAX_DELAY) is " +
            std::to_string(config_.reconnect_max_delay.count()) +
            " ms; expected at least reconnect_min_delay (" +
            std::to_string(config_.reconnect_min_delay.count()) + " ms) and at most a day");
  range("ack_timeout", config_.ack_timeout.count(), 0, 86'400'000, " ms");
  range("receive_maximum", unsigned{config_.receive_maximum}, 1, 65'535);
  range("max_inflight", unsigned{config_.max_inflight}, 1, 65'535);
  range("maximum_packet_size", config_.maximum_packet_size, 16, 268'435'460, " bytes");
}

void Problems::vitals() {
  range("heartbeat_interval (MQTT_HEARTBEAT_INTERVAL)", config_.heartbeat_interval.count(), 1'000, 3'600'000,
        " ms");
  // The identifier is a part of system/health/{client_id} and system/keepalive/{client_id}.
  if (config_.enable_health || config_.enable_heartbeat) {
    const auto error = mqtt::check_topic_name("system/keepalive/" + config_.client_id);
    check(error == mqtt::TopicError::none || !mqtt::is_valid_utf8(config_.client_id),
          "client_id (MQTT_CLIENT_ID) is " + quoted(config_.client_id) +
              "; with enable_health or enable_heartbeat it is a part of a topic, where " +
              std::string(mqtt::to_string(error)));
  }
  range("dedupe_ttl (MQTT_DEDUPE_TTL)", config_.dedupe_ttl.count(), 0, 86'400'000, " ms");
  range("dedupe_max_entries (MQTT_DEDUPE_MAX_ENTRIES)", std::uint64_t{config_.dedupe_max_entries}, 0,
        10'000'000);
  check(config_.dedupe_ttl <= 0ms || config_.dedupe_max_entries > 0,
        "dedupe_max_entries (MQTT_DEDUPE_MAX_ENTRIES) is 0; with dedupe_ttl (MQTT_DEDUPE_TTL) of " +
            std::to_string(config_.dedupe_ttl.count()) + " ms it has to be at least 1, e.g. 2048");
}

void Problems::bounds() {
  range("outbox_bytes (MQTT_OUTBOX_BYTES)", std::uint64_t{config_.outbox_bytes}, 65'536,
        std::uint64_t{8} << 30, " bytes");
  range("outbox_messages", std::uint64_t{config_.outbox_messages}, 1, 0x7fffffff);
  range("inbound_bytes (MQTT_INBOUND_BYTES)", std::uint64_t{config_.inbound_bytes}, 262'144,
        std::uint64_t{8} << 30, " bytes");
  range("max_subscriptions", std::uint64_t{config_.max_subscriptions}, 1, 1'000'000);
  if (config_.overflow == Overflow::block) {
    range("block_timeout", config_.block_timeout.count(), 1, 3'600'000, " ms");
  } else {
    check(config_.block_timeout == ClientConfig{}.block_timeout,
          "block_timeout is " + std::to_string(config_.block_timeout.count()) +
              " ms, which has a meaning only when overflow (MQTT_OVERFLOW) is block; set that, or leave it "
              "out");
  }
  range("wakeup (MQTT_WAKEUP) interval", config_.wakeup.lazy_interval.count(), 0, 1'000'000, " us");
}

void Problems::spool() {
  range("spool_bytes (MQTT_SPOOL_BYTES)", config_.spool_bytes, std::uint64_t{1} << 20, std::uint64_t{1} << 40,
        " bytes");
  if (config_.spool_max_age) range("spool_max_age", config_.spool_max_age->count(), 1, 315'360'000, " s");
  check(config_.durability != Durability::write_ahead || !config_.spool_dir.empty(),
        "durability (MQTT_DURABILITY) is write_ahead without spool_dir (MQTT_SPOOL_DIR); say where to write");
  check(config_.overflow != Overflow::spool || !config_.spool_dir.empty(),
        "overflow (MQTT_OVERFLOW) is spool without spool_dir (MQTT_SPOOL_DIR); say where to write");
  check(config_.durability != Durability::memory || config_.spool_dir.empty(),
        "spool_dir (MQTT_SPOOL_DIR) is " + quoted(config_.spool_dir) +
            ", which durability (MQTT_DURABILITY) memory does not use; remove one of them");
  check(config_.spool_dir.find('\0') == std::string::npos && config_.spool_dir.size() <= 4'000,
        "spool_dir (MQTT_SPOOL_DIR) is not a path of at most 4000 bytes");
}

void Problems::tls() {
  const auto& tls = config_.tls;
  const bool certificate = !tls.cert_file.empty(), key = !tls.key_file.empty(),
             authority = !tls.ca_file.empty();
  const bool pre_shared = !tls.psk.empty() || !tls.psk_identity.empty();
  const std::string cert_named = "tls.cert_file (MQTT_CERT_FILE) is " + quoted(tls.cert_file);
  const std::string key_named = "tls.key_file (MQTT_KEY_FILE) is " + quoted(tls.key_file);
  const std::string ca_named = "tls.ca_file (MQTT_CA_FILE) is " + quoted(tls.ca_file);
  check(!certificate || key, cert_named + " without tls.key_file (MQTT_KEY_FILE); give both or none");
  check(!key || certificate, key_named + " without tls.cert_file (MQTT_CERT_FILE); give both or none");
  check(tls.key_password.empty() || key, "tls.key_password is set without tls.key_file (MQTT_KEY_FILE)");
  check(!tls.insecure || !authority, "tls.insecure (MQTT_TLS_INSECURE) is true, so " + ca_named +
                                         " would check nothing; keep one of them");
  check(tls.psk.empty() || !tls.psk_identity.empty(),
        "tls.psk is set without tls.psk_identity; give both or none");
  check(tls.psk_identity.empty() || !tls.psk.empty(),
        "tls.psk_identity is " + quoted(tls.psk_identity) + " without tls.psk; give both or none");
  check(!pre_shared || (!certificate && !key && !authority),
        "tls.psk_identity is " + quoted(tls.psk_identity) +
            " together with files of certificates (MQTT_CA_FILE, " +
            "MQTT_CERT_FILE, MQTT_KEY_FILE); a pre-shared key stands instead of them");
  check(mqtt::is_valid_utf8(tls.psk_identity) && tls.psk_identity.size() <= 128,
        "tls.psk_identity is not valid UTF-8 of at most 128 bytes");
  check(tls.psk.size() <= 256,
        "tls.psk has " + std::to_string(tls.psk.size()) + " bytes; expected at most 256");
  check(mqtt::is_valid_utf8(tls.server_name) && tls.server_name.size() <= 255,
        "tls.server_name is not a host name of at most 255 bytes");
  for (const auto& name : tls.alpn) {
    check(!name.empty() && name.size() <= 255,
          "tls.alpn has a name of " + std::to_string(name.size()) + " bytes; expected 1 to 255");
  }
  // Who names a key or an authority means to be encrypted; to go on in the clear is the one thing he cannot mean.
  if (any_url(speaks_tls)) return;
  constexpr std::string_view in_the_clear =
      ", but none of urls (MQTT_URL) is mqtts:// or wss://: nothing would be encrypted";
  check(!authority, ca_named + std::string(in_the_clear));
  check(!certificate, cert_named + std::string(in_the_clear));
  check(!key || certificate, key_named + std::string(in_the_clear));
  check(!pre_shared, "tls.psk_identity is " + quoted(tls.psk_identity) + std::string(in_the_clear));
}

void Problems::will() {
  if (!config_.will) return;
  const auto& will = *config_.will;
  if (const auto error = mqtt::check_topic_name(will.topic); error != mqtt::TopicError::none)
    found_.push_back("will.topic is " + quoted(will.topic) + ": " + std::string(mqtt::to_string(error)));
  check(will.payload.size() <= 65'535,
        "will.payload has " + std::to_string(will.payload.size()) + " bytes; expected at most 65535");
  check(will.qos <= QoS::exactly_once,
        "will.qos is " + std::to_string(static_cast<int>(will.qos)) + "; expected 0, 1 or 2");
  range("will.delay", will.delay.count(), 0, 4'294'967'295, " s");
  if (will.message_expiry) range("will.message_expiry", will.message_expiry->count(), 0, 4'294'967'295, " s");
  mqtt_text("will.content_type", will.content_type);
  if (config_.protocol == ProtocolVersion::v5) return;
  const auto only_5 = [](std::string_view field, const std::string& value) {
    return "will." + std::string(field) + " is " + value +
           ", which MQTT 3.1.1 (MQTT_PROTOCOL) cannot say; remove it";
  };
  check(will.delay <= 0s, only_5("delay", std::to_string(will.delay.count()) + " s"));
  if (will.message_expiry)
    found_.push_back(only_5("message_expiry", std::to_string(will.message_expiry->count()) + " s"));
  check(will.content_type.empty(), only_5("content_type", quoted(will.content_type)));
}

}  // namespace

std::vector<std::string> ClientConfig::problems() const {
  Problems problems(*this);
  problems.server();
  problems.identity();
  problems.connection();
  problems.vitals();
  problems.bounds();
  problems.spool();
  problems.tls();
  problems.will();
  return std::move(problems).found();
}

}  // namespace fulmar
