#pragma once
// Connection: everything that happens on the I/O thread. It finds the server, keeps the link up, and in turns moves
// messages: read all there is, run the session, drain the outbox, one write [ARCHITECTURE: the walk of a message].
//
// Invariants
//   1. Nothing here waits: no name look-up, lock of a user's, disk or handler [house invariant 1].
//   2. While the session cannot take messages they stay in the outbox, in order; publishers are then not asked to wake
//      anybody [house invariants 4, 8].
//   3. Every record taken from the outbox is settled exactly once, through settle() [house invariant 2].
//
// Thread-safety: post(), wake(), publisher_wake() and the atomics of Counters from any thread; the rest on the I/O thread.

#include <atomic>
#include <bit>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "client/backoff.hpp"
#include "client/dispatcher.hpp"
#include "client/subscription_requests.hpp"
#include "fulmar/client.hpp"
#include "fulmar/mqtt/session.hpp"
#include "net/endpoint.hpp"
#include "net/resolver.hpp"
#include "net/transport.hpp"
#include "outbox/doorbell.hpp"
#include "outbox/handoff.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

// Written by the I/O thread, read by anyone; each is exact by itself.
struct Counters {
  using Counter = std::atomic<std::uint64_t>;
  Counter sent{0}, acknowledged{0}, refused{0}, expired{0}, dropped{0}, received{0};
  Counter connects{0}, disconnects{0}, reconnect_attempts{0}, bytes_in{0}, bytes_out{0}, in_flight{0};

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
  enum class For : std::uint8_t { flush, state, connect };
  For kind = For::flush;
  std::uint64_t sequence = 0;  // flush: everything below it has an outcome
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

class Connection final : private net::Transport::Listener {
 public:
  struct Command {
    Command* next = nullptr;
    virtual ~Command() = default;
    virtual void run(Connection& connection) = 0;
  };

  Connection(boost::asio::io_context& context, const ClientConfig& config,
             std::vector<net::Endpoint> endpoints, outbox::Ring& outbox, Dispatcher& dispatcher,
             Counters& counters,
             std::function<void(const StateChange&)> on_state_change);  // called on the dispatch thread
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- any thread
  void post(std::unique_ptr<Command> command);
  void wake();  // makes the I/O thread take a turn
  // After a commit to the outbox: one system call if, and only if, the I/O thread sleeps and could send the message now.
  void publisher_wake() {
    if (outbox_flag_.must_wake()) ring_eventfd();
  }
  ConnectionState state() const { return state_.load(std::memory_order_acquire); }
  // Of the connected server, for the checks at publish(): the largest packet it takes; what it does not support.
  std::uint32_t server_packet_max() const { return server_packet_max_.load(std::memory_order_relaxed); }

  // --- I/O thread
  void start();
  SubscriptionRequests& subscriptions() { return subscriptions_; }
  void add_waiter(std::shared_ptr<Waiter> waiter);
  // Says goodbye and ends the I/O thread, at the latest after `deadline`; what has no outcome then is dropped.
  void stop(std::chrono::milliseconds deadline);
  // Instead of start() and stop().
  void end_unstarted() { state_.store(ConnectionState::disconnected, std::memory_order_release); }

 private:
  using Instant = mqtt::Instant;
  enum class Phase : std::uint8_t { idle, waiting, resolving, opening, greeting, up, finished };

  // Transport::Listener
  void on_open(const std::string& peer) override;
  void on_open_failed(const std::string& why) override;
  boost::asio::mutable_buffer read_buffer() override;
  void on_read(std::size_t size) override;
  void on_written(std::size_t size) override;
  void on_lost(const std::string& why) override;

  // --- life cycle
  void attempt();
  void attempt_failed(const std::string& why, std::optional<std::uint8_t> reason_code, bool permanent);
  void link_down(const std::string& why, std::optional<std::uint8_t> reason_code);
  void linger();
  bool closed_on_connect_of_v5() const;
  void drop_link();
  void retry_later(const std::string& why, std::optional<std::uint8_t> reason_code, bool permanent);
  void set_state(ConnectionState state, const std::string& reason,
                 std::optional<std::uint8_t> reason_code = {}, std::chrono::milliseconds retry_in = {});
  void finish(const std::string& why);

  // --- the turn
  void turn();
  void take_commands();
  void take_acknowledgements();
  void fill_and_write(Instant now);
  void pump();
  void handle(std::monostate) {}
  void handle(const mqtt::Connected& event);
  void handle(const mqtt::Refused& event);
  void handle(const mqtt::Received& event);
  void handle(const mqtt::Completed& event);
  void handle(const mqtt::SubscriptionAcknowledged& event) { subscriptions_.answered(event); }
  void handle(const mqtt::Closing& event);
  void handle(const mqtt::Authentication&) {}  // no method is ever offered, so none comes
  void read_more();
  void settle(std::uint64_t sequence, std::uint64_t token, Delivery::Outcome outcome, std::uint8_t reason);
  std::uint64_t settled_below() const;  // every message with a smaller sequence has an outcome
  void check_waiters();
  void arm_timer(Instant now);
  void on_timer();
  void sleep_or_turn_again();
  void listen_for_wakes();
  void ring_eventfd();
  const net::Endpoint& endpoint() const { return endpoints_[endpoint_index_]; }

  boost::asio::io_context& context_;
  const ClientConfig& config_;
  const std::vector<net::Endpoint> endpoints_;
  std::vector<bool> spoke_v5_;  // by endpoint: its server has accepted a connection of 5.0
  outbox::Ring& outbox_;
  Dispatcher& dispatcher_;
  Counters& counters_;
  mqtt::Session session_;
  SubscriptionRequests subscriptions_;
  net::Resolver resolver_;
  std::unique_ptr<net::Transport> transport_;
  Backoff backoff_;
  std::function<void(const StateChange&)> on_state_change_;

  outbox::Handoff<Command> commands_;
  outbox::SleepFlag outbox_flag_;   // announced only while the session could take a message
  outbox::SleepFlag control_flag_;  // announced whenever the I/O thread sleeps
  boost::asio::posix::stream_descriptor wake_event_;
  std::uint64_t wake_value_ = 0;
  boost::asio::steady_timer timer_;
  std::optional<Instant> timer_armed_;
  std::atomic<ConnectionState> state_{ConnectionState::created};
  std::atomic<std::uint32_t> server_packet_max_{0xffffffff};

  Phase phase_ = Phase::idle;
  std::size_t endpoint_index_ = 0;
  std::size_t tried_ = 0;  // endpoints tried since the last wait
  bool was_connected_ = false;
  bool fell_back_ = false;  // to 3.1.1, because the server said that it does not speak 5.0
  bool try_older_ = false;  // the next attempt speaks 3.1.1: the server closed instead of saying so
  std::string peer_;
  std::string attempt_failures_;
  std::optional<Instant> attempt_deadline_, retry_at_, stop_deadline_;
  Instant up_since_{};
  bool stopping_ = false;
  bool lingering_ = false;  // DISCONNECT is written; what still comes is thrown away until the server closes
  bool turn_posted_ = false;
  std::uint64_t outbox_until_ = 0;  // this turn takes messages with smaller sequences
  std::string closing_why_;         // why the session asked to close the link
  std::optional<std::uint8_t> closing_code_;
  bool closing_for_good_ = false;  // the next attempt is not likely to do better

  std::vector<std::byte> rx_;
  std::size_t rx_end_ = 0;
  bool rx_presented_ = false;  // the session holds views into rx_
  bool reading_ = false;
  std::optional<mqtt::PublishView> held_;  // an inbound message that the dispatcher had no room for
  std::vector<std::byte> tx_;
  std::size_t tx_begin_ = 0, tx_end_ = 0;
  bool writing_ = false;

  struct Unacknowledged {
    std::uint64_t delivered;  // number of the message in the order of delivery, from 1
    std::uint16_t packet_id;
    QoS qos;
  };
  std::deque<Unacknowledged> unacknowledged_;
  std::vector<std::shared_ptr<Waiter>> waiters_;
};

}  // namespace fulmar
