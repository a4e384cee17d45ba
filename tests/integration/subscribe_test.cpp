// Client against a real broker: subscriptions and what comes in by them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> texts(const Inbox& inbox) {
  std::vector<std::string> all;
  for (const auto& letter : inbox.items()) all.push_back(letter.text);
  return all;
}

bool is_granted(const Subscription& subscription, QoS qos) {
  const auto granted = subscription.granted();
  return granted.wait_for(20s) == std::future_status::ready && granted.get() == qos;
}

// A subscriber whose session outlives its connections.
ClientConfig persistent(const std::string& url, const std::string& id) {
  auto config = config_for(url, id);
  config.clean_start = false;
  config.session_expiry = 300s;
  return config;
}

// Subscribes to `filter` in a session of that id, and leaves.
void leave_a_session(const std::string& url, const std::string& id, std::string_view filter) {
  Client former(persistent(url, id));
  auto subscription = *former.subscribe(filter, [](const Message&) {}, {.qos = QoS::exactly_once});
  ASSERT_TRUE(former.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::exactly_once));
  subscription.detach();
  former.shutdown(5s);
}

class Subscribe : public testing::Test {
 protected:
  // Publishes with QoS 1, which is done when the broker has it.
  void publish(std::string_view topic, std::string_view text, bool retain = false) {
    ASSERT_TRUE(publisher_.connect(10s));
    ASSERT_TRUE(publisher_.publish(topic, text, {.qos = QoS::at_least_once, .retain = retain}));
    ASSERT_TRUE(publisher_.flush(10s));
  }

  Broker broker_;
  Client publisher_{config_for(broker_.url(), "publisher")};
};

// mosquitto sends a copy for each subscription that matches.
TEST_F(Subscribe, overlapping_filters_get_each_message_once_in_v5) {
  Inbox exact, one, all, other, end;
  Client client(config_for(broker_.url(), "overlap"));
  const auto a = *client.subscribe("a/b", exact.handler(), {.qos = QoS::at_least_once});
  const auto b = *client.subscribe("a/+", one.handler(), {.qos = QoS::at_least_once});
  const auto c = *client.subscribe("#", all.handler(), {.qos = QoS::at_least_once});
  const auto d = *client.subscribe("a/c", other.handler(), {.qos = QoS::at_least_once});
  const auto e = *client.subscribe("end", end.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  for (const auto* one_of : {&a, &b, &c, &d, &e}) ASSERT_TRUE(is_granted(*one_of, QoS::at_least_once));
  constexpr std::size_t messages = 50;
  std::vector<std::string> expected;
  for (std::size_t i = 0; i < messages; ++i) {
    publish("a/b", std::to_string(i));
    expected.push_back(std::to_string(i));
  }
  publish("end", "end");
  ASSERT_TRUE(end.wait_for(1));
  ASSERT_TRUE(all.wait_for(messages + 1));
  EXPECT_EQ(texts(exact), expected);
  EXPECT_EQ(texts(one), expected);
  expected.push_back("end");
  EXPECT_EQ(texts(all), expected);
  EXPECT_EQ(other.size(), 0u);
  EXPECT_GT(client.metrics().received, 3 * messages) << "the broker did send copies";
}

TEST_F(Subscribe, gives_the_captures_of_its_wildcards) {
  Collected<std::string> captures;
  Client client(config_for(broker_.url(), "captures"));
  const auto subscription = *client.subscribe("site/+/hall/#", [captures](const Message& message) {
    std::string text;
    for (const auto capture : message.captures()) text += "<" + std::string(capture) + ">";
    captures.add(text);
  });
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::at_most_once));
  publish("site/7/hall/2/temperature", "");
  publish("site/8/hall", "");
  ASSERT_TRUE(captures.wait_for(2));
  EXPECT_THAT(captures.items(), ElementsAre("<7><2/temperature>", "<8><>"));
}

TEST_F(Subscribe, hands_out_the_properties_of_a_message) {
  std::promise<OwnedMessage> promise;
  auto got = promise.get_future();
  Client client(config_for(broker_.url(), "properties"));
  const auto subscription =
      *client.subscribe("p", [&](const Message& message) { promise.set_value(message.copy()); });
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::at_most_once));
  const UserProperty properties[] = {{"colour", "red"}, {"size", "L"}};
  PublishOptions options;
  options.message_expiry = 60s;
  options.content_type = "text/plain";
  options.response_topic = "answers";
  options.correlation_data = as_bytes("42");
  options.user_properties = properties;
  ASSERT_TRUE(client.publish("p", "x", options));
  ASSERT_EQ(got.wait_for(20s), std::future_status::ready);
  const auto message = got.get();
  EXPECT_EQ(message->content_type(), "text/plain");
  EXPECT_EQ(message->response_topic(), "answers");
  EXPECT_EQ(as_text(message->correlation_data()), "42");
  EXPECT_EQ(message->user_property("size"), "L");
  EXPECT_EQ(message->user_property("weight"), std::nullopt);
  ASSERT_TRUE(message->message_expiry());
  EXPECT_LE(*message->message_expiry(), 60s);
}

TEST_F(Subscribe, shares_messages_between_the_members_of_a_group) {
  Inbox first, second, whole;
  Client one(config_for(broker_.url(), "member-1"));
  Client two(config_for(broker_.url(), "member-2"));
  const auto a = *one.subscribe("$share/group/work/+", first.handler(), {.qos = QoS::at_least_once});
  const auto b = *two.subscribe("$share/group/work/+", second.handler(), {.qos = QoS::at_least_once});
  const auto c = *two.subscribe("work/#", whole.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(one.connect(10s));
  ASSERT_TRUE(two.connect(10s));
  for (const auto* one_of : {&a, &b, &c}) ASSERT_TRUE(is_granted(*one_of, QoS::at_least_once));
  constexpr std::size_t messages = 40;
  for (std::size_t i = 0; i < messages; ++i) publish("work/x", std::to_string(i));
  ASSERT_TRUE(whole.wait_for(messages));
  ASSERT_TRUE(eventually([&] { return first.size() + second.size() >= messages; }));
  EXPECT_EQ(whole.size(), messages);
  std::multiset<std::string> all;
  for (const auto& text : texts(first)) all.insert(text);
  for (const auto& text : texts(second)) all.insert(text);
  EXPECT_EQ(all.size(), messages) << "each to one of them, once";
  EXPECT_GT(first.size(), 0u);
  EXPECT_GT(second.size(), 0u);
}

TEST_F(Subscribe, asks_for_retained_messages_as_told) {
  publish("kept", "state", true);
  Client client(config_for(broker_.url(), "retained"));
  ASSERT_TRUE(client.connect(10s));
  Inbox always, published, never, again;
  auto subscription = *client.subscribe("kept", always.handler());
  ASSERT_TRUE(always.wait_for(1));
  EXPECT_TRUE(always.items()[0].retain);

  // Known to the server already: nothing comes before a new one.
  subscription =
      *client.subscribe("kept", published.handler(), {.retain_handling = RetainHandling::send_if_new});
  ASSERT_TRUE(is_granted(subscription, QoS::at_most_once));
  publish("kept", "second", true);
  ASSERT_TRUE(published.wait_for(1));
  EXPECT_EQ(published.items()[0].text, "second");
  EXPECT_FALSE(published.items()[0].retain);
  EXPECT_EQ(always.size(), 1u) << "was replaced";

  subscription.unsubscribe();
  const auto silent = *client.subscribe(
      "kept", never.handler(), {.retain_as_published = true, .retain_handling = RetainHandling::do_not_send},
      never.granted());
  const auto other = *client.subscribe("kept/#", again.handler(), {}, again.granted());
  ASSERT_TRUE(again.wait_for(1));
  EXPECT_EQ(never.size(), 0u);
  publish("kept", "third", true);
  ASSERT_TRUE(never.wait_for(1));
  EXPECT_TRUE(never.items()[0].retain) << "as it was published";
  ASSERT_TRUE(again.wait_for(2));
  EXPECT_FALSE(again.items()[1].retain);

  // The broker forgets the session, so everything is asked for again on the same terms.
  broker_.stop();
  broker_.start();
  ASSERT_TRUE(eventually([&] { return client.metrics().connects == 2; }));
  ASSERT_TRUE(never.grants().wait_for(2));
  ASSERT_TRUE(again.grants().wait_for(2));
  publish("kept", "fourth", true);
  ASSERT_TRUE(never.wait_for(2));
  EXPECT_EQ(never.items()[1].text, "fourth");
  EXPECT_TRUE(never.items()[1].retain);
  ASSERT_TRUE(again.wait_for(3));
}

TEST_F(Subscribe, tells_what_was_granted_and_what_was_refused) {
  auto client = std::make_unique<Client>(config_for(broker_.url(), "granted"));
  Inbox inbox;
  auto open = *client->subscribe("open", inbox.handler(), {.qos = QoS::exactly_once}, inbox.granted());
  auto gone = *client->subscribe("gone", inbox.handler());
  const auto cancelled = gone.granted();
  gone.unsubscribe();
  auto old = *client->subscribe("twice", inbox.handler());
  const auto replaced = old.granted();
  const auto now = *client->subscribe("twice", inbox.handler(), {.qos = QoS::at_least_once});
  EXPECT_EQ(cancelled.get().error().code, Errc::cancelled);
  EXPECT_EQ(replaced.get().error().code, Errc::cancelled);
  EXPECT_EQ(open.granted().wait_for(0s), std::future_status::timeout);
  ASSERT_TRUE(client->connect(10s));
  EXPECT_TRUE(is_granted(open, QoS::exactly_once));
  EXPECT_TRUE(is_granted(now, QoS::at_least_once));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  EXPECT_EQ(inbox.grants().items()[0], 2);
  EXPECT_EQ(client->metrics().subscriptions, 2u);

  const auto shared = client->subscribe("$share/g/x", inbox.handler(), {.no_local = true});
  ASSERT_FALSE(shared);
  EXPECT_EQ(shared.error().code, Errc::invalid_config);
  EXPECT_TRUE(client->unsubscribe("open"));
  EXPECT_FALSE(client->unsubscribe("open"));
  EXPECT_FALSE(client->unsubscribe("never"));

  broker_.stop();
  const auto late = *client->subscribe("late", inbox.handler());
  client->shutdown(1s);
  ASSERT_EQ(late.granted().wait_for(0s), std::future_status::ready);
  EXPECT_EQ(late.granted().get().error().code, Errc::shutting_down);
}

TEST(SubscribeRefused, is_told_to_who_subscribed) {
  Broker broker(Broker::Options{.users = {}, .config = {"max_packet_size 100"}});
  auto config = config_for(broker.url(), "refused");
  Collected<std::string> logged;
  Client client(config);
  client.set_log_sink([logged](LogLevel level, std::string_view, std::string_view text) {
    if (level == LogLevel::warning) logged.add(std::string(text));
  });
  const std::string filter(200, 'f');
  const auto subscription = *client.subscribe(filter, [](const Message&) {});
  ASSERT_TRUE(client.connect(10s));
  const auto granted = subscription.granted();
  ASSERT_EQ(granted.wait_for(20s), std::future_status::ready);
  ASSERT_FALSE(granted.get());
  EXPECT_EQ(granted.get().error().code, Errc::refused);
  EXPECT_EQ(granted.get().error().reason_code, 0x95) << granted.get().error().message;
  ASSERT_TRUE(logged.wait_for(1));
  EXPECT_THAT(logged.items()[0], HasSubstr("packet too large"));
}

TEST_F(Subscribe, acknowledges_by_hand_also_after_a_reconnect) {
  auto config = persistent(broker_.url(), "manual");
  Client client(config);
  Collected<std::string> seen;
  std::mutex mutex;
  std::map<std::string, Acknowledgement> tokens;
  auto subscription =
      *client.subscribe("work",
                        [&](const Message& message) {
                          const std::lock_guard lock(mutex);
                          tokens.insert_or_assign(std::string(message.text()), message.acknowledgement());
                          seen.add(std::string(message.text()));
                        },
                        {.qos = QoS::exactly_once, .manual_ack = true});
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::exactly_once));
  publish("work", "1");  // QoS 1
  ASSERT_TRUE(publisher_.publish("work", "2", {.qos = QoS::exactly_once}));
  ASSERT_TRUE(seen.wait_for(2));
  EXPECT_FALSE(broker_.log_contains("Received PUBACK from manual", 50ms));

  client.disconnect();
  ASSERT_TRUE(client.wait_for(ConnectionState::disconnected, 10s));
  Acknowledgement stale;
  {
    const std::lock_guard lock(mutex);
    stale = std::move(tokens["1"]);
  }
  stale.acknowledge();  // of a connection that is gone: it comes again
  {
    const std::lock_guard lock(mutex);
    tokens["2"].acknowledge();  // QoS 2 does not come again, and counts
  }
  client.start();
  ASSERT_TRUE(seen.wait_for(3));
  EXPECT_EQ(seen.items()[2], "1");
  Acknowledgement fresh;
  {
    const std::lock_guard lock(mutex);
    fresh = std::move(tokens["1"]);
  }
  std::thread([&] { fresh.acknowledge(); }).join();
  EXPECT_TRUE(broker_.log_contains("Received PUBACK from manual"));
  EXPECT_TRUE(broker_.log_contains("Received PUBREC from manual"));
  EXPECT_TRUE(broker_.log_contains("Received PUBCOMP from manual"));
  client.shutdown(5s);
  const auto received = seen.size();
  Client later(config);
  auto none = *later.subscribe("work", [&](const Message& message) { seen.add(std::string(message.text())); },
                               {.qos = QoS::exactly_once});
  ASSERT_TRUE(later.connect(10s));
  ASSERT_TRUE(is_granted(none, QoS::exactly_once));
  publish("work", "after it");
  ASSERT_TRUE(seen.wait_for(received + 1));
  EXPECT_EQ(seen.items().back(), "after it") << "nothing was left unacknowledged";
}

TEST_F(Subscribe, runs_handlers_on_the_callers_executor_in_order) {
  std::mutex mutex;
  std::deque<std::move_only_function<void()>> functions;
  std::atomic<bool> ending{false};
  std::thread worker([&] {
    while (!ending) {
      std::move_only_function<void()> next;
      {
        const std::lock_guard lock(mutex);
        if (!functions.empty()) {
          next = std::move(functions.front());
          functions.pop_front();
        }
      }
      if (next) {
        next();
      } else {
        std::this_thread::sleep_for(100us);
      }
    }
  });
  const auto worker_id = worker.get_id();
  {
    Inbox inbox, direct;
    std::atomic<int> elsewhere{0};
    Client client(config_for(broker_.url(), "executor"));
    SubscribeOptions options{.qos = QoS::at_least_once};
    options.executor = [&](std::move_only_function<void()> function) {
      const std::lock_guard lock(mutex);
      functions.push_back(std::move(function));
    };
    const auto subscription = *client.subscribe(
        "jobs/+",
        [&, handler = inbox.handler()](const Message& message) {
          if (std::this_thread::get_id() != worker_id || message.captures().size() != 1) ++elsewhere;
          handler(message);
        },
        options);
    const auto other = *client.subscribe("jobs/#", direct.handler(), {.qos = QoS::at_least_once});
    ASSERT_TRUE(client.connect(10s));
    ASSERT_TRUE(is_granted(subscription, QoS::at_least_once));
    ASSERT_TRUE(is_granted(other, QoS::at_least_once));
    constexpr std::size_t messages = 500;
    ASSERT_TRUE(publisher_.connect(10s));
    std::vector<std::string> expected;
    for (std::size_t i = 0; i < messages; ++i) {
      ASSERT_TRUE(publisher_.publish("jobs/1", std::to_string(i), {.qos = QoS::at_least_once}));
      expected.push_back(std::to_string(i));
    }
    ASSERT_TRUE(inbox.wait_for(messages));
    ASSERT_TRUE(direct.wait_for(messages));
    EXPECT_EQ(texts(inbox), expected);
    EXPECT_EQ(texts(direct), expected);
    EXPECT_EQ(elsewhere, 0);
    EXPECT_TRUE(eventually([&] { return client.metrics().inbound_messages == 0; }));
  }
  ending = true;
  worker.join();
}

TEST_F(Subscribe, keeps_messages_of_its_session_until_their_handler_is_there) {
  ASSERT_NO_FATAL_FAILURE(leave_a_session(broker_.url(), "heir", "legacy/#"));
  std::vector<std::string> expected;
  for (int i = 0; i < 10; ++i) {
    publish("legacy/" + std::to_string(i % 2), std::to_string(i));
    if (i % 2 == 1) expected.push_back(std::to_string(i));
  }
  Inbox inbox;
  Client client(persistent(broker_.url(), "heir"));
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(eventually([&] { return client.metrics().received == 10; }));
  EXPECT_FALSE(broker_.log_contains("Received PUBACK from heir", 50ms));
  EXPECT_EQ(client.metrics().unrouted, 0u);
  const auto subscription = *client.subscribe("legacy/1", inbox.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(inbox.wait_for(5));
  EXPECT_EQ(texts(inbox), expected);
  const auto rest = *client.subscribe("legacy/0", inbox.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(inbox.wait_for(10));
  EXPECT_TRUE(broker_.log_contains("Received PUBACK from heir"));
  EXPECT_TRUE(eventually([&] { return client.metrics().inbound_messages == 0; }));
}

TEST_F(Subscribe, replaces_the_handler_of_the_same_filter) {
  Inbox first, second;
  Client client(config_for(broker_.url(), "replace"));
  auto subscription = *client.subscribe("topic", first.handler());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::at_most_once));
  publish("topic", "1");
  ASSERT_TRUE(first.wait_for(1));
  auto now = *client.subscribe("topic", second.handler(), {.qos = QoS::at_least_once});
  subscription.unsubscribe();  // is of the former handler and touches nothing
  ASSERT_TRUE(is_granted(now, QoS::at_least_once));
  publish("topic", "2");
  ASSERT_TRUE(second.wait_for(1));
  EXPECT_EQ(second.items()[0].qos, QoS::at_least_once);
  EXPECT_EQ(first.size(), 1u);
}

TEST(SubscribeMany, ten_thousand_filters_in_packets_that_fit) {
  Broker broker(Broker::Options{.users = {}, .config = {"max_packet_size 512"}});
  auto config = config_for(broker.url(), "many");
  config.max_subscriptions = 10'000;
  Client client(config);
  Collected<std::string> got;
  std::vector<Subscription> subscriptions;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) {
    const auto n = std::to_string(i);
    auto one = client.subscribe(
        i % 10 == 0 ? "device/" + n + "/+" : "device/" + n + "/state",
        [got, i](const Message& message) { got.add(std::to_string(i) + " " + std::string(message.topic)); });
    ASSERT_TRUE(one) << one.error().message;
    subscriptions.push_back(std::move(*one));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, sanitized ? 20s : 1s);
  const auto more = client.subscribe("one/more", [](const Message&) {});
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, Errc::outbox_full);
  ASSERT_TRUE(client.connect(10s));
  for (const auto& one : subscriptions) ASSERT_TRUE(is_granted(one, QoS::at_most_once)) << one.filter();
  for (const int i : {0, 1, 10, 4'999, 5'000, 9'999}) {
    ASSERT_TRUE(client.publish("device/" + std::to_string(i) + "/state", "x", {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(got.wait_for(6));
  EXPECT_THAT(got.items(),
              ElementsAre("0 device/0/state", "1 device/1/state", "10 device/10/state",
                          "4999 device/4999/state", "5000 device/5000/state", "9999 device/9999/state"));
  EXPECT_EQ(client.metrics().connects, 1u);
}

// --- faults ----------------------------------------------------------------------------------------------------------

TEST(P12, a_handler_that_blocks_holds_up_neither_keep_alive_nor_publishing_and_inbound_is_bounded) {
  Broker broker;
  auto config = config_for(broker.url(), "blocked");
  config.keepalive = 1s;
  config.inbound_bytes = 256 << 10;
  std::promise<void> go;
  auto ready = go.get_future().share();
  Inbox inbox;
  std::atomic<std::size_t> handled{0};
  Client client(config);
  const auto subscription = *client.subscribe("flood", [&, ready](const Message&) {
    ready.wait();
    ++handled;
  });
  Client publisher(config_for(broker.url(), "flooder"));
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(is_granted(subscription, QoS::at_most_once));
  ASSERT_TRUE(publisher.connect(10s));
  const std::string payload(1'000, 'x');
  for (int i = 0; i < 3'000; ++i) ASSERT_TRUE(publisher.publish("flood", payload));
  std::this_thread::sleep_for(
      sanitized ? 2s : 3s);  // twice the time after which the broker would close a silent link
  EXPECT_TRUE(client.connected());
  EXPECT_EQ(client.metrics().connects, 1u);
  EXPECT_LT(client.metrics().received, 400u);
  ASSERT_TRUE(client.publish("other", "x", {.qos = QoS::at_least_once}));
  go.set_value();
  EXPECT_TRUE(client.flush(10s));
  EXPECT_TRUE(eventually([&] { return handled > 300; }));
}

TEST(P12, shutdown_does_not_wait_for_a_handler_that_never_returns) {
  Broker broker;
  std::promise<void> go, inside;
  auto client = std::make_unique<Client>(config_for(broker.url(), "stuck"));
  auto subscription = *client->subscribe("stuck", [&, ready = go.get_future().share()](const Message&) {
    inside.set_value();
    ready.wait();
  });
  ASSERT_TRUE(client->connect(10s));
  ASSERT_TRUE(client->publish("stuck", "x"));
  ASSERT_EQ(inside.get_future().wait_for(20s), std::future_status::ready);
  const auto begin = std::chrono::steady_clock::now();
  client->shutdown(300ms);
  client.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  go.set_value();
}

// The worker's handler waits for the executor's, which shuts down: nobody may wait for the worker then.
TEST(P13, a_handler_on_an_executor_may_shut_down_while_another_handler_runs) {
  Broker broker;
  std::promise<void> down, inside;
  std::deque<std::jthread> threads;
  auto client = std::make_unique<Client>(config_for(broker.url(), "both"));
  SubscribeOptions options;
  options.executor = [&](std::move_only_function<void()> function) {
    threads.emplace_back(std::move(function));
  };
  auto ending = *client->subscribe(
      "t",
      [&](const Message&) {
        inside.get_future().wait();
        client->shutdown(100ms);
        down.set_value();
      },
      options);
  auto waiting = *client->subscribe("u", [&](const Message&) {
    inside.set_value();
    EXPECT_EQ(down.get_future().wait_for(20s), std::future_status::ready);
  });
  ASSERT_TRUE(client->connect(10s));
  ASSERT_TRUE(is_granted(waiting, QoS::at_most_once));
  ASSERT_TRUE(client->publish("t", "x"));
  ASSERT_TRUE(client->publish("u", "x"));
  ASSERT_TRUE(client->wait_for(ConnectionState::disconnected, 20s));
  client.reset();
  threads.clear();
}

TEST(P13, handlers_may_throw_publish_subscribe_unsubscribe_shut_down_and_destroy) {
  Broker broker;
  for (int round = 0; round < 10; ++round) {
    auto client = std::make_unique<Client>(config_for(broker.url(), "wild"));
    Subscription inner;
    std::promise<void> end;
    auto ended = end.get_future();
    auto throwing = *client->subscribe("throw", [](const Message&) { throw std::runtime_error("thrown"); });
    auto subscribing = *client->subscribe("subscribe", [&](const Message&) {
      inner = *client->subscribe("inner", [&](const Message&) {
        inner.unsubscribe();
        EXPECT_TRUE(client->publish("throw", "2"));
        EXPECT_TRUE(client->publish("destroy", "now"));
      });
      EXPECT_TRUE(client->publish("inner", "x"));
    });
    auto destroying = *client->subscribe("destroy", [&](const Message&) {
      throwing.unsubscribe();
      EXPECT_EQ(client->metrics().handler_errors, 2u);
      client->shutdown(1s);
      client.reset();
      end.set_value();
    });
    ASSERT_TRUE(client->connect(10s));
    ASSERT_TRUE(client->publish("throw", "1"));
    ASSERT_TRUE(client->publish("subscribe", "x"));
    ASSERT_EQ(ended.wait_for(20s), std::future_status::ready);
  }
}

}  // namespace
}  // namespace fulmar::test
