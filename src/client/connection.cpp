#include "client/connection.hpp"

#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>
#include <utility>

#include <boost/asio/post.hpp>

#include "client/reasons.hpp"
#include "net/make_transport.hpp"

namespace fulmar {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto linger_max = 200ms;
// A server that does not take our DISCONNECT for so long does not get it.
constexpr auto goodbye_max = 1s;
constexpr auto stable_after = 10s;
constexpr unsigned redirections_max = 5;

void set_will(mqtt::SessionConfig& session, const std::optional<WillMessage>& wanted) {
  session.will.reset();
  if (!wanted) return;
  mqtt::Will will;
  will.topic = wanted->topic;
  const auto payload = as_bytes(wanted->payload);
  will.payload.assign(payload.begin(), payload.end());
  will.qos = wanted->qos;
  will.retain = wanted->retain;
  will.delay_s = static_cast<std::uint32_t>(wanted->delay.count());
  will.properties.resize(wanted->content_type.size() + 16);
  mqtt::PropertyWriter properties(will.properties);
  if (wanted->message_expiry) {
    properties.add(mqtt::PropertyId::message_expiry_interval,
                   static_cast<std::uint32_t>(wanted->message_expiry->count()));
  }
  if (!wanted->content_type.empty()) {
    properties.add(mqtt::PropertyId::content_type, wanted->content_type);
  }
  will.properties.resize(properties.size());
  session.will = std::move(will);
}

mqtt::SessionConfig session_config(const ClientConfig& config) {
  mqtt::SessionConfig session;
  session.version = config.protocol;
  session.client_id = config.client_id;
  session.clean_start = config.clean_start;
  session.session_expiry_s = static_cast<std::uint32_t>(config.session_expiry.count());
  session.keepalive_s = static_cast<std::uint16_t>(config.keepalive.count());
  session.receive_maximum = config.receive_maximum;
  session.max_inflight = config.max_inflight;
  session.stored_ids = !config.spool_dir.empty();
  session.maximum_packet_size = config.maximum_packet_size;
  return session;
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

Connection::Connection(EventLoop& loop, const ClientConfig& config, std::vector<net::Endpoint> endpoints,
                       outbox::Ring& outbox, Dispatcher& dispatcher, Counters& counters,
                       std::function<void(const StateChange&)> on_state_change)
    : loop_(loop),
      config_(config),
      endpoints_(std::move(endpoints)),
      spoke_v5_(endpoints_.size()),
      only_3_1_1_(endpoints_.size()),
      outbox_(outbox),
      dispatcher_(dispatcher),
      counters_(counters),
      session_(session_config(config)),
      outflow_(config, outbox, session_),
      subscriptions_(session_, dispatcher),
      resolver_(loop.context().get_executor()),
      backoff_({config.reconnect_min_delay, config.reconnect_max_delay, stable_after}, random_seed()),
      vitals_(config, [this](const Vitals::Publication& publication) { return queue_own(publication); }),
      on_state_change_(std::move(on_state_change)),
      wake_stream_(loop.context()),
      timer_(loop.context()),
      unacknowledged_(dispatcher.mailbox()) {}

Connection::~Connection() {
  if (wake_stream_.is_open()) wake_stream_.release();  // it is the WakeEvent that closes it
}

// --- any thread ------------------------------------------------------------------------------------------------------

void Connection::post(std::unique_ptr<Command> command) {
  commands_.push(std::move(command));
  wake();
}

void Connection::wake() {
  if (control_flag_.must_wake()) wake_.ring();
}

// --- life cycle ------------------------------------------------------------------------------------------------------

void Connection::start() {
  if (!attached_) attach();
  if (stopping_ || std::exchange(wanted_, true)) return;
  if (phase_ != Phase::idle) return;  // still saying goodbye: what comes after that looks at wanted_ again
  set_state(ConnectionState::connecting, "connecting to " + endpoint().name());
  attempt();
  turn();
}

void Connection::attach() {
  attached_ = true;
  wake_stream_.assign(wake_.descriptor());
  listen_for_wakes();
  if (!config_.spool_dir.empty()) {
    outflow_.open(std::make_unique<Backlog>(config_, backlog_host(), left_on_disk_));
  }
}

void Connection::attempt() {
  retry_at_.reset();
  // Silence suggests the older version once; only the server's word settles it.
  const bool older = std::exchange(try_older_, false) || only_3_1_1_[endpoint_index_];
  session_.config().version = older ? ProtocolVersion::v3_1_1 : config_.protocol;
  phase_ = Phase::resolving;
  attempt_deadline_ = Clock::now() + config_.connect_timeout;
  Counters::add(counters_.reconnect_attempts, was_connected_ ? 1 : 0);
  const auto open = [this](net::Resolver::Addresses addresses) {
    phase_ = Phase::opening;
    transport_ = net::make_transport(loop_.context().get_executor(), endpoint(), config_.tls, *this);
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
  set_will(session, vitals_.will(std::chrono::system_clock::now()));
  session_.connection_opened(Clock::now());
  turn();
}

void Connection::on_open_failed(const std::string& why) {
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
  link_down(lingering_ ? closing_why_ : endpoint().name() + ": " + why, {}, Cause::network);
  turn();
}

// A server that knows 3.1.1 only should answer [MQTT-3.1.2-2], but some just close. One that has spoken 5.0 before has
// another reason.
bool Connection::closed_on_connect_of_v5() const {
  return phase_ == Phase::greeting && !leaving() && rx_end_ == 0 && redirects_.empty() &&
         session_.state() == mqtt::Session::State::connecting &&
         session_.config().version == ProtocolVersion::v5 && !spoke_v5_[endpoint_index_];
}

// The server closes the connection when it has read DISCONNECT [MQTT-3.14.4-3]; closing before that could take our last
// acknowledgements and messages from it.
void Connection::linger() {
  if (lingering_) return;
  lingering_ = true;
  set_aside_held();
  held_.reset();
  end_deadline_ = std::min(end_deadline_.value_or(Instant::max()), Clock::now() + linger_max);
  transport_->finish_sending();
  if (!reading_) transport_->read();
  reading_ = true;
}

void Connection::drop_link() {
  set_aside_held();
  resolver_.cancel();
  transport_.reset();
  attempt_deadline_.reset();
  if (session_.state() != mqtt::Session::State::closed) session_.connection_closed(Clock::now());
  if (held_) {
    held_.reset();
    session_.hold_input(false, Clock::now());
  }
  rx_presented_ = reading_ = writing_ = lingering_ = goodbye_ = false;
  release_rx();
  loop_.buffers().give(std::move(tx_));
  rx_end_ = tx_begin_ = tx_end_ = 0;
  probe_.reset();
  left_ = false;
  vitals_.disconnected();
  own_.clear();
  ServerFacts next;  // the next server is expected to take all, in the version that was spoken last
  next.v5 = session_.config().version == ProtocolVersion::v5;
  server_.store(next.packed(), std::memory_order_relaxed);
  subscriptions_.link_lost();
}

void Connection::link_down(const std::string& why, std::optional<std::uint8_t> reason_code, Cause cause) {
  const bool was_up = phase_ == Phase::up;
  const bool said_goodbye = goodbye_;
  const bool for_good = std::exchange(closing_for_good_, false);
  drop_link();
  if (was_up) {
    const auto uptime = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - up_since_);
    backoff_.link_lost(uptime);
    if (uptime >= stable_after) redirections_ = 0;
  }
  if (stopping_) return finish(why);
  if (!wanted_) return go_idle(why);
  if (said_goodbye) {  // and start() was called meanwhile
    go_idle(why);
    set_state(ConnectionState::connecting, "connecting to " + endpoint().name());
    return attempt();
  }
  if (!was_up) return attempt_failed(why, reason_code, for_good);
  switch (cause) {
    case Cause::network: Counters::add(counters_.disconnects_by_network); break;
    case Cause::server: Counters::add(counters_.disconnects_by_server); break;
    case Cause::timeout: Counters::add(counters_.disconnects_by_timeout); break;
    case Cause::violation: Counters::add(counters_.disconnects_by_violation); break;
  }
  if (redirect_now_) {
    set_state(ConnectionState::reconnecting, why, reason_code);
    return attempt_failed(why, reason_code, for_good);
  }
  retry_later(why, reason_code, for_good);
}

// Several references are tried in their order [MQTT5 4.11].
void Connection::follow(mqtt::ReasonCode reason, std::string_view server_reference) {
  if (!config_.follow_redirects || endpoint().is_local() || redirections_ >= redirections_max) return;
  if (reason != mqtt::ReasonCode::use_another_server && reason != mqtt::ReasonCode::server_moved) return;
  const auto from = endpoint();
  std::vector<net::Endpoint> found;
  while (!server_reference.empty()) {
    const auto end = std::min(server_reference.find(' '), server_reference.size());
    if (auto to = net::parse_url(std::string(net::to_string(from.scheme)) + "://" +
                                 std::string(server_reference.substr(0, end)) + from.path)) {
      to->username = from.username;
      to->password = from.password;
      found.push_back(std::move(*to));
    }
    server_reference.remove_prefix(std::min(end + 1, server_reference.size()));
  }
  if (found.empty()) return;
  ++redirections_;
  redirects_ = std::move(found);
  redirect_now_ = true;
}

void Connection::attempt_failed(const std::string& why, std::optional<std::uint8_t> reason_code,
                                bool permanent) {
  drop_link();
  if (stopping_) return finish(why);
  if (!wanted_) return go_idle(why);
  attempt_failures_ += (attempt_failures_.empty() ? "" : "; ") + why;
  if (!redirects_.empty()) {
    // The first of them has just been named, or has just failed.
    if (!std::exchange(redirect_now_, false)) redirects_.erase(redirects_.begin());
    if (!redirects_.empty()) return attempt();
  } else if (++tried_ < endpoints_.size()) {
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
    if (waiter->waits_for_messages()) continue;
    const bool connecting = waiter->kind == Waiter::For::connect;
    if (waiter->state == state) {
      waiter->complete({});
    } else if (connecting && reason_code) {
      waiter->complete(std::unexpected(Error{Errc::connection_refused, reason, reason_code}));
    } else if (connecting && state == ConnectionState::disconnected) {
      waiter->complete(fail(stopping_ ? Errc::shutting_down : Errc::cancelled, reason));
    }
  }
  check_waiters();
}

void Connection::disconnect() {
  if (!std::exchange(wanted_, false) || stopping_) return;
  if (phase_ != Phase::up) return go_idle("disconnected by the caller");
  set_state(ConnectionState::disconnecting, "disconnected by the caller");
  end_deadline_ = Clock::now() + goodbye_max;
  take_acknowledgements();
  closing_why_ = "disconnected by the caller";
  say_leaving();
  publish_own();
  goodbye_ = true;
  session_.disconnect();
  turn();
}

void Connection::say_leaving() {
  if (phase_ != Phase::up || goodbye_ || std::exchange(left_, true)) return;
  vitals_.leaving(std::chrono::system_clock::now());
}

void Connection::go_idle(const std::string& why) {
  drop_link();
  phase_ = Phase::idle;
  retry_at_.reset();
  end_deadline_.reset();
  tried_ = endpoint_index_ = 0;
  attempt_failures_.clear();
  was_connected_ = false;
  set_state(ConnectionState::disconnected, why);
}

void Connection::stop(std::chrono::milliseconds deadline, std::shared_ptr<Waiter> finished) {
  finished_ = std::move(finished);
  if (!attached_) attach();
  stopping_ = true;
  wanted_ = false;
  end_deadline_ = Clock::now() + deadline;
  set_state(ConnectionState::disconnecting, "shutting down");
  if (phase_ == Phase::up) {
    take_acknowledgements();  // what handlers have returned from must not come again
    closing_why_ = "shut down";
    say_leaving();
    publish_own();
    goodbye_ = true;
    session_.disconnect();
    turn();
  } else {
    finish("shut down");
  }
}

std::uint64_t Connection::close_backlog(std::chrono::milliseconds deadline) {
  auto* backlog = outflow_.backlog();
  if (!backlog) return left_on_disk_;
  backlog->stop(deadline, [this](Backlog::Unsettled message) {
    if (!message.maybe_stored) Counters::add(counters_.dropped_shutdown);
    if (message.token) tell(message.sequence, message.token, Delivery::Outcome::dropped, 0);
  });
  take_snapshot();
  left_on_disk_ = counters_.spool_messages.load(std::memory_order_relaxed);
  spooled_before_ += backlog->spooled();
  replayed_before_ += backlog->replayed();
  outflow_.close();
  return left_on_disk_;
}

void Connection::finish(const std::string& why) {
  drop_link();
  phase_ = Phase::idle;
  retry_at_.reset();
  end_deadline_.reset();
  later_.clear();
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
    drop(mqtt::RecordView(block.data()), counters_.dropped_shutdown);
    outbox_.pop();
  }
  take_snapshot();
  set_state(ConnectionState::disconnected, why);
  for (const auto& waiter : std::exchange(waiters_, {})) {
    if (!waiter->done.load(std::memory_order_relaxed)) {
      waiter->complete(fail(Errc::shutting_down, "the client was shut down"));
    }
  }
  stopping_ = false;
  was_connected_ = false;
  // Nothing of ours may be left in the loop when the waiter is told: operations that have just been cancelled or had
  // completed already are in its queue now, before what is posted here.
  attached_ = false;
  timer_.cancel();
  timer_armed_.reset();
  wake_stream_.release();
  asio::post(loop_.context(), [finished = std::exchange(finished_, nullptr)] { finished->complete({}); });
}

}  // namespace fulmar
