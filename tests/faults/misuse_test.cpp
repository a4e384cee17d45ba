// Fault P16: what must not reach the wire, and every function from many threads at once.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using mqtt::PacketType;

TEST(Faults, P16_bad_topics_are_errors_and_nothing_is_sent) {
  ScriptedBroker broker;
  Client client(config_for(broker.url(), "clumsy"));
  ASSERT_TRUE(client.connect(patience));
  const std::vector<std::string> bad_both = {
      "", std::string(65'536, 't'), "a\0b"s, "a\xff", "\xed\xa0\x80", "\xc0\x80", "a\xe2\x82"};
  for (const auto& topic : bad_both) {
    const auto published = client.publish(topic, as_bytes("x"), {.qos = QoS::at_least_once});
    ASSERT_FALSE(published) << topic.substr(0, 20);
    EXPECT_EQ(published.error().code, Errc::invalid_topic);
    EXPECT_FALSE(published.error().message.empty());
    const auto subscribed = client.subscribe(topic, [](const Message&) {});
    ASSERT_FALSE(subscribed) << topic.substr(0, 20);
    EXPECT_EQ(subscribed.error().code, Errc::invalid_topic);
  }
  for (const std::string topic : {"+", "#", "a/+", "a/#", "a+b"}) {
    const auto published = client.publish(topic, as_bytes("x"));
    ASSERT_FALSE(published) << topic;
    EXPECT_EQ(published.error().code, Errc::invalid_topic);
  }
  for (const std::string filter :
       {"a#", "a/#/b", "a+", "+a/b", "$share/g", "$share//f", "$share/g+/f", "$share/g/"}) {
    const auto subscribed = client.subscribe(filter, [](const Message&) {});
    ASSERT_FALSE(subscribed) << filter;
    EXPECT_EQ(subscribed.error().code, Errc::invalid_topic);
  }
  EXPECT_EQ(client.subscribe("a", {}).error().code, Errc::invalid_config);
  EXPECT_EQ(client.publish("a", as_bytes("x"), {.message_expiry = -1s}).error().code, Errc::invalid_config);
  ASSERT_TRUE(client.flush(patience));
  client.shutdown(1s);
  EXPECT_EQ(client.metrics().accepted, 0u);
  EXPECT_EQ(broker.packets(PacketType::publish), 0u);
  EXPECT_EQ(broker.packets(PacketType::subscribe), 0u);
  EXPECT_EQ(broker.malformed(), 0u);
}

TEST(Faults, P16_after_the_end_there_are_errors_and_no_crash) {
  ScriptedBroker broker;
  Client client(config_for(broker.url(), "late"));
  auto early = *client.subscribe("t", [](const Message&) {});
  ASSERT_TRUE(client.connect(patience));
  client.shutdown(5s);
  const auto sent = broker.packets(PacketType::publish);
  const auto published = client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once});
  ASSERT_FALSE(published);
  EXPECT_EQ(published.error().code, Errc::shutting_down);
  EXPECT_FALSE(
      client.publish("t", as_bytes("x"), {}, [](const Delivery&) { ADD_FAILURE() << "not accepted"; }));
  {
    const auto late = client.subscribe("u", [](const Message&) {});
  }
  early.unsubscribe();
  EXPECT_TRUE(client.flush(100ms) || true);
  EXPECT_EQ(client.shutdown(5s).lost, 0u) << "again";
  EXPECT_EQ(client.state(), ConnectionState::disconnected);
  EXPECT_EQ(broker.packets(PacketType::publish), sent);
}

TEST(Faults, P16_a_subscription_may_outlive_its_client) {
  ScriptedBroker broker;
  auto client = std::make_unique<Client>(config_for(broker.url(), "short"));
  auto subscription = *client->subscribe("t", [](const Message&) {});
  ASSERT_TRUE(client->connect(patience));
  client.reset();
  EXPECT_EQ(subscription.filter(), "t");
  subscription.unsubscribe();
}

TEST(Faults, P16_sixteen_threads_use_one_client_through_outages) {
  constexpr std::size_t count = 16;
  const auto duration = sanitized ? 3s : 2s;
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = persistent_config(proxy.url(), "shared");
  config.overflow = Overflow::reject;
  Client client(config);
  client.on_state_change([](const StateChange&) {});
  client.start();
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> accepted{0}, told{0};
  std::vector<std::thread> users;
  for (std::size_t thread = 0; thread < count; ++thread) {
    users.emplace_back([&, thread] {
      std::mt19937 random(static_cast<unsigned>(thread));
      std::vector<Subscription> subscriptions;
      while (!done) {
        switch (random() % 8) {
          case 0:
            subscriptions.push_back(
                *client.subscribe("t/" + std::to_string(random() % 10), [](const Message&) {}));
            if (subscriptions.size() > 5) subscriptions.erase(subscriptions.begin());
            break;
          case 1: (void)client.metrics(); break;
          case 2: (void)client.last_change(); break;
          case 3: (void)client.wait_for(ConnectionState::connected, 1ms); break;
          case 4: (void)client.flush(1ms); break;
          case 5: client.start(); break;
          default: {
            const auto qos = static_cast<QoS>(random() % 3);
            if (client.publish("t/x", as_bytes("x"), {.qos = qos}, [&](const Delivery&) { ++told; }))
              ++accepted;
          }
        }
      }
    });
  }
  const auto begin = Clock::now();
  while (since(begin) < duration) {
    std::this_thread::sleep_for(300ms);
    proxy.cut(since(begin).count() % 2 ? Ending::fin : Ending::rst);
  }
  done = true;
  for (auto& user : users) user.join();
  ASSERT_TRUE(client.flush(patience));
  const auto metrics = client.metrics();
  EXPECT_EQ(metrics.accepted, accepted);
  EXPECT_EQ(metrics.waiting, 0u);
  EXPECT_GE(metrics.disconnects, 1u);
  client.shutdown(5s);
  EXPECT_EQ(told, accepted) << "one outcome each";
  EXPECT_EQ(broker.malformed(), 0u);
}

TEST(Faults, P16_threads_that_publish_while_others_shut_down_are_told_of_every_accepted_message) {
  for (int round = 0; round < 20; ++round) {
    ScriptedBroker broker;
    Client client(config_for(broker.url(), "racer"));
    std::atomic<std::uint64_t> accepted{0}, told{0};
    client.start();
    std::vector<std::thread> users;
    for (int thread = 0; thread < 4; ++thread) {
      users.emplace_back([&] {
        for (;;) {
          const auto result = client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once},
                                             [&](const Delivery&) { ++told; });
          if (!result) {
            EXPECT_EQ(result.error().code, Errc::shutting_down);
            return;
          }
          ++accepted;
          std::this_thread::yield();
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(round));
    std::thread second([&] { client.shutdown(2s); });
    client.shutdown(2s);
    second.join();
    for (auto& user : users) user.join();
    EXPECT_TRUE(eventually([&] { return told == accepted; }, 5s)) << told << " of " << accepted;
  }
}

}  // namespace
}  // namespace fulmar::test
