#include "client_rules.hpp"

#include <algorithm>

namespace fulmar::simulation {

using mqtt::DecodeError;
using mqtt::Frame;
using mqtt::Outcome;
using mqtt::PropertyId;
using mqtt::PublishView;
using std::chrono::seconds;

// --- the caller -----------------------------------------------------------------------------------------------------

void ClientRules::requested(bool unsubscribe, std::uint64_t token, std::size_t filters) {
  Due due{.type = unsubscribe ? PacketType::unsubscribe : PacketType::subscribe};
  due.request = {unsubscribe, token, filters};
  due_.push_back(due);
}

void ClientRules::acknowledged(std::uint16_t id, ReasonCode reason) {
  const auto found = inbound_.find(id);
  if (found == inbound_.end() || found->second.stage != Hold::delivered) return;
  found->second.stage = Hold::handled;
  // 3.1.1 cannot refuse: the message counts as taken.
  found->second.reason = config_.version == ProtocolVersion::v5 ? reason : ReasonCode::success;
  if (found->second.reason >= ReasonCode::unspecified_error)
    messages_.in[found->second.number].refused = true;
  send_handled();
}

void ClientRules::taken(std::uint64_t sequence) {
  const auto oldest = flight_.empty()    ? pending_.empty() ? 0 : *pending_.begin()
                         : pending_.empty() ? flight_.begin()->first
                                         : std::min(*pending_.begin(), flight_.begin()->first);
  check(sequence == oldest, "take_all() does not hand out the oldest one next", sequence);
  auto& message = messages_.out[sequence];
  check(!message.completed, "take_all() hands out a message that has its outcome", sequence);
  message.completed = true;
  pending_.erase(sequence);
  give_up(sequence);
}

// A packet in the middle of one of them cannot be finished: the connection is over.
void ClientRules::all_taken() {
  if (buffer_.empty() || std::to_integer<unsigned>(buffer_[0]) >> 4 != 3) return;
  buffer_.clear();
  ended_ = silent_ = true;
}

// --- the link -------------------------------------------------------------------------------------------------------

void ClientRules::opened(Instant now, const mqtt::SessionConfig& config) {
  config_ = config;
  open_ = true;
  connect_seen_ = connected_ = leaving_ = disconnect_sent_ = ended_ = silent_ = false;
  limits_ = ServerLimits();
  limits_.keepalive_s = config.keepalive_s;
  last_packet_ = last_received_ = now;
  last_sequence_ = 0;
  excuse_ = {};
  ping_since_.reset();
  if (wants_clean_) {
    requeue_flights();
    inbound_.clear();
    has_session_ = false;
  }
  const bool keeps =
      config.version == ProtocolVersion::v5 ? config.session_expiry_s > 0 : !config.clean_start;
  clean_ = wants_clean_ || !(has_session_ && keeps) ? wants_clean_ || config.clean_start : false;
  ping_asked_ = false;
}

void ClientRules::closed() {
  if (!open_) return;
  // A PUBLISH that left in part: the next one in the order. With QoS 1 and 2 it counts as sent.
  if (!buffer_.empty() && std::to_integer<unsigned>(buffer_[0]) >> 4 == 3 && resend_.empty()) {
    check(!pending_.empty(), "a PUBLISH of nothing");
    if (!pending_.empty() && (std::to_integer<unsigned>(buffer_[0]) >> 1 & 3) != 0) {
      flight_.emplace(*pending_.begin(), Flight());
      pending_.erase(pending_.begin());
    }
  }
  buffer_.clear();
  input_.clear();
  open_ = connected_ = false;
  due_.clear();
  requests_.clear();
  resend_.clear();
  aliases_out_.clear();
  arrivals_.clear();
  unacknowledged_ = 0;
  wire_ = 0;
  for (auto& [sequence, flight] : flight_) flight.on_wire = false;
  std::erase_if(inbound_, [](const auto& entry) { return !entry.second.exactly_once; });
  for (auto& [id, entry] : inbound_) entry.counted = entry.in_order = false;
}

void ClientRules::requeue_flights() {
  for (const auto& [sequence, flight] : flight_) pending_.insert(sequence);
  flight_.clear();
  by_id_.clear();
  abandoned_.clear();
  adopted_ = false;
  clearing_.clear();
  cleared_.clear();
  resend_.clear();
  wire_ = 0;
}

void ClientRules::drop_flight(std::uint64_t sequence) {
  const auto found = flight_.find(sequence);
  if (found == flight_.end()) return;
  if (found->second.on_wire) --wire_;
  if (found->second.id != 0) by_id_.erase(found->second.id);
  resend_.erase(sequence);
  flight_.erase(found);
}

void ClientRules::give_up(std::uint64_t sequence) {
  const auto found = flight_.find(sequence);
  if (found == flight_.end()) return;
  const auto flight = found->second;
  drop_flight(sequence);
  if (flight.id == 0 || messages_.out[sequence].content.qos != QoS::exactly_once) return;
  abandoned_[flight.id] = flight.stage == Stage::released;
}

// --- what leaves ----------------------------------------------------------------------------------------------------

void ClientRules::sent(BytesView bytes, Instant now) {
  check(!silent_, "bytes after the end of the connection");
  std::size_t at = 0;
  if (buffer_.empty()) began_ = now;
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  while (!journal_.failed()) {
    Frame frame;
    const auto error =
        next_frame(BytesView(buffer_).subspan(at), config_.version, mqtt::no_packet_limit, frame);
    if (error != DecodeError::none) return fail("the client sent a broken header: ", to_string(error));
    if (frame.size == 0) break;
    packet_sent(frame, now);
    at += frame.size;
    began_ = now;
  }
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at));
}

void ClientRules::packet_sent(const Frame& frame, Instant now) {
  ++packets_;
  mqtt::PacketView view;
  if (const auto error = decode(frame, config_.version, mqtt::Sender::client, view);
      error != DecodeError::none) {
    return fail("the client sent a ", to_string(frame.type), " that breaks a rule: ", to_string(error));
  }
  check(!disconnect_sent_, "a packet after DISCONNECT [MQTT-3.14.4-1]");
  check(connect_seen_ == (frame.type != PacketType::connect),
        "CONNECT is first and only first [MQTT-3.1.0-1]");
  if (frame.type != PacketType::connect && frame.type != PacketType::disconnect) {
    check(connected_ || ended_, "a packet before CONNACK");
  }
  if (connected_)
    check(frame.size <= limits_.maximum_packet_size, "over the maximum packet size [MQTT-3.2.2-15]",
          frame.size);
  if (limits_.keepalive_s != 0 && connected_) {
    check(now - last_packet_ <= seconds(limits_.keepalive_s) + excuse_,
          "silent for longer than the keep-alive [MQTT-3.1.2-20]");
  }
  last_packet_ = now;
  excuse_ = {};

  if (auto* connect = std::get_if<mqtt::ConnectView>(&view)) return connect_sent(*connect);
  if (auto* publish = std::get_if<PublishView>(&view)) return publish_sent(*publish, frame.size);
  if (auto* ack = std::get_if<mqtt::AckView>(&view))
    return answer_sent(ack->type, ack->packet_id, ack->reason);
  if (auto* request = std::get_if<mqtt::SubscribeView>(&view))
    return request_sent(PacketType::subscribe, *request);
  if (auto* request = std::get_if<mqtt::UnsubscribeView>(&view))
    return request_sent(PacketType::unsubscribe, *request);
  if (frame.type == PacketType::pingreq) {
    journal_.note("client sent PINGREQ");
    check(ping_asked_, "PINGREQ before its time");
  } else if (frame.type == PacketType::disconnect) {
    journal_.note("client sent DISCONNECT {}",
                  static_cast<std::uint64_t>(std::get<mqtt::DisconnectView>(view).reason));
    check(leaving_ || ended_, "DISCONNECT that nobody asked for");
    disconnect_sent_ = true;
  } else {
    fail("the client sent a ", to_string(frame.type));
  }
}

void ClientRules::connect_sent(const mqtt::ConnectView& packet) {
  journal_.note("client sent CONNECT, clean start {}", packet.clean_start);
  connect_seen_ = true;
  const bool v5 = config_.version == ProtocolVersion::v5;
  check(packet.version == config_.version, "CONNECT with the wrong version");
  check(packet.clean_start == clean_, "CONNECT with the wrong clean start");
  check(packet.client_id == config_.client_id, "CONNECT with the wrong client identifier");
  check(packet.keepalive_s == config_.keepalive_s, "CONNECT with the wrong keep-alive");
  if (v5) {
    const auto& p = packet.properties;
    check(p.number(PropertyId::session_expiry_interval, 0) == config_.session_expiry_s,
          "wrong session expiry");
    check(p.number(PropertyId::receive_maximum, 65'535) == config_.receive_maximum, "wrong receive maximum");
    check(p.number(PropertyId::topic_alias_maximum, 0) == config_.topic_alias_maximum, "wrong alias maximum");
    check(p.number(PropertyId::maximum_packet_size, mqtt::no_packet_limit) == config_.maximum_packet_size,
          "wrong maximum packet size");
  }
}

std::uint32_t ClientRules::life_left(const OutMessage& message, Instant now) const {
  const auto now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count();
  const auto age_s = (now_ns - message.accepted_ns) / 1'000'000'000;
  return age_s >= message.expiry_s ? 0 : message.expiry_s - static_cast<std::uint32_t>(age_s);
}

ReasonCode ClientRules::refusal(std::uint64_t sequence) const {
  const auto& message = messages_.out[sequence];
  if (message.content.qos > limits_.maximum_qos) return ReasonCode::qos_not_supported;
  if (message.content.retain && !limits_.retain_available) return ReasonCode::retain_not_supported;
  mqtt::PublishHead head;
  const auto topic = topic_of(Way::out, sequence, message.content);
  head.topic = topic;
  head.payload_size = message.content.payload_size;
  head.qos = message.content.qos;
  if (config_.version == ProtocolVersion::v5) {
    if (message.content.with_properties) head.properties = message_properties();
    if (message.expiry_s != mqtt::no_expiry) head.expiry_s = std::max(life_left(message, journal_.now), 1u);
  }
  const auto size = measure(head, config_.version);
  return size == 0 || size + head.payload_size > limits_.maximum_packet_size ? ReasonCode::packet_too_large
                                                                             : ReasonCode::success;
}

// How a message ends that cannot be sent now; nothing when it can.
std::optional<ClientRules::Settled> ClientRules::unsendable(std::uint64_t sequence) const {
  const auto& message = messages_.out[sequence];
  const bool again = flight_.contains(sequence);
  if (!again && message.expiry_s != mqtt::no_expiry && life_left(message, journal_.now) == 0) {
    return Settled{sequence, Outcome::expired, ReasonCode::success};
  }
  if (const auto why = refusal(sequence); why != ReasonCode::success) {
    return Settled{sequence, Outcome::refused, why};
  }
  return std::nullopt;
}

void ClientRules::settle_resends(std::uint64_t before) {
  while (!resend_.empty() && *resend_.begin() < before) {
    const auto sequence = *resend_.begin();
    const auto end = unsendable(sequence);
    if (!end) return fail("message ", before, " before the re-send of ", sequence, " [MQTT-4.6.0-1]");
    settled_.push_back(*end);
    give_up(sequence);
  }
}

void ClientRules::settle_pending(std::uint64_t before) {
  while (!pending_.empty() && *pending_.begin() < before) {
    const auto sequence = *pending_.begin();
    const auto end = unsendable(sequence);
    if (!end) return fail("message ", before, " overtook ", sequence);
    settled_.push_back(*end);
    pending_.erase(sequence);
  }
}

void ClientRules::publish_sent(PublishView packet, std::size_t size) {
  if (const auto alias = packet.properties.find(PropertyId::topic_alias)) {
    check(alias->number <= limits_.topic_alias_maximum, "an alias above the maximum [MQTT-3.2.2-18]",
          alias->number);
    auto& topic = aliases_out_[static_cast<std::uint16_t>(alias->number)];
    if (!packet.topic.empty()) topic = packet.topic;
    check(!topic.empty(), "an alias that has no topic on this connection [MQTT-3.3.2-7]", alias->number);
    packet.topic = topic;
  }
  const auto sequence = number_of(Way::out, packet.topic, packet.payload);
  journal_.note("client sent PUBLISH {} id {}, QoS and DUP {}", sequence, packet.packet_id,
                static_cast<std::uint64_t>(packet.qos) * 10 + packet.dup);
  if (sequence == 0 || sequence >= messages_.out.size()) return fail("a PUBLISH of no message");
  check(sequence > last_sequence_, "out of order, or twice on one connection", sequence);
  last_sequence_ = sequence;
  check(!messages_.out[sequence].completed, "a message that has its outcome is sent", sequence);
  check(packet.qos <= limits_.maximum_qos, "over the maximum QoS [MQTT-3.2.2-11]", sequence);
  check(!packet.retain || limits_.retain_available, "retain is not available [MQTT-3.2.2-14]", sequence);
  check(size <= limits_.maximum_packet_size, "over the maximum packet size", sequence);
  check_content(packet, sequence);

  settle_resends(packet.dup ? sequence : UINT64_MAX);
  if (packet.dup) return take_flight(sequence, packet.packet_id, true);
  settle_pending(sequence);
  if (pending_.erase(sequence) == 0) return fail("message ", sequence, " is sent as new and is not");
  if (packet.qos == QoS::at_most_once) {
    settled_.push_back({sequence, Outcome::sent, ReasonCode::success});
  } else {
    flight_.emplace(sequence, Flight());
    take_flight(sequence, packet.packet_id, false);
  }
}

void ClientRules::take_flight(std::uint64_t sequence, std::uint16_t id, bool dup) {
  const auto found = flight_.find(sequence);
  if (found == flight_.end()) return fail("DUP on the first transmission of ", sequence, " [MQTT-3.3.1-1]");
  auto& flight = found->second;
  check(!dup || resend_.erase(sequence) == 1, "sent again without a new connection [MQTT-4.4.0-1]", sequence);
  check(flight.stage == Stage::sent, "a PUBLISH after its PUBREC [MQTT-4.3.3-6]", sequence);
  if (flight.id == 0) {
    check(!holds_id(id), "a packet identifier that is in use [MQTT-2.2.1-3]", id);
    check(!adopted_ || messages_.out[sequence].content.qos != QoS::exactly_once || cleared_.contains(id),
          "an identifier that a former process may have used", id);
    flight.id = id;
    by_id_[id] = sequence;
  }
  check(flight.id == id, "sent again under another identifier [MQTT-4.4.0-1]", sequence);
  const auto window = std::min(limits_.receive_maximum, config_.max_inflight);
  flight.on_wire = true;
  ++wire_;
  check(wire_ <= window, "over the receive maximum or max_inflight [MQTT-3.3.4-7]", wire_);
}

void ClientRules::check_content(const PublishView& packet, std::uint64_t sequence) {
  const auto& message = messages_.out[sequence];
  const auto& content = message.content;
  check(packet.topic == topic_of(Way::out, sequence, content), "another topic", sequence);
  check(packet.payload.size() == content.payload_size && payload_is(sequence, packet.payload),
        "another payload", sequence);
  check(packet.qos == content.qos && packet.retain == content.retain, "another QoS or retain", sequence);
  if (config_.version != ProtocolVersion::v5) return;
  check(properties_are(content.with_properties, packet.properties), "other properties", sequence);
  const auto left = packet.properties.find(PropertyId::message_expiry_interval);
  check(left.has_value() == (message.expiry_s != mqtt::no_expiry), "an expiry that is not the message's",
        sequence);
  if (!left) return;
  // Neither more than is left nor nothing at all; it was counted when the packet began.
  const auto expected = std::max(life_left(message, began_), packet.dup ? 1u : 0u);
  check(left->number == expected, "another rest of the expiry [MQTT-3.3.2-6]", sequence);
  check(left->number != 0, "sent after its expiry", sequence);
}

void ClientRules::answer_sent(PacketType type, std::uint16_t id, ReasonCode reason) {
  journal_.note(type == PacketType::pubrel ? "client sent PUBREL {} reason {}"
                                           : "client sent an acknowledgement {} reason {}, type {}",
                id, static_cast<std::uint64_t>(reason), static_cast<std::uint64_t>(type));
  const auto fits = [&](const Due& due) { return due.type == type && due.id == id && due.reason == reason; };
  if (adopted_ && type == PacketType::pubrel && !holds_id(id) && std::ranges::none_of(due_, fits)) {
    check(reason == ReasonCode::success && !cleared_.contains(id), "a PUBREL that nothing asked for", id);
    clearing_.push_back(id);
    abandoned_[id] = true;
    return;
  }
  while (!due_.empty() && due_.front().optional && !fits(due_.front())) due_.pop_front();
  if (due_.empty()) return fail("a ", to_string(type), " of ", id, " that nothing asked for");
  if (!fits(due_.front())) {
    return fail("a ", to_string(type), " of ", id, " instead of the ", to_string(due_.front().type), " of ",
                due_.front().id, " that is due");
  }
  due_.pop_front();
}

template <typename Packet>
void ClientRules::request_sent(PacketType type, const Packet& packet) {
  journal_.note("client sent SUBSCRIBE or UNSUBSCRIBE {}", packet.packet_id);
  while (!due_.empty() && due_.front().optional) due_.pop_front();
  if (due_.empty() || due_.front().type != type) return fail("a ", to_string(type), " out of order");
  check(packet.filters.size() == due_.front().request.filters, "another number of filters", packet.packet_id);
  check(!holds_id(packet.packet_id), "a packet identifier that is in use [MQTT-2.2.1-3]", packet.packet_id);
  requests_[packet.packet_id] = due_.front().request;
  due_.pop_front();
}

// The identifier of the PUBLISH that has left in part; 0 when there is none. `unknown`: there is one, but not far enough.
std::uint16_t ClientRules::partial_id(bool& unknown) const {
  unknown = false;
  if (buffer_.empty() || std::to_integer<unsigned>(buffer_[0]) >> 4 != 3 ||
      (std::to_integer<unsigned>(buffer_[0]) >> 1 & 3) == 0) {
    return 0;
  }
  std::size_t at = 1;
  while (at < buffer_.size() && std::to_integer<unsigned>(buffer_[at]) >= 0x80) ++at;
  const auto two = [this](std::size_t i) {
    return std::to_integer<std::size_t>(buffer_[i]) << 8 | std::to_integer<std::size_t>(buffer_[i + 1]);
  };
  unknown = true;
  if (++at + 2 > buffer_.size()) return 0;
  at += 2 + two(at);
  if (at + 2 > buffer_.size()) return 0;
  unknown = false;
  return static_cast<std::uint16_t>(two(at));
}

// --- at rest --------------------------------------------------------------------------------------------------------

void ClientRules::at_rest(const Session& session, Instant now) {
  (void)now;
  check(settled_.empty(), "a Completed event is missing", settled_.empty() ? 0 : settled_.front().sequence);
  check(!session.wants_transmit(), "wants_transmit() after all was transmitted");
  if (!open_ || ended_) return;
  check(buffer_.empty(), "a packet was left in the middle");
  std::erase_if(due_, [](const Due& due) { return due.optional; });
  check(due_.empty() || !connected_, "an answer or request was not sent", due_.empty() ? 0 : due_.front().id);
  check(!leaving_ || disconnect_sent_, "DISCONNECT was not sent");
  if (!connected_ || leaving_) return;
  const auto window = std::min(limits_.receive_maximum, config_.max_inflight);
  if (!resend_.empty()) {
    check(wire_ >= window, "a re-send sleeps", *resend_.begin());
  } else if (!pending_.empty()) {
    const auto qos = messages_.out[*pending_.begin()].content.qos;
    const bool waits =
        (qos != QoS::at_most_once && wire_ >= window) || (qos == QoS::exactly_once && !clearing_.empty());
    check(waits, "a message sleeps", *pending_.begin());
  }
}

void ClientRules::at_any_time(const Session& session, bool held, Instant now) {
  const auto counts = session.counts();
  if (buffer_.empty()) {
    check(counts.queued == pending_.size(), "Counts::queued is wrong", counts.queued);
    check(counts.in_flight == flight_.size(), "Counts::in_flight is wrong", counts.in_flight);
  }
  check(counts.unacknowledged == inbound_.size(), "Counts::unacknowledged is wrong", counts.unacknowledged);
  const std::uint64_t oldest = std::min(flight_.empty() ? UINT64_MAX : flight_.begin()->first,
                                        pending_.empty() ? UINT64_MAX : *pending_.begin());
  check(session.oldest().value_or(UINT64_MAX) == oldest, "oldest() is wrong", oldest);
  if (!connected_ || takes_nothing() || limits_.keepalive_s == 0) return;
  const auto k = std::chrono::milliseconds(limits_.keepalive_s * 1'000);
  check(held || now - last_received_ <= k + k / 2,
        "a dead server was not noticed in 1.5 keep-alives, but in ms:",
        static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::milliseconds>(now - last_received_).count()));
  check(now - last_packet_ <= k + excuse_ || !buffer_.empty(),
        "silent for longer than the keep-alive [MQTT-3.1.2-20]");
}

std::string ClientRules::inbound_state() const {
  std::string text;
  for (const auto& [id, entry] : inbound_) {
    text += " id " + std::to_string(id) + " message " + std::to_string(entry.number) + " stage " +
            std::to_string(static_cast<unsigned>(entry.stage)) + (entry.counted ? " counted" : "") +
            (entry.in_order ? " in order" : "");
    if (text.size() > 500) break;
  }
  return text;
}

void ClientRules::at_the_end(const Session& session) {
  for (std::size_t i = 1; i < messages_.out.size(); ++i)
    check(messages_.out[i].completed, "a message without an outcome", i);
  const auto counts = session.counts();
  check(counts.in_flight == 0 && counts.queued == 0, "the session still holds messages", counts.in_flight);
  check(!session.oldest().has_value(), "oldest() of nothing");
}

}  // namespace fulmar::simulation
