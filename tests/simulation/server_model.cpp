#include "server_model.hpp"

#include <algorithm>
#include <array>

namespace fulmar::simulation {

using mqtt::DecodeError;
using mqtt::PropertyId;
using std::chrono::milliseconds;

// --- in -------------------------------------------------------------------------------------------------------------

void ServerModel::read(Connection& connection, std::size_t most) {
  auto& input = connection.server_input;
  if (!connection.server_end || connection.up.read(journal_.now, most, input) == 0) return;
  std::size_t at = 0;
  while (connection.server_end && !journal_.failed()) {
    mqtt::Frame frame;
    const auto error = next_frame(BytesView(input).subspan(at), version_, mqtt::no_packet_limit, frame);
    if (error != DecodeError::none) return journal_.fail("the server got a broken header");
    if (frame.size == 0) break;
    handle(connection, frame);
    at += frame.size;
  }
  input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(at));
}

void ServerModel::handle(Connection& connection, const mqtt::Frame& frame) {
  mqtt::PacketView view;
  if (decode(frame, version_, mqtt::Sender::client, view) != DecodeError::none) {
    return journal_.fail("the server got a packet that it cannot decode");
  }
  if (auto* connect = std::get_if<mqtt::ConnectView>(&view)) return handle_connect(connection, *connect);
  if (!connection.connect_seen) return journal_.fail("the server got another packet before CONNECT");
  if (&connection != current_) return;  // refused, or not answered
  last_read_ = journal_.now;
  if (auto* publish_view = std::get_if<mqtt::PublishView>(&view)) return handle_publish(*publish_view);
  if (auto* ack = std::get_if<mqtt::AckView>(&view)) return handle_ack(*ack);
  if (auto* request = std::get_if<mqtt::SubscribeView>(&view)) {
    claim_id(request->packet_id, 0);
    return answer({.type = PacketType::suback, .id = request->packet_id, .codes = request->filters.size()});
  }
  if (auto* request = std::get_if<mqtt::UnsubscribeView>(&view)) {
    claim_id(request->packet_id, 0);
    return answer({.type = PacketType::unsuback, .id = request->packet_id, .codes = request->filters.size()});
  }
  if (frame.type == PacketType::pingreq) {
    if (habits.answers_ping) answer({.type = PacketType::pingresp});
  } else if (frame.type == PacketType::disconnect) {
    connection.server_end = false;
    lost(connection);
  }
}

void ServerModel::handle_connect(Connection& connection, const mqtt::ConnectView& packet) {
  if (connection.connect_seen) return journal_.fail("the server got a second CONNECT");
  connection.connect_seen = true;
  if (current_ != nullptr) {  // [MQTT-3.1.4-3]
    auto& old = *current_;
    journal_.note("server: connection {} takes over from {}", connection.number, old.number);
    old.server_end = false;
    lost(old);
  }
  if (random_.chance(habits.silent_connect)) return;
  current_ = &connection;
  if (random_.chance(habits.refuse)) {
    const auto code = v5() ? random_.pick<std::uint8_t>({0x80, 0x88, 0x89, 0x97, 0x87})
                           : random_.between<std::uint8_t>(1, 5);
    send(mqtt::ConnackView{false, code, {}}, {});
    connection.server_end = false;
    current_ = nullptr;
    return;
  }
  if (packet.clean_start || random_.chance(habits.lose_session)) drop_session();
  const bool present = has_session_;
  if (!present) {
    ++epoch_;
    has_session_ = true;
  }
  journal_.note("server accepts connection {}, session {} present {}", connection.number, epoch_, present);
  const auto& p = packet.properties;
  keeps_session_ = v5() ? p.number(PropertyId::session_expiry_interval, 0) != 0 : !packet.clean_start;
  window_ =
      v5() ? static_cast<std::uint16_t>(p.number(PropertyId::receive_maximum, 65'535)) : habits.window_max;
  window_ = std::min(window_, habits.window_max);
  alias_maximum_ = static_cast<std::uint16_t>(p.number(PropertyId::topic_alias_maximum, 0));
  packet_maximum_ = p.number(PropertyId::maximum_packet_size, mqtt::no_packet_limit);
  keepalive_s_ = packet.keepalive_s;
  last_read_ = journal_.now;
  aliases_.clear();
  client_aliases_.clear();

  std::array<std::byte, 128> buffer{};
  mqtt::PropertyWriter limits(buffer);
  if (v5()) {
    limits.add(PropertyId::receive_maximum,
               random_.between<std::uint32_t>(habits.window_min, habits.window_max));
    if (random_.chance(habits.shrink))
      limits.add(PropertyId::maximum_packet_size, random_.between<std::uint32_t>(64, 4'000));
    if (random_.chance(habits.shrink)) limits.add(PropertyId::maximum_qos, random_.below<std::uint32_t>(2));
    if (random_.chance(habits.shrink)) limits.add(PropertyId::retain_available, 0u);
    if (random_.chance(5'000)) limits.add(PropertyId::topic_alias_maximum, random_.below<std::uint32_t>(8));
    if (random_.chance(3'000)) {
      keepalive_s_ = random_.between<std::uint16_t>(2, 20);
      limits.add(PropertyId::server_keep_alive, std::uint32_t{keepalive_s_});
    }
  }
  send(mqtt::ConnackView{present, 0, limits.view()}, {.number = epoch_});
  if (present) resume();
}

void ServerModel::drop_session() {
  if (has_session_) journal_.note("server drops session {}", epoch_);
  has_session_ = false;
  recorded_.clear();
  queue_.clear();
  flight_.clear();
  on_wire_ = 0;
}

void ServerModel::lost(const Connection& connection) {
  if (&connection != current_) return;
  current_ = nullptr;
  answers_.clear();
  on_wire_ = 0;
  for (auto& flight : flight_) flight.sent = false;
  if (!keeps_session_ || random_.chance(habits.forget_at_end)) drop_session();
}

// A packet identifier of the client's that comes with something new must not stand for an unfinished QoS 2 message.
void ServerModel::claim_id(std::uint16_t id, std::uint64_t number) {
  const auto found = recorded_.find(id);
  if (found == recorded_.end() || found->second == number) return;
  if (!messages_.out[found->second].lied) {
    return journal_.fail("identifier " + std::to_string(id) + " comes with message " +
                         std::to_string(number) + " while the server holds it for QoS 2 message " +
                         std::to_string(found->second) + " [MQTT-2.2.1-3]");
  }
  recorded_.erase(found);
}

void ServerModel::handle_publish(const mqtt::PublishView& packet) {
  auto topic = packet.topic;
  if (const auto alias = packet.properties.find(PropertyId::topic_alias)) {
    auto& of_alias = client_aliases_[static_cast<std::uint16_t>(alias->number)];
    if (!topic.empty()) of_alias = topic;
    topic = of_alias;
  }
  const auto number = number_of(Way::out, topic, packet.payload);
  if (number == 0 || number >= messages_.out.size())
    return journal_.fail("the server got a PUBLISH of no message");
  if (packet.qos != QoS::at_most_once) claim_id(packet.packet_id, number);
  if (packet.qos == QoS::at_most_once) return deliver(number);
  auto reason = ReasonCode::success;
  if (v5() && random_.chance(habits.answer_error)) {
    reason =
        random_.pick({ReasonCode::quota_exceeded, ReasonCode::not_authorized, ReasonCode::unspecified_error});
  }
  if (packet.qos == QoS::at_least_once) {
    deliver(number);
    return answer({.type = PacketType::puback, .id = packet.packet_id, .number = number, .reason = reason});
  }
  if (recorded_.contains(packet.packet_id)) {  // [MQTT-4.3.3-10]
    reason = ReasonCode::success;
  } else if (reason == ReasonCode::success) {
    recorded_[packet.packet_id] = number;
    auto& message = messages_.out[number];
    if (message.delivered > 0 && message.delivered_epoch == epoch_) {
      return journal_.fail("QoS 2 message " + std::to_string(number) + " delivered twice to one session");
    }
    deliver(number);
  }
  if (reason != ReasonCode::success) messages_.out[number].turned_away = true;
  answer({.type = PacketType::pubrec, .id = packet.packet_id, .number = number, .reason = reason});
}

void ServerModel::deliver(std::uint64_t number) {
  ++delivered_;
  auto& message = messages_.out[number];
  message.delivered_epoch = epoch_;
  if (message.delivered++ > 0 || message.turned_away) return;
  if (number < last_first_delivery_) {
    return journal_.fail("message " + std::to_string(number) + " arrives first after " +
                         std::to_string(last_first_delivery_));
  }
  last_first_delivery_ = number;
}

void ServerModel::handle_ack(const mqtt::AckView& packet) {
  const auto id = packet.packet_id;
  if (packet.type == PacketType::pubrel) {
    const auto found = recorded_.find(id);
    const bool known = found != recorded_.end();
    const auto number = known ? found->second : 0;
    if (known) recorded_.erase(found);
    const auto reason = known || !v5() ? ReasonCode::success : ReasonCode::packet_identifier_not_found;
    return answer({.type = PacketType::pubcomp, .id = id, .number = number, .reason = reason});
  }
  const auto found = std::ranges::find(flight_, id, &Flight::id);
  if (found == flight_.end()) {
    if (packet.type != PacketType::pubrec || packet.reason >= ReasonCode::unspecified_error) return;
    return answer({.type = PacketType::pubrel,
                   .id = id,
                   .reason = v5() ? ReasonCode::packet_identifier_not_found : ReasonCode::success});
  }
  auto& message = messages_.in[found->number];
  const bool exactly_once = message.content.qos == QoS::exactly_once;
  if (packet.type == PacketType::pubrec && exactly_once && packet.reason < ReasonCode::unspecified_error) {
    found->released = true;
    return answer({.type = PacketType::pubrel, .id = id, .number = found->number});
  }
  if (packet.type !=
      (exactly_once ? (found->released ? PacketType::pubcomp : PacketType::pubrec) : PacketType::puback)) {
    return;
  }
  if (message.received == 0 && message.epoch == client_.epoch()) {
    return journal_.fail("the client acknowledged message " + std::to_string(found->number) +
                         " and did not tell it");
  }
  if (found->sent) --on_wire_;
  flight_.erase(found);
}

// --- out ------------------------------------------------------------------------------------------------------------

template <typename Packet>
void ServerModel::send(const Packet& packet, Tag tag) {
  std::vector<std::byte> bytes(encoded_size(mqtt::PacketView(packet), version_));
  if (encode(bytes, mqtt::PacketView(packet), version_) == 0)
    return journal_.fail("the server model cannot encode");
  send_raw(bytes, tag);
}

void ServerModel::send_raw(BytesView bytes, Tag tag) {
  current_->tags.push_back(tag);
  current_->down.write(bytes, arrival());
}

void ServerModel::answer(const Answer& answer) {
  if (answer.type != PacketType::pingresp && random_.chance(habits.answer_never)) return;
  answers_.push_back(answer);
}

void ServerModel::resume() {
  for (auto& flight : flight_) {
    if (flight.released) {
      send(mqtt::AckView{PacketType::pubrel, flight.id, ReasonCode::success, {}}, {.number = flight.number});
      flight.sent = true;
      ++on_wire_;
    }
  }
}

void ServerModel::publish(const Content& content) {
  if (!has_session_ || queue_full()) return;
  if (content.qos == QoS::at_most_once && current_ == nullptr) return;
  messages_.in.push_back({.content = content, .epoch = epoch_});
  queue_.push_back(messages_.in.size() - 1);
}

void ServerModel::act() {
  if (current_ == nullptr) return;
  if (random_.chance(habits.break_rules)) return break_a_rule();
  if (random_.chance(habits.answer_unknown)) {
    const auto type =
        random_.pick({PacketType::puback, PacketType::pubrec, PacketType::pubcomp, PacketType::pubrel});
    return send(mqtt::AckView{type, random_.between<std::uint16_t>(50'000, 65'535), ReasonCode::success, {}},
                {});
  }
  if (!answers_.empty() && random_.chance(7'000)) return send_answer();
  send_next_publish();
}

void ServerModel::send_answer() {
  const auto at = random_.chance(habits.out_of_order) ? random_.below(answers_.size()) : 0;
  const auto answer = answers_[at];
  answers_.erase(answers_.begin() + static_cast<std::ptrdiff_t>(at));
  const Tag tag{.number = answer.number};
  switch (answer.type) {
    case PacketType::pingresp: return send(mqtt::PingrespView(), tag);
    case PacketType::suback:
    case PacketType::unsuback: {
      const std::vector<std::byte> codes(
          v5() || answer.type == PacketType::suback ? answer.codes : 0,
          random_.chance(habits.answer_error) ? std::byte{0x80} : std::byte{0});
      return send(mqtt::SubackView{answer.type, answer.id, {}, codes}, tag);
    }
    default: break;
  }
  const mqtt::AckView packet{answer.type, answer.id, answer.reason, {}};
  if (random_.chance(habits.answer_wrong_kind)) {
    auto wrong = packet;
    if (answer.type == PacketType::puback)
      wrong.type = random_.pick({PacketType::pubrec, PacketType::pubcomp});
    if (answer.type == PacketType::pubrec)
      wrong.type = random_.pick({PacketType::puback, PacketType::pubcomp});
    if (answer.type == PacketType::pubcomp) wrong.type = PacketType::puback;
    wrong.reason = ReasonCode::success;
    if (wrong.type != packet.type) send(wrong, {});
  }
  send(packet, tag);
  if (answer.type != PacketType::pubrel && random_.chance(habits.answer_twice)) send(packet, tag);
}

void ServerModel::send_next_publish() {
  // What the former connection left, in its order, before anything new.
  for (auto& flight : flight_) {
    if (flight.sent) continue;
    if (on_wire_ >= window_) return;
    return send_publish(flight, true);
  }
  if (random_.chance(habits.repeat_publish)) {
    for (auto& flight : flight_) {
      if (flight.released || messages_.in[flight.number].content.qos != QoS::exactly_once) continue;
      --on_wire_;
      return send_publish(flight, true);
    }
  }
  if (queue_.empty()) return;
  const auto number = queue_.front();
  Flight flight{.number = number};
  if (messages_.in[number].content.qos == QoS::at_most_once) {
    queue_.pop_front();
    return send_publish(flight, false);
  }
  if (on_wire_ >= window_ && !random_.chance(habits.exceed_receive_maximum)) return;
  if (flight_.size() >= 2'000) return;
  do {
    next_id_ = static_cast<std::uint16_t>(next_id_ % 2'500 + 1);
  } while (std::ranges::find(flight_, next_id_, &Flight::id) != flight_.end());
  queue_.pop_front();
  flight.id = next_id_;
  send_publish(flight_.emplace_back(flight), false);
}

void ServerModel::send_publish(Flight& flight, bool dup) {
  const auto& content = messages_.in[flight.number].content;
  journal_.note("server sends PUBLISH {} id {}, QoS and DUP {}", flight.number, flight.id,
                static_cast<std::uint64_t>(content.qos) * 10 + dup);
  auto topic = topic_of(Way::in, flight.number, content);
  std::vector<std::byte> payload(content.payload_size);
  fill_payload(flight.number, payload);
  std::vector<std::byte> buffer(256);
  mqtt::PropertyWriter properties(buffer);
  std::uint64_t number = flight.number;
  if (v5()) {
    if (content.with_properties) {
      properties.add(PropertyId::content_type, "text/plain").add_user("unit", "mm");
      properties.add(PropertyId::message_expiry_interval, 60u).add(PropertyId::subscription_identifier, 3u);
    }
    if (alias_maximum_ != 0 && content.qos == QoS::at_most_once && random_.chance(5'000)) {
      const auto alias = random_.between<std::uint16_t>(1, alias_maximum_);
      properties.add(PropertyId::topic_alias, std::uint32_t{alias});
      aliases_[alias] = number;
    }
  }
  mqtt::PublishView packet;
  packet.topic = topic;
  packet.payload = payload;
  packet.properties = properties.view();
  packet.packet_id = flight.id;
  packet.qos = content.qos;
  packet.retain = content.retain;
  packet.dup = dup;
  if (encoded_size(packet, version_) > packet_maximum_)
    return journal_.fail("the server model's message is too large");
  send(packet, {.number = number});
  if (content.qos != QoS::at_most_once) {
    flight.sent = true;
    ++on_wire_;
  } else if (const auto alias = packet.properties.find(PropertyId::topic_alias);
             alias && random_.chance(5'000)) {
    packet.topic = {};  // the same once more, by its alias alone
    send(packet, {.number = number});
  }
}

// --- being unpleasant -----------------------------------------------------------------------------------------------

void ServerModel::disconnect(ReasonCode reason) {
  if (current_ == nullptr) return;
  journal_.note("server disconnects, reason {}", static_cast<std::uint64_t>(reason));
  if (v5()) send(mqtt::DisconnectView{reason, {}}, {});
  auto& connection = *current_;
  connection.server_end = false;
  lost(connection);
}

void ServerModel::take_over(bool clean) {
  disconnect(ReasonCode::session_taken_over);
  if (clean) drop_session();
}

void ServerModel::check_time() {
  if (current_ == nullptr || keepalive_s_ == 0) return;
  if (journal_.now - last_read_ <= milliseconds(keepalive_s_ * 1'500 + 5'000)) return;
  disconnect(ReasonCode::keep_alive_timeout);
}

void ServerModel::break_a_rule() {
  struct Bad {
    const char* what;
    std::vector<unsigned char> bytes;
    char version;  // '3', '5' or 'b'oth
  };
  static const std::vector<Bad> all = {
      {"a reserved packet type", {0x00, 0x00}, 'b'},
      {"AUTH", {0xf0, 0x00}, 'b'},
      {"PINGREQ", {0xc0, 0x00}, 'b'},
      {"PINGRESP with a body", {0xd0, 0x01, 0x00}, 'b'},
      {"PUBREL with wrong flags", {0x60, 0x02, 0xea, 0x60}, 'b'},
      {"PUBACK without an identifier", {0x40, 0x02, 0x00, 0x00}, 'b'},
      {"PUBACK that is too short", {0x40, 0x01, 0x00}, 'b'},
      {"a length of five bytes", {0x40, 0xff, 0xff, 0xff, 0xff, 0x01}, 'b'},
      {"a length that is not minimal", {0x40, 0x82, 0x00, 0xea, 0x60}, 'b'},
      {"PUBLISH with QoS 3", {0x36, 0x05, 0x00, 0x01, 'a', 0x00, 0x01, 0x00}, 'b'},
      {"PUBLISH with DUP and QoS 0", {0x38, 0x04, 0x00, 0x01, 'a', 0x00}, 'b'},
      {"PUBLISH to a wildcard", {0x30, 0x04, 0x00, 0x01, '#', 0x00}, 'b'},
      {"PUBLISH with a topic that is not UTF-8", {0x30, 0x04, 0x00, 0x01, 0xff, 0x00}, 'b'},
      {"PUBLISH with identifier 0", {0x32, 0x06, 0x00, 0x01, 'a', 0x00, 0x00, 0x00}, 'b'},
      {"PUBLISH with no topic", {0x30, 0x03, 0x00, 0x00, 0x00}, 'b'},
      {"PUBLISH with alias 0", {0x30, 0x07, 0x00, 0x01, 'a', 0x03, 0x23, 0x00, 0x00}, '5'},
      {"PUBLISH with alias 65535", {0x30, 0x07, 0x00, 0x01, 'a', 0x03, 0x23, 0xff, 0xff}, '5'},
      {"PUBLISH with a property of another packet", {0x30, 0x06, 0x00, 0x01, 'a', 0x02, 0x24, 0x01}, '5'},
      {"PUBLISH with properties longer than itself", {0x30, 0x04, 0x00, 0x01, 'a', 0x09}, '5'},
      {"CONNACK again", {0x20, 0x03, 0x00, 0x00, 0x00}, '5'},
      {"CONNACK again", {0x20, 0x02, 0x00, 0x00}, '3'},
      {"DISCONNECT in 3.1.1", {0xe0, 0x00}, '3'},
      {"DISCONNECT with an unknown reason", {0xe0, 0x01, 0x7b}, '5'},
      {"a packet of 256 MiB", {0x30, 0xff, 0xff, 0xff, 0x7f}, 'x'},
  };
  if (alias_maximum_ != 0 && random_.chance(2'000)) {  // perhaps it had a topic on a former connection
    const auto alias = random_.between<std::uint16_t>(1, alias_maximum_);
    if (aliases_.contains(alias)) return;
    journal_.note("server breaks a rule: alias {} has no topic", alias);
    const std::array<std::uint8_t, 8> bytes{0x30, 0x06, 0x00, 0x00,
                                            0x03, 0x23, 0x00, static_cast<std::uint8_t>(alias)};
    return send_raw(std::as_bytes(std::span(bytes)), {.breaks_rules = true});
  }
  const auto& bad = all[random_.below(all.size())];
  if (bad.version != 'b' && bad.version != (v5() ? '5' : '3')) return;
  journal_.note("server breaks a rule");
  journal_.note(bad.what);
  send_raw(std::as_bytes(std::span(bad.bytes)), {.breaks_rules = true});
}

}  // namespace fulmar::simulation
