#include "client/connection.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>

#include <boost/asio/post.hpp>

#include "net/make_transport.hpp"

namespace fulmar {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t buffer_size = std::size_t{64} << 10;  // one send: larger ones are slower again
constexpr std::size_t rx_keep_max = std::size_t{1} << 20;
constexpr auto linger_max = std::chrono::milliseconds(200);

mqtt::SessionConfig session_config(const ClientConfig& config) {
  mqtt::SessionConfig session;
  session.version = config.protocol;
  session.client_id = config.client_id;
  session.clean_start = config.clean_start;
  session.session_expiry_s = static_cast<std::uint32_t>(config.session_expiry.count());
  session.keepalive_s = static_cast<std::uint16_t>(config.keepalive.count());
  session.receive_maximum = config.receive_maximum;
  session.max_inflight = config.max_inflight;
  session.maximum_packet_size = config.maximum_packet_size;
  if (config.will) {
    mqtt::Will will;
    will.topic = config.will->topic;
    const auto payload = as_bytes(config.will->payload);
    will.payload.assign(payload.begin(), payload.end());
    will.qos = config.will->qos;
    will.retain = config.will->retain;
    session.will = std::move(will);
  }
  return session;
}

std::string hex(std::uint8_t code) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", code);
  return text;
}

std::string with_reason(std::string text, std::string_view reason_string) {
  if (!reason_string.empty()) text += ": \"" + std::string(reason_string) + "\"";
  return text;
}

std::string describe_refusal(const mqtt::Refused& refused) {
  std::string what;
  if (refused.version == ProtocolVersion::v3_1_1) {
    switch (refused.code) {
      case 1: what = "unacceptable protocol version"; break;
      case 2: what = "client identifier rejected"; break;
      case 3: what = "server unavailable"; break;
      case 4: what = "bad user name or password"; break;
      case 5: what = "not authorized"; break;
      default: what = "return code " + std::to_string(refused.code);
    }
  } else {
    what = mqtt::to_string(static_cast<mqtt::ReasonCode>(refused.code));
  }
  return with_reason("refused the connection: " + what + " (" + hex(refused.code) + ")",
                     refused.reason_string);
}

// Refusals that will not go away by themselves: the next attempts keep the greatest distance.
bool is_permanent(mqtt::ReasonCode code) {
  using enum mqtt::ReasonCode;
  switch (code) {
    case malformed_packet:
    case protocol_error:
    case unsupported_protocol_version:
    case client_identifier_not_valid:
    case bad_user_name_or_password:
    case not_authorized:
    case banned:
    case bad_authentication_method:
    case session_taken_over:
    case topic_name_invalid:
    case packet_too_large:
    case payload_format_invalid:
    case retain_not_supported:
    case qos_not_supported:
    case use_another_server:
    case server_moved: return true;
    default: return false;
  }
}

bool is_permanent(const mqtt::Refused& refused) {
  if (refused.version == ProtocolVersion::v3_1_1) return refused.code != 3;
  return is_permanent(static_cast<mqtt::ReasonCode>(refused.code));
}

std::string in_seconds(std::chrono::milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", static_cast<double>(time.count()) / 1000);
  return text;
}

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

struct StateItem final : Dispatcher::Item {
  StateItem(const std::function<void(const StateChange&)>& to, StateChange what)
      : sink(to), change(std::move(what)) {}
  void run() override { sink(change); }
  const std::function<void(const StateChange&)>& sink;
  StateChange change;
};

}  // namespace

Connection::Connection(asio::io_context& context, const ClientConfig& config,
                       std::vector<net::Endpoint> endpoints, outbox::Ring& outbox, Dispatcher& dispatcher,
                       Counters& counters, std::function<void(const StateChange&)> on_state_change)
    : context_(context),
      config_(config),
      endpoints_(std::move(endpoints)),
      spoke_v5_(endpoints_.size()),
      outbox_(outbox),
      dispatcher_(dispatcher),
      counters_(counters),
      session_(session_config(config)),
      subscriptions_(session_, dispatcher),
      resolver_(context.get_executor()),
      backoff_({config.reconnect_min_delay, config.reconnect_max_delay, 10s}, random_seed()),
      on_state_change_(std::move(on_state_change)),
      wake_event_(context, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      timer_(context) {}

Connection::~Connection() = default;

// --- any thread ------------------------------------------------------------------------------------------------------

void Connection::post(std::unique_ptr<Command> command) {
  commands_.push(std::move(command));
  wake();
}

void Connection::wake() {
  if (control_flag_.must_wake()) ring_eventfd();
}

void Connection::ring_eventfd() {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the I/O thread is on its way.
  [[maybe_unused]] const auto written = ::write(wake_event_.native_handle(), &one, sizeof one);
}

// --- life cycle ------------------------------------------------------------------------------------------------------

void Connection::start() {
  rx_.resize(buffer_size);
  tx_.resize(buffer_size);
  listen_for_wakes();
  set_state(ConnectionState::connecting, "connecting to " + endpoint().name());
  attempt();
  turn();
}

void Connection::attempt() {
  retry_at_.reset();
  // Silence suggests the older version once; only the server's word settles it.
  const bool older = std::exchange(try_older_, false) || fell_back_;
  session_.config().version = older ? ProtocolVersion::v3_1_1 : config_.protocol;
  phase_ = Phase::resolving;
  attempt_deadline_ = Clock::now() + config_.connect_timeout;
  Counters::add(counters_.reconnect_attempts, was_connected_ ? 1 : 0);
  const auto open = [this](net::Resolver::Addresses addresses) {
    phase_ = Phase::opening;
    transport_ = net::make_transport(context_.get_executor(), endpoint(), config_.tls, *this);
    transport_->open(std::move(addresses));
  };
  if (endpoint().is_local()) return open({});
  resolver_.resolve(endpoint().host, endpoint().port,
                    [this, open](const Result<net::Resolver::Addresses>& addresses) {
                      if (addresses) {
                        open(*addresses);
                      } else {
                        attempt_failed(addresses.error().message, {}, false);
                      }
                      turn();
                    });
}

void Connection::on_open(const std::string& peer) {
  peer_ = peer;
  phase_ = Phase::greeting;
  auto& session = session_.config();
  session.username = config_.username ? config_.username : endpoint().username;
  session.password = config_.password ? config_.password : endpoint().password;
  session_.connection_opened(Clock::now());
  read_more();
  turn();
}

void Connection::on_open_failed(const std::string& why) {
  drop_link();
  attempt_failed("cannot connect to " + endpoint().name() + " (" + why + ")", {}, false);
  turn();
}

void Connection::on_lost(const std::string& why) {
  if (closed_on_connect_of_v5()) {
    try_older_ = true;
    dispatcher_.log(LogLevel::info, "connection",
                    endpoint().name() + " closed the connection upon CONNECT of MQTT 5.0: trying 3.1.1");
    drop_link();
    attempt();
    turn();
    return;
  }
  link_down(lingering_ ? closing_why_ : endpoint().name() + ": " + why, {});
  turn();
}

// A server that knows 3.1.1 only should answer [MQTT-3.1.2-2], but some just close. One that has spoken 5.0 before has
// another reason.
bool Connection::closed_on_connect_of_v5() const {
  return phase_ == Phase::greeting && !stopping_ && rx_end_ == 0 &&
         session_.state() == mqtt::Session::State::connecting &&
         session_.config().version == ProtocolVersion::v5 && !spoke_v5_[endpoint_index_];
}

// The server closes the connection when it has read DISCONNECT [MQTT-3.14.4-3]; closing before that could take our last
// acknowledgements and messages from it.
void Connection::linger() {
  if (lingering_) return;
  lingering_ = true;
  held_.reset();
  unacknowledged_.clear();
  stop_deadline_ = std::min(stop_deadline_.value_or(Instant::max()), Clock::now() + linger_max);
  transport_->finish_sending();
  if (!reading_) transport_->read();
  reading_ = true;
}

void Connection::drop_link() {
  resolver_.cancel();
  transport_.reset();
  attempt_deadline_.reset();
  if (session_.state() != mqtt::Session::State::closed) session_.connection_closed(Clock::now());
  if (held_) {
    held_.reset();
    session_.hold_input(false, Clock::now());
  }
  rx_presented_ = reading_ = writing_ = lingering_ = false;
  rx_end_ = tx_begin_ = tx_end_ = 0;
  subscriptions_.link_lost();
}

void Connection::link_down(const std::string& why, std::optional<std::uint8_t> reason_code) {
  const bool was_up = phase_ == Phase::up;
  const bool for_good = std::exchange(closing_for_good_, false);
  drop_link();
  if (stopping_) return finish(why);
  if (!was_up) return attempt_failed(why, reason_code, for_good);
  Counters::add(counters_.disconnects);
  backoff_.link_lost(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - up_since_));
  retry_later(why, reason_code, for_good);
}

void Connection::attempt_failed(const std::string& why, std::optional<std::uint8_t> reason_code,
                                bool permanent) {
  attempt_deadline_.reset();
  if (stopping_) return finish(why);
  attempt_failures_ += (attempt_failures_.empty() ? "" : "; ") + why;
  if (++tried_ < endpoints_.size()) {
    ++endpoint_index_;
    return attempt();
  }
  retry_later(std::exchange(attempt_failures_, {}), reason_code, permanent);
}

void Connection::retry_later(const std::string& why, std::optional<std::uint8_t> reason_code,
                             bool permanent) {
  tried_ = endpoint_index_ = 0;
  if (permanent) backoff_.at_maximum();
  const auto delay = backoff_.next();
  phase_ = Phase::waiting;
  retry_at_ = Clock::now() + delay;
  dispatcher_.log(LogLevel::warning, "connection", why + "; next attempt in " + in_seconds(delay));
  set_state(was_connected_ ? ConnectionState::reconnecting : ConnectionState::connecting, why, reason_code,
            delay);
}

void Connection::set_state(ConnectionState state, const std::string& reason,
                           std::optional<std::uint8_t> reason_code, std::chrono::milliseconds retry_in) {
  state_.store(state, std::memory_order_release);
  dispatcher_.post(
      std::make_unique<StateItem>(on_state_change_, StateChange{state, reason, reason_code, retry_in}));
  for (const auto& waiter : waiters_) {
    if (waiter->kind == Waiter::For::flush) continue;
    const bool connecting = waiter->kind == Waiter::For::connect;
    if (waiter->state == state) {
      waiter->complete({});
    } else if (connecting && reason_code) {
      waiter->complete(std::unexpected(Error{Errc::connection_refused, reason, reason_code}));
    }
  }
  check_waiters();
}

void Connection::stop(std::chrono::milliseconds deadline) {
  if (stopping_) return;
  stopping_ = true;
  stop_deadline_ = Clock::now() + deadline;
  set_state(ConnectionState::disconnecting, "shutting down");
  if (phase_ == Phase::up) {
    take_acknowledgements();  // what handlers have returned from must not come again
    closing_why_ = "shut down";
    session_.disconnect();
  } else {
    finish("shut down");
  }
}

void Connection::finish(const std::string& why) {
  if (phase_ == Phase::finished) return;
  drop_link();
  phase_ = Phase::finished;
  retry_at_.reset();
  session_.take_all([this](mqtt::RecordView record) {
    settle(record.header().sequence, record.header().token, Delivery::Outcome::dropped, 0);
  });
  mqtt::Event event;  // completions that were under way
  while (session_.next_event(event)) {
    if (const auto* completed = std::get_if<mqtt::Completed>(&event)) handle(*completed);
  }
  // The outbox is closed by now: what was reserved is committed in a moment.
  while (outbox_.depth() > 0) {
    const auto block = outbox_.front();
    if (block.empty()) {
      std::this_thread::yield();
      continue;
    }
    const mqtt::RecordView record(block.data());
    settle(record.header().sequence, record.header().token, Delivery::Outcome::dropped, 0);
    if (auto* shared = record.shared_payload()) shared->release();
    outbox_.pop();
  }
  set_state(ConnectionState::disconnected, why);
  for (const auto& waiter : std::exchange(waiters_, {})) {
    if (!waiter->done.load(std::memory_order_relaxed)) {
      waiter->complete(fail(Errc::shutting_down, "the client was shut down"));
    }
  }
  context_.stop();
}

// --- the turn --------------------------------------------------------------------------------------------------------

void Connection::turn() {
  if (phase_ == Phase::finished) return;
  outbox_flag_.awake();
  control_flag_.awake();
  // In this order: a thread that subscribes and then publishes finds its SUBSCRIBE sent before its message.
  outbox_until_ = outbox_.pushed();
  take_commands();
  if (lingering_) {
    check_waiters();
    arm_timer(Clock::now());
    return sleep_or_turn_again();
  }
  take_acknowledgements();
  if (held_ && dispatcher_.deliver(*held_)) {
    const auto message = *std::exchange(held_, std::nullopt);
    if (message.packet_id)
      unacknowledged_.push_back({dispatcher_.delivered(), message.packet_id, message.qos});
    session_.hold_input(false, Clock::now());
  }
  pump();
  if (phase_ == Phase::up) subscriptions_.send();
  const auto now = Clock::now();
  if (transport_ && phase_ >= Phase::greeting) fill_and_write(now);
  pump();
  if (transport_ && !writing_ && session_.should_close()) {
    if (stopping_ && phase_ == Phase::up) {
      linger();
    } else {
      link_down(closing_why_, closing_code_);
    }
  }
  if (phase_ == Phase::finished) return;
  if (!lingering_) read_more();
  const auto counts = session_.counts();
  counters_.in_flight.store(counts.in_flight, std::memory_order_relaxed);
  counters_.sent.store(counts.publishes_sent, std::memory_order_relaxed);
  check_waiters();
  arm_timer(now);
  sleep_or_turn_again();
}

void Connection::take_commands() {
  commands_.take_all([this](std::unique_ptr<Command> command) { command->run(*this); });
}

void Connection::take_acknowledgements() {
  if (phase_ != Phase::up || unacknowledged_.empty()) return;
  const std::uint64_t handled = dispatcher_.handled();
  while (!unacknowledged_.empty() && unacknowledged_.front().delivered <= handled) {
    session_.acknowledge(unacknowledged_.front().packet_id);
    unacknowledged_.pop_front();
  }
}

void Connection::fill_and_write(Instant now) {
  if (writing_) return;
  tx_begin_ = tx_end_ = 0;
  while (tx_.size() - tx_end_ >= buffer_size / 16) {
    if (phase_ == Phase::up && !stopping_) {
      for (std::size_t room = session_.publish_room(); room > 0 && outbox_.popped() < outbox_until_; --room) {
        const auto block = outbox_.front();
        if (block.empty() || !session_.publish(mqtt::RecordView(block.data()))) break;
        outbox_.pop();
      }
    }
    const std::size_t filled = session_.transmit(std::span(tx_).subspan(tx_end_), now);
    if (filled == 0) break;
    tx_end_ += filled;
  }
  if (tx_end_ == 0) return;
  writing_ = true;
  transport_->write_some(asio::buffer(tx_.data(), tx_end_));
}

void Connection::on_written(std::size_t size) {
  Counters::add(counters_.bytes_out, size);
  tx_begin_ += size;
  if (tx_begin_ < tx_end_) {
    transport_->write_some(asio::buffer(tx_.data() + tx_begin_, tx_end_ - tx_begin_));
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
  session_.receive({rx_.data(), rx_end_}, Clock::now());
  rx_presented_ = true;
  turn();
}

asio::mutable_buffer Connection::read_buffer() {
  if (lingering_) return asio::buffer(rx_);
  return asio::buffer(rx_.data() + rx_end_, rx_.size() - rx_end_);
}

void Connection::read_more() {
  if (!transport_ || reading_ || held_ || phase_ < Phase::greeting) return;
  if (rx_presented_) {
    rx_presented_ = false;
    const std::size_t unread = session_.unread();
    if (unread > 0) std::memmove(rx_.data(), rx_.data() + (rx_end_ - unread), unread);
    rx_end_ = unread;
    if (rx_end_ == rx_.size()) {
      rx_.resize(rx_.size() * 2);  // a packet larger than the buffer: it grows with the bytes that have come
    } else if (rx_end_ == 0 && rx_.size() > rx_keep_max) {
      rx_.resize(buffer_size);
      rx_.shrink_to_fit();
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
  was_connected_ = true;
  Counters::add(counters_.connects);
  server_packet_max_.store(event.limits.maximum_packet_size, std::memory_order_relaxed);
  if (!event.session_present) {
    unacknowledged_.clear();
  } else {
    // QoS 1 comes again and is acknowledged then; QoS 2 does not come again.
    std::erase_if(unacknowledged_, [](const Unacknowledged& one) { return one.qos == QoS::at_least_once; });
  }
  subscriptions_.connected(event.session_present, event.limits.maximum_packet_size);
  const bool v5 = session_.config().version == ProtocolVersion::v5;
  if (v5) spoke_v5_[endpoint_index_] = true;
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
    fell_back_ = true;
    dispatcher_.log(LogLevel::info, "connection",
                    endpoint().name() + " does not speak MQTT 5.0: trying 3.1.1");
    drop_link();
    attempt();
    return;
  }
  closing_why_ = endpoint().name() + " " + describe_refusal(event);
  closing_code_ = event.code;
  closing_for_good_ = is_permanent(event);
}

void Connection::handle(const mqtt::Received& event) {
  Counters::add(counters_.received);
  const auto& message = event.message;
  if (!dispatcher_.deliver(message)) {
    held_ = message;
    session_.hold_input(true, Clock::now());
    return;
  }
  if (message.packet_id) unacknowledged_.push_back({dispatcher_.delivered(), message.packet_id, message.qos});
}

void Connection::handle(const mqtt::Completed& event) {
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
  switch (outcome) {
    case Delivery::Outcome::sent:
    case Delivery::Outcome::acknowledged: Counters::add(counters_.acknowledged); break;
    case Delivery::Outcome::refused: Counters::add(counters_.refused); break;
    case Delivery::Outcome::expired: Counters::add(counters_.expired); break;
    case Delivery::Outcome::dropped: Counters::add(counters_.dropped); break;
  }
  if (!token) return;
  auto item = DeliveryItem::of(token);
  item->delivery = {sequence, outcome, reason};
  dispatcher_.post(std::move(item));
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
      break;
    case mqtt::Closing::By::protocol_violation:
      closing_why_ = endpoint().name() + " broke the protocol: " + std::string(event.text);
      dispatcher_.log(LogLevel::error, "protocol", closing_why_);
      break;
    case mqtt::Closing::By::keep_alive:
      closing_why_ = endpoint().name() + ": no answer within the keep-alive time";
      break;
  }
}

// --- waiting ---------------------------------------------------------------------------------------

void Connection::add_waiter(std::shared_ptr<Waiter> waiter) {
  if (phase_ == Phase::finished) {
    waiter->complete(fail(Errc::shutting_down, "the client was shut down"));
    return;
  }
  if (waiter->kind != Waiter::For::flush && waiter->state == state()) {
    waiter->complete({});
    return;
  }
  waiters_.push_back(std::move(waiter));
}

std::uint64_t Connection::settled_below() const { return session_.oldest().value_or(outbox_.popped()); }

void Connection::check_waiters() {
  if (waiters_.empty()) return;
  const std::uint64_t below = settled_below();
  std::erase_if(waiters_, [&](const std::shared_ptr<Waiter>& waiter) {
    if (waiter->done.load(std::memory_order_relaxed) || waiter->abandoned.load(std::memory_order_relaxed))
      return true;
    if (waiter->kind != Waiter::For::flush || waiter->sequence > below) return false;
    waiter->complete({});
    return true;
  });
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
  consider(stop_deadline_);
  if (config_.wakeup.lazy_interval > 0us && phase_ == Phase::up && !writing_) {
    consider(now + config_.wakeup.lazy_interval);
  }
  if (!earliest) return;
  // Armed early enough already: what it finds then is looked at anew.
  if (timer_armed_ && *timer_armed_ <= *earliest) return;
  timer_armed_ = earliest;
  timer_.expires_at(*earliest);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled) on_timer();
  });
}

void Connection::on_timer() {
  timer_armed_.reset();
  const auto now = Clock::now();
  if (stop_deadline_ && now >= *stop_deadline_) {
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
    link_down(why + " within " + in_seconds(config_.connect_timeout), {});
  } else if (retry_at_ && now >= *retry_at_) {
    attempt();
  } else if (transport_) {
    if (const auto due = session_.next_timeout(); due && now >= *due) session_.on_timeout(now);
  }
  turn();
}

void Connection::sleep_or_turn_again() {
  const bool could_send = phase_ == Phase::up && !stopping_ && !writing_ && session_.publish_room() > 0;
  control_flag_.announce();
  if (could_send && config_.wakeup.lazy_interval == 0us) outbox_flag_.announce();
  const bool acknowledge = phase_ == Phase::up && !unacknowledged_.empty() &&
                           unacknowledged_.front().delivered <= dispatcher_.handled();
  if (commands_.empty() && !acknowledge && !(could_send && !outbox_.front().empty())) return;
  outbox_flag_.awake();
  control_flag_.awake();
  if (std::exchange(turn_posted_, true)) return;
  asio::post(context_, [this] {
    turn_posted_ = false;
    turn();
  });
}

void Connection::listen_for_wakes() {
  wake_event_.async_read_some(asio::buffer(&wake_value_, sizeof wake_value_),
                              [this](const boost::system::error_code& error, std::size_t) {
                                if (error) return;
                                listen_for_wakes();
                                turn();
                              });
}

}  // namespace fulmar
