#pragma once
// Dispatcher: one client's lane, on which its users' handlers run. Inbound messages come through a bounded ring from the
// I/O thread; everything else (delivery outcomes, state changes, log lines) comes as items and goes first.
//
// Invariants
//   1. User code runs on the lane, or on the executor that a subscription names: one call at a time and in order for each
//      subscription, never under a lock [house invariant 6].
//   2. Received and not yet handled is bounded by `inbound_bytes`, what waits for executors included; when it is full
//      deliver() says so and the socket is not read [house invariant 5].
//   3. Every matching handler is called once for a message. Where several subscriptions match, a server may send a copy for
//      each: the subscription identifiers of 5.0 say for which. Without them (3.1.1) each copy reaches every handler.
//   4. A handler that throws is counted and logged, and nothing else is touched by it; its message counts as handled.
//   5. QoS 1 and 2 are acknowledged when every handler of theirs has returned, and with manual_ack also acknowledged.
//   6. With keep_unrouted(), a message that no handler wants waits for one, unacknowledged: at most kept_count_max of them, a
//      quarter of `inbound_bytes`, and `keep_for` after the connection came up. The server holds back acknowledgements
//      behind it [MQTT-4.6.0-2] and in the end messages, so it must not wait for ever.
//
// Thread-safety: post, log, and the counts from any thread; deliver, stamp, connected and delivered from the I/O thread;
// set_... before start(); the rest from the owner.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <boost/container/deque.hpp>

#include "client/dispatch_pool.hpp"
#include "client/executor_queue.hpp"
#include "client/filter_trie.hpp"
#include "client/handler_table.hpp"
#include "client/inbound_acknowledgements.hpp"
#include "client/inbound_message.hpp"
#include "client/kept_messages.hpp"
#include "fulmar/mqtt/packet.hpp"
#include "outbox/handoff.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

// Leaves out calls: the de-duplication of envelopes. Called on the lane only.
class CallFilter {
 public:
  using Instant = std::chrono::steady_clock::time_point;
  using Key = std::array<std::uint64_t, 2>;

  virtual ~CallFilter() = default;
  virtual std::optional<Key> key_of(const Message& message) = 0;  // once per message that a handler wants
  virtual bool seen(const Key& key, std::uint64_t handler_id, Instant now) = 0;  // true: not called
  virtual void mark(const Key& key, std::uint64_t handler_id,
                    Instant now) = 0;  // it has returned and not thrown
};

class Dispatcher final : public DispatchLane, private ExecutorQueue::Runner {
 public:
  struct Item {
    Item* next = nullptr;
    Item() = default;
    Item(const Item&) = delete;
    Item& operator=(const Item&) = delete;
    virtual ~Item() = default;
    virtual void run() = 0;
  };

  static constexpr std::size_t kept_count_max = 1'000;

  // `progress` is called on the lane, or on any thread while the lane runs, when the I/O thread may have something to do:
  // acknowledgements, or room after deliver() had said no. It does not wait.
  Dispatcher(std::shared_ptr<DispatchWorker> worker, std::size_t inbound_bytes, HandlerTable& table,
             std::function<void()> progress);
  ~Dispatcher() override;

  void set_log_sink(LogSink sink) { log_sink_ = std::move(sink); }
  void set_call_filter(std::unique_ptr<CallFilter> filter) { call_filter_ = std::move(filter); }
  void keep_unrouted(std::chrono::milliseconds keep_for = std::chrono::seconds(60)) { keep_for_ = keep_for; }

  // See DispatchLane: messages that no handler has seen when it stops stay, and are handled after the next start().
  void start(std::shared_ptr<void> keep_alive);

  HandlerTable& table() { return table_; }

  void post(std::unique_ptr<Item> item);
  void log(LogLevel level, std::string_view component, std::string text);

  // --- I/O thread
  // When what is delivered next was read from the socket.
  void stamp(Clock::time_point now) { stamp_us_ = micros(now); }
  // A connection is up; what is delivered from now on came by it.
  void connected(bool session_present);
  // Hands a message over by copying it. False: no room; progress() will be called when there is.
  bool deliver(const mqtt::PublishView& message);
  std::uint64_t delivered() const {
    return delivered_;
  }  // messages taken by deliver(): the number of the last one

  const std::shared_ptr<AcknowledgementMailbox>& mailbox() const { return mailbox_; }
  // Messages that have passed the lane, in the order of deliver().
  std::uint64_t handled() const { return handled_.load(std::memory_order_seq_cst); }

  struct Counts {
    std::uint64_t handled = 0;
    std::uint64_t unrouted = 0;  // no handler wanted them, or not in time
    std::uint64_t duplicates = 0;
    std::uint64_t handler_errors = 0;
    std::uint64_t waiting =
        0;                   // gauge: received and not handled, those kept and those with executors included
    std::uint64_t kept = 0;  // gauge: wait for a handler
    std::chrono::microseconds latency{0};  // of the last read: from the socket to the first handler
  };
  Counts counts() const;

 private:
  using Entry = HandlerTable::Entry;
  using Note = AcknowledgementMailbox::Note;
  struct Marked;
  struct LinkUp;

  // DispatchLane
  bool turn() override;
  bool has_work() override;
  void last_turn() override;
  // ExecutorQueue::Runner
  void run_job(ExecutorQueue::Job& job) override;
  void discard(ExecutorQueue::Job& job) override;
  void executor_failed(const char* what) override;

  static std::uint32_t micros(Clock::time_point at) {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count());
  }
  bool run_items();
  void take_changes();
  void run_message(std::span<const std::byte> block);
  bool run_kept();
  void tell_when_idle();
  std::span<Entry* const> route(const Message& message);
  void call_handlers(std::span<Entry* const> entries, Message& message, std::uint64_t number);
  void call(Entry& entry, Message& message, std::uint64_t number, const std::optional<CallFilter::Key>& key);
  void give_to_executor(Entry& entry, const Message& message, std::uint64_t number,
                        const std::optional<CallFilter::Key>& key);
  void keep(const Message& message, std::uint64_t number, std::uint16_t link);
  void give_up(const KeptMessages::Kept& kept);
  bool is_superseded(std::uint16_t link) const;
  void link_up(bool session_present, std::uint16_t link);
  void stop_keeping();
  void post_note(std::uint64_t number, int parts);
  Acknowledgement acknowledgement_of(std::uint64_t number);
  void made_room(std::size_t bytes);
  bool try_deliver(const mqtt::PublishView& message);
  template <typename Function>
  bool guarded(Function&& function);
  void handler_threw(const char* what);
  static void count(std::atomic<std::uint64_t>& counter) {  // one writer
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  HandlerTable& table_;
  const std::function<void()> progress_;
  LogSink log_sink_;
  std::unique_ptr<CallFilter> call_filter_;
  std::optional<std::chrono::milliseconds> keep_for_;
  outbox::Ring inbound_;
  outbox::Handoff<Item> items_;
  const std::shared_ptr<AcknowledgementMailbox> mailbox_;

  // I/O thread. Its own cache line, and so for those below: each side writes once a message.
  alignas(64) std::uint64_t delivered_ = 0;
  std::uint32_t stamp_us_ = 0;
  std::uint16_t link_ = 0;

  // Shared, and rarely written. Bytes: received and outside the ring, large messages and those with executors.
  alignas(64) std::atomic<std::size_t> apart_bytes_{0};
  std::atomic<std::size_t> apart_messages_{0};  // with executors
  std::atomic<bool> refused_{false};            // deliver() said no since the last progress()
  std::atomic<bool> resumed_{false};            // started since the last turn
  std::atomic<std::uint64_t> handler_errors_{0};

  // Written by the lane.
  alignas(64) std::atomic<std::uint64_t> handled_{0};
  std::atomic<std::uint64_t> unrouted_{0}, duplicates_{0}, kept_count_{0}, latency_us_{0};

  // The lane's own.
  FilterTrie trie_;
  std::uint64_t generation_ = 0;  // of the table, as it is in trie_
  // The last topic and who wants it: messages often come in rows of one topic.
  std::string topic_;
  std::vector<Entry*> matching_;         // in the order of their subscriptions
  std::vector<Entry*> meant_;            // of them, those for whom this copy is
  const Entry* captures_for_ = nullptr;  // captures_ are of this one's filter, views of topic_
  std::vector<std::uint32_t> identifiers_;
  std::vector<std::string_view> captures_;
  static constexpr std::size_t unsubscribed_max = 64;
  boost::container::deque<std::string> unsubscribed_;  // the last filters that lost their handler
  std::unique_ptr<KeptMessages> kept_;
  std::size_t kept_looked_at_ = 0;  // of them, by the handlers there are now
  std::optional<Clock::time_point> keep_until_;
  bool keeping_over_ = false;  // for this link
  bool gave_up_ = false;       // and said so
  std::uint16_t lane_link_ = 0;
  bool lane_link_resumed_ = false;
  std::uint32_t last_stamp_us_ = 0;
  int parts_open_ = 0;      // of the message that is being handled
  std::uint64_t told_ = 0;  // handled_ at the last progress() for acknowledgements
  bool acknowledge_due_ = false;
};

}  // namespace fulmar
