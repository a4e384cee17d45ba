// Messages from the client to the server: the exchanges of QoS 0, 1 and 2, their order, resumption, wrong answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>

#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

// --- QoS 0 ----------------------------------------------------------------------------------------------------------

TEST(SessionPublish, qos_0_is_sent_once_without_identifier_and_dup_MQTT_4_3_1_1_MQTT_2_2_1_2_MQTT_3_3_1_2) {
  ScriptedServer server(persistent());
  server.connect();
  const auto sequence = server.publish_record("hello", QoS::at_most_once, "a/b");
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0b 0003 'a/b' 00 'hello'")));
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::sent);
  EXPECT_EQ(server.completed[0].sequence, sequence);
  EXPECT_EQ(server.completed[0].token, 1000 + sequence);
  server.reconnect(true);
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionPublish, in_3_1_1_there_are_no_properties) {
  ScriptedServer server(persistent(ProtocolVersion::v3_1_1));
  server.connect();
  const auto properties = bytes("01 01");
  RecordParts parts;
  parts.topic = "a";
  parts.properties = properties;
  parts.retain = true;
  parts.expiry_s = 10;
  parts.accepted_ns = std::chrono::nanoseconds(server.now.time_since_epoch()).count();
  server.publish_record(parts);
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("31 03 0001 'a'")));
}

TEST(SessionPublish, properties_stand_behind_what_is_decided_late) {
  ScriptedServer server(persistent());
  server.connect();
  const auto properties = bytes("01 01 26 0001 'k' 0001 'v'");
  RecordParts parts;
  parts.topic = "a";
  parts.properties = properties;
  parts.expiry_s = 100;
  parts.accepted_ns = std::chrono::nanoseconds(server.now.time_since_epoch()).count();
  server.publish_record(parts);
  server.pass(1500ms);
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("30 12 0001 'a' 0e 02 00000063 01 01 26 0001 'k' 0001 'v'")));
}

// --- QoS 1 ----------------------------------------------------------------------------------------------------------

TEST(SessionPublish, qos_1_ends_with_puback_MQTT_4_3_2_1_MQTT_4_3_2_2_MQTT_4_3_2_3) {
  for (const auto& config : {persistent(), persistent(ProtocolVersion::v3_1_1)}) {
    ScriptedServer server(config);
    server.connect();
    server.publish_record("x", QoS::at_least_once);
    server.flush();
    const auto publish = server.next_as<PublishView>();
    EXPECT_NE(publish.packet_id, 0);
    EXPECT_FALSE(publish.dup);
    EXPECT_EQ(server.session.counts().in_flight, 1u);
    EXPECT_TRUE(server.completed.empty());
    server.ack(PacketType::puback, publish.packet_id);
    ASSERT_EQ(server.completed.size(), 1u);
    EXPECT_EQ(server.completed[0].outcome, Outcome::acknowledged);
    EXPECT_EQ(server.session.counts().in_flight, 0u);
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionPublish, a_puback_with_an_error_is_final_MQTT_4_4_0_2) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::at_least_once);
  server.flush();
  server.ack(PacketType::puback, server.next_as<PublishView>().packet_id, ReasonCode::quota_exceeded);
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::refused);
  EXPECT_EQ(server.completed[0].reason, ReasonCode::quota_exceeded);
  server.reconnect(true);
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionPublish, no_matching_subscribers_is_an_acknowledgement) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::at_least_once);
  server.flush();
  server.ack(PacketType::puback, server.next_as<PublishView>().packet_id,
             ReasonCode::no_matching_subscribers);
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::acknowledged);
  EXPECT_EQ(server.completed[0].reason, ReasonCode::no_matching_subscribers);
}

// --- QoS 2 ----------------------------------------------------------------------------------------------------------

TEST(SessionPublish, qos_2_goes_through_pubrec_pubrel_pubcomp_MQTT_4_3_3_1_MQTT_4_3_3_4_MQTT_3_6_1_1) {
  for (const auto& config : {persistent(), persistent(ProtocolVersion::v3_1_1)}) {
    ScriptedServer server(config);
    server.connect();
    server.publish_record("x", QoS::exactly_once);
    server.flush();
    const auto publish = server.next_as<PublishView>();
    EXPECT_EQ(publish.qos, QoS::exactly_once);
    EXPECT_FALSE(publish.dup);
    server.ack(PacketType::pubrec, publish.packet_id);
    EXPECT_TRUE(server.completed.empty());
    EXPECT_EQ(server.next_hex(), "62 02 00 01");
    server.ack(PacketType::pubcomp, publish.packet_id);
    ASSERT_EQ(server.completed.size(), 1u);
    EXPECT_EQ(server.completed[0].outcome, Outcome::acknowledged);
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionPublish, a_pubrec_with_an_error_is_final_and_gets_no_pubrel) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  const auto id = server.next_as<PublishView>().packet_id;
  server.ack(PacketType::pubrec, id, ReasonCode::not_authorized);
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::refused);
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionPublish, pubrels_leave_in_the_order_of_the_pubrecs_also_after_a_reconnect_MQTT_4_6_0_4) {
  ScriptedServer server(persistent());
  server.connect();
  for (int i = 0; i < 3; ++i) server.publish_record("x", QoS::exactly_once);
  server.flush();
  server.sent.clear();
  for (const std::uint16_t id : std::initializer_list<std::uint16_t>{2, 3, 1})
    server.ack(PacketType::pubrec, id);
  EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 02", "62 02 00 03", "62 02 00 01"));
  server.reconnect(true);
  EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 02", "62 02 00 03", "62 02 00 01"));
}

TEST(SessionPublish, after_pubrec_the_publish_is_never_sent_again_MQTT_4_3_3_6_MQTT_4_3_3_5) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  server.sent.clear();
  server.ack(PacketType::pubrec, 1);
  for (int i = 0; i < 3; ++i) {
    server.reconnect(true);
    EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 01"));
  }
  server.ack(PacketType::pubcomp, 1, ReasonCode::packet_identifier_not_found);
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::acknowledged);
  server.reconnect(true);
  EXPECT_TRUE(server.sent.empty());
}

// --- resuming -------------------------------------------------------------------------------------------------------

TEST(SessionResume,
     resends_in_original_order_with_dup_before_anything_new_MQTT_4_4_0_1_MQTT_4_6_0_1_MQTT_3_3_1_1) {
  for (const auto& config : {persistent(), persistent(ProtocolVersion::v3_1_1)}) {
    ScriptedServer server(config);
    server.connect();
    for (const auto* payload : {"1", "2", "3", "4", "5"}) {
      server.publish_record(payload, payload[0] % 2 != 0 ? QoS::at_least_once : QoS::exactly_once);
    }
    server.flush();
    server.sent.clear();
    server.ack(PacketType::puback, 3);
    server.ack(PacketType::pubrec, 4);
    server.close();
    server.publish_record("6", QoS::at_most_once);
    server.sent.clear();
    server.connect(true);
    std::vector<std::uint16_t> ids;
    for (const auto& packet : server.sent) {
      if (const auto* publish = std::get_if<PublishView>(&packet->view)) ids.push_back(publish->packet_id);
    }
    EXPECT_THAT(ids, ElementsAre(1, 2, 5, 0));
    EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 04", "dup:1", "dup:2", "dup:5", "6"));
  }
}

TEST(SessionResume, a_lost_session_makes_new_messages_of_the_old_ones_in_order_MQTT_3_2_2_5) {
  ScriptedServer server(persistent());
  server.connect();
  for (const auto* payload : {"1", "2", "3"}) server.publish_record(payload, QoS::exactly_once);
  server.flush();
  server.ack(PacketType::pubrec, 2);
  server.close();
  server.publish_record("4", QoS::at_least_once);
  server.sent.clear();
  server.connect(false);
  EXPECT_THAT(payloads_of(server), ElementsAre("1", "2", "3", "4"));
  EXPECT_EQ(server.session.counts().in_flight, 4u);
  EXPECT_EQ(server.session.oldest(), 1u);
}

TEST(SessionResume, never_resends_on_the_same_connection_MQTT_4_4_0_1) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::at_least_once);
  server.flush();
  server.sent.clear();
  for (int i = 0; i < 10; ++i) {
    server.run_timeout();
    server.send(PingrespView{});
  }
  for (const auto& packet : server.sent) EXPECT_EQ(hex(packet->data), "c0 00");
}

TEST(SessionResume, an_answer_before_the_resend_completes_and_the_rest_goes_on) {
  auto config = persistent();
  ScriptedServer server(config);
  server.connect();
  for (const auto* payload : {"1", "2", "3", "4"}) server.publish_record(payload, QoS::at_least_once);
  server.flush();
  server.close();
  server.sent.clear();
  Bytes limits(3);
  PropertyWriter(limits).add(PropertyId::receive_maximum, 1);
  server.connect(true, PropertiesView(limits));
  EXPECT_THAT(payloads_of(server), ElementsAre("dup:1"));
  server.ack(PacketType::puback, 2);  // the next to be sent again
  server.ack(PacketType::puback, 4);
  EXPECT_TRUE(server.sent.empty());
  server.ack(PacketType::puback, 1);
  EXPECT_THAT(payloads_of(server), ElementsAre("dup:3"));
  server.ack(PacketType::puback, 3);
  EXPECT_EQ(server.completed.size(), 4u);
  EXPECT_EQ(server.session.counts().in_flight, 0u);
}

TEST(SessionResume, the_order_survives_many_connections_with_partial_progress) {
  std::mt19937 random(3);
  ScriptedServer server(persistent());
  server.connect();
  std::deque<std::string> unacknowledged;
  int next = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 5; ++i) {
      unacknowledged.push_back(std::to_string(next));
      server.publish_record(std::to_string(next++), QoS::at_least_once);
    }
    server.flush();
    std::vector<std::pair<std::uint16_t, std::string>> seen;
    std::size_t at = 0;
    while (!server.sent.empty()) {
      const auto publish = server.next_as<PublishView>();
      seen.emplace_back(publish.packet_id, std::string(as_text(publish.payload)));
      ASSERT_LT(at, unacknowledged.size());
      ASSERT_EQ(seen.back().second, unacknowledged[at++]) << round;
    }
    ASSERT_EQ(at, unacknowledged.size());
    for (std::size_t i = random() % 6; i > 0 && !seen.empty(); --i) {
      const auto victim = random() % seen.size();
      server.ack(PacketType::puback, seen[victim].first);
      unacknowledged.erase(std::ranges::find(unacknowledged, seen[victim].second));
      seen.erase(seen.begin() + static_cast<std::ptrdiff_t>(victim));
    }
    server.reconnect(random() % 4 != 0);
  }
}

// --- wrong answers --------------------------------------------------------------------------------------------------

TEST(SessionAnswers, unknown_duplicate_and_wrong_kinds_are_ignored_and_counted) {
  for (const auto& config : {persistent(), persistent(ProtocolVersion::v3_1_1)}) {
    ScriptedServer server(config);
    server.connect();
    server.publish_record("1", QoS::at_least_once);
    server.publish_record("2", QoS::exactly_once);
    server.flush();
    server.sent.clear();
    const auto ignored = [&] { return server.session.counts().answers_ignored; };
    server.ack(PacketType::puback, 99);
    server.ack(PacketType::pubcomp, 99);
    server.ack(PacketType::puback, 2);   // that is QoS 2
    server.ack(PacketType::pubcomp, 2);  // before its PUBREC
    server.ack(PacketType::pubrec, 1);   // that is QoS 1
    server.ack(PacketType::pubcomp, 1);
    EXPECT_EQ(ignored(), 6u);
    server.send_bytes(config.version == ProtocolVersion::v5 ? bytes("90 04 0001 00 00")
                                                            : bytes("90 03 0001 00"));
    EXPECT_EQ(ignored(), 7u);
    EXPECT_TRUE(server.sent.empty());
    EXPECT_TRUE(server.completed.empty());
    server.ack(PacketType::puback, 1);
    server.ack(PacketType::puback, 1);
    EXPECT_EQ(ignored(), 8u);
    server.ack(PacketType::pubrec, 2);
    server.ack(PacketType::pubrec, 2);  // its PUBREL is repeated
    EXPECT_EQ(ignored(), 9u);
    EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 02", "62 02 00 02"));
    server.ack(PacketType::puback, 2);
    server.ack(PacketType::pubcomp, 2);
    server.ack(PacketType::pubcomp, 2);
    EXPECT_EQ(ignored(), 11u);
    EXPECT_EQ(server.completed.size(), 2u);
    EXPECT_TRUE(server.closings.empty());
    EXPECT_EQ(server.session.counts().in_flight, 0u);
  }
}

TEST(SessionAnswers, an_unknown_pubrec_is_released_so_that_the_server_can_forget_it) {
  ScriptedServer server(persistent());
  server.connect();
  server.ack(PacketType::pubrec, 77);
  EXPECT_EQ(server.next_hex(), "62 03 00 4d 92");
  ScriptedServer old(persistent(ProtocolVersion::v3_1_1));
  old.connect();
  old.ack(PacketType::pubrec, 77);
  EXPECT_EQ(old.next_hex(), "62 02 00 4d");
}

TEST(SessionAnswers, an_error_of_pubrec_after_pubrec_changes_nothing) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  server.sent.clear();
  server.ack(PacketType::pubrec, 1);
  server.ack(PacketType::pubrec, 1, ReasonCode::unspecified_error);
  EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 01"));
  EXPECT_TRUE(server.completed.empty());
  server.ack(PacketType::pubrec, 55, ReasonCode::unspecified_error);
  EXPECT_TRUE(server.sent.empty());
}

// --- all together ---------------------------------------------------------------------------------------------------

TEST(SessionInvariant, every_record_has_exactly_one_outcome_whatever_happens) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    auto config = persistent(seed % 2 ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1);
    config.max_inflight = static_cast<std::uint16_t>(1 + random() % 20);
    ScriptedServer server(config);
    server.connect();
    std::vector<std::uint16_t> to_ack, to_rec, to_comp;
    const auto one_of = [&random](std::vector<std::uint16_t>& ids) {
      const auto at = random() % ids.size();
      const auto id = ids[at];
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at));
      return id;
    };
    const auto read_sent = [&] {
      while (!server.sent.empty()) {
        const auto& packet = server.next();
        if (const auto* publish = std::get_if<PublishView>(&packet.view)) {
          if (publish->qos == QoS::at_least_once) to_ack.push_back(publish->packet_id);
          if (publish->qos == QoS::exactly_once) to_rec.push_back(publish->packet_id);
        } else if (const auto* ack = std::get_if<AckView>(&packet.view)) {
          ASSERT_EQ(ack->type, PacketType::pubrel);
          to_comp.push_back(ack->packet_id);
        }
      }
    };
    for (int step = 0; step < 2'000; ++step) {
      switch (random() % 8) {
        case 0:
        case 1:
        case 2:
          if (server.session.publish_room() > 0) {
            server.publish_record(std::string(random() % 200, 'x'), static_cast<QoS>(random() % 3));
          }
          server.flush();
          break;
        case 3:
          if (!to_ack.empty()) server.ack(PacketType::puback, one_of(to_ack));
          break;
        case 4:
          if (!to_rec.empty()) server.ack(PacketType::pubrec, one_of(to_rec));
          break;
        case 5:
          if (!to_comp.empty()) server.ack(PacketType::pubcomp, one_of(to_comp));
          break;
        case 6:
          server.ack(static_cast<PacketType>(4 + random() % 2 * 3),
                     static_cast<std::uint16_t>(5'000 + random() % 99));
          break;
        default:
          if (random() % 20 == 0) {
            to_ack.clear();
            to_rec.clear();
            to_comp.clear();
            server.reconnect(random() % 2 == 0);
          }
          break;
      }
      read_sent();
      ASSERT_LE(server.session.counts().in_flight, config.max_inflight);
      ASSERT_TRUE(server.closings.empty());
    }
    for (int i = 0; i < 3'000 && (server.session.counts().in_flight || server.session.counts().queued); ++i) {
      if (!to_ack.empty()) server.ack(PacketType::puback, one_of(to_ack));
      if (!to_rec.empty()) server.ack(PacketType::pubrec, one_of(to_rec));
      if (!to_comp.empty()) server.ack(PacketType::pubcomp, one_of(to_comp));
      server.flush();
      read_sent();
    }
    std::vector<int> outcomes(server.last_sequence + 1);
    for (const auto& one : server.completed) ++outcomes[one.sequence];
    for (std::size_t sequence = 1; sequence < outcomes.size(); ++sequence)
      ASSERT_EQ(outcomes[sequence], 1) << seed;
  }
}

// --- topic aliases ---------------------------------------------------------------------------------------------------

TEST(SessionPublish, a_topic_is_sent_once_and_then_its_alias_MQTT_3_3_2_9) {
  ScriptedServer server(persistent());
  server.connect(false, Properties().add(PropertyId::topic_alias_maximum, 2));
  for (int i = 0; i < 2; ++i) {
    server.publish_record("x", QoS::at_most_once, "plant/a");
    server.publish_record("x", QoS::at_most_once, "plant/b");
  }
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0e 0007 'plant/a' 03 23 0001 'x'")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0e 0007 'plant/b' 03 23 0002 'x'")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 07 0000 03 23 0001 'x'")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 07 0000 03 23 0002 'x'")));
}

TEST(SessionPublish, the_least_recently_used_alias_is_given_to_a_new_topic) {
  ScriptedServer server(persistent());
  server.connect(false, Properties().add(PropertyId::topic_alias_maximum, 2));
  for (const auto* topic : {"plant/a", "plant/b", "plant/a", "plant/c", "plant/a", "plant/b"}) {
    server.publish_record("", QoS::at_most_once, topic);
  }
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0d 0007 'plant/a' 03 23 0001")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0d 0007 'plant/b' 03 23 0002")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 06 0000 03 23 0001")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0d 0007 'plant/c' 03 23 0002")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 06 0000 03 23 0001")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0d 0007 'plant/b' 03 23 0002")));
}

TEST(SessionPublish, an_alias_does_not_outlive_its_connection_and_its_maximum_MQTT_3_3_2_7_MQTT_3_2_2_17) {
  ScriptedServer server(persistent());
  server.connect(false, Properties().add(PropertyId::topic_alias_maximum, 5));
  server.publish_record("x", QoS::at_least_once, "plant/a");
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("32 10 0007 'plant/a' 0001 03 23 0001 'x'")));
  // The re-send names its topic again, and the next message may use the new alias.
  server.reconnect(true, Properties().add(PropertyId::topic_alias_maximum, 1));
  server.publish_record("y", QoS::at_most_once, "plant/a");
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("3a 10 0007 'plant/a' 0001 03 23 0001 'x'")));
  EXPECT_EQ(server.next_hex(), hex(bytes("30 07 0000 03 23 0001 'y'")));
  server.reconnect(true);
  EXPECT_EQ(server.next_hex(), hex(bytes("3a 0d 0007 'plant/a' 0001 00 'x'")));
}

TEST(SessionPublish, an_alias_is_not_worth_a_packet_that_is_too_large_MQTT_3_2_2_15) {
  ScriptedServer server(persistent());
  server.connect(
      false, Properties().add(PropertyId::topic_alias_maximum, 5).add(PropertyId::maximum_packet_size, 13));
  server.publish_record("x", QoS::at_most_once, "plant/a");
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("30 0b 0007 'plant/a' 00 'x'")));
}

// --- a session of a former process -----------------------------------------------------------------------------------

// Takes PUBRELs for identifiers that were not in use.
std::vector<std::uint16_t> pubrels(ScriptedServer& server) {
  std::vector<std::uint16_t> ids;
  while (!server.sent.empty()) {
    const auto* ack = std::get_if<AckView>(&server.sent.front()->view);
    if (!ack || ack->type != PacketType::pubrel) break;
    ids.push_back(ack->packet_id);
    server.sent.pop_front();
  }
  return ids;
}

// Answers PUBRELs until there are none, as a server does that holds none of them.
std::size_t clear_all(ScriptedServer& server) {
  std::size_t count = 0;
  for (auto ids = pubrels(server); !ids.empty(); ids = pubrels(server)) {
    count += ids.size();
    for (const auto id : ids) server.ack(PacketType::pubcomp, id, ReasonCode::packet_identifier_not_found);
  }
  return count;
}

TEST(SessionAdopted, an_identifier_is_cleared_before_its_first_qos_2_message_MQTT_4_3_3) {
  for (const auto version : {ProtocolVersion::v5, ProtocolVersion::v3_1_1}) {
    ScriptedServer server(persistent(version));
    server.connect(true);
    server.publish_record("0", QoS::at_most_once);
    server.publish_record("1", QoS::at_least_once);
    server.flush();
    EXPECT_EQ(payloads_of(server).size(), 2u) << "those wait for nothing";
    EXPECT_TRUE(server.sent.empty());

    server.publish_record("2", QoS::exactly_once);
    server.publish_record("3", QoS::at_least_once);
    server.flush();
    EXPECT_GT(clear_all(server), 0u);
    const auto first = server.next_as<PublishView>();
    EXPECT_EQ(as_text(first.payload), "2");
    const auto id = first.packet_id;
    EXPECT_EQ(as_text(server.next_as<PublishView>().payload), "3") << "in their order";
    clear_all(server);
    server.ack(PacketType::pubrec, id);
    EXPECT_EQ(pubrels(server), std::vector{id});
    server.ack(PacketType::pubcomp, id);
    EXPECT_EQ(server.completed.back().outcome, Outcome::acknowledged);
    EXPECT_EQ(server.session.counts().answers_ignored, 0u);
  }
}

TEST(SessionAdopted, a_full_window_of_qos_2_gets_through_in_order_with_each_identifier_cleared_once) {
  auto config = persistent();
  config.max_inflight = 200;
  ScriptedServer server(config);
  server.connect(true);
  std::set<std::uint16_t> cleared;
  std::vector<std::string> came;
  int next = 0;
  for (int round = 0; came.size() < 3'000; ++round) {
    ASSERT_LT(round, 20'000);
    while (next < 3'000 && server.session.publish_room() > 0)
      server.publish_record(std::to_string(next++), QoS::exactly_once);
    server.flush();
    if (server.sent.empty()) break;
    const auto& packet = server.next();
    if (const auto* publish = std::get_if<PublishView>(&packet.view)) {
      EXPECT_TRUE(cleared.contains(publish->packet_id));
      came.emplace_back(as_text(publish->payload));
      server.ack(PacketType::pubrec, publish->packet_id);
    } else {
      const auto id = std::get<AckView>(packet.view).packet_id;
      cleared.insert(id);
      server.ack(PacketType::pubcomp, id);
    }
  }
  ASSERT_EQ(came.size(), 3'000u);
  for (std::size_t i = 0; i < came.size(); ++i) ASSERT_EQ(came[i], std::to_string(i));
  EXPECT_LT(cleared.size(), 600u);
}

TEST(SessionAdopted, clearing_goes_on_after_a_reconnect_and_ends_with_the_session) {
  ScriptedServer server(persistent());
  server.connect(true);
  server.publish_record("x", QoS::exactly_once);
  server.flush();
  const auto asked = pubrels(server);
  ASSERT_FALSE(asked.empty());
  server.reconnect(true);
  EXPECT_EQ(pubrels(server), asked);
  server.reconnect(false);
  EXPECT_THAT(payloads_of(server), ElementsAre("x")) << "a new session holds nothing";
  server.sent.clear();
  server.reconnect(true);
  server.publish_record("y", QoS::exactly_once);
  server.flush();
  EXPECT_THAT(payloads_of(server), ElementsAre("dup:x", "y")) << "this session is our own";
}

}  // namespace
}  // namespace fulmar::mqtt
