// What a session receives: messages of QoS 0, 1 and 2, topic aliases, and every way a server can break the rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using testing::ElementsAre;

std::vector<std::string> hex_of(ScriptedServer& server) {
  std::vector<std::string> packets;
  while (!server.sent.empty()) packets.push_back(server.next_hex());
  return packets;
}

// --- messages -------------------------------------------------------------------------------------------------------

TEST(SessionReceive, a_message_is_answered_by_its_qos_MQTT_3_3_4_1_MQTT_4_3_2_4_MQTT_4_3_3_8) {
  for (const auto version : {ProtocolVersion::v3_1_1, ProtocolVersion::v5}) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.acknowledges = true;
    server.publish("a", "0");
    server.publish("b", "1", QoS::at_least_once, 10);
    server.publish("c", "2", QoS::exactly_once, 11);
    EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 0a", "50 02 00 0b"));
    server.ack(PacketType::pubrel, 11);
    EXPECT_THAT(hex_of(server), ElementsAre("70 02 00 0b"));
    ASSERT_EQ(server.messages.size(), 3u);
    EXPECT_EQ(server.messages[1].topic, "b");
    EXPECT_EQ(server.messages[1].payload, "1");
    EXPECT_EQ(server.session.counts().unacknowledged, 0u);
  }
}

TEST(SessionReceive, nothing_is_acknowledged_before_the_caller_does) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("b", "1", QoS::at_least_once, 10);
  server.publish("c", "2", QoS::exactly_once, 11);
  EXPECT_TRUE(server.sent.empty());
  server.session.acknowledge(10, ReasonCode::no_matching_subscribers);
  server.session.acknowledge(11);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("40 03 00 0a 10", "50 02 00 0b"));
}

TEST(SessionReceive, acknowledgements_leave_in_the_order_of_arrival_MQTT_4_6_0_2_MQTT_4_6_0_3) {
  ScriptedServer server(persistent());
  server.connect();
  for (std::uint16_t id = 1; id <= 5; ++id)
    server.publish("a", "x", id % 2 ? QoS::at_least_once : QoS::exactly_once, id);
  for (const std::uint16_t id : std::initializer_list<std::uint16_t>{5, 2, 4}) server.session.acknowledge(id);
  server.flush();
  EXPECT_TRUE(server.sent.empty());
  server.session.acknowledge(1);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 01", "50 02 00 02"));
  server.session.acknowledge(3);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 03", "50 02 00 04", "40 02 00 05"));
}

TEST(SessionReceive, unknown_and_repeated_acknowledge_calls_do_nothing) {
  ScriptedServer server(persistent());
  server.session.acknowledge(1);
  server.connect();
  server.session.acknowledge(1);
  server.publish("a", "x", QoS::at_least_once, 1);
  server.session.acknowledge(1);
  server.session.acknowledge(1);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 01"));
}

TEST(SessionReceive, after_puback_the_same_identifier_is_a_new_message_whatever_dup_says_MQTT_4_3_2_5) {
  ScriptedServer server(persistent());
  server.connect();
  server.acknowledges = true;
  for (const bool dup : {false, true, false}) server.publish("a", "x", QoS::at_least_once, 1, dup);
  EXPECT_EQ(server.messages.size(), 3u);
  EXPECT_EQ(hex_of(server).size(), 3u);
}

TEST(SessionReceive, qos_2_is_delivered_once_until_it_was_released_MQTT_4_3_3_10_MQTT_4_3_3_12) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("a", "x", QoS::exactly_once, 1);
  server.publish("a", "x", QoS::exactly_once, 1, true);  // still with the caller: no answer yet
  EXPECT_TRUE(server.sent.empty());
  server.session.acknowledge(1);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("50 02 00 01"));
  server.publish("a", "x", QoS::exactly_once, 1, true);
  EXPECT_THAT(hex_of(server), ElementsAre("50 02 00 01"));
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_EQ(server.session.counts().duplicates_suppressed, 2u);
  server.ack(PacketType::pubrel, 1);
  EXPECT_THAT(hex_of(server), ElementsAre("70 02 00 01"));
  server.publish("a", "new", QoS::exactly_once, 1);
  EXPECT_EQ(server.messages.size(), 2u);
}

TEST(SessionReceive, after_a_pubrec_with_an_error_the_identifier_is_free_MQTT_4_3_3_9) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("a", "x", QoS::exactly_once, 1);
  server.session.acknowledge(1, ReasonCode::quota_exceeded);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("50 03 00 01 97"));
  server.publish("a", "y", QoS::exactly_once, 1);
  EXPECT_EQ(server.messages.size(), 2u);
}

TEST(SessionReceive, a_pubrel_always_gets_its_pubcomp_MQTT_4_3_3_11) {
  ScriptedServer server(persistent());
  server.connect();
  server.ack(PacketType::pubrel, 9);
  EXPECT_THAT(hex_of(server), ElementsAre("70 03 00 09 92"));
  ScriptedServer old(persistent(ProtocolVersion::v3_1_1));
  old.connect();
  old.ack(PacketType::pubrel, 9);
  EXPECT_THAT(hex_of(old), ElementsAre("70 02 00 09"));
}

TEST(SessionReceive, qos_2_survives_reconnects_at_every_stage_and_is_delivered_once_MQTT_4_1_0_1) {
  for (const bool acknowledged_before : {false, true}) {
    for (const bool acknowledged_late : {false, true}) {
      ScriptedServer server(persistent());
      server.connect();
      server.publish("a", "x", QoS::exactly_once, 1);
      if (acknowledged_before) server.session.acknowledge(1);
      server.close();
      if (!acknowledged_before && !acknowledged_late) server.session.acknowledge(1);
      server.sent.clear();
      server.connect(true);
      EXPECT_TRUE(server.sent.empty());
      server.publish("a", "x", QoS::exactly_once, 1, true);
      if (!acknowledged_before && acknowledged_late) {
        EXPECT_TRUE(server.sent.empty());
        server.session.acknowledge(1);
        server.flush();
      }
      EXPECT_THAT(hex_of(server), ElementsAre("50 02 00 01"));
      server.reconnect(true);
      server.ack(PacketType::pubrel, 1);
      EXPECT_THAT(hex_of(server), ElementsAre("70 02 00 01"));
      EXPECT_EQ(server.messages.size(), 1u);
      EXPECT_EQ(server.session.counts().unacknowledged, 0u);
    }
  }
}

TEST(SessionReceive, a_lost_session_forgets_the_inbound_identifiers) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("a", "x", QoS::exactly_once, 1);
  server.reconnect(false);
  server.publish("a", "x", QoS::exactly_once, 1);
  EXPECT_EQ(server.messages.size(), 2u);
}

TEST(SessionReceive, qos_1_comes_again_on_the_next_connection) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("a", "x", QoS::at_least_once, 1);
  server.reconnect(true);
  server.publish("a", "x", QoS::at_least_once, 1, true);
  EXPECT_EQ(server.messages.size(), 2u);
  EXPECT_TRUE(server.messages[1].dup);
  server.session.acknowledge(1);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 01"));
}

TEST(SessionReceive, a_repetition_released_while_it_waits_for_its_turn_is_passed_over) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish("a", "2", QoS::exactly_once, 2);
  server.session.acknowledge(2);
  server.publish("a", "1", QoS::at_least_once, 1);
  server.publish("a", "2", QoS::exactly_once, 2, true);  // its PUBREC waits behind message 1
  server.ack(PacketType::pubrel, 2);
  server.session.acknowledge(1);
  server.flush();
  EXPECT_THAT(hex_of(server), ElementsAre("50 02 00 02", "70 02 00 02", "40 02 00 01"));
}

TEST(SessionReceive, the_same_bytes_make_the_same_events_however_they_are_cut) {
  const auto stream = bytes(
      "30 06 0001 'a' 00 'xy'  32 06 0001 'b' 0007 00  d0 00  34 0a 0001 'c' 0008 00 'data'  30 04 0001 'd' "
      "00");
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    ScriptedServer server(persistent());
    server.connect();
    server.acknowledges = true;
    const auto middle = stream.begin() + static_cast<std::ptrdiff_t>(cut);
    server.read_size = cut == stream.size() ? 1 : 1 << 20;
    server.send_bytes(Bytes(stream.begin(), middle));
    server.send_bytes(Bytes(middle, stream.end()));
    ASSERT_EQ(server.messages.size(), 4u) << cut;
    EXPECT_EQ(server.messages[0].payload, "xy");
    EXPECT_EQ(server.messages[1].topic, "b");
    EXPECT_EQ(server.messages[2].payload, "data");
    EXPECT_EQ(server.messages[3].topic, "d");
    EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 07", "50 02 00 08"));
    EXPECT_EQ(server.session.unread(), 0u);
  }
}

TEST(SessionReceive, tells_how_large_a_packet_will_be_as_soon_as_its_header_is_there) {
  ScriptedServer server(persistent());
  server.connect();
  const auto part = bytes("30 80 10 0001 'a' 00");
  server.session.receive(part, server.now);
  server.drain();
  EXPECT_EQ(server.session.unread(), part.size());
  EXPECT_EQ(server.session.expected(), 2'051u);
  server.close();
  EXPECT_EQ(server.session.expected(), 0u);
}

TEST(SessionReceive, held_input_stays_where_it_is_while_other_events_go_on) {
  ScriptedServer server(persistent());
  server.connect();
  server.hold_after = 1;
  const auto stream = bytes("30 05 0001 'a' 00 '1' 30 05 0001 'a' 00 '2' 30 05 0001 'a' 00 '3'");
  server.session.receive(stream, server.now);
  server.drain();
  ASSERT_EQ(server.messages.size(), 1u);
  server.publish_record("x", QoS::at_most_once);
  server.flush();
  EXPECT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.messages.size(), 1u);
  server.session.hold_input(false, server.now);
  server.drain();
  EXPECT_EQ(server.messages.size(), 3u);
  EXPECT_EQ(server.session.unread(), 0u);
}

// --- topic aliases --------------------------------------------------------------------------------------------------

PropertiesView alias(std::uint32_t number) {
  static std::array<std::byte, 3> buffer;
  PropertyWriter writer(buffer);
  writer.add(PropertyId::topic_alias, number);
  return writer.view();
}

TEST(SessionAlias, every_alias_up_to_our_maximum_is_resolved_and_can_be_changed_MQTT_3_3_2_10) {
  auto config = persistent();
  config.topic_alias_maximum = 3;
  ScriptedServer server(config);
  server.connect();
  for (std::uint32_t i = 3; i >= 1; --i)
    server.publish("topic" + std::to_string(i), "", QoS::at_most_once, 0, false, alias(i));
  for (std::uint32_t i = 1; i <= 3; ++i) server.publish("", "", QoS::at_most_once, 0, false, alias(i));
  server.publish("changed", "", QoS::at_most_once, 0, false, alias(2));
  server.publish("", "", QoS::at_most_once, 0, false, alias(2));
  std::vector<std::string> topics;
  for (const auto& message : server.messages) topics.push_back(message.topic);
  EXPECT_THAT(topics,
              ElementsAre("topic3", "topic2", "topic1", "topic1", "topic2", "topic3", "changed", "changed"));
}

TEST(SessionAlias, dies_with_the_connection_MQTT_3_3_2_7) {
  auto config = persistent();
  config.topic_alias_maximum = 3;
  ScriptedServer server(config);
  server.connect();
  server.publish("a", "", QoS::at_most_once, 0, false, alias(1));
  server.reconnect(true);
  server.publish("", "", QoS::at_most_once, 0, false, alias(1));
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].rule, DecodeError::topic_alias_not_mapped);
}

// --- violations -----------------------------------------------------------------------------------------------------

struct Violation {
  const char* what;
  const char* stream;
  DecodeError rule;
  ReasonCode reason;
  ProtocolVersion version = ProtocolVersion::v5;
  bool before_connack = false;
};

constexpr auto v3 = ProtocolVersion::v3_1_1;
constexpr auto malformed = ReasonCode::malformed_packet;
constexpr auto protocol = ReasonCode::protocol_error;

using enum DecodeError;
const Violation violations[] = {
    {"reserved type", "00 00", packet_type_reserved, malformed},
    {"AUTH in 3.1.1", "f0 00", packet_type_reserved, malformed, v3},
    {"flags of PUBACK [MQTT-2.1.3-1]", "41 02 0001", header_flags_reserved, malformed},
    {"flags of PUBREL 0 [MQTT-3.6.1-1]", "60 02 0001", header_flags_reserved, malformed},
    {"flags of DISCONNECT [MQTT-3.14.1-1]", "e1 00", header_flags_reserved, malformed},
    {"flags of AUTH [MQTT-3.15.1-1]", "f1 00", header_flags_reserved, malformed},
    {"flags in 3.1.1 [MQTT-2.2.2-2]", "d1 00", header_flags_reserved, malformed, v3},
    {"QoS 3 [MQTT-3.3.1-4]", "36 06 0001 'a' 0001 00", qos_reserved, malformed},
    {"QoS 3 in 3.1.1", "36 05 0001 'a' 0001", qos_reserved, malformed, v3},
    {"DUP at QoS 0 [MQTT-3.3.1-2]", "38 04 0001 'a' 00", dup_at_qos_0, malformed},
    {"length of five bytes", "30 8080808001", length_over_four_bytes, malformed},
    {"length not minimal [MQTT-1.5.5-1]", "d0 8000", length_not_minimal, malformed},
    {"larger than our maximum [MQTT-3.1.2-24]", "30 ff7f", packet_too_large, ReasonCode::packet_too_large},
    {"larger than our maximum in 3.1.1", "30 ff7f", packet_too_large, ReasonCode::packet_too_large, v3},
    {"topic behind the end", "30 04 0009 'ab'", truncated, malformed},
    {"topic not UTF-8 [MQTT-1.5.4-1]", "30 04 0001 ff 00", string_not_utf8, malformed},
    {"topic with a surrogate", "30 06 0003 eda080 00", string_not_utf8, malformed},
    {"topic with null [MQTT-1.5.4-2]", "30 04 0001 00 00", string_contains_null, malformed},
    {"topic with null in 3.1.1 [MQTT-1.5.3-2]", "30 03 0001 00", string_contains_null, malformed, v3},
    {"wildcard in a topic [MQTT-3.3.2-2]", "30 06 0003 'a/+' 00", topic_contains_wildcard, malformed},
    {"empty topic without alias", "30 03 0000 00", topic_empty, protocol},
    {"empty topic in 3.1.1 [MQTT-4.7.3-1]", "30 02 0000", topic_empty, protocol, v3},
    {"identifier 0 [MQTT-2.2.1-3]", "32 06 0001 'a' 0000 00", packet_id_zero, protocol},
    {"properties behind the end", "30 04 0001 'a' 05", property_length_wrong, malformed},
    {"unknown property", "30 06 0001 'a' 02 0401", property_unknown, malformed},
    {"property of another packet", "30 07 0001 'a' 03 13 0001", property_misplaced, malformed},
    {"property twice", "30 08 0001 'a' 04 0100 0100", property_repeated, protocol},
    {"payload format 2", "30 06 0001 'a' 02 0102", property_value_invalid, protocol},
    {"alias 0", "30 07 0001 'a' 03 23 0000", topic_alias_zero, ReasonCode::topic_alias_invalid},
    {"alias above our maximum [MQTT-3.3.2-11]", "30 07 0001 'a' 03 23 0003", topic_alias_above_maximum,
     ReasonCode::topic_alias_invalid},
    {"alias without a topic", "30 06 0000 03 23 0002", topic_alias_not_mapped, protocol},
    {"wildcard in the response topic [MQTT-3.3.2-14]", "30 08 0001 'a' 04 08 0001 '#'",
     response_topic_invalid, protocol},
    {"subscription identifier 0", "30 06 0001 'a' 02 0b00", property_value_invalid, protocol},
    {"over the receive maximum [MQTT-3.3.4-9]",
     "32 06 0001 'a' 0001 00 32 06 0001 'a' 0002 00 34 06 0001 'a' 0003 00", receive_maximum_exceeded,
     ReasonCode::receive_maximum_exceeded},
    {"an identifier with two QoS", "32 06 0001 'a' 0001 00 34 06 0001 'a' 0001 00", packet_id_of_other_qos,
     protocol},
    {"PUBREL before PUBREC", "34 06 0001 'a' 0001 00 62 02 0001", packet_unexpected, protocol},
    {"PUBACK too short", "40 01 00", truncated, malformed},
    {"PUBACK with unknown code [MQTT-3.4.2-1]", "40 03 0001 01", reason_code_unknown, protocol},
    {"PUBREC with unknown code [MQTT-3.5.2-1]", "50 03 0001 92", reason_code_unknown, protocol},
    {"PUBREL with unknown code [MQTT-3.6.2-1]", "62 03 0001 80", reason_code_unknown, protocol},
    {"PUBCOMP with unknown code [MQTT-3.7.2-1]", "70 03 0001 80", reason_code_unknown, protocol},
    {"extra byte in PUBACK of 3.1.1", "40 03 0001 00", trailing_bytes, malformed, v3},
    {"extra byte behind PUBACK's properties", "40 05 0001 00 00 00", trailing_bytes, malformed},
    {"PUBACK with identifier 0", "40 02 0000", packet_id_zero, protocol},
    {"reason string not UTF-8", "40 08 0001 00 04 1f 0001 ff", string_not_utf8, malformed},
    {"SUBACK without a code", "90 03 0001 00", no_codes, protocol},
    {"SUBACK with unknown code [MQTT-3.9.3-2]", "90 04 0001 00 03", reason_code_unknown, protocol},
    {"SUBACK with unknown code in 3.1.1", "90 03 0001 87", reason_code_unknown, protocol, v3},
    {"SUBACK with too few codes [MQTT-3.8.4-6]", "90 04 0001 00 00", codes_do_not_match_filters, protocol},
    {"SUBACK with too many codes", "90 06 0001 00 00 00 00", codes_do_not_match_filters, protocol},
    {"UNSUBACK with unknown code [MQTT-3.11.3-2]", "b0 04 0001 00 01", reason_code_unknown, protocol},
    {"UNSUBACK with payload in 3.1.1", "b0 03 0001 00", trailing_bytes, malformed, v3},
    {"PINGRESP with a body", "d0 01 00", trailing_bytes, malformed},
    {"second CONNACK [MQTT-3.2.0-2]", "20 03 00 00 00", connack_repeated, protocol},
    {"CONNECT from the server", "10 0d 0004 'MQTT' 05 02 0000 00 0000", packet_unexpected, protocol},
    {"SUBSCRIBE from the server", "82 07 0001 00 0001 'a' 00", packet_unexpected, protocol},
    {"UNSUBSCRIBE from the server", "a2 06 0001 00 0001 'a'", packet_unexpected, protocol},
    {"PINGREQ from the server", "c0 00", packet_unexpected, protocol},
    {"DISCONNECT in 3.1.1", "e0 00", packet_unexpected, protocol, v3},
    {"DISCONNECT with a client's code [MQTT-3.14.2-1]", "e0 01 04", reason_code_unknown, protocol},
    {"DISCONNECT with session expiry [MQTT-3.14.2-2]", "e0 07 00 05 11 00000000", property_of_other_side,
     protocol},
    {"AUTH without a method [MQTT-4.12.0-6]", "f0 02 18 00", auth_without_method, protocol},
    {"AUTH of the client", "f0 02 19 00", reason_code_unknown, protocol},
    {"AUTH without property length", "f0 01 18", truncated, malformed},
    {"PUBLISH before CONNACK [MQTT-3.2.0-1]", "30 04 0001 'a' 00", packet_before_connack, protocol,
     ProtocolVersion::v5, true},
    {"PUBLISH before CONNACK in 3.1.1", "30 03 0001 'a'", packet_before_connack, protocol, v3, true},
    {"DISCONNECT before CONNACK [MQTT-3.14.0-1]", "e0 01 8b", packet_before_connack, protocol,
     ProtocolVersion::v5, true},
    {"CONNACK flags [MQTT-3.2.2-1]", "20 03 02 00 00", connack_flags_reserved, malformed, ProtocolVersion::v5,
     true},
    {"CONNACK flags in 3.1.1", "20 02 80 00", connack_flags_reserved, malformed, v3, true},
    {"CONNACK code [MQTT-3.2.2-8]", "20 03 00 01 00", reason_code_unknown, protocol, ProtocolVersion::v5,
     true},
    {"CONNACK code in 3.1.1", "20 02 00 06", reason_code_unknown, protocol, v3, true},
    {"CONNACK without property length", "20 02 00 00", truncated, malformed, ProtocolVersion::v5, true},
    {"CONNACK with a long body in 3.1.1", "20 03 00 00 00", trailing_bytes, malformed, v3, true},
    {"session present in a refusal [MQTT-3.2.2-6]", "20 03 01 87 00", session_present_on_refusal, protocol,
     ProtocolVersion::v5, true},
    {"receive maximum 0", "20 06 00 00 03 21 0000", property_value_invalid, protocol, ProtocolVersion::v5,
     true},
    {"maximum packet size 0", "20 08 00 00 05 27 00000000", property_value_invalid, protocol,
     ProtocolVersion::v5, true},
    {"maximum QoS 2", "20 05 00 00 02 24 02", property_value_invalid, protocol, ProtocolVersion::v5, true},
};

void PrintTo(const Violation& one, std::ostream* out) { *out << one.stream; }

class SessionViolation : public testing::TestWithParam<Violation> {};

void expect_violation(const Violation& one, std::size_t cut) {
  auto config = persistent(one.version);
  config.receive_maximum = 2;
  config.topic_alias_maximum = 2;
  config.maximum_packet_size = 1000;
  ScriptedServer server(config);
  server.open();
  server.sent.clear();
  if (!one.before_connack) {
    server.send(ConnackView{});
    const SubscriptionRequest requests[] = {{"a"}, {"b"}};
    ASSERT_TRUE(server.session.subscribe(requests, 0, 1));
    server.flush();
    server.sent.clear();
  }
  const auto stream = bytes(one.stream);
  server.read_size = cut == stream.size() ? 1 : 1 << 20;
  const auto middle = stream.begin() + static_cast<std::ptrdiff_t>(cut);
  server.send_bytes(Bytes(stream.begin(), middle));
  server.send_bytes(Bytes(middle, stream.end()));
  ASSERT_EQ(server.closings.size(), 1u) << one.what << " cut at " << cut;
  EXPECT_EQ(server.closings[0].by, Closing::By::protocol_violation) << one.what;
  EXPECT_EQ(server.closings[0].rule, one.rule) << one.what << ": " << server.closings[0].text;
  EXPECT_EQ(server.closings[0].reason, one.reason) << one.what;
  EXPECT_EQ(server.session.counts().violations, 1u);
  EXPECT_TRUE(server.session.should_close());
  EXPECT_EQ(server.session.state(), Session::State::closing);
  // 5.0 tells why [MQTT-4.13.2-1]; 3.1.1 just ends [MQTT-4.8.0-1].
  if (one.version == ProtocolVersion::v5) {
    char disconnect[16];
    std::snprintf(disconnect, sizeof disconnect, "e0 01 %02x", static_cast<unsigned>(one.reason));
    EXPECT_THAT(hex_of(server), ElementsAre(disconnect)) << one.what;
  } else {
    EXPECT_TRUE(server.sent.empty()) << one.what;
  }
}

TEST_P(SessionViolation, ends_the_connection_with_the_right_reason_however_it_comes) {
  for (std::size_t cut = 0; cut <= bytes(GetParam().stream).size(); ++cut) expect_violation(GetParam(), cut);
}

INSTANTIATE_TEST_SUITE_P(Rules, SessionViolation, testing::ValuesIn(violations), [](const auto& one) {
  std::string name;
  for (const char c : std::string_view(one.param.what)) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += c;
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  while (name.back() == '_') name.pop_back();
  return name;
});

TEST(SessionViolations, what_came_before_is_delivered_and_answered_and_nothing_after) {
  ScriptedServer server(persistent());
  server.connect();
  server.acknowledges = true;
  server.send_bytes(bytes("32 06 0001 'a' 0001 00  00 00  32 06 0001 'a' 0002 00"));
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_THAT(hex_of(server), ElementsAre("40 02 00 01", "e0 01 81"));
  server.send_bytes(bytes("32 06 0001 'a' 0003 00"));
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_EQ(server.closings.size(), 1u);
}

TEST(SessionViolations, problem_information_that_was_not_asked_for_MQTT_3_1_2_29) {
  auto config = persistent();
  config.request_problem_information = false;
  for (const auto* stream : {"40 08 0001 00 04 1f 0001 'x'", "62 0b 0001 00 07 26 0001 'k' 0001 'v'",
                             "90 08 0001 04 1f 0001 'x' 00", "b0 08 0001 04 1f 0001 'x' 00"}) {
    ScriptedServer server(config);
    server.connect();
    server.send_bytes(bytes(stream));
    ASSERT_EQ(server.closings.size(), 1u) << stream;
    EXPECT_EQ(server.closings[0].rule, problem_information_not_requested);
  }
  // PUBLISH, CONNACK and DISCONNECT may carry it all the same.
  ScriptedServer server(config);
  server.connect(false, Properties().add_user("k", "v"));
  server.publish("a", "b", QoS::at_most_once, 0, false, Properties().add_user("k", "v"));
  EXPECT_EQ(server.messages.size(), 1u);
  server.send(
      DisconnectView{ReasonCode::server_shutting_down, Properties().add(PropertyId::reason_string, "x")});
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].by, Closing::By::server_disconnect);
}

TEST(SessionViolations, the_receive_maximum_counts_what_is_acknowledged_as_done) {
  auto config = persistent();
  config.receive_maximum = 2;
  ScriptedServer server(config);
  server.connect();
  server.acknowledges = true;
  for (std::uint16_t id = 1; id <= 100; ++id) server.publish("a", "x", QoS::at_least_once, id);
  EXPECT_TRUE(server.closings.empty());
  server.publish("a", "x", QoS::exactly_once, 200);
  server.publish("a", "x", QoS::exactly_once, 201);
  EXPECT_TRUE(server.closings.empty());
  server.publish("a", "x", QoS::exactly_once, 201, true);  // no new one
  EXPECT_TRUE(server.closings.empty());
  server.publish("a", "x", QoS::exactly_once, 202);
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].rule, receive_maximum_exceeded);
}

TEST(SessionViolations, answers_that_nobody_takes_are_bounded) {
  ScriptedServer server(persistent());
  server.connect();
  Bytes flood;
  for (int i = 0; i < 300'000; ++i) {
    for (const auto byte : {0x62, 0x02, 0x00, 0x01}) flood.push_back(static_cast<std::byte>(byte));
  }
  server.session.receive(flood, server.now);
  server.drain();
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].rule, acknowledgements_flood);
  EXPECT_EQ(server.closings[0].reason, ReasonCode::message_rate_too_high);
}

TEST(SessionViolations, a_message_with_65000_user_properties_is_read_quickly) {
  Bytes properties;
  for (int i = 0; i < 65'000; ++i) properties = std::move(properties) + bytes("26 0001 'k' 0001 'v'");
  ScriptedServer server(persistent());
  server.connect();
  const auto begin = std::chrono::steady_clock::now();
  server.publish("a", "x", QoS::at_most_once, 0, false, PropertiesView(properties));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
  EXPECT_EQ(server.messages.size(), 1u);
}

TEST(SessionViolations, the_next_connection_is_clean) {
  ScriptedServer server(persistent());
  server.connect();
  server.send_bytes(bytes("00 00"));
  server.reconnect(true);
  EXPECT_FALSE(server.session.should_close());
  server.publish("a", "b");
  EXPECT_EQ(server.messages.size(), 1u);
}

}  // namespace
}  // namespace fulmar::mqtt
