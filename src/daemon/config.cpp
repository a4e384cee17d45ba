#include "daemon/config.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <toml++/toml.h>

#include "base/near_miss.hpp"
#include "daemon/config_keys.hpp"

namespace fulmar::daemon {
namespace {

namespace fs = std::filesystem;

std::string host_name() {
  char name[256] = "localhost";
  gethostname(name, sizeof name - 1);
  return name;
}

std::expected<std::string, std::string> read_file(const fs::path& path) {
  errno = 0;
  std::error_code error;
  if (fs::is_directory(path, error)) return std::unexpected(std::string("it is a directory"));
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf() || in.peek() == std::ifstream::traits_type::eof()))
    return std::unexpected(std::string(std::strerror(errno ? errno : EIO)));
  return text.str();
}

std::string hint(std::string_view word, const std::vector<std::string_view>& candidates) {
  const std::string_view meant = near_miss(word, candidates);
  return meant.empty() ? std::string() : fmt::format("; did you mean {}?", meant);
}

std::string shown(const Key& key, const std::string& value) { return key.secret ? "\"***\"" : value; }

// Puts the sources together, one on the other.
class Loader {
 public:
  explicit Loader(const ConfigSources& sources) : sources_(sources), keys_(config_keys()) {}

  std::expected<LoadedConfig, std::vector<std::string>> load() {
    if (sources_.live) config_.telemetry_enabled = true;
    if (sources_.file) load_file(*sources_.file);
    load_environment();
    for (const auto& [name, value] : sources_.flags) load_flag(name, value);
    read_password_file();
    const bool needs_broker = sources_.broker && config_.mqtt.urls.empty();
    if (file_usable_) check_whole(needs_broker);  // otherwise all that it says would be missed too
    if (!problems_.empty()) return std::unexpected(std::move(problems_));
    return LoadedConfig{.config = config_, .needs_broker = needs_broker, .effective = effective()};
  }

 private:
  const Key* find(std::string_view name) const {
    const auto at = std::ranges::find(keys_, name, &Key::name);
    return at == keys_.end() ? nullptr : &*at;
  }
  std::optional<std::string> environment(std::string_view name) const {
    for (const auto& [key, value] : sources_.environment)
      if (key == name) return value;
    return std::nullopt;
  }
  void problem(std::string text) { problems_.push_back(std::move(text)); }

  void assign(const Key& key, const std::optional<Value>& value, const std::string& given,
              const std::string& origin) {
    DaemonConfig changed = config_;
    if (!value || !key.set(changed, *value)) {
      problem(fmt::format("{} = {} ({}): expected {}", key.name, shown(key, given), origin, key.expects));
      wrong_.insert(key.name);
      return;
    }
    config_ = std::move(changed);
    origins_[key.name] = origin;
  }

  // --- the file

  void load_file(const fs::path& path) {
    const auto text = read_file(path);
    file_usable_ = false;
    if (!text)
      return problem(fmt::format("cannot read the configuration {}: {}", path.string(), text.error()));
    try {
      const toml::table table = toml::parse(*text, path.string());
      file_usable_ = true;
      load_table(table, "", path.string());
    } catch (const toml::parse_error& error) {
      const auto& at = error.source().begin;
      problem(fmt::format("{}:{}:{}: not TOML: {}", path.string(), at.line, at.column, error.description()));
    }
  }

  void load_table(const toml::table& table, const std::string& section, const std::string& file) {
    for (const auto& [toml_key, node] : table) {
      const std::string leaf(toml_key.str());
      const std::string name = section.empty() ? leaf : fmt::format("{}.{}", section, leaf);
      const std::string place =
          fmt::format("{}:{}:{}", file, toml_key.source().begin.line, toml_key.source().begin.column);
      const bool is_section = std::ranges::any_of(
          keys_, [&](const Key& k) { return k.section() == name || k.section().starts_with(name + "."); });
      if (is_section && node.is_table()) {
        load_table(*node.as_table(), name, file);
      } else if (const Key* key = find(name)) {
        load_node(*key, node, place);
      } else {
        problem(fmt::format("unknown {} {} in {}{}", node.is_table() ? "section" : "key", name, place,
                            hint(leaf, names_in(section))));
      }
    }
  }

  // Keys and sections directly in a section.
  std::vector<std::string_view> names_in(const std::string& section) const {
    std::set<std::string_view> names;
    for (const Key& key : keys_) {
      std::string_view rest = key.name;
      if (!section.empty()) {
        if (!rest.starts_with(section + ".")) continue;
        rest.remove_prefix(section.size() + 1);
      }
      names.insert(rest.substr(0, rest.find('.')));
    }
    return {names.begin(), names.end()};
  }

  void load_node(const Key& key, const toml::node& node, const std::string& place) {
    std::ostringstream given;
    if (const auto* text = node.as_string())
      given << to_toml(Value(text->get()));
    else
      node.visit([&](const auto& n) { given << n; });
    if (const auto value = value_of(key, node, place)) assign(key, *value, given.str(), place);
  }

  // Outer nothing: the problem has been told already. Inner nothing: the wrong type.
  std::optional<std::optional<Value>> value_of(const Key& key, const toml::node& node,
                                               const std::string& place) {
    using Kind = Key::Kind;
    std::vector<std::string> texts;
    if (const auto* array = node.as_array(); array && key.kind == Kind::list) {
      for (const toml::node& item : *array) {
        const auto* text = item.as_string();
        if (!text) return std::optional<Value>();
        texts.push_back(text->get());
      }
    } else if (const auto* text = node.as_string()) {
      texts.push_back(text->get());
    }
    for (std::string& text : texts) {
      auto expanded = substitute(text, [this](std::string_view name) { return environment(name); });
      if (!expanded) {
        problem(fmt::format("{} ({}): {}", key.name, place, expanded.error()));
        return std::nullopt;
      }
      text = std::move(*expanded);
    }

    // A whole value may come from a variable, so a text that reads as a number is one if it was substituted.
    const bool substituted = node.is_string() && texts.front() != node.as_string()->get();
    if (node.is_string() && (substituted || key.kind == Kind::text || key.kind == Kind::list))
      return parse_value(key.kind, texts.front());
    if (node.is_array()) return key.kind == Kind::list ? std::optional<Value>(texts) : std::nullopt;
    if (const auto* b = node.as_boolean())
      return key.kind == Kind::boolean ? std::optional<Value>(b->get()) : std::nullopt;
    if (const auto* i = node.as_integer()) {
      if (key.kind == Kind::integer) return Value(i->get());
      if (key.kind == Kind::number) return Value(static_cast<double>(i->get()));
      if (key.name == "mqtt.protocol") return Value(std::to_string(i->get()));
    }
    if (const auto* d = node.as_floating_point(); d && key.kind == Kind::number) return Value(d->get());
    return std::optional<Value>();
  }

  // --- the environment and the flags

  void load_environment() {
    std::vector<std::string_view> names;
    for (const Key& key : keys_) names.push_back(key.env);
    for (const auto& [name, value] : sources_.environment) {
      const auto key = std::ranges::find(keys_, name, &Key::env);
      if (key != keys_.end()) {
        if (!value.empty())
          assign(*key, parse_value(key->kind, value), fmt::format("\"{}\"", value), "env " + name);
      } else if (name.starts_with("MQTT_") || name.starts_with("FULMAR_TELEMETRY_") ||
                 name.starts_with("FULMAR_QUEUE_") || name.starts_with("FULMAR_LOG_")) {
        problem(fmt::format("unknown environment variable {}{}", name, hint(name, names)));
      }
    }
  }

  void load_flag(const std::string& name, const std::string& value) {
    const Key* key = find(name);
    if (key) return assign(*key, parse_value(key->kind, value), fmt::format("\"{}\"", value), "flag");
    std::vector<std::string_view> names;
    for (const Key& k : keys_) names.push_back(k.name);
    problem(fmt::format("unknown key {} in --set{}", name, hint(name, names)));
  }

  // --- all together

  void read_password_file() {
    if (!config_.password_file) return;
    auto text = read_file(*config_.password_file);
    if (!text)
      return problem(fmt::format("mqtt.password_file = \"{}\" ({}): cannot be read: {}",
                                 config_.password_file->string(), origins_["mqtt.password_file"],
                                 text.error()));
    while (text->ends_with('\n') || text->ends_with('\r')) text->pop_back();
    config_.mqtt.password = std::move(*text);
  }

  void check_whole(bool needs_broker) {
    if (config_.mqtt.urls.empty() && !needs_broker && !wrong_.contains("mqtt.url"))
      problem(
          "mqtt.url is not set: give --url, MQTT_URL or [mqtt] url, or --live to run with a broker of its "
          "own");
    ClientConfig client = config_.mqtt;
    if (client.urls.empty()) client.urls = {"mqtt://localhost"};  // comes later, or is a problem already
    for (const std::string& text : client.problems()) problem("[mqtt] " + text);
    for (const std::string& text : config_.telemetry.problems()) problem("[telemetry] " + text);
    if (!config_.telemetry_enabled)
      problem("nothing to do: set telemetry.enabled = true (or give --live)");
    else if (config_.source == "host" && !config_.host_enabled)
      problem(
          "nothing to do: telemetry has no source; set telemetry.host.enabled = true or telemetry.source");
  }

  std::string effective() const {
    std::string out, section;
    for (const Key& key : keys_) {
      if (key.section() != section) {
        section = key.section();
        out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
      }
      const Value value = key.get(config_);
      const auto* text = std::get_if<std::string>(&value);
      const auto* list = std::get_if<std::vector<std::string>>(&value);
      const bool unset = (text && text->empty()) || (list && list->empty());
      const auto origin = origins_.find(key.name);
      const std::string from = origin == origins_.end() ? "default" : origin->second;
      out += fmt::format(
          "{}{:<44}  # {}\n", unset ? "# " : "",
          fmt::format("{} = {}", key.leaf(), unset ? to_toml(value) : shown(key, to_toml(value))), from);
    }
    return out;
  }

  const ConfigSources& sources_;
  const std::vector<Key> keys_;
  DaemonConfig config_;
  std::map<std::string, std::string> origins_;
  std::set<std::string> wrong_;
  std::vector<std::string> problems_;
  bool file_usable_ = true;
};

}  // namespace

DaemonConfig::DaemonConfig() {
  mqtt.client_id = "fulmard-" + host_name();
  mqtt.outbox_bytes = std::size_t{64} << 20;  // batches wait there while the broker is away
  mqtt.overflow = Overflow::reject;           // and in telemetry's queue when it is full
}

std::expected<LoadedConfig, std::vector<std::string>> load_config(const ConfigSources& sources) {
  return Loader(sources).load();
}

std::vector<std::pair<std::string, std::string>> process_environment() {
  std::vector<std::pair<std::string, std::string>> all;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != text.npos) all.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

std::expected<std::string, std::string> substitute(std::string_view text, const Lookup& lookup) {
  std::string out;
  while (!text.empty()) {
    const std::size_t at = text.find("${");
    if (at == text.npos) return out.append(text);
    if (at > 0 && text[at - 1] == '$') {
      out.append(text.substr(0, at - 1)).append("${");
      text.remove_prefix(at + 2);
      continue;
    }
    out.append(text.substr(0, at));
    text.remove_prefix(at + 2);
    const std::size_t end = text.find('}');
    if (end == text.npos) return std::unexpected(std::string("a ${ without its }; write $${ for a plain ${"));
    const std::string_view inside = text.substr(0, end);
    const std::string_view name = inside.substr(0, inside.find(':'));
    text.remove_prefix(end + 1);
    if (name.empty()) return std::unexpected(std::string("a ${} without a name"));
    const auto value = lookup(name);
    if (!value && name.size() == inside.size())
      return std::unexpected(
          fmt::format("the environment variable {} is not set; set it or write ${{{}:default}}", name, name));
    if (value)
      out.append(*value);
    else
      out.append(inside.substr(name.size() + 1));
  }
  return out;
}

std::string redacted_url(std::string_view url) {
  const std::size_t scheme = url.find("://");
  if (scheme == url.npos) return std::string(url);
  // Up to the last @, wherever it stands: a password that should have been percent-encoded stays hidden too.
  const std::size_t begin = scheme + 3;
  const std::size_t at = url.rfind('@');
  const std::size_t colon = url.find(':', begin);
  if (at == url.npos || at < begin || colon == url.npos || colon > at) return std::string(url);
  return std::string(url.substr(0, colon + 1)) + "***" + std::string(url.substr(at));
}

}  // namespace fulmar::daemon
