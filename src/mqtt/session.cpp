#include "fulmar/mqtt/session.hpp"

#include <algorithm>
#include <array>

#include "mqtt/session_impl.hpp"
#include "mqtt/wire_writer.hpp"

namespace fulmar::mqtt {

// --- the public face ------------------------------------------------------------------------------------------------

Session::Session(SessionConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}
Session::~Session() = default;

Session::State Session::state() const { return impl_->state; }
void Session::connection_opened(Instant now) { impl_->open(now); }
void Session::connection_closed(Instant) { impl_->close(); }
void Session::receive(BytesView bytes, Instant now) { impl_->receive(bytes, now); }
bool Session::next_event(Event& event) { return impl_->next_event(event); }
std::size_t Session::unread() const { return impl_->input.empty() ? impl_->unread : impl_->input.size(); }
std::size_t Session::expected() const { return impl_->expected; }

void Session::hold_input(bool hold, Instant now) {
  if (impl_->held && !hold) {
    impl_->last_received = now;
    impl_->ping_sent.reset();
  }
  impl_->held = hold;
}

bool Session::publish(RecordView record) { return impl_->publish(record); }
bool Session::publish_stored(RecordView record, std::uint64_t position, Resumed how) {
  return impl_->publish_stored(record, position, how);
}
bool Session::release(std::uint64_t position) { return impl_->release(position); }
std::size_t Session::publish_room() const { return impl_->room(); }
void Session::acknowledge(std::uint16_t packet_id, ReasonCode reason) {
  impl_->acknowledge(packet_id, reason);
}
std::size_t Session::transmit(std::span<std::byte> out, Instant now) { return impl_->transmit(out, now); }
bool Session::wants_transmit() const { return impl_->has_sendable(); }
bool Session::should_close() const {
  return impl_->abrupt || (impl_->ending && impl_->control.empty() && !impl_->split.record);
}
std::optional<Instant> Session::next_timeout() const { return impl_->next_timeout(); }
void Session::on_timeout(Instant now) { impl_->on_timeout(now); }
void Session::send_queue(std::size_t unconfirmed, Instant now) { impl_->send_queue(unconfirmed, now); }

void Session::disconnect(ReasonCode reason) {
  if (impl_->state == State::closed || impl_->state == State::closing) return;
  if (impl_->state == State::connecting) impl_->before_disconnect = 0;
  if (impl_->state == State::connected) impl_->before_disconnect = impl_->pending.size();
  impl_->disconnect_reason = impl_->sendable(PacketType::disconnect, reason);
  impl_->state = State::closing;
}

void Session::forget_session() { impl_->wants_clean_start = true; }

Session::Counts Session::counts() const {
  Counts counts = impl_->totals;
  counts.queued = impl_->pending.size() + (impl_->split.record && impl_->split.slot == 0 ? 1 : 0);
  counts.in_flight = impl_->in_flight.messages.size;
  counts.unacknowledged = impl_->received.size();
  return counts;
}

void Session::take_all_impl(void (*take)(void*, RecordView), void* context) {
  impl_->take_all(take, context);
}

void Session::for_each_pending_impl(void (*view)(void*, RecordView, std::optional<std::uint64_t>),
                                    void* context) const {
  impl_->for_each_pending(view, context);
}

std::optional<std::uint64_t> Session::oldest() const {
  HeldRecord record{};
  if (impl_->in_flight.messages.first != 0) {
    record = impl_->in_flight[impl_->in_flight.messages.first].record;
  } else if (impl_->split.record) {
    record = impl_->split.record;
  } else if (!impl_->pending.empty()) {
    record = impl_->pending.front();
  } else {
    return std::nullopt;
  }
  return record.header().sequence;
}

const SessionConfig& Session::config() const { return impl_->config; }
SessionConfig& Session::config() { return impl_->config; }

// --- life cycle -----------------------------------------------------------------------------------------------------

Session::Impl::Impl(SessionConfig given)
    : config(std::move(given)), version(config.version), in_flight(config.stored_ids) {}

Session::Impl::~Impl() {
  take_all([](void*, RecordView) {}, nullptr);
}

void Session::Impl::open(Instant now) {
  if (state != State::closed) close();
  version = config.version;
  max_inflight = std::max<std::uint16_t>(config.max_inflight, 1);
  receive_maximum = v5() ? std::max<std::uint16_t>(config.receive_maximum, 1) : std::uint16_t{65'535};
  topic_alias_maximum = v5() ? config.topic_alias_maximum : std::uint16_t{0};
  maximum_packet_size = std::max(config.maximum_packet_size, 1u);
  problem_information = config.request_problem_information;
  authentication_method =
      v5() && config.authentication_method ? *config.authentication_method : std::string();
  limits = ServerLimits();
  aliases_out.start(0);
  limits.keepalive_s = config.keepalive_s;
  limits.session_expiry_s = config.session_expiry_s;
  auth = Auth::connecting;
  state = State::connecting;
  closing.reset();
  if (wants_clean_start) {
    requeue_in_flight();
    received.clear();
    has_session = false;
  }
  last_sent = last_received = now;
  way = {};
  send_connect();
}

void Session::Impl::send_connect() {
  // A 5.0 server ends the session with the connection when no expiry was asked for, and so does a clean 3.1.1 one: there
  // is nothing to resume then, and asking for less would leave a session behind.
  const bool keeps = v5() ? config.session_expiry_s > 0 : !config.clean_start;
  sent_clean_start = wants_clean_start || (has_session && keeps ? false : config.clean_start);

  std::vector<std::byte> properties(64 + authentication_method.size() + config.authentication_data.size() +
                                    config.connect_properties.size());
  PropertyWriter writer(properties);
  if (v5()) {
    using Id = PropertyId;
    if (config.session_expiry_s != 0) writer.add(Id::session_expiry_interval, config.session_expiry_s);
    if (receive_maximum != 65'535) writer.add(Id::receive_maximum, receive_maximum);
    if (maximum_packet_size != no_packet_limit) writer.add(Id::maximum_packet_size, maximum_packet_size);
    if (topic_alias_maximum != 0) writer.add(Id::topic_alias_maximum, topic_alias_maximum);
    if (!problem_information) writer.add(Id::request_problem_information, 0u);
    if (!authentication_method.empty()) {
      writer.add(Id::authentication_method, authentication_method);
      if (!config.authentication_data.empty()) {
        writer.add(Id::authentication_data, as_text(config.authentication_data));
      }
    }
  }
  std::size_t size = writer.size();
  if (v5()) {
    std::ranges::copy(config.connect_properties, properties.begin() + static_cast<std::ptrdiff_t>(size));
    size += config.connect_properties.size();
  }

  ConnectView packet;
  packet.version = version;
  packet.clean_start = sent_clean_start;
  packet.keepalive_s = config.keepalive_s;
  packet.properties = PropertiesView(BytesView(properties).first(size));
  packet.client_id = assigned_client_id.empty() ? config.client_id : assigned_client_id;
  if (config.username) packet.username = *config.username;
  // 3.1.1 has no password without a user name [MQTT-3.1.2-22].
  if (config.password && (v5() || config.username)) packet.password = as_bytes(*config.password);
  std::vector<std::byte> will_properties;
  if (config.will) {
    auto& will = packet.will.emplace();
    will.topic = config.will->topic;
    will.payload = config.will->payload;
    will.qos = config.will->qos;
    will.retain = config.will->retain;
    will_properties.resize(5 + config.will->properties.size());
    PropertyWriter delay(will_properties);
    if (config.will->delay_s != 0) delay.add(PropertyId::will_delay_interval, config.will->delay_s);
    put_bytes(will_properties.data() + delay.size(), config.will->properties);
    will.properties =
        PropertiesView(BytesView(will_properties).first(delay.size() + config.will->properties.size()));
  }
  const auto out = control.reserve(encoded_size(packet));
  control.commit(encode(out, packet));
}

void Session::Impl::close() {
  state = State::closed;
  ending = abrupt = connack_seen = false;
  input = {};
  unread = expected = 0;
  held = false;
  control.clear();
  ping_sent.reset();
  disconnect_reason.reset();
  before_disconnect = 0;
  aliases.clear();
  arrivals.clear();
  unacknowledged = 0;
  received.connection_lost();
  forget_requests();
  // A QoS 0 message that was cut in the middle has not been sent; one with an identifier is in flight.
  if (split.record && split.slot == 0) put_back(split.record);
  split = Split();
  releases.clear();
  on_wire = 0;
  resend = 0;
  for (auto at = in_flight.messages.first; at != 0; at = in_flight[at].next) in_flight[at].on_wire = false;
}

// The server still has the session: what it has not acknowledged is sent again, PUBRELs first since their messages were
// [MQTT-4.4.0-1]. For a message that the caller has not released yet nothing is sent: its PUBLISH was acknowledged.
void Session::Impl::resume() {
  std::vector<std::pair<std::uint32_t, std::uint16_t>> recorded;
  for (auto at = in_flight.messages.first; at != 0; at = in_flight[at].next) {
    const auto& slot = in_flight[at];
    if (slot.kind == Kind::recorded || slot.kind == Kind::release) recorded.emplace_back(slot.number, at);
  }
  std::ranges::sort(recorded, [](const auto& a, const auto& b) {
    return static_cast<std::int32_t>(a.first - b.first) < 0;  // the number may have wrapped
  });
  for (const auto& [number, at] : recorded) {
    in_flight[at].on_wire = true;
    ++on_wire;
    releases.push_back(at);
  }
  send_releases();
  for (auto at = in_flight.abandoned.first; at != 0; at = in_flight[at].next) {
    if (in_flight[at].released) queue_ack(PacketType::pubrel, at);
  }
  resend = resend_from(in_flight.messages.first);
}

// The session is lost: what was not acknowledged becomes a new message, in its order before the others. That holds for QoS 2
// messages past their PUBREC too: nobody can tell whether the server delivered them, and none may be lost.
void Session::Impl::requeue_in_flight() {
  for (auto at = in_flight.messages.last; at != 0;) {
    Slot& slot = in_flight[at];
    const auto previous = slot.previous;
    put_back(slot.record);
    in_flight.free(at);
    at = previous;
  }
  in_flight.messages = {};
  releases.clear();
  for (std::size_t i = 0; in_flight.reserves() && i < pending.size(); ++i) {
    if (!pending[i].is_stored()) continue;
    pending[i].state().how = Resumed::fresh;
    pending[i].state().refusal = ReasonCode::success;
  }
  for (auto at = in_flight.abandoned.first; at != 0;) {
    const auto next = in_flight[at].next;
    in_flight.free(at);
    at = next;
  }
  in_flight.abandoned = {};
  adopted = false;
  cleared = {};
  cleared_count = clearing = 0;
  on_wire = 0;
  resend = 0;
}

// The message of `at` ends here without the server's word. A QoS 2 identifier that the server may hold stays taken as long
// as its session: a new message under it would pass for a repetition and be lost [MQTT-2.2.1-3, MQTT-4.3.3-10]. That of a
// stored one is the caller's to keep apart.
void Session::Impl::give_up(std::uint16_t at) {
  Slot& slot = in_flight[at];
  const bool pubrel_sent = slot.kind == Kind::release;
  const bool rests = slot.kind != Kind::publish_qos_1 && !slot.record.is_stored();
  release_record(slot.record);
  if (slot.on_wire) --on_wire;
  if (resend == at) resend = resend_from(slot.next);
  in_flight.remove(in_flight.messages, at);
  if (!rests) return in_flight.free(at);
  slot.on_wire = pubrel_sent;
  slot.released = false;
  slot.kind = Kind::abandoned;
  in_flight.append(in_flight.abandoned, at);
}

void Session::Impl::forget_requests() {
  for (auto at = in_flight.requests.first; at != 0;) {
    const auto next = in_flight[at].next;
    in_flight.free(at);
    at = next;
  }
  in_flight.requests = {};
}

void Session::Impl::put_back(HeldRecord record) {
  pending.push_front(record);
  pending_bytes += cost(record.view());
}

void Session::Impl::release_record(HeldRecord record) {
  const auto size = record.size();
  if (auto* shared = record.view().shared_payload()) shared->release();
  pool.release(record.memory(), size);
}

void Session::Impl::take_all(void (*take)(void*, RecordView), void* context) {
  if (split.record) {
    if (split.slot == 0) put_back(split.record);
    split = Split();
    abrupt = true;  // its packet cannot be finished on this connection any more
  }
  releases.clear();
  while (in_flight.messages.first != 0) {
    take(context, in_flight[in_flight.messages.first].record.view());
    give_up(in_flight.messages.first);
  }
  for (; !pending.empty(); pending.pop_front()) {
    take(context, pending.front().view());
    release_record(pending.front());
  }
  pending_bytes = 0;
}

void Session::Impl::for_each_pending(void (*view)(void*, RecordView, std::optional<std::uint64_t>),
                                     void* context) const {
  const auto show = [&](HeldRecord record) {
    view(context, record.view(), record.is_stored() ? std::optional(record.state().position) : std::nullopt);
  };
  for (auto at = in_flight.messages.first; at != 0; at = in_flight[at].next) show(in_flight[at].record);
  if (split.record && split.slot == 0) show(split.record);
  for (std::size_t i = 0; i < pending.size(); ++i) show(pending[i]);
}

// --- keep-alive -----------------------------------------------------------------------------------------------------

namespace {

using std::chrono::milliseconds;

// PINGREQ early enough that the gap between packets never exceeds the keep-alive [MQTT-3.1.2-23].
milliseconds ping_after(std::uint16_t keepalive_s) { return milliseconds(keepalive_s * 875); }
milliseconds dead_after(std::uint16_t keepalive_s) { return milliseconds(keepalive_s * 1500); }
milliseconds answer_within(std::uint16_t keepalive_s) { return milliseconds(keepalive_s * 500); }
// 7/8 + 1/8 + 1/2: a PINGREQ that has arrived by the first look leaves its answer as much time as it always had.
milliseconds look_after(std::uint16_t keepalive_s) { return milliseconds(keepalive_s * 125); }

}  // namespace

Instant Session::Impl::dead_at() const {
  const auto k = limits.keepalive_s;
  const auto silence = std::max(last_received + dead_after(k), *ping_sent + answer_within(k));
  return way.moved ? std::max(silence, *way.moved + answer_within(k)) : silence;
}

// When to be told of the send queue again; while ping_sent.
std::optional<Instant> Session::Impl::look_at() const {
  if (!way.told || way.ping_arrived) return std::nullopt;
  return std::max(*way.told, *ping_sent) + look_after(limits.keepalive_s);
}

void Session::Impl::send_queue(std::size_t unconfirmed, Instant now) {
  const auto confirmed = way.transmitted - std::min<std::uint64_t>(unconfirmed, way.transmitted);
  const bool moved = confirmed > way.confirmed;
  way.confirmed = std::max(way.confirmed, confirmed);
  way.told = now;
  if (!ping_sent || way.ping_arrived) return;
  if (moved) way.moved = now;
  way.ping_arrived = way.ping_end != 0 && confirmed >= way.ping_end;
}

std::optional<Instant> Session::Impl::next_timeout() const {
  if ((state != State::connected && state != State::closing) || ending || abrupt || limits.keepalive_s == 0)
    return std::nullopt;
  const auto k = limits.keepalive_s;
  if (held) return last_sent + ping_after(k);
  // Waiting for an answer does not excuse silence of our own.
  if (ping_sent) return std::min({dead_at(), last_sent + ping_after(k), look_at().value_or(Instant::max())});
  return std::min(last_sent, last_received) + ping_after(k);
}

void Session::Impl::on_timeout(Instant now) {
  const auto due = next_timeout();
  if (!due || now < *due) return;
  if (ping_sent && !held && now >= dead_at()) {
    input = {};
    unread = 0;
    state = State::closing;
    abrupt = true;
    closing = Closing{.by = Closing::By::keep_alive,
                      .reason = ReasonCode::keep_alive_timeout,
                      .rule = DecodeError::none,
                      .text = "no answer to PINGREQ",
                      .server_reference = {},
                      .properties = {}};
    return;
  }
  if (ping_sent && !held && now < last_sent + ping_after(limits.keepalive_s)) {
    way.told = now;  // it was only time for send_queue(), called or not
    return;
  }
  if (!ping_sent || held) {
    ping_sent = now;
    way.ping_end = 0;
    way.moved.reset();
    way.ping_arrived = false;
  }
  last_sent = now;  // the next one is due a keep-alive later even when the transport does not take this one
  queue(PingreqView{});
  trim();
}

// Called when the link has been silent for a while: gives back what a burst has left.
void Session::Impl::trim() {
  pool.trim(idle_cache_max);
  if (pending.empty()) pending.shrink();
  if (completions.empty()) completions.shrink();
  if (releases.empty()) releases.shrink();
  in_flight.shrink();
}

}  // namespace fulmar::mqtt
