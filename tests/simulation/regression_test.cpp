// What the simulated worlds have found in Session, each as small as it can be.
#include <gtest/gtest.h>

#include <set>

#include "allocation_meter.hpp"
#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using simulation::AllocationMeter;
using simulation::Metered;

SessionConfig lasting() {
  SessionConfig config;
  config.client_id = "c";
  config.clean_start = false;
  config.session_expiry_s = 3'600;
  return config;
}

// Publishes and completes `count` QoS 1 messages; returns the identifiers that they had.
std::set<std::uint16_t> identifiers_of_next(ScriptedServer& server, int count) {
  std::set<std::uint16_t> ids;
  for (int i = 0; i < count; ++i) {
    server.publish_record("x", QoS::at_least_once);
    server.flush();
    const auto id = server.next_as<PublishView>().packet_id;
    ids.insert(id);
    server.ack(PacketType::puback, id);
  }
  return ids;
}

// A server with a QoS 2 message in flight that it takes no longer: refused on the re-send. Returns its identifier.
std::uint16_t refuse_on_resend(ScriptedServer& server) {
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  const auto id = server.next_as<PublishView>().packet_id;
  server.reconnect(true, Properties().add(PropertyId::maximum_qos, 1u));
  EXPECT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.session.counts().in_flight, 0u);
  server.completed.clear();
  return id;
}

TEST(FoundBySimulation, an_identifier_that_the_server_may_hold_for_qos_2_is_not_given_again_MQTT_2_2_1_3) {
  ScriptedServer server(lasting());
  const auto id = refuse_on_resend(server);
  EXPECT_FALSE(identifiers_of_next(server, 1'000).contains(id));
  server.reconnect(true);
  EXPECT_FALSE(identifiers_of_next(server, 1'000).contains(id));
  server.reconnect(false);  // the server has forgotten it
  EXPECT_TRUE(identifiers_of_next(server, 1'000).contains(id));
}

TEST(FoundBySimulation, an_abandoned_identifier_is_free_when_the_server_ends_its_exchange) {
  ScriptedServer server(lasting());
  const auto id = refuse_on_resend(server);
  server.ack(PacketType::pubcomp, id);  // answers no PUBREL of ours
  EXPECT_FALSE(identifiers_of_next(server, 1'000).contains(id));
  server.ack(PacketType::pubrec, id);
  const auto release = server.next_as<AckView>();
  EXPECT_EQ(release.type, PacketType::pubrel);
  EXPECT_EQ(release.packet_id, id);
  EXPECT_EQ(release.reason, ReasonCode::success);
  server.ack(PacketType::pubcomp, id);
  EXPECT_TRUE(server.completed.empty() || server.completed.size() == 1'000);
  EXPECT_TRUE(identifiers_of_next(server, 1'000).contains(id));
}

TEST(FoundBySimulation, take_all_does_not_free_the_identifiers_of_qos_2_messages) {
  ScriptedServer server(lasting());
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  const auto id = server.next_as<PublishView>().packet_id;
  server.session.take_all([](RecordView) {});
  EXPECT_FALSE(identifiers_of_next(server, 1'000).contains(id));
}

TEST(FoundBySimulation, qos_0_does_not_wait_for_pubcomp_after_a_resumption) {
  auto config = lasting();
  config.max_inflight = 1;
  ScriptedServer server(config);
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  server.ack(PacketType::pubrec, server.next_as<PublishView>().packet_id);
  server.reconnect(true);
  EXPECT_EQ(server.next_as<AckView>().type, PacketType::pubrel);
  server.publish_record("y", QoS::at_most_once);
  server.flush();
  EXPECT_EQ(server.completed.size(), 1u);
}

TEST(FoundBySimulation, waiting_for_pingresp_does_not_excuse_silence_MQTT_3_1_2_20) {
  auto config = lasting();
  config.keepalive_s = 8;
  ScriptedServer server(config);
  server.connect();
  auto last_sent = server.now;
  server.pass(6900ms);
  server.publish("t",
                 "x");  // received just before the PINGREQ: the server counts as dead only 12 s from here
  while (server.session.state() == Session::State::connected) {
    server.run_timeout();
    if (server.sent.empty()) break;
    server.next_as<PingreqView>();
    EXPECT_LE(server.now - last_sent, 8s);
    last_sent = server.now;
  }
  EXPECT_TRUE(server.session.should_close());
  EXPECT_LE(server.now - last_sent, 8s);
}

TEST(FoundBySimulation, an_idle_session_gives_back_the_memory_of_a_burst) {
  auto config = lasting();
  config.max_inflight = 65'535;
  const auto before = AllocationMeter::bytes_held();
  ScriptedServer server(config);
  {
    server.connect();
    std::vector<std::uint16_t> ids;
    for (int i = 0; i < 20'000; ++i) {
      const Metered metered;
      RecordParts parts;
      parts.topic = "t";
      parts.qos = QoS::at_least_once;
      const OwnedRecord record(parts);
      server.session.publish(record.view());
    }
    {
      const Metered metered;
      std::vector<std::byte> buffer(1 << 20);
      while (server.session.transmit(buffer, server.now) != 0) {
      }
    }
    EXPECT_GT(AllocationMeter::bytes_held() - before, 500'000u);
    for (std::uint16_t id = 1; id <= 20'000; ++id) server.ack(PacketType::puback, id);
    EXPECT_EQ(server.session.counts().in_flight, 0u);
  }
  server.run_timeout();
  EXPECT_LT(AllocationMeter::bytes_held() - before, 64'000u);
}

// The server lost its session and the CONNACK that said so was lost too: it uses an identifier anew that the client still
// holds for a QoS 2 message. Within one connection that would be a violation.
TEST(FoundBySimulation, an_identifier_of_a_lost_session_may_come_again_with_another_qos) {
  ScriptedServer server(lasting());
  server.connect();
  server.publish("t", "old", QoS::exactly_once, 5);
  server.reconnect(true);
  server.publish("t", "new", QoS::at_least_once, 5);
  EXPECT_TRUE(server.closings.empty());
  ASSERT_EQ(server.messages.size(), 2u);
  EXPECT_EQ(server.messages[1].payload, "new");
  server.publish("t", "newer", QoS::exactly_once, 5);
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].rule, DecodeError::packet_id_of_other_qos);
}

TEST(FoundBySimulation, forget_session_behind_connect_holds_for_the_next_connect) {
  ScriptedServer server(lasting());
  server.connect();
  server.close();
  server.sent.clear();
  server.open();
  EXPECT_FALSE(server.next_as<ConnectView>().clean_start);
  server.session.forget_session();
  server.send(ConnackView{true, 0, {}});
  server.close();
  server.open();
  EXPECT_TRUE(server.next_as<ConnectView>().clean_start);
}

}  // namespace
}  // namespace fulmar::mqtt
