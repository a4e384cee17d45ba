#pragma once
// Session: an MQTT client's side of the protocol as a pure state machine. It owns no socket, thread, clock or
// callback; everything it does can be replayed. It never throws.
//
// How to drive it, for a byte stream (TCP, TLS, WebSocket payload, Unix socket):
//   1. When the transport is up:          connection_opened(now)
//   2. When bytes have come:              receive(bytes, now), then next_event() until it returns false; then keep the
//                                         last unread() bytes of `bytes` and present them again, with more behind them.
//                                         Views in an event are valid until the next call of receive().
//   3. To send:                           publish(), subscribe(), unsubscribe(), disconnect(); nothing is written yet.
//   4. After any of 1–3 and on_timeout:   transmit(buffer, now) until it returns 0; write what it filled.
//                                         Then, when should_close(): close the transport.
//   5. At next_timeout():                 on_timeout(now), then as after 2 and 4 (it may have made an event).
//   6. When the transport is gone:        connection_closed(now). In-flight messages are kept for the next connection.
//
// Invariants
//   1. Every published record ends in exactly one `Completed` event [house invariant 2].
//   2. A packet identifier exists only while its packet is in flight; allocation is O(1) and a live identifier is never
//      given again [MQTT-2.2.1-3]. That of a QoS 2 message which was given up (refused before its re-send, or handed out)
//      rests until the server ends its exchange or its session: under it a new message would pass for a repetition.
//   3. In-flight messages are transmitted again in their original order before anything new [MQTT-4.4.0-1, MQTT-4.6.0-1].
//   4. Never more unacknowledged QoS 1 and 2 messages than the server's Receive Maximum and our max_inflight
//      [MQTT-3.3.4-7..9].
//   5. The steady state allocates nothing: blocks and slots are recycled.
//
// Messages of a disk log ("stored") stay exactly-once across a restart of the process: a new one with the same client
// identifier takes the exchanges of QoS 2 up where the old one left them, while the server keeps the session.
//   - Each has a position: the number of its entry in the log, of which some may be other things. Its packet identifier
//     follows from the position, so that both processes know it by the same one; it repeats every 16,384 positions. The
//     caller keeps all positions between their first publish_stored() and the durable note of their Completed, in
//     whatever process, within 8,192 of each other. A log that numbers from anew needs a new session (clean start).
//   - A position is given again until it was Completed: the server may hold its identifier. To be rid of a message whose
//     PUBLISH may have left, give it as Resumed::released: that ends the exchange and repeats nothing.
//   - Its PUBREC is told (PubrecReceived) and answered only when the caller has noted that durably: release(). Thereby a
//     process that does not find the note knows that the server still remembers the message, and repeats the PUBLISH; one
//     that finds it sends only PUBREL [MQTT-4.3.3-4..6]. Call release() in the order of those events: a PUBREL waits for
//     those of earlier PUBRECs [MQTT-4.6.0-4].
//   - Notes are worth as much as the server's session. A Connected without session_present makes them void, those under
//     way too: the caller notes that before it transmits again, and calls release() only for later events. The session
//     publishes all anew, as it does with the others.
//
// Keep-alive [MQTT-3.1.2-20, MQTT-3.12.4-1]: with K the keep-alive in force, PINGREQ leaves after 7/8 K without sending or
// without receiving; any bytes from the server answer it. The connection is dead when nothing has come for 1.5 K and for
// at least K/2 since the PINGREQ. Time that PINGREQ spends behind other bytes in a send queue that moves does not count,
// where the caller tells of that queue (send_queue()).
//
// Not thread-safe: one owner. `now` never goes back between calls.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "fulmar/mqtt/packet.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/types.hpp"
#include "fulmar/result.hpp"

namespace fulmar::mqtt {

struct Will {
  std::string topic;
  std::vector<std::byte> payload;
  QoS qos = QoS::at_most_once;
  bool retain = false;
  std::uint32_t delay_s = 0;          // 5.0
  std::vector<std::byte> properties;  // 5.0, encoded, without the will delay interval
};

struct SessionConfig {
  ProtocolVersion version = ProtocolVersion::v5;
  std::string client_id;
  std::optional<std::string> username;
  std::optional<std::string> password;  // any bytes
  bool clean_start = true;  // on the first connect; later connects resume what this object still holds
  std::uint32_t session_expiry_s = 0;              // 5.0
  std::uint16_t keepalive_s = 60;                  // 0 = off
  std::uint16_t receive_maximum = 65'535;          // 1..65535: unacknowledged inbound QoS 1 and 2
  std::uint16_t max_inflight = 1'024;              // 1..65535: unacknowledged outbound QoS 1 and 2
  std::uint32_t maximum_packet_size = 256u << 20;  // inbound; advertised in 5.0, enforced always
  std::uint16_t topic_alias_maximum = 0;           // inbound aliases the server may use
  std::optional<Will> will;
  // A persistent session that a former process left at the server is taken over on the first connect without clean start:
  // it may hold any identifier for QoS 2, so each is cleared by a PUBREL and its PUBCOMP before its first QoS 2 message.
  // false: closed as a protocol violation, and the next connect asks for a clean start [MQTT-3.2.2-4].
  bool adopt_session = true;
  // publish_stored() will be used: reserves the packet identifiers 0x8000..0xbfff for it, and leaves 1..0x7fff to the others.
  // As it is at construction.
  bool stored_ids = false;
  bool request_problem_information =
      true;  // 5.0: reason strings and user properties on any packet [MQTT-3.1.2-29]
  std::vector<std::byte>
      connect_properties;  // 5.0, encoded: more properties of CONNECT, e.g. user properties
  std::optional<std::string> authentication_method;  // 5.0: enhanced authentication [MQTT5 4.12]
  std::vector<std::byte> authentication_data;        // 5.0, only with a method
};

// What the server granted in CONNACK; 3.1.1 has the defaults.
struct ServerLimits {
  std::uint16_t receive_maximum = 65'535;
  std::uint32_t maximum_packet_size = 0xffffffff;
  std::uint16_t topic_alias_maximum = 0;
  std::uint16_t keepalive_s = 0;  // in force: the server's own, else ours
  QoS maximum_qos = QoS::exactly_once;
  bool retain_available = true;
  bool wildcard_available = true;
  bool subscription_identifiers_available = true;
  bool shared_available = true;
  std::uint32_t session_expiry_s = 0;  // in force: the server's own, else ours
};

// --- events ---------------------------------------------------------------------------------------------------------

struct Connected {
  bool session_present = false;
  ServerLimits limits;
  std::string_view assigned_client_id;
  PropertiesView properties;  // all that CONNACK said
};

// CONNACK with a refusal. The connection is closed next (should_close()).
struct Refused {
  std::uint8_t code = 0;  // as on the wire: 3.1.1 return code 1..5 or a 5.0 reason code
  ProtocolVersion version = ProtocolVersion::v5;
  std::string_view reason_string;
  std::string_view server_reference;
  PropertiesView properties;
};

// An inbound message. QoS 1 and 2 wait for acknowledge(packet_id).
struct Received {
  PublishView message;  // views into the received bytes; topic aliases are resolved
};

enum class Outcome : std::uint8_t {
  sent,          // QoS 0: written to a transmit buffer
  acknowledged,  // QoS 1: PUBACK; QoS 2: PUBCOMP
  refused,  // the server answered with a reason code >= 0x80, or the message cannot be sent to this server
  expired,  // its message expiry interval passed before it was sent
};

struct Completed {
  std::uint64_t sequence = 0;
  std::uint64_t token = 0;
  Outcome outcome = Outcome::sent;
  ReasonCode reason = ReasonCode::success;
};

// The PUBREC of a stored message came; its PUBREL waits for release(position). Once for each exchange, however often the
// server or a connection repeats itself.
struct PubrecReceived {
  std::uint64_t sequence = 0;
  std::uint64_t token = 0;
  std::uint64_t position = 0;
};

// SUBACK or UNSUBACK: a code per filter, in the order of the request.
struct SubscriptionAcknowledged {
  std::uint64_t token = 0;
  bool unsubscribe = false;
  std::span<const ReasonCode> codes;  // valid until the next call
  PropertiesView properties;
};

// The session ends this connection, or the server did.
struct Closing {
  enum class By : std::uint8_t { server_disconnect, protocol_violation, keep_alive, us };
  By by = By::us;
  ReasonCode reason = ReasonCode::success;  // the server's, or what our DISCONNECT says
  DecodeError rule = DecodeError::none;     // for protocol_violation: which rule broke
  std::string_view text;                    // reason string, or what was wrong
  std::string_view server_reference;
  PropertiesView properties;  // of the server's DISCONNECT
};

// AUTH from the server [MQTT5 4.12]. continue_authentication: answer with authenticate(). success: the re-authentication
// is done (that of CONNECT ends with Connected).
struct Authentication {
  ReasonCode reason = ReasonCode::success;
  BytesView data;
  PropertiesView properties;
};

using Event = std::variant<std::monostate, Connected, Refused, Received, Completed, SubscriptionAcknowledged,
                           Closing, Authentication, PubrecReceived>;

// What former processes may have done for a stored message. Void, as are all of their notes, once the server has no session.
enum class Resumed : std::uint8_t {
  fresh,       // nothing: no session was ever given this position
  maybe_sent,  // its PUBLISH may have left: it is sent with DUP [MQTT-3.3.1-1] and does not expire [MQTT-4.3.3-7]
  released,  // its PUBREC is noted: only PUBREL is sent
};

class Session {
 public:
  explicit Session(SessionConfig config);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  enum class State : std::uint8_t { closed, connecting, connected, closing };
  State state() const;

  void connection_opened(Instant now);
  void connection_closed(Instant now);

  void receive(BytesView bytes, Instant now);
  bool next_event(Event& event);
  std::size_t unread() const;
  // The size of the packet that the unread bytes begin with, once its header is there; else 0.
  std::size_t expected() const;
  // For back-pressure: while held, next_event() parses no input (other events go on; the last event's views and the rest
  // of the input stay as they are), and the keep-alive does not take the peer's silence for its death. After release
  // next_event() goes on where it was.
  void hold_input(bool hold, Instant now);

  // Takes the record over by copying its block; the record's reference to a shared payload passes to the session. False when the session holds as
  // many as it may (see publish_room()); nothing is taken then. May be called in every state: records wait for the
  // connection.
  bool publish(RecordView record);
  // The same for a message of a disk log (see above); needs SessionConfig::stored_ids, else it is false. QoS 0 and 1 are
  // plain messages here: as publish(). While another message has its identifier, because the caller let positions drift
  // apart, it and all behind it wait [MQTT-2.2.1-3].
  // When the server cannot take one again that may have been sent, PUBREL ends the exchange: the outcome is then
  // acknowledged when the server knew it, else refused.
  bool publish_stored(RecordView record, std::uint64_t position, Resumed how);
  // The note of PubrecReceived is durable: PUBREL is sent, on this connection or the next one with this session. False
  // when no message of that position waits for it.
  bool release(std::uint64_t position);
  // How many more records publish() takes now: keeps the queue behind the window short, so that waiting messages stay
  // with the caller.
  std::size_t publish_room() const;

  // Queues one SUBSCRIBE or UNSUBSCRIBE; valid while connected. The answer is a SubscriptionAcknowledged with `token`.
  // Requests without an answer are forgotten with the connection. False when not connected, or a filter is
  // invalid, or no identifier is free, or the packet would exceed the server's maximum.
  // `identifier`: subscription identifier for all filters of the packet, 0 = none [MQTT-3.8.2.1.2].
  bool subscribe(std::span<const SubscriptionRequest> filters, std::uint32_t identifier, std::uint64_t token);
  // Why such a subscription is invalid or the server of this connection cannot take it; success when it can. subscribe()
  // is false for it.
  ReasonCode subscription_refusal(const SubscriptionRequest& request, std::uint32_t identifier) const;
  bool unsubscribe(std::span<const std::string_view> filters, std::uint64_t token);

  // Acknowledges an inbound QoS 1 (PUBACK) or QoS 2 (PUBREC) message. Unknown identifiers (of a former connection) are
  // ignored. In any order: the packets leave in the order of arrival [MQTT-4.6.0-2, MQTT-4.6.0-3].
  // `reason` is 5.0's; one that the packet does not list is sent as unspecified error or success [MQTT-3.4.2-1].
  void acknowledge(std::uint16_t packet_id, ReasonCode reason = ReasonCode::success);

  // Queues DISCONNECT behind all that is queued and can be sent without waiting for an answer; should_close() holds once
  // it has been transmitted. `reason` as for acknowledge() [MQTT-3.14.2-1].
  void disconnect(ReasonCode reason = ReasonCode::success);

  // Sends AUTH: the answer to a challenge, or the begin of a re-authentication while connected. False when no method was
  // given, or it is not the time for it [MQTT-4.12.0-7, MQTT-4.12.1-1].
  bool authenticate(BytesView data);
  bool reauthenticate(BytesView data);

  // Fills `out` (at least 16 bytes) from its beginning; returns how much it wrote. A packet may be spread over several
  // calls.
  std::size_t transmit(std::span<std::byte> out, Instant now);
  bool wants_transmit() const;
  bool should_close() const;  // nothing more to send: close the transport

  std::optional<Instant> next_timeout() const;
  void on_timeout(Instant now);
  // Optional, right before on_timeout(): how many of the transmitted bytes the peer's system has not confirmed yet (for
  // TCP: those that the transport still holds, and SIOCOUTQ). On a slow way PINGREQ waits behind them, possibly for longer
  // than the server has to answer it. Once told on a connection, next_timeout() asks for it until PINGREQ has arrived.
  void send_queue(std::size_t unconfirmed, Instant now);

  // Forgets the session state: unacknowledged messages become new ones at the next connect, which asks for a clean start.
  void forget_session();

  struct Counts {
    std::size_t queued = 0;          // accepted, not yet transmitted once
    std::size_t in_flight = 0;       // QoS 1 and 2 transmitted and not completed
    std::size_t unacknowledged = 0;  // inbound QoS 1 and 2 whose exchange is not over
    // totals since construction
    std::uint64_t publishes_sent = 0;    // PUBLISH packets, re-sends included
    std::uint64_t publishes_resent = 0;  // with DUP
    std::uint64_t publishes_received = 0;
    std::uint64_t duplicates_suppressed = 0;  // QoS 2 messages that had been delivered already
    std::uint64_t answers_ignored = 0;        // acknowledgements of nothing, of the wrong kind or twice
    std::uint64_t violations = 0;             // connections ended by the server breaking a rule
  };
  Counts counts() const;

  // Hands over every record that has not been completed, oldest first: for a caller that stores them elsewhere.
  // The views are valid during the call of `take`, which acquires a shared payload to keep it. The session holds none of
  // them afterwards; a connection in the middle of one of them closes.
  template <typename Take>
  void take_all(Take&& take) {
    take_all_impl([](void* context, RecordView record) { (*static_cast<Take*>(context))(record); }, &take);
  }

  // Shows the same records, and leaves them where they are: for a caller that copies them. `view` is called with a
  // RecordView and, for one of publish_stored() with QoS 2, its position as std::optional<std::uint64_t>.
  template <typename View>
  void for_each_pending(View&& view) const {
    for_each_pending_impl(
        [](void* context, RecordView record, std::optional<std::uint64_t> position) {
          (*static_cast<std::remove_reference_t<View>*>(context))(record, position);
        },
        &view);
  }

  // The sequence of the oldest record without a `Completed` event made; O(1). The smallest, when records are published in
  // the order of their sequences.
  std::optional<std::uint64_t> oldest() const;

  const SessionConfig& config() const;
  SessionConfig& config();  // changes hold from the next connection_opened()

 private:
  struct Impl;
  void take_all_impl(void (*take)(void*, RecordView), void* context);
  void for_each_pending_impl(void (*view)(void*, RecordView, std::optional<std::uint64_t>),
                             void* context) const;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fulmar::mqtt
