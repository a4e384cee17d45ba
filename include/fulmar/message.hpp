#pragma once
// Messages, both ways: what a publisher says about one, how it ended, and what a handler is given.
//
// Thread-safety: plain values, except where said. Views belong to whoever made them.

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "fulmar/durability.hpp"
#include "fulmar/mqtt/properties.hpp"
#include "fulmar/mqtt/types.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

using MessageId = std::uint64_t;  // grows in the order of acceptance

// --- outbound --------------------------------------------------------------------------------------------------------

struct UserProperty {
  std::string_view name;
  std::string_view value;
};

// The views need to be valid during publish() only. The fields marked 5.0 cannot be sent to a server of 3.1.1; publish()
// says so as soon as it is known that the connection speaks 3.1.1.
struct PublishOptions {
  QoS qos = QoS::at_most_once;
  bool retain = false;
  // Counted from acceptance. An expired message is not sent; the rest is told to a server of 5.0 [MQTT-3.3.2-6].
  std::optional<std::chrono::seconds> message_expiry{};
  std::string_view content_type{};                  // 5.0 [MQTT5 3.3.2.3.9]
  std::string_view response_topic{};                // 5.0, a topic name [MQTT-3.3.2-14]
  std::optional<BytesView> correlation_data{};      // 5.0 [MQTT5 3.3.2.3.6]
  std::span<const UserProperty> user_properties{};  // 5.0, in this order [MQTT-3.3.2-18]
  bool payload_is_utf8 = false;                     // 5.0: payload format indicator 1 [MQTT5 3.3.2.3.2]
  // Instead of ClientConfig::durability, for this message; all but `memory` need a spool. It is the least that is done:
  // behind messages that go to disk it goes there too, because the order is kept.
  std::optional<Durability> durability{};
};

struct OutgoingMessage {
  std::string_view topic;
  BytesView payload;
  PublishOptions options{};
};

// How a message ended.
struct Delivery {
  enum class Outcome : std::uint8_t {
    sent,          // QoS 0: handed to the operating system
    acknowledged,  // QoS 1, 2: the server has it
    refused,       // the server answered with `reason_code`, or cannot take such a message
    expired,
    // Written to the spool and synced before there was another outcome: it survives the process and power loss, and is
    // delivered later, possibly by a later process.
    stored,
    dropped,  // did not fit (Overflow), QoS 0 while offline (offline_qos0), or without an outcome at shutdown
  };
  MessageId id = 0;
  Outcome outcome = Outcome::sent;
  std::uint8_t reason_code = 0;
};
std::string_view to_string(Delivery::Outcome outcome);

// Runs once, on the client's dispatch thread.
using DeliveryHandler = std::move_only_function<void(const Delivery&)>;

// --- inbound ---------------------------------------------------------------------------------------------------------

// The right and the duty to acknowledge one inbound QoS 1 or 2 message (SubscribeOptions::manual_ack). The server holds
// back the acknowledgements behind it, and new messages once `receive_maximum` wait [MQTT-4.6.0-2]. Destroyed without
// acknowledge(), the message stays unacknowledged and comes again with the next connection of a persistent session.
// Thread-safety: may be moved to and used on any thread, by one at a time; outliving the client is harmless.
class Acknowledgement {
 public:
  Acknowledgement();
  Acknowledgement(Acknowledgement&&) noexcept;
  Acknowledgement& operator=(Acknowledgement&&) noexcept;

  explicit operator bool() const { return state_ != nullptr; }
  // Once; later calls do nothing, nor does one for a connection that is gone. `reason_code` >= 0x80 refuses (5.0).
  void acknowledge(std::uint8_t reason_code = 0);

  struct State;
  explicit Acknowledgement(std::unique_ptr<State> state);
  ~Acknowledgement();

 private:
  std::unique_ptr<State> state_;
};

class OwnedMessage;

// An inbound message. All views are valid during the handler's call only: copy() to keep it.
struct Message {
  std::string_view topic;
  BytesView payload;
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool dup = false;
  mqtt::PropertiesView properties{};  // 5.0, all that came with it

  std::string_view text() const { return as_text(payload); }

  // What the wildcards of the subscription's filter stand for, in their order: `a/+/b/#` for `a/1/b/2/3` gives "1", "2/3".
  // `#` for the parent level itself gives "". Without wildcards: empty.
  std::span<const std::string_view> captures() const { return captures_; }

  std::string_view content_type() const { return properties.text(mqtt::PropertyId::content_type); }
  std::string_view response_topic() const { return properties.text(mqtt::PropertyId::response_topic); }
  BytesView correlation_data() const { return as_bytes(properties.text(mqtt::PropertyId::correlation_data)); }
  // The first user property of that name.
  std::optional<std::string_view> user_property(std::string_view name) const;
  // What is left of it, as the server said.
  std::optional<std::chrono::seconds> message_expiry() const;

  // The first call takes it; empty afterwards, for QoS 0 and without manual_ack.
  Acknowledgement acknowledgement() const;

  OwnedMessage copy() const;

  // Set by the client.
  std::span<const std::string_view> captures_{};
  Acknowledgement* acknowledgement_ = nullptr;
};

// A Message that owns what it views: one allocation. Copies share it.
// Thread-safety: as a const value.
class OwnedMessage {
 public:
  OwnedMessage() = default;
  explicit OwnedMessage(const Message& message);

  const Message& operator*() const { return message_; }
  const Message* operator->() const { return &message_; }

 private:
  std::shared_ptr<const std::byte[]> bytes_;
  Message message_;
};

// Runs once for each message that its filter matches, one call at a time and in the order received. When it throws, that is
// logged and counted (Metrics::handler_errors), and the message counts as handled.
//
// A server may send a message once for each subscription that matches. Where it speaks 5.0 and has subscription identifiers,
// every handler is called for its own copy only; otherwise each copy reaches every handler that matches.
//
// With clean_start = false, messages that no handler wants wait for subscribe(), unacknowledged: up to 1,000 of them, a
// quarter of inbound_bytes, and 60 s from the connection on, since the server holds back what comes behind them. Then the
// oldest is given up: acknowledged, and counted as unrouted.
using MessageHandler = std::function<void(const Message&)>;

// Runs a function later, somewhere else: a thread pool's post, an event loop's. For Asio: fulmar/asio.hpp has executor_of().
// It must not drop the function: a message whose handler never ran is never acknowledged. Should it throw, that counts as
// dropped. Messages that wait there count against inbound_bytes. Those of a subscription that is gone are acknowledged unseen.
using Executor = std::function<void(std::move_only_function<void()>)>;

enum class RetainHandling : std::uint8_t {  // 5.0 [MQTT5 3.8.3.1]
  send = 0,         // retained messages at each SUBSCRIBE, also those after a reconnect without session
  send_if_new = 1,  // only when the server does not have the subscription yet
  do_not_send = 2,
};

struct SubscribeOptions {
  QoS qos = QoS::at_most_once;  // the greatest that the server may send with
  bool no_local = false;        // 5.0: not what this client publishes itself; not for $share [MQTT-3.8.3-4]
  bool retain_as_published = false;                       // 5.0: RETAIN as the publisher set it
  RetainHandling retain_handling = RetainHandling::send;  // 5.0
  // QoS 1 and 2 are acknowledged by Message::acknowledgement() instead of by the handler's return; by the client when the
  // handler throws without having taken it.
  bool manual_ack = false;
  // Where the handler runs; empty: on the client's dispatch thread. One call at a time and in order all the same. The
  // message is copied for it and acknowledged after the handler has returned.
  Executor executor{};
};

// Unsubscribes when destroyed. Movable. Outliving the client is harmless.
// Thread-safety: one thread at a time.
class Subscription {
 public:
  Subscription() = default;
  Subscription(Subscription&&) noexcept;
  Subscription& operator=(Subscription&&) noexcept;
  ~Subscription();

  const std::string& filter() const;
  // The server's first answer: the QoS granted. Errors: refused (with the server's reason code), cancelled (unsubscribed or
  // replaced before), shutting_down. Waiting for it in a handler waits for ever: answers come on the dispatch thread.
  std::shared_future<Result<QoS>> granted() const;
  void unsubscribe();  // as the destructor does, now
  void detach();       // keep the subscription for the client's life

  struct State;
  explicit Subscription(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

}  // namespace fulmar
