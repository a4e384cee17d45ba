#include "fulmar/client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using testing::HasSubstr;

ClientConfig config_for(const std::string& url, const std::string& id = "client-test") {
  ClientConfig config;
  config.urls = {url};
  config.client_id = id;
  config.reconnect_min_delay = 100ms;
  config.reconnect_max_delay = 200ms;
  return config;
}

std::string url_of(std::uint16_t port) { return "mqtt://127.0.0.1:" + std::to_string(port); }

// Collects what handlers say, and waits for it.
template <typename T>
class Collected {
 public:
  void add(T value) {
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  bool wait_for(std::size_t count, std::chrono::milliseconds timeout = 20s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return values_.size() >= count; });
  }
  std::vector<T> values() {
    const std::lock_guard lock(mutex_);
    return values_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> values_;
};

TEST(Client, names_every_problem_of_its_configuration_when_constructed) {
  ClientConfig config;
  config.keepalive = 0s;
  try {
    const Client client(config);
    FAIL() << "was constructed";
  } catch (const std::invalid_argument& error) {
    EXPECT_THAT(error.what(), HasSubstr("MQTT_URL"));
    EXPECT_THAT(error.what(), HasSubstr("MQTT_CLIENT_ID"));
    EXPECT_THAT(error.what(), HasSubstr("MQTT_KEEPALIVE"));
  }
}

TEST(Client, checks_topics_before_anything_is_accepted) {
  Client client(config_for("mqtt://127.0.0.1:1"));
  for (const std::string& topic : {std::string(""), std::string("a/+"), std::string("#"),
                                   std::string("a\0b", 3), std::string("\xff"), std::string(65'536, 'x')}) {
    const auto result = client.publish(topic, "x");
    ASSERT_FALSE(result) << topic;
    EXPECT_EQ(result.error().code, Errc::invalid_topic);
  }
  EXPECT_FALSE(client.subscribe("a/#/b", [](const Message&) {}));
  EXPECT_FALSE(client.subscribe("a", {}));
  EXPECT_EQ(client.metrics().accepted, 0u);
}

// Page faults of this thread in publishing for the first time 2 MiB (512 pages) while there is no broker.
long faults_of_first_publishing(Wakeup wakeup) {
  const auto faults_so_far = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt;
  };
  auto config = config_for(url_of(test::free_port()));
  config.wakeup = wakeup;
  Client client(config);
  client.start();
  EXPECT_TRUE(client.wait_for(ConnectionState::connecting, 20s));
  const std::string payload(900, 'x');
  long faults = 0;
  for (int i = 0; i < 300; ++i) {
    const auto before = faults_so_far();
    for (int k = 0; k < 7; ++k) EXPECT_TRUE(client.publish("t", payload));
    faults += faults_so_far() - before;
    std::this_thread::sleep_for(1ms);  // a pace; what is looked at is this thread's
  }
  client.shutdown(0ms);
  return faults;
}

TEST(Client, keeps_page_faults_away_from_its_publishers_also_while_there_is_no_broker) {
  if (test::sanitized) GTEST_SKIP() << "a sanitizer's own memory faults too";
  for (const auto wakeup : {Wakeup{}, Wakeup{.lazy_interval = 1ms}}) {
    // A busy machine may keep the I/O thread from running for as long as this takes; but not again and again.
    long least = 1'000;
    for (int attempt = 0; attempt < 10 && least > 100; ++attempt) {
      least = std::min(least, faults_of_first_publishing(wakeup));
    }
    EXPECT_LE(least, 100) << (wakeup.lazy_interval > 0us ? "lazy" : "eager");
  }
}

class StartTest : public testing::TestWithParam<const char*> {};

// start() returns at once and Ctrl-C works at once, whatever the broker does.
TEST_P(StartTest, returns_in_less_than_a_millisecond_and_shuts_down_at_once) {
  const test::SilentPort silent;
  const std::string kind = GetParam();
  const std::string url = kind == "down"     ? url_of(test::free_port())
                          : kind == "silent" ? url_of(silent.port())
                                             : "mqtt://no-such-host.invalid";
  std::vector<Clock::duration> times;
  for (int i = 0; i < 21; ++i) {
    Client client(config_for(url));
    const auto before = Clock::now();
    client.start();
    times.push_back(Clock::now() - before);
    ASSERT_TRUE(client.publish("t", "waits", {.qos = QoS::at_least_once}));
    const auto stop = Clock::now();
    const auto report = client.shutdown(0ms);
    EXPECT_LT(Clock::now() - stop, 1s);
    EXPECT_EQ(report.lost, 1u);
    EXPECT_EQ(client.state(), ConnectionState::disconnected);
  }
  std::ranges::sort(times);
  EXPECT_LT(times[times.size() / 2], test::sanitized ? 50ms : 1ms);
}

INSTANTIATE_TEST_SUITE_P(Client, StartTest, testing::Values("down", "silent", "unresolvable"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST(Client, accounts_for_every_message_when_it_never_connected) {
  Collected<Delivery> outcomes;
  auto config = config_for("mqtt://127.0.0.1:1");
  config.outbox_messages = 3;
  {
    Client client(config);
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once},
                                 [&](const Delivery& delivery) { outcomes.add(delivery); }));
    }
    const auto metrics = client.metrics();
    EXPECT_EQ(metrics.accepted, 5u);
    EXPECT_EQ(metrics.dropped, 2u);
    EXPECT_EQ(metrics.waiting, 3u);
  }
  const auto values = outcomes.values();
  EXPECT_EQ(values.size(), 5u);
  for (const auto& delivery : values) EXPECT_EQ(delivery.outcome, Delivery::Outcome::dropped);
}

TEST(Client, rejects_when_asked_to_instead_of_dropping) {
  auto config = config_for("mqtt://127.0.0.1:1");
  config.outbox_messages = 2;
  config.overflow = Overflow::reject;
  Client client(config);
  EXPECT_TRUE(client.publish("t", "1"));
  EXPECT_TRUE(client.publish("t", "2"));
  const auto third = client.publish("t", "3");
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, Errc::outbox_full);
  EXPECT_TRUE(third.error().message.contains("outbox_bytes")) << third.error().message;
  EXPECT_EQ(client.metrics().accepted, 2u);
  EXPECT_EQ(client.metrics().outbox_messages, 2u);
  client.shutdown(0ms);
  EXPECT_EQ(client.publish("t", "4").error().code, Errc::shutting_down);
}

TEST(Client, bounds_large_payloads_by_bytes_too) {
  auto config = config_for("mqtt://127.0.0.1:1");
  config.outbox_bytes = 1 << 20;
  config.overflow = Overflow::reject;
  Client client(config);
  const std::string payload(400'000, 'x');
  EXPECT_TRUE(client.publish("t", payload));
  EXPECT_TRUE(client.publish("t", payload));
  EXPECT_EQ(client.publish("t", payload).error().code, Errc::outbox_full);
  EXPECT_EQ(client.publish("t", std::string(2'000'000, 'x')).error().code, Errc::payload_too_large);
}

TEST(Client, says_why_it_cannot_connect) {
  const auto port = test::free_port();
  Client client(config_for(url_of(port)));
  const auto result = client.connect(300ms);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::timeout);
  EXPECT_THAT(result.error().message, HasSubstr("127.0.0.1:" + std::to_string(port)));
  EXPECT_THAT(result.error().message, HasSubstr("Connection refused"));
}

class ProtocolTest : public testing::TestWithParam<ProtocolVersion> {};

TEST_P(ProtocolTest, carries_messages_of_every_qos_both_ways_in_order) {
  test::Broker broker;
  auto config = config_for(broker.url());
  config.protocol = GetParam();
  Collected<std::string> got;
  Collected<int> granted;
  Client client(config);
  std::vector<Subscription> subscriptions;
  for (int qos = 0; qos <= 2; ++qos) {
    auto subscription = client.subscribe(
        "t/" + std::to_string(qos) + "/+",
        [&](const Message& m) { got.add(std::string(m.topic) + "=" + std::string(m.text())); },
        {.qos = static_cast<QoS>(qos)}, [&](std::uint8_t code) { granted.add(code); });
    ASSERT_TRUE(subscription);
    subscriptions.push_back(std::move(*subscription));
  }
  client.start();
  ASSERT_TRUE(granted.wait_for(3));
  EXPECT_THAT(granted.values(), testing::UnorderedElementsAre(0, 1, 2));
  std::vector<std::string> expected[3];
  for (int i = 0; i < 300; ++i) {
    const int qos = i % 3;
    const std::string topic = "t/" + std::to_string(qos) + "/x";
    ASSERT_TRUE(client.publish(topic, std::to_string(i), {.qos = static_cast<QoS>(qos)}));
    expected[qos].push_back(topic + "=" + std::to_string(i));
  }
  EXPECT_TRUE(client.flush(10s));
  ASSERT_TRUE(got.wait_for(300));
  std::vector<std::string> seen[3];
  for (const auto& line : got.values()) seen[line[2] - '0'].push_back(line);
  for (int qos = 0; qos < 3; ++qos) EXPECT_EQ(seen[qos], expected[qos]);
  const auto report = client.shutdown();
  EXPECT_EQ(report.acknowledged, 300u);
  EXPECT_EQ(report.lost, 0u);
}

TEST_P(ProtocolTest, names_the_refusal_of_a_password_with_its_code) {
  test::Broker broker({.users = {{"user", "right"}}});
  auto config = config_for(broker.url_with("user", "wrong"));
  config.protocol = GetParam();
  Client client(config);
  const auto result = client.connect(10s);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::connection_refused);
  EXPECT_THAT(result.error().message, HasSubstr("refused the connection: "));
  EXPECT_THAT(result.error().message, testing::Not(HasSubstr("wrong")));
  EXPECT_EQ(result.error().reason_code, GetParam() == ProtocolVersion::v5 ? 0x87 : 5);

  auto right = config_for(broker.url_with("user", "right"));
  right.protocol = GetParam();
  Client welcome(right);
  EXPECT_TRUE(welcome.connect(10s));
}

INSTANTIATE_TEST_SUITE_P(Client, ProtocolTest, testing::Values(ProtocolVersion::v3_1_1, ProtocolVersion::v5),
                         [](const auto& version) {
                           return version.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

TEST(Client, carries_payloads_of_any_size) {
  test::Broker broker;
  Collected<std::string> got;
  Client client(config_for(broker.url()));
  const auto subscription = client.subscribe("big", [&](const Message& m) { got.add(std::string(m.text())); },
                                             {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  std::vector<std::string> sent;
  for (const std::size_t size : {0u, 1u, 65'535u, 65'536u, 65'537u, 1'000'000u, 5'000'000u}) {
    std::string payload(size, 0);
    for (std::size_t i = 0; i < size; ++i) payload[i] = static_cast<char>(i * 31 + size);
    ASSERT_TRUE(client.publish("big", payload, {.qos = QoS::at_least_once}));
    sent.push_back(std::move(payload));
  }
  ASSERT_TRUE(got.wait_for(sent.size()));
  EXPECT_TRUE(got.values() == sent);
}

TEST(Client, tells_each_publisher_the_outcome_once) {
  test::Broker broker;
  Collected<Delivery> outcomes;
  Client client(config_for(broker.url()));
  client.start();
  std::vector<MessageId> ids;
  for (int i = 0; i < 100; ++i) {
    const auto id = client.publish("t", as_bytes("x"), {.qos = static_cast<QoS>(i % 3)},
                                   [&](const Delivery& delivery) { outcomes.add(delivery); });
    ASSERT_TRUE(id);
    ids.push_back(*id);
  }
  ASSERT_TRUE(outcomes.wait_for(100));
  client.shutdown();
  auto values = outcomes.values();
  ASSERT_EQ(values.size(), 100u);
  std::ranges::sort(values, {}, &Delivery::id);
  for (std::size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(values[i].id, ids[i]);
    EXPECT_EQ(values[i].outcome, i % 3 == 0 ? Delivery::Outcome::sent : Delivery::Outcome::acknowledged);
  }
}

TEST(Client, resumes_after_the_broker_was_killed_and_loses_nothing) {
  test::Broker broker;
  Collected<int> got;
  Collected<StateChange> changes;
  Client subscriber(config_for(broker.url(), "subscriber"));
  const auto subscription = subscriber.subscribe(
      "n", [&](const Message& m) { got.add(std::stoi(std::string(m.text()))); }, {.qos = QoS::at_least_once});
  ASSERT_TRUE(subscriber.connect(10s));

  Client publisher(config_for(broker.url(), "publisher"));
  publisher.on_state_change([&](const StateChange& change) { changes.add(change); });
  ASSERT_TRUE(publisher.connect(10s));
  int next = 0;
  for (; next < 100; ++next)
    ASSERT_TRUE(publisher.publish("n", std::to_string(next), {.qos = QoS::at_least_once}));
  ASSERT_TRUE(got.wait_for(100));

  broker.kill();
  ASSERT_TRUE(publisher.wait_for(ConnectionState::reconnecting, 10s));
  for (; next < 1'000; ++next)
    ASSERT_TRUE(publisher.publish("n", std::to_string(next), {.qos = QoS::at_least_once}));
  EXPECT_GE(publisher.metrics().waiting, 900u);
  broker.start();
  // The publisher may be back before the subscriber, whose session the broker has forgotten: then messages pass it by.
  // What counts here is that each was acknowledged, and in what order they came.
  EXPECT_TRUE(publisher.flush(10s));
  EXPECT_EQ(publisher.metrics().acknowledged, 1'000u);
  ASSERT_TRUE(subscriber.wait_for(ConnectionState::connected, 10s));
  const auto values = got.values();
  EXPECT_TRUE(std::ranges::is_sorted(values));
  EXPECT_THAT(changes.values().back().reason, HasSubstr("connected to 127.0.0.1"));
}

TEST(Client, subscribes_again_when_the_server_has_forgotten_the_session) {
  test::Broker broker;
  Collected<std::string> got;
  Collected<int> granted;
  Client client(config_for(broker.url()));
  const auto subscription =
      client.subscribe("a/+", [&](const Message& m) { got.add(std::string(m.text())); });
  ASSERT_TRUE(client.connect(10s));
  broker.kill();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 10s));
  broker.start();
  ASSERT_TRUE(client.wait_for(ConnectionState::connected, 10s));
  const auto later = client.subscribe(
      "b", [&](const Message& m) { got.add(std::string(m.text())); }, {},
      [&](std::uint8_t code) { granted.add(code); });
  ASSERT_TRUE(granted.wait_for(1));
  ASSERT_TRUE(client.publish("a/1", "again"));
  ASSERT_TRUE(client.publish("b", "new"));
  ASSERT_TRUE(got.wait_for(2));
  EXPECT_THAT(got.values(), testing::ElementsAre("again", "new"));
}

TEST(Client, sends_a_subscription_before_what_the_same_thread_publishes_next) {
  test::Broker broker;
  Collected<std::string> got;
  Client client(config_for(broker.url()));
  ASSERT_TRUE(client.connect(10s));
  std::vector<Subscription> subscriptions;
  for (int i = 0; i < 300; ++i) {
    const std::string topic = "s/" + std::to_string(i);
    auto subscription = client.subscribe(topic, [&](const Message& m) { got.add(std::string(m.topic)); });
    ASSERT_TRUE(subscription);
    ASSERT_TRUE(client.publish(topic, "x"));
    subscriptions.push_back(std::move(*subscription));
  }
  EXPECT_TRUE(got.wait_for(300)) << got.values().size();
}

TEST(Client, stops_calling_a_handler_when_its_subscription_is_gone) {
  test::Broker broker;
  Collected<std::string> got, other;
  Client client(config_for(broker.url()));
  const auto marker = client.subscribe("b", [&](const Message& m) { other.add(std::string(m.text())); });
  ASSERT_TRUE(client.connect(10s));
  {
    const auto subscription =
        client.subscribe("a", [&](const Message& m) { got.add(std::string(m.text())); });
    ASSERT_TRUE(client.publish("a", "1"));
    ASSERT_TRUE(got.wait_for(1));
  }
  ASSERT_TRUE(client.publish("a", "2"));
  ASSERT_TRUE(client.publish("b", "after it"));
  ASSERT_TRUE(other.wait_for(1));
  EXPECT_EQ(got.values().size(), 1u);
}

TEST(Client, allows_every_call_from_within_a_handler) {
  test::Broker broker;
  Collected<std::string> got;
  std::optional<Subscription> inner;
  auto client = std::make_unique<Client>(config_for(broker.url()));
  const auto subscription = client->subscribe("a", [&](const Message&) {
    inner = *client->subscribe(
        "b",
        [&](const Message& m) {
          got.add(std::string(m.text()));
          inner.reset();
          client.reset();  // from its own dispatch thread
          got.add("destroyed");
        },
        {}, [&](std::uint8_t) { EXPECT_TRUE(client->publish("b", "from within")); });
  });
  ASSERT_TRUE(client->connect(10s));
  ASSERT_TRUE(client->publish("a", "go"));
  ASSERT_TRUE(got.wait_for(2));
  EXPECT_THAT(got.values(), testing::ElementsAre("from within", "destroyed"));
}

TEST(Client, keeps_the_link_alive_while_a_slow_handler_holds_the_input_back) {
  test::Broker broker;
  auto config = config_for(broker.url());
  config.inbound_bytes = 262'144;
  config.keepalive = 1s;
  std::atomic<bool> go{false};
  std::atomic<int> handled{0};
  Client client(config);
  const auto subscription = client.subscribe("s", [&](const Message&) {
    const auto until = Clock::now() + 10s;
    while (!go.load() && Clock::now() < until) std::this_thread::yield();
    ++handled;
  });
  ASSERT_TRUE(client.connect(10s));
  Client publisher(config_for(broker.url(), "publisher"));
  ASSERT_TRUE(publisher.connect(10s));
  const std::string payload(30'000, 'x');
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(publisher.publish("s", payload));
  ASSERT_TRUE(publisher.flush(10s));
  // Longer than 1.5 times the keep-alive: the server would have cut a client that stopped pinging.
  EXPECT_FALSE(client.wait_for(ConnectionState::reconnecting, 3s));
  go = true;
  const auto until = Clock::now() + 10s;
  while (handled.load() < 30 && Clock::now() < until) std::this_thread::yield();
  EXPECT_EQ(handled.load(), 30);
  EXPECT_EQ(client.metrics().connects, 1u);
}

TEST(Client, falls_over_to_the_next_url) {
  test::Broker broker;
  auto config = config_for(url_of(test::free_port()));
  config.urls.push_back(broker.url());
  Client client(config);
  const auto before = Clock::now();
  EXPECT_TRUE(client.connect(10s));
  EXPECT_LT(Clock::now() - before, 2s);
}

TEST(Client, publishes_from_many_threads_and_each_threads_order_is_kept) {
  test::Broker broker;
  Collected<std::pair<int, int>> got;
  Client client(config_for(broker.url()));
  constexpr int threads = 4, each = 500;
  const auto subscription = client.subscribe(
      "m/+", [&](const Message& m) { got.add({m.topic.back() - '0', std::stoi(std::string(m.text()))}); },
      {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  std::vector<std::thread> publishers;
  for (int thread = 0; thread < threads; ++thread) {
    publishers.emplace_back([&, thread] {
      for (int i = 0; i < each; ++i) {
        EXPECT_TRUE(
            client.publish("m/" + std::to_string(thread), std::to_string(i), {.qos = QoS::at_least_once}));
      }
    });
  }
  for (auto& publisher : publishers) publisher.join();
  ASSERT_TRUE(got.wait_for(std::size_t{threads} * each));
  int next[threads] = {};
  for (const auto& [thread, i] : got.values()) EXPECT_EQ(i, next[thread]++);
}

}  // namespace
}  // namespace fulmar
