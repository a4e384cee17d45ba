#pragma once
// Connection: everything that a client does on the I/O thread. It finds the server, keeps the link up, and in turns moves
// messages: read all there is, run the session, drain the outbox, one write [ARCHITECTURE: the walk of a message].
//
// Invariants
//   1. Nothing here waits: no name look-up, lock of a user's, disk or handler [house invariant 1].
//   2. While the session cannot take messages they stay in the outbox, in order; publishers are then not asked to wake
//      anybody but for invariant 5 [house invariants 4, 8].
//   3. Every record taken from the outbox is settled exactly once, through settle() [house invariant 2].
//   4. It holds buffers only while there is something in them.
//   5. In the outbox's first lap it maps memory ahead of the publishers [ring.hpp 5], also while nothing can be sent: it looks
//      again as long as messages come. Once they have paused, the next publisher wakes it, unless the wake-up is lazy.
//
// Its life (connection.cpp), its turns (connection_turn.cpp).
//
// Thread-safety: post(), wake(), publisher_wake(), state(), server() and the atomics of Counters from any thread; the rest on
// the loop's thread.

#include <atomic>
#include <bit>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/container/deque.hpp>

#include "client/backoff.hpp"
#include "client/dispatcher.hpp"
#include "client/event_loop.hpp"
#include "client/inbound_acknowledgements.hpp"
#include "client/outflow.hpp"
#include "client/subscription_requests.hpp"
#include "client/vitals.hpp"
#include "fulmar/client.hpp"
#include "fulmar/mqtt/session.hpp"
#include "net/endpoint.hpp"
#include "net/handler_memory.hpp"
#include "net/resolver.hpp"
#include "net/transport.hpp"
#include "outbox/doorbell.hpp"
#include "outbox/handoff.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

// Written by the I/O thread, read by anyone; each is exact by itself.
struct Counters {
  using Counter = std::atomic<std::uint64_t>;
  Counter sent{0}, resent{0}, acknowledged{0}, refused{0}, expired{0}, dropped_overflow{0},
      dropped_shutdown{0};
  Counter spooled{0}, replayed{0}, recovered{0}, dropped_spool{0};
  Counter spool_messages{0}, spool_bytes{0}, spool_oldest_ms{0}, spool_failing{0};  // gauges
  Counter received{0}, connects{0}, reconnect_attempts{0}, attempts_refused{0};
  Counter disconnects_by_server{0}, disconnects_by_network{0}, disconnects_by_timeout{0},
      disconnects_by_violation{0};
  Counter protocol_violations{0}, answers_ignored{0}, bytes_in{0}, bytes_out{0}, in_flight{0},
      round_trip_us{0};

  // One writer: a load and a store instead of a locked addition.
  static void add(Counter& counter, std::uint64_t by = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
};

// A message whose publisher wants to know how it ended; its address is the record's token.
struct DeliveryItem final : Dispatcher::Item {
  DeliveryHandler handler;
  Delivery delivery;
  void run() override { handler(delivery); }

  static std::unique_ptr<DeliveryItem> of(std::uint64_t token) {
    return std::unique_ptr<DeliveryItem>(std::bit_cast<DeliveryItem*>(token));
  }
};

// Somebody waits for something that only the I/O thread sees. Completed at most once, without a lock.
struct Waiter {
  enum class For : std::uint8_t { flush, store, state, connect, finish };
  For kind = For::flush;
  std::uint64_t sequence =
      0;  // flush, store: everything below it has an outcome, or is in the spool and synced
  bool waits_for_messages() const { return kind == For::flush || kind == For::store; }
  ConnectionState state = ConnectionState::connected;
  std::atomic<bool> done{false};
  std::atomic<bool> abandoned{false};
  Result<void> result{};  // written before done
  outbox::Doorbell bell;

  void complete(Result<void> outcome) {
    result = std::move(outcome);
    done.store(true, std::memory_order_seq_cst);
    bell.ring();
  }
};

// What publish() has to know of the server that is connected, in one word.
struct ServerFacts {
  std::uint32_t packet_max = 0xffffffff;
  QoS maximum_qos = QoS::exactly_once;
  bool retain_available = true;
  bool v5 = true;
  bool connected = false;

  std::uint64_t packed() const {
    return std::uint64_t{packet_max} << 32 | std::uint64_t{static_cast<std::uint8_t>(maximum_qos)} << 3 |
           std::uint64_t{retain_available} << 2 | std::uint64_t{v5} << 1 | std::uint64_t{connected};
  }
  static ServerFacts of(std::uint64_t packed) {
    return {static_cast<std::uint32_t>(packed >> 32), static_cast<QoS>(packed >> 3 & 3), (packed & 4) != 0,
            (packed & 2) != 0, (packed & 1) != 0};
  }
};

class Connection final : private net::Transport::Listener {
 public:
  struct Command {
    Command* next = nullptr;
    virtual ~Command() = default;
    virtual void run(Connection& connection) = 0;
  };

  Connection(EventLoop& loop, const ClientConfig& config, std::vector<net::Endpoint> endpoints,
             outbox::Ring& outbox, Dispatcher& dispatcher, Counters& counters,
             std::function<void(const StateChange&)> on_state_change);  // called on the dispatch thread
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- any thread
  void post(std::unique_ptr<Command> command);
  void wake();  // makes the I/O thread take a turn
  // After a commit to the outbox: one system call if, and only if, the I/O thread sleeps and could send the message now.
  void publisher_wake() {
    if (outbox_flag_.must_wake()) wake_.ring();
  }
  ConnectionState state() const { return state_.load(std::memory_order_acquire); }
  ServerFacts server() const { return ServerFacts::of(server_.load(std::memory_order_relaxed)); }

  // --- the loop's thread
  // Again after disconnect() and after a stop() has finished.
  void start();
  // DISCONNECT and idleness; subscriptions, messages in flight and in the outbox are kept.
  void disconnect();
  // Health `shutdown`, once on a link; it leaves before what is accepted from now on.
  void say_leaving();
  // Says goodbye and gives everything up, at the latest after `deadline`; what has no outcome then is dropped. `finished` is
  // completed when the loop has nothing of this connection any more: it may then be destroyed, or started again.
  void stop(std::chrono::milliseconds deadline, std::shared_ptr<Waiter> finished);
  SubscriptionRequests& subscriptions() { return subscriptions_; }
  void add_waiter(std::shared_ptr<Waiter> waiter);
  // Posts `item` to the dispatcher after `delay`; items that are not due when the connection stops are destroyed.
  void post_later(std::chrono::milliseconds delay, std::unique_ptr<Dispatcher::Item> item);

  // After stop() has finished, on a thread that may wait for the disk: ends the spool. How many messages wait there.
  std::uint64_t close_backlog(std::chrono::milliseconds deadline);

  // Before the first start() only: instead of start() and stop().
  void end_unstarted() { state_.store(ConnectionState::disconnected, std::memory_order_release); }

 private:
  using Instant = mqtt::Instant;
  enum class Phase : std::uint8_t { idle, waiting, resolving, opening, greeting, up };
  enum class Cause : std::uint8_t { network, server, timeout, violation };  // of a lost link

  // Transport::Listener
  void on_open(const std::string& peer) override;
  void on_open_failed(const std::string& why) override;
  boost::asio::mutable_buffer read_buffer() override;
  void on_read(std::size_t size) override;
  void on_written(std::size_t size) override;
  void on_lost(const std::string& why) override;

  // --- life cycle
  void attach();
  void attempt();
  void attempt_failed(const std::string& why, std::optional<std::uint8_t> reason_code, bool permanent);
  void link_down(const std::string& why, std::optional<std::uint8_t> reason_code, Cause cause);
  void linger();
  bool closed_on_connect_of_v5() const;
  void drop_link();
  void retry_later(const std::string& why, std::optional<std::uint8_t> reason_code, bool permanent);
  void set_state(ConnectionState state, const std::string& reason,
                 std::optional<std::uint8_t> reason_code = {}, std::chrono::milliseconds retry_in = {});
  void go_idle(const std::string& why);
  void finish(const std::string& why);
  bool leaving() const { return stopping_ || !wanted_; }
  void follow(mqtt::ReasonCode reason, std::string_view server_reference);
  const net::Endpoint& endpoint() const {
    return redirects_.empty() ? endpoints_[endpoint_index_] : redirects_.front();
  }

  // --- the turn
  void turn();
  void take_commands();
  void deliver_held();
  void set_aside_held();
  bool deliver(const mqtt::PublishView& message);
  void take_acknowledgements();
  void make_room();
  Outflow::Situation situation() const;
  Backlog::Host backlog_host();
  void tell(std::uint64_t sequence, std::uint64_t token, Delivery::Outcome outcome, std::uint8_t reason);
  bool queue_own(const Vitals::Publication& publication);
  void publish_own();
  void fill_and_write(Instant now);
  void pump();
  void handle(std::monostate) {}
  void handle(const mqtt::Connected& event);
  void handle(const mqtt::Refused& event);
  void handle(const mqtt::Received& event);
  void handle(const mqtt::Completed& event);
  void handle(const mqtt::PubrecReceived& event) { outflow_.backlog()->received(event.position); }
  void handle(const mqtt::SubscriptionAcknowledged& event) { subscriptions_.answered(event); }
  void handle(const mqtt::Closing& event);
  void handle(const mqtt::Authentication&) {}  // no method is ever offered, so none comes
  void read_more();
  void release_rx();
  void settle(std::uint64_t sequence, std::uint64_t token, Delivery::Outcome outcome, std::uint8_t reason);
  void drop(mqtt::RecordView record, Counters::Counter& counter);
  void check_waiters();
  void watch_progress(Instant now);
  void take_snapshot();
  void arm_timer(Instant now);
  void arm_timer_for_turn(Instant now);
  void on_timer();
  void run_later_items(Instant now);
  bool could_take() const;
  void sleep_or_turn_again();
  void map_ahead();
  void map_step();
  void listen_for_wakes();

  EventLoop& loop_;
  const ClientConfig& config_;
  const std::vector<net::Endpoint> endpoints_;
  std::vector<bool> spoke_v5_;    // by endpoint: its server has accepted a connection of 5.0
  std::vector<bool> only_3_1_1_;  // by endpoint: its server said, or showed twice, that it does not speak 5.0
  outbox::Ring& outbox_;
  Dispatcher& dispatcher_;
  Counters& counters_;
  mqtt::Session session_;
  Outflow outflow_;  // with a backlog while the connection is attached and there is a spool
  SubscriptionRequests subscriptions_;
  net::Resolver resolver_;
  std::unique_ptr<net::Transport> transport_;
  Backoff backoff_;
  Vitals vitals_;
  std::function<void(const StateChange&)> on_state_change_;

  outbox::Handoff<Command> commands_;
  outbox::SleepFlag outbox_flag_;   // announced only while the session could take a message
  outbox::SleepFlag control_flag_;  // announced whenever the I/O thread sleeps
  WakeEvent wake_;
  net::HandlerMemory<168, 1> wake_memory_;  // of what waits on the descriptor
  net::HandlerMemory<128, 2> turn_memory_;  // of the timer's wait, and of a turn that is posted
  boost::asio::posix::stream_descriptor wake_stream_;
  std::uint64_t wake_value_ = 0;
  boost::asio::steady_timer timer_;
  std::optional<Instant> timer_armed_;
  std::atomic<bool> spool_has_news_{false};  // set by the spool's thread, looked at before sleep
  // The turn that the last one asked for, which comes whatever is mapped meanwhile; and whether the timer is armed for less.
  std::optional<Instant> turn_due_;
  bool timer_only_maps_ = false;
  bool mapping_posted_ = false;
  std::uint64_t pushed_when_mapped_ = 0;   // what the outbox had taken when it was last looked at for mapping
  std::chrono::microseconds map_again_{};  // when to look again; 0: when a publisher calls
  std::atomic<ConnectionState> state_{ConnectionState::created};
  std::atomic<std::uint64_t> server_{ServerFacts{}.packed()};

  Phase phase_ = Phase::idle;
  bool attached_ = false;   // to the loop: it has operations of ours
  bool wanted_ = false;     // between start() and disconnect() or stop()
  bool stopping_ = false;   // between stop() and its end
  bool goodbye_ = false;    // on this link: DISCONNECT is the last packet
  bool lingering_ = false;  // DISCONNECT is written; what still comes is thrown away until the server closes
  std::size_t endpoint_index_ = 0;
  std::size_t tried_ = 0;  // endpoints tried since the last wait
  std::vector<net::Endpoint>
      redirects_;              // where a server sent us instead of to `endpoints_`, the current one first
  bool redirect_now_ = false;  // the first of them has not been tried
  unsigned redirections_ = 0;  // since the last link that was stable
  bool was_connected_ = false;
  bool try_older_ = false;  // the next attempt speaks 3.1.1: the server closed instead of saying so
  std::string peer_;
  std::string attempt_failures_;
  std::optional<Instant> attempt_deadline_, retry_at_, end_deadline_;
  Instant up_since_{};
  bool turn_posted_ = false;
  std::uint64_t outbox_until_ = 0;  // this turn takes messages with smaller sequences
  std::string closing_why_;         // why the session asked to close the link
  std::optional<std::uint8_t> closing_code_;
  Cause closing_cause_ = Cause::network;
  bool closing_for_good_ = false;  // the next attempt is not likely to do better

  // Health and heartbeats on their way into the session, before the outbox: a backlog does not hold up signs of life. They
  // are not counted as accepted messages.
  using Block = std::unique_ptr<std::uint64_t[]>;  // 8-byte aligned, a record
  boost::container::deque<Block> own_;

  std::uint64_t left_on_disk_ = 0;                          // entries, when the spool was closed last
  std::uint64_t spooled_before_ = 0, replayed_before_ = 0;  // by former backlogs

  bool left_ = false;     // say_leaving() was called on this link
  Instant written_at_{};  // when the transport last took bytes

  BufferPool::Buffer rx_, tx_;  // null while there is nothing in them
  std::size_t rx_capacity_ = 0;
  std::size_t rx_end_ = 0;
  bool rx_presented_ = false;  // the session holds views into rx_
  bool reading_ = false;
  std::optional<mqtt::PublishView> held_;  // an inbound message that the dispatcher had no room for
  std::size_t tx_begin_ = 0, tx_end_ = 0;
  bool writing_ = false;

  InboundAcknowledgements unacknowledged_;
  // Of QoS 2 and held when their connection ended: they do not come again.
  struct Overdue {
    OwnedMessage message;
    std::uint16_t packet_id;  // 0: the server has lost the session
  };
  std::vector<Overdue> overdue_;
  std::vector<std::shared_ptr<Waiter>> waiters_;
  std::shared_ptr<Waiter> finished_;
  std::multimap<Instant, std::unique_ptr<Dispatcher::Item>> later_;

  // The message whose round trip is being measured, one at a time.
  struct Probe {
    std::uint64_t sequence;
    Instant sent;
  };
  std::optional<Probe> probe_;
  // Since when the oldest message without an outcome is the same.
  std::optional<std::uint64_t> oldest_;
  Instant oldest_since_{};
};

}  // namespace fulmar
