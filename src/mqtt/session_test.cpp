// The life cycle of a session: CONNECT, CONNACK, keep-alive, the end of a connection.
#include "fulmar/mqtt/session.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

SessionConfig config_of(ProtocolVersion version) {
  SessionConfig config;
  config.version = version;
  config.client_id = "c";
  config.maximum_packet_size = no_packet_limit;
  return config;
}
SessionConfig v5() { return config_of(ProtocolVersion::v5); }
SessionConfig v3() { return config_of(ProtocolVersion::v3_1_1); }

// --- CONNECT --------------------------------------------------------------------------------------------------------

TEST(SessionConnect, is_the_first_packet_byte_for_byte_MQTT_3_1_0_1_MQTT_3_1_2_1_MQTT_3_1_3_3) {
  ScriptedServer server(v5());
  server.open();
  EXPECT_EQ(server.next_hex(), hex(bytes("10 0e 0004 'MQTT' 05 02 003c 00 0001 'c'")));
  EXPECT_TRUE(server.sent.empty());
  EXPECT_EQ(server.session.state(), Session::State::connecting);
}

TEST(SessionConnect, in_3_1_1_byte_for_byte) {
  ScriptedServer server(v3());
  server.open();
  EXPECT_EQ(server.next_hex(), hex(bytes("10 0d 0004 'MQTT' 04 02 003c 0001 'c'")));
}

TEST(SessionConnect, carries_every_option_in_the_order_of_the_standard_MQTT_3_1_3_1_MQTT_3_1_2_9) {
  auto config = v5();
  config.clean_start = false;
  config.session_expiry_s = 258;
  config.keepalive_s = 10;
  config.receive_maximum = 20;
  config.maximum_packet_size = 65'536;
  config.topic_alias_maximum = 5;
  config.request_problem_information = false;
  config.connect_properties = bytes("26 0001 'k' 0001 'v'");
  config.username = "user";
  config.password = std::string("p\0w", 3);
  config.will = Will{"w", bytes("'bye'"), QoS::at_least_once, true, 30, bytes("01 01")};
  ScriptedServer server(config);
  server.open();
  EXPECT_EQ(server.next_hex(),
            hex(bytes("10 42 0004 'MQTT' 05 ec 000a"
                      "19 11 00000102 21 0014 27 00010000 22 0005 17 00 26 0001 'k' 0001 'v'"
                      "0001 'c' 07 18 0000001e 01 01 0001 'w' 0003 'bye' 0004 'user' 0003 'p' 00 'w'")));
}

TEST(SessionConnect, in_3_1_1_carries_will_and_credentials_without_properties) {
  auto config = v3();
  config.clean_start = false;
  config.username = "u";
  config.password = "p";
  config.will = Will{"w", bytes("'x'"), QoS::exactly_once, false, 30, bytes("01 01")};
  config.connect_properties = bytes("26 0001 'k' 0001 'v'");
  ScriptedServer server(config);
  server.open();
  EXPECT_EQ(server.next_hex(),
            hex(bytes("10 19 0004 'MQTT' 04 d4 003c 0001 'c' 0001 'w' 0001 'x' 0001 'u' 0001 'p'")));
}

TEST(SessionConnect, a_password_without_user_name_is_for_5_0_only_MQTT_3_1_2_22) {
  auto config = v3();
  config.password = "p";
  ScriptedServer old(config);
  old.open();
  EXPECT_FALSE(old.next_as<ConnectView>().password.has_value());
  config.version = ProtocolVersion::v5;
  ScriptedServer server(config);
  server.open();
  EXPECT_TRUE(server.next_as<ConnectView>().password.has_value());
}

TEST(SessionConnect, nothing_is_sent_before_connack_but_connect) {
  ScriptedServer server(v5());
  server.publish_record("x", QoS::at_most_once);
  server.open();
  server.flush();
  EXPECT_EQ(server.sent.size(), 1u);
  const SubscriptionRequest request{"a"};
  EXPECT_FALSE(server.session.subscribe({&request, 1}, 0, 1));
}

// --- CONNACK --------------------------------------------------------------------------------------------------------

TEST(SessionConnack, tells_the_limits_of_the_server) {
  ScriptedServer server(v5());
  server.connect(false, Properties()
                            .add(PropertyId::receive_maximum, 7)
                            .add(PropertyId::maximum_qos, 1)
                            .add(PropertyId::retain_available, 0)
                            .add(PropertyId::maximum_packet_size, 4096)
                            .add(PropertyId::topic_alias_maximum, 3)
                            .add(PropertyId::wildcard_subscription_available, 0)
                            .add(PropertyId::subscription_identifier_available, 0)
                            .add(PropertyId::shared_subscription_available, 0)
                            .add(PropertyId::server_keep_alive, 15)
                            .add(PropertyId::session_expiry_interval, 99)
                            .add(PropertyId::assigned_client_identifier, "given"));
  ASSERT_EQ(server.connected.size(), 1u);
  const auto& event = server.connected[0];
  EXPECT_FALSE(event.session_present);
  EXPECT_EQ(event.limits.receive_maximum, 7);
  EXPECT_EQ(event.limits.maximum_qos, QoS::at_least_once);
  EXPECT_FALSE(event.limits.retain_available);
  EXPECT_EQ(event.limits.maximum_packet_size, 4096u);
  EXPECT_EQ(event.limits.topic_alias_maximum, 3);
  EXPECT_FALSE(event.limits.wildcard_available);
  EXPECT_FALSE(event.limits.subscription_identifiers_available);
  EXPECT_FALSE(event.limits.shared_available);
  EXPECT_EQ(event.limits.keepalive_s, 15);
  EXPECT_EQ(event.limits.session_expiry_s, 99u);
  EXPECT_EQ(event.assigned_client_id, "given");
  EXPECT_EQ(server.session.state(), Session::State::connected);
  // The given identifier is the session's from now on [MQTT-3.2.2-16].
  server.close();
  server.open();
  EXPECT_EQ(server.next_as<ConnectView>().client_id, "given");
}

TEST(SessionConnack, defaults_hold_when_the_server_is_silent_MQTT_3_2_2_18) {
  for (const auto& config : {v5(), v3()}) {
    ScriptedServer server(config);
    server.connect();
    ASSERT_EQ(server.connected.size(), 1u);
    const auto& limits = server.connected[0].limits;
    EXPECT_EQ(limits.receive_maximum, 65'535);
    EXPECT_EQ(limits.maximum_packet_size, no_packet_limit);
    EXPECT_EQ(limits.maximum_qos, QoS::exactly_once);
    EXPECT_EQ(limits.topic_alias_maximum, 0);
    EXPECT_EQ(limits.keepalive_s, 60);
    EXPECT_TRUE(limits.retain_available && limits.wildcard_available && limits.shared_available);
  }
}

TEST(SessionConnack, a_refusal_is_told_and_closes_MQTT_3_2_2_7_MQTT_4_13_2_1) {
  ScriptedServer server(v5());
  server.open();
  server.send(ConnackView{false, 0x87, Properties().add(PropertyId::reason_string, "no")});
  ASSERT_EQ(server.refused.size(), 1u);
  EXPECT_EQ(server.refused[0].code, 0x87);
  EXPECT_EQ(server.refused[0].version, ProtocolVersion::v5);
  EXPECT_TRUE(server.session.should_close());
  EXPECT_EQ(server.sent.size(), 1u);
}

TEST(SessionConnack, each_3_1_1_return_code_is_a_refusal_whatever_session_present_says_MQTT_3_2_2_4) {
  for (unsigned char code = 1; code <= 5; ++code) {
    for (unsigned char flag = 0; flag <= 1; ++flag) {
      ScriptedServer server(v3());
      server.open();
      server.send_bytes({std::byte{0x20}, std::byte{2}, std::byte{flag}, std::byte{code}});
      ASSERT_EQ(server.refused.size(), 1u);
      EXPECT_EQ(server.refused[0].code, code);
      EXPECT_EQ(server.refused[0].version, ProtocolVersion::v3_1_1);
      EXPECT_TRUE(server.session.should_close());
    }
  }
}

TEST(SessionConnack, a_server_of_3_1_1_refuses_5_0_in_its_own_form) {
  ScriptedServer server(v5());
  server.open();
  server.send_bytes(bytes("20 02 00 01"));
  ASSERT_EQ(server.refused.size(), 1u);
  EXPECT_EQ(server.refused[0].code, 1);
  EXPECT_EQ(server.refused[0].version, ProtocolVersion::v3_1_1);
}

TEST(SessionConnack, session_present_after_a_clean_start_is_a_violation) {
  ScriptedServer server(v5());
  server.connect(true);
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].rule, DecodeError::session_present_after_clean_start);
}

TEST(SessionConnack, a_session_of_a_former_process_is_adopted_or_not_MQTT_3_2_2_4) {
  auto config = v5();
  config.clean_start = false;
  config.session_expiry_s = 60;
  ScriptedServer adopting(config);
  adopting.connect(true);
  EXPECT_EQ(adopting.connected.size(), 1u);

  config.adopt_session = false;
  ScriptedServer strict(config);
  strict.connect(true);
  ASSERT_EQ(strict.closings.size(), 1u);
  EXPECT_EQ(strict.closings[0].rule, DecodeError::session_present_without_state);
  strict.close();
  strict.sent.clear();
  strict.open();
  EXPECT_TRUE(strict.next_as<ConnectView>().clean_start);
}

TEST(SessionConnack, later_connects_resume_where_the_server_keeps_the_session_MQTT_3_1_2_23) {
  auto config = v5();
  config.session_expiry_s = 60;
  ScriptedServer keeping(config);
  keeping.connect();
  keeping.close();
  keeping.open();
  EXPECT_FALSE(keeping.next_as<ConnectView>().clean_start);

  ScriptedServer ending(v5());  // expiry 0: the session ends with the connection
  ending.connect();
  ending.close();
  ending.open();
  EXPECT_TRUE(ending.next_as<ConnectView>().clean_start);

  auto old = v3();
  old.clean_start = false;
  ScriptedServer old_keeping(old);
  old_keeping.connect();
  old_keeping.close();
  old_keeping.open();
  EXPECT_FALSE(old_keeping.next_as<ConnectView>().clean_start);
}

TEST(SessionConnack, a_forgotten_session_starts_clean_once_MQTT_3_1_2_4) {
  auto config = v5();
  config.session_expiry_s = 60;
  ScriptedServer server(config);
  server.connect();
  server.publish_record("a", QoS::at_least_once);
  server.flush();
  server.session.forget_session();
  server.close();
  server.sent.clear();
  server.open();
  EXPECT_TRUE(server.next_as<ConnectView>().clean_start);
  server.send(ConnackView{});
  const auto again = server.next_as<PublishView>();
  EXPECT_FALSE(again.dup);
  server.close();
  server.sent.clear();
  server.open();
  EXPECT_FALSE(server.next_as<ConnectView>().clean_start);
}

// --- keep-alive -----------------------------------------------------------------------------------------------------

TEST(SessionKeepAlive,
     pings_before_the_keep_alive_is_over_and_counts_only_silence_MQTT_3_1_2_20_MQTT_3_1_2_23) {
  ScriptedServer server(v5());
  server.connect();
  EXPECT_EQ(server.session.next_timeout(), server.now + 52'500ms);
  server.pass(30s);
  server.publish_record("x", QoS::at_most_once);
  server.flush();
  server.publish("a", "b");
  EXPECT_EQ(server.session.next_timeout(), server.now + 52'500ms);
  server.next();
  server.run_timeout();
  EXPECT_EQ(server.next_hex(), "c0 00");
  EXPECT_TRUE(server.closings.empty());
}

TEST(SessionKeepAlive, sending_without_ever_receiving_pings_too) {
  ScriptedServer server(v5());
  server.connect();
  bool pinged = false;
  for (int i = 0; i < 10 && !pinged; ++i) {
    server.pass(10s);
    if (const auto due = server.session.next_timeout(); due && server.now >= *due)
      server.session.on_timeout(server.now);
    server.publish_record("x", QoS::at_most_once);
    server.flush();
    for (; !server.sent.empty(); server.next()) pinged |= server.sent.front()->data[0] == std::byte{0xc0};
  }
  EXPECT_TRUE(pinged);
}

TEST(SessionKeepAlive, an_unanswered_ping_ends_the_connection_within_one_and_a_half_MQTT_3_12_4_1) {
  ScriptedServer server(v5());
  server.connect();
  const auto silence_began = server.now;
  server.run_timeout();
  EXPECT_TRUE(server.closings.empty());
  server.run_timeout();
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].by, Closing::By::keep_alive);
  EXPECT_EQ(server.now - silence_began, 90s);
  EXPECT_TRUE(server.session.should_close());
  EXPECT_FALSE(server.session.next_timeout().has_value());
}

TEST(SessionKeepAlive, any_bytes_answer_a_ping) {
  ScriptedServer server(v5());
  server.connect();
  for (int i = 0; i < 5; ++i) {
    server.run_timeout();
    EXPECT_EQ(server.next_hex(), "c0 00");
    server.pass(100ms);
    i % 2 == 0 ? server.send(PingrespView{}) : server.publish("a", "b");
  }
  EXPECT_TRUE(server.closings.empty());
}

TEST(SessionKeepAlive, after_a_long_sleep_the_server_gets_a_ping_and_its_time_to_answer) {
  ScriptedServer server(v5());
  server.connect();
  server.pass(10min);
  server.session.on_timeout(server.now);
  EXPECT_TRUE(server.closings.empty());
  EXPECT_EQ(server.session.next_timeout(), server.now + 30s);
}

TEST(SessionKeepAlive, the_servers_own_value_holds_MQTT_3_1_2_21_MQTT_3_2_2_21) {
  ScriptedServer server(v5());
  server.connect(false, Properties().add(PropertyId::server_keep_alive, 8));
  EXPECT_EQ(server.session.next_timeout(), server.now + 7s);
  auto config = v5();
  config.keepalive_s = 0;
  ScriptedServer off(config);
  off.connect();
  EXPECT_FALSE(off.session.next_timeout().has_value());
  ScriptedServer server_off(v5());
  server_off.connect(false, Properties().add(PropertyId::server_keep_alive, 0));
  EXPECT_FALSE(server_off.session.next_timeout().has_value());
}

TEST(SessionKeepAlive, while_the_input_is_held_silence_is_not_death_but_pings_go_on) {
  ScriptedServer server(v5());
  server.connect();
  server.session.hold_input(true, server.now);
  for (int i = 0; i < 5; ++i) {
    server.run_timeout();
    EXPECT_EQ(server.next_hex(), "c0 00");
  }
  EXPECT_TRUE(server.closings.empty());
  server.session.hold_input(false, server.now);
  EXPECT_EQ(server.session.next_timeout(), server.now + 52'500ms);
}

// A connection whose transport has a long queue: what is told of it at each of the session's timeouts.
class SlowWay : public testing::Test {
 protected:
  SlowWay() {
    server.connect();
    server.session.send_queue(0, server.now);
    server.publish_record(std::string(100'000, 'x'), QoS::at_most_once);
    server.flush();
    silence_began = server.now;
  }
  // `ahead`: what is still unconfirmed of the bytes in front of the first PINGREQ; none: nor is any PINGREQ.
  void timeout(std::size_t ahead) {
    server.now = *server.session.next_timeout();
    server.session.send_queue(ahead == 0 ? 0 : ahead + pings * 2, server.now);
    server.session.on_timeout(server.now);
    server.flush();
    for (; !server.sent.empty(); server.next()) pings += server.sent.front()->data[0] == std::byte{0xc0};
  }
  bool dead() const { return !server.closings.empty(); }

  ScriptedServer server{v5()};
  Instant silence_began{};
  std::size_t pings = 0;
};

TEST_F(SlowWay, a_ping_behind_bytes_that_move_has_not_arrived_and_needs_no_answer_yet) {
  std::size_t unconfirmed = 90'000;
  while (unconfirmed > 0 && !dead()) timeout(unconfirmed -= 1'000);
  ASSERT_FALSE(dead());
  EXPECT_GT(server.now - silence_began, 10min);
  const auto arrived = server.now;
  while (!dead()) timeout(0);
  EXPECT_EQ(server.now - arrived, 30s) << "from then on it has half a keep-alive";
}

TEST_F(SlowWay, a_queue_that_stands_still_is_silence) {
  while (!dead()) timeout(50'000);
  EXPECT_EQ(server.now - silence_began, 90s);
}

TEST_F(SlowWay, a_queue_that_stops_in_the_end_is_silence_from_then_on) {
  std::size_t unconfirmed = 90'000;
  while (unconfirmed > 50'000 && !dead()) timeout(unconfirmed -= 1'000);
  const auto stopped = server.now;
  while (!dead()) timeout(unconfirmed);
  EXPECT_EQ(server.now - stopped, 30s);
}

TEST_F(SlowWay, a_ping_that_arrives_at_once_has_no_more_time_than_ever) {
  while (!dead()) timeout(0);
  EXPECT_EQ(server.now - silence_began, 90s);
}

TEST_F(SlowWay, who_stops_telling_is_asked_again_but_not_at_once) {
  timeout(50'000);
  for (int i = 0; i < 100 && !dead(); ++i) {
    const auto before = server.now;
    server.run_timeout();
    EXPECT_GT(server.now, before);
  }
  EXPECT_EQ(server.now - silence_began, 90s);
}

// --- the end --------------------------------------------------------------------------------------------------------

TEST(SessionDisconnect, leaves_behind_what_is_queued_and_nothing_follows_MQTT_3_14_4_1_MQTT_3_14_4_2) {
  ScriptedServer server(v5());
  server.connect();
  server.publish_record("x", QoS::at_most_once);
  server.session.disconnect(ReasonCode::disconnect_with_will);
  EXPECT_FALSE(server.session.should_close());
  EXPECT_EQ(server.session.publish_room(), 0u);
  server.flush();
  EXPECT_EQ(as_text(server.next_as<PublishView>().payload), "x");
  EXPECT_EQ(server.next_hex(), "e0 01 04");
  EXPECT_TRUE(server.session.should_close());
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].by, Closing::By::us);
  server.publish("a", "b", QoS::at_least_once, 1);
  server.session.acknowledge(1);
  server.flush();
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionDisconnect, is_not_followed_by_answers_to_what_came_before_MQTT_3_14_4_1) {
  ScriptedServer server(v5());
  server.connect();
  server.publish("a", "b", QoS::at_least_once, 1);
  server.session.disconnect();
  server.flush();
  EXPECT_EQ(server.next_hex(), "e0 00");
  server.session.acknowledge(1);
  server.flush();
  EXPECT_TRUE(server.sent.empty());
  EXPECT_TRUE(server.session.should_close());
}

TEST(SessionDisconnect, is_two_bytes_without_a_reason_and_in_3_1_1) {
  for (const auto& config : {v5(), v3()}) {
    ScriptedServer server(config);
    server.connect();
    server.session.disconnect(config.version == ProtocolVersion::v5 ? ReasonCode::success
                                                                    : ReasonCode::server_busy);
    server.flush();
    EXPECT_EQ(server.next_hex(), "e0 00");
    EXPECT_TRUE(server.session.should_close());
  }
}

TEST(SessionDisconnect, does_not_wait_for_acknowledgements) {
  auto config = v5();
  config.max_inflight = 1;
  ScriptedServer server(config);
  server.connect();
  server.publish_record("1", QoS::at_least_once);
  server.publish_record("2", QoS::at_least_once);
  server.session.disconnect();
  server.flush();
  EXPECT_EQ(as_text(server.next_as<PublishView>().payload), "1");
  EXPECT_EQ(server.next_hex(), "e0 00");
  EXPECT_EQ(server.session.counts().queued, 1u);
  EXPECT_EQ(server.session.counts().in_flight, 1u);
}

TEST(SessionDisconnect, of_the_server_is_told_with_reason_and_reference) {
  ScriptedServer server(v5());
  server.connect();
  server.send(DisconnectView{
      ReasonCode::use_another_server,
      Properties().add(PropertyId::reason_string, "moved").add(PropertyId::server_reference, "other:1883")});
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_EQ(server.closings[0].by, Closing::By::server_disconnect);
  EXPECT_EQ(server.closings[0].reason, ReasonCode::use_another_server);
  EXPECT_EQ(server.closings[0].text, "moved");
  EXPECT_EQ(server.closings[0].server_reference, "other:1883");
  EXPECT_TRUE(server.session.should_close());
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionDisconnect, before_connack_leaves_behind_connect) {
  ScriptedServer server(v5());
  server.session.connection_opened(server.now);
  server.session.disconnect();
  server.flush();
  EXPECT_TRUE(std::holds_alternative<ConnectView>(server.next().view));
  EXPECT_EQ(server.next_hex(), "e0 00");
  EXPECT_TRUE(server.session.should_close());
}

// --- authentication -------------------------------------------------------------------------------------------------

SessionConfig with_method() {
  auto config = v5();
  config.authentication_method = "M";
  config.authentication_data = bytes("'1'");
  return config;
}

Properties auth_properties(std::string_view data, std::string_view method = "M") {
  Properties properties;
  properties.add(PropertyId::authentication_method, method);
  if (!data.empty()) properties.add(PropertyId::authentication_data, data);
  return properties;
}

TEST(SessionAuthentication, challenges_are_answered_until_connack_MQTT_4_12_0_3_MQTT_4_12_0_5) {
  ScriptedServer server(with_method());
  server.open();
  const auto connect = server.next_as<ConnectView>();
  EXPECT_EQ(connect.properties.text(PropertyId::authentication_method), "M");
  EXPECT_EQ(connect.properties.text(PropertyId::authentication_data), "1");
  EXPECT_FALSE(server.session.authenticate(bytes("'early'")));
  const auto two = auth_properties("2");
  server.send(AuthView{ReasonCode::continue_authentication, two});
  ASSERT_EQ(server.challenges.size(), 1u);
  EXPECT_TRUE(server.session.authenticate(bytes("'3'")));
  EXPECT_FALSE(server.session.authenticate(bytes("'again'")));
  server.flush();
  const auto answer = server.next_as<AuthView>();
  EXPECT_EQ(answer.reason, ReasonCode::continue_authentication);
  EXPECT_EQ(answer.properties.text(PropertyId::authentication_method), "M");
  EXPECT_EQ(answer.properties.text(PropertyId::authentication_data), "3");
  const auto done = auth_properties("");
  server.send(ConnackView{false, 0, done});
  EXPECT_EQ(server.connected.size(), 1u);
}

TEST(SessionAuthentication, can_be_repeated_while_connected_MQTT_4_12_1_1) {
  ScriptedServer server(with_method());
  const auto done = auth_properties("");
  server.connect(false, done);
  EXPECT_TRUE(server.session.reauthenticate(bytes("'r'")));
  EXPECT_FALSE(server.session.reauthenticate(bytes("'r'")));
  server.flush();
  EXPECT_EQ(server.next_as<AuthView>().reason, ReasonCode::reauthenticate);
  const auto more = auth_properties("c");
  server.send(AuthView{ReasonCode::continue_authentication, more});
  EXPECT_TRUE(server.session.authenticate({}));
  server.flush();
  EXPECT_EQ(server.next_as<AuthView>().reason, ReasonCode::continue_authentication);
  server.send(AuthView{ReasonCode::success, done});
  ASSERT_EQ(server.challenges.size(), 2u);
  EXPECT_EQ(server.challenges[1].reason, ReasonCode::success);
  EXPECT_TRUE(server.session.reauthenticate({}));
  EXPECT_TRUE(server.closings.empty());
}

TEST(SessionAuthentication, breaking_its_rules_is_a_violation_MQTT_4_12_0_2_MQTT_4_12_0_6) {
  const auto rule_of = [](SessionConfig config, bool connected, const PacketView& packet) {
    ScriptedServer server(std::move(config));
    server.open();
    const auto done = auth_properties("");
    if (connected)
      server.send(
          ConnackView{false, 0, server.session.config().authentication_method ? done : PropertiesView()});
    server.send(packet);
    return server.closings.empty() ? DecodeError::none : server.closings[0].rule;
  };
  const auto right = auth_properties("x");
  const auto wrong = auth_properties("x", "other");
  const AuthView more{ReasonCode::continue_authentication, right};
  EXPECT_EQ(rule_of(v5(), false, more), DecodeError::auth_without_method);
  EXPECT_EQ(rule_of(v5(), true, more), DecodeError::auth_without_method);
  EXPECT_EQ(rule_of(with_method(), false, AuthView{ReasonCode::continue_authentication, wrong}),
            DecodeError::auth_method_differs);
  EXPECT_EQ(rule_of(with_method(), false, AuthView{ReasonCode::continue_authentication, {}}),
            DecodeError::auth_method_differs);
  EXPECT_EQ(rule_of(with_method(), false, AuthView{ReasonCode::success, right}),
            DecodeError::auth_code_unexpected);
  EXPECT_EQ(rule_of(with_method(), true, more), DecodeError::auth_code_unexpected);
  EXPECT_EQ(rule_of(with_method(), false, ConnackView{false, 0, {}}), DecodeError::auth_method_differs);
  EXPECT_EQ(rule_of(v5(), false, ConnackView{false, 0, right}), DecodeError::auth_without_method);
  EXPECT_EQ(rule_of(with_method(), false, ConnackView{false, 0, right}), DecodeError::none);
}

// --- subscribing ----------------------------------------------------------------------------------------------------

TEST(SessionSubscribe, byte_for_byte_with_options_and_identifier_MQTT_3_8_1_1) {
  ScriptedServer server(v5());
  server.connect();
  const SubscriptionRequest requests[] = {{"a/#", QoS::exactly_once, true, true, RetainHandling::do_not_send},
                                          {"b", QoS::at_least_once}};
  EXPECT_TRUE(server.session.subscribe(requests, 300, 77));
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("82 10 0001 03 0b ac02 0003 'a/#' 2e 0001 'b' 01")));
  server.send_bytes(bytes("90 05 0001 00 02 87"));
  ASSERT_EQ(server.answers.size(), 1u);
  EXPECT_EQ(server.answers[0].token, 77u);
  EXPECT_FALSE(server.answers[0].unsubscribe);
  EXPECT_THAT(server.answers[0].codes, ElementsAre(ReasonCode::granted_qos_2, ReasonCode::not_authorized));
}

TEST(SessionSubscribe, in_3_1_1_only_the_qos_is_asked_for) {
  ScriptedServer server(v3());
  server.connect();
  const SubscriptionRequest requests[] = {{"a", QoS::exactly_once, true, true, RetainHandling::do_not_send}};
  EXPECT_TRUE(server.session.subscribe(requests, 0, 1));
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("82 06 0001 0001 'a' 02")));
  server.send_bytes(bytes("90 03 0001 80"));
  ASSERT_EQ(server.answers.size(), 1u);
  EXPECT_THAT(server.answers[0].codes, ElementsAre(ReasonCode::unspecified_error));
}

TEST(SessionSubscribe, unsubscribe_answers_a_code_per_filter_in_3_1_1_too_MQTT_3_10_1_1_MQTT_3_11_3_1) {
  const std::string_view filters[] = {"a", "b/+"};
  ScriptedServer server(v5());
  server.connect();
  EXPECT_TRUE(server.session.unsubscribe(filters, 5));
  server.flush();
  EXPECT_EQ(server.next_hex(), hex(bytes("a2 0b 0001 00 0001 'a' 0003 'b/+'")));
  server.send_bytes(bytes("b0 05 0001 00 00 11"));
  ASSERT_EQ(server.answers.size(), 1u);
  EXPECT_TRUE(server.answers[0].unsubscribe);
  EXPECT_THAT(server.answers[0].codes, ElementsAre(ReasonCode::success, ReasonCode::no_subscription_existed));

  ScriptedServer old(v3());
  old.connect();
  EXPECT_TRUE(old.session.unsubscribe(filters, 6));
  old.flush();
  old.send_bytes(bytes("b0 02 0001"));
  ASSERT_EQ(old.answers.size(), 1u);
  EXPECT_THAT(old.answers[0].codes, ElementsAre(ReasonCode::success, ReasonCode::success));
}

TEST(SessionSubscribe, what_the_server_cannot_take_is_not_sent_MQTT_3_2_2_15) {
  ScriptedServer server(v5());
  server.connect(false, Properties()
                            .add(PropertyId::maximum_packet_size, 20)
                            .add(PropertyId::wildcard_subscription_available, 0)
                            .add(PropertyId::subscription_identifier_available, 0)
                            .add(PropertyId::shared_subscription_available, 0));
  const SubscriptionRequest plain{"a"};
  const SubscriptionRequest wild{"a/+"};
  const SubscriptionRequest shared{"$share/g/a"};
  const SubscriptionRequest large{"aaaaaaaaaaaaaaaaaaaa"};
  EXPECT_EQ(server.session.subscription_refusal(wild, 0), ReasonCode::wildcard_subscriptions_not_supported);
  EXPECT_EQ(server.session.subscription_refusal(shared, 0), ReasonCode::shared_subscriptions_not_supported);
  EXPECT_EQ(server.session.subscription_refusal(plain, 1),
            ReasonCode::subscription_identifiers_not_supported);
  EXPECT_EQ(server.session.subscription_refusal(plain, 0), ReasonCode::success);
  EXPECT_FALSE(server.session.subscribe({&wild, 1}, 0, 1));
  EXPECT_FALSE(server.session.subscribe({&shared, 1}, 0, 1));
  EXPECT_FALSE(server.session.subscribe({&plain, 1}, 1, 1));
  EXPECT_FALSE(server.session.subscribe({&large, 1}, 0, 1));
  EXPECT_FALSE(server.session.subscribe({}, 0, 1));  // [MQTT-3.8.3-2]
  EXPECT_FALSE(server.session.unsubscribe({}, 1));   // [MQTT-3.10.3-2]
  EXPECT_FALSE(server.session.unsubscribe({&large.filter, 1}, 1));
  EXPECT_TRUE(server.session.subscribe({&plain, 1}, 0, 1));
}

TEST(SessionSubscribe, requests_without_an_answer_end_with_the_connection) {
  ScriptedServer server(v5());
  server.connect();
  const SubscriptionRequest request{"a"};
  EXPECT_TRUE(server.session.subscribe({&request, 1}, 0, 1));
  server.flush();
  server.reconnect(false);
  server.send_bytes(bytes("90 04 0001 00 00"));
  EXPECT_TRUE(server.answers.empty());
  EXPECT_EQ(server.session.counts().answers_ignored, 1u);
  EXPECT_TRUE(server.closings.empty());
}

}  // namespace
}  // namespace fulmar::mqtt
