#include "client/dispatcher.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace fulmar {
namespace {

using namespace std::chrono_literals;

// A flag that another thread waits for, with a bound.
class Signal {
 public:
  void set() {
    done_.store(true);
    bell_.ring();
  }
  bool wait(std::chrono::milliseconds timeout = 10s) {
    const auto until = outbox::Doorbell::Clock::now() + timeout;
    while (!done_.load()) {
      bell_.announce();
      if (done_.load()) break;
      if (outbox::Doorbell::Clock::now() >= until) return false;
      bell_.sleep_until(until);
    }
    return true;
  }

 private:
  std::atomic<bool> done_{false};
  outbox::Doorbell bell_;
};

// A pool, a table and a lane. What `keep_alive` holds is looked at by some tests.
struct Lane {
  explicit Lane(
      std::size_t inbound_bytes, std::function<void()> progress = [] {})
      : dispatcher(pool.assign(), inbound_bytes, table, std::move(progress)) {}
  ~Lane() { EXPECT_TRUE(stop()); }
  void start() { dispatcher.start(nullptr); }
  bool stop(std::chrono::milliseconds time = 10s) {
    return dispatcher.stop(DispatchLane::Clock::now() + time);
  }
  HandlerTable::EntryPtr on(std::string_view filter, MessageHandler handler,
                            const SubscribeOptions& options = {}) {
    return *table.set(filter, std::move(handler), options);
  }

  DispatchPool pool{1};
  HandlerTable table;
  Dispatcher dispatcher;
};

struct Call final : Dispatcher::Item {
  explicit Call(std::function<void()> f) : function(std::move(f)) {}
  void run() override { function(); }
  std::function<void()> function;
};

mqtt::PublishView message(std::string_view topic, std::string_view payload, QoS qos = QoS::at_most_once) {
  mqtt::PublishView view;
  view.topic = topic;
  view.payload = as_bytes(payload);
  view.qos = qos;
  return view;
}

TEST(Dispatcher, gives_each_message_to_every_matching_handler_in_order) {
  std::vector<std::string> seen;
  Signal end;
  Lane lane(1 << 16);
  lane.on("a/+", [&](const Message& m) { seen.push_back("+" + std::string(m.text())); });
  lane.on("a/#", [&](const Message& m) {
    seen.push_back("#" + std::string(m.text()));
    if (m.text() == "end") end.set();
  });
  lane.start();
  ASSERT_TRUE(lane.dispatcher.deliver(message("a/b", "1")));
  ASSERT_TRUE(lane.dispatcher.deliver(message("a/b/c", "2")));
  ASSERT_TRUE(lane.dispatcher.deliver(message("b", "3")));
  ASSERT_TRUE(lane.dispatcher.deliver(message("a", "end")));
  ASSERT_TRUE(end.wait());
  EXPECT_TRUE(lane.stop());
  EXPECT_EQ(seen, (std::vector<std::string>{"+1", "#1", "#2", "#end"}));
  EXPECT_EQ(lane.dispatcher.counts().handled, 3u);
  EXPECT_EQ(lane.dispatcher.counts().unrouted, 1u);
}

TEST(Dispatcher, isolates_and_counts_handlers_that_throw) {
  Signal end;
  std::string logged;
  Lane lane(1 << 16);
  lane.on("bad", [](const Message&) { throw std::runtime_error("no luck"); });
  lane.on("worse", [](const Message&) { throw 42; });
  lane.on("end", [&](const Message&) { end.set(); });
  lane.dispatcher.set_log_sink([&](LogLevel, std::string_view, std::string_view text) { logged += text; });
  lane.start();
  for (const auto topic : {"bad", "worse", "end"}) ASSERT_TRUE(lane.dispatcher.deliver(message(topic, "")));
  ASSERT_TRUE(end.wait());
  EXPECT_TRUE(lane.stop());
  EXPECT_EQ(lane.dispatcher.counts().handler_errors, 2u);
  EXPECT_NE(logged.find("no luck"), std::string::npos);
}

TEST(Dispatcher, refuses_when_full_and_tells_when_there_is_room) {
  Signal go, room;
  std::atomic<int> handled{0};
  Lane lane(1 << 18, [&] { room.set(); });
  lane.on("#", [&](const Message&) {
    go.wait();
    ++handled;
  });
  lane.start();
  const std::string payload(10'000, 'x');
  int taken = 0;
  while (lane.dispatcher.deliver(message("t", payload))) ++taken;
  EXPECT_GT(taken, 20);
  EXPECT_LT(taken, 30);
  go.set();
  ASSERT_TRUE(room.wait());
  EXPECT_TRUE(lane.dispatcher.deliver(message("t", payload)));
}

TEST(Dispatcher, bounds_large_payloads_and_lets_one_pass_alone) {
  Signal go, room, got;
  Lane lane(1 << 20, [&] { room.set(); });
  lane.on("#", [&](const Message& m) {
    go.wait();
    EXPECT_EQ(m.payload.size(), 3'000'000u);
    EXPECT_EQ(static_cast<char>(m.payload.back()), 'z');
    got.set();
  });
  lane.start();
  const std::string huge(3'000'000, 'z');
  EXPECT_TRUE(lane.dispatcher.deliver(message("t", huge)));
  EXPECT_FALSE(lane.dispatcher.deliver(message("t", huge)));
  go.set();
  ASSERT_TRUE(room.wait());
  EXPECT_TRUE(lane.dispatcher.deliver(message("t", huge)));
  ASSERT_TRUE(got.wait());
}

TEST(Dispatcher, tells_that_a_qos_1_message_was_handled) {
  Signal told;
  std::atomic<bool> ran{false};
  Lane lane(1 << 16, [&] { told.set(); });
  lane.on("#", [&](const Message&) { ran = true; });
  lane.start();
  ASSERT_TRUE(lane.dispatcher.deliver(message("t", "", QoS::at_least_once)));
  ASSERT_TRUE(told.wait());
  EXPECT_TRUE(ran.load());
  EXPECT_EQ(lane.dispatcher.handled(), 1u);
}

TEST(Dispatcher, runs_items_that_were_posted_before_the_stop) {
  int ran = 0;
  Lane lane(1 << 16);
  lane.start();
  for (int i = 0; i < 100; ++i) lane.dispatcher.post(std::make_unique<Call>([&] { ++ran; }));
  EXPECT_TRUE(lane.stop());
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace fulmar
