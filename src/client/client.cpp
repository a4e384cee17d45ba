#include "fulmar/client.hpp"

#include <pthread.h>
#include <signal.h>

#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <boost/asio/io_context.hpp>

#include "client/connection.hpp"
#include "client/dispatcher.hpp"
#include "client/handler_table.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "net/endpoint.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

// Larger payloads are shared by reference instead of lying in the outbox.
constexpr std::size_t inline_payload_max = std::size_t{64} << 10;
// [MQTT5 1.5.5]: the greatest remaining length.
constexpr std::size_t remaining_length_max = 268'435'455;

// Threads started within its life take no signals: those are for the program's own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

ClientConfig valid(ClientConfig config) {
  std::string all;
  for (const auto& problem : config.problems()) all += (all.empty() ? "" : "\n") + problem;
  if (!all.empty()) throw std::invalid_argument(all);
  return config;
}

std::vector<net::Endpoint> endpoints_of(const ClientConfig& config) {
  std::vector<net::Endpoint> endpoints;
  for (const auto& url : config.urls) endpoints.push_back(*net::parse_url(url));
  return endpoints;
}

template <typename Function>
std::unique_ptr<Connection::Command> command(Function function) {
  struct Call final : Connection::Command {
    explicit Call(Function f) : function(std::move(f)) {}
    void run(Connection& connection) override { function(connection); }
    Function function;
  };
  return std::make_unique<Call>(std::move(function));
}

}  // namespace

class Client::Impl : public std::enable_shared_from_this<Impl> {
 public:
  explicit Impl(ClientConfig config)
      : config_(valid(std::move(config))),
        outbox_(config_.outbox_bytes, config_.outbox_messages),
        dispatcher_(config_.inbound_bytes, table_, [this] { connection_.wake(); }),
        connection_(context_, config_, endpoints_of(config_), outbox_, dispatcher_, counters_,
                    [this](const StateChange& change) { tell(change); }) {}

  ~Impl() {
    // A publish() that raced with the client's end, or a client that was never started.
    drop_waiting();
  }

  void start() {
    const std::lock_guard lock(life_);
    if (started_ || shut_down_) return;
    started_ = true;
    const SignalsBlocked blocked;
    dispatcher_.start(shared_from_this());
    io_thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "fulmar-io");
      connection_.start();
      context_.run();
    });
  }

  Result<void> connect(milliseconds timeout) {
    start();
    auto waiter = std::make_shared<Waiter>();
    waiter->kind = Waiter::For::connect;
    if (wait(waiter, timeout)) return waiter->result;
    const auto change = last_change();
    std::string why = "not connected within " + std::to_string(timeout.count()) + " ms";
    if (!change.reason.empty()) why += ": " + change.reason;
    return std::unexpected(Error{Errc::timeout, why, change.reason_code});
  }

  bool wait_for(ConnectionState state, milliseconds timeout) {
    auto waiter = std::make_shared<Waiter>();
    waiter->kind = Waiter::For::state;
    waiter->state = state;
    if (connection_.state() == state) return true;
    return wait(waiter, timeout) && waiter->result.has_value();
  }

  bool flush(milliseconds deadline) {
    auto waiter = std::make_shared<Waiter>();
    waiter->kind = Waiter::For::flush;
    waiter->sequence = outbox_.pushed();
    return wait(waiter, deadline) && waiter->result.has_value();
  }

  ShutdownReport shutdown(milliseconds deadline) {
    const auto until = Clock::now() + deadline;
    outbox_.close();
    std::unique_lock ending(ending_, std::defer_lock);
    if (!dispatcher_.on_thread()) {
      ending.lock();
    } else if (!ending.try_lock()) {
      return report();  // another thread is at it, and waits for the handler that called this
    }
    bool started = false;
    {
      const std::lock_guard lock(life_);
      if (std::exchange(shut_down_, true)) return report();
      started = started_;
    }
    if (started) {
      flush(deadline);
      const auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now());
      const auto goodbye = std::max(left, milliseconds(200));
      connection_.post(command([goodbye](Connection& connection) { connection.stop(goodbye); }));
      io_thread_.join();
    } else {
      connection_.end_unstarted();
      dispatcher_.start(shared_from_this());  // for the delivery handlers of what was published
    }
    drop_waiting();
    dispatcher_.stop();
    dispatcher_.join();
    return report();
  }

  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                            DeliveryHandler handler) {
    if (const auto error = mqtt::check_topic_name(topic); error != mqtt::TopicError::none) {
      return bad_topic("topic", topic, error);
    }
    mqtt::RecordParts parts;
    parts.topic = topic;
    parts.payload = payload;
    parts.qos = options.qos;
    parts.retain = options.retain;
    if (options.message_expiry) {
      if (options.message_expiry->count() < 0 || options.message_expiry->count() >= mqtt::no_expiry) {
        return fail(Errc::invalid_config, "message expiry of " +
                                              std::to_string(options.message_expiry->count()) +
                                              " s is out of range; expected 0 to 4294967294");
      }
      parts.expiry_s = static_cast<std::uint32_t>(options.message_expiry->count());
      parts.accepted_ns = Clock::now().time_since_epoch().count();
    }
    // Fixed header, topic length, identifier, and properties with the expiry take at most 17 bytes more.
    const std::size_t packet = topic.size() + payload.size() + 17;
    if (packet > remaining_length_max || topic.size() + payload.size() > connection_.server_packet_max()) {
      return too_large(packet, "the largest packet of MQTT or of this server");
    }
    const bool by_reference =
        payload.size() > inline_payload_max || payload.size() + topic.size() > outbox_.block_max() / 2;
    const std::size_t size = mqtt::RecordView::size_for(topic.size(), 0, payload.size(), by_reference);
    if (size > outbox_.block_max() || (by_reference && payload.size() > config_.outbox_bytes)) {
      return too_large(packet, "the outbox; raise outbox_bytes (MQTT_OUTBOX_BYTES)");
    }
    if (by_reference && !share(payload, parts)) return overflow(std::move(handler));

    std::uint64_t sequence = 0;
    std::byte* block = outbox_.try_reserve(size, &sequence);
    if (!block) {
      if (parts.shared) parts.shared->release();
      return overflow(std::move(handler));
    }
    if (handler) {
      auto item = std::make_unique<DeliveryItem>();
      item->handler = std::move(handler);
      parts.token = reinterpret_cast<std::uint64_t>(item.release());
    }
    parts.sequence = sequence;
    mqtt::write_record(block, parts);
    outbox_.commit(block, size);
    if (config_.wakeup.lazy_interval.count() == 0) connection_.publisher_wake();
    return sequence;
  }

  std::uint64_t subscribe(std::string_view filter, MessageHandler handler, const SubscribeOptions& options,
                          GrantedHandler granted) {
    const auto id = table_.set(filter, std::move(handler));
    connection_.post(command([filter = std::string(filter), options,
                              granted = std::move(granted)](Connection& connection) mutable {
      connection.subscriptions().want(std::move(filter), options, std::move(granted));
    }));
    return id;
  }

  void unsubscribe(const std::string& filter, std::uint64_t id) {
    if (!table_.remove(filter, id)) return;
    connection_.post(
        command([filter](Connection& connection) { connection.subscriptions().forget(filter); }));
  }

  StateChange last_change() const {
    const std::lock_guard lock(users_);
    return last_change_;
  }

  void on_state_change(std::function<void(const StateChange&)> handler) {
    const std::lock_guard lock(users_);
    on_state_change_ =
        handler ? std::make_shared<std::function<void(const StateChange&)>>(std::move(handler)) : nullptr;
  }

  void set_log_sink(LogSink sink) {
    const std::lock_guard lock(life_);
    if (!started_) dispatcher_.set_log_sink(std::move(sink));
  }

  ConnectionState state() const { return connection_.state(); }

  Metrics metrics() const {
    Metrics m;
    const auto get = [](const Counters::Counter& counter) { return counter.load(std::memory_order_relaxed); };
    m.sent = get(counters_.sent);
    m.acknowledged = get(counters_.acknowledged);
    m.refused = get(counters_.refused);
    m.expired = get(counters_.expired);
    m.dropped = dropped();
    m.received = get(counters_.received);
    m.handled = dispatcher_.handled();
    m.handler_errors = dispatcher_.handler_errors();
    m.connects = get(counters_.connects);
    m.disconnects = get(counters_.disconnects);
    m.reconnect_attempts = get(counters_.reconnect_attempts);
    m.bytes_in = get(counters_.bytes_in);
    m.bytes_out = get(counters_.bytes_out);
    m.in_flight = get(counters_.in_flight);
    m.outbox_messages = outbox_.depth();
    m.outbox_bytes = outbox_.bytes() + shared_bytes_.load(std::memory_order_relaxed);
    // Last, so that what has an outcome was accepted, and `waiting` is never negative.
    m.accepted = outbox_.pushed() + dropped_at_publish_.load(std::memory_order_relaxed);
    m.waiting = m.accepted - m.acknowledged - m.refused - m.expired - m.dropped;
    return m;
  }

  static std::unexpected<Error> bad_topic(std::string_view kind, std::string_view topic,
                                          mqtt::TopicError error) {
    std::string shown(topic.substr(0, 64));
    if (topic.size() > shown.size()) shown += "...";
    return fail(Errc::invalid_topic, "invalid " + std::string(kind) + " \"" + shown +
                                         "\": " + std::string(mqtt::to_string(error)));
  }

 private:
  static std::unexpected<Error> too_large(std::size_t size, const std::string& bound) {
    return fail(Errc::payload_too_large,
                "a packet of " + std::to_string(size) + " bytes is larger than " + bound);
  }

  // Copies a large payload once and counts it against the outbox until its last owner lets go of it.
  bool share(BytesView payload, mqtt::RecordParts& parts) {
    if (shared_bytes_.fetch_add(payload.size(), std::memory_order_relaxed) + payload.size() >
        config_.outbox_bytes) {
      shared_bytes_.fetch_sub(payload.size(), std::memory_order_relaxed);
      return false;
    }
    parts.shared = new mqtt::SharedPayload;
    parts.shared->bytes = std::make_unique_for_overwrite<std::byte[]>(payload.size());
    parts.shared->size = payload.size();
    parts.shared->account = &shared_bytes_;
    std::memcpy(parts.shared->bytes.get(), payload.data(), payload.size());
    return true;
  }

  Result<MessageId> overflow(DeliveryHandler handler) {
    if (outbox_.closed()) return fail(Errc::shutting_down, "the client was shut down");
    if (config_.overflow == Overflow::reject || config_.overflow == Overflow::block) {
      return fail(Errc::outbox_full,
                  "the outbox is full: " + std::to_string(outbox_.depth()) + " messages, " +
                      std::to_string(outbox_.bytes() + shared_bytes_.load()) + " bytes wait");
    }
    dropped_at_publish_.fetch_add(1, std::memory_order_relaxed);
    if (handler) {
      auto item = std::make_unique<DeliveryItem>();
      item->handler = std::move(handler);
      item->delivery = {no_message_id, Delivery::Outcome::dropped, 0};
      dispatcher_.post(std::move(item));
    }
    return no_message_id;
  }

  ShutdownReport report() const {
    return {counters_.acknowledged.load(std::memory_order_relaxed), dropped()};
  }

  std::uint64_t dropped() const {
    return counters_.dropped.load(std::memory_order_relaxed) +
           dropped_at_publish_.load(std::memory_order_relaxed);
  }

  bool wait(const std::shared_ptr<Waiter>& waiter, milliseconds timeout) {
    const auto until = Clock::now() + timeout;
    connection_.post(command([waiter](Connection& connection) { connection.add_waiter(waiter); }));
    while (!waiter->done.load(std::memory_order_seq_cst)) {
      waiter->bell.announce();
      if (waiter->done.load(std::memory_order_seq_cst)) break;
      if (Clock::now() >= until) {
        waiter->abandoned.store(true, std::memory_order_relaxed);
        return false;
      }
      waiter->bell.sleep_until(until);
    }
    return true;
  }

  // No I/O thread (any more): settles what it did not take.
  void drop_waiting() {
    outbox_.close();
    for (auto block = outbox_.front(); !block.empty(); block = outbox_.front()) {
      const mqtt::RecordView record(block.data());
      Counters::add(counters_.dropped);
      if (const auto token = record.header().token) {
        auto item = DeliveryItem::of(token);
        item->delivery = {record.header().sequence, Delivery::Outcome::dropped, 0};
        dispatcher_.post(std::move(item));
      }
      if (auto* shared = record.shared_payload()) shared->release();
      outbox_.pop();
    }
  }

  void tell(const StateChange& change) {
    std::shared_ptr<std::function<void(const StateChange&)>> handler;
    {
      const std::lock_guard lock(users_);
      last_change_ = change;
      handler = on_state_change_;
    }
    if (handler) (*handler)(change);
  }

  static constexpr MessageId no_message_id = ~MessageId{0};

  const ClientConfig config_;
  Counters counters_;
  std::atomic<std::uint64_t> dropped_at_publish_{0};
  std::atomic<std::size_t> shared_bytes_{0};  // of payloads that travel by reference
  outbox::Ring outbox_;
  HandlerTable table_;
  asio::io_context context_{1};
  Dispatcher dispatcher_;
  Connection connection_;

  std::mutex life_;    // started_, shut_down_; never held while waiting
  std::mutex ending_;  // held through shutdown(), which one thread does
  bool started_ = false;
  bool shut_down_ = false;
  std::thread io_thread_;

  mutable std::mutex users_;  // users' threads and the dispatch thread only
  StateChange last_change_;
  std::shared_ptr<std::function<void(const StateChange&)>> on_state_change_;
};

// --- the public face -------------------------------------------------------------------------------------------------

struct Subscription::State {
  std::weak_ptr<Client::Impl> client;
  std::string filter;
  std::uint64_t id = 0;
};

Subscription::Subscription(std::shared_ptr<State> state) : state_(std::move(state)) {}
Subscription::Subscription(Subscription&&) noexcept = default;
Subscription& Subscription::operator=(Subscription&& other) noexcept {
  if (this != &other) {
    unsubscribe();
    state_ = std::move(other.state_);
  }
  return *this;
}
Subscription::~Subscription() { unsubscribe(); }

const std::string& Subscription::filter() const {
  static const std::string none;
  return state_ ? state_->filter : none;
}

void Subscription::unsubscribe() {
  const auto state = std::move(state_);
  if (!state) return;
  if (const auto client = state->client.lock()) client->unsubscribe(state->filter, state->id);
}

void Subscription::detach() { state_.reset(); }

Client::Client(ClientConfig config) : impl_(std::make_shared<Impl>(std::move(config))) {}
Client::~Client() { impl_->shutdown(std::chrono::seconds(1)); }

void Client::start() { impl_->start(); }
Result<void> Client::connect(milliseconds timeout) { return impl_->connect(timeout); }
ShutdownReport Client::shutdown(milliseconds deadline) { return impl_->shutdown(deadline); }
bool Client::flush(milliseconds deadline) { return impl_->flush(deadline); }
ConnectionState Client::state() const { return impl_->state(); }
bool Client::wait_for(ConnectionState state, milliseconds timeout) const {
  return impl_->wait_for(state, timeout);
}
StateChange Client::last_change() const { return impl_->last_change(); }
void Client::on_state_change(std::function<void(const StateChange&)> handler) {
  impl_->on_state_change(std::move(handler));
}
void Client::set_log_sink(LogSink sink) { impl_->set_log_sink(std::move(sink)); }
Metrics Client::metrics() const { return impl_->metrics(); }

Result<MessageId> Client::publish(std::string_view topic, BytesView payload, const PublishOptions& options) {
  return impl_->publish(topic, payload, options, {});
}

Result<MessageId> Client::publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                                  DeliveryHandler handler) {
  return impl_->publish(topic, payload, options, std::move(handler));
}

Result<Subscription> Client::subscribe(std::string_view filter, MessageHandler handler,
                                       const SubscribeOptions& options, GrantedHandler granted) {
  if (const auto error = mqtt::check_topic_filter(filter); error != mqtt::TopicError::none) {
    return Impl::bad_topic("topic filter", filter, error);
  }
  if (!handler) return fail(Errc::invalid_config, "the handler for \"" + std::string(filter) + "\" is empty");
  auto state = std::make_shared<Subscription::State>();
  state->client = impl_;
  state->filter = filter;
  state->id = impl_->subscribe(filter, std::move(handler), options, std::move(granted));
  return Subscription(std::move(state));
}

std::string_view to_string(Delivery::Outcome outcome) {
  switch (outcome) {
    case Delivery::Outcome::sent: return "sent";
    case Delivery::Outcome::acknowledged: return "acknowledged";
    case Delivery::Outcome::refused: return "refused";
    case Delivery::Outcome::expired: return "expired";
    case Delivery::Outcome::dropped: return "dropped";
  }
  return "unknown";
}

std::string_view to_string(ConnectionState state) {
  switch (state) {
    case ConnectionState::created: return "created";
    case ConnectionState::connecting: return "connecting";
    case ConnectionState::connected: return "connected";
    case ConnectionState::reconnecting: return "reconnecting";
    case ConnectionState::disconnecting: return "disconnecting";
    case ConnectionState::disconnected: return "disconnected";
  }
  return "unknown";
}

}  // namespace fulmar
