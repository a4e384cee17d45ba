#pragma once
// Dispatcher: the thread on which users' handlers run. Inbound messages come through a bounded ring from the I/O thread;
// everything else (delivery outcomes, state changes, log lines) comes as items and goes first.
//
// Invariants
//   1. User code runs here only, one call at a time, never under a lock [house invariant 6].
//   2. The inbound ring is bounded; when it is full deliver() says so and the socket is not read [house invariant 5].
//   3. A handler that throws is counted and logged, and nothing else is touched by it.
//
// Thread-safety: post, handled and on_thread from any thread; deliver from the I/O thread; the rest from the owner.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "client/handler_table.hpp"
#include "fulmar/mqtt/packet.hpp"
#include "outbox/doorbell.hpp"
#include "outbox/handoff.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

class Dispatcher {
 public:
  struct Item {
    Item* next = nullptr;
    Item() = default;
    Item(const Item&) = delete;
    Item& operator=(const Item&) = delete;
    virtual ~Item() = default;
    virtual void run() = 0;
  };

  // `progress` is called on the dispatch thread when the I/O thread may have something to do: acknowledgements, or room
  // after deliver() had said no.
  Dispatcher(std::size_t inbound_bytes, HandlerTable& table, std::function<void()> progress);
  ~Dispatcher();

  void set_log_sink(LogSink sink) { log_sink_ = std::move(sink); }  // before start()

  // `keep_alive` is held until the thread has ended.
  void start(std::shared_ptr<void> keep_alive);
  // The thread runs the items that are there already and ends; messages that no handler has seen are not acknowledged, so
  // the server sends those of QoS 1 and 2 again to a session that persists. Idempotent.
  void stop();
  // Waits for the end, unless called on the dispatch thread itself, which is then left to end alone.
  void join();
  bool on_thread() const { return thread_id_.load(std::memory_order_acquire) == std::this_thread::get_id(); }

  void post(std::unique_ptr<Item> item);
  void log(LogLevel level, std::string_view component, std::string text);

  // Hands a message over by copying it. False: no room; progress() will be called when there is.
  bool deliver(const mqtt::PublishView& message);
  std::uint64_t delivered() const { return delivered_; }  // I/O thread: messages taken by deliver()
  // Messages whose handlers have returned, in the order of deliver().
  std::uint64_t handled() const { return handled_.load(std::memory_order_acquire); }
  std::uint64_t handler_errors() const { return handler_errors_.load(std::memory_order_relaxed); }

 private:
  void run();
  bool run_items();
  bool run_message();
  bool try_deliver(const mqtt::PublishView& message);
  template <typename Call>
  void guarded(Call&& call);

  HandlerTable& table_;
  std::function<void()> progress_;
  LogSink log_sink_;
  outbox::Ring inbound_;
  outbox::Handoff<Item> items_;
  outbox::Doorbell bell_;
  std::shared_ptr<const HandlerTable::Snapshot> handlers_;
  std::uint64_t handlers_generation_ = ~std::uint64_t{0};

  std::thread thread_;
  std::atomic<std::thread::id> thread_id_{};
  std::atomic<bool> stopping_{false};
  std::uint64_t delivered_ = 0;                   // I/O thread
  std::atomic<std::size_t> referenced_bytes_{0};  // payloads held by reference in the ring
  std::atomic<bool> refused_{false};              // deliver() said no since the last progress()
  std::atomic<std::uint64_t> handled_{0};
  std::uint64_t told_ = 0;        // dispatch thread: handled_ at the last progress() for acknowledgements
  bool acknowledge_due_ = false;  // dispatch thread
  std::atomic<std::uint64_t> handler_errors_{0};
};

}  // namespace fulmar
