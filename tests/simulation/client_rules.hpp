#pragma once
// ClientRules: everything that MQTT and the header of Session demand of the client, checked at its own edge, where all is
// known: what the caller asked for, which bytes left, and which bytes the session has taken. It is told of each of these
// in their order and keeps a model of the session that is as plain as possible. What the session sends must be what the
// model allows, what it tells must be exactly what the model expects.
//
// Checked: CONNECT first and DISCONNECT last; clean start; identifiers free or held by the same message; DUP on re-sends
// and only there; one ascending order of messages, re-sends before anything new [MQTT-4.6.0-1]; receive maximum and
// max_inflight; maximum packet size, maximum QoS, retain available; topic, payload, properties and what is left of the
// expiry; in a session of a former process no QoS 2 under an identifier that was not cleared; PUBREL after PUBREC and in
// its order [MQTT-4.6.0-4]; acknowledgements in the order of arrival [MQTT-4.6.0-2,
// MQTT-4.6.0-3]; aliases within the maximum and never across a connection; keep-alive both ways; every event where its
// packet was, and no other; exactly one Completed per message with the right outcome; nothing sendable left unsent.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/session.hpp"
#include "journal.hpp"
#include "messages.hpp"
#include "network.hpp"

namespace fulmar::simulation {

using mqtt::Event;
using mqtt::PacketType;
using mqtt::ReasonCode;
using mqtt::ServerLimits;
using mqtt::Session;

class ClientRules {
 public:
  ClientRules(Journal& journal, Messages& messages, const mqtt::SessionConfig& config)
      : journal_(journal), messages_(messages), config_(config) {}

  // --- the caller
  void published(std::uint64_t sequence) { pending_.insert(sequence); }
  void requested(bool unsubscribe, std::uint64_t token, std::size_t filters);
  void acknowledged(std::uint16_t id, ReasonCode reason);
  void disconnect_asked() { leaving_ = leaving_ || (open_ && !ended_); }
  void forget_asked() { wants_clean_ = true; }
  // take_all(): every message that is not completed, oldest first.
  void taken(std::uint64_t sequence);
  void all_taken();

  // --- the link
  void opened(Instant now, const mqtt::SessionConfig& config);
  void closed();
  void received_bytes(Instant now) {
    last_received_ = now;
    ping_since_.reset();
  }
  void input_released(Instant now) { received_bytes(now); }
  void timed_out(Instant now) {
    ping_asked_ = true;
    if (!ping_since_) ping_since_ = now;
  }
  void sent(BytesView bytes, Instant now);
  // The transport took nothing for so long: the gap between two packets may be longer.
  void blocked_for(std::chrono::nanoseconds time) { excuse_ += time; }

  // --- what the session has taken and told
  // `taken`: the bytes that left the input since the last call; `event`: what next_event() made of them, null when it
  // returned false.
  void told(BytesView taken, std::deque<Tag>& tags, const Event* event, Instant now);

  // Everything has been transmitted and told.
  void at_rest(const Session& session, Instant now);
  // After any call. `held`: the input is held.
  void at_any_time(const Session& session, bool held, Instant now);
  // After an end without faults.
  void at_the_end(const Session& session);

  const ServerLimits& limits() const { return limits_; }
  bool connected() const { return connected_; }
  bool quiet() const { return pending_.empty() && flight_.empty() && requests_.empty(); }
  std::uint64_t epoch() const { return epoch_; }  // of the server's session that the client believes in
  std::size_t flying() const { return flight_.size(); }
  std::string inbound_state() const;
  std::uint64_t packets_checked() const { return packets_; }

  bool holds_id(std::uint16_t id) const {
    return by_id_.contains(id) || requests_.contains(id) || abandoned_.contains(id);
  }

 private:
  enum class Stage : std::uint8_t { sent, released };
  struct Flight {
    std::uint16_t id = 0;  // 0: its packet was cut before its identifier
    Stage stage = Stage::sent;
    bool on_wire = false;  // counts against the window of this connection
    std::uint64_t release_number = 0;
  };
  struct Request {
    bool unsubscribe = false;
    std::uint64_t token = 0;
    std::size_t filters = 0;
  };
  // A packet other than PUBLISH that has to leave, in this order.
  struct Due {
    PacketType type{};
    std::uint16_t id = 0;
    ReasonCode reason = ReasonCode::success;
    bool optional = false;
    Request request{};
  };
  struct Settled {
    std::uint64_t sequence = 0;
    mqtt::Outcome outcome{};
    ReasonCode reason = ReasonCode::success;
  };
  enum class Hold : std::uint8_t { delivered, handled, recorded };
  struct Inbound {
    bool exactly_once = false;
    bool counted = false;
    bool in_order = false;
    Hold stage = Hold::delivered;
    ReasonCode reason = ReasonCode::success;
    std::uint64_t number = 0;
  };
  // What the session must tell about a packet.
  struct Expected {
    enum class Kind : std::uint8_t {
      nothing,
      connected,
      refused,
      received,
      completed,
      subscription,
      disconnected,
      violation
    } kind = Kind::nothing;
    std::uint64_t number = 0;
    Settled settled{};
    Request request{};
  };

  template <typename... Parts>
  void fail(Parts&&... parts);
  void check(bool holds, const char* what, std::uint64_t number = 0);

  // client_rules.cpp: what leaves
  void packet_sent(const mqtt::Frame& frame, Instant now);
  void connect_sent(const mqtt::ConnectView& packet);
  void publish_sent(mqtt::PublishView packet, std::size_t size);
  void answer_sent(PacketType type, std::uint16_t id, ReasonCode reason);
  template <typename Packet>
  void request_sent(PacketType type, const Packet& packet);
  void take_flight(std::uint64_t sequence, std::uint16_t id, bool dup);
  void check_content(const mqtt::PublishView& packet, std::uint64_t sequence);
  ReasonCode refusal(std::uint64_t sequence) const;
  std::uint32_t life_left(const OutMessage& message, Instant now) const;
  std::optional<Settled> unsendable(std::uint64_t sequence) const;
  void settle_resends(std::uint64_t before);
  void settle_pending(std::uint64_t before);
  void requeue_flights();
  void drop_flight(std::uint64_t sequence);
  void give_up(std::uint64_t sequence);
  std::uint16_t partial_id(bool& unknown) const;

  // client_rules_in.cpp: what comes and is told
  Expected frame_taken(const mqtt::Frame& frame, const Tag& tag);
  Expected connack_taken(const mqtt::Frame& frame, const Tag& tag);
  Expected publish_taken(const mqtt::Frame& frame, const Tag& tag);
  Expected ack_taken(const mqtt::Frame& frame, const Tag& tag);
  Expected pubrel_taken(const mqtt::Frame& frame);
  Expected suback_taken(const mqtt::Frame& frame);
  bool takes_nothing() const;
  Expected finish(std::uint64_t sequence, ReasonCode reason, const Tag& tag);
  void send_handled();
  void compare(const Expected& expected, const Event& event, Instant now);
  void compare_unprompted(const Event& event, Instant now);
  void complete(const Settled& settled);
  void compare_message(std::uint64_t number, const mqtt::PublishView& message);

  Journal& journal_;
  Messages& messages_;
  mqtt::SessionConfig config_;

  // messages
  std::set<std::uint64_t> pending_;
  std::map<std::uint64_t, Flight> flight_;  // in the order of transmission, which is that of the sequences
  std::set<std::uint64_t> resend_;          // in flight and not yet sent on this connection
  std::unordered_map<std::uint16_t, std::uint64_t> by_id_;
  std::unordered_map<std::uint16_t, Request> requests_;
  // Identifiers of QoS 2 messages that the client has given up and the server may hold; true: PUBREL was sent.
  std::unordered_map<std::uint16_t, bool> abandoned_;
  // A session of a former process, which may hold any identifier: a PUBREL and its PUBCOMP come before QoS 2 under it.
  bool adopted_ = false;
  std::vector<std::uint16_t> clearing_;  // in `abandoned_` too; in the order of their PUBRELs
  std::set<std::uint16_t> cleared_;
  std::deque<Settled> settled_;  // Completed events that must come, in this order
  std::size_t wire_ = 0;
  std::uint64_t release_number_ = 0;
  std::unordered_map<std::uint16_t, Inbound> inbound_;
  std::deque<std::uint16_t> arrivals_;
  std::size_t unacknowledged_ = 0;

  // this connection
  bool open_ = false;
  bool connect_seen_ = false;
  bool connected_ = false;
  bool leaving_ = false;  // disconnect() was called
  bool disconnect_sent_ = false;
  bool ended_ = false;   // the session takes nothing more
  bool silent_ = false;  // nor may it send anything
  std::deque<Due> due_;
  std::uint64_t last_sequence_ = 0;
  std::map<std::uint16_t, std::string> aliases_out_;
  ServerLimits limits_;
  Instant last_packet_{};
  Instant last_received_{};
  std::optional<Instant> ping_since_;
  bool ping_asked_ = false;
  std::chrono::nanoseconds excuse_{};
  std::vector<std::byte> buffer_;  // a packet that has left in part
  Instant began_{};
  std::vector<std::byte> input_;  // taken by the session, not yet a whole packet

  // the session state
  bool wants_clean_ = false;
  bool has_session_ = false;
  bool clean_ = false;  // what CONNECT must say
  std::uint64_t epoch_ = 0;
  std::uint64_t packets_ = 0;
};

template <typename... Parts>
void ClientRules::fail(Parts&&... parts) {
  if (journal_.failed()) return;
  std::string text;
  const auto add = [&text](const auto& part) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) {
      text += std::to_string(part);
    } else {
      text += part;
    }
  };
  (add(parts), ...);
  journal_.fail(std::move(text));
}

inline void ClientRules::check(bool holds, const char* what, std::uint64_t number) {
  if (!holds) fail(what, " (message or identifier ", number, ")");
}

}  // namespace fulmar::simulation
