// A client that is disconnected, started again, shut down and started once more; and clients that share threads.
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::size_t threads_of_this_process() {
  return without_sanitizers_thread(static_cast<std::size_t>(std::distance(
      std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator())));
}

// The kernel lists a thread for a moment after it was joined.
bool threads_become(std::size_t count) {
  const auto deadline = Clock::now() + 5s;
  while (threads_of_this_process() != count && Clock::now() < deadline) std::this_thread::sleep_for(1ms);
  return threads_of_this_process() == count;
}

std::size_t open_descriptors() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                                std::filesystem::directory_iterator()));
}

TEST(Restart, disconnect_ends_the_link_at_once_and_keeps_subscriptions_and_messages) {
  Broker broker;
  Client client(config_for(broker.url(), "comes-back"));
  Inbox inbox;
  auto subscription = client.subscribe("restart/#", inbox.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(subscription);
  ASSERT_TRUE(client.connect(10s));
  client.disconnect();
  ASSERT_TRUE(client.wait_for(ConnectionState::disconnected, 5s));
  EXPECT_TRUE(broker.log_contains("Received DISCONNECT from comes-back"));

  Outcomes outcomes;
  ASSERT_TRUE(client.publish("restart/1", as_bytes("kept"), {.qos = QoS::at_least_once}, outcomes.handler()));
  EXPECT_EQ(client.metrics().waiting, 1u);
  EXPECT_EQ(client.metrics().disconnects, 0u) << "it was the caller's wish";

  ASSERT_TRUE(client.connect(10s));
  EXPECT_TRUE(outcomes.wait_for(1));
  EXPECT_EQ(outcomes.count(Delivery::Outcome::acknowledged), 1u);
  ASSERT_TRUE(inbox.wait_for(1)) << "subscribed again without being asked";
  EXPECT_EQ(inbox.items()[0].text, "kept");
}

TEST(Restart, start_while_the_goodbye_is_under_way_connects_again) {
  Broker broker;
  Client client(config_for(broker.url(), "undecided"));
  ASSERT_TRUE(client.connect(10s));
  for (int i = 0; i < 20; ++i) {
    client.disconnect();
    client.start();
  }
  ASSERT_TRUE(client.wait_for(ConnectionState::connected, 10s));
  Outcomes outcomes;
  ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}, outcomes.handler()));
  EXPECT_TRUE(outcomes.wait_for(1));
}

TEST(Restart, disconnect_while_nothing_answers_needs_no_time_out) {
  SilentPort silent;
  Client client(config_for("mqtt://127.0.0.1:" + std::to_string(silent.port()), "impatient"));
  client.start();
  ASSERT_TRUE(client.wait_for(ConnectionState::connecting, 5s));
  const auto before = Clock::now();
  client.disconnect();
  EXPECT_TRUE(client.wait_for(ConnectionState::disconnected, 5s));
  EXPECT_LT(Clock::now() - before, 1s);
}

TEST(Restart, a_client_that_was_shut_down_starts_again) {
  Broker broker;
  Client client(config_for(broker.url(), "phoenix"));
  Inbox inbox;
  const auto subscription = client.subscribe("phoenix", inbox.handler(), {.qos = QoS::at_least_once});
  for (std::size_t life = 1; life <= 3; ++life) {
    ASSERT_TRUE(client.connect(10s)) << life;
    ASSERT_TRUE(client.publish("phoenix", "x", {.qos = QoS::at_least_once}));
    ASSERT_TRUE(inbox.wait_for(life)) << life;
    const auto report = client.shutdown();
    EXPECT_EQ(report.lost, 0u);
    EXPECT_EQ(report.acknowledged, life);
    EXPECT_EQ(client.state(), ConnectionState::disconnected);
    const auto late = client.publish("phoenix", "x");
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::shutting_down);
  }
}

TEST(Restart, a_hundred_lives_leave_no_thread_and_no_descriptor_behind) {
  Broker broker;
  const auto threads = threads_of_this_process();
  const auto descriptors = open_descriptors();
  const int lives = sanitized ? 30 : 100;
  for (int i = 0; i < lives; ++i) {
    Client client(config_for(broker.url(), "lives"));
    ASSERT_TRUE(client.connect(10s));
    client.shutdown();
  }
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_TRUE(threads_become(threads)) << threads_of_this_process() << " instead of " << threads;
}

TEST(SharedRuntime, many_clients_live_on_few_threads) {
  Broker broker;
  const auto threads = threads_of_this_process();
  Runtime runtime({.io_threads = 2, .dispatch_threads = 2});
  constexpr std::size_t clients_count = 200;
  std::vector<std::unique_ptr<Client>> clients;
  Inbox inbox;
  std::vector<Subscription> subscriptions;
  for (std::size_t i = 0; i < clients_count; ++i) {
    const auto id = "shared-" + std::to_string(i);
    clients.push_back(std::make_unique<Client>(config_for(broker.url(), id), runtime));
    auto subscription = clients.back()->subscribe("to/" + id, inbox.handler(), {.qos = QoS::at_least_once});
    ASSERT_TRUE(subscription);
    subscriptions.push_back(std::move(*subscription));
    clients.back()->start();
  }
  for (auto& client : clients) ASSERT_TRUE(client->wait_for(ConnectionState::connected, 20s));
  EXPECT_LE(threads_of_this_process(), threads + 4);
  for (std::size_t i = 0; i < clients_count; ++i) {
    ASSERT_TRUE(clients[i]->publish("to/shared-" + std::to_string((i + 1) % clients_count), "hello",
                                    {.qos = QoS::at_least_once}));
  }
  EXPECT_TRUE(inbox.wait_for(clients_count));

  // Clients come and go while the others work.
  for (std::size_t i = 0; i < clients_count; i += 2) clients[i].reset();
  for (std::size_t i = 1; i < clients_count; i += 2) {
    ASSERT_TRUE(clients[i]->publish("to/shared-" + std::to_string(i), "again", {.qos = QoS::at_least_once}));
  }
  EXPECT_TRUE(inbox.wait_for(clients_count + clients_count / 2));
  clients.clear();
}

TEST(SharedRuntime, its_threads_end_with_the_last_of_its_users) {
  Broker broker;
  const auto threads = threads_of_this_process();
  {
    std::optional<Client> client;
    {
      Runtime runtime;
      client.emplace(config_for(broker.url(), "survivor"), runtime);
    }
    ASSERT_TRUE(client->connect(10s)) << "a client keeps its runtime alive";
  }
  EXPECT_TRUE(threads_become(threads)) << threads_of_this_process() << " instead of " << threads;
}

TEST(SharedRuntime, refuses_numbers_of_threads_that_cannot_be_meant) {
  EXPECT_THROW(Runtime({.io_threads = 0}), std::invalid_argument);
  EXPECT_THROW(Runtime({.dispatch_threads = 257}), std::invalid_argument);
}

}  // namespace
}  // namespace fulmar::test
