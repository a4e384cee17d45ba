// Client's life: it starts and ends in time, whatever the other side does.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::string loopback(std::uint16_t port) { return "mqtt://127.0.0.1:" + std::to_string(port); }

// What the other side may be like.
class Nobody : public testing::TestWithParam<std::string_view> {
 protected:
  std::string url() {
    if (GetParam() == "port_closed") return loopback(free_port());
    if (GetParam() == "port_silent") return loopback(silent_.port());
    return "mqtt://no-such-host.invalid";
  }
  SilentPort silent_;
};

TEST_P(Nobody, start_returns_within_a_millisecond) {
  // The median of several: whatever start() waited for, it would wait for every time.
  std::array<Clock::duration, 9> took{};
  for (auto& each : took) {
    Client client(config_for(url(), "starter"));
    const auto begin = Clock::now();
    client.start();
    each = Clock::now() - begin;
    client.shutdown(0ms);
  }
  std::ranges::sort(took);
  EXPECT_LT(took[took.size() / 2], sanitized ? 50ms : 1ms);
}

TEST_P(Nobody, messages_are_accepted_and_accounted_for) {
  Client client(config_for(url(), "optimist"));
  Outcomes outcomes;
  client.start();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}, outcomes.handler()));
  }
  EXPECT_EQ(client.metrics().waiting, 100u);
  const auto report = client.shutdown(100ms);
  EXPECT_EQ(report.acknowledged, 0u);
  EXPECT_EQ(report.lost, 100u);
  EXPECT_EQ(outcomes.count(Delivery::Outcome::dropped), 100u) << "each is told";
  EXPECT_EQ(outcomes.size(), 100u) << "once";
  EXPECT_EQ(client.metrics().waiting, 0u);
}

TEST_P(Nobody, shutdown_keeps_its_deadline) {
  Client client(config_for(url(), "leaver"));
  ASSERT_TRUE(client.publish("t", "x", {.qos = QoS::at_least_once}));
  client.start();
  const auto begin = Clock::now();
  client.shutdown(300ms);
  EXPECT_LT(Clock::now() - begin, 1'300ms);
  EXPECT_EQ(client.state(), ConnectionState::disconnected);
  const auto late = client.publish("t", "x");
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::shutting_down);
}

TEST_P(Nobody, connect_says_why_not) {
  auto config = config_for(url(), "asker");
  config.connect_timeout = 300ms;
  Client client(config);
  const auto begin = Clock::now();
  const auto connected = client.connect(2s);
  ASSERT_FALSE(connected);
  EXPECT_LT(Clock::now() - begin, 4s);
  EXPECT_EQ(connected.error().code, Errc::timeout);
  const std::string_view named = GetParam() == "host_unknown" ? "no-such-host.invalid" : "127.0.0.1";
  EXPECT_TRUE(connected.error().message.contains(named)) << connected.error().message;
  EXPECT_EQ(connected.error().message.find('\n'), std::string::npos) << "one line";
}

INSTANTIATE_TEST_SUITE_P(, Nobody, testing::Values("port_closed", "port_silent", "host_unknown"),
                         [](const auto& test) { return std::string(test.param); });

class Refusal : public testing::TestWithParam<ProtocolVersion> {};

TEST_P(Refusal, of_a_wrong_password_is_visible_at_once_and_without_the_password) {
  Broker broker({.users = {{"ada", "right"}}});
  Client client(config_for(broker.url_with("ada", "wr0ng-secret"), "ada", GetParam()));
  Collected<StateChange> changes;
  client.on_state_change([changes](const StateChange& change) {
    if (change.reason_code) changes.add(change);
  });
  const auto connected = client.connect(10s);
  ASSERT_FALSE(connected);
  EXPECT_EQ(connected.error().code, Errc::connection_refused);
  EXPECT_TRUE(connected.error().reason_code.has_value());
  ASSERT_TRUE(changes.wait_for(1));
  const auto change = changes.items()[0];
  EXPECT_EQ(change.state, ConnectionState::connecting) << "it goes on trying";
  EXPECT_EQ(change.reason_code, connected.error().reason_code);
  for (const auto& text : {connected.error().message, change.reason}) {
    EXPECT_TRUE(text.contains("authori")) << text;
    EXPECT_FALSE(text.contains("wr0ng-secret")) << text;
  }
}

TEST_P(Refusal, does_not_meet_the_right_password) {
  Broker broker({.users = {{"ada", "right"}}});
  Client from_url(config_for(broker.url_with("ada", "right"), "ada", GetParam()));
  EXPECT_TRUE(from_url.connect(10s));
  auto config = config_for(broker.url(), "bob", GetParam());
  config.username = "ada";
  config.password = "right";
  Client from_fields(config);
  EXPECT_TRUE(from_fields.connect(10s));
}

INSTANTIATE_TEST_SUITE_P(, Refusal, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) {
                           return test.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

TEST(Shutdown, of_a_client_that_never_started_tells_its_messages) {
  Client client(config_for(loopback(free_port()), "idle"));
  Outcomes outcomes;
  ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}, outcomes.handler()));
  EXPECT_EQ(client.shutdown(1s).lost, 1u);
}

TEST(Shutdown, sends_everything_that_was_accepted_before_it) {
  Broker broker;
  Client client(config_for(broker.url(), "flusher"));
  client.start();
  for (int i = 0; i < 2'000; ++i) ASSERT_TRUE(client.publish("t", "x", {.qos = QoS::at_least_once}));
  const auto report = client.shutdown(20s);
  EXPECT_EQ(report.acknowledged, 2'000u);
  EXPECT_EQ(report.lost, 0u);
  EXPECT_TRUE(broker.log_contains("Received DISCONNECT from flusher"));
}

TEST(Shutdown, keeps_its_deadline_when_the_broker_has_frozen) {
  Broker broker;
  Client client(config_for(broker.url(), "patient"));
  ASSERT_TRUE(client.connect(10s));
  broker.freeze();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(client.publish("t", "x", {.qos = QoS::at_least_once}));
  const auto begin = Clock::now();
  const auto report = client.shutdown(500ms);
  EXPECT_LT(Clock::now() - begin, 1'500ms);
  EXPECT_EQ(report.lost, 10u);
}

TEST(Shutdown, is_idempotent_and_may_be_called_by_a_handler) {
  Broker broker;
  Client client(config_for(broker.url(), "handler"));
  Collected<int> done;
  const auto subscription = *client.subscribe("end", [&client, done](const Message&) {
    client.shutdown(1s);
    done.add(1);
  });
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(client.publish("end", "now"));
  ASSERT_TRUE(done.wait_for(1));
  client.shutdown(5s);
  client.shutdown(5s);
  EXPECT_EQ(client.state(), ConnectionState::disconnected);
}

TEST(KeepAlive, notices_a_frozen_broker_and_returns_when_it_thaws) {
  Broker broker;
  auto config = config_for(broker.url(), "watcher");
  config.keepalive = 1s;
  config.connect_timeout = 500ms;
  Client client(config);
  Collected<StateChange> changes;
  client.on_state_change([changes](const StateChange& change) { changes.add(change); });
  ASSERT_TRUE(client.connect(10s));
  broker.freeze();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 4s)) << "1.5 x keep-alive, and some";
  broker.thaw();
  ASSERT_TRUE(client.wait_for(ConnectionState::connected, 10s));
  client.shutdown();
  std::vector<ConnectionState> states;
  for (const auto& change : changes.items()) {
    EXPECT_FALSE(change.reason.empty()) << to_string(change.state);
    if (states.empty() || states.back() != change.state) states.push_back(change.state);
  }
  ASSERT_GE(states.size(), 3u);
  EXPECT_EQ(states.back(), ConnectionState::disconnected);
}

}  // namespace
}  // namespace fulmar::test
