// What the systems that a Fulmar client replaces could rely on, one test for each promise, against a real broker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <thread>

#include "fulmar/envelope.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// A sanitizer's build is several times slower: it proves memory and threads there, not time.
constexpr milliseconds bound(milliseconds time) { return sanitized ? 10 * time : time; }

milliseconds since(Clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
}

template <typename Time>
Time median(std::vector<Time> times) {
  std::ranges::sort(times);
  return times.at(times.size() / 2);
}

std::string envelope(const std::string& id, const std::string& data = "{}") {
  Envelope envelope;
  envelope.id = id;
  envelope.type = "reading";
  envelope.data = data;
  return *envelope.to_json();
}

// --- start -----------------------------------------------------------------------------------------------------------

class EveryBrokerState : public testing::TestWithParam<std::string_view> {
 protected:
  std::string url() {
    const auto state = GetParam();
    if (state == "closed") return "mqtt://127.0.0.1:" + std::to_string(free_port());
    if (state == "silent") return "mqtt://127.0.0.1:" + std::to_string(silent_.emplace().port());
    if (state == "unresolvable") return "mqtt://no-such-host.invalid";
    broker_ = std::make_unique<Broker>(
        Broker::Options{.users = state == "refusing" ? decltype(Broker::Options::users){{"ada", "secret"}}
                                                     : decltype(Broker::Options::users){}});
    if (state == "frozen") broker_->freeze();
    return broker_->url();
  }

  std::optional<SilentPort> silent_;
  std::unique_ptr<Broker> broker_;
};

TEST_P(EveryBrokerState, promise_start_takes_less_than_100_ms) {
  const auto url = this->url();
  milliseconds slowest{0};
  for (int i = 0; i < 20; ++i) {
    Client client(config_for(url, "starter-" + std::to_string(i)));
    const auto begin = Clock::now();
    client.start();
    slowest = std::max(slowest, since(begin));
    client.shutdown(0ms);
  }
  EXPECT_LT(slowest, bound(100ms));
}

INSTANTIATE_TEST_SUITE_P(, EveryBrokerState,
                         testing::Values("up", "closed", "silent", "frozen", "refusing", "unresolvable"),
                         [](const auto& test) { return std::string(test.param); });

// --- reconnect -------------------------------------------------------------------------------------------------------

TEST(Reconnect, promise_takes_less_than_50_ms_after_the_broker_is_back_besides_the_back_off) {
  struct Told {
    StateChange change;
    Clock::time_point at;
  };
  Broker broker;
  auto config = config_for(broker.url(), "returner");
  config.reconnect_min_delay = config.reconnect_max_delay = 100ms;
  Client client(config);
  Collected<Told> told;
  client.on_state_change([told](const StateChange& change) { told.add({change, Clock::now()}); });
  ASSERT_TRUE(client.connect(10s));

  std::vector<milliseconds> attempts, outages;
  for (int i = 0; i < 7; ++i) {
    broker.kill();
    ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 10s));
    broker.start();
    const auto back = Clock::now();
    ASSERT_TRUE(client.wait_for(ConnectionState::connected, 10s));
    outages.push_back(since(back));
    const auto deadline = Clock::now() + 10s;
    while (told.items().back().change.state != ConnectionState::connected && Clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
    const auto all = told.items();
    const auto& waited =
        all.at(all.size() - 2);  // the last failure, and how long it was to be waited after it
    ASSERT_EQ(waited.change.state, ConnectionState::reconnecting);
    EXPECT_EQ(waited.change.retry_in, 100ms);
    attempts.push_back(std::chrono::duration_cast<milliseconds>(all.back().at - waited.at) -
                       waited.change.retry_in);
  }
  EXPECT_LT(median(attempts), bound(50ms)) << "from the attempt's beginning to CONNACK";
  EXPECT_LT(median(outages), 100ms + bound(50ms)) << "from the broker's return, the back-off included";
}

// --- dispatch --------------------------------------------------------------------------------------------------------

TEST(Dispatch, promise_is_at_least_100_messages_per_second_with_a_handler_of_1_ms) {
  constexpr std::size_t messages = 500;
  Broker broker;
  Collected<int> handled;
  Client client(config_for(broker.url(), "worker"));
  const auto subscription = *client.subscribe("work",
                                              [handled](const Message&) {
                                                std::this_thread::sleep_for(1ms);
                                                handled.add(1);
                                              },
                                              {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  ASSERT_EQ(subscription.granted().wait_for(10s), std::future_status::ready);
  Client publisher(config_for(broker.url(), "publisher"));
  ASSERT_TRUE(publisher.connect(10s));
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < messages; ++i) {
    ASSERT_TRUE(publisher.publish("work", "x", {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(handled.wait_for(messages, 30s));
  const auto per_second = messages * 1000 / static_cast<std::size_t>(since(begin).count());
  EXPECT_GE(per_second, 100u);
}

// --- configuration ---------------------------------------------------------------------------------------------------

// The process's own environment, as from_env() reads it.
class Environment : public testing::Test {
 protected:
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);  // NOLINT(concurrency-mt-unsafe): before any client's threads
    names_.push_back(name);
  }
  void TearDown() override {
    for (const auto& name : names_) ::unsetenv(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  }
  std::vector<std::string> names_;
};

TEST_F(Environment, promise_the_eleven_variables_are_all_applied) {
  Broker broker({.users = {{"ada", "s3cret"}}});
  set("MQTT_URL", broker.url());
  set("MQTT_CLIENT_ID", "press-4");
  set("MQTT_USERNAME", "ada");
  set("MQTT_PASSWORD", "s3cret");
  set("MQTT_SOURCE_NAME", "hall-b/press");
  set("MQTT_KEEPALIVE", "17");
  set("MQTT_ENABLE_HEALTH", "Yes");
  set("MQTT_ENABLE_HEARTBEAT", "on");
  set("MQTT_HEARTBEAT_INTERVAL", "1.5");
  set("MQTT_DEDUPE_TTL", "30");
  set("MQTT_DEDUPE_MAX_ENTRIES", "2048");

  const auto config = ClientConfig::from_env();
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->problems().empty());
  EXPECT_EQ(config->heartbeat_interval, 1'500ms);
  EXPECT_EQ(config->dedupe_ttl, 30s);
  EXPECT_EQ(config->dedupe_max_entries, 2'048u);

  auto observer_config = config_for(broker.url_with("ada", "s3cret"), "observer");
  Inbox health, heartbeats, work;
  Client observer(observer_config);
  const auto on_health = *observer.subscribe("system/health/press-4", health.handler());
  const auto on_heartbeat = *observer.subscribe("system/keepalive/press-4", heartbeats.handler());
  ASSERT_TRUE(observer.connect(10s));

  Client client(*config);
  const auto on_work = *client.subscribe("work", work.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s)) << "MQTT_URL, MQTT_USERNAME and MQTT_PASSWORD";
  EXPECT_TRUE(broker.log_contains(" as press-4 (p5, c1, k17, u'ada')")) << "MQTT_CLIENT_ID, MQTT_KEEPALIVE";
  ASSERT_TRUE(health.wait_for(1)) << "MQTT_ENABLE_HEALTH";
  const auto ready = Envelope::parse(health.items()[0].text);
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->source, "hall-b/press") << "MQTT_SOURCE_NAME";

  ASSERT_TRUE(heartbeats.wait_for(1)) << "MQTT_ENABLE_HEARTBEAT";
  const auto first = Clock::now();
  ASSERT_TRUE(heartbeats.wait_for(2));
  EXPECT_GT(since(first), 1'200ms) << "MQTT_HEARTBEAT_INTERVAL";
  EXPECT_LT(since(first), bound(1'800ms));

  const std::string twice = envelope("1"), other = envelope("2");
  for (const auto& text : {twice, twice, other}) {
    ASSERT_TRUE(observer.publish("work", text, {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(work.wait_for(2));
  EXPECT_EQ(work.items()[1].text, other) << "MQTT_DEDUPE_TTL, MQTT_DEDUPE_MAX_ENTRIES";
}

// --- health, heartbeat, watchdog -------------------------------------------------------------------------------------

TEST(Heartbeat, promise_comes_at_once_and_then_at_the_interval) {
  Broker broker;
  Collected<Clock::time_point> beats;
  Client observer(config_for(broker.url(), "observer"));
  const auto subscription =
      *observer.subscribe("system/keepalive/beating", [beats](const Message&) { beats.add(Clock::now()); });
  ASSERT_TRUE(observer.connect(10s));
  auto config = config_for(broker.url(), "beating");
  config.enable_heartbeat = true;
  config.heartbeat_interval = 1s;
  Client client(config);
  ASSERT_TRUE(client.connect(10s));
  const auto connected = Clock::now();
  ASSERT_TRUE(beats.wait_for(4));
  const auto at = beats.items();
  EXPECT_LT(at[0] - connected, bound(300ms));
  for (std::size_t i = 1; i < 4; ++i) {
    // A beat may be told late on a busy machine; it does not shift the ones behind it.
    const auto due = at[0] + i * 1s;
    EXPECT_GT(at[i], due - 300ms) << "beat " << i;
    EXPECT_LT(at[i], due + bound(300ms)) << "beat " << i;
  }
}

TEST(Watchdog, promise_reconnects_after_three_intervals_without_a_heartbeat) {
  Broker broker;
  auto config = config_for(broker.url(), "watched");
  config.enable_heartbeat = true;
  config.heartbeat_interval = 1s;
  config.connect_timeout = 500ms;
  config.outbox_bytes = 64 << 20;
  Client client(config);
  ASSERT_TRUE(client.connect(10s));
  broker.freeze();
  const auto stuck = Clock::now();
  // More than the sockets of both sides hold, so that no heartbeat can be handed to the operating system any more.
  const std::string much(64'000, 'x');
  for (int i = 0; i < 800; ++i) ASSERT_TRUE(client.publish("much", much));
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 20s));
  EXPECT_GE(since(stuck), 2'500ms);
  EXPECT_LT(since(stuck), 3'500ms + bound(1'000ms)) << "keep-alive is 60 s: it was the watchdog";
  EXPECT_EQ(client.metrics().disconnects_by_timeout, 1u);
  broker.thaw();
  EXPECT_TRUE(client.wait_for(ConnectionState::connected, 20s));
}

TEST(Health, promise_is_retained_and_holds_after_a_reconnect) {
  Broker broker;
  auto config = config_for(broker.url(), "patient");
  config.enable_health = true;
  Client client(config);
  ASSERT_TRUE(client.connect(10s));
  const auto retained = [&](const std::string& who) {
    Inbox inbox;
    Client late(config_for(broker.url(), who));
    const auto subscription = *late.subscribe("system/health/patient", inbox.handler());
    EXPECT_TRUE(late.connect(10s));
    EXPECT_TRUE(inbox.wait_for(1));
    return inbox.size() == 0 ? Letter{} : inbox.items().front();
  };
  EXPECT_TRUE(broker.log_contains("Sending PUBACK to patient"));
  const auto before = retained("before");
  EXPECT_TRUE(before.retain);
  EXPECT_THAT(before.text, HasSubstr(R"("event":"ready")"));

  broker.kill();  // which forgets its retained messages
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 10s));
  broker.start();
  ASSERT_TRUE(client.wait_for(ConnectionState::connected, 10s));
  ASSERT_TRUE(client.flush(10s));
  const auto after = retained("after");
  EXPECT_TRUE(after.retain);
  EXPECT_THAT(after.text, HasSubstr(R"("type":"health.status")"));
  EXPECT_THAT(after.text, HasSubstr(R"("ok":true,"event":"reconnected")"));
}

// --- handlers --------------------------------------------------------------------------------------------------------

TEST(Envelopes, promise_duplicates_are_not_handled_again) {
  Broker broker;
  auto config = config_for(broker.url(), "once");
  config.dedupe_ttl = 30s;
  config.dedupe_max_entries = 2'048;
  Inbox inbox;
  Client client(config);
  const auto subscription = *client.subscribe("events", inbox.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  const std::string original = envelope("a", R"({"seq":7,"value":1})");
  for (const auto& text :
       {original, original, envelope("a", R"({"seq":8,"value":1})"), envelope("b", R"({"seq":7,"value":1})"),
        std::string("not an envelope"), std::string("not an envelope"), original, std::string("end")}) {
    ASSERT_TRUE(client.publish("events", text, {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(inbox.wait_for(6));
  ASSERT_TRUE(client.flush(10s));
  EXPECT_EQ(inbox.items().back().text, "end");
  EXPECT_EQ(inbox.size(), 6u);
  EXPECT_EQ(client.metrics().duplicates, 2u);
}

TEST(Handlers, promise_errors_are_isolated) {
  Broker broker;
  Inbox sane;
  Collected<std::string> broken, logged;
  Client client(config_for(broker.url(), "isolated"));
  client.set_log_sink(
      [logged](LogLevel, std::string_view, std::string_view text) { logged.add(std::string(text)); });
  const auto throws = *client.subscribe("both", [broken](const Message& message) {
    broken.add(std::string(message.text()));
    throw std::runtime_error("out of cheese");
  });
  const auto works = *client.subscribe("#", sane.handler());
  ASSERT_TRUE(client.connect(10s));
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client.publish("both", std::to_string(i), {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(sane.wait_for(10)) << "the other handler gets every message";
  ASSERT_TRUE(broken.wait_for(10)) << "and so does the one that throws";
  EXPECT_TRUE(client.connected());
  const auto deadline = Clock::now() + 10s;
  while (client.metrics().handler_errors < 10 && Clock::now() < deadline) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(client.metrics().handler_errors, 10u);
  EXPECT_EQ(client.metrics().disconnects, 0u);
  const auto texts = logged.items();
  EXPECT_TRUE(std::ranges::any_of(texts, [](const auto& text) { return text.contains("out of cheese"); }));
}

// --- shutdown --------------------------------------------------------------------------------------------------------

TEST(Shutdown, promise_is_idempotent_from_every_state_and_thread) {
  Broker broker;
  const auto twice = [](Client& client) {
    const auto first = client.shutdown(2s);
    const auto begin = Clock::now();
    const auto second = client.shutdown(2s);
    EXPECT_LT(since(begin), bound(100ms)) << "there is nothing left to do";
    EXPECT_EQ(first.acknowledged, second.acknowledged);
    EXPECT_EQ(first.lost, second.lost);
    EXPECT_EQ(client.state(), ConnectionState::disconnected);
    return first;
  };
  {
    Client never_started(config_for(broker.url(), "created"));
    ASSERT_TRUE(never_started.publish("t", "x", {.qos = QoS::at_least_once}));
    EXPECT_EQ(twice(never_started).lost, 1u);
  }
  {
    Client in_vain(config_for("mqtt://127.0.0.1:" + std::to_string(free_port()), "connecting"));
    in_vain.start();
    EXPECT_EQ(twice(in_vain).lost, 0u);
  }
  {
    Client disconnected(config_for(broker.url(), "disconnected"));
    ASSERT_TRUE(disconnected.connect(10s));
    disconnected.disconnect();
    EXPECT_EQ(twice(disconnected).lost, 0u);
  }
  Client connected(config_for(broker.url(), "connected"));
  ASSERT_TRUE(connected.connect(10s));
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(connected.publish("t", "x", {.qos = QoS::at_least_once}));
  std::array<ShutdownReport, 4> reports;
  {
    std::vector<std::jthread> threads;
    for (auto& report : reports) threads.emplace_back([&] { report = connected.shutdown(10s); });
  }
  for (const auto& report : reports) {
    EXPECT_EQ(report.acknowledged, 1'000u);
    EXPECT_EQ(report.lost, 0u);
  }
  EXPECT_EQ(twice(connected).acknowledged, 1'000u);
}

}  // namespace
}  // namespace fulmar::test
