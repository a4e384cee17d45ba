#include <algorithm>
#include <cstring>

#include "fulmar/mqtt/topic.hpp"
#include "mqtt/session_impl.hpp"
#include "mqtt/wire_writer.hpp"

namespace fulmar::mqtt {

// --- records --------------------------------------------------------------------------------------------------------

std::size_t Session::Impl::room() const {
  if (state == State::closing) return 0;
  if (pending.empty()) return state == State::connected ? batch + free_window() : batch;
  if (pending_bytes >= pending_bytes_max) return 0;
  const std::size_t limit = state == State::connected ? batch + free_window() : batch;
  return limit > pending.size() ? limit - pending.size() : 0;
}

bool Session::Impl::publish(RecordView record) {
  if (room() == 0) return false;
  const auto size = record.block_size();
  std::byte* block = pool.acquire(size);
  std::memcpy(block, record.block(), size);
  pending.push_back(HeldRecord::plain(block));
  pending_bytes += cost(record);
  return true;
}

void Session::Impl::pop_pending() {
  pending_bytes -= cost(pending.front().view());
  pending.pop_front();
  if (before_disconnect > 0) --before_disconnect;
}

// The oldest waiting record ends without having been sent.
void Session::Impl::settle_pending(Outcome outcome, ReasonCode reason) {
  const HeldRecord record = pending.front();
  const auto& header = record.header();
  completions.push_back({header.sequence, header.token, outcome, reason});
  pop_pending();
  release_record(record);
}

// --- transmitting ---------------------------------------------------------------------------------------------------

bool Session::Impl::may_send_publishes() const {
  return state == State::connected || (state == State::closing && before_disconnect > 0 && disconnect_reason);
}

bool Session::Impl::has_sendable() const {
  if (abrupt || state == State::closed) return false;
  if (!control.empty() || split.record || disconnect_reason) return true;
  if (!may_send_publishes()) return false;
  if (resend != 0) return on_wire < window();
  if (pending.empty()) return false;
  const HeldRecord next = pending.front();
  if (next.is_stored()) return may_send_stored(next);
  return next.header().qos == QoS::at_most_once || may_take_id(next.header().qos);
}

std::size_t Session::Impl::transmit(std::span<std::byte> buffer, Instant now) {
  if (abrupt || state == State::closed) return 0;
  Out out{buffer.data(), buffer.data() + buffer.size(), now};
  if (split.record) continue_split(out);
  if (!split.record) {
    out.at += control.take({out.at, out.room()});
    if (control.empty() && may_send_publishes()) {
      while (resend != 0 && out.at != out.end && on_wire < window()) send_again(out);
      while (resend == 0 && out.at != out.end && may_send_publishes() && !pending.empty()) {
        const auto* const before = out.at;
        const auto waiting = pending.size();
        send_next(out);
        if (out.at == before && pending.size() == waiting) break;  // the window is full
      }
    }
    if (disconnect_reason && !split.record && control.empty() && out.at != out.end) {
      finish_disconnect();
      out.at += control.take({out.at, out.room()});
    }
  }
  const auto written = static_cast<std::size_t>(out.at - buffer.data());
  if (written != 0) last_sent = now;
  way.transmitted += written;
  if (ping_sent && way.ping_end == 0 && control.empty()) way.ping_end = way.transmitted;
  return written;
}

PublishHead Session::Impl::head_of(const RecordHeader& header, RecordView record) const {
  PublishHead head;
  head.topic = record.topic();
  if (v5()) head.properties = record.properties();
  head.payload_size = header.payload_size;
  head.qos = header.qos;
  head.retain = header.retain;
  return head;
}

namespace {

std::int64_t nanoseconds(Instant now) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count();
}

}  // namespace

std::uint32_t Session::Impl::life_left(const RecordHeader& header, Instant now) {
  const std::int64_t age_s = std::max<std::int64_t>(nanoseconds(now) - header.accepted_ns, 0) / 1'000'000'000;
  return age_s >= header.expiry_s ? 0 : header.expiry_s - static_cast<std::uint32_t>(age_s);
}

ReasonCode Session::Impl::refusal(const RecordHeader& header, std::size_t packet_size) const {
  if (header.qos > limits.maximum_qos) return ReasonCode::qos_not_supported;               // [MQTT-3.2.2-11]
  if (header.retain && !limits.retain_available) return ReasonCode::retain_not_supported;  // [MQTT-3.2.2-14]
  // [MQTT-3.2.2-15]; 0 is longer than any packet can be
  if (packet_size == 0 || packet_size > limits.maximum_packet_size) return ReasonCode::packet_too_large;
  return ReasonCode::success;
}

// Measures the head with the topic alias that this connection has for it. The first use makes the packet longer: when it
// would not fit any more, `alias` is given up.
std::size_t Session::Impl::measure_with_alias(PublishHead& head, OutboundAliases::Use& alias) const {
  if (alias.alias != 0) {
    head.topic_alias = alias.alias;
    if (alias.known) head.topic = {};
    const auto size = measure(head, version);
    if (alias.known || (size != 0 && size + head.payload_size <= limits.maximum_packet_size)) return size;
    alias = {};
    head.topic_alias = 0;
  }
  return measure(head, version);
}

// Sends the oldest waiting record for the first time, or settles it when it cannot be sent. Changes nothing when it has to
// wait for the window.
void Session::Impl::send_next(Out& out) {
  const HeldRecord message = pending.front();
  if (message.is_stored()) return send_next_stored(out);
  const RecordView record = message.view();
  const RecordHeader& header = record.header();
  auto head = head_of(header, record);
  if (header.expiry_s != no_expiry) {
    const auto left = life_left(header, out.now);
    if (left == 0) return settle_pending(Outcome::expired, ReasonCode::success);
    if (v5()) head.expiry_s = left;
  }
  auto alias = aliases_out.look_up(record.topic());
  const auto head_size = measure_with_alias(head, alias);
  if (const auto why = refusal(header, head_size == 0 ? 0 : head_size + head.payload_size);
      why != ReasonCode::success) {
    return settle_pending(Outcome::refused, why);
  }
  if (header.qos != QoS::at_most_once) {
    if (!may_take_id(header.qos)) return;
    head.packet_id = take_id(header.qos);
    if (head.packet_id == 0) {
      out.at += control.take({out.at, out.room()});
      return;
    }
    enter_flight(head.packet_id, message,
                 header.qos == QoS::at_least_once ? Kind::publish_qos_1 : Kind::publish_qos_2);
  }
  pop_pending();
  if (alias.alias != 0) aliases_out.sent(alias, record.topic());
  send_publish(out, head, head_size, message, head.packet_id);
}

// 0: the server has to answer first. More are cleared at a time the more were needed so far, and before the window is
// waited for, so that a burst waits for a few answers and a single message for one.
std::uint16_t Session::Impl::take_id(QoS qos) {
  if (qos != QoS::exactly_once || !adopted) return in_flight.take();
  if (clearing == 0) {
    auto more = std::min<std::size_t>(std::max<std::size_t>(cleared_count, 16), free_window());
    for (; more > 0 && in_flight.has_free() && !is_cleared(in_flight.next_free()); --more)
      clear_id(in_flight.take());
  }
  return in_flight.has_free() && is_cleared(in_flight.next_free()) ? in_flight.take() : std::uint16_t{0};
}

// Where the server holds the identifier, its PUBLISH had come: this ends the exchange as the former process would have.
// Where it does not, PUBCOMP says so or, in 3.1.1, nothing.
void Session::Impl::clear_id(std::uint16_t id) {
  auto& slot = in_flight[id];
  slot.kind = Kind::abandoned;
  slot.on_wire = slot.released = true;
  in_flight.append(in_flight.abandoned, id);
  ++clearing;
  queue_ack(PacketType::pubrel, id);
}

void Session::Impl::end_abandoned(std::uint16_t at) {
  if (in_flight[at].released) {
    in_flight[at].released = false;
    if (cleared.size() <= at) cleared.resize(std::max<std::size_t>(at + std::size_t{1}, 2 * cleared.size()));
    cleared[at] = true;
    ++cleared_count;
    --clearing;
  }
  in_flight.remove(in_flight.abandoned, at);
  in_flight.free(at);
}

void Session::Impl::enter_flight(std::uint16_t at, HeldRecord record, Kind kind) {
  auto& slot = in_flight[at];
  slot.record = record;
  slot.kind = kind;
  slot.on_wire = true;
  in_flight.append(in_flight.messages, at);
  ++on_wire;
}

// The first message from `at` on that waits for PUBACK or PUBREC; new messages do not wait for those past their PUBREC.
std::uint16_t Session::Impl::resend_from(std::uint16_t at) const {
  while (at != 0 && (in_flight[at].kind == Kind::release || in_flight[at].kind == Kind::recorded)) {
    at = in_flight[at].next;
  }
  return at;
}

// The next in-flight message of the former connection: with DUP, under its old identifier [MQTT-3.3.1-1, MQTT-4.4.0-1].
void Session::Impl::send_again(Out& out) {
  const auto at = resend;
  auto& slot = in_flight[at];
  resend = resend_from(slot.next);
  const RecordView record = slot.record.view();
  const RecordHeader& header = record.header();
  auto head = head_of(header, record);
  head.packet_id = slot.id;
  head.dup = true;
  // What has been sent once does not expire here any more [MQTT-4.3.3-7]; 0 would mean no expiry to some servers.
  if (v5() && header.expiry_s != no_expiry) head.expiry_s = std::max(life_left(header, out.now), 1u);
  auto alias = aliases_out.look_up(record.topic());
  const auto head_size = measure_with_alias(head, alias);
  if (const auto why = refusal(header, head_size == 0 ? 0 : head_size + head.payload_size);
      why != ReasonCode::success) {
    // The server takes less than before.
    if (slot.record.is_stored()) {
      // Its identifier comes again, in this process or another: the server must not hold it then.
      slot.record.state().refusal = why;
      slot.kind = Kind::release;
      slot.on_wire = true;
      ++on_wire;
      return send_pubrel(out, at);
    }
    completions.push_back({header.sequence, header.token, Outcome::refused, why});
    give_up(at);
    return;
  }
  slot.on_wire = true;
  ++on_wire;
  ++totals.publishes_resent;
  if (alias.alias != 0) aliases_out.sent(alias, record.topic());
  send_publish(out, head, head_size, slot.record, at);
}

// Writes head and payload, or as much as there is room for. A QoS 0 record (at 0) ends with its last byte.
void Session::Impl::send_publish(Out& out, const PublishHead& head, std::size_t head_size, HeldRecord message,
                                 std::uint16_t at) {
  ++totals.publishes_sent;
  const RecordView record = message.view();
  if (head_size + head.payload_size <= out.room()) {
    out.at = put_bytes(write(out.at, head, version), record.payload());
    if (at != 0) return;
    const auto& header = record.header();
    completions.push_back({header.sequence, header.token, Outcome::sent, ReasonCode::success});
    release_record(message);
    return;
  }
  split_head.resize(head_size);
  write(split_head.data(), head, version);
  split = Split{.record = message, .slot = at, .head_done = 0, .payload_done = 0};
  continue_split(out);
}

void Session::Impl::continue_split(Out& out) {
  const RecordView record = split.record.view();
  const auto copy_part = [&out](BytesView bytes, std::size_t& done) {
    const auto part = bytes.subspan(done, std::min(bytes.size() - done, out.room()));
    out.at = put_bytes(out.at, part);
    done += part.size();
    return done == bytes.size();
  };
  if (!copy_part(split_head, split.head_done) || !copy_part(record.payload(), split.payload_done)) return;
  if (split.slot == 0) {
    const auto& header = record.header();
    completions.push_back({header.sequence, header.token, Outcome::sent, ReasonCode::success});
    release_record(split.record);
  }
  split = Split();
}

// --- other packets --------------------------------------------------------------------------------------------------

template <typename Packet>
bool Session::Impl::queue(const Packet& packet) {
  const auto size = encoded_size(PacketView(packet), version);
  if (size == 0 || size > limits.maximum_packet_size) return false;  // [MQTT-3.2.2-15]
  control.commit(encode(control.reserve(size), packet, version));
  return true;
}

// The shortest form: no reason string or user property that could make it too large [MQTT-3.4.2-2].
void Session::Impl::queue_ack(PacketType type, std::uint16_t id, ReasonCode reason) {
  const bool with_reason = v5() && reason != ReasonCode::success;
  const std::size_t size = with_reason ? 5 : 4;
  if (size > limits.maximum_packet_size) return;
  std::byte* at = control.reserve(size).data();
  const unsigned flags = type == PacketType::pubrel ? 2 : 0;
  at = put_u8(at, static_cast<std::uint8_t>(static_cast<unsigned>(type) << 4 | flags));
  at = put_u8(at, static_cast<std::uint8_t>(size - 2));
  at = put_u16(at, id);
  if (with_reason) put_u8(at, static_cast<std::uint8_t>(reason));
  control.commit(size);
}

template <typename Packet>
bool Session::Impl::queue_request(Packet packet, Kind kind, std::uint64_t token, std::size_t count) {
  const auto size = encoded_size(packet, version);
  if (state != State::connected || count == 0 || size == 0 || size > limits.maximum_packet_size) return false;
  if (!in_flight.has_free()) return false;
  packet.packet_id = in_flight.take();
  auto& slot = in_flight[packet.packet_id];
  slot.token = token;
  slot.kind = kind;
  slot.number = static_cast<std::uint32_t>(count);
  in_flight.append(in_flight.requests, packet.packet_id);
  control.commit(encode(control.reserve(size), packet, version));
  return true;
}

bool Session::subscribe(std::span<const SubscriptionRequest> filters, std::uint32_t identifier,
                        std::uint64_t token) {
  for (const auto& request : filters) {
    if (subscription_refusal(request, identifier) != ReasonCode::success) return false;
  }
  std::byte buffer[5];
  PropertyWriter properties(buffer);
  if (identifier != 0) properties.add(PropertyId::subscription_identifier, identifier);
  if (!properties.ok()) return false;
  return impl_->queue_request(
      SubscribePacket{.packet_id = 0, .properties = properties.view(), .filters = filters},
      Impl::Kind::subscribe, token, filters.size());
}

bool Session::unsubscribe(std::span<const std::string_view> filters, std::uint64_t token) {
  for (const auto filter : filters) {
    if (check_topic_filter(filter) != TopicError::none) return false;
  }
  return impl_->queue_request(UnsubscribePacket{.packet_id = 0, .properties = {}, .filters = filters},
                              Impl::Kind::unsubscribe, token, filters.size());
}

ReasonCode Session::subscription_refusal(const SubscriptionRequest& request, std::uint32_t identifier) const {
  const auto& limits = impl_->limits;
  if (check_topic_filter(request.filter) != TopicError::none) return ReasonCode::topic_filter_invalid;
  // [MQTT-3.8.3-4]
  if (impl_->v5() && request.no_local && request.filter.starts_with("$share/"))
    return ReasonCode::protocol_error;
  if (!limits.wildcard_available && request.filter.find_first_of("+#") != std::string_view::npos) {
    return ReasonCode::wildcard_subscriptions_not_supported;
  }
  if (!limits.shared_available && request.filter.starts_with("$share/")) {
    return ReasonCode::shared_subscriptions_not_supported;
  }
  if (!limits.subscription_identifiers_available && identifier != 0) {
    return ReasonCode::subscription_identifiers_not_supported;
  }
  return ReasonCode::success;
}

bool Session::Impl::queue_auth(ReasonCode reason, BytesView data) {
  std::vector<std::byte> properties(8 + authentication_method.size() + data.size());
  PropertyWriter writer(properties);
  writer.add(PropertyId::authentication_method, authentication_method);
  if (!data.empty()) writer.add(PropertyId::authentication_data, as_text(data));
  return writer.ok() && queue(AuthView{.reason = reason, .properties = writer.view()});
}

bool Session::authenticate(BytesView data) {
  if (impl_->state != State::connecting && impl_->state != State::connected) return false;
  if (impl_->auth != Impl::Auth::challenged && impl_->auth != Impl::Auth::challenged_again) return false;
  if (!impl_->queue_auth(ReasonCode::continue_authentication, data)) return false;
  impl_->auth = impl_->auth == Impl::Auth::challenged ? Impl::Auth::connecting : Impl::Auth::again;
  return true;
}

bool Session::reauthenticate(BytesView data) {
  if (impl_->state != State::connected || impl_->auth != Impl::Auth::idle ||
      impl_->authentication_method.empty()) {
    return false;
  }
  if (!impl_->queue_auth(ReasonCode::reauthenticate, data)) return false;
  impl_->auth = Impl::Auth::again;
  return true;
}

// [MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.14.2-1]
ReasonCode Session::Impl::sendable(PacketType type, ReasonCode reason) const {
  if (!v5()) return ReasonCode::success;
  if (is_listed(type, Sender::client, reason)) return reason;
  return reason >= ReasonCode::unspecified_error ? ReasonCode::unspecified_error : ReasonCode::success;
}

// DISCONNECT is the last packet of a connection [MQTT-3.14.4-1].
void Session::Impl::finish_disconnect() {
  const auto reason = *disconnect_reason;
  disconnect_reason.reset();
  queue(DisconnectView{.reason = reason, .properties = {}});
  ending = true;
  closing = Closing{.by = Closing::By::us,
                    .reason = reason,
                    .rule = DecodeError::none,
                    .text = {},
                    .server_reference = {},
                    .properties = {}};
}

template bool Session::Impl::queue(const PingreqView&);
template bool Session::Impl::queue(const DisconnectView&);

}  // namespace fulmar::mqtt
