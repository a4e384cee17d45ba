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

#include "fulmar/durability.hpp"
#include "fulmar/mqtt/types.hpp"
#include "fulmar/result.hpp"
#include "fulmar/tls_config.hpp"

namespace fulmar {

// What happens to a message that does not fit into the outbox, nor into the spool where there is one.
enum class Overflow : std::uint8_t {
  drop_newest,  // accepted and settled as dropped, counted
  drop_oldest,  // the oldest messages that wait are settled as dropped; the newest still is in a burst that fills the
  // outbox faster than the I/O thread makes room. With a spool: a segment of its oldest messages
  spool,   // as drop_newest, and asks for a spool (ClientConfig::spool_dir)
  reject,  // publish() returns Errc::outbox_full
  block,  // publish() waits for room up to `block_timeout`, then returns Errc::outbox_full. For tools without another
          // thread to hold up; never within a handler, where it is as `reject`
};

// What happens to QoS 0 messages while there is no connection.
enum class OfflineQos0 : std::uint8_t {
  keep,  // as all others
  drop,  // accepted and settled as dropped, counted
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
  std::chrono::seconds delay{0};                         // 5.0 [MQTT-3.1.3-9]
  std::optional<std::chrono::seconds> message_expiry{};  // 5.0
  std::string content_type{};                            // 5.0
};

struct ClientConfig {
  // One or more, tried in order. Required. [env MQTT_URL, comma separated]
  //   mqtt://[user[:password]@]host[:1883]          mqtts://...[:8883]
  //   ws://[user[:password]@]host[:80][/mqtt]       wss://...[:443][/mqtt]
  //   unix:///path/of/socket
  std::vector<std::string> urls{};
  std::string client_id{};                         // required, UTF-8 [MQTT_CLIENT_ID]
  std::optional<std::string> username{};           // else from the URL [MQTT_USERNAME]
  std::optional<std::string> password{};           // [MQTT_PASSWORD, MQTT_PASSWORD_FILE]
  std::string source_name{};                       // source of envelopes; empty: client_id [MQTT_SOURCE_NAME]
  ProtocolVersion protocol = ProtocolVersion::v5;  // [MQTT_PROTOCOL: 5 or 3.1.1]
  std::chrono::seconds keepalive{60};              // 1..3600; the server's own wins in 5.0 [MQTT_KEEPALIVE]
  bool clean_start = true;                         // [MQTT_CLEAN_START]
  std::chrono::seconds session_expiry{0};          // 5.0 [MQTT_SESSION_EXPIRY]
  bool enable_health = false;                      // retained system/health/{client_id} [MQTT_ENABLE_HEALTH]
  bool enable_heartbeat = false;                   // system/keepalive/{client_id} [MQTT_ENABLE_HEARTBEAT]
  // >= 1 s; without a successful one for three intervals the link is given up and made anew [MQTT_HEARTBEAT_INTERVAL, s]
  std::chrono::milliseconds heartbeat_interval{5'000};
  // Inbound envelopes seen within this time are not handled again; 0 = off. Recommended: 30 s, 2048 entries.
  std::chrono::milliseconds dedupe_ttl{0};               // [MQTT_DEDUPE_TTL, in seconds]
  std::size_t dedupe_max_entries = 0;                    // > 0 with a ttl [MQTT_DEDUPE_MAX_ENTRIES]
  std::chrono::milliseconds reconnect_min_delay{500};    // >= 100 ms [MQTT_RECONNECT_MIN_DELAY, in seconds]
  std::chrono::milliseconds reconnect_max_delay{5'000};  // >= min [MQTT_RECONNECT_MAX_DELAY, in seconds]
  // DNS, TCP, TLS, WebSocket and CONNACK together [MQTT_CONNECT_TIMEOUT, in seconds]
  std::chrono::milliseconds connect_timeout{10'000};
  // A QoS 1 or 2 message unacknowledged for so long on a live link: the link is given up and made anew. 0 = wait for ever.
  std::chrono::milliseconds ack_timeout{0};
  bool follow_redirects =
      false;  // 5.0: connect to the server that a server names in its refusal [MQTT5 4.11]
  std::uint16_t receive_maximum = 65'535;
  std::uint16_t max_inflight = 1'024;  // unacknowledged QoS 1 and 2; the server's Receive Maximum holds too
  std::uint32_t maximum_packet_size = 256u << 20;  // bytes, inbound
  // Accepted and not yet sent, 64 KiB..8 GiB [MQTT_OUTBOX_BYTES], and by count.
  std::size_t outbox_bytes = std::size_t{8} << 20;
  std::size_t outbox_messages = 1'000'000;
  // The folder of the spool, which one client has to itself; made when it is not there. Empty: no spool. [MQTT_SPOOL_DIR]
  // A message that waits in it has to fit into a segment: the power of two at or below spool_bytes / 16 and at most 4 MiB;
  // from 2 GiB on, the one at or below spool_bytes / 256.
  std::string spool_dir{};
  std::uint64_t spool_bytes = std::uint64_t{1} << 30;   // its bound, 1 MiB..1 TiB [MQTT_SPOOL_BYTES]
  std::optional<std::chrono::seconds> spool_max_age{};  // older messages are dropped; >= 1 s
  Durability durability = Durability::spill;            // [MQTT_DURABILITY: memory, spill or write_ahead]
  // Received and not yet handled; full = the socket is not read. 256 KiB..8 GiB [MQTT_INBOUND_BYTES]
  std::size_t inbound_bytes = std::size_t{4} << 20;
  std::size_t max_subscriptions = 1'000;           // 1..1,000,000
  Overflow overflow = Overflow::drop_newest;       // [MQTT_OVERFLOW]
  std::chrono::milliseconds block_timeout{1'000};  // of Overflow::block
  OfflineQos0 offline_qos0 = OfflineQos0::keep;
  Wakeup wakeup{};  // [MQTT_WAKEUP: eager or lazy:DURATION_MS]
  TlsConfig tls{};
  std::optional<WillMessage> will{};  // with enable_health: health "lost" unless set

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
