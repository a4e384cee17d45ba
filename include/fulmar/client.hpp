#pragma once
// Client: the never-blocking MQTT client. It connects and reconnects in the background, accepts messages in every state
// and delivers inbound messages to handlers on its own dispatch thread.
//
// Thread-safety: every function may be called from any thread, handlers included.
//
// Invariants
//   1. No function but connect(), wait_for(), flush(), shutdown() and the destructor ever waits; none takes a lock that
//      the I/O thread can hold, resolves a name or touches the disk [house invariant 1].
//   2. Every accepted message has exactly one outcome [house invariant 2].
//   3. Handlers run one at a time, in order, never under a lock [house invariant 6].

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fulmar/client_config.hpp"
#include "fulmar/mqtt/types.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

using MessageId = std::uint64_t;  // grows in the order of acceptance

struct PublishOptions {
  QoS qos = QoS::at_most_once;
  bool retain = false;
  // 5.0; counted from acceptance. An expired message is not sent.
  std::optional<std::chrono::seconds> message_expiry{};
};

// How a message ended.
struct Delivery {
  enum class Outcome : std::uint8_t {
    sent,          // QoS 0: handed to the operating system
    acknowledged,  // QoS 1, 2: the server has it
    refused,       // the server answered with `reason_code`, or cannot take such a message
    expired,
    dropped,  // did not fit (Overflow::drop_newest), or still waiting when the client shut down
  };
  MessageId id = 0;
  Outcome outcome = Outcome::sent;
  std::uint8_t reason_code = 0;
};
std::string_view to_string(Delivery::Outcome outcome);

using DeliveryHandler = std::move_only_function<void(const Delivery&)>;

// An inbound message. The views are valid during the handler's call only.
struct Message {
  std::string_view topic;
  BytesView payload;
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool dup = false;

  std::string_view text() const { return as_text(payload); }
};

using MessageHandler = std::function<void(const Message&)>;

struct SubscribeOptions {
  QoS qos = QoS::at_most_once;
  bool no_local = false;             // 5.0
  bool retain_as_published = false;  // 5.0
};

enum class ConnectionState : std::uint8_t {
  created,
  connecting,
  connected,
  reconnecting,
  disconnecting,
  disconnected,
};
std::string_view to_string(ConnectionState state);

struct StateChange {
  ConnectionState state = ConnectionState::created;
  std::string reason;                       // why, for people: "connection refused by 127.0.0.1:1883 ..."
  std::optional<std::uint8_t> reason_code;  // where the server gave one
  std::chrono::milliseconds retry_in{0};    // reconnecting: the delay before the next attempt
};

// Plain counters since construction, and gauges.
struct Metrics {
  std::uint64_t accepted = 0;      // publish() said yes
  std::uint64_t sent = 0;          // PUBLISH packets handed to the transport, re-sends included
  std::uint64_t acknowledged = 0;  // QoS 0: sent; QoS 1, 2: acknowledged
  std::uint64_t refused = 0;
  std::uint64_t expired = 0;
  std::uint64_t dropped = 0;
  std::uint64_t received = 0;
  std::uint64_t handled = 0;  // received, and every handler has returned
  std::uint64_t handler_errors = 0;
  std::uint64_t connects = 0;
  std::uint64_t disconnects = 0;
  std::uint64_t reconnect_attempts = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t outbox_messages = 0;  // gauge: accepted and not yet taken by the I/O thread
  std::uint64_t outbox_bytes = 0;
  std::uint64_t in_flight = 0;  // gauge: sent and not yet acknowledged
  std::uint64_t waiting = 0;    // gauge: accepted and without an outcome
};

enum class LogLevel : std::uint8_t { debug, info, warning, error };
// Called on the I/O or the dispatch thread, one call at a time; it must not block. Payloads and passwords are never logged.
using LogSink = std::function<void(LogLevel, std::string_view component, std::string_view text)>;

struct ShutdownReport {
  std::uint64_t acknowledged =
      0;  // messages with an outcome from the server (or sent, for QoS 0), since construction
  std::uint64_t lost = 0;  // without an outcome at the deadline; their delivery handlers were told `dropped`
};

// Unsubscribes when destroyed. Movable. Outliving the client is harmless.
class Subscription {
 public:
  Subscription() = default;
  Subscription(Subscription&&) noexcept;
  Subscription& operator=(Subscription&&) noexcept;
  ~Subscription();

  const std::string& filter() const;
  void unsubscribe();  // as the destructor does, now
  void detach();       // keep the subscription for the client's life

  struct State;
  explicit Subscription(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

class Client {
 public:
  // Throws std::invalid_argument with every problem of the configuration.
  explicit Client(ClientConfig config);
  // As shutdown(1 s).
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // --- life cycle
  // Starts the threads and connects in the background; returns in microseconds whatever the broker does. Idempotent.
  void start();
  // start() and wait for the first CONNACK. Errors: connection_refused (at once, with the server's reason code), timeout
  // (with the reason of the last failed attempt). The client goes on trying afterwards.
  Result<void> connect(std::chrono::milliseconds timeout);
  // flush, DISCONNECT, threads joined. Idempotent; any state and thread (from a handler: does not wait for itself).
  ShutdownReport shutdown(std::chrono::milliseconds deadline = std::chrono::seconds(5));
  // Waits until everything accepted before the call has an outcome; false when the deadline passed first.
  bool flush(std::chrono::milliseconds deadline);

  ConnectionState state() const;
  bool connected() const { return state() == ConnectionState::connected; }
  bool wait_for(ConnectionState state, std::chrono::milliseconds timeout) const;
  // The last change that the handler was told; a moment behind state().
  StateChange last_change() const;
  // Called on the dispatch thread for every change from now on; set it before start() to see them all.
  void on_state_change(std::function<void(const StateChange&)> handler);
  void set_log_sink(LogSink sink);  // before start()

  // --- publish
  // Validates, copies the message once and returns. Errors: invalid_topic, payload_too_large, outbox_full (under
  // Overflow::reject), shutting_down.
  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options = {});
  Result<MessageId> publish(std::string_view topic, std::string_view payload,
                            const PublishOptions& options = {}) {
    return publish(topic, as_bytes(payload), options);
  }
  // `handler` runs once on the dispatch thread with the outcome. It is not called when an error is returned.
  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                            DeliveryHandler handler);

  // --- subscribe
  // Valid in every state. The same filter again replaces its handler. `granted` is called once per SUBACK on the
  // dispatch thread with the reason code (>= 0x80: refused).
  using GrantedHandler = std::function<void(std::uint8_t reason_code)>;
  Result<Subscription> subscribe(std::string_view filter, MessageHandler handler,
                                 const SubscribeOptions& options = {}, GrantedHandler granted = {});

  // --- observe
  Metrics metrics() const;  // a snapshot; cheap enough for 100 Hz

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace fulmar
