#include "fulmar/client_config.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>

#include "base/near_miss.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "net/endpoint.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;

constexpr std::array<std::string_view, 16> known_variables{"MQTT_URL",
                                                           "MQTT_CLIENT_ID",
                                                           "MQTT_USERNAME",
                                                           "MQTT_PASSWORD",
                                                           "MQTT_PASSWORD_FILE",
                                                           "MQTT_PROTOCOL",
                                                           "MQTT_KEEPALIVE",
                                                           "MQTT_CLEAN_START",
                                                           "MQTT_SESSION_EXPIRY",
                                                           "MQTT_CONNECT_TIMEOUT",
                                                           "MQTT_RECONNECT_MIN_DELAY",
                                                           "MQTT_RECONNECT_MAX_DELAY",
                                                           "MQTT_OUTBOX_BYTES",
                                                           "MQTT_OVERFLOW",
                                                           "MQTT_WAKEUP",
                                                           "MQTT_INBOUND_BYTES"};

std::string quoted(std::string_view value) { return "\"" + std::string(value) + "\""; }

// Reads one variable at a time and collects what is wrong.
class EnvironmentReader {
 public:
  explicit EnvironmentReader(const char* const* environment) {
    for (; *environment; ++environment) {
      const std::string_view line(*environment);
      const auto equals = line.find('=');
      if (!line.starts_with("MQTT_") || equals == std::string_view::npos) continue;
      const auto name = line.substr(0, equals);
      const auto known = std::ranges::find(known_variables, name);
      if (known == known_variables.end()) {
        const auto near = near_miss(name, known_variables);
        problem(name, "is not known" + (near.empty() ? std::string("; remove it")
                                                     : "; did you mean " + std::string(near) + "?"));
      } else {
        values_[static_cast<std::size_t>(known - known_variables.begin())] = line.substr(equals + 1);
      }
    }
  }

  std::optional<std::string_view> get(std::string_view name) const {
    return values_[static_cast<std::size_t>(std::ranges::find(known_variables, name) -
                                            known_variables.begin())];
  }

  void problem(std::string_view name, const std::string& what) {
    problems_ += (problems_.empty() ? "" : "\n") + std::string(name) + " " + what;
  }
  const std::string& problems() const { return problems_; }

  // Seconds with an optional fraction.
  template <typename Duration>
  void seconds(std::string_view name, Duration& into) {
    const auto text = get(name);
    if (!text) return;
    double value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || end != text->data() + text->size() || !std::isfinite(value) || value < 0 ||
        value > 1e9) {
      return problem(name, "is " + quoted(*text) + "; expected a number of seconds");
    }
    const auto exact = std::chrono::duration<double>(value);
    into = std::chrono::round<Duration>(exact);
    if (std::is_same_v<Duration, std::chrono::seconds> && value != std::floor(value)) {
      problem(name, "is " + quoted(*text) + "; expected whole seconds");
    }
  }

  void bytes(std::string_view name, std::size_t& into) {
    const auto text = get(name);
    if (!text) return;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), into);
    if (error != std::errc{} || end != text->data() + text->size()) {
      problem(name, "is " + quoted(*text) + "; expected a number of bytes");
    }
  }

  void boolean(std::string_view name, bool& into) {
    const auto text = get(name);
    if (!text) return;
    std::string lower(*text);
    std::ranges::transform(lower, lower.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") {
      into = true;
    } else if (lower == "false" || lower == "0" || lower == "no" || lower == "off") {
      into = false;
    } else {
      problem(name, "is " + quoted(*text) + "; expected true or false");
    }
  }

 private:
  std::array<std::optional<std::string_view>, known_variables.size()> values_;
  std::string problems_;
};

void read_wakeup(EnvironmentReader& read, Wakeup& into) {
  const auto text = read.get("MQTT_WAKEUP");
  if (!text) return;
  if (*text == "eager") {
    into.lazy_interval = 0us;
    return;
  }
  unsigned ms = 0;
  constexpr std::string_view lazy = "lazy:";
  if (text->starts_with(lazy)) {
    const auto number = text->substr(lazy.size());
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), ms);
    if (error == std::errc{} && end == number.data() + number.size() && ms >= 1 && ms <= 1000) {
      into.lazy_interval = std::chrono::milliseconds(ms);
      return;
    }
  }
  read.problem("MQTT_WAKEUP",
               "is " + quoted(*text) + "; expected eager, or lazy:MS with 1 to 1000 milliseconds");
}

void read_password_file(EnvironmentReader& read, std::optional<std::string>& into) {
  const auto path = read.get("MQTT_PASSWORD_FILE");
  if (!path) return;
  if (read.get("MQTT_PASSWORD")) {
    return read.problem("MQTT_PASSWORD_FILE", "and MQTT_PASSWORD are both set; keep one of them");
  }
  std::ifstream file{std::string(*path), std::ios::binary};
  std::string content((std::istreambuf_iterator<char>(file)), {});
  if (!file.is_open() || file.bad())
    return read.problem("MQTT_PASSWORD_FILE", "names " + quoted(*path) + ", which cannot be read");
  if (content.ends_with('\n')) content.pop_back();
  if (content.ends_with('\r')) content.pop_back();
  into = std::move(content);
}

}  // namespace

Result<ClientConfig> ClientConfig::from_env() { return from_env(ClientConfig{}); }

Result<ClientConfig> ClientConfig::from_env(ClientConfig config, const char* const* environment) {
  EnvironmentReader read(environment ? environment : environ);
  if (const auto urls = read.get("MQTT_URL")) {
    config.urls.clear();
    for (std::size_t begin = 0; begin <= urls->size();) {
      const auto comma = std::min(urls->find(',', begin), urls->size());
      config.urls.emplace_back(urls->substr(begin, comma - begin));
      begin = comma + 1;
    }
  }
  if (const auto id = read.get("MQTT_CLIENT_ID")) config.client_id = *id;
  if (const auto user = read.get("MQTT_USERNAME")) config.username = *user;
  if (const auto password = read.get("MQTT_PASSWORD")) config.password = *password;
  read_password_file(read, config.password);
  if (const auto protocol = read.get("MQTT_PROTOCOL")) {
    if (*protocol == "5" || *protocol == "5.0") {
      config.protocol = ProtocolVersion::v5;
    } else if (*protocol == "3.1.1") {
      config.protocol = ProtocolVersion::v3_1_1;
    } else {
      read.problem("MQTT_PROTOCOL", "is " + quoted(*protocol) + "; expected 5 or 3.1.1");
    }
  }
  read.seconds("MQTT_KEEPALIVE", config.keepalive);
  read.boolean("MQTT_CLEAN_START", config.clean_start);
  read.seconds("MQTT_SESSION_EXPIRY", config.session_expiry);
  read.seconds("MQTT_CONNECT_TIMEOUT", config.connect_timeout);
  read.seconds("MQTT_RECONNECT_MIN_DELAY", config.reconnect_min_delay);
  read.seconds("MQTT_RECONNECT_MAX_DELAY", config.reconnect_max_delay);
  read.bytes("MQTT_OUTBOX_BYTES", config.outbox_bytes);
  read.bytes("MQTT_INBOUND_BYTES", config.inbound_bytes);
  if (const auto overflow = read.get("MQTT_OVERFLOW")) {
    if (*overflow == "drop_newest") {
      config.overflow = Overflow::drop_newest;
    } else if (*overflow == "reject") {
      config.overflow = Overflow::reject;
    } else {
      read.problem("MQTT_OVERFLOW", "is " + quoted(*overflow) + "; expected drop_newest or reject");
    }
  }
  read_wakeup(read, config.wakeup);
  if (!read.problems().empty()) return fail(Errc::invalid_config, read.problems());
  return config;
}

std::vector<std::string> ClientConfig::problems() const {
  std::vector<std::string> found;
  const auto check = [&](bool good, std::string text) {
    if (!good) found.push_back(std::move(text));
  };
  const auto range = [&](std::string_view what, auto value, auto min, auto max, std::string_view unit) {
    check(value >= min && value <= max, std::string(what) + " is " + std::to_string(value) + "; expected " +
                                            std::to_string(min) + " to " + std::to_string(max) +
                                            std::string(unit));
  };

  check(!urls.empty(), "urls (MQTT_URL) is empty; expected mqtt://host[:port]");
  for (const auto& url : urls) {
    if (const auto endpoint = net::parse_url(url); !endpoint)
      found.push_back("urls (MQTT_URL): " + endpoint.error().message);
  }
  check(!client_id.empty(), "client_id (MQTT_CLIENT_ID) is empty; give this client a name of its own");
  check(client_id.size() <= 65'535, "client_id (MQTT_CLIENT_ID) has " + std::to_string(client_id.size()) +
                                        " bytes; expected at most 65535");
  check(mqtt::is_valid_utf8(client_id), "client_id (MQTT_CLIENT_ID) is not valid UTF-8");
  if (username) {
    check(mqtt::is_valid_utf8(*username) && username->size() <= 65'535,
          "username (MQTT_USERNAME) is not valid UTF-8 of at most 65535 bytes");
  }
  if (password) {
    check(password->size() <= 65'535, "password (MQTT_PASSWORD) has more than 65535 bytes");
    // [MQTT-3.1.2-22]: 3.1.1 has no password without a user name.
    check(username.has_value() || protocol == ProtocolVersion::v5 ||
              std::ranges::any_of(urls,
                                  [](const std::string& url) {
                                    const auto endpoint = net::parse_url(url);
                                    return endpoint && endpoint->username;
                                  }),
          "password (MQTT_PASSWORD) is set without username (MQTT_USERNAME), which MQTT 3.1.1 forbids");
  }
  range("keepalive (MQTT_KEEPALIVE)", keepalive.count(), std::int64_t{1}, std::int64_t{3600}, " s");
  range("session_expiry (MQTT_SESSION_EXPIRY)", session_expiry.count(), std::int64_t{0},
        std::int64_t{4'294'967'295}, " s");
  range("connect_timeout (MQTT_CONNECT_TIMEOUT)", connect_timeout.count(), std::int64_t{100},
        std::int64_t{3'600'000}, " ms");
  range("reconnect_min_delay (MQTT_RECONNECT_MIN_DELAY)", reconnect_min_delay.count(), std::int64_t{100},
        std::int64_t{3'600'000}, " ms");
  check(reconnect_max_delay >= reconnect_min_delay && reconnect_max_delay <= 24h,
        "reconnect_max_delay (MQTT_RECONNECT_MAX_DELAY) is " + std::to_string(reconnect_max_delay.count()) +
            " ms; expected at least reconnect_min_delay (" + std::to_string(reconnect_min_delay.count()) +
            " ms) and at most a day");
  range("receive_maximum", unsigned{receive_maximum}, 1u, 65'535u, "");
  range("max_inflight", unsigned{max_inflight}, 1u, 65'535u, "");
  range("maximum_packet_size", std::uint64_t{maximum_packet_size}, std::uint64_t{16},
        std::uint64_t{268'435'460}, " bytes");
  range("outbox_bytes (MQTT_OUTBOX_BYTES)", std::uint64_t{outbox_bytes}, std::uint64_t{65'536},
        std::uint64_t{8} << 30, " bytes");
  range("outbox_messages", std::uint64_t{outbox_messages}, std::uint64_t{1}, std::uint64_t{0x7fffffff}, "");
  range("inbound_bytes (MQTT_INBOUND_BYTES)", std::uint64_t{inbound_bytes}, std::uint64_t{262'144},
        std::uint64_t{8} << 30, " bytes");
  range("wakeup (MQTT_WAKEUP) interval", wakeup.lazy_interval.count(), std::int64_t{0},
        std::int64_t{1'000'000}, " us");
  if (will) {
    if (const auto error = mqtt::check_topic_name(will->topic); error != mqtt::TopicError::none) {
      found.push_back("will topic " + quoted(will->topic) + ": " + std::string(mqtt::to_string(error)));
    }
    check(will->payload.size() <= 65'535,
          "will payload has " + std::to_string(will->payload.size()) + " bytes; expected at most 65535");
  }
  return found;
}

}  // namespace fulmar
