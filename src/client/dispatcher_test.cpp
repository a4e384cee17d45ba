#include "client/dispatcher.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
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
  HandlerTable table;
  std::vector<std::string> seen;
  Signal end;
  table.set("a/+", [&](const Message& m) { seen.push_back("+" + std::string(m.text())); });
  table.set("a/#", [&](const Message& m) {
    seen.push_back("#" + std::string(m.text()));
    if (m.text() == "end") end.set();
  });
  Dispatcher dispatcher(1 << 16, table, [] {});
  dispatcher.start(nullptr);
  ASSERT_TRUE(dispatcher.deliver(message("a/b", "1")));
  ASSERT_TRUE(dispatcher.deliver(message("a/b/c", "2")));
  ASSERT_TRUE(dispatcher.deliver(message("b", "3")));
  ASSERT_TRUE(dispatcher.deliver(message("a", "end")));
  ASSERT_TRUE(end.wait());
  dispatcher.stop();
  dispatcher.join();
  EXPECT_EQ(seen, (std::vector<std::string>{"+1", "#1", "#2", "#end"}));
}

TEST(Dispatcher, isolates_and_counts_handlers_that_throw) {
  HandlerTable table;
  Signal end;
  std::string logged;
  table.set("bad", [](const Message&) { throw std::runtime_error("no luck"); });
  table.set("worse", [](const Message&) { throw 42; });
  table.set("end", [&](const Message&) { end.set(); });
  Dispatcher dispatcher(1 << 16, table, [] {});
  dispatcher.set_log_sink([&](LogLevel, std::string_view, std::string_view text) { logged += text; });
  dispatcher.start(nullptr);
  for (const auto topic : {"bad", "worse", "end"}) ASSERT_TRUE(dispatcher.deliver(message(topic, "")));
  ASSERT_TRUE(end.wait());
  dispatcher.stop();
  dispatcher.join();
  EXPECT_EQ(dispatcher.handler_errors(), 2u);
  EXPECT_NE(logged.find("no luck"), std::string::npos);
}

TEST(Dispatcher, refuses_when_full_and_tells_when_there_is_room) {
  HandlerTable table;
  Signal go, room;
  std::atomic<int> handled{0};
  table.set("#", [&](const Message&) {
    go.wait();
    ++handled;
  });
  Dispatcher dispatcher(1 << 18, table, [&] { room.set(); });
  dispatcher.start(nullptr);
  const std::string payload(10'000, 'x');
  int taken = 0;
  while (dispatcher.deliver(message("t", payload))) ++taken;
  EXPECT_GT(taken, 20);
  EXPECT_LT(taken, 30);
  go.set();
  ASSERT_TRUE(room.wait());
  EXPECT_TRUE(dispatcher.deliver(message("t", payload)));
  dispatcher.stop();
  dispatcher.join();
}

TEST(Dispatcher, bounds_large_payloads_and_lets_one_pass_alone) {
  HandlerTable table;
  Signal go, room, got;
  table.set("#", [&](const Message& m) {
    go.wait();
    EXPECT_EQ(m.payload.size(), 3'000'000u);
    EXPECT_EQ(static_cast<char>(m.payload.back()), 'z');
    got.set();
  });
  Dispatcher dispatcher(1 << 20, table, [&] { room.set(); });
  dispatcher.start(nullptr);
  const std::string huge(3'000'000, 'z');
  EXPECT_TRUE(dispatcher.deliver(message("t", huge)));
  EXPECT_FALSE(dispatcher.deliver(message("t", huge)));
  go.set();
  ASSERT_TRUE(room.wait());
  EXPECT_TRUE(dispatcher.deliver(message("t", huge)));
  ASSERT_TRUE(got.wait());
  dispatcher.stop();
  dispatcher.join();
}

TEST(Dispatcher, tells_that_a_qos_1_message_was_handled) {
  HandlerTable table;
  Signal told;
  std::atomic<bool> ran{false};
  table.set("#", [&](const Message&) { ran = true; });
  Dispatcher dispatcher(1 << 16, table, [&] { told.set(); });
  dispatcher.start(nullptr);
  ASSERT_TRUE(dispatcher.deliver(message("t", "", QoS::at_least_once)));
  ASSERT_TRUE(told.wait());
  EXPECT_TRUE(ran.load());
  EXPECT_EQ(dispatcher.handled(), 1u);
  dispatcher.stop();
  dispatcher.join();
}

TEST(Dispatcher, runs_items_that_were_posted_before_the_stop) {
  HandlerTable table;
  int ran = 0;
  Dispatcher dispatcher(1 << 16, table, [] {});
  dispatcher.start(nullptr);
  for (int i = 0; i < 100; ++i) dispatcher.post(std::make_unique<Call>([&] { ++ran; }));
  dispatcher.stop();
  dispatcher.join();
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace fulmar
