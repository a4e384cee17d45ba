#include "durable_server.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace fulmar::simulation {

using mqtt::DecodeError;
using mqtt::PacketType;
using mqtt::PropertyId;
using mqtt::ReasonCode;

std::uint64_t number_in(BytesView payload) {
  std::uint64_t number = 0;
  if (payload.size() >= sizeof number) std::memcpy(&number, payload.data(), sizeof number);
  return number;
}

void DurableServer::read(Connection& connection, std::size_t most) {
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

void DurableServer::handle(Connection& connection, const mqtt::Frame& frame) {
  mqtt::PacketView view;
  if (decode(frame, version_, mqtt::Sender::client, view) != DecodeError::none) {
    return journal_.fail("the server got a packet that it cannot decode");
  }
  if (const auto* connect = std::get_if<mqtt::ConnectView>(&view))
    return handle_connect(connection, *connect);
  if (&connection != current_) return;  // refused, or taken over
  if (const auto* publish = std::get_if<mqtt::PublishView>(&view)) return handle_publish(*publish);
  if (const auto* ack = std::get_if<mqtt::AckView>(&view)) return handle_ack(*ack);
  if (frame.type == PacketType::pingreq) return send(mqtt::PingrespView{});
  if (frame.type != PacketType::disconnect) return journal_.fail("the server got a packet of another kind");
  connection.server_end = false;
  lost(connection);
}

void DurableServer::handle_connect(Connection& connection, const mqtt::ConnectView& packet) {
  if (current_ != nullptr) {  // [MQTT-3.1.4-3]
    current_->server_end = false;
    lost(*current_);
  }
  current_ = &connection;
  if (random_.chance(habits.refuse_connection)) {
    journal_.note("server refuses connection {}", connection.number);
    send(mqtt::ConnackView{false, static_cast<std::uint8_t>(v5() ? 0x88 : 3), {}});  // server unavailable
    connection.server_end = false;
    current_ = nullptr;
    return;
  }
  if (packet.clean_start || random_.chance(habits.lose_session)) has_session_ = false;
  const bool present = has_session_;
  if (!present) {
    forgotten_.insert(recorded_.begin(), recorded_.end());
    recorded_.clear();
    has_session_ = true;
    ++sessions_;
  }
  keeps_session_ =
      v5() ? packet.properties.number(PropertyId::session_expiry_interval, 0) != 0 : !packet.clean_start;
  journal_.note("server accepts connection {}, session {}, present {}", connection.number, sessions_,
                present);
  std::array<std::byte, 16> buffer{};
  mqtt::PropertyWriter limits(buffer);
  if (v5()) limits.add(PropertyId::receive_maximum, std::uint32_t{habits.receive_maximum});
  send(mqtt::ConnackView{present, 0, limits.view()});
}

void DurableServer::lost(const Connection& connection) {
  if (&connection != current_) return;
  current_ = nullptr;
  answers_.clear();
  unanswered_.clear();
  if (!keeps_session_) has_session_ = false;  // what it held is forgotten at the next CONNECT
}

void DurableServer::handle_publish(const mqtt::PublishView& packet) {
  const auto number = number_in(packet.payload);
  journal_.note("server gets {} id {}, QoS and 10 * DUP {}", number, packet.packet_id,
                static_cast<std::uint64_t>(packet.qos) + (packet.dup ? 10u : 0u));
  application_.came(number, packet);
  if (packet.qos == QoS::at_most_once) return application_.delivered(number);
  const auto id = packet.packet_id;
  const bool refused = v5() && random_.chance(habits.refuse_message);
  const auto reason = refused ? ReasonCode::quota_exceeded : ReasonCode::success;
  const auto held = recorded_.find(id);
  // Before QoS 2 a plain identifier of a former process has been cleared.
  if ((packet.qos == QoS::at_least_once || id >= 0x8000) && held != recorded_.end() &&
      held->second != number && application_.orphaned(held->second, id)) {
    recorded_.erase(held);
  }
  if (packet.qos == QoS::at_least_once) {
    if (recorded_.contains(id)) {
      return journal_.fail("identifier " + std::to_string(id) + " comes with QoS 1 message " +
                           std::to_string(number) + " and stands for QoS 2 message " +
                           std::to_string(recorded_[id]) + " at the server [MQTT-2.2.1-3]");
    }
    if (!unanswered_.insert(id).second) return journal_.fail("a live identifier again [MQTT-2.2.1-3]");
    refused ? application_.refused(number) : application_.delivered(number);
    answers_.push_back({PacketType::puback, id, reason});
  } else {
    const auto known = recorded_.find(id);
    if (known != recorded_.end() && known->second != number) {
      return journal_.fail("identifier " + std::to_string(id) + " comes with message " +
                           std::to_string(number) + " and stands for QoS 2 message " +
                           std::to_string(known->second) + " at the server [MQTT-2.2.1-3]");
    }
    unanswered_.insert(id);
    if (known != recorded_.end()) {
      if (!packet.dup) {
        return journal_.fail("message " + std::to_string(number) + " is repeated without DUP [MQTT-3.3.1-1]");
      }
      answers_.push_back({PacketType::pubrec, id, ReasonCode::success});
    } else if (refused) {
      application_.refused(number);
      answers_.push_back({PacketType::pubrec, id, reason});
    } else {
      recorded_[id] = number;
      if (!habits.delivers_at_pubrel) application_.delivered(number);
      answers_.push_back({PacketType::pubrec, id, ReasonCode::success});
    }
  }
  if (v5() && unanswered_.size() > habits.receive_maximum) {
    journal_.fail(std::to_string(unanswered_.size()) + " messages without an answer [MQTT-3.3.4-9]");
  }
}

void DurableServer::handle_ack(const mqtt::AckView& packet) {
  if (packet.type != PacketType::pubrel) return journal_.fail("an acknowledgement of nothing");
  const auto known = recorded_.find(packet.packet_id);
  journal_.note("server gets PUBREL {} of {}", packet.packet_id,
                known != recorded_.end() ? known->second : 0);
  auto reason = ReasonCode::success;
  if (known == recorded_.end()) {
    reason = ReasonCode::packet_identifier_not_found;
    if (const auto gone = forgotten_.find(packet.packet_id); gone != forgotten_.end())
      lost_.insert(gone->second);
  } else {
    // Clearing an identifier delivers what a former process had sent under it: its own delivery, not this one's.
    const bool former = packet.packet_id < 0x8000 && application_.orphaned(known->second, packet.packet_id);
    if (habits.delivers_at_pubrel)
      (former ? application_.delivered_late : application_.delivered)(known->second);
    recorded_.erase(known);
  }
  answers_.push_back({PacketType::pubcomp, packet.packet_id, reason});
}

void DurableServer::answer(std::size_t most) {
  for (; most > 0 && !answers_.empty() && current_ != nullptr; --most) {
    const auto answer = answers_.front();
    answers_.pop_front();
    const bool last = answer.type != PacketType::pubrec || answer.reason != ReasonCode::success;
    if (last) unanswered_.erase(answer.id);
    send(mqtt::AckView{answer.type, answer.id, v5() ? answer.reason : ReasonCode::success, {}});
  }
}

template <typename Packet>
void DurableServer::send(const Packet& packet) {
  const mqtt::PacketView view(packet);
  std::vector<std::byte> bytes(encoded_size(view, version_));
  encode(bytes, view, version_);
  current_->down.write(bytes, journal_.now + std::chrono::microseconds(random_.below(habits.latency_us + 1)));
}

}  // namespace fulmar::simulation
