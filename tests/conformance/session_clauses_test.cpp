// What the standards ask of a client and no unit test of mqtt/ shows: a session against a strict server, in virtual time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>

#include "mqtt/scripted_server.hpp"
#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

constexpr ProtocolVersion both[] = {ProtocolVersion::v3_1_1, ProtocolVersion::v5};

std::vector<std::string> take_sent(ScriptedServer& server) {
  std::vector<std::string> packets;
  while (!server.sent.empty()) packets.push_back(render(server.next().view, server.version()));
  return packets;
}

// --- CONNECT --------------------------------------------------------------------------------------------------------

TEST(SessionClauses, connect_is_the_first_packet_of_a_connection_and_the_only_one_MQTT_3_1_0_1_MQTT_3_1_0_2) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.publish_record("early", QoS::at_least_once);
    for (int connection = 0; connection < 3; ++connection) {
      server.open();
      server.send(ConnackView{connection != 0, 0, {}});
      server.publish_record("x", QoS::exactly_once);
      const SubscriptionRequest request{"a"};
      EXPECT_TRUE(server.session.subscribe({&request, 1}, 0, 1));
      server.publish("a", "b", QoS::at_least_once, 1);
      server.session.acknowledge(1);
      server.run_timeout();
      server.session.disconnect();
      server.flush();
      std::size_t connects = 0;
      ASSERT_TRUE(std::holds_alternative<ConnectView>(server.sent.front()->view));
      for (; !server.sent.empty(); server.next())
        connects += std::holds_alternative<ConnectView>(server.sent.front()->view);
      EXPECT_EQ(connects, 1u);
      server.close();
    }
  }
}

TEST(SessionClauses, with_a_method_only_auth_and_disconnect_may_follow_connect_until_connack_MQTT_3_1_2_30) {
  auto config = persistent();
  config.authentication_method = "M";
  ScriptedServer server(config);
  server.publish_record("x", QoS::at_most_once);
  server.publish_record("y", QoS::at_least_once);
  server.open();
  const SubscriptionRequest request{"a"};
  EXPECT_FALSE(server.session.subscribe({&request, 1}, 0, 1));
  EXPECT_FALSE(server.session.reauthenticate({}));
  server.session.acknowledge(1);
  server.flush();
  Properties method;
  method.add(PropertyId::authentication_method, "M");
  server.send(AuthView{ReasonCode::continue_authentication, method});
  EXPECT_TRUE(server.session.authenticate(bytes("'2'")));
  server.pass(10min);
  server.session.on_timeout(server.now);
  server.flush();
  const auto sent = take_sent(server);
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_TRUE(sent[0].starts_with("CONNECT"));
  EXPECT_EQ(sent[1], R"(AUTH code=0x18 {authentication_method="M" authentication_data="2"})");
  server.session.disconnect();
  server.flush();
  EXPECT_THAT(take_sent(server), ElementsAre("DISCONNECT code=0x00"));
}

TEST(SessionClauses, without_a_method_auth_is_never_sent_MQTT_4_12_0_7) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    EXPECT_FALSE(server.session.authenticate({}));
    EXPECT_FALSE(server.session.reauthenticate({}));
    server.connect();
    EXPECT_FALSE(server.session.authenticate(bytes("'x'")));
    EXPECT_FALSE(server.session.reauthenticate(bytes("'x'")));
    server.flush();
    EXPECT_TRUE(server.sent.empty());
  }
  // 3.1.1 has no AUTH, whatever the configuration says.
  auto config = persistent(ProtocolVersion::v3_1_1);
  config.authentication_method = "M";
  ScriptedServer old(config);
  old.connect();
  EXPECT_FALSE(old.session.reauthenticate({}));
}

TEST(SessionClauses, a_clean_session_reuses_nothing_of_the_former_one_MQTT_3_1_2_6_MQTT_3_1_2_4) {
  for (const auto version : both) {
    SessionConfig config;
    config.version = version;
    config.clean_start = true;
    ScriptedServer server(config);
    server.connect();
    server.publish_record("out", QoS::exactly_once);
    server.flush();
    server.publish("a", "in", QoS::exactly_once, 7);
    server.session.acknowledge(7);
    server.flush();
    server.close();
    server.sent.clear();
    server.open();
    EXPECT_TRUE(server.next_as<ConnectView>().clean_start);
    server.send(ConnackView{});
    const auto again = server.next_as<PublishView>();  // it was accepted, so it goes out: as a new message
    EXPECT_EQ(as_text(again.payload), "out");
    EXPECT_FALSE(again.dup);
    server.publish("a", "in", QoS::exactly_once, 7, true);
    EXPECT_EQ(server.messages.size(), 2u);
    server.ack(PacketType::pubrel, 99);
    EXPECT_EQ(server.next_hex(), version == ProtocolVersion::v5 ? "70 03 00 63 92" : "70 02 00 63");
  }
}

TEST(SessionClauses, a_kept_session_is_asked_for_again_with_all_its_state_MQTT_3_1_2_4_MQTT_4_1_0_1) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.publish_record("1", QoS::at_least_once);
    server.publish_record("2", QoS::exactly_once);
    server.publish_record("3", QoS::exactly_once);
    server.flush();
    server.ack(PacketType::pubrec, 3);
    server.publish("a", "in", QoS::exactly_once, 7);
    server.session.acknowledge(7);
    server.flush();
    server.close();
    server.pass(std::chrono::hours(24));
    server.sent.clear();
    server.open();
    EXPECT_FALSE(server.next_as<ConnectView>().clean_start);
    server.send(ConnackView{.session_present = true, .code = 0, .properties = {}});
    std::vector<std::string> ids;
    for (const auto& text : take_sent(server)) ids.push_back(text.substr(0, text.find(" topic")));
    const auto code = version == ProtocolVersion::v5 ? " code=0x00" : "";
    EXPECT_THAT(ids, ElementsAre("PUBREL id=3" + std::string(code), "PUBLISH qos=1 dup id=1",
                                 "PUBLISH qos=2 dup id=2"));
    server.publish("a", "in", QoS::exactly_once, 7, true);
    EXPECT_EQ(server.messages.size(), 1u);
  }
}

// --- keep-alive -----------------------------------------------------------------------------------------------------

TEST(SessionClauses,
     an_idle_client_never_leaves_a_gap_over_the_keep_alive_MQTT_3_1_2_23_MQTT_3_1_2_20_MQTT_3_1_2_24) {
  for (const auto version : both) {
    for (const std::uint16_t keepalive_s : std::initializer_list<std::uint16_t>{1, 2, 60, 65'535}) {
      auto config = persistent(version);
      config.keepalive_s = keepalive_s;
      ScriptedServer server(config);
      server.connect();
      auto last = server.now;
      for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(server.session.next_timeout().has_value());
        server.run_timeout();
        ASSERT_FALSE(server.sent.empty());
        EXPECT_EQ(server.next_hex(), "c0 00");
        EXPECT_LE(server.now - last, std::chrono::seconds(keepalive_s));
        last = server.now;
        server.send(PingrespView{});
      }
      EXPECT_TRUE(server.closings.empty());
    }
  }
}

TEST(SessionClauses, a_server_that_does_not_answer_a_ping_is_given_up_in_both_versions_MQTT_3_12_4_1) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    const auto began = server.now;
    server.run_timeout();
    server.run_timeout();
    ASSERT_EQ(server.closings.size(), 1u);
    EXPECT_EQ(server.closings[0].by, Closing::By::keep_alive);
    EXPECT_LE(server.now - began, 90s);
    EXPECT_TRUE(server.session.should_close());
  }
}

// --- messages out ---------------------------------------------------------------------------------------------------

TEST(SessionClauses,
     an_identifier_rests_until_its_last_answer_whatever_took_it_MQTT_2_3_1_2_MQTT_2_3_1_3_MQTT_4_3_3_1) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    const SubscriptionRequest request{"a"};
    const std::string_view filter = "a";
    ASSERT_TRUE(server.session.subscribe({&request, 1}, 0, 1));  // 1 waits for SUBACK
    ASSERT_TRUE(server.session.unsubscribe({&filter, 1}, 2));    // 2 waits for UNSUBACK
    server.publish_record("recorded", QoS::exactly_once);        // 3 waits for PUBCOMP
    server.publish_record("unanswered", QoS::at_least_once);     // 4 waits for PUBACK
    server.publish_record("unanswered", QoS::exactly_once);      // 5 waits for PUBREC
    server.flush();
    server.ack(PacketType::pubrec, 3);
    server.sent.clear();
    std::size_t round_trips = 0;
    std::uint16_t smallest = 65'535;
    for (; round_trips < 66'000; ++round_trips) {
      server.publish_record("x", QoS::at_least_once);
      server.flush();
      const auto id = server.next_as<PublishView>().packet_id;
      ASSERT_NE(id, 0);
      smallest = std::min(smallest, id);
      const Bytes puback{std::byte{0x40}, std::byte{2}, static_cast<std::byte>(id >> 8),
                         static_cast<std::byte>(id)};
      server.session.receive(puback, server.now);
      server.drain();
    }
    EXPECT_EQ(smallest, 6);
    EXPECT_EQ(server.completed.size(), round_trips);
  }
}

TEST(SessionClauses, the_dup_of_an_inbound_message_is_not_passed_on_MQTT_3_3_1_3) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.publish("a", "bridged", QoS::at_least_once, 7, true);
    ASSERT_TRUE(server.messages.at(0).dup);
    server.publish_record(server.messages[0].payload, server.messages[0].qos, server.messages[0].topic);
    server.flush();
    EXPECT_FALSE(server.next_as<PublishView>().dup);
  }
}

TEST(SessionClauses,
     every_kind_of_answer_has_its_order_in_both_versions_MQTT_4_6_0_2_MQTT_4_6_0_3_MQTT_4_6_0_4) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    for (std::uint16_t id = 1; id <= 4; ++id)
      server.publish("a", "x", id % 2 ? QoS::at_least_once : QoS::exactly_once, id);
    for (const std::uint16_t id : std::initializer_list<std::uint16_t>{4, 3, 2})
      server.session.acknowledge(id);
    server.flush();
    EXPECT_TRUE(server.sent.empty());
    server.session.acknowledge(1);
    server.flush();
    std::vector<std::string> answers;
    while (!server.sent.empty()) answers.push_back(server.next_hex());
    EXPECT_THAT(answers, ElementsAre("40 02 00 01", "50 02 00 02", "40 02 00 03", "50 02 00 04"));
    for (int i = 0; i < 3; ++i) server.publish_record("x", QoS::exactly_once);
    server.flush();
    server.sent.clear();
    for (const std::uint16_t id : std::initializer_list<std::uint16_t>{2, 3, 1})
      server.ack(PacketType::pubrec, id);
    answers.clear();
    while (!server.sent.empty()) answers.push_back(server.next_hex());
    EXPECT_THAT(answers, ElementsAre("62 02 00 02", "62 02 00 03", "62 02 00 01"));
  }
}

TEST(SessionClauses, nothing_is_sent_again_while_the_connection_lasts_MQTT_4_4_0_1) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.publish_record("1", QoS::at_least_once);
    server.publish_record("2", QoS::exactly_once);
    server.publish_record("3", QoS::exactly_once);
    server.flush();
    server.ack(PacketType::pubrec, 3);
    server.sent.clear();
    for (int i = 0; i < 20; ++i) {
      server.run_timeout();
      server.send(PingrespView{});
    }
    for (const auto& packet : server.sent) EXPECT_EQ(hex(packet->data), "c0 00");
    EXPECT_EQ(server.session.counts().in_flight, 3u);
  }
}

TEST(SessionClauses, a_refused_exchange_gives_its_place_in_the_window_back_MQTT_4_9_0_1_MQTT_4_9_0_2) {
  ScriptedServer server(persistent());
  server.connect(false, Properties().add(PropertyId::receive_maximum, 1));
  for (const auto* payload : {"1", "2", "3", "4"}) server.publish_record(payload, QoS::exactly_once);
  server.flush();
  const auto next_payload = [&server] {
    EXPECT_EQ(server.sent.size(), 1u);
    return std::string(as_text(server.next_as<PublishView>().payload));
  };
  EXPECT_EQ(next_payload(), "1");
  server.ack(PacketType::pubrec, 1, ReasonCode::quota_exceeded);
  EXPECT_EQ(next_payload(), "2");
  server.ack(PacketType::pubrec, 2);
  EXPECT_EQ(server.next_hex(), "62 02 00 02");
  EXPECT_TRUE(server.sent.empty());  // PUBREC alone gives nothing back
  server.ack(PacketType::pubcomp, 77);
  server.ack(PacketType::puback, 78);
  EXPECT_TRUE(server.sent.empty());  // nor does an answer to nothing
  server.ack(PacketType::pubcomp, 2);
  EXPECT_EQ(next_payload(), "3");
}

// What a strict server makes of the aliases it is sent.
TEST(SessionClauses,
     topic_aliases_stay_within_the_servers_maximum_and_their_connection_MQTT_3_2_2_17_MQTT_3_2_2_18) {
  for (const std::uint32_t maximum : {0u, 1u, 3u}) {
    ScriptedServer server(persistent());
    std::mt19937 random(maximum);
    std::deque<std::string> expected;
    for (int connection = 0; connection < 5; ++connection) {
      server.close();
      server.sent.clear();
      // The maximum shrinks to nothing on the last connection.
      const std::uint32_t here = connection == 4 ? 0 : maximum;
      server.connect(connection != 0, Properties().add(PropertyId::topic_alias_maximum, here));
      std::map<std::uint32_t, std::string> aliases;
      for (int i = 0; i < 100; ++i) {
        expected.push_back("topic/" + std::to_string(random() % 6));
        server.publish_record("x", QoS::at_most_once, expected.back());
      }
      server.flush();
      while (!server.sent.empty()) {
        const auto publish = server.next_as<PublishView>();
        std::string topic(publish.topic);
        if (const auto alias = publish.properties.find(PropertyId::topic_alias)) {
          ASSERT_GE(alias->number, 1u);    // [MQTT-3.3.2-8]
          ASSERT_LE(alias->number, here);  // [MQTT-3.3.2-9]
          if (topic.empty()) {
            ASSERT_TRUE(aliases.contains(alias->number));  // [MQTT-3.3.2-7]
            topic = aliases[alias->number];
          }
          aliases[alias->number] = topic;
        }
        ASSERT_EQ(topic, expected.front());
        expected.pop_front();
      }
      EXPECT_TRUE(expected.empty());
    }
  }
}

TEST(SessionClauses, no_packet_is_larger_than_the_server_takes_whatever_its_type_MQTT_3_2_2_15) {
  for (const std::uint32_t maximum : {5u, 8u, 12u, 20u}) {
    auto config = persistent();
    config.authentication_method = "method";
    ScriptedServer server(config);
    server.connect(false, Properties()
                              .add(PropertyId::authentication_method, "method")
                              .add(PropertyId::maximum_packet_size, maximum));
    server.sent.clear();
    for (std::size_t size = 0; size < 30; ++size) {
      server.publish_record(std::string(size, 'x'), static_cast<QoS>(size % 3));
      const std::string filter(size + 1, 'f');
      const SubscriptionRequest request{filter};
      const std::string_view view = filter;
      server.session.subscribe({&request, 1}, 0, 1);
      server.session.unsubscribe({&view, 1}, 1);
    }
    server.session.reauthenticate(bytes("'data'"));
    server.publish("a", "x", QoS::at_least_once, 1);
    server.session.acknowledge(1, ReasonCode::no_matching_subscribers);
    server.run_timeout();
    server.session.disconnect(ReasonCode::disconnect_with_will);
    server.flush();
    ASSERT_FALSE(server.sent.empty());
    for (const auto& packet : server.sent) EXPECT_LE(packet->data.size(), maximum) << hex(packet->data);
    EXPECT_EQ(hex(server.sent.back()->data), "e0 01 04");
  }
}

TEST(SessionClauses, a_record_that_was_refused_does_not_hold_an_identifier) {
  auto config = persistent();
  config.max_inflight = 2;
  ScriptedServer server(config);
  server.connect(false, Properties().add(PropertyId::maximum_packet_size, 20));
  for (int i = 0; i < 100; ++i) server.publish_record(std::string(50, 'x'), QoS::at_least_once);
  server.publish_record("fits", QoS::at_least_once);
  server.flush();
  EXPECT_EQ(server.next_as<PublishView>().packet_id, 1);
  EXPECT_EQ(server.completed.size(), 100u);
}

// --- messages in ----------------------------------------------------------------------------------------------------

TEST(SessionClauses, only_listed_reason_codes_leave_MQTT_3_4_2_1_MQTT_3_5_2_1_MQTT_3_14_2_1) {
  const std::set<unsigned> received = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99};
  const std::set<unsigned> closing = {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90,
                                      0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99};
  const auto expected = [](const std::set<unsigned>& listed, unsigned code) {
    return listed.contains(code) ? code : code >= 0x80 ? 0x80u : 0u;
  };
  for (unsigned code = 0; code < 256; ++code) {
    for (const auto qos : {QoS::at_least_once, QoS::exactly_once}) {
      ScriptedServer server(persistent());
      server.connect();
      server.publish("a", "x", qos, 1);
      server.session.acknowledge(1, static_cast<ReasonCode>(code));
      server.flush();
      EXPECT_EQ(static_cast<unsigned>(server.next_as<AckView>().reason), expected(received, code)) << code;
    }
    ScriptedServer server(persistent());
    server.connect();
    server.session.disconnect(static_cast<ReasonCode>(code));
    server.flush();
    EXPECT_EQ(static_cast<unsigned>(server.next_as<DisconnectView>().reason), expected(closing, code))
        << code;
  }
}

TEST(SessionClauses, what_a_session_says_to_a_rule_breaker_is_listed_for_a_clients_disconnect_MQTT_3_14_2_1) {
  for (std::size_t i = 1; i < decode_error_count; ++i) {
    const auto error = static_cast<DecodeError>(i);
    // Those of CONNECT are a server's to answer, with CONNACK.
    if (error == DecodeError::protocol_name_unknown || error == DecodeError::protocol_version_unknown ||
        error == DecodeError::client_id_empty) {
      continue;
    }
    EXPECT_TRUE(is_listed(PacketType::disconnect, Sender::client, reason_for(error))) << name_of(error);
  }
}

TEST(SessionClauses, in_3_1_1_an_error_of_the_caller_cannot_be_told_and_the_exchange_goes_on_MQTT_4_3_3_2) {
  ScriptedServer server(persistent(ProtocolVersion::v3_1_1));
  server.connect();
  server.publish("a", "x", QoS::exactly_once, 1);
  server.session.acknowledge(1, ReasonCode::quota_exceeded);
  server.flush();
  EXPECT_EQ(server.next_hex(), "50 02 00 01");
  // For the server this was an acceptance: until PUBREL the message is known here.
  server.publish("a", "x", QoS::exactly_once, 1, true);
  EXPECT_EQ(server.messages.size(), 1u);
  EXPECT_EQ(server.next_hex(), "50 02 00 01");
  server.ack(PacketType::pubrel, 1);
  EXPECT_EQ(server.next_hex(), "70 02 00 01");
  EXPECT_EQ(server.session.counts().unacknowledged, 0u);
}

TEST(SessionClauses,
     no_packet_carries_a_reason_string_or_a_user_property_that_could_make_it_too_large_MQTT_3_4_2_2) {
  auto config = persistent();
  config.authentication_method = "M";
  config.receive_maximum = 5;
  ScriptedServer server(config);
  Properties method;
  method.add(PropertyId::authentication_method, "M");
  server.connect(false, method);
  server.publish_record("out", QoS::exactly_once);
  server.flush();
  server.ack(PacketType::pubrec, 1);   // PUBREL
  server.ack(PacketType::pubrec, 99);  // PUBREL 0x92
  server.publish("a", "x", QoS::at_least_once, 1);
  server.publish("a", "x", QoS::exactly_once, 2);
  server.session.acknowledge(1, ReasonCode::unspecified_error);  // PUBACK
  server.session.acknowledge(2);                                 // PUBREC
  server.ack(PacketType::pubrel, 2);                             // PUBCOMP
  server.ack(PacketType::pubrel, 98);                            // PUBCOMP 0x92
  EXPECT_TRUE(server.session.reauthenticate(bytes("'r'")));      // AUTH
  server.flush();
  server.send_bytes(bytes("30 02 0000"));  // DISCONNECT
  std::set<PacketType> kinds;
  while (!server.sent.empty()) {
    const auto& packet = server.next();
    kinds.insert(static_cast<PacketType>(static_cast<unsigned>(packet.data[0]) >> 4));
    const auto text = render(packet.view, ProtocolVersion::v5);
    EXPECT_EQ(text.find("reason_string"), std::string::npos) << text;
    EXPECT_EQ(text.find("user_property"), std::string::npos) << text;
  }
  for (const auto type : {PacketType::puback, PacketType::pubrec, PacketType::pubrel, PacketType::pubcomp,
                          PacketType::auth, PacketType::disconnect}) {
    EXPECT_TRUE(kinds.contains(type)) << to_string(type);
  }
}

// --- subscriptions --------------------------------------------------------------------------------------------------

TEST(SessionClauses,
     invalid_filters_are_refused_before_they_are_sent_MQTT_3_8_3_1_MQTT_3_10_3_1_MQTT_4_7_1_1) {
  const std::string bad[] = {
      "",       "a#",       "#/a",       "a+",          std::string("a\0", 2),   "\xff", "\xed\xa0\x80",
      "$share", "$share/g", "$share//a", "$share/g+/a", std::string(65'536, 'x')};
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    for (const std::string_view filter : bad) {
      const SubscriptionRequest requests[] = {{"good"}, {filter}};
      const std::string_view filters[] = {"good", filter};
      EXPECT_FALSE(server.session.subscribe(requests, 0, 1)) << filter;
      EXPECT_FALSE(server.session.unsubscribe(filters, 1)) << filter;
      EXPECT_EQ(server.session.subscription_refusal(requests[1], 0), ReasonCode::topic_filter_invalid)
          << filter;
    }
    EXPECT_FALSE(server.session.subscribe({}, 0, 1));
    EXPECT_FALSE(server.session.unsubscribe({}, 1));
    server.flush();
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionClauses, no_local_is_refused_on_a_shared_subscription_MQTT_3_8_3_4) {
  ScriptedServer server(persistent());
  server.connect();
  SubscriptionRequest request{"$share/g/a"};
  request.no_local = true;
  EXPECT_FALSE(server.session.subscribe({&request, 1}, 0, 1));
  EXPECT_EQ(server.session.subscription_refusal(request, 0), ReasonCode::protocol_error);
  request.no_local = false;
  EXPECT_TRUE(server.session.subscribe({&request, 1}, 0, 1));
}

TEST(SessionClauses, a_subscription_identifier_is_1_to_268435455) {
  ScriptedServer server(persistent());
  server.connect();
  const SubscriptionRequest request{"a"};
  EXPECT_FALSE(server.session.subscribe({&request, 1}, 268'435'456, 1));
  EXPECT_TRUE(server.session.subscribe({&request, 1}, 268'435'455, 1));
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("82 0c 0001 05 0b ff ff ff 7f 0001 'a' 00")));
}

// --- the end --------------------------------------------------------------------------------------------------------

TEST(SessionClauses, nothing_follows_disconnect_in_both_versions_MQTT_3_14_4_1_MQTT_3_14_4_2) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.publish("a", "x", QoS::at_least_once, 1);
    server.publish_record("1", QoS::at_least_once);
    server.session.disconnect();
    server.flush();
    EXPECT_TRUE(take_sent(server).back().starts_with("DISCONNECT"));
    EXPECT_TRUE(server.session.should_close());
    const auto record = record_of("2", QoS::at_most_once);
    EXPECT_FALSE(server.session.publish(record.view()));
    const SubscriptionRequest request{"a"};
    EXPECT_FALSE(server.session.subscribe({&request, 1}, 0, 1));
    server.session.acknowledge(1);
    server.send_bytes(bytes("62 02 0009"));
    server.session.disconnect();
    server.pass(1h);
    server.session.on_timeout(server.now);
    server.flush();
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionClauses, a_session_that_lost_its_connection_says_nothing_until_the_next_one) {
  for (const auto version : both) {
    ScriptedServer server(persistent(version));
    server.connect();
    server.publish("a", "x", QoS::exactly_once, 1);
    server.close();
    server.session.acknowledge(1);
    server.session.disconnect();
    server.publish_record("x", QoS::at_most_once);
    server.flush();
    EXPECT_TRUE(server.sent.empty());
    EXPECT_FALSE(server.session.next_timeout().has_value());
  }
}

}  // namespace
}  // namespace fulmar::mqtt
