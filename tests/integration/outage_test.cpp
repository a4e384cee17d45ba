// Client when the broker dies: accepted messages arrive all the same, in order.
#include <gtest/gtest.h>

#include <charconv>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

std::string numbered(int number) {
  const std::string digits = std::to_string(number);
  return "n/" + std::string(5 - digits.size(), '0') + digits;
}

// The numbers of the topics n/NNNNN that the broker received, one list for each of its lives.
std::vector<std::vector<int>> received_by(const Broker& broker) {
  std::vector<std::vector<int>> lives;
  const std::string log = broker.log();
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const auto line = std::string_view(log).substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with(" starting")) lives.emplace_back();
    if (!line.contains("Received PUBLISH from ")) continue;
    const std::size_t at = line.find("'n/");
    if (at == std::string_view::npos) continue;
    int number = -1;
    std::from_chars(line.data() + at + 3, line.data() + line.size(), number);
    lives.back().push_back(number);
  }
  return lives;
}

class Outage : public testing::TestWithParam<ProtocolVersion> {
 protected:
  Broker broker_;
};

TEST_P(Outage, of_a_broker_killed_in_mid_publish_loses_and_reorders_nothing) {
  constexpr int messages = 10'000;
  auto config = config_for(broker_.url(), "publisher", GetParam());
  config.max_inflight = 50;
  Outcomes outcomes;
  Client client(config);
  ASSERT_TRUE(client.connect(10s));
  const auto publish = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      ASSERT_TRUE(
          client.publish(numbered(i), as_bytes("x"), {.qos = QoS::at_least_once}, outcomes.handler()));
    }
  };
  publish(0, messages / 2);
  ASSERT_TRUE(broker_.log_contains("'" + numbered(500) + "'"));
  broker_.freeze();  // from here on nothing is acknowledged, however fast the broker is
  publish(messages / 2, messages);
  broker_.kill();
  ASSERT_LT(outcomes.size(), std::size_t{messages});
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 10s));
  EXPECT_FALSE(client.last_change().reason.empty());
  broker_.start();

  ASSERT_TRUE(outcomes.wait_for(messages, 60s)) << outcomes.size() << " have an outcome";
  EXPECT_EQ(outcomes.count(Delivery::Outcome::acknowledged), std::size_t{messages});
  EXPECT_EQ(outcomes.size(), std::size_t{messages}) << "one outcome each";
  const auto metrics = client.metrics();
  EXPECT_EQ(metrics.acknowledged, std::uint64_t{messages});
  EXPECT_EQ(metrics.waiting, 0u);

  const auto lives = received_by(broker_);
  ASSERT_EQ(lives.size(), 2u);
  ASSERT_FALSE(lives[0].empty());
  ASSERT_FALSE(lives[1].empty());
  // Within each life no gap, no repetition, no overtaking.
  for (const auto& life : lives) {
    for (std::size_t i = 1; i < life.size(); ++i) ASSERT_EQ(life[i], life[i - 1] + 1);
  }
  EXPECT_EQ(lives[0].front(), 0);
  EXPECT_EQ(lives[1].back(), messages - 1);
  // Only what was in flight is sent again.
  EXPECT_LE(lives[1].front(), lives[0].back() + 1) << "a gap between the lives";
  EXPECT_LE(lives[0].back() + 1 - lives[1].front(), int{config.max_inflight});
}

TEST_P(Outage, that_lasts_from_the_start_delays_messages_and_loses_none) {
  broker_.stop();
  Outcomes outcomes;
  Client client(config_for(broker_.url(), "early", GetParam()));
  Collected<StateChange> failures;
  client.on_state_change([failures](const StateChange& change) {
    if (change.retry_in > 0ms) failures.add(change);
  });
  client.start();
  ASSERT_TRUE(failures.wait_for(2)) << "attempts in vain";
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_TRUE(client.publish(numbered(i), as_bytes("x"), {.qos = QoS::at_least_once}, outcomes.handler()));
  }
  broker_.start();
  ASSERT_TRUE(outcomes.wait_for(1'000));
  EXPECT_EQ(outcomes.count(Delivery::Outcome::acknowledged), 1'000u);
  const auto received = received_by(broker_).back();
  ASSERT_EQ(received.size(), 1'000u);
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(received[static_cast<std::size_t>(i)], i);
}

TEST_P(Outage, leaves_subscriptions_in_force) {
  Inbox inbox;
  Client client(config_for(broker_.url(), "subscriber", GetParam()));
  const auto one = *client.subscribe("one/+", inbox.handler(), {.qos = QoS::at_least_once}, inbox.granted());
  const auto two = *client.subscribe("two/#", inbox.handler(), {.qos = QoS::at_most_once}, inbox.granted());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(inbox.grants().wait_for(2));
  for (std::size_t life = 1; life <= 3; ++life) {
    broker_.kill();
    ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 10s));
    broker_.start();
    ASSERT_TRUE(inbox.grants().wait_for(2 + 2 * life)) << "subscribed again after outage " << life;
    ASSERT_TRUE(client.publish("one/x", "1", {.qos = QoS::at_least_once}));
    ASSERT_TRUE(client.publish("two/x/y", "2", {.qos = QoS::at_least_once}));
    ASSERT_TRUE(inbox.wait_for(2 * life));
  }
  EXPECT_EQ(client.metrics().connects, 4u);
  for (const auto& letter : inbox.items()) {
    EXPECT_EQ(letter.qos, letter.topic == "one/x" ? QoS::at_least_once : QoS::at_most_once)
        << letter.topic << ": each with the QoS it asked for";
  }
}

INSTANTIATE_TEST_SUITE_P(, Outage, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) {
                           return test.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

}  // namespace
}  // namespace fulmar::test
