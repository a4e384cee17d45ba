#pragma once
// ClientConfig: everything a Client needs to know, as a plain aggregate with defaults.
//
// Thread-safety: plain values.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/mqtt/types.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

// What happens to a message that does not fit into the outbox.
enum class Overflow : std::uint8_t {
  drop_newest,  // accepted and settled as dropped, counted
  reject,       // publish() returns Errc::outbox_full
};

// Whether publish() wakes a sleeping I/O thread itself.
struct Wakeup {
  // 0 = eager: at once, by a system call of the caller's (1-20 us when the I/O thread sleeps).
  // > 0 = lazy: the caller never makes a system call; the I/O thread looks by itself at the latest after this time.
  std::chrono::microseconds lazy_interval{0};
};

struct WillMessage {
  std::string topic;
  std::string payload;
  QoS qos = QoS::at_most_once;
  bool retain = false;
};

struct ClientConfig {
  // One or more of mqtt://[user[:password]@]host[:port]; tried in order. Required. [env MQTT_URL, comma separated]
  std::vector<std::string> urls{};
  std::string client_id{};                         // required, UTF-8 [MQTT_CLIENT_ID]
  std::optional<std::string> username{};           // else from the URL [MQTT_USERNAME]
  std::optional<std::string> password{};           // [MQTT_PASSWORD, MQTT_PASSWORD_FILE]
  ProtocolVersion protocol = ProtocolVersion::v5;  // [MQTT_PROTOCOL: 5 or 3.1.1]
  std::chrono::seconds keepalive{60};              // 1..3600; the server's own wins in 5.0 [MQTT_KEEPALIVE]
  bool clean_start = true;                         // [MQTT_CLEAN_START]
  std::chrono::seconds session_expiry{0};          // 5.0 [MQTT_SESSION_EXPIRY]
  std::chrono::milliseconds reconnect_min_delay{500};    // >= 100 ms [MQTT_RECONNECT_MIN_DELAY, in seconds]
  std::chrono::milliseconds reconnect_max_delay{5'000};  // >= min [MQTT_RECONNECT_MAX_DELAY, in seconds]
  std::chrono::milliseconds connect_timeout{
      10'000};  // DNS, TCP and CONNACK together [MQTT_CONNECT_TIMEOUT, in seconds]
  std::uint16_t receive_maximum = 65'535;
  std::uint16_t max_inflight = 1'024;  // unacknowledged QoS 1 and 2; the server's Receive Maximum holds too
  std::uint32_t maximum_packet_size = 256u << 20;  // bytes, inbound
  std::size_t outbox_bytes = std::size_t{8}
                             << 20;         // accepted and not yet sent; 64 KiB..8 GiB [MQTT_OUTBOX_BYTES]
  std::size_t outbox_messages = 1'000'000;  // the same by count
  // Received and not yet handled; full = the socket is not read. 256 KiB..8 GiB [MQTT_INBOUND_BYTES]
  std::size_t inbound_bytes = std::size_t{4} << 20;
  Overflow overflow = Overflow::drop_newest;  // [MQTT_OVERFLOW]
  Wakeup wakeup{};                            // [MQTT_WAKEUP: eager or lazy:DURATION_MS]
  std::optional<WillMessage> will{};

  // Every problem at once, one line each, naming the field, the environment variable and the value; empty when valid.
  // Passwords are never part of a line.
  std::vector<std::string> problems() const;

  // Reads the MQTT_* variables named above on top of `base`; booleans are true/false, 1/0, yes/no, on/off in any case.
  // `environment` is a null-terminated list of NAME=value as in environ(7), which is the default. An MQTT_* variable that
  // is not known is a problem too: no value passes silently. The error's message has one line per problem; whether the
  // result as a whole is valid is for problems() to say.
  static Result<ClientConfig> from_env(ClientConfig base, const char* const* environment = nullptr);
  static Result<ClientConfig> from_env();
};

}  // namespace fulmar
