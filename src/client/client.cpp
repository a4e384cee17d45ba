#include "fulmar/client.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "client/connection.hpp"
#include "client/deduplicator.hpp"
#include "client/dispatcher.hpp"
#include "client/envelope.hpp"
#include "client/handler_table.hpp"
#include "client/outgoing_properties.hpp"
#include "client/requests.hpp"
#include "client/runtime.hpp"
#include "client/stored_message.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/topic.hpp"
#include "net/endpoint.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

// Larger payloads are shared by reference instead of lying in the outbox.
constexpr std::size_t inline_payload_max = std::size_t{64} << 10;
// [MQTT5 1.5.5]: the greatest remaining length.
constexpr std::size_t remaining_length_max = 268'435'455;

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

template <typename Function>
std::unique_ptr<Dispatcher::Item> item(Function function) {
  struct Call final : Dispatcher::Item {
    explicit Call(Function f) : function(std::move(f)) {}
    void run() override { function(); }
    Function function;
  };
  return std::make_unique<Call>(std::move(function));
}

// At shutdown the disk gets the last second of the deadline (half of a shorter one), and on a busy machine a second more:
// what would be lost otherwise is worth the wait.
constexpr std::chrono::seconds disk_grace{1};

// De-duplication of envelopes, where the configuration asks for it.
class EnvelopeFilter final : public CallFilter {
 public:
  explicit EnvelopeFilter(const ClientConfig& config)
      : envelopes_(config.dedupe_ttl, config.dedupe_max_entries) {}
  std::optional<Key> key_of(const Message& message) override { return envelopes_.key_of(message); }
  bool seen(const Key& key, std::uint64_t handler_id, Instant now) override {
    return envelopes_.seen(key, handler_id, now);
  }
  void mark(const Key& key, std::uint64_t handler_id, Instant now) override {
    envelopes_.mark(key, handler_id, now);
  }

 private:
  Deduplicator envelopes_;
};

}  // namespace

class Client::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(ClientConfig config, std::shared_ptr<Runtime::Impl> shared)
      : config_(valid(std::move(config))),
        owns_runtime_(!shared),
        runtime_(shared ? std::move(shared) : std::make_shared<Runtime::Impl>(Runtime::Options{})),
        outbox_(config_.outbox_bytes, config_.outbox_messages),
        table_(config_.max_subscriptions),
        loop_(runtime_->assign_loop()),
        dispatcher_(runtime_->assign_worker(), config_.inbound_bytes, table_, [this] { connection_.wake(); }),
        connection_(loop_, config_, endpoints_of(config_), outbox_, dispatcher_, counters_,
                    [this](const StateChange& change) { tell(change); }) {
    if (!config_.clean_start) dispatcher_.keep_unrouted();
    if (config_.dedupe_ttl.count() > 0) {
      dispatcher_.set_call_filter(std::make_unique<EnvelopeFilter>(config_));
    }
  }

  ~Impl() {
    // A publish() that raced with the client's end, or a client that was never started.
    drop_waiting();
  }

  void start() {
    const std::lock_guard lock(life_);
    if (life_stage_ == Stage::ending || in_forked_child()) return;
    if (life_stage_ != Stage::running) {
      owner_ = getpid();
      if (requests_) requests_->closing(false);
      outbox_.reopen();
      loop_.start();
      loop_.post([this] { dispatcher_.start(shared_from_this()); });
      life_stage_ = Stage::running;
    }
    loop_.post([this] { connection_.start(); });
  }

  void disconnect() {
    const std::lock_guard lock(life_);
    if (life_stage_ != Stage::running || in_forked_child()) return;
    loop_.post([this] { connection_.disconnect(); });
  }

  // The threads stay with the parent: their descriptors are shared, and what is destroyed here would end its connection.
  bool in_forked_child() const { return owner_ != 0 && owner_ != getpid(); }

  Result<void> connect(milliseconds timeout) {
    const auto until = Clock::now() + timeout;
    auto waiter = std::make_shared<Waiter>();
    waiter->kind = Waiter::For::connect;
    // Before start(), so that it misses nothing.
    connection_.post(command([waiter](Connection& connection) { connection.add_waiter(waiter); }));
    start();
    if (wait_for_completion(*waiter, until)) return waiter->result;
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
    if (in_forked_child()) return report();
    const auto until = Clock::now() + deadline;
    std::unique_lock ending(ending_, std::defer_lock);
    if (!dispatcher_.on_thread()) {
      ending.lock();
    } else if (!ending.try_lock()) {
      return report();  // another thread is at it, and waits for the handler that called this
    }
    bool running = false;
    {
      const std::lock_guard lock(life_);
      if (life_stage_ == Stage::ended) return report();
      running = life_stage_ == Stage::running;
      life_stage_ = Stage::ending;
      if (requests_) requests_->closing(true);
    }
    if (running) connection_.post(command([](Connection& connection) { connection.say_leaving(); }));
    outbox_.close();
    if (running) {
      const bool has_disk = !config_.spool_dir.empty();
      const auto for_disk = has_disk ? std::min<milliseconds>(deadline / 2, disk_grace) : milliseconds(0);
      if (has_disk || connection_.state() != ConnectionState::disconnected) flush(deadline - for_disk);
      const auto disk_until = std::max(until, Clock::now() + disk_grace);
      if (has_disk) store_all(disk_until);
      const auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now());
      const auto goodbye = std::max(left, milliseconds(200));
      auto finished = std::make_shared<Waiter>();
      finished->kind = Waiter::For::finish;
      loop_.post([this, goodbye, finished] { connection_.stop(goodbye, finished); });
      wait_for_completion(*finished, Clock::time_point::max());
      left_on_disk_ = connection_.close_backlog(
          std::max(std::chrono::duration_cast<milliseconds>(disk_until - Clock::now()), milliseconds(200)));
      if (owns_runtime_) runtime_->stop();
    } else {
      connection_.end_unstarted();
      dispatcher_.start(shared_from_this());  // for the delivery handlers of what was published
    }
    drop_waiting();
    if (const auto requests = requests_in_use()) dispatcher_.post(item([requests] { requests->end(); }));
    // A handler has a moment to return, also when there was none for the broker.
    dispatcher_.stop(std::max(until, Clock::now() + milliseconds(200)));
    if (owns_runtime_) runtime_->stop_dispatch();
    table_.end_grants({Errc::shutting_down, "the client was shut down", std::nullopt});
    const std::lock_guard lock(life_);
    life_stage_ = Stage::ended;
    return report();
  }

  // With a spool: what is not acknowledged goes there.
  void store_all(Clock::time_point until) {
    auto waiter = std::make_shared<Waiter>();
    waiter->kind = Waiter::For::store;
    waiter->sequence = outbox_.pushed();
    connection_.post(command([waiter](Connection& connection) { connection.add_waiter(waiter); }));
    wait_for_completion(*waiter, until);
  }

  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                            DeliveryHandler handler) {
    auto id = place(topic, payload, options, handler);
    if (!id && id.error().code == Errc::outbox_full && config_.overflow == Overflow::block &&
        !dispatcher_.on_thread()) {
      id = place_when_there_is_room(topic, payload, options, handler);
    }
    if (id) wake_after_publish();
    return id;
  }

  BatchResult publish(std::span<const OutgoingMessage> messages) {
    BatchResult result;
    for (const auto& message : messages) {
      DeliveryHandler none;
      auto id = place(message.topic, message.payload, message.options, none);
      if (!id) {
        result.error = std::move(id.error());
        break;
      }
      if (result.accepted++ == 0) result.first = *id;
    }
    if (result.accepted > 0) wake_after_publish();
    return result;
  }

  // Made when first asked for: most clients ask for nothing.
  Requests& requests() {
    const std::lock_guard lock(life_);
    if (!requests_) {
      requests_ = std::make_shared<Requests>(config_.client_id, std::string(source_of(config_)), host());
      requests_->closing(life_stage_ == Stage::ending || life_stage_ == Stage::ended);
    }
    return *requests_;
  }

  std::shared_ptr<Requests> requests_in_use() const {
    const std::lock_guard lock(life_);
    return requests_;
  }

  Result<Subscription> subscription(std::string_view filter, MessageHandler handler,
                                    const SubscribeOptions& options, GrantedHandler granted);

  Result<HandlerTable::EntryPtr> subscribe(std::string_view filter, MessageHandler handler,
                                           const SubscribeOptions& options, GrantedHandler granted) {
    if (const auto error = mqtt::check_topic_filter(filter); error != mqtt::TopicError::none) {
      return bad_topic("topic filter", filter, error);
    }
    const auto invalid = [&](std::string_view why) {
      return fail(Errc::invalid_config,
                  "cannot subscribe to \"" + std::string(filter.substr(0, 64)) + "\": " + std::string(why));
    };
    if (!handler) return invalid("the handler is empty");
    if (options.qos > QoS::exactly_once) return invalid("the QoS is not 0, 1 or 2");
    if (options.retain_handling > RetainHandling::do_not_send)
      return invalid("the retain handling is not 0, 1 or 2");
    if (options.no_local && filter.starts_with("$share/")) {
      return invalid("no_local is not for shared subscriptions [MQTT-3.8.3-4]");
    }
    const std::lock_guard lock(subscribing_);
    auto entry = table_.set(filter, std::move(handler), options, std::move(granted));
    if (!entry) return entry;
    const SubscriptionRequests::Terms terms{.id = (*entry)->id,
                                            .identifier = (*entry)->identifier,
                                            .qos = options.qos,
                                            .no_local = options.no_local,
                                            .retain_as_published = options.retain_as_published,
                                            .retain_handling = options.retain_handling};
    connection_.post(command([filter = std::string(filter), terms](Connection& connection) mutable {
      connection.subscriptions().want(std::move(filter), terms);
    }));
    return entry;
  }

  // `id` 0: whichever it is.
  bool unsubscribe(std::string_view filter, std::uint64_t id) {
    const std::lock_guard lock(subscribing_);
    if (table_.remove(filter, id) == 0) return false;
    connection_.post(command([filter = std::string(filter)](Connection& connection) {
      connection.subscriptions().forget(filter);
    }));
    return true;
  }

  Result<std::string> publish_event(std::string_view topic, std::string_view type, std::string_view json,
                                    const EventOptions& options) {
    std::string id = new_ulid();
    auto envelope = write_envelope({.id = id,
                                    .type = type,
                                    .ts = seconds_of(std::chrono::system_clock::now()),
                                    .source = source_of(config_),
                                    .data = json,
                                    .correlate = options.correlation_id});
    if (!envelope) return std::unexpected(std::move(envelope.error()));
    if (auto sent = publish(topic, as_bytes(*envelope), {.qos = options.qos, .retain = options.retain}, {});
        !sent) {
      return std::unexpected(std::move(sent.error()));
    }
    return id;
  }

  Result<MessageId> publish_health(bool ok, std::string_view event, std::string_view error) {
    if (!config_.enable_health) return MessageId{0};
    auto payload = health_payload(source_of(config_), ok, event, error, std::chrono::system_clock::now());
    if (!payload) return std::unexpected(std::move(payload.error()));
    return publish(health_topic(config_.client_id), as_bytes(*payload),
                   {.qos = QoS::at_least_once, .retain = true}, {});
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
    if (life_stage_ != Stage::running) dispatcher_.set_log_sink(std::move(sink));
  }

  ConnectionState state() const { return connection_.state(); }
  const std::string& spool_dir() const { return config_.spool_dir; }

  Metrics metrics() const {
    Metrics m;
    const auto get = [](const Counters::Counter& counter) { return counter.load(std::memory_order_relaxed); };
    m.sent = get(counters_.sent);
    m.resent = get(counters_.resent);
    m.acknowledged = get(counters_.acknowledged);
    m.refused = get(counters_.refused);
    m.expired = get(counters_.expired);
    m.dropped_overflow = get(counters_.dropped_overflow) + dropped_overflow_.load(std::memory_order_relaxed);
    m.dropped_offline = dropped_offline_.load(std::memory_order_relaxed);
    m.dropped_shutdown = get(counters_.dropped_shutdown);
    m.dropped_spool = get(counters_.dropped_spool);
    m.dropped = m.dropped_overflow + m.dropped_offline + m.dropped_shutdown + m.dropped_spool;
    m.spooled = get(counters_.spooled);
    m.replayed = get(counters_.replayed);
    m.spool_messages = get(counters_.spool_messages);
    m.spool_bytes = get(counters_.spool_bytes);
    m.spool_failing = get(counters_.spool_failing) != 0;
    if (const auto oldest_ms = get(counters_.spool_oldest_ms)) {
      const auto age = std::chrono::system_clock::now().time_since_epoch() - milliseconds(oldest_ms);
      m.spool_oldest_age = std::max(std::chrono::duration_cast<milliseconds>(age), milliseconds(0));
    }
    m.received = get(counters_.received);
    const auto inbound = dispatcher_.counts();
    m.handled = inbound.handled;
    m.unrouted = inbound.unrouted;
    m.duplicates = inbound.duplicates;
    m.handler_errors = inbound.handler_errors;
    m.inbound_messages = inbound.waiting;
    m.handler_latency = inbound.latency;
    m.subscriptions = table_.size();
    m.connects = get(counters_.connects);
    m.disconnects_by_server = get(counters_.disconnects_by_server);
    m.disconnects_by_network = get(counters_.disconnects_by_network);
    m.disconnects_by_timeout = get(counters_.disconnects_by_timeout);
    m.disconnects_by_violation = get(counters_.disconnects_by_violation);
    m.disconnects = m.disconnects_by_server + m.disconnects_by_network + m.disconnects_by_timeout +
                    m.disconnects_by_violation;
    m.reconnect_attempts = get(counters_.reconnect_attempts);
    m.attempts_refused = get(counters_.attempts_refused);
    m.protocol_violations = get(counters_.protocol_violations);
    m.answers_ignored = get(counters_.answers_ignored);
    m.bytes_in = get(counters_.bytes_in);
    m.bytes_out = get(counters_.bytes_out);
    if (const auto asked = requests_in_use()) {
      const auto requests = asked->counts();
      m.handler_errors += requests.handler_errors;
      m.requests = requests.requests;
      m.requests_timed_out = requests.timed_out;
      m.responses_late = requests.late;
    }
    m.round_trip = std::chrono::microseconds(get(counters_.round_trip_us));
    m.in_flight = get(counters_.in_flight);
    m.outbox_messages = outbox_.depth();
    m.outbox_bytes = outbox_.bytes() + shared_bytes_.load(std::memory_order_relaxed);
    // Last, so that what has an outcome was accepted, and `waiting` is never negative.
    m.accepted = outbox_.pushed() + dropped_at_publish();
    m.recovered = get(counters_.recovered);
    // But for a moment in which a message that the spool gave up, and that was acknowledged meanwhile, counts as both.
    const auto all = m.accepted + m.recovered;
    m.waiting = all - std::min(all, m.acknowledged + m.refused + m.expired + m.dropped);
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
  enum class Stage : std::uint8_t { created, running, ending, ended };

  static std::unexpected<Error> too_large(std::size_t size, const std::string& bound) {
    return fail(Errc::payload_too_large,
                "a packet of " + std::to_string(size) + " bytes is larger than " + bound);
  }

  // publish() without waking anybody.
  Result<MessageId> place(std::string_view topic, BytesView payload, const PublishOptions& options,
                          DeliveryHandler& handler) {
    if (const auto error = mqtt::check_topic_name(topic); error != mqtt::TopicError::none) {
      return bad_topic("topic", topic, error);
    }
    mqtt::RecordParts parts;
    parts.topic = topic;
    parts.payload = payload;
    parts.qos = options.qos;
    parts.retain = options.retain;
    const auto durability = options.durability.value_or(config_.durability);
    if (options.durability && durability != Durability::memory && entry_bytes_max_ == 0) {
      return fail(
          Errc::invalid_config,
          "a durability other than memory needs a folder for what waits: set spool_dir (MQTT_SPOOL_DIR)");
    }
    parts.write_ahead = durability == Durability::write_ahead;
    if (options.message_expiry) {
      if (options.message_expiry->count() < 0 || options.message_expiry->count() >= mqtt::no_expiry) {
        return fail(Errc::invalid_config, "message expiry of " +
                                              std::to_string(options.message_expiry->count()) +
                                              " s is out of range; expected 0 to 4294967294");
      }
      parts.expiry_s = static_cast<std::uint32_t>(options.message_expiry->count());
      parts.accepted_ns = Clock::now().time_since_epoch().count();
    }
    const auto server = connection_.server();
    OutgoingProperties properties;
    if (OutgoingProperties::any(options)) {
      if (config_.protocol == ProtocolVersion::v3_1_1 || !server.v5) {
        return fail(Errc::not_supported_by_server,
                    "content type, response topic, correlation data, user properties and payload format need "
                    "MQTT 5.0; this connection speaks 3.1.1");
      }
      if (auto written = properties.write(options); !written) return std::unexpected(written.error());
      parts.properties = properties.encoded();
    }
    if (options.qos > server.maximum_qos) {
      return fail(Errc::not_supported_by_server, "QoS " + std::to_string(static_cast<int>(options.qos)) +
                                                     " is more than this server takes (" +
                                                     std::to_string(static_cast<int>(server.maximum_qos)) +
                                                     ")");
    }
    if (options.retain && !server.retain_available) {
      return fail(Errc::not_supported_by_server, "this server does not take retained messages");
    }
    // Fixed header, topic length, identifier, and the length of the properties with the expiry take at most 20 bytes more.
    const std::size_t content = topic.size() + parts.properties.size() + payload.size();
    const std::size_t packet = content + 20;
    if (packet > remaining_length_max || content > server.packet_max) {
      return too_large(packet, "the largest packet of MQTT or of this server");
    }
    if (options.qos == QoS::at_most_once && config_.offline_qos0 == OfflineQos0::drop && !server.connected) {
      return drop_at_once(dropped_offline_, handler);
    }
    if (entry_bytes_max_ &&
        stored_size(topic.size(), parts.properties.size(), payload.size()) > entry_bytes_max_) {
      return too_large(
          packet, "what the spool takes; raise spool_bytes (MQTT_SPOOL_BYTES), of which it may have 1/16");
    }
    const bool by_reference = payload.size() > inline_payload_max || content > outbox_.block_max() / 2;
    const std::size_t size =
        mqtt::RecordView::size_for(topic.size(), parts.properties.size(), payload.size(), by_reference);
    if (size > outbox_.block_max() || (by_reference && payload.size() > config_.outbox_bytes)) {
      return too_large(packet, "the outbox; raise outbox_bytes (MQTT_OUTBOX_BYTES)");
    }
    if (by_reference && !share(payload, parts)) return overflow(handler);

    std::uint64_t sequence = 0;
    std::byte* block = outbox_.try_reserve(size, &sequence);
    if (!block) {
      if (parts.shared) parts.shared->release();
      return overflow(handler);
    }
    if (handler) {
      auto item = std::make_unique<DeliveryItem>();
      item->handler = std::move(handler);
      parts.token = reinterpret_cast<std::uint64_t>(item.release());
    }
    parts.sequence = sequence;
    mqtt::write_record(block, parts);
    outbox_.commit(block, size);
    return sequence;
  }

  Result<MessageId> place_when_there_is_room(std::string_view topic, BytesView payload,
                                             const PublishOptions& options, DeliveryHandler& handler) {
    const auto until = Clock::now() + config_.block_timeout;
    for (;;) {
      connection_.publisher_wake();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      auto id = place(topic, payload, options, handler);
      if (id || id.error().code != Errc::outbox_full || Clock::now() >= until) return id;
    }
  }

  void wake_after_publish() {
    if (config_.wakeup.lazy_interval.count() == 0) connection_.publisher_wake();
    // Further than so, what waits has to go: to nobody, or to the disk.
    const bool drops = config_.overflow == Overflow::drop_oldest;
    if (!drops && entry_bytes_max_ == 0) return;
    const std::size_t quarter = outbox_.capacity_bytes() / 4;
    if (outbox_.bytes() > (entry_bytes_max_ ? 2 : 3) * quarter) connection_.wake();
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

  Result<MessageId> overflow(DeliveryHandler& handler) {
    if (outbox_.closed()) return fail(Errc::shutting_down, "the client was shut down");
    if (config_.overflow == Overflow::reject || config_.overflow == Overflow::block) {
      // No figures: whoever publishes into a full outbox comes this way again and again. They are in metrics().
      return fail(Errc::outbox_full,
                  "the outbox is full: publish again later, or raise outbox_bytes (MQTT_OUTBOX_BYTES)");
    }
    return drop_at_once(dropped_overflow_, handler);
  }

  MessageId drop_at_once(std::atomic<std::uint64_t>& counter, DeliveryHandler& handler) {
    counter.fetch_add(1, std::memory_order_relaxed);
    if (handler) {
      auto item = std::make_unique<DeliveryItem>();
      item->handler = std::move(handler);
      item->delivery = {no_message_id, Delivery::Outcome::dropped, 0};
      dispatcher_.post(std::move(item));
    }
    return no_message_id;
  }

  ShutdownReport report() const {
    return {counters_.acknowledged.load(std::memory_order_relaxed),
            left_on_disk_.load(std::memory_order_relaxed),
            counters_.dropped_shutdown.load(std::memory_order_relaxed) +
                counters_.dropped_overflow.load(std::memory_order_relaxed) + dropped_at_publish()};
  }

  std::uint64_t dropped_at_publish() const {
    return dropped_overflow_.load(std::memory_order_relaxed) +
           dropped_offline_.load(std::memory_order_relaxed);
  }

  bool wait(const std::shared_ptr<Waiter>& waiter, milliseconds timeout) {
    const auto until = Clock::now() + timeout;
    connection_.post(command([waiter](Connection& connection) { connection.add_waiter(waiter); }));
    return wait_for_completion(*waiter, until);
  }

  static bool wait_for_completion(Waiter& waiter, Clock::time_point until) {
    while (!waiter.done.load(std::memory_order_seq_cst)) {
      waiter.bell.announce();
      if (waiter.done.load(std::memory_order_seq_cst)) break;
      if (Clock::now() >= until) {
        waiter.abandoned.store(true, std::memory_order_relaxed);
        return false;
      }
      waiter.bell.sleep_until(until);
    }
    return true;
  }

  // No I/O thread (any more): settles what it did not take.
  void drop_waiting() {
    outbox_.close();
    for (auto block = outbox_.front(); !block.empty(); block = outbox_.front()) {
      const mqtt::RecordView record(block.data());
      Counters::add(counters_.dropped_shutdown);
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

  // What Requests needs of us. Held by requests_, which does not outlive us.
  Requests::Host host() {
    Requests::Host host;
    host.publish = [this](std::string_view topic, BytesView payload, const PublishOptions& options,
                          DeliveryHandler handler) {
      return publish(topic, payload, options, std::move(handler));
    };
    host.subscribe = [this](std::string_view filter, MessageHandler handler, const SubscribeOptions& options,
                            GrantedHandler granted) {
      return subscription(filter, std::move(handler), options, std::move(granted));
    };
    host.call_later = [this](milliseconds delay, std::move_only_function<void()> function) {
      connection_.post(command([delay, later = item(std::move(function))](Connection& connection) mutable {
        connection.post_later(delay, std::move(later));
      }));
    };
    host.protocol = [this] {
      return config_.protocol == ProtocolVersion::v5 && connection_.server().v5 ? ProtocolVersion::v5
                                                                                : ProtocolVersion::v3_1_1;
    };
    host.on_dispatch_thread = [this] { return dispatcher_.on_thread(); };
    host.log = [this](LogLevel level, std::string text) {
      dispatcher_.log(level, "request", std::move(text));
    };
    host.now = [] { return Clock::now(); };
    host.wall_now = [] { return std::chrono::system_clock::now(); };
    return host;
  }

  static constexpr MessageId no_message_id = ~MessageId{0};

  const ClientConfig config_;
  const bool owns_runtime_;  // no other client is on it
  const std::shared_ptr<Runtime::Impl> runtime_;
  Counters counters_;
  std::atomic<std::uint64_t> dropped_overflow_{0};  // by publish() itself
  std::atomic<std::uint64_t> dropped_offline_{0};
  std::atomic<std::uint64_t> left_on_disk_{0};  // messages in the spool after the last shutdown
  std::atomic<std::size_t> shared_bytes_{0};    // of payloads that travel by reference
  const std::uint64_t entry_bytes_max_ = config_.spool_dir.empty() ? 0 : Backlog::entry_bytes_max(config_);
  outbox::Ring outbox_;
  HandlerTable table_;
  EventLoop& loop_;
  Dispatcher dispatcher_;
  Connection connection_;
  std::shared_ptr<Requests> requests_;  // null until asked for, then the same

  mutable std::mutex life_;  // life_stage_ and requests_; never held while waiting
  std::mutex
      subscribing_;  // the table and what is asked of the server change in the same order; users' threads only
  std::mutex ending_;  // held through shutdown(), which one thread does
  Stage life_stage_ = Stage::created;
  std::atomic<pid_t> owner_{0};  // the process that started it

  mutable std::mutex users_;  // users' threads and the dispatch thread only
  StateChange last_change_;
  std::shared_ptr<std::function<void(const StateChange&)>> on_state_change_;
};

// --- the public face -------------------------------------------------------------------------------------------------

struct Subscription::State {
  std::weak_ptr<Client::Impl> client;
  std::string filter;
  std::uint64_t id = 0;
  std::shared_future<Result<QoS>> granted;
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

std::shared_future<Result<QoS>> Subscription::granted() const {
  return state_ ? state_->granted : std::shared_future<Result<QoS>>();
}

void Subscription::unsubscribe() {
  const auto state = std::move(state_);
  if (!state) return;
  if (const auto client = state->client.lock()) client->unsubscribe(state->filter, state->id);
}

void Subscription::detach() { state_.reset(); }

Client::Client(ClientConfig config) : impl_(std::make_shared<Impl>(std::move(config), nullptr)) {}
Client::Client(ClientConfig config, Runtime& runtime)
    : impl_(std::make_shared<Impl>(std::move(config), runtime.impl_)) {}
Client::~Client() {
  if (impl_->in_forked_child()) {
    // Left alone on purpose.
    new (std::nothrow) std::shared_ptr<Impl>(std::move(impl_));
    return;
  }
  impl_->shutdown(std::chrono::seconds(1));
}

void Client::start() { impl_->start(); }
Result<void> Client::connect(milliseconds timeout) { return impl_->connect(timeout); }
ShutdownReport Client::shutdown(milliseconds deadline) { return impl_->shutdown(deadline); }
void Client::disconnect() { impl_->disconnect(); }
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
const std::string& Client::spool_dir() const { return impl_->spool_dir(); }

Result<MessageId> Client::publish(std::string_view topic, BytesView payload, const PublishOptions& options) {
  return impl_->publish(topic, payload, options, {});
}

Result<MessageId> Client::publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                                  DeliveryHandler handler) {
  return impl_->publish(topic, payload, options, std::move(handler));
}

BatchResult Client::publish(std::span<const OutgoingMessage> messages) { return impl_->publish(messages); }

Result<std::string> Client::publish_event(std::string_view topic, std::string_view type,
                                          std::string_view json, const EventOptions& options) {
  return impl_->publish_event(topic, type, json, options);
}

Result<MessageId> Client::publish_health(bool ok, std::string_view event, std::string_view error) {
  return impl_->publish_health(ok, event, error);
}

Result<Subscription> Client::Impl::subscription(std::string_view filter, MessageHandler handler,
                                                const SubscribeOptions& options, GrantedHandler granted) {
  const auto entry = subscribe(filter, std::move(handler), options, std::move(granted));
  if (!entry) return std::unexpected(entry.error());
  auto state = std::make_shared<Subscription::State>();
  state->client = weak_from_this();
  state->filter = filter;
  state->id = (*entry)->id;
  state->granted = (*entry)->granted();
  return Subscription(std::move(state));
}

Result<Subscription> Client::subscribe(std::string_view filter, MessageHandler handler,
                                       const SubscribeOptions& options, GrantedHandler granted) {
  return impl_->subscription(filter, std::move(handler), options, std::move(granted));
}

Result<OwnedMessage> Client::request(std::string_view topic, BytesView payload, milliseconds timeout,
                                     const RequestOptions& options) {
  return impl_->requests().request(topic, payload, timeout, options);
}

Result<RequestId> Client::request(std::string_view topic, BytesView payload, milliseconds timeout,
                                  const RequestOptions& options, ResponseHandler handler) {
  return impl_->requests().request(topic, payload, timeout, options, std::move(handler));
}

bool Client::cancel_request(RequestId id) { return impl_->requests().cancel(id); }

Result<Subscription> Client::respond(std::string_view filter, Responder responder,
                                     const SubscribeOptions& options) {
  return impl_->requests().respond(filter, std::move(responder), options);
}

bool Client::unsubscribe(std::string_view filter) { return impl_->unsubscribe(filter, 0); }

std::string_view to_string(Delivery::Outcome outcome) {
  switch (outcome) {
    case Delivery::Outcome::sent: return "sent";
    case Delivery::Outcome::acknowledged: return "acknowledged";
    case Delivery::Outcome::refused: return "refused";
    case Delivery::Outcome::expired: return "expired";
    case Delivery::Outcome::stored: return "stored";
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
