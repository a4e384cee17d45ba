#include <algorithm>

#include "mqtt/cursor.hpp"
#include "mqtt/session_impl.hpp"

namespace fulmar::mqtt {

void Session::Impl::receive(BytesView bytes, Instant now) {
  if (state == State::closed || ending || abrupt) return;
  if (bytes.size() > unread) {
    last_received = now;
    ping_sent.reset();
  }
  input = bytes;
  unread = expected = 0;
}

// Parses as little as it takes to make one event, so that nothing that came in has to be queued here.
bool Session::Impl::next_event(Event& event) {
  if (!completions.empty()) {
    event = completions.front();
    completions.pop_front();
    return true;
  }
  if (closing) {
    event = *closing;
    closing.reset();
    return true;
  }
  if (held || input.empty()) return false;  // unread() stays as it was
  while (!input.empty() && !ending && !abrupt) {
    Frame frame;
    const auto error = next_frame(input, version, maximum_packet_size, frame);
    if (error != DecodeError::none) return violate(error, event);
    expected = frame.expected;
    if (frame.size == 0) break;
    input = input.subspan(frame.size);
    if (control.size() > control_bytes_max) return violate(DecodeError::acknowledgements_flood, event);
    if (handle(frame, event)) return true;
  }
  unread = ending || abrupt ? 0 : input.size();
  if (unread == 0) expected = 0;
  input = {};
  return false;
}

bool Session::Impl::handle(const Frame& frame, Event& event) {
  if (!connack_seen && frame.type != PacketType::connack && frame.type != PacketType::auth) {
    return violate(DecodeError::packet_before_connack, event);
  }
  switch (frame.type) {
    case PacketType::connack: return handle_connack(frame, event);
    case PacketType::publish: return handle_publish(frame, event);
    case PacketType::puback:
    case PacketType::pubrec:
    case PacketType::pubcomp: return handle_ack(frame, event);
    case PacketType::pubrel: return handle_pubrel(frame, event);
    case PacketType::suback:
    case PacketType::unsuback: return handle_suback(frame, event);
    case PacketType::pingresp:
      return frame.body.empty() ? false : violate(DecodeError::trailing_bytes, event);
    case PacketType::disconnect: return handle_disconnect(frame, event);
    case PacketType::auth: return handle_auth(frame, event);
    case PacketType::connect:
    case PacketType::subscribe:
    case PacketType::unsubscribe:
    case PacketType::pingreq: break;
  }
  return violate(DecodeError::packet_unexpected, event);
}

// --- CONNACK --------------------------------------------------------------------------------------------------------

bool Session::Impl::handle_connack(const Frame& frame, Event& event) {
  if (connack_seen) return violate(DecodeError::connack_repeated, event);
  ConnackView connack;
  auto spoken = version;
  // A server that does not know 5.0 says so in the form of 3.1.1.
  if (v5() && frame.body.size() == 2 && frame.body[1] != std::byte{0}) spoken = ProtocolVersion::v3_1_1;
  auto error = decode(frame, spoken, connack);
  if (error != DecodeError::none) return violate(error, event);
  if (connack.code != 0) return refuse(connack, spoken, event);

  const auto method = connack.properties.text(PropertyId::authentication_method);
  if (method != authentication_method) {
    error =
        authentication_method.empty() ? DecodeError::auth_without_method : DecodeError::auth_method_differs;
    return violate(error, event);
  }
  if (connack.session_present && sent_clean_start) {
    return violate(DecodeError::session_present_after_clean_start, event);
  }
  if (connack.session_present && !has_session && !config.adopt_session) {
    wants_clean_start = true;
    return violate(DecodeError::session_present_without_state, event);
  }
  adopt_limits(connack.properties);
  if (!connack.session_present) {
    requeue_in_flight();
    received.clear();
  }
  if (connack.session_present && !has_session) adopted = true;
  connack_seen = true;
  has_session = true;
  if (sent_clean_start)
    wants_clean_start = false;  // else forget_session() came after CONNECT: it holds for the next one
  auth = Auth::idle;
  if (state == State::connecting) state = State::connected;
  if (connack.session_present) resume();
  event = Connected{.session_present = connack.session_present,
                    .limits = limits,
                    .assigned_client_id = assigned_client_id,
                    .properties = connack.properties};
  return true;
}

bool Session::Impl::refuse(const ConnackView& connack, ProtocolVersion spoken, Event& event) {
  state = State::closing;
  abrupt = true;
  event = Refused{.code = connack.code,
                  .version = spoken,
                  .reason_string = connack.properties.text(PropertyId::reason_string),
                  .server_reference = connack.properties.text(PropertyId::server_reference),
                  .properties = connack.properties};
  return true;
}

void Session::Impl::adopt_limits(const PropertiesView& properties) {
  using Id = PropertyId;
  const auto flag = [&properties](Id id) { return properties.number(id, 1) != 0; };
  limits.receive_maximum = static_cast<std::uint16_t>(properties.number(Id::receive_maximum, 65'535));
  limits.maximum_packet_size = properties.number(Id::maximum_packet_size, no_packet_limit);
  limits.topic_alias_maximum = static_cast<std::uint16_t>(properties.number(Id::topic_alias_maximum, 0));
  aliases_out.start(limits.topic_alias_maximum);
  limits.keepalive_s =
      static_cast<std::uint16_t>(properties.number(Id::server_keep_alive, config.keepalive_s));
  limits.maximum_qos = static_cast<QoS>(properties.number(Id::maximum_qos, 2));
  limits.retain_available = flag(Id::retain_available);
  limits.wildcard_available = flag(Id::wildcard_subscription_available);
  limits.subscription_identifiers_available = flag(Id::subscription_identifier_available);
  limits.shared_available = flag(Id::shared_subscription_available);
  limits.session_expiry_s = properties.number(Id::session_expiry_interval, config.session_expiry_s);
  if (const auto id = properties.text(Id::assigned_client_identifier); !id.empty()) assigned_client_id = id;
}

// --- PUBLISH from the server ----------------------------------------------------------------------------------------

bool Session::Impl::handle_publish(const Frame& frame, Event& event) {
  auto& message = event.emplace<Received>().message;
  auto error = decode(frame, version, Sender::server, message);
  if (error == DecodeError::none && v5()) error = resolve_alias(message);
  if (error != DecodeError::none) return violate(error, event);
  ++totals.publishes_received;
  if (message.qos == QoS::at_most_once) return true;
  bool deliver = true;
  error = admit(message, deliver);
  if (error != DecodeError::none) return violate(error, event);
  return deliver;
}

DecodeError Session::Impl::resolve_alias(PublishView& message) {
  const auto alias = message.properties.find(PropertyId::topic_alias);
  if (!alias) return DecodeError::none;
  if (alias->number > topic_alias_maximum) return DecodeError::topic_alias_above_maximum;
  if (aliases.size() < alias->number) aliases.resize(alias->number);
  auto& topic = aliases[alias->number - 1];
  if (!message.topic.empty()) {
    topic = message.topic;
  } else if (topic.empty()) {
    return DecodeError::topic_alias_not_mapped;
  } else {
    message.topic = topic;
  }
  return DecodeError::none;
}

// Notes an inbound QoS 1 or 2 message. A QoS 2 message that was delivered before is not delivered again [MQTT-4.3.3-10].
DecodeError Session::Impl::admit(const PublishView& message, bool& deliver) {
  const bool exactly_once = message.qos == QoS::exactly_once;
  auto* entry = received.find(message.packet_id);
  if (entry != nullptr && entry->exactly_once != exactly_once) {
    if (entry->counted) return DecodeError::packet_id_of_other_qos;
    // Left over from a former connection: the server has lost its session, and the CONNACK that said so was lost too. To
    // refuse the message now would mean to refuse it at every connection.
    received.erase(entry);
    entry = nullptr;
  }
  if (entry == nullptr || !entry->counted) {
    if (unacknowledged >= receive_maximum) return DecodeError::receive_maximum_exceeded;
    ++unacknowledged;
  }
  const bool known = entry != nullptr;
  if (!known) {
    entry = &received.insert(message.packet_id);
    entry->exactly_once = exactly_once;
  }
  entry->counted = true;
  if (!entry->in_order) {
    entry->in_order = true;
    arrivals.push_back(message.packet_id);
  }
  deliver = !known || !exactly_once;
  if (!deliver) {
    ++totals.duplicates_suppressed;
    send_handled();
  }
  return DecodeError::none;
}

void Session::Impl::acknowledge(std::uint16_t id, ReasonCode reason) {
  auto* entry = received.find(id);
  if (entry == nullptr || entry->stage != Stage::delivered) return;
  entry->stage = Stage::handled;
  entry->reason = sendable(entry->exactly_once ? PacketType::pubrec : PacketType::puback, reason);
  send_handled();
}

// Answers the messages that were handled, as far as no earlier one is still with the caller [MQTT-4.6.0-2, MQTT-4.6.0-3].
void Session::Impl::send_handled() {
  for (; !arrivals.empty() && !ending && !abrupt; arrivals.pop_front()) {
    auto* entry = received.find(arrivals.front());
    if (entry == nullptr) continue;  // released while its repetition waited
    if (entry->stage == Stage::delivered) return;
    queue_ack(entry->exactly_once ? PacketType::pubrec : PacketType::puback, entry->id, entry->reason);
    if (entry->exactly_once && entry->reason < ReasonCode::unspecified_error) {
      entry->stage = Stage::recorded;
      entry->in_order = false;
    } else {
      received.erase(entry);  // the identifier is free for a new message [MQTT-4.3.2-5, MQTT-4.3.3-9]
      --unacknowledged;
    }
  }
}

bool Session::Impl::handle_pubrel(const Frame& frame, Event& event) {
  AckView pubrel;
  if (const auto error = decode(frame, version, pubrel); error != DecodeError::none)
    return violate(error, event);
  if (breaks_problem_information(pubrel.properties)) {
    return violate(DecodeError::problem_information_not_requested, event);
  }
  auto* entry = received.find(pubrel.packet_id);
  if (entry == nullptr || !entry->exactly_once) {
    ++totals.answers_ignored;
    queue_ack(PacketType::pubcomp, pubrel.packet_id, ReasonCode::packet_identifier_not_found);
    return false;
  }
  // PUBREL answers a PUBREC that has not been sent.
  if (entry->stage != Stage::recorded) return violate(DecodeError::packet_unexpected, event);
  if (entry->counted) --unacknowledged;
  received.erase(entry);
  queue_ack(PacketType::pubcomp, pubrel.packet_id);
  return false;
}

// --- answers to our packets -----------------------------------------------------------------------------------------

bool Session::Impl::breaks_problem_information(const PropertiesView& properties) const {
  return !problem_information &&
         (properties.find(PropertyId::reason_string) || properties.find(PropertyId::user_property));
}

bool Session::Impl::handle_ack(const Frame& frame, Event& event) {
  AckView ack;
  if (const auto error = decode(frame, version, ack); error != DecodeError::none)
    return violate(error, event);
  if (breaks_problem_information(ack.properties)) {
    return violate(DecodeError::problem_information_not_requested, event);
  }
  const auto id = ack.packet_id;
  const auto at = in_flight.find(id);
  const bool refused = ack.reason >= ReasonCode::unspecified_error;
  // A packet of which only a part has left cannot have been answered.
  if (at != 0 && at != split.slot) {
    Slot& slot = in_flight[at];
    switch (slot.kind) {
      case Kind::publish_qos_1:
        if (ack.type != PacketType::puback) break;
        complete(at, slot, refused ? Outcome::refused : Outcome::acknowledged, ack.reason, event);
        return true;
      case Kind::publish_qos_2:
        if (ack.type != PacketType::pubrec) break;
        if (refused) {  // final: no PUBREL, no re-send [MQTT-4.4.0-2]
          complete(at, slot, Outcome::refused, ack.reason, event);
          return true;
        }
        if (resend == at) resend = resend_from(slot.next);
        slot.number = release_number++;
        if (slot.record.is_stored() || !releases.empty()) return wait_for_release(at, slot, event);
        slot.kind = Kind::release;
        queue_ack(PacketType::pubrel, id);
        return false;
      case Kind::release:
        if (ack.type == PacketType::pubcomp) {
          if (slot.record.is_stored()) {
            complete_stored(at, slot, ack.reason, event);
          } else {
            complete(at, slot, Outcome::acknowledged, ack.reason, event);
          }
          return true;
        }
        if (ack.type == PacketType::pubrec && !refused) queue_ack(PacketType::pubrel, id);
        break;
      case Kind::abandoned:  // the server brings its exchange to an end: then the identifier is free
        if (ack.type == PacketType::pubrec && !refused) {
          slot.on_wire = true;
          queue_ack(PacketType::pubrel, id);
        } else if (ack.type == PacketType::pubrec || (ack.type == PacketType::pubcomp && slot.on_wire)) {
          const bool was_expected = slot.released;
          end_abandoned(at);
          if (was_expected) return false;
        }
        break;
      default: break;
    }
  } else if (at == 0 && ack.type == PacketType::pubrec && !refused && !in_flight.is_reserved(id)) {
    // Nobody will ask for it again. A reserved one belongs to a message that the caller still has, or will give again:
    // the server must remember it until then.
    queue_ack(PacketType::pubrel, id, ReasonCode::packet_identifier_not_found);
  }
  ++totals.answers_ignored;
  return false;
}

void Session::Impl::complete(std::uint16_t at, Slot& slot, Outcome outcome, ReasonCode reason, Event& event) {
  const auto& header = slot.record.header();
  event.emplace<Completed>(Completed{header.sequence, header.token, outcome, reason});
  release_record(slot.record);
  if (slot.on_wire) --on_wire;
  if (resend == at) resend = resend_from(slot.next);
  in_flight.remove(in_flight.messages, at);
  in_flight.free(at);
}

bool Session::Impl::handle_suback(const Frame& frame, Event& event) {
  SubackView answer;
  if (const auto error = decode(frame, version, answer); error != DecodeError::none)
    return violate(error, event);
  if (breaks_problem_information(answer.properties)) {
    return violate(DecodeError::problem_information_not_requested, event);
  }
  const auto id = answer.packet_id;
  const bool suback = answer.type == PacketType::suback;
  const auto at = in_flight.find(id);
  if (at == 0 || in_flight[at].kind != (suback ? Kind::subscribe : Kind::unsubscribe)) {
    ++totals.answers_ignored;
    return false;
  }
  const Slot& slot = in_flight[at];
  codes.clear();
  for (std::size_t i = 0; i < answer.codes.size(); ++i) codes.push_back(answer.code(i));
  if (!suback && !v5()) codes.assign(slot.number, ReasonCode::success);  // 3.1.1 does not tell
  if (codes.size() != slot.number) return violate(DecodeError::codes_do_not_match_filters, event);
  event = SubscriptionAcknowledged{
      .token = slot.token, .unsubscribe = !suback, .codes = codes, .properties = answer.properties};
  in_flight.remove(in_flight.requests, at);
  in_flight.free(at);
  return true;
}

// --- DISCONNECT and AUTH from the server ----------------------------------------------------------------------------

bool Session::Impl::handle_disconnect(const Frame& frame, Event& event) {
  if (!v5()) return violate(DecodeError::packet_unexpected, event);
  DisconnectView packet;
  if (const auto error = decode(frame, version, Sender::server, packet); error != DecodeError::none) {
    return violate(error, event);
  }
  state = State::closing;
  abrupt = true;
  event = Closing{.by = Closing::By::server_disconnect,
                  .reason = packet.reason,
                  .rule = DecodeError::none,
                  .text = packet.properties.text(PropertyId::reason_string),
                  .server_reference = packet.properties.text(PropertyId::server_reference),
                  .properties = packet.properties};
  return true;
}

bool Session::Impl::handle_auth(const Frame& frame, Event& event) {
  AuthView packet;
  auto error = decode(frame, version, Sender::server, packet);
  if (error != DecodeError::none) return violate(error, event);
  if (authentication_method.empty()) return violate(DecodeError::auth_without_method, event);
  if (packet.properties.text(PropertyId::authentication_method) != authentication_method) {
    return violate(DecodeError::auth_method_differs, event);
  }
  if (breaks_problem_information(packet.properties)) {
    return violate(DecodeError::problem_information_not_requested, event);
  }
  const bool more = packet.reason == ReasonCode::continue_authentication;
  if (auth == Auth::connecting && more) {
    auth = Auth::challenged;
  } else if (auth == Auth::again) {
    auth = more ? Auth::challenged_again : Auth::idle;
  } else {
    return violate(DecodeError::auth_code_unexpected, event);
  }
  event = Authentication{.reason = packet.reason,
                         .data = as_bytes(packet.properties.text(PropertyId::authentication_data)),
                         .properties = packet.properties};
  return true;
}

// --- violations -----------------------------------------------------------------------------------------------------

// The server broke a rule: DISCONNECT with the reason behind what is queued, then the end [MQTT-4.13.2-1]. 3.1.1 has no
// reasons, and its DISCONNECT would call off the will: there the connection just ends [MQTT-4.8.0-1 of 3.1.1].
bool Session::Impl::violate(DecodeError rule, Event& event) {
  ++totals.violations;
  const auto reason = reason_for(rule);
  input = {};
  unread = expected = 0;
  state = State::closing;
  disconnect_reason.reset();
  ending = true;
  // A packet that has left in part cannot be followed by another one.
  if (!v5() || split.record) {
    abrupt = true;
  } else {
    queue(DisconnectView{.reason = reason, .properties = {}});
  }
  event = Closing{.by = Closing::By::protocol_violation,
                  .reason = reason,
                  .rule = rule,
                  .text = to_string(rule),
                  .server_reference = {},
                  .properties = {}};
  return true;
}

}  // namespace fulmar::mqtt
