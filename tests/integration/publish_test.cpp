// What publish() accepts, refuses and drops, and when.
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

ClientConfig offline_config() {
  auto config = config_for("mqtt://127.0.0.1:" + std::to_string(free_port()), "publisher");
  config.outbox_bytes = 65'536;
  return config;
}

TEST(Publish, a_batch_is_accepted_in_order_up_to_the_first_that_is_not) {
  Broker broker;
  Client client(config_for(broker.url(), "batch"));
  Inbox inbox;
  const auto subscription = client.subscribe("batch/+", inbox.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(10s));
  const std::array<OutgoingMessage, 3> good{{{"batch/a", as_bytes("1"), {.qos = QoS::at_least_once}},
                                             {"batch/b", as_bytes("2"), {.qos = QoS::at_least_once}},
                                             {"batch/c", as_bytes("3"), {.qos = QoS::at_least_once}}}};
  const auto all = client.publish(good);
  EXPECT_EQ(all.accepted, 3u);
  EXPECT_FALSE(all.error);
  const std::array<OutgoingMessage, 3> mixed{{{"batch/d", as_bytes("4"), {.qos = QoS::at_least_once}},
                                              {"batch/#", as_bytes("no"), {.qos = QoS::at_least_once}},
                                              {"batch/e", as_bytes("no"), {.qos = QoS::at_least_once}}}};
  const auto some = client.publish(mixed);
  EXPECT_EQ(some.accepted, 1u);
  EXPECT_EQ(some.first, all.first + 3);
  ASSERT_TRUE(some.error);
  EXPECT_EQ(some.error->code, Errc::invalid_topic);
  ASSERT_TRUE(client.flush(10s));
  ASSERT_TRUE(inbox.wait_for(4));
  EXPECT_EQ(inbox.items()[3].topic, "batch/d");
}

TEST(Publish, properties_out_of_range_are_refused_with_their_name) {
  Client client(offline_config());
  const auto refused = [&](const PublishOptions& options) {
    const auto id = client.publish("t", "x", options);
    return id ? std::string("accepted") : id.error().message;
  };
  EXPECT_EQ(refused({.content_type = "\xff"}), "content type is not valid UTF-8");
  EXPECT_NE(refused({.response_topic = "a/+"}).find("invalid response topic \"a/+\""), std::string::npos);
  const std::string large(70'000, 'x');
  EXPECT_EQ(refused({.correlation_data = as_bytes(large)}),
            "correlation data has 70000 bytes; expected at most 65535");
  const UserProperty broken[] = {{"unit", "\xc0\x80"}};
  EXPECT_EQ(refused({.user_properties = broken}), "the value of user property \"unit\" is not valid UTF-8");
  const UserProperty many[] = {{"a", "1"}, {"a", "2"}, {"", ""}};
  EXPECT_EQ(refused({.content_type = "text/plain", .user_properties = many}), "accepted");
  EXPECT_EQ(client.metrics().waiting, 1u);
}

TEST(Publish, properties_are_refused_where_3_1_1_is_spoken) {
  auto config = offline_config();
  config.protocol = ProtocolVersion::v3_1_1;
  Client client(config);
  const auto id = client.publish("t", "x", {.content_type = "text/plain"});
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, Errc::not_supported_by_server);
}

TEST(Publish, drop_oldest_keeps_the_newest_messages) {
  auto config = offline_config();
  config.overflow = Overflow::drop_oldest;
  Client client(config);
  client.start();
  Outcomes outcomes;
  constexpr int count = 3'000;  // of about 160 bytes: several times what fits
  for (int i = 0; i < count; ++i) {
    ASSERT_TRUE(client.publish("t", as_bytes(std::string(100, 'x')), {.qos = QoS::at_least_once},
                               outcomes.handler()));
    if (i % 50 < 49) continue;
    // The I/O thread keeps a quarter free, which is more than the next 50 take.
    ASSERT_TRUE(eventually([&] { return client.metrics().outbox_bytes <= 49'152; }));
  }
  const auto metrics = client.metrics();
  EXPECT_GT(metrics.dropped_overflow, 1'000u);
  EXPECT_EQ(metrics.accepted, metrics.dropped + metrics.waiting);
  EXPECT_LE(metrics.outbox_bytes, 65'536u);
  EXPECT_GT(metrics.waiting, 100u);
  ASSERT_TRUE(outcomes.wait_for(metrics.dropped_overflow));
  // Those that wait are the last ones.
  std::size_t oldest_dropped = 0;
  for (const auto& delivery : outcomes.items())
    oldest_dropped += delivery.id < metrics.accepted - metrics.waiting;
  EXPECT_EQ(oldest_dropped, metrics.dropped_overflow);
}

TEST(Publish, block_waits_for_room_and_no_longer_than_its_time) {
  auto config = offline_config();
  config.overflow = Overflow::block;
  config.block_timeout = 100ms;
  Client client(config);
  client.start();
  Result<MessageId> id = MessageId{0};
  while ((id = client.publish("t", std::string(1000, 'x'))) && client.metrics().accepted < 1'000) {
  }
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, Errc::outbox_full);
  const auto before = Clock::now();
  EXPECT_FALSE(client.publish("t", std::string(1000, 'x')));
  EXPECT_GE(Clock::now() - before, 100ms);

  // With a broker, everything goes through.
  Broker broker;
  auto online = config_for(broker.url(), "blocker");
  online.outbox_bytes = 65'536;
  online.overflow = Overflow::block;
  online.block_timeout = 10s;
  Client patient(online);
  ASSERT_TRUE(patient.connect(10s));
  for (int i = 0; i < 2'000; ++i) {
    ASSERT_TRUE(patient.publish("t", std::string(1000, 'x'), {.qos = QoS::at_least_once})) << i;
  }
  EXPECT_EQ(patient.shutdown(10s).lost, 0u);
}

TEST(Publish, qos_0_is_dropped_while_offline_where_that_is_wanted) {
  auto config = offline_config();
  config.offline_qos0 = OfflineQos0::drop;
  Client client(config);
  client.start();
  Outcomes outcomes;
  ASSERT_TRUE(client.publish("t", as_bytes("0"), {}, outcomes.handler()));
  ASSERT_TRUE(client.publish("t", as_bytes("1"), {.qos = QoS::at_least_once}, outcomes.handler()));
  ASSERT_TRUE(outcomes.wait_for(1));
  EXPECT_EQ(outcomes.items()[0].outcome, Delivery::Outcome::dropped);
  EXPECT_EQ(client.metrics().dropped_offline, 1u);
  EXPECT_EQ(client.metrics().waiting, 1u);
}

TEST(Publish, what_the_connected_server_does_not_take_is_refused_at_once) {
  Broker broker({.config = {"max_qos 1", "retain_available false"}});
  Client client(config_for(broker.url(), "modest"));
  ASSERT_TRUE(client.connect(10s));
  const auto qos = client.publish("t", "x", {.qos = QoS::exactly_once});
  ASSERT_FALSE(qos);
  EXPECT_EQ(qos.error().code, Errc::not_supported_by_server);
  const auto retain = client.publish("t", "x", {.retain = true});
  ASSERT_FALSE(retain);
  EXPECT_EQ(retain.error().code, Errc::not_supported_by_server);
}

TEST(Publish, the_round_trip_is_measured) {
  Broker broker;
  Client client(config_for(broker.url(), "measured"));
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(client.publish("t", "x", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(client.flush(10s));
  EXPECT_GT(client.metrics().round_trip, 0us);
  EXPECT_LT(client.metrics().round_trip, 5s);
}

}  // namespace
}  // namespace fulmar::test
