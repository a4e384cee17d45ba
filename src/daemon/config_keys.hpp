#pragma once
// The table of keys: what each is called in the file and in the environment, what it takes and where it goes.
// The one place to add a key; the file, the environment, --set, --check-config and the hints all follow.
//
// Thread-safety: plain values.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "daemon/config.hpp"

namespace fulmar::daemon {

using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;

struct Key {
  enum class Kind : std::uint8_t { boolean, integer, number, text, list };

  std::string name;     // "telemetry.batch_size"
  std::string env;      // "FULMAR_TELEMETRY_BATCH_SIZE"
  std::string expects;  // "an integer from 1 to 10000"
  Kind kind;
  // False when the value is out of range; the Value holds the alternative of `kind`.
  std::function<bool(DaemonConfig&, const Value&)> set;
  std::function<Value(const DaemonConfig&)> get;
  bool secret = false;

  std::string_view section() const { return std::string_view(name).substr(0, name.rfind('.')); }
  std::string_view leaf() const { return std::string_view(name).substr(name.rfind('.') + 1); }
};

std::vector<Key> config_keys();

// Text from the environment or a flag as a value of this kind; nothing when it is none.
std::optional<Value> parse_value(Key::Kind kind, std::string_view text);

// As TOML.
std::string to_toml(const Value& value);

}  // namespace fulmar::daemon
