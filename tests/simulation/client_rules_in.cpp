#include <algorithm>
#include <array>

#include "client_rules.hpp"

namespace fulmar::simulation {

using mqtt::Closing;
using mqtt::Completed;
using mqtt::DecodeError;
using mqtt::Frame;
using mqtt::Outcome;
using mqtt::PropertyId;

// --- packets that the session has taken -----------------------------------------------------------------------------

void ClientRules::told(BytesView taken, std::deque<Tag>& tags, const Event* event, Instant now) {
  const auto* closing = event != nullptr ? std::get_if<Closing>(event) : nullptr;
  if (closing != nullptr && closing->by == Closing::By::keep_alive)
    ended_ = true;  // whatever was there is dropped
  if (takes_nothing()) {
    taken = {};
    input_.clear();
  }
  input_.insert(input_.end(), taken.begin(), taken.end());
  Expected expected;
  std::size_t at = 0;
  while (at < input_.size() && !ended_ && !journal_.failed()) {
    if (tags.empty()) return fail("the session took bytes that nobody sent");
    check(expected.kind == Expected::Kind::nothing, "an event is missing before the next packet",
          expected.number);
    if (tags.front().breaks_rules) {
      ended_ = true;
      expected.kind = Expected::Kind::violation;
      break;
    }
    Frame frame;
    const auto error =
        next_frame(BytesView(input_).subspan(at), config_.version, mqtt::no_packet_limit, frame);
    if (error != DecodeError::none) return fail("the server model sent a broken header: ", to_string(error));
    if (frame.size == 0) break;
    at += frame.size;
    expected = frame_taken(frame, tags.front());
    tags.pop_front();
  }
  input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(ended_ ? input_.size() : at));
  if (journal_.failed()) return;
  if (!ended_ && !input_.empty()) return fail("the session took a part of a packet");
  if (event == nullptr) {
    check(expected.kind == Expected::Kind::nothing, "the session says nothing about a packet",
          static_cast<std::uint64_t>(expected.kind));
  } else if (taken.empty()) {
    compare_unprompted(*event, now);
  } else {
    compare(expected, *event, now);
  }
}

// After its DISCONNECT, or the first byte of it, the session does not look at what comes.
bool ClientRules::takes_nothing() const {
  return ended_ || disconnect_sent_ || (!buffer_.empty() && buffer_[0] == std::byte{0xe0});
}

ClientRules::Expected ClientRules::frame_taken(const Frame& frame, const Tag& tag) {
  switch (frame.type) {
    case PacketType::connack: return connack_taken(frame, tag);
    case PacketType::publish: return publish_taken(frame, tag);
    case PacketType::puback:
    case PacketType::pubrec:
    case PacketType::pubcomp: return ack_taken(frame, tag);
    case PacketType::pubrel: return pubrel_taken(frame);
    case PacketType::suback:
    case PacketType::unsuback: return suback_taken(frame);
    case PacketType::disconnect: ended_ = silent_ = true; return {.kind = Expected::Kind::disconnected};
    default: return {};
  }
}

ClientRules::Expected ClientRules::connack_taken(const Frame& frame, const Tag& tag) {
  mqtt::ConnackView view;
  check(decode(frame, config_.version, view) == DecodeError::none, "the server model's CONNACK");
  if (view.code != 0) {
    ended_ = silent_ = true;
    return {.kind = Expected::Kind::refused, .number = view.code};
  }
  const auto& p = view.properties;
  limits_.receive_maximum = static_cast<std::uint16_t>(p.number(PropertyId::receive_maximum, 65'535));
  limits_.maximum_packet_size = p.number(PropertyId::maximum_packet_size, mqtt::no_packet_limit);
  limits_.topic_alias_maximum = static_cast<std::uint16_t>(p.number(PropertyId::topic_alias_maximum, 0));
  limits_.keepalive_s =
      static_cast<std::uint16_t>(p.number(PropertyId::server_keep_alive, config_.keepalive_s));
  limits_.maximum_qos = static_cast<QoS>(p.number(PropertyId::maximum_qos, 2));
  limits_.retain_available = p.number(PropertyId::retain_available, 1) != 0;
  if (view.session_present && !has_session_) adopted_ = true;
  connected_ = has_session_ = true;
  excuse_ += journal_.now - last_packet_;  // nothing may be sent between CONNECT and CONNACK
  if (clean_) wants_clean_ = false;        // else it was asked for after CONNECT
  if (!view.session_present) {
    epoch_ = tag.number;
    requeue_flights();
    inbound_.clear();
  } else {
    std::map<std::uint64_t, std::uint64_t> releases;
    for (auto& [sequence, flight] : flight_) {
      if (flight.stage == Stage::released) {
        releases[flight.release_number] = sequence;
        flight.on_wire = true;
        ++wire_;
      } else {
        resend_.insert(sequence);
      }
    }
    for (const auto& [number, sequence] : releases)
      due_.push_back({PacketType::pubrel, flight_[sequence].id});
    for (const auto id : clearing_) due_.push_back({PacketType::pubrel, id});
  }
  return {.kind = Expected::Kind::connected, .number = view.session_present};
}

ClientRules::Expected ClientRules::publish_taken(const Frame& frame, const Tag& tag) {
  mqtt::PublishView view;
  check(decode(frame, config_.version, mqtt::Sender::server, view) == DecodeError::none,
        "the server model's PUBLISH");
  const Expected received{.kind = Expected::Kind::received, .number = tag.number};
  if (view.qos == QoS::at_most_once) return received;
  const bool exactly_once = view.qos == QoS::exactly_once;
  auto found = inbound_.find(view.packet_id);
  if (found != inbound_.end() && found->second.exactly_once != exactly_once && !found->second.counted) {
    inbound_.erase(found);  // of a session that the server has lost, and nobody has told the client
    found = inbound_.end();
  }
  const bool known = found != inbound_.end();
  if (!known || !found->second.counted) {
    const std::size_t maximum =
        config_.version == ProtocolVersion::v5 ? config_.receive_maximum : std::uint16_t{65'535};
    if (unacknowledged_ >= maximum) {
      ended_ = true;
      return {.kind = Expected::Kind::violation};
    }
    ++unacknowledged_;
  }
  auto& entry = inbound_[view.packet_id];
  if (!known) entry.number = tag.number;
  check(!known || entry.exactly_once == exactly_once, "the server model changed the QoS of an identifier",
        view.packet_id);
  entry.exactly_once = exactly_once;
  entry.counted = true;
  if (!entry.in_order) {
    entry.in_order = true;
    arrivals_.push_back(view.packet_id);
  }
  if (!known || !exactly_once) return received;
  send_handled();
  return {};
}

void ClientRules::send_handled() {
  if (takes_nothing()) return;
  for (; !arrivals_.empty(); arrivals_.pop_front()) {
    const auto id = arrivals_.front();
    const auto found = inbound_.find(id);
    if (found == inbound_.end()) continue;
    auto& entry = found->second;
    if (entry.stage == Hold::delivered) return;
    due_.push_back({entry.exactly_once ? PacketType::pubrec : PacketType::puback, id, entry.reason});
    if (entry.exactly_once && entry.reason < ReasonCode::unspecified_error) {
      entry.stage = Hold::recorded;
      entry.in_order = false;
    } else {
      inbound_.erase(found);
      --unacknowledged_;
    }
  }
}

ClientRules::Expected ClientRules::pubrel_taken(const Frame& frame) {
  mqtt::AckView view;
  check(decode(frame, config_.version, view) == DecodeError::none, "the server model's PUBREL");
  const auto found = inbound_.find(view.packet_id);
  const bool v5 = config_.version == ProtocolVersion::v5;
  if (found == inbound_.end() || !found->second.exactly_once) {
    due_.push_back({PacketType::pubcomp, view.packet_id,
                    v5 ? ReasonCode::packet_identifier_not_found : ReasonCode::success});
    return {};
  }
  if (found->second.stage != Hold::recorded) {
    ended_ = true;
    return {.kind = Expected::Kind::violation};
  }
  if (found->second.counted) --unacknowledged_;
  inbound_.erase(found);
  due_.push_back({PacketType::pubcomp, view.packet_id});
  return {};
}

ClientRules::Expected ClientRules::finish(std::uint64_t sequence, ReasonCode reason, const Tag& tag) {
  const bool refused = reason >= ReasonCode::unspecified_error && flight_[sequence].stage == Stage::sent;
  if (tag.number != sequence) messages_.out[sequence].lied = true;
  drop_flight(sequence);
  return {.kind = Expected::Kind::completed,
          .settled = {sequence, refused ? Outcome::refused : Outcome::acknowledged, reason}};
}

ClientRules::Expected ClientRules::ack_taken(const Frame& frame, const Tag& tag) {
  mqtt::AckView view;
  check(decode(frame, config_.version, view) == DecodeError::none, "the server model's acknowledgement");
  const auto id = view.packet_id;
  const bool refused = view.reason >= ReasonCode::unspecified_error;
  bool unsure = false;
  if (partial_id(unsure) == id) return {};
  if (const auto given_up = abandoned_.find(id); given_up != abandoned_.end()) {
    if (view.type == PacketType::pubrec && !refused) {
      given_up->second = true;
      due_.push_back({PacketType::pubrel, id});
    } else if (view.type == PacketType::pubrec || (view.type == PacketType::pubcomp && given_up->second)) {
      abandoned_.erase(given_up);
      if (std::erase(clearing_, id) != 0) cleared_.insert(id);
    }
    return {};
  }
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    if (view.type != PacketType::pubrec || refused || requests_.contains(id)) return {};
    // A request or message that has its identifier already and has not left far enough to show it.
    unsure |= std::ranges::any_of(due_, [](const Due& due) {
      return due.type == PacketType::subscribe || due.type == PacketType::unsubscribe;
    });
    due_.push_back({PacketType::pubrel, id,
                    config_.version == ProtocolVersion::v5 ? ReasonCode::packet_identifier_not_found
                                                           : ReasonCode::success,
                    unsure});
    return {};
  }
  const auto sequence = found->second;
  auto& flight = flight_[sequence];
  const auto qos = messages_.out[sequence].content.qos;
  if (flight.stage == Stage::released) {
    if (view.type == PacketType::pubcomp) return finish(sequence, view.reason, tag);
    if (view.type == PacketType::pubrec && !refused) due_.push_back({PacketType::pubrel, id});
    return {};
  }
  if (qos == QoS::at_least_once && view.type == PacketType::puback) return finish(sequence, view.reason, tag);
  if (qos == QoS::exactly_once && view.type == PacketType::pubrec) {
    if (refused) return finish(sequence, view.reason, tag);
    if (tag.number != sequence) messages_.out[sequence].lied = true;
    flight.stage = Stage::released;
    flight.release_number = release_number_++;
    resend_.erase(sequence);
    due_.push_back({PacketType::pubrel, id});
  }
  return {};
}

ClientRules::Expected ClientRules::suback_taken(const Frame& frame) {
  mqtt::SubackView view;
  check(decode(frame, config_.version, view) == DecodeError::none, "the server model's SUBACK");
  const auto found = requests_.find(view.packet_id);
  if (found == requests_.end() || found->second.unsubscribe != (view.type == PacketType::unsuback)) return {};
  Expected expected{.kind = Expected::Kind::subscription, .request = found->second};
  requests_.erase(found);
  return expected;
}

// --- events ---------------------------------------------------------------------------------------------------------

void ClientRules::compare(const Expected& expected, const Event& event, Instant now) {
  using enum Expected::Kind;
  (void)now;
  const auto* closing = std::get_if<Closing>(&event);
  if (closing != nullptr && closing->by == Closing::By::protocol_violation && expected.kind != violation) {
    return fail("the session accuses the server for nothing: ", to_string(closing->rule));
  }
  switch (expected.kind) {
    case nothing: return fail("an event that no packet explains, kind ", event.index());
    case connected:
      if (const auto* e = std::get_if<mqtt::Connected>(&event)) {
        check(e->session_present == (expected.number != 0), "Connected with another session present");
        check(e->limits.receive_maximum == limits_.receive_maximum &&
                  e->limits.maximum_packet_size == limits_.maximum_packet_size &&
                  e->limits.maximum_qos == limits_.maximum_qos &&
                  e->limits.keepalive_s == limits_.keepalive_s &&
                  e->limits.retain_available == limits_.retain_available,
              "Connected with other limits");
        return;
      }
      break;
    case refused:
      if (const auto* e = std::get_if<mqtt::Refused>(&event))
        return check(e->code == expected.number, "Refused with another code");
      break;
    case received:
      if (const auto* e = std::get_if<mqtt::Received>(&event))
        return compare_message(expected.number, e->message);
      break;
    case completed:
      if (const auto* e = std::get_if<Completed>(&event)) {
        const auto& s = expected.settled;
        check(e->sequence == s.sequence && e->token == s.sequence * 3 + 1 && e->outcome == s.outcome &&
                  e->reason == s.reason,
              "Completed of another message or with another outcome", s.sequence);
        return complete(s);
      }
      break;
    case subscription:
      if (const auto* e = std::get_if<mqtt::SubscriptionAcknowledged>(&event)) {
        const auto& r = expected.request;
        return check(e->token == r.token && e->unsubscribe == r.unsubscribe && e->codes.size() == r.filters,
                     "SubscriptionAcknowledged of another request", r.token);
      }
      break;
    case disconnected:
      if (closing && closing->by == Closing::By::server_disconnect) return;
      break;
    case violation:
      if (closing && closing->by == Closing::By::protocol_violation) return;
      return fail("a packet that breaks the rules is taken");
  }
  fail("another event than expected: kind ", event.index(), " for a packet of kind ",
       static_cast<unsigned>(expected.kind));
}

// Events that no packet made: by transmit() and on_timeout().
void ClientRules::compare_unprompted(const Event& event, Instant now) {
  if (const auto* closing = std::get_if<Closing>(&event)) {
    if (closing->by == Closing::By::us) return check(leaving_, "Closing by us, unasked");
    if (closing->by != Closing::By::keep_alive) return fail("Closing without a packet");
    ended_ = silent_ = true;
    const auto k = std::chrono::milliseconds(limits_.keepalive_s * 1'000);
    return check(
        k.count() != 0 && ping_since_ && now - last_received_ >= k + k / 2 && now - *ping_since_ >= k / 2,
        "the keep-alive gave up too early");
  }
  const auto* e = std::get_if<Completed>(&event);
  if (e == nullptr) return fail("an event out of nothing, kind ", event.index());
  if (settled_.empty()) {  // nothing has been sent since: why could it not be sent?
    const bool again = !resend_.empty();
    const auto& from = again ? resend_ : pending_;
    const auto end = from.empty() ? std::nullopt : unsendable(*from.begin());
    if (!end) return fail("Completed of message ", e->sequence, " out of nothing");
    settled_.push_back(*end);
    if (again) {
      give_up(end->sequence);
    } else {
      pending_.erase(end->sequence);
    }
  }
  const auto expected = settled_.front();
  settled_.pop_front();
  check(e->sequence == expected.sequence && e->token == expected.sequence * 3 + 1 &&
            e->outcome == expected.outcome && e->reason == expected.reason,
        "Completed of another message or with another outcome", expected.sequence);
  complete(expected);
}

void ClientRules::complete(const Settled& settled) {
  journal_.note("completed {}, outcome {}, reason {}", settled.sequence,
                static_cast<std::uint64_t>(settled.outcome), static_cast<std::uint64_t>(settled.reason));
  auto& message = messages_.out[settled.sequence];
  check(!message.completed, "completed twice", settled.sequence);
  message.completed = true;
  message.acknowledged = settled.outcome == Outcome::acknowledged;
  if (message.acknowledged && !message.lied) {
    check(message.delivered > 0, "acknowledged and never delivered", settled.sequence);
  }
}

void ClientRules::compare_message(std::uint64_t number, const mqtt::PublishView& view) {
  auto& message = messages_.in[number];
  const auto& content = message.content;
  check(view.topic == topic_of(Way::in, number, content), "received with another topic", number);
  check(view.payload.size() == content.payload_size && payload_is(number, view.payload),
        "received with another payload", number);
  check(view.qos == content.qos && view.retain == content.retain, "received with another QoS or retain",
        number);
  if (config_.version == ProtocolVersion::v5) {
    check(properties_are(content.with_properties, view.properties), "received with other properties", number);
  }
  ++message.received;
  check(
      content.qos != QoS::exactly_once || message.received == 1 || message.refused || message.epoch != epoch_,
      "QoS 2 received twice", number);
}

}  // namespace fulmar::simulation
