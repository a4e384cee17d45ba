#pragma once
// Client: the never-blocking MQTT client. It connects and reconnects in the background, accepts messages in every state
// and delivers inbound messages to handlers on its own dispatch thread.
//
// Thread-safety: every function may be called from any thread, handlers included.
//
// Invariants
//   1. No function but connect(), wait_for(), flush(), shutdown(), the waiting request(), publish() under Overflow::block
//      and the destructor ever waits; none takes a lock that
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
#include "fulmar/log.hpp"
#include "fulmar/message.hpp"
#include "fulmar/metrics.hpp"
#include "fulmar/result.hpp"
#include "fulmar/runtime.hpp"

namespace fulmar {

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

// Called on the I/O or the dispatch thread, one call at a time; it must not block. Payloads and passwords are never logged.
using LogSink = std::function<void(LogLevel, std::string_view component, std::string_view text)>;

struct ShutdownReport {
  std::uint64_t acknowledged =
      0;  // messages with an outcome from the server (or sent, for QoS 0), since construction
  std::uint64_t spooled = 0;  // messages that wait in the spool for the next run
  std::uint64_t lost = 0;  // without an outcome at the deadline; their delivery handlers were told `dropped`
};

struct BatchResult {
  std::size_t accepted = 0;      // messages from the front of the batch
  MessageId first = 0;           // of the first one accepted
  std::optional<Error> error{};  // why the next one was not
};

struct EventOptions {
  std::string_view correlation_id{};  // the envelope's `correlate`
  QoS qos = QoS::at_most_once;
  bool retain = false;
};

struct RequestOptions {
  QoS qos = QoS::at_least_once;     // of the request and of the subscription for its answer
  std::string_view content_type{};  // 5.0
};
using RequestId = std::uint64_t;
// The answer, or timeout, cancelled, shutting_down, or why the request could not be sent (refused, ...).
using ResponseHandler = std::move_only_function<void(Result<OwnedMessage>)>;
// The payload of the answer. An error is logged and counted, and nothing is answered.
using Responder = std::function<Result<std::string>(const Message&)>;

class Client {
 public:
  // Both throw std::invalid_argument with every problem of the configuration; no thread has been started then.
  explicit Client(ClientConfig config);           // with two threads of its own
  Client(ClientConfig config, Runtime& runtime);  // on the runtime's threads, which it keeps alive
  // As shutdown(1 s).
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // --- life cycle
  // Connects in the background; returns in microseconds whatever the broker does. Does nothing while started. After
  // disconnect() or shutdown() it starts again, with the subscriptions and the messages that wait.
  void start();
  // start() and wait for the first CONNACK. Errors: connection_refused (at once, with the server's reason code), timeout
  // (with the reason of the last failed attempt). The client goes on trying afterwards.
  Result<void> connect(std::chrono::milliseconds timeout);
  // DISCONNECT and no more attempts, without waiting for either; state() tells. Messages and subscriptions are kept.
  void disconnect();
  // Health `shutdown`, flush, DISCONNECT, threads joined. Idempotent; any state and thread (from a handler: does not wait
  // for itself). A handler that does not return is not waited for beyond the deadline: its thread is left to it, and
  // what it was given stays unacknowledged. With a spool, a slow disk is waited for up to a second beyond the deadline.
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
  // Validates, copies the message once and returns. Errors: invalid_topic, invalid_config (an option out of range),
  // payload_too_large, not_supported_by_server (of the connection that is up), outbox_full (Overflow::reject and block),
  // shutting_down.
  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options = {});
  Result<MessageId> publish(std::string_view topic, std::string_view payload,
                            const PublishOptions& options = {}) {
    return publish(topic, as_bytes(payload), options);
  }
  // `handler` runs once on the dispatch thread with the outcome. It is not called when an error is returned.
  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                            DeliveryHandler handler);
  // In order, up to the first that is not accepted; the I/O thread is woken once.
  BatchResult publish(std::span<const OutgoingMessage> messages);

  // --- subscribe
  // Valid in every state. The same filter again replaces its handler. `granted` is called once per SUBACK on the
  // dispatch thread with the reason code (>= 0x80: refused).
  // Errors: invalid_topic, invalid_config (no handler; an option that contradicts another), outbox_full (max_subscriptions).
  using GrantedHandler = std::function<void(std::uint8_t reason_code)>;
  Result<Subscription> subscribe(std::string_view filter, MessageHandler handler,
                                 const SubscribeOptions& options = {}, GrantedHandler granted = {});
  // Whatever Subscription holds it; false when there is none.
  bool unsubscribe(std::string_view filter);

  // --- events
  // Publishes an envelope of `type` with `json`, an object, as its data; returns its id. Errors: invalid_envelope, and
  // those of publish().
  Result<std::string> publish_event(std::string_view topic, std::string_view type, std::string_view json,
                                    const EventOptions& options = {});
  // Retained envelope of type health.status on system/health/{client_id}, QoS 1. ok = false needs an event or an error.
  // Does nothing and returns id 0 unless enable_health.
  Result<MessageId> publish_health(bool ok, std::string_view event, std::string_view error = {});

  // --- request and response
  // 5.0: response topic and correlation data. 3.1.1: the payload must be an envelope; its `reply_to` is filled in, and the
  // answer is the envelope whose `correlate` is its id.
  // Waits for the answer. Errors: as ResponseHandler's, and those of publish(). Not from a handler: error cancelled at once.
  Result<OwnedMessage> request(std::string_view topic, BytesView payload, std::chrono::milliseconds timeout,
                               const RequestOptions& options = {});
  // `handler` runs once on the dispatch thread. It is not called when an error is returned.
  Result<RequestId> request(std::string_view topic, BytesView payload, std::chrono::milliseconds timeout,
                            const RequestOptions& options, ResponseHandler handler);
  // The handler is told `cancelled`; false when it was told already.
  bool cancel_request(RequestId id);
  // Answers requests that match `filter`.
  Result<Subscription> respond(std::string_view filter, Responder responder,
                               const SubscribeOptions& options = {});

  // --- observe
  Metrics metrics() const;  // a snapshot; cheap enough for 100 Hz
  // ClientConfig::spool_dir: where messages wait on disk; empty: nowhere.
  const std::string& spool_dir() const;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace fulmar
