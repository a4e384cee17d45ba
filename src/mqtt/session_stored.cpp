#include <algorithm>
#include <cstring>

#include "mqtt/session_impl.hpp"

namespace fulmar::mqtt {

bool Session::Impl::publish_stored(RecordView record, std::uint64_t position, Resumed how) {
  if (!in_flight.reserves()) return false;
  if (record.header().qos != QoS::exactly_once) return publish(record);
  if (room() == 0) return false;
  std::byte* block = pool.acquire(HeldRecord::size_for(record, true));
  std::memcpy(block, record.block(), record.block_size());
  pending.push_back(
      HeldRecord::stored(block, {.position = position, .how = how, .refusal = ReasonCode::success}));
  pending_bytes += cost(record);
  return true;
}

// --- sending --------------------------------------------------------------------------------------------------------

bool Session::Impl::may_send_stored(HeldRecord record) const {
  return may_take_id() && in_flight.find(InFlight::reserved_id(record.state().position)) == 0;
}

// send_next() for a stored message: its exchange goes on where its former process left it.
void Session::Impl::send_next_stored(Out& out) {
  const HeldRecord message = pending.front();
  const RecordView record = message.view();
  const RecordHeader& header = record.header();
  StoredState& stored = message.state();
  const bool fresh = stored.how == Resumed::fresh;
  const auto id = InFlight::reserved_id(stored.position);
  auto head = head_of(header, record);
  head.packet_id = id;
  head.dup = !fresh;
  if (header.expiry_s != no_expiry) {
    const auto left = life_left(header, out.now);
    if (fresh && left == 0) return settle_pending(Outcome::expired, ReasonCode::success);
    if (v5()) head.expiry_s = std::max(left, 1u);
  }
  auto alias = aliases_out.look_up(record.topic());
  const auto head_size = measure_with_alias(head, alias);
  const auto why = refusal(header, head_size == 0 ? 0 : head_size + head.payload_size);
  if (fresh && why != ReasonCode::success) return settle_pending(Outcome::refused, why);
  if (!may_send_stored(message)) return;

  const bool only_release = stored.how == Resumed::released || why != ReasonCode::success;
  if (stored.how == Resumed::maybe_sent) stored.refusal = why;
  const auto at = in_flight.take_reserved(id);
  enter_flight(at, message, only_release ? Kind::release : Kind::publish_qos_2);
  pop_pending();
  if (only_release) return send_pubrel(out, at);
  if (head.dup) ++totals.publishes_resent;
  if (alias.alias != 0) aliases_out.sent(alias, record.topic());
  send_publish(out, head, head_size, message, at);
}

// For an exchange that goes on with PUBREL without a PUBREC on this connection: in its turn among the messages.
void Session::Impl::send_pubrel(Out& out, std::uint16_t at) {
  in_flight[at].number = release_number++;
  queue_ack(PacketType::pubrel, in_flight[at].id);
  out.at += control.take({out.at, out.room()});
}

// --- PUBREC, release, PUBCOMP ---------------------------------------------------------------------------------------

// A PUBREC whose PUBREL has to wait: for the caller, or for that of an earlier PUBREC [MQTT-4.6.0-4].
bool Session::Impl::wait_for_release(std::uint16_t at, Slot& slot, Event& event) {
  const bool stored = slot.record.is_stored();
  slot.kind = Kind::recorded;
  slot.released = !stored;
  releases.push_back(at);
  if (!stored) return false;
  const auto& header = slot.record.header();
  event = PubrecReceived{header.sequence, header.token, slot.record.state().position};
  return true;
}

bool Session::Impl::release(std::uint64_t position) {
  const auto at = in_flight.reserves() ? in_flight.find(InFlight::reserved_id(position)) : std::uint16_t{0};
  if (at == 0) return false;
  Slot& slot = in_flight[at];
  if (slot.kind != Kind::recorded || slot.released || slot.record.state().position != position) return false;
  slot.released = true;
  send_releases();
  return true;
}

// Without a session on the line, resume() does it.
void Session::Impl::send_releases() {
  for (; !releases.empty() && connack_seen && !ending && !abrupt; releases.pop_front()) {
    auto& slot = in_flight[releases.front()];
    if (slot.kind == Kind::recorded && !slot.released) return;
    slot.kind = Kind::release;
    queue_ack(PacketType::pubrel, slot.id);
  }
}

// PUBCOMP. An unknown identifier is not an error: the server had ended the exchange before, and its answer was lost. But
// where PUBREL only ended what could not be repeated, it tells that the server never had the message; 3.1.1 does not say.
void Session::Impl::complete_stored(std::uint16_t at, Slot& slot, ReasonCode reason, Event& event) {
  const auto why = slot.record.state().refusal;
  if (why != ReasonCode::success && (!v5() || reason != ReasonCode::success)) {
    return complete(at, slot, Outcome::refused, why, event);
  }
  complete(at, slot, Outcome::acknowledged, reason, event);
}

}  // namespace fulmar::mqtt
