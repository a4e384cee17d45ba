// What the lane does with a message: which handlers, on which thread, and when it is acknowledged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <latch>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "client/dispatcher.hpp"
#include "client/inbound_acknowledgements.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

template <typename Predicate>
bool eventually(Predicate&& predicate) {
  const auto until = DispatchLane::Clock::now() + 10s;
  while (!predicate()) {
    if (DispatchLane::Clock::now() > until) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

class Log {
 public:
  void add(std::string text) {
    const std::lock_guard lock(mutex_);
    texts_.push_back(std::move(text));
  }
  std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return texts_;
  }
  std::size_t size() const { return all().size(); }
  MessageHandler handler(std::string name) {
    return
        [this, name = std::move(name)](const Message& message) { add(name + std::string(message.text())); };
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> texts_;
};

// Runs functions one after the other on a thread of its own, when it is let. What comes after its end is dropped.
class OwnExecutor {
 public:
  explicit OwnExecutor(bool open = true) {
    state_->open = open;
    thread_ = std::thread([state = state_] { run(*state); });
  }
  ~OwnExecutor() {
    state_->change([](State& state) { state.ending = true; });
    thread_.join();
    // Outside of the lock, and at all: a function may hold its executor, and with that the state.
    std::deque<std::move_only_function<void()>> dropped;
    state_->change([&](State& state) { dropped.swap(state.functions); });
  }
  Executor executor() {
    return [state = state_](std::move_only_function<void()> function) {
      state->change([&](State& changed) {
        if (!changed.ending) changed.functions.push_back(std::move(function));
      });
    };
  }
  void open() {
    state_->change([](State& state) { state.open = true; });
  }
  std::thread::id id() const { return thread_.get_id(); }

 private:
  // Shared with the executor, which may be used after us.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::move_only_function<void()>> functions;
    bool open = false;
    bool ending = false;

    void change(auto&& how) {
      const std::lock_guard lock(mutex);
      how(*this);
      changed.notify_all();
    }
  };

  static void run(State& state) {
    std::unique_lock lock(state.mutex);
    for (;;) {
      state.changed.wait(lock, [&] { return state.ending || (state.open && !state.functions.empty()); });
      if (state.ending) return;
      auto function = std::move(state.functions.front());
      state.functions.pop_front();
      lock.unlock();
      function();
      lock.lock();
    }
  }

  const std::shared_ptr<State> state_ = std::make_shared<State>();
  std::thread thread_;
};

// The I/O thread's side and the lane, in the hands of a test.
class Routing : public testing::Test {
 public:
  ~Routing() override { EXPECT_TRUE(stop()); }

 protected:
  bool stop(std::chrono::milliseconds time = 10s) {
    return dispatcher.stop(DispatchLane::Clock::now() + time);
  }
  HandlerTable::EntryPtr on(std::string_view filter, MessageHandler handler,
                            const SubscribeOptions& options = {}) {
    return *table.set(filter, std::move(handler), options);
  }
  bool deliver(std::string_view topic, std::string_view text, QoS qos = QoS::at_most_once,
               std::initializer_list<std::uint32_t> identifiers = {}) {
    std::array<std::byte, 64> buffer;
    mqtt::PropertyWriter properties(buffer);
    for (const auto identifier : identifiers) {
      properties.add(mqtt::PropertyId::subscription_identifier, identifier);
    }
    mqtt::PublishView view;
    view.topic = topic;
    view.payload = as_bytes(text);
    view.properties = properties.view();
    view.qos = qos;
    if (!dispatcher.deliver(view)) return false;
    if (qos != QoS::at_most_once) {
      acknowledgements.delivered(dispatcher.delivered(), static_cast<std::uint16_t>(dispatcher.delivered()),
                                 qos);
    }
    return true;
  }
  // Packet identifiers, which are the numbers of delivery, in the order of acknowledgement.
  std::vector<int> acknowledged() {
    acknowledgements.take(dispatcher.handled(),
                          [this](std::uint16_t id, mqtt::ReasonCode) { acknowledged_.push_back(id); });
    return acknowledged_;
  }
  bool handled(std::uint64_t count) {
    return eventually([&] { return dispatcher.handled() >= count; });
  }

  std::atomic<int> progress{0};
  DispatchPool pool{1};
  HandlerTable table;
  Dispatcher dispatcher{pool.assign(), 1 << 20, table, [this] { ++progress; }};
  InboundAcknowledgements acknowledgements{dispatcher.mailbox()};
  std::vector<int> acknowledged_;
  Log log;
};

TEST_F(Routing, calls_each_handler_for_the_copy_that_is_meant_for_it) {
  const auto all = on("a/#", log.handler("all:"))->identifier;
  const auto one = on("a/+", log.handler("one:"))->identifier;
  const auto plain = on("a/b", log.handler("plain:"))->identifier;
  dispatcher.start(nullptr);
  deliver("a/b", "1", QoS::at_most_once, {one});
  deliver("a/b", "1", QoS::at_most_once, {all});
  deliver("a/b", "1", QoS::at_most_once, {plain});
  deliver("a/b", "2", QoS::at_most_once, {plain, all, one});  // a server that sends one copy for them all
  deliver("a/b", "3", QoS::at_most_once, {4711});             // of a former process
  deliver("a/b", "4");
  ASSERT_TRUE(handled(6));
  EXPECT_THAT(log.all(), ElementsAre("one:1", "all:1", "plain:1", "all:2", "one:2", "plain:2", "all:3",
                                     "one:3", "plain:3", "all:4", "one:4", "plain:4"));
}

TEST_F(Routing, gives_captures_and_properties) {
  on("a/+/b/#", [&](const Message& message) {
    std::string text;
    for (const auto capture : message.captures()) text += "<" + std::string(capture) + ">";
    log.add(text + std::to_string(message.properties.number(mqtt::PropertyId::subscription_identifier, 0)));
  });
  on("a/1/b", [&](const Message& message) { log.add(message.captures().empty() ? "none" : "some"); });
  dispatcher.start(nullptr);
  deliver("a/1/b/2/3", "", QoS::at_most_once, {7});
  deliver("a/1/b/2/3", "", QoS::at_most_once, {7});
  deliver("a/2/b/2/3", "", QoS::at_most_once, {7});
  deliver("a/1/b", "");
  ASSERT_TRUE(handled(4));
  EXPECT_THAT(log.all(), ElementsAre("<1><2/3>7", "<1><2/3>7", "<2><2/3>7", "<1><>0", "none"));
}

TEST_F(Routing, copies_a_message_with_all_that_belongs_to_it) {
  OwnedMessage owned;
  on("a/+/#", [&](const Message& message) { owned = message.copy(); });
  dispatcher.start(nullptr);
  ASSERT_TRUE(deliver("a/1/2/3", "payload", QoS::at_least_once, {9}));
  ASSERT_TRUE(handled(1));
  ASSERT_TRUE(stop());
  const auto again = owned;
  owned = {};
  EXPECT_EQ(again->topic, "a/1/2/3");
  EXPECT_EQ(again->text(), "payload");
  EXPECT_EQ(again->qos, QoS::at_least_once);
  EXPECT_EQ(again->properties.number(mqtt::PropertyId::subscription_identifier, 0), 9u);
  EXPECT_THAT(again->captures(), ElementsAre("1", "2/3"));
  EXPECT_FALSE(again->acknowledgement());
}

TEST_F(Routing, begins_no_call_after_the_unsubscribe) {
  on("a", log.handler("first:"));
  on("a/#", [&](const Message&) {
    log.add("unsubscribes");
    table.remove("a");
    table.remove("a/+");
  });
  on("a/+", log.handler("never:"));
  dispatcher.start(nullptr);
  deliver("a/b", "1");  // a/# comes before a/+
  deliver("a", "2");
  ASSERT_TRUE(handled(2));
  EXPECT_THAT(log.all(), ElementsAre("unsubscribes", "unsubscribes"));
  table.remove("a/#");
  on("a", log.handler("again:"));
  deliver("a", "3");
  ASSERT_TRUE(handled(3));
  EXPECT_THAT(log.all(), ElementsAre("unsubscribes", "unsubscribes", "again:3"));
}

TEST_F(Routing, leaves_a_message_open_until_its_token_is_used) {
  std::vector<Acknowledgement> tokens;
  std::latch all_delivered(1);
  on("manual",
     [&](const Message& message) {
       all_delivered.wait();
       tokens.push_back(message.acknowledgement());
       EXPECT_FALSE(message.acknowledgement()) << "the first call takes it";
     },
     {.manual_ack = true});
  on("manual/#", log.handler("other:"));
  dispatcher.start(nullptr);
  deliver("manual", "0");
  deliver("manual", "1", QoS::at_least_once);
  deliver("manual", "2", QoS::exactly_once);
  deliver("manual/x", "3", QoS::at_least_once);
  all_delivered.count_down();
  ASSERT_TRUE(eventually([&] { return progress == 1; })) << "said when it has nothing more to do";
  EXPECT_THAT(acknowledged(), ElementsAre(4));
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_FALSE(tokens[0]) << "QoS 0";
  std::thread([&] { tokens[2].acknowledge(); }).join();
  EXPECT_EQ(progress, 2);
  EXPECT_THAT(acknowledged(), ElementsAre(4, 3));
  ASSERT_TRUE(stop());
  tokens[1].acknowledge();
  EXPECT_EQ(progress, 2) << "nobody to tell";
  EXPECT_THAT(acknowledged(), ElementsAre(4, 3, 2));
}

TEST_F(Routing, acknowledges_by_itself_what_a_manual_handler_threw_away_by_throwing) {
  on("#", [](const Message&) { throw std::runtime_error("no"); }, {.manual_ack = true});
  dispatcher.start(nullptr);
  deliver("a", "1", QoS::at_least_once);
  ASSERT_TRUE(handled(1));
  EXPECT_THAT(acknowledged(), ElementsAre(1));
  EXPECT_EQ(dispatcher.counts().handler_errors, 1u);
}

TEST_F(Routing, runs_handlers_on_their_executor_in_order_and_acknowledges_afterwards) {
  OwnExecutor own(false);
  on("a/+",
     [&](const Message& message) {
       log.add(std::string(message.text()) + (std::this_thread::get_id() == own.id() ? "" : " elsewhere") +
               " of " + std::string(message.captures()[0]) + (dispatcher.on_thread() ? "" : " outside"));
     },
     {.executor = own.executor()});
  dispatcher.start(nullptr);
  std::vector<std::string> expected;
  for (int i = 1; i <= 200; ++i) {
    deliver("a/x", std::to_string(i), i % 2 ? QoS::at_least_once : QoS::at_most_once);
    expected.push_back(std::to_string(i) + " of x");
  }
  ASSERT_TRUE(handled(200));
  EXPECT_THAT(acknowledged(), ElementsAre());
  EXPECT_EQ(dispatcher.counts().waiting, 200u);
  own.open();
  ASSERT_TRUE(eventually([&] { return acknowledged().size() == 100 && log.all().size() == 200; }));
  EXPECT_EQ(log.all(), expected);
  EXPECT_TRUE(eventually([&] { return dispatcher.counts().waiting == 0; }));
}

TEST_F(Routing, bounds_what_waits_for_executors) {
  OwnExecutor own(false);
  on("#", log.handler(""), {.executor = own.executor()});
  dispatcher.start(nullptr);
  const std::string payload(1'000, 'x');
  std::uint64_t taken = 0;
  for (int refused = 0; refused < 100;) {
    if (deliver("a", payload)) {
      ++taken;
      ASSERT_TRUE(handled(taken));
    } else {
      ++refused;
    }
    ASSERT_LT(taken, 1'100u);
  }
  EXPECT_GT(taken, 500u);
  const int before = progress;
  own.open();
  EXPECT_TRUE(eventually([&] { return progress > before; })) << "there is room again";
  EXPECT_TRUE(eventually([&] { return log.size() == taken; }));
  EXPECT_TRUE(deliver("a", payload));
}

TEST_F(Routing, survives_executors_that_throw_or_drop_and_those_that_run_at_once) {
  on("throws", log.handler(""), {.executor = [](auto) { throw std::runtime_error("closed"); }});
  on("drops", log.handler(""), {.executor = [](auto) {}});
  on("at-once", log.handler(""), {.executor = [](auto function) { function(); }});
  dispatcher.start(nullptr);
  deliver("throws", "1", QoS::at_least_once);
  deliver("drops", "2", QoS::at_least_once);
  deliver("at-once", "3", QoS::at_least_once);
  ASSERT_TRUE(handled(3));
  EXPECT_THAT(log.all(), ElementsAre("3"));
  EXPECT_THAT(acknowledged(), ElementsAre(3));
  EXPECT_EQ(dispatcher.counts().handler_errors, 2u);
  EXPECT_EQ(dispatcher.counts().waiting, 0u);
}

TEST_F(Routing, keeps_what_waits_for_an_executor_over_a_stop) {
  OwnExecutor own(false);
  on("a", log.handler(""), {.executor = own.executor()});
  on("gone", log.handler(""), {.executor = own.executor()});
  dispatcher.start(nullptr);
  deliver("a", "1", QoS::at_least_once);
  deliver("gone", "2", QoS::at_least_once);
  ASSERT_TRUE(handled(2));
  ASSERT_TRUE(stop());
  own.open();
  table.remove("gone");
  std::this_thread::sleep_for(20ms);
  EXPECT_THAT(log.all(), ElementsAre());
  dispatcher.start(nullptr);
  EXPECT_TRUE(eventually([&] { return log.size() == 1; }));
  EXPECT_TRUE(eventually([&] { return acknowledged().size() == 2; }));
  EXPECT_THAT(log.all(), ElementsAre("1"));
}

// --- messages before their handler

TEST_F(Routing, keeps_messages_of_a_persistent_session_until_their_handler_comes) {
  dispatcher.keep_unrouted();
  dispatcher.connected(true);
  on("other", log.handler("other:"));
  dispatcher.start(nullptr);
  deliver("a/1", "1", QoS::at_least_once);
  deliver("b", "2", QoS::at_least_once);
  deliver("other", "3", QoS::at_least_once);
  deliver("a/2", "4", QoS::exactly_once);
  deliver("a/3", "5");
  ASSERT_TRUE(handled(5));
  EXPECT_THAT(acknowledged(), ElementsAre(3));
  EXPECT_EQ(dispatcher.counts().kept, 4u);
  on("a/+", log.handler("a:"));
  ASSERT_TRUE(eventually([&] { return log.size() == 4; }));
  EXPECT_THAT(log.all(), ElementsAre("other:3", "a:1", "a:4", "a:5"));
  EXPECT_TRUE(eventually([&] { return acknowledged().size() == 3; }));
  EXPECT_THAT(acknowledged(), ElementsAre(3, 1, 4));
  EXPECT_EQ(dispatcher.counts().kept, 1u);
  EXPECT_EQ(dispatcher.counts().unrouted, 0u);
}

TEST_F(Routing, gives_up_the_oldest_message_without_a_handler_when_there_are_too_many) {
  dispatcher.keep_unrouted();
  std::atomic<int> warnings{0};
  dispatcher.set_log_sink([&](LogLevel, std::string_view, std::string_view) { ++warnings; });
  dispatcher.start(nullptr);
  const auto count = Dispatcher::kept_count_max + 3;
  for (std::size_t i = 1; i <= count; ++i) {
    ASSERT_TRUE(eventually([&] { return deliver("late", std::to_string(i), QoS::at_least_once); }));
  }
  ASSERT_TRUE(handled(count));
  EXPECT_THAT(acknowledged(), ElementsAre(1, 2, 3));
  EXPECT_EQ(dispatcher.counts().unrouted, 3u);
  on("#", log.handler(""));
  ASSERT_TRUE(eventually([&] { return log.size() == Dispatcher::kept_count_max; }));
  EXPECT_EQ(log.all().front(), "4");
  EXPECT_EQ(warnings, 1);
  const std::string large(300'000, 'x');  // more than a quarter of the bound
  table.remove("#");
  ASSERT_TRUE(deliver("late", large, QoS::at_least_once));
  ASSERT_TRUE(handled(count + 1));
  EXPECT_EQ(dispatcher.counts().unrouted, 4u);
}

TEST_F(Routing, gives_up_messages_without_a_handler_after_a_while) {
  dispatcher.keep_unrouted(30ms);
  dispatcher.start(nullptr);
  deliver("late", "1", QoS::at_least_once);
  deliver("late", "2", QoS::at_most_once);
  ASSERT_TRUE(handled(2));
  ASSERT_TRUE(eventually([&] { return dispatcher.counts().unrouted == 2; }))
      << "without a message to wake the lane";
  EXPECT_THAT(acknowledged(), ElementsAre(1));
  deliver("late", "3", QoS::at_least_once);
  ASSERT_TRUE(handled(3));
  EXPECT_THAT(acknowledged(), ElementsAre(1, 3)) << "not kept any more";
  dispatcher.connected(true);
  deliver("late", "4", QoS::at_least_once);
  ASSERT_TRUE(handled(4));
  EXPECT_EQ(dispatcher.counts().kept, 1u) << "a new connection";
}

TEST_F(Routing, does_not_keep_twice_what_comes_again_after_a_reconnect) {
  dispatcher.keep_unrouted();
  dispatcher.connected(true);
  dispatcher.start(nullptr);
  deliver("late", "1", QoS::at_least_once);
  deliver("late", "2", QoS::exactly_once);
  ASSERT_TRUE(handled(2));
  EXPECT_EQ(dispatcher.counts().kept, 2u);
  dispatcher.connected(true);
  acknowledgements.connected(true);
  deliver("late", "1 again", QoS::at_least_once);
  ASSERT_TRUE(handled(3));
  EXPECT_EQ(dispatcher.counts().kept, 2u);
  on("late", log.handler(""));
  ASSERT_TRUE(eventually([&] { return acknowledged().size() == 2; }));
  EXPECT_THAT(log.all(), ElementsAre("2", "1 again"));
  EXPECT_THAT(acknowledged(), ElementsAre(2, 3));
}

TEST_F(Routing, counts_and_acknowledges_what_nobody_wants) {
  dispatcher.start(nullptr);
  deliver("a", "1", QoS::at_least_once);
  ASSERT_TRUE(handled(1));
  EXPECT_THAT(acknowledged(), ElementsAre(1));
  EXPECT_EQ(dispatcher.counts().unrouted, 1u);
  EXPECT_EQ(dispatcher.counts().handled, 0u);
}

// --- de-duplication

TEST_F(Routing, leaves_out_calls_that_the_filter_has_seen) {
  struct ByText final : CallFilter {
    std::optional<Key> key_of(const Message& message) override {
      ++keys;
      if (message.text() == "none") return std::nullopt;
      return Key{message.text().size(), 0};
    }
    bool seen(const Key& key, std::uint64_t handler_id, Instant) override {
      return marked.contains({key[0], handler_id});
    }
    void mark(const Key& key, std::uint64_t handler_id, Instant) override {
      marked.insert({key[0], handler_id});
    }
    std::set<std::pair<std::uint64_t, std::uint64_t>> marked;
    std::atomic<int> keys{0};
  };
  auto filter = std::make_unique<ByText>();
  auto& by_text = *filter;
  dispatcher.set_call_filter(std::move(filter));
  OwnExecutor own;
  bool fails = true;
  on("a", [&](const Message& message) {
    if (std::exchange(fails, false)) throw std::runtime_error("once");
    log.add("first:" + std::string(message.text()));
  });
  on("a/#", log.handler("second:"));
  on("x", log.handler("executor:"), {.executor = own.executor()});
  dispatcher.start(nullptr);
  deliver("a", "12");
  deliver("a", "34");    // of the same length: the first handler had thrown
  deliver("a", "none");  // has no key
  deliver("a", "none");
  ASSERT_TRUE(handled(4));
  EXPECT_THAT(log.all(),
              ElementsAre("second:12", "first:34", "first:none", "second:none", "first:none", "second:none"));
  EXPECT_EQ(by_text.keys, 4) << "once per message";
  deliver("x", "123", QoS::at_least_once);
  ASSERT_TRUE(eventually([&] { return acknowledged().size() == 1; }));
  deliver("x", "456", QoS::at_least_once);
  ASSERT_TRUE(eventually([&] { return acknowledged().size() == 2; }));
  EXPECT_EQ(log.all().back(), "executor:123");
  EXPECT_EQ(dispatcher.counts().duplicates, 2u);
}

TEST_F(Routing, measures_the_time_from_the_socket_to_the_handler) {
  on("a", [](const Message&) {});
  dispatcher.start(nullptr);
  dispatcher.stamp(DispatchLane::Clock::now() - 5ms);
  deliver("a", "1");
  ASSERT_TRUE(handled(1));
  EXPECT_GE(dispatcher.counts().latency, 5ms);
  EXPECT_LT(dispatcher.counts().latency, 5s);
}

}  // namespace
}  // namespace fulmar
