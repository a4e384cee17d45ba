#pragma once
// Vitals: what a client says about its own life, and how it notices that it is not heard any more.
//
//   health     envelopes of type health.status, retained, QoS 1, on system/health/{client_id}: `ready` after the first
//              connect, `reconnected` after each later one, `shutdown` before the end; as will: `lost`, ok = false
//   heartbeat  {"ok":true,"event":"heartbeat","timestamp":...}, QoS 0, on system/keepalive/{client_id}: at once after each
//              connect, then every interval
//   watchdog   no heartbeat handed to the operating system for three intervals while connected: must_reconnect()
//
// A state machine without I/O, like mqtt::Session: it says when it wants on_timeout() and what is to be published.
//
// Invariants
//   1. At most one heartbeat is on its way: the next one waits for heartbeat_sent(), however long the link is stuck.
//   2. Late by many intervals, it sends one heartbeat, not one for each.
//   3. Intervals are those of `now`, the steady clock; the wall clock goes into the texts and nowhere else
//      [house invariant 10].
//
// Not thread-safe: owned by the connection, on the I/O thread; the free functions are pure.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "client/envelope.hpp"
#include "fulmar/client_config.hpp"
#include "fulmar/mqtt/record.hpp"

namespace fulmar {

std::string health_topic(std::string_view client_id);
std::string heartbeat_topic(std::string_view client_id);

// The envelope of a health message; empty `event` and `error` are left out. Errors: invalid_envelope when ok = false comes
// without both, or a text is not UTF-8.
Result<std::string> health_payload(std::string_view source, bool ok, std::string_view event,
                                   std::string_view error, WallTime wall);

// Who envelopes come from: source_name, or else the client's identifier.
std::string_view source_of(const ClientConfig& config);

class Vitals {
 public:
  using Instant = mqtt::Instant;

  struct Publication {  // views valid during the call
    std::string_view topic;
    std::string_view payload;
    QoS qos;
    bool retain;
    bool is_heartbeat;  // heartbeat_sent() is to be called when it has been handed to the operating system
  };
  // False: it cannot be published on this link for a reason of its own, e.g. it is larger than the server takes. A
  // heartbeat is then not expected to be sent, and the watchdog starts anew.
  using Sink = std::function<bool(const Publication&)>;

  // `config` outlives it.
  Vitals(const ClientConfig& config, Sink sink);

  // The will for a connection attempt: `config.will` or, with health, `lost`. Anew for each: two losses are two envelopes.
  std::optional<WillMessage> will(WallTime wall) const;

  void connected(Instant now, WallTime wall);  // CONNACK
  void disconnected();                         // the link is gone or being closed
  void heartbeat_sent(Instant now);
  // The last thing to be published before the client leaves of its own will; does nothing while not connected.
  void leaving(WallTime wall);

  // When on_timeout() wants to be called next; nothing: not before something else happens.
  std::optional<Instant> next_timeout() const;
  void on_timeout(Instant now, WallTime wall);
  // The link is to be given up: "no heartbeat could be sent for ...". Until disconnected().
  bool must_reconnect(Instant now) const;

 private:
  void publish_health(bool ok, std::string_view event, WallTime wall);
  void beat(Instant now, WallTime wall);
  std::chrono::milliseconds patience() const { return 3 * config_.heartbeat_interval; }

  const ClientConfig& config_;
  const Sink sink_;
  const std::string health_topic_;
  const std::string heartbeat_topic_;
  bool was_connected_ = false;
  bool connected_ = false;
  bool beating_ = false;  // a heartbeat is on its way
  Instant next_beat_{};
  Instant last_sent_{};  // or the start of the link
};

}  // namespace fulmar
