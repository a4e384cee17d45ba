#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>

#include "client/connection.hpp"
#include "client/reasons.hpp"

namespace fulmar {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using WallClock = std::chrono::system_clock;

namespace {

// While the session takes nothing: so soon after messages have come the outbox is mapped ahead again, then half as often each
// time that there was none since; so long without one, and a publisher has to call.
constexpr auto map_again_min = 250us;
constexpr std::chrono::microseconds map_again_max = 64ms;

}  // namespace

// --- the turn --------------------------------------------------------------------------------------------------------

void Connection::turn() {
  if (!attached_) return;
  outbox_flag_.awake();
  control_flag_.awake();
  spool_has_news_.store(false, std::memory_order_seq_cst);  // before the look at it
  // In this order: a thread that subscribes and then publishes finds its SUBSCRIBE sent before its message.
  outbox_until_ = outbox_.pushed();
  take_commands();
  if (!attached_) return;
  if (lingering_) {
    check_waiters();
    arm_timer(Clock::now());
    return sleep_or_turn_again();
  }
  take_acknowledgements();
  deliver_held();
  pump();
  const auto now = Clock::now();
  auto* backlog = outflow_.backlog();
  if (backlog) outflow_.look(situation(), now);
  if (config_.overflow == Overflow::drop_oldest && !(backlog && backlog->takes())) make_room();
  if (phase_ == Phase::up) subscriptions_.send();
  if (transport_ && phase_ >= Phase::greeting) fill_and_write(now);
  pump();
  if (transport_ && !writing_ && session_.should_close()) {
    if (goodbye_) {
      linger();
    } else {
      link_down(closing_why_, closing_code_, closing_cause_);
    }
  }
  watch_progress(now);
  if (!attached_) return;
  if (!lingering_) read_more();
  if (backlog) backlog->submit();
  map_ahead();
  take_snapshot();
  check_waiters();
  arm_timer(now);
  sleep_or_turn_again();
}

void Connection::take_commands() {
  commands_.take_all([this](std::unique_ptr<Command> command) { command->run(*this); });
}

void Connection::take_snapshot() {
  const auto counts = session_.counts();
  counters_.in_flight.store(counts.in_flight, std::memory_order_relaxed);
  counters_.sent.store(counts.publishes_sent, std::memory_order_relaxed);
  counters_.resent.store(counts.publishes_resent, std::memory_order_relaxed);
  counters_.answers_ignored.store(counts.answers_ignored, std::memory_order_relaxed);
  counters_.protocol_violations.store(counts.violations, std::memory_order_relaxed);
  const auto* backlog = outflow_.backlog();
  if (!backlog) return;
  const auto spool = backlog->stats();
  counters_.spool_messages.store(spool.entries, std::memory_order_relaxed);
  counters_.spool_bytes.store(spool.bytes, std::memory_order_relaxed);
  counters_.spool_oldest_ms.store(static_cast<std::uint64_t>(spool.oldest_ms), std::memory_order_relaxed);
  counters_.spool_failing.store(backlog->failing(), std::memory_order_relaxed);
  counters_.spooled.store(spooled_before_ + backlog->spooled(), std::memory_order_relaxed);
  counters_.replayed.store(replayed_before_ + backlog->replayed(), std::memory_order_relaxed);
}

// --- the backlog -----------------------------------------------------------------------------------------------------

Backlog::Host Connection::backlog_host() {
  Backlog::Host host;
  host.wake = [this] {
    spool_has_news_.store(true, std::memory_order_seq_cst);
    wake();
  };
  host.log = [this](LogLevel level, std::string text) { dispatcher_.log(level, "spool", std::move(text)); };
  host.stored = [this](std::uint64_t sequence, std::uint64_t token) {
    tell(sequence, token, Delivery::Outcome::stored, 0);
  };
  host.dropped = [this](std::uint64_t count) { Counters::add(counters_.dropped_spool, count); };
  host.not_dropped = [this](std::uint64_t count) { Counters::add(counters_.dropped_spool, 0 - count); };
  host.recovered = [this](std::uint64_t count) { Counters::add(counters_.recovered, count); };
  return host;
}

Outflow::Situation Connection::situation() const {
  const auto somebody = [this](Waiter::For kind) {
    return std::ranges::any_of(waiters_, [kind](const auto& waiter) { return waiter->kind == kind; });
  };
  return {.up = phase_ == Phase::up,
          .leaving = goodbye_,
          .store_asked = somebody(Waiter::For::store),
          .flush_asked = somebody(Waiter::For::flush),
          .until = outbox_until_};
}

// False: the dispatcher has no room now.
bool Connection::deliver(const mqtt::PublishView& message) {
  if (!dispatcher_.deliver(message)) return false;
  if (message.packet_id) unacknowledged_.delivered(dispatcher_.delivered(), message.packet_id, message.qos);
  return true;
}

void Connection::set_aside_held() {
  if (!held_ || held_->qos != QoS::exactly_once) return;
  Message message;
  message.topic = held_->topic;
  message.payload = held_->payload;
  message.properties = held_->properties;
  message.qos = held_->qos;
  message.retain = held_->retain;
  message.dup = held_->dup;
  overdue_.push_back({message.copy(), held_->packet_id});
}

void Connection::deliver_held() {
  while (!overdue_.empty()) {
    const Message& message = *overdue_.front().message;
    mqtt::PublishView view;
    view.topic = message.topic;
    view.payload = message.payload;
    view.properties = message.properties;
    view.packet_id = overdue_.front().packet_id;
    view.qos = message.qos;
    view.retain = message.retain;
    view.dup = message.dup;
    if (!deliver(view)) return;
    overdue_.erase(overdue_.begin());
  }
  if (!held_ || !deliver(*held_)) return;
  held_.reset();
  session_.hold_input(false, Clock::now());
}

void Connection::take_acknowledgements() {
  if (phase_ != Phase::up) return;
  const auto handled = dispatcher_.handled();
  if (!unacknowledged_.ready(handled)) return;
  unacknowledged_.take(handled, [this](std::uint16_t packet_id, mqtt::ReasonCode reason) {
    session_.acknowledge(packet_id, reason);
  });
}

// Overflow::drop_oldest: keeps a quarter of the outbox free while the session takes nothing.
void Connection::make_room() {
  const std::size_t bytes_max = outbox_.capacity_bytes() / 4 * 3;
  const std::size_t count_max = config_.outbox_messages - config_.outbox_messages / 4;
  while (outbox_.bytes() > bytes_max || outbox_.depth() > count_max) {
    const auto block = outbox_.front();
    if (block.empty()) return;
    drop(mqtt::RecordView(block.data()), counters_.dropped_overflow);
    outbox_.pop();
  }
}

bool Connection::queue_own(const Vitals::Publication& publication) {
  mqtt::RecordParts parts;
  parts.topic = publication.topic;
  parts.payload = as_bytes(publication.payload);
  parts.qos = publication.qos;
  parts.retain = publication.retain;
  parts.sequence = outbox_.popped();  // a flush() waits for it too
  parts.token = publication.is_heartbeat ? Outflow::heartbeat_token : Outflow::health_token;
  const auto server = this->server();
  if (parts.topic.size() + parts.payload.size() > server.packet_max || parts.qos > server.maximum_qos ||
      (parts.retain && !server.retain_available)) {
    return false;
  }
  auto block = std::make_unique<std::uint64_t[]>(mqtt::RecordView::size_for(parts) / sizeof(std::uint64_t));
  mqtt::write_record(reinterpret_cast<std::byte*>(block.get()), parts);
  own_.push_back(std::move(block));
  return true;
}

void Connection::publish_own() {
  while (!own_.empty() &&
         session_.publish(mqtt::RecordView(reinterpret_cast<const std::byte*>(own_.front().get())))) {
    own_.pop_front();
  }
}

void Connection::fill_and_write(Instant now) {
  if (writing_) return;
  written_at_ = now;
  tx_begin_ = tx_end_ = 0;
  if (!own_.empty() && !goodbye_) publish_own();
  const auto taken = situation();
  while (BufferPool::buffer_size - tx_end_ >= BufferPool::buffer_size / 16) {
    if (!outflow_.may_transmit(now)) break;
    outflow_.feed(taken, now, [&](const mqtt::RecordHeader& header) {
      if (!probe_ && header.qos != QoS::at_most_once) probe_ = Probe{header.sequence, now};
    });
    if (!tx_) {
      if (!session_.wants_transmit()) break;
      tx_ = loop_.buffers().take();
    }
    const std::size_t filled =
        session_.transmit(std::span(tx_.get(), BufferPool::buffer_size).subspan(tx_end_), now);
    if (filled == 0) break;
    tx_end_ += filled;
  }
  if (tx_end_ == 0) return loop_.buffers().give(std::move(tx_));
  writing_ = true;
  if (transport_->write_some(asio::buffer(tx_.get(), tx_end_))) loop_.buffers().give(std::move(tx_));
}

void Connection::on_written(std::size_t size) {
  Counters::add(counters_.bytes_out, size);
  tx_begin_ += size;
  if (tx_begin_ < tx_end_) {
    written_at_ = Clock::now();
    if (transport_->write_some(asio::buffer(tx_.get() + tx_begin_, tx_end_ - tx_begin_))) {
      loop_.buffers().give(std::move(tx_));
    }
    return;
  }
  writing_ = false;
  turn();
}

void Connection::on_read(std::size_t size) {
  Counters::add(counters_.bytes_in, size);
  if (lingering_) return transport_->read();
  reading_ = false;
  rx_end_ += size;
  const auto now = Clock::now();
  dispatcher_.stamp(now);
  session_.receive({rx_.get(), rx_end_}, now);
  rx_presented_ = true;
  turn();
}

asio::mutable_buffer Connection::read_buffer() {
  if (!rx_) {
    rx_ = loop_.buffers().take();
    rx_capacity_ = BufferPool::buffer_size;
  }
  if (lingering_) return asio::buffer(rx_.get(), rx_capacity_);
  return asio::buffer(rx_.get() + rx_end_, rx_capacity_ - rx_end_);
}

void Connection::release_rx() {
  if (rx_capacity_ == BufferPool::buffer_size) loop_.buffers().give(std::move(rx_));
  rx_.reset();
  rx_capacity_ = 0;
}

void Connection::read_more() {
  if (!transport_ || reading_ || held_ || phase_ < Phase::greeting) return;
  if (rx_presented_) {
    rx_presented_ = false;
    const std::size_t unread = session_.unread();
    if (unread > 0 && unread < rx_end_) std::memmove(rx_.get(), rx_.get() + (rx_end_ - unread), unread);
    rx_end_ = unread;
    if (rx_end_ == 0) {
      release_rx();
    } else if (rx_end_ ==
               rx_capacity_) {  // a packet larger than the buffer: it grows with the bytes that have come
      auto larger = std::make_unique_for_overwrite<std::byte[]>(rx_capacity_ * 2);
      std::memcpy(larger.get(), rx_.get(), rx_end_);
      const auto capacity = rx_capacity_ * 2;
      release_rx();
      rx_ = std::move(larger);
      rx_capacity_ = capacity;
    }
  }
  reading_ = true;
  transport_->read();
}

void Connection::pump() {
  mqtt::Event event;
  while (session_.next_event(event)) {
    std::visit([this](const auto& what) { handle(what); }, event);
  }
}

void Connection::handle(const mqtt::Connected& event) {
  phase_ = Phase::up;
  up_since_ = Clock::now();
  attempt_deadline_.reset();
  attempt_failures_.clear();
  tried_ = 0;
  redirect_now_ = false;
  was_connected_ = true;
  Counters::add(counters_.connects);
  unacknowledged_.connected(event.session_present);
  if (auto* backlog = outflow_.backlog(); backlog && !event.session_present)
    backlog->session_lost(Clock::now());
  if (!event.session_present) {
    for (auto& overdue : overdue_) overdue.packet_id = 0;
  }
  dispatcher_.connected(event.session_present);
  const bool v5 = session_.config().version == ProtocolVersion::v5;
  subscriptions_.connected(event.session_present, event.limits.maximum_packet_size,
                           v5 && event.limits.subscription_identifiers_available);
  if (v5 && redirects_.empty()) spoke_v5_[endpoint_index_] = true;
  server_.store(ServerFacts{event.limits.maximum_packet_size, event.limits.maximum_qos,
                            event.limits.retain_available, v5, true}
                    .packed(),
                std::memory_order_relaxed);
  vitals_.connected(up_since_, WallClock::now());
  const std::string reason = "connected to " + endpoint().name() + " (" + peer_ + ", MQTT " +
                             (v5 ? "5.0" : "3.1.1") +
                             (event.session_present ? ", session resumed)" : ", new session)");
  dispatcher_.log(LogLevel::info, "connection", reason);
  set_state(ConnectionState::connected, reason);
}

void Connection::handle(const mqtt::Refused& event) {
  const bool version =
      event.version == ProtocolVersion::v3_1_1
          ? event.code == 1
          : event.code == static_cast<std::uint8_t>(mqtt::ReasonCode::unsupported_protocol_version);
  if (version && session_.config().version == ProtocolVersion::v5) {
    only_3_1_1_[endpoint_index_] = true;
    dispatcher_.log(LogLevel::info, "connection",
                    endpoint().name() + " does not speak MQTT 5.0: trying 3.1.1");
    drop_link();
    attempt();
    return;
  }
  Counters::add(counters_.attempts_refused);
  closing_why_ = endpoint().name() + " " + describe_refusal(event);
  closing_code_ = event.code;
  closing_cause_ = Cause::server;
  closing_for_good_ = is_permanent(event);
  if (event.version == ProtocolVersion::v5) {
    follow(static_cast<mqtt::ReasonCode>(event.code), event.server_reference);
  }
}

void Connection::handle(const mqtt::Received& event) {
  Counters::add(counters_.received);
  const auto& message = event.message;
  if (overdue_.empty() && deliver(message)) return;
  held_ = message;
  session_.hold_input(true, Clock::now());
}

void Connection::handle(const mqtt::Completed& event) {
  if (probe_ && event.sequence == probe_->sequence) {
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - probe_->sent);
    counters_.round_trip_us.store(static_cast<std::uint64_t>(std::max<std::int64_t>(1, took.count())),
                                  std::memory_order_relaxed);
    probe_.reset();
  }
  auto outcome = Delivery::Outcome::sent;
  switch (event.outcome) {
    case mqtt::Outcome::sent: outcome = Delivery::Outcome::sent; break;
    case mqtt::Outcome::acknowledged: outcome = Delivery::Outcome::acknowledged; break;
    case mqtt::Outcome::refused: outcome = Delivery::Outcome::refused; break;
    case mqtt::Outcome::expired: outcome = Delivery::Outcome::expired; break;
  }
  settle(event.sequence, event.token, outcome, static_cast<std::uint8_t>(event.reason));
}

void Connection::settle(std::uint64_t sequence, std::uint64_t token, Delivery::Outcome outcome,
                        std::uint8_t reason) {
  if (token == Outflow::heartbeat_token) {
    if (outcome == Delivery::Outcome::sent) vitals_.heartbeat_sent(Clock::now());
    return;
  }
  if (token == Outflow::health_token) return;
  switch (outflow_.settle(sequence, outcome == Delivery::Outcome::dropped)) {
    case Outflow::Rest::settled: break;
    case Outflow::Rest::on_disk: return;
    case Outflow::Rest::stored:
      if (token) tell(sequence, token, Delivery::Outcome::stored, 0);
      return;
  }
  switch (outcome) {
    case Delivery::Outcome::sent:
    case Delivery::Outcome::acknowledged: Counters::add(counters_.acknowledged); break;
    case Delivery::Outcome::refused: Counters::add(counters_.refused); break;
    case Delivery::Outcome::expired: Counters::add(counters_.expired); break;
    case Delivery::Outcome::stored: break;
    case Delivery::Outcome::dropped: Counters::add(counters_.dropped_shutdown); break;
  }
  if (token) tell(sequence, token, outcome, reason);
}

void Connection::tell(std::uint64_t sequence, std::uint64_t token, Delivery::Outcome outcome,
                      std::uint8_t reason) {
  auto item = DeliveryItem::of(token);
  item->delivery = {sequence, outcome, reason};
  dispatcher_.post(std::move(item));
}

void Connection::drop(mqtt::RecordView record, Counters::Counter& counter) {
  Counters::add(counter);
  const auto& header = record.header();
  if (header.token) tell(header.sequence, header.token, Delivery::Outcome::dropped, 0);
  if (auto* shared = record.shared_payload()) shared->release();
}

void Connection::handle(const mqtt::Closing& event) {
  closing_code_.reset();
  closing_for_good_ = false;
  switch (event.by) {
    case mqtt::Closing::By::us: return;
    case mqtt::Closing::By::server_disconnect:
      closing_why_ =
          with_reason(endpoint().name() + " disconnected us: " + std::string(mqtt::to_string(event.reason)) +
                          " (" + hex(static_cast<std::uint8_t>(event.reason)) + ")",
                      event.text);
      closing_code_ = static_cast<std::uint8_t>(event.reason);
      closing_for_good_ = is_permanent(event.reason);
      closing_cause_ = Cause::server;
      follow(event.reason, event.server_reference);
      break;
    case mqtt::Closing::By::protocol_violation:
      closing_why_ = endpoint().name() + " broke the protocol: " + std::string(event.text);
      closing_cause_ = Cause::violation;
      dispatcher_.log(LogLevel::error, "protocol", closing_why_);
      break;
    case mqtt::Closing::By::keep_alive:
      closing_why_ = endpoint().name() + ": no answer within the keep-alive time";
      closing_cause_ = Cause::timeout;
      break;
  }
}

// --- waiting ---------------------------------------------------------------------------------------

void Connection::add_waiter(std::shared_ptr<Waiter> waiter) {
  if (!waiter->waits_for_messages() && waiter->state == state()) {
    waiter->complete({});
    return;
  }
  waiters_.push_back(std::move(waiter));
}

void Connection::check_waiters() {
  if (waiters_.empty()) return;
  const std::uint64_t below = outflow_.settled_below();
  std::erase_if(waiters_, [&](const std::shared_ptr<Waiter>& waiter) {
    if (waiter->done.load(std::memory_order_relaxed) || waiter->abandoned.load(std::memory_order_relaxed))
      return true;
    if (!waiter->waits_for_messages() || waiter->sequence > below) return false;
    waiter->complete({});
    return true;
  });
}

// ack_timeout: an acknowledgement that does not come on a live link.
void Connection::watch_progress(Instant now) {
  if (config_.ack_timeout == 0ms || phase_ != Phase::up || goodbye_) return;
  const auto oldest = session_.counts().in_flight > 0 ? session_.oldest() : std::nullopt;
  if (oldest != oldest_) {
    oldest_ = oldest;
    oldest_since_ = now;
  }
  if (!oldest_ || now < oldest_since_ + config_.ack_timeout) return;
  oldest_.reset();
  link_down(endpoint().name() + ": a message is not acknowledged within " + in_seconds(config_.ack_timeout) +
                " (ack_timeout)",
            {}, Cause::timeout);
}

void Connection::post_later(std::chrono::milliseconds delay, std::unique_ptr<Dispatcher::Item> item) {
  later_.emplace(Clock::now() + delay, std::move(item));
}

void Connection::run_later_items(Instant now) {
  while (!later_.empty() && later_.begin()->first <= now) {
    dispatcher_.post(std::move(later_.begin()->second));
    later_.erase(later_.begin());
  }
}

// --- sleeping --------------------------------------------------------------------------------------------------------

void Connection::arm_timer(Instant now) {
  std::optional<Instant> earliest;
  const auto consider = [&](std::optional<Instant> at) {
    if (at && (!earliest || *at < *earliest)) earliest = at;
  };
  if (transport_) consider(session_.next_timeout());
  consider(attempt_deadline_);
  consider(retry_at_);
  consider(end_deadline_);
  if (phase_ == Phase::up && !goodbye_) {
    auto due = vitals_.next_timeout();
    // Bytes still leave: the link is slow, not dead.
    if (due && vitals_.must_reconnect(now))
      due = std::max(*due, written_at_ + 3 * config_.heartbeat_interval);
    consider(due);
  }
  if (!later_.empty()) consider(later_.begin()->first);
  if (oldest_) consider(oldest_since_ + config_.ack_timeout);
  // Without a link the outbox is looked at now and then; with one, the spool's figures are until it is empty.
  const bool spool_empty = counters_.spool_messages.load(std::memory_order_relaxed) == 0;
  if (outflow_.backlog() && !stopping_ && (phase_ != Phase::up || !spool_empty)) {
    consider(now + Outflow::spill_after);
  }
  if (config_.wakeup.lazy_interval > 0us && phase_ == Phase::up && !writing_) {
    consider(now + config_.wakeup.lazy_interval);
  }
  turn_due_ = earliest;
  arm_timer_for_turn(now);
}

// For the turn that is due, or for mapping the outbox ahead until then.
void Connection::arm_timer_for_turn(Instant now) {
  auto earliest = turn_due_;
  bool only_maps = false;
  if (!outbox_.populated() && !could_take()) {
    const auto lazy = config_.wakeup.lazy_interval;
    const auto again = lazy > 0us && (map_again_ == 0us || lazy < map_again_) ? lazy : map_again_;
    only_maps = again > 0us && (!earliest || now + again < *earliest);
    if (only_maps) earliest = now + again;
  }
  if (!earliest) return;
  // Armed early enough already: what it finds then is looked at anew.
  if (timer_armed_ && *timer_armed_ <= *earliest) return;
  timer_armed_ = earliest;
  timer_only_maps_ = only_maps;
  timer_.expires_at(*earliest);
  timer_.async_wait(net::InMemory(turn_memory_, [this](const boost::system::error_code& cancelled) {
    if (!cancelled) on_timer();
  }));
}

void Connection::on_timer() {
  timer_armed_.reset();
  const auto now = Clock::now();
  if (std::exchange(timer_only_maps_, false)) {
    map_ahead();
    arm_timer_for_turn(now);
    return sleep_or_turn_again();
  }
  run_later_items(now);
  if (end_deadline_ && now >= *end_deadline_) {
    if (!stopping_) {
      link_down(closing_why_, {}, Cause::network);
      return turn();
    }
    return finish(lingering_ ? closing_why_ : "shut down before the server had taken everything");
  }
  if (attempt_deadline_ && now >= *attempt_deadline_) {
    std::string why = endpoint().name();
    if (phase_ == Phase::resolving) {
      why = "cannot resolve host \"" + endpoint().host + "\": no answer";
    } else if (phase_ == Phase::opening) {
      why += ": " + std::string(transport_->stage());
    } else {
      why += ": connected, but no CONNACK";
    }
    link_down(why + " within " + in_seconds(config_.connect_timeout), {}, Cause::timeout);
  } else if (retry_at_ && now >= *retry_at_) {
    attempt();
  } else if (phase_ == Phase::up && !goodbye_ && vitals_.must_reconnect(now) &&
             now - written_at_ >= 3 * config_.heartbeat_interval) {
    link_down(
        endpoint().name() + ": no heartbeat could be sent for " + in_seconds(3 * config_.heartbeat_interval),
        {}, Cause::timeout);
  } else if (transport_) {
    if (phase_ == Phase::up && !goodbye_) vitals_.on_timeout(now, WallClock::now());
    if (const auto due = session_.next_timeout(); due && now >= *due) {
      session_.send_queue(tx_end_ - tx_begin_ + transport_->unsent(), now);
      session_.on_timeout(now);
    }
  }
  turn();
}

// Whether a turn would take a message out of the outbox.
bool Connection::could_take() const {
  // Diverted messages are looked for every spill_after while there is no link; a write-ahead one is waited for.
  return outflow_.could_store(phase_ == Phase::up) || (!outflow_.diverting() && phase_ == Phase::up &&
                                                       !goodbye_ && !writing_ && session_.publish_room() > 0);
}

void Connection::map_ahead() {
  if (outbox_.populated() || mapping_posted_) return;
  const auto pushed = outbox_.pushed();
  map_again_ = pushed != pushed_when_mapped_ ? map_again_min : 2 * map_again_;
  if (map_again_ > map_again_max) map_again_ = 0us;
  pushed_when_mapped_ = pushed;
  map_step();
}

// In steps, so that a large outbox does not hold up the other connections of the loop.
void Connection::map_step() {
  mapping_posted_ = outbox_.populate_ahead();
  if (!mapping_posted_) return;
  asio::post(loop_.context(), [this] {
    if (attached_) return map_step();
    mapping_posted_ = false;
  });
}

void Connection::sleep_or_turn_again() {
  const bool could_take = this->could_take();
  const bool map_when_called = !outbox_.populated() && map_again_ == 0us;
  control_flag_.announce();
  if ((could_take || map_when_called) && config_.wakeup.lazy_interval == 0us) outbox_flag_.announce();
  const bool acknowledge = phase_ == Phase::up && !lingering_ && unacknowledged_.ready(dispatcher_.handled());
  // A wake-up that came while we were awake woke nobody.
  const bool news = spool_has_news_.load(std::memory_order_seq_cst);
  if (commands_.empty() && !acknowledge && !news && !(could_take && !outbox_.front().empty())) return;
  outbox_flag_.awake();
  control_flag_.awake();
  if (std::exchange(turn_posted_, true)) return;
  asio::post(loop_.context(), net::InMemory(turn_memory_, [this] {
               turn_posted_ = false;
               turn();
             }));
}

void Connection::listen_for_wakes() {
  wake_stream_.async_read_some(
      asio::buffer(&wake_value_, sizeof wake_value_),
      net::InMemory(wake_memory_, [this](const boost::system::error_code& error, std::size_t) {
        if (error) return;
        listen_for_wakes();
        turn();
      }));
}

}  // namespace fulmar
