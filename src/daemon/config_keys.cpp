#include "daemon/config_keys.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace fulmar::daemon {
namespace {

using Kind = Key::Kind;
using Config = DaemonConfig;

std::string env_name(std::string_view key) {
  std::string name = key.starts_with("mqtt.") ? "MQTT_" : "FULMAR_";
  if (key.starts_with("mqtt.")) key.remove_prefix(5);
  if (name == "MQTT_" && key.ends_with("_s")) key.remove_suffix(2);  // as the library calls them
  for (const char c : key)
    name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

class Table {
 public:
  std::vector<Key> take() && { return std::move(keys_); }

  Key& add(std::string_view name, Kind kind, std::string expects,
           std::function<bool(Config&, const Value&)> set, std::function<Value(const Config&)> get) {
    keys_.push_back({.name = std::string(name),
                     .env = env_name(name),
                     .expects = std::move(expects),
                     .kind = kind,
                     .set = std::move(set),
                     .get = std::move(get)});
    return keys_.back();
  }
  Key& boolean(std::string_view name, auto member) {
    return add(
        name, Kind::boolean, "true or false",
        [member](Config& c, const Value& v) {
          member(c) = std::get<bool>(v);
          return true;
        },
        [member](const Config& c) { return Value(member(c)); });
  }
  Key& integer(std::string_view name, std::int64_t min, std::int64_t max, auto member) {
    return add(
        name, Kind::integer, fmt::format("an integer from {} to {}", min, max),
        [=](Config& c, const Value& v) {
          const auto value = std::get<std::int64_t>(v);
          if (value < min || value > max) return false;
          auto& to = member(c);
          to = static_cast<std::remove_reference_t<decltype(to)>>(value);
          return true;
        },
        [member](const Config& c) { return Value(static_cast<std::int64_t>(member(c))); });
  }
  // Seconds in the file, any std::chrono duration in the configuration.
  Key& seconds(std::string_view name, double min, double max, auto member) {
    return add(
        name, Kind::number, fmt::format("a number of seconds from {} to {}", min, max),
        [=](Config& c, const Value& v) {
          const double value = std::get<double>(v);
          if (!(value >= min && value <= max)) return false;
          auto& to = member(c);
          to =
              std::chrono::round<std::remove_reference_t<decltype(to)>>(std::chrono::duration<double>(value));
          return true;
        },
        [member](const Config& c) { return Value(std::chrono::duration<double>(member(c)).count()); });
  }
  Key& text(std::string_view name, std::string expects, auto member,
            const std::function<bool(std::string_view)>& valid) {
    return add(
        name, Kind::text, std::move(expects),
        [=](Config& c, const Value& v) {
          const std::string& value = std::get<std::string>(v);
          if (!valid(value)) return false;
          member(c) = value;
          return true;
        },
        [member](const Config& c) { return Value(std::string(member(c))); });
  }

 private:
  std::vector<Key> keys_;
};

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || result.ec != std::errc() || result.ptr != text.data() + text.size())
    return std::nullopt;
  return value;
}

constexpr std::array<std::pair<std::string_view, Durability>, 3> durability_words{
    {{"memory", Durability::memory}, {"spill", Durability::spill}, {"write_ahead", Durability::write_ahead}}};
constexpr std::array<std::pair<std::string_view, Overflow>, 2> overflow_words{
    {{"reject", Overflow::reject}, {"drop_oldest", Overflow::drop_oldest}}};

template <typename T>
bool find_word(const auto& words, std::string_view word, T& into) {
  for (const auto& [name, value] : words) {
    if (name != word) continue;
    into = value;
    return true;
  }
  return false;
}

std::string word_of(const auto& words, auto wanted) {
  for (const auto& [name, value] : words)
    if (value == wanted) return std::string(name);
  return {};
}

bool not_empty(std::string_view text) { return !text.empty(); }
bool anything(std::string_view) { return true; }
bool is_topic(std::string_view text) {
  return !text.empty() && text.size() <= 65'535 &&
         text.find_first_of(std::string_view("+#\0", 3)) == text.npos;
}

// &member of a part of the configuration, const or not. NOLINTNEXTLINE(bugprone-macro-parentheses): a member's name
#define FULMAR_AT(path) [](auto& c) -> auto& { return c.path; }

void add_mqtt_keys(Table& t) {
  constexpr std::int64_t mib = 1 << 20;
  t.add(
      "mqtt.url", Kind::list, "one or more of mqtt://[user[:password]@]host[:port]",
      [](Config& c, const Value& v) {
        c.mqtt.urls = std::get<std::vector<std::string>>(v);
        return std::ranges::none_of(c.mqtt.urls, &std::string::empty);
      },
      [](const Config& c) {
        std::vector<std::string> shown;
        for (const std::string& url : c.mqtt.urls) shown.push_back(redacted_url(url));
        return Value(shown);
      });
  t.text("mqtt.client_id", "a text that is not empty", FULMAR_AT(mqtt.client_id), not_empty);
  t.add(
      "mqtt.username", Kind::text, "a text",
      [](Config& c, const Value& v) {
        c.mqtt.username = std::get<std::string>(v);
        return true;
      },
      [](const Config& c) { return Value(c.mqtt.username.value_or("")); });
  t.add(
       "mqtt.password", Kind::text, "a text",
       [](Config& c, const Value& v) {
         c.mqtt.password = std::get<std::string>(v);
         c.password_file.reset();
         return true;
       },
       [](const Config& c) { return Value(c.mqtt.password.value_or("")); })
      .secret = true;
  t.add(
      "mqtt.password_file", Kind::text, "the path of a file",
      [](Config& c, const Value& v) {
        c.password_file = std::get<std::string>(v);
        c.mqtt.password.reset();
        return !c.password_file->empty();
      },
      [](const Config& c) { return Value(c.password_file.value_or("").string()); });
  t.add(
      "mqtt.protocol", Kind::text, "\"5\" or \"3.1.1\"",
      [](Config& c, const Value& v) {
        const auto& text = std::get<std::string>(v);
        c.mqtt.protocol = text == "5" ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1;
        return text == "5" || text == "3.1.1";
      },
      [](const Config& c) { return Value(c.mqtt.protocol == ProtocolVersion::v5 ? "5" : "3.1.1"); });
  t.seconds("mqtt.keepalive_s", 1, 3600, FULMAR_AT(mqtt.keepalive));
  t.boolean("mqtt.clean_start", FULMAR_AT(mqtt.clean_start));
  t.seconds("mqtt.session_expiry_s", 0, 4'294'967'295.0, FULMAR_AT(mqtt.session_expiry));
  t.seconds("mqtt.connect_timeout_s", 0.1, 3600, FULMAR_AT(mqtt.connect_timeout));
  t.seconds("mqtt.reconnect_min_delay_s", 0.1, 3600, FULMAR_AT(mqtt.reconnect_min_delay));
  t.seconds("mqtt.reconnect_max_delay_s", 0.1, 86'400, FULMAR_AT(mqtt.reconnect_max_delay));
  t.integer("mqtt.max_inflight", 1, 65'535, FULMAR_AT(mqtt.max_inflight));
  t.integer("mqtt.outbox_bytes", mib / 16, 16'384 * mib, FULMAR_AT(mqtt.outbox_bytes));
  t.integer("mqtt.outbox_messages", 1, 100'000'000, FULMAR_AT(mqtt.outbox_messages));
  t.text("mqtt.spool_dir", "the path of a folder; empty = none", FULMAR_AT(mqtt.spool_dir), anything);
  t.integer("mqtt.spool_bytes", mib, mib << 20, FULMAR_AT(mqtt.spool_bytes));
  t.add(
      "mqtt.spool_max_age_s", Kind::number, "a number of seconds from 1 to 315360000, or 0 for no limit",
      [](Config& c, const Value& v) {
        const double value = std::get<double>(v);
        c.mqtt.spool_max_age.reset();
        if (value == 0) return true;
        if (!(value >= 1 && value <= 315'360'000)) return false;
        c.mqtt.spool_max_age = std::chrono::seconds(std::llround(value));
        return true;
      },
      [](const Config& c) {
        return Value(static_cast<double>(c.mqtt.spool_max_age.value_or(std::chrono::seconds(0)).count()));
      });
  t.add(
      "mqtt.durability", Kind::text, "\"memory\", \"spill\" or \"write_ahead\"",
      [](Config& c, const Value& v) {
        return find_word(durability_words, std::get<std::string>(v), c.mqtt.durability);
      },
      [](const Config& c) { return Value(word_of(durability_words, c.mqtt.durability)); });
  // The others lose batches that could have waited in the queue, or hold up the sender.
  t.add(
      "mqtt.overflow", Kind::text,
      "\"reject\": batches that do not fit wait in the queue; or \"drop_oldest\": they take the place of the "
      "oldest",
      [](Config& c, const Value& v) {
        return find_word(overflow_words, std::get<std::string>(v), c.mqtt.overflow);
      },
      [](const Config& c) { return Value(word_of(overflow_words, c.mqtt.overflow)); });
  t.add(
      "mqtt.wakeup", Kind::text, "\"eager\" or \"lazy:MILLISECONDS\"",
      [](Config& c, const Value& v) {
        std::string_view text = std::get<std::string>(v);
        c.mqtt.wakeup = {};
        if (text == "eager") return true;
        if (!text.starts_with("lazy:")) return false;
        const auto ms = parse_number<double>(text.substr(5));
        if (!ms || *ms < 0.001 || *ms > 1000) return false;
        c.mqtt.wakeup.lazy_interval =
            std::chrono::round<std::chrono::microseconds>(std::chrono::duration<double, std::milli>(*ms));
        return true;
      },
      [](const Config& c) {
        const std::chrono::duration<double, std::milli> lazy = c.mqtt.wakeup.lazy_interval;
        return Value(lazy.count() > 0 ? fmt::format("lazy:{}", lazy.count()) : std::string("eager"));
      });
}

void add_telemetry_keys(Table& t) {
  t.boolean("telemetry.enabled", FULMAR_AT(telemetry_enabled));
  const std::string topic = "a topic: 1 to 65535 bytes without +, # and NUL";
  t.text("telemetry.topic", topic, FULMAR_AT(telemetry.topic), is_topic);
  t.text("telemetry.attributes_topic", topic, FULMAR_AT(telemetry.attributes_topic), is_topic);
  t.integer("telemetry.qos", 0, 1, FULMAR_AT(telemetry.qos));
  t.integer("telemetry.queue_capacity", 2, 1 << 24, FULMAR_AT(telemetry.queue_capacity));
  t.integer("telemetry.batch_size", 1, 10'000, FULMAR_AT(telemetry.batch_size));
  t.integer("telemetry.batch_bytes", 1'000, 16 << 20, FULMAR_AT(telemetry.batch_bytes));
  t.seconds("telemetry.batch_interval_s", 0.01, 3600, FULMAR_AT(telemetry.batch_interval));
  t.boolean("telemetry.batch_wrapper", FULMAR_AT(telemetry.batch_wrapper));
  t.boolean("telemetry.wrapper_sequence", FULMAR_AT(telemetry.wrapper_sequence));
  t.text("telemetry.batch_property", "a text; empty = none", FULMAR_AT(telemetry.batch_property), anything);
  t.add(
      "telemetry.telemetry_fields", Kind::list, "a list of names",
      [](Config& c, const Value& v) {
        c.telemetry.fields = std::get<std::vector<std::string>>(v);
        return std::ranges::none_of(c.telemetry.fields, &std::string::empty);
      },
      [](const Config& c) { return Value(c.telemetry.fields); });
  t.text("telemetry.source", "\"host\", \"-\" (standard input) or the path of a file or FIFO",
         FULMAR_AT(source), not_empty);
  t.boolean("telemetry.host.enabled", FULMAR_AT(host_enabled));
  t.add(
      "telemetry.host.rate_hz", Kind::number, "a number from 0.1 to 1000",
      [](Config& c, const Value& v) {
        c.host.rate_hz = std::get<double>(v);
        return c.host.rate_hz >= 0.1 && c.host.rate_hz <= 1000;
      },
      [](const Config& c) { return Value(c.host.rate_hz); });
  t.add(
      "telemetry.lines.format", Kind::text, "\"auto\", \"json\" or \"csv\"",
      [](Config& c, const Value& v) {
        const auto format = telemetry::record_format_of(std::get<std::string>(v));
        c.lines.format = format.value_or(c.lines.format);
        return format.has_value();
      },
      [](const Config& c) { return Value(std::string(telemetry::to_string(c.lines.format))); });
  t.add(
      "telemetry.lines.rate_hz", Kind::number,
      "a number from 0.001 to 10000000, or 0 for as fast as they are taken",
      [](Config& c, const Value& v) {
        c.lines.rate_hz = std::get<double>(v);
        return c.lines.rate_hz == 0 ||
               (c.lines.rate_hz >= 0.001 && c.lines.rate_hz <= telemetry::LineSource::rate_hz_max);
      },
      [](const Config& c) { return Value(c.lines.rate_hz); });
}

void add_queue_keys(Table& t) {
  t.add(
      "queue.url", Kind::text, "sqlite:PATH, yaml:PATH or postgresql://HOST/DB; empty = none",
      [](Config& c, const Value& v) {
        c.queue.url = std::get<std::string>(v);
        return c.queue.url.empty() || c.queue.url.find(':') != std::string::npos;
      },
      [](const Config& c) { return Value(redacted_url(c.queue.url)); });
  t.text("queue.name",
         "the name of a queue: 1 to 64 letters, digits, '_', '-' or '.'; empty = the store's first",
         FULMAR_AT(queue.name), [](std::string_view name) {
           return name.size() <= 64 && std::ranges::all_of(name, [](char c) {
                    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
                  });
         });
  t.seconds("queue.upkeep_interval_s", 0.05, 3600, FULMAR_AT(queue.upkeep_interval));
}

void add_log_keys(Table& t) {
  t.text("log.level", "trace, debug, info, warning, error or off", FULMAR_AT(log_level),
         [](std::string_view level) {
           constexpr std::array<std::string_view, 6> levels{"trace",   "debug", "info",
                                                            "warning", "error", "off"};
           return std::ranges::find(levels, level) != levels.end();
         });
  t.text("log.file", "the path of a file", FULMAR_AT(log_file), anything);
}

#undef FULMAR_AT

std::string quoted_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + '"';
}

std::optional<bool> parse_bool(std::string_view text) {
  std::string lower;
  for (const char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower == "true" || lower == "1" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "0" || lower == "no" || lower == "off") return false;
  return std::nullopt;
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    std::string_view part = text.substr(0, end);
    part.remove_prefix(std::min(part.find_first_not_of(' '), part.size()));
    part = part.substr(0, part.find_last_not_of(' ') + 1);
    parts.emplace_back(part);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

}  // namespace

std::vector<Key> config_keys() {
  Table table;
  add_mqtt_keys(table);
  add_telemetry_keys(table);
  add_queue_keys(table);
  add_log_keys(table);
  return std::move(table).take();
}

std::optional<Value> parse_value(Kind kind, std::string_view text) {
  const auto as_value = [](const auto& parsed) {
    return parsed ? std::optional<Value>(*parsed) : std::nullopt;
  };
  switch (kind) {
    case Kind::boolean: return as_value(parse_bool(text));
    case Kind::integer: return as_value(parse_number<std::int64_t>(text));
    case Kind::number: {
      const auto number = parse_number<double>(text);
      return number && std::isfinite(*number) ? std::optional<Value>(*number) : std::nullopt;
    }
    case Kind::text: return Value(std::string(text));
    case Kind::list: return Value(split(text));
  }
  return std::nullopt;
}

std::string to_toml(const Value& value) {
  struct Writer {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const {
      std::string text = fmt::format("{}", v);
      return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
    }
    std::string operator()(const std::string& v) const { return quoted_text(v); }
    std::string operator()(const std::vector<std::string>& v) const {
      std::vector<std::string> items;
      for (const std::string& item : v) items.push_back(quoted_text(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
  };
  return std::visit(Writer{}, value);
}

}  // namespace fulmar::daemon
