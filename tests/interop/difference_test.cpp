// In what the servers differ, as docs/interop.md tells it. When one of these fails with a newer server, it is the page
// that has to change.
#include <gtest/gtest.h>

#include "tests/interop/world.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

constexpr auto v5 = ProtocolVersion::v5;
constexpr auto v3_1_1 = ProtocolVersion::v3_1_1;

class Overlap : public World, public testing::WithParamInterface<Server::Kind> {
 protected:
  Kind kind() const override { return GetParam(); }
};

TEST_P(Overlap, of_two_subscriptions_makes_one_copy_or_two) {
  const std::string root = unique("overlap");
  Client client(config(v3_1_1));
  Inbox all, one, end;
  const auto wide = *client.subscribe(root + "/+", all.handler(), {.qos = QoS::at_most_once}, all.granted());
  const auto narrow =
      *client.subscribe(root + "/a", one.handler(), {.qos = QoS::at_least_once}, one.granted());
  const auto other =
      *client.subscribe(root + "/end/x", end.handler(), {.qos = QoS::at_least_once}, end.granted());
  ASSERT_TRUE(client.connect(20s));
  for (const Inbox* inbox : {&all, &one, &end}) ASSERT_TRUE(inbox->grants().wait_for(1));
  ASSERT_TRUE(client.publish(root + "/a", "m", {.qos = QoS::at_least_once}));
  const auto copies = static_cast<std::size_t>(server_traits().copies_for_overlapping);
  ASSERT_TRUE(all.wait_for(copies));
  ASSERT_TRUE(one.wait_for(copies)) << "every handler whose filter matches hears every copy";
  ASSERT_TRUE(client.publish(root + "/end/x", "m", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(end.wait_for(1));
  EXPECT_EQ(all.size(), copies);
  EXPECT_EQ(one.size(), copies);
}

INSTANTIATE_TEST_SUITE_P(Interop, Overlap, each_kind(),
                         [](const auto& test) { return std::string(to_string(test.param)); });

class Difference : public World {
 protected:
  // Collects the reasons of lost connections.
  static Collected<StateChange> losses_of(Client& client) {
    Collected<StateChange> losses;
    client.on_state_change([losses](const StateChange& change) {
      if (change.state == ConnectionState::reconnecting) losses.add(change);
    });
    return losses;
  }
};

class Nats : public Difference {
  Kind kind() const override { return Kind::nats; }
};

TEST_F(Nats, nats_refuses_5_0_with_a_connack_of_3_1_1) {
  Client client(config(v5));
  ASSERT_TRUE(client.connect(20s));
  EXPECT_TRUE(server().log().contains("unacceptable protocol version of 5"));
}

// The client neither lowers the QoS nor gives the message up: it says why the connection is lost, and tries again.
TEST_F(Nats, nats_closes_the_connection_upon_a_message_of_qos_2) {
  Client client(config(v3_1_1));
  auto losses = losses_of(client);
  Outcomes outcomes;
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(client.publish(unique("twice"), as_bytes("m"), {.qos = QoS::exactly_once}, outcomes.handler()));
  ASSERT_TRUE(losses.wait_for(2)) << "again";
  EXPECT_TRUE(losses.items()[0].reason.contains("closed the connection")) << losses.items()[0].reason;
  EXPECT_TRUE(server().log().contains("publish QoS=2 not supported"));
  EXPECT_EQ(outcomes.size(), 0u);
  client.shutdown(100ms);
  EXPECT_EQ(outcomes.count(Delivery::Outcome::dropped), 1u);
}

TEST_F(Nats, nats_takes_no_dots_and_spaces_in_topics) {
  for (const std::string bad : {"1.5", "1 5"}) {
    Client client(config(v3_1_1));
    auto losses = losses_of(client);
    Inbox inbox;
    const auto subscription = *client.subscribe(bad, inbox.handler(), {}, inbox.granted());
    ASSERT_TRUE(client.connect(20s));
    ASSERT_TRUE(inbox.grants().wait_for(1));
    EXPECT_EQ(inbox.grants().items()[0], 0x80) << "refused";
    ASSERT_TRUE(client.publish(bad, "m", {.qos = QoS::at_least_once}));
    ASSERT_TRUE(losses.wait_for(2)) << "and closed, each time it comes again";
    client.shutdown(100ms);
  }
  EXPECT_TRUE(server().log().contains("characters ' ' and '.' not supported"));
}

class Rabbit : public Difference {
  Kind kind() const override { return Kind::rabbitmq; }
};

TEST_F(Rabbit, rabbitmq_takes_a_dot_for_a_level) {
  const std::string root = unique("dot");
  Client client(config(v3_1_1));
  Inbox inbox;
  const auto subscription =
      *client.subscribe(root + "/+/+", inbox.handler(), {.qos = QoS::at_least_once}, inbox.granted());
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  ASSERT_TRUE(client.publish(root + "/1.5", "m", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(inbox.wait_for(1));
  EXPECT_EQ(inbox.items()[0].topic, root + "/1/5");
}

// PUBACK is no answer to QoS 2 [MQTT-4.3.3-2]: the message has no outcome, though a subscriber hears it.
TEST_F(Rabbit, rabbitmq_answers_qos_2_with_the_acknowledgement_of_qos_1) {
  const std::string topic = unique("twice");
  Client client(config(v3_1_1));
  Inbox inbox;
  Outcomes outcomes;
  const auto subscription =
      *client.subscribe(topic, inbox.handler(), {.qos = QoS::exactly_once}, inbox.granted());
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  ASSERT_TRUE(client.publish(topic, as_bytes("2"), {.qos = QoS::exactly_once}, outcomes.handler()));
  ASSERT_TRUE(client.publish(topic, as_bytes("1"), {.qos = QoS::at_least_once}, outcomes.handler()));
  ASSERT_TRUE(inbox.wait_for(2));
  EXPECT_EQ(inbox.items()[0].qos, QoS::at_least_once);
  ASSERT_TRUE(outcomes.wait_for(1)) << "the message behind it does not wait";
  EXPECT_EQ(outcomes.items()[0].outcome, Delivery::Outcome::acknowledged);
  EXPECT_FALSE(client.flush(200ms));
  EXPECT_EQ(client.metrics().waiting, 1u);
  client.shutdown(100ms);
  EXPECT_EQ(outcomes.count(Delivery::Outcome::dropped), 1u);
}

}  // namespace
}  // namespace fulmar::test
