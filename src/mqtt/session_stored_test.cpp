// Messages of a disk log: identifiers from positions, PUBREL only when the caller has noted the PUBREC, and the exchanges
// of a former process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

constexpr ProtocolVersion both[] = {ProtocolVersion::v3_1_1, ProtocolVersion::v5};

SessionConfig of_log(ProtocolVersion version = ProtocolVersion::v5) {
  auto config = persistent(version);
  config.stored_ids = true;
  return config;
}

// PUBLISH of one byte on topic "t".
std::string publish_hex(ProtocolVersion version, bool dup, std::string_view id, char payload) {
  const bool v5 = version == ProtocolVersion::v5;
  return hex(bytes(std::string(dup ? "3c" : "34") + (v5 ? " 07" : " 06") + " 0001 't' " + std::string(id) +
                   (v5 ? " 00 '" : " '") + payload + "'"));
}
std::string pubrel_hex(std::string_view id) { return hex(bytes("62 02 " + std::string(id))); }

std::vector<std::uint64_t> positions(const ScriptedServer& server) {
  std::vector<std::uint64_t> result;
  for (const auto& event : server.recorded) result.push_back(event.position);
  return result;
}

std::vector<std::uint64_t> completed(const ScriptedServer& server) {
  std::vector<std::uint64_t> tokens;
  for (const auto& event : server.completed) {
    EXPECT_EQ(event.outcome, Outcome::acknowledged);
    tokens.push_back(event.token);
  }
  return tokens;
}

// --- the exchange ---------------------------------------------------------------------------------------------------

TEST(SessionStored, pubrel_waits_for_the_callers_release_MQTT_4_3_3_4) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 5);
    server.flush();
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8005", 'a'));
    EXPECT_FALSE(server.session.release(5)) << "there was no PUBREC";
    server.ack(PacketType::pubrec, 0x8005);
    EXPECT_THAT(positions(server), ElementsAre(5));
    EXPECT_EQ(server.recorded[0].sequence, 1u);
    EXPECT_EQ(server.recorded[0].token, 5u);
    EXPECT_TRUE(server.sent.empty());
    EXPECT_FALSE(server.session.wants_transmit());
    EXPECT_FALSE(server.session.release(4));
    EXPECT_FALSE(server.session.release(5 + 0x4000)) << "another message of the same identifier";
    server.release(5);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8005"));
    EXPECT_FALSE(server.session.release(5)) << "it was released";
    EXPECT_EQ(server.session.counts().in_flight, 1u);
    EXPECT_TRUE(server.completed.empty());
    server.ack(PacketType::pubcomp, 0x8005);
    EXPECT_THAT(completed(server), ElementsAre(5));
    EXPECT_EQ(server.session.counts().in_flight, 0u);
    EXPECT_FALSE(server.session.oldest().has_value());
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionStored, a_repeated_pubrec_is_told_once_and_releases_nothing) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 0);
    server.flush();
    server.sent.clear();
    server.ack(PacketType::pubrec, 0x8000);
    server.ack(PacketType::pubrec, 0x8000);
    server.ack(PacketType::pubcomp, 0x8000);  // of a PUBREL that was never sent
    EXPECT_THAT(positions(server), ElementsAre(0));
    EXPECT_TRUE(server.sent.empty());
    EXPECT_TRUE(server.completed.empty());
    EXPECT_EQ(server.session.counts().answers_ignored, 2u);
    server.release(0);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8000"));
    server.ack(PacketType::pubrec, 0x8000);  // PUBREL may be repeated then
    EXPECT_EQ(server.next_hex(), pubrel_hex("8000"));
    EXPECT_THAT(positions(server), ElementsAre(0));
  }
}

TEST(SessionStored, a_pubrec_with_an_error_is_final_MQTT_4_4_0_2) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_stored("a", 1);
  server.flush();
  server.sent.clear();
  server.ack(PacketType::pubrec, 0x8001, ReasonCode::quota_exceeded);
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].outcome, Outcome::refused);
  EXPECT_EQ(server.completed[0].reason, ReasonCode::quota_exceeded);
  EXPECT_TRUE(server.recorded.empty());
  EXPECT_FALSE(server.session.release(1));
  server.reconnect(true);
  EXPECT_TRUE(server.sent.empty());
}

TEST(SessionStored, pubrels_leave_in_the_order_of_the_pubrecs_MQTT_4_6_0_4) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 1);
    server.publish_record("p", QoS::exactly_once);
    server.publish_stored("b", 2);
    server.flush();
    ASSERT_EQ(server.sent.size(), 3u);
    server.sent.clear();
    server.ack(PacketType::pubrec, 0x8002);
    server.ack(PacketType::pubrec, 2);  // the plain one, in the second slot
    server.ack(PacketType::pubrec, 0x8001);
    EXPECT_THAT(positions(server), ElementsAre(2, 1));
    EXPECT_TRUE(server.sent.empty()) << "the plain one waits for an earlier PUBREL";
    server.release(1);
    EXPECT_TRUE(server.sent.empty());
    server.release(2);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8002"));
    EXPECT_EQ(server.next_hex(), pubrel_hex("0002"));
    EXPECT_EQ(server.next_hex(), pubrel_hex("8001"));
    EXPECT_TRUE(server.sent.empty());
    server.publish_record("q", QoS::exactly_once);
    server.flush();
    const auto id = server.next_as<PublishView>().packet_id;
    server.ack(PacketType::pubrec, id);
    EXPECT_EQ(server.sent.size(), 1u) << "nothing is before it any more";
  }
}

TEST(SessionStored, needs_to_be_told_at_construction_and_takes_other_qos_as_plain) {
  ScriptedServer without(persistent());
  without.connect();
  const auto record = record_of("a", QoS::exactly_once);
  EXPECT_FALSE(without.session.publish_stored(record.view(), 1, Resumed::fresh));
  EXPECT_FALSE(without.session.release(1));
  without.session.config().stored_ids = true;
  EXPECT_FALSE(without.session.publish_stored(record.view(), 1, Resumed::fresh));

  ScriptedServer server(of_log());
  server.connect();
  for (const auto qos : {QoS::at_most_once, QoS::at_least_once}) {
    const auto plain = record_of("b", qos);
    EXPECT_TRUE(server.session.publish_stored(plain.view(), 9, Resumed::maybe_sent));
    server.flush();
    const auto publish = server.next_as<PublishView>();
    EXPECT_EQ(publish.packet_id, qos == QoS::at_most_once ? 0 : 1);
    EXPECT_FALSE(publish.dup);
  }
}

TEST(SessionStored, takes_as_many_as_publish_does) {
  ScriptedServer server(of_log());
  const auto room = server.session.publish_room();
  const auto record = record_of("a", QoS::exactly_once);
  for (std::size_t i = 0; i < room; ++i) {
    ASSERT_TRUE(server.session.publish_stored(record.view(), i, Resumed::fresh));
  }
  EXPECT_EQ(server.session.publish_room(), 0u);
  EXPECT_FALSE(server.session.publish_stored(record.view(), room, Resumed::fresh));
  EXPECT_EQ(server.session.counts().queued, room);
}

// --- reconnection ---------------------------------------------------------------------------------------------------

TEST(SessionStored, before_pubrec_the_publish_is_repeated_with_dup_MQTT_4_4_0_1) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 3);
    server.publish_record("p", QoS::at_least_once);
    server.publish_stored("b", 4);
    server.flush();
    server.reconnect(true);
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8003", 'a'));
    EXPECT_TRUE(server.next_as<PublishView>().dup);
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8004", 'b'));
    EXPECT_TRUE(server.sent.empty());
    server.reconnect(false);
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8003", 'a'));
    EXPECT_EQ(as_text(server.next_as<PublishView>().payload), "p");
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8004", 'b'));
  }
}

TEST(SessionStored, between_pubrec_and_release_nothing_is_repeated) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 3);
    server.publish_stored("b", 4);
    server.flush();
    server.ack(PacketType::pubrec, 0x8003);
    server.reconnect(true);
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8004", 'b'));
    EXPECT_TRUE(server.sent.empty());
    EXPECT_THAT(positions(server), ElementsAre(3));
    server.release(3);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
    server.ack(PacketType::pubcomp, 0x8003);
    EXPECT_THAT(completed(server), ElementsAre(3));
  }
}

TEST(SessionStored, released_without_a_connection_its_pubrel_is_the_first_packet_of_the_next_one) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    server.publish_stored("a", 3);
    server.publish_stored("b", 4);
    server.flush();
    server.ack(PacketType::pubrec, 0x8004);
    server.ack(PacketType::pubrec, 0x8003);
    server.close();
    server.sent.clear();
    server.release(3);
    EXPECT_TRUE(server.sent.empty());
    server.open();
    EXPECT_TRUE(std::holds_alternative<ConnectView>(server.next().view));
    server.release(4);
    EXPECT_TRUE(server.sent.empty()) << "nothing before CONNACK";
    server.send(ConnackView{true, 0, {}});
    EXPECT_EQ(server.next_hex(), pubrel_hex("8004"));
    EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
    EXPECT_TRUE(server.sent.empty());
    server.reconnect(true);  // their PUBCOMPs are lost
    EXPECT_EQ(server.next_hex(), pubrel_hex("8004"));
    EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionStored, a_lost_session_voids_pubrec_and_release) {
  for (const auto version : both) {
    for (const bool released : {false, true}) {
      ScriptedServer server(of_log(version));
      server.connect();
      server.publish_stored("a", 3);
      server.flush();
      server.ack(PacketType::pubrec, 0x8003);
      if (released) server.release(3);
      server.reconnect(false);
      EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8003", 'a'));
      EXPECT_FALSE(server.session.release(3)) << "that was for the other session";
      EXPECT_TRUE(server.sent.empty());
      server.ack(PacketType::pubrec, 0x8003);
      EXPECT_THAT(positions(server), ElementsAre(3, 3));
      EXPECT_TRUE(server.sent.empty());
      server.release(3);
      EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
    }
  }
}

TEST(SessionStored, forgetting_the_session_makes_them_new_messages) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_stored("a", 3);
  server.flush();
  server.ack(PacketType::pubrec, 0x8003);
  server.session.forget_session();
  server.reconnect(false);
  EXPECT_EQ(server.next_hex(), publish_hex(ProtocolVersion::v5, false, "8003", 'a'));
}

TEST(SessionStored, release_sends_nothing_behind_disconnect_MQTT_3_14_4_1) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_stored("a", 3);
  server.publish_stored("b", 4);
  server.flush();
  server.sent.clear();
  server.ack(PacketType::pubrec, 0x8003);
  server.ack(PacketType::pubrec, 0x8004);
  server.session.disconnect();
  EXPECT_TRUE(server.session.release(3));
  server.flush();
  EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
  EXPECT_TRUE(std::holds_alternative<DisconnectView>(server.next().view));
  EXPECT_TRUE(server.session.should_close());
  server.release(4);
  EXPECT_TRUE(server.sent.empty());
  server.reconnect(true);
  EXPECT_EQ(server.next_hex(), pubrel_hex("8003"));
  EXPECT_EQ(server.next_hex(), pubrel_hex("8004"));
}

// --- a former process -----------------------------------------------------------------------------------------------

TEST(SessionStored, a_new_process_goes_on_where_the_old_one_was_MQTT_3_3_1_1_MQTT_4_3_3_6) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.publish_stored("a", 7, Resumed::released);
    server.publish_stored("b", 8, Resumed::maybe_sent);
    server.publish_stored("c", 9, Resumed::released);
    server.publish_stored("d", 10, Resumed::fresh);
    server.connect(true);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8007"));
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8008", 'b'));
    EXPECT_EQ(server.next_hex(), pubrel_hex("8009"));
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "800a", 'd'));
    EXPECT_TRUE(server.sent.empty());
    EXPECT_EQ(server.session.counts().in_flight, 4u);
    server.ack(PacketType::pubcomp, 0x8007);
    // The server had ended this one already.
    server.ack(
        PacketType::pubcomp, 0x8009,
        version == ProtocolVersion::v5 ? ReasonCode::packet_identifier_not_found : ReasonCode::success);
    EXPECT_THAT(completed(server), ElementsAre(7, 9));
    server.ack(PacketType::pubrec, 0x8008);
    EXPECT_THAT(positions(server), ElementsAre(8));
    EXPECT_TRUE(server.sent.empty());
    server.reconnect(true);
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "800a", 'd'));
    EXPECT_TRUE(server.sent.empty());
  }
}

TEST(SessionStored, an_unanswered_pubrel_of_a_former_process_is_repeated_on_the_next_connection) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.publish_stored("a", 7, Resumed::released);
    server.connect(true);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8007"));
    server.reconnect(true);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8007"));
    EXPECT_TRUE(server.sent.empty());
    server.reconnect(false);
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8007", 'a'));
  }
}

TEST(SessionStored, without_a_session_at_the_server_all_are_published_anew_in_their_order) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.publish_stored("a", 7, Resumed::released);
    server.publish_stored("b", 8, Resumed::maybe_sent);
    server.publish_stored("c", 9, Resumed::fresh);
    server.connect(false);
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8007", 'a'));
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8008", 'b'));
    EXPECT_EQ(server.next_hex(), publish_hex(version, false, "8009", 'c'));
    server.ack(PacketType::pubrec, 0x8007);
    EXPECT_TRUE(server.sent.empty());
    EXPECT_THAT(positions(server), ElementsAre(7));
  }
}

TEST(SessionStored, an_early_pubrec_of_a_former_exchange_releases_nothing) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect(true);
    server.ack(PacketType::pubrec, 0x8007);  // its message is still on the caller's disk
    server.ack(PacketType::pubrec, 0xbfff);
    EXPECT_TRUE(server.sent.empty());
    EXPECT_TRUE(server.recorded.empty());
    server.ack(PacketType::pubrec, 0xc000);  // not reserved
    EXPECT_EQ(server.sent.size(), 1u);
  }
}

TEST(SessionStored, pubrels_fit_between_messages_whatever_the_buffer) {
  for (std::size_t size = 16; size < 60; ++size) {
    ScriptedServer server(of_log());
    server.write_size = size;
    for (std::uint64_t i = 0; i < 30; ++i) {
      server.publish_stored("payload", i, i % 3 == 0 ? Resumed::released : Resumed::maybe_sent);
    }
    server.connect(true);
    ASSERT_EQ(server.sent.size(), 30u);
    for (std::uint64_t i = 0; i < 30; ++i) {
      const auto& packet = server.next();
      const auto* publish = std::get_if<PublishView>(&packet.view);
      const auto* ack = std::get_if<AckView>(&packet.view);
      ASSERT_EQ(ack != nullptr, i % 3 == 0);
      ASSERT_EQ(ack != nullptr ? ack->packet_id : publish->packet_id, 0x8000 + i);
    }
  }
}

// --- what the server takes ------------------------------------------------------------------------------------------

TEST(SessionStored, all_stages_count_against_receive_maximum_MQTT_3_3_4_9) {
  ScriptedServer server(of_log());
  for (std::uint64_t i = 0; i < 5; ++i)
    server.publish_stored("a", i, i == 0 ? Resumed::released : Resumed::fresh);
  server.publish_record("p", QoS::at_least_once);
  server.connect(true, Properties().add(PropertyId::receive_maximum, 2));
  EXPECT_EQ(server.sent.size(), 2u);  // PUBREL of 0, PUBLISH of 1
  server.ack(PacketType::pubrec, 0x8001);
  EXPECT_EQ(server.sent.size(), 2u) << "PUBREC gives no quota back";
  EXPECT_FALSE(server.session.wants_transmit());
  server.ack(PacketType::pubcomp, 0x8000);
  EXPECT_EQ(server.sent.size(), 3u);
  server.release(1);
  EXPECT_EQ(server.sent.size(), 4u) << "PUBREL needs none";
  server.ack(PacketType::pubcomp, 0x8001);
  EXPECT_EQ(server.sent.size(), 5u);
  server.ack(PacketType::pubrec, 0x8002, ReasonCode::unspecified_error);
  EXPECT_EQ(server.sent.size(), 6u);
  for (const auto id : {0x8003, 0x8004}) {
    server.ack(PacketType::pubrec, static_cast<std::uint16_t>(id));
    server.release(static_cast<std::uint64_t>(id - 0x8000));
    server.ack(PacketType::pubcomp, static_cast<std::uint16_t>(id));
  }
  ASSERT_FALSE(server.sent.empty());
  EXPECT_EQ(server.session.counts().queued, 0u);
  EXPECT_EQ(server.session.counts().in_flight, 1u);
}

TEST(SessionStored, what_may_have_been_sent_does_not_expire_MQTT_4_3_3_7) {
  for (const auto how : {Resumed::fresh, Resumed::maybe_sent}) {
    ScriptedServer server(of_log());
    RecordParts parts;
    parts.topic = "t";
    parts.qos = QoS::exactly_once;
    parts.expiry_s = 2;
    parts.accepted_ns = std::chrono::nanoseconds(server.now.time_since_epoch()).count();
    server.publish_stored(parts, 1, how);
    server.pass(5s);
    server.connect(true);
    if (how == Resumed::fresh) {
      EXPECT_TRUE(server.sent.empty());
      ASSERT_EQ(server.completed.size(), 1u);
      EXPECT_EQ(server.completed[0].outcome, Outcome::expired);
    } else {
      EXPECT_EQ(server.next_hex(), hex(bytes("3c 0b 0001 't' 8001 05 02 00000001")));
    }
  }
}

TEST(SessionStored, what_cannot_be_repeated_to_this_server_is_brought_to_its_end) {
  for (const bool same_process : {true, false}) {
    for (const bool server_has_it : {true, false}) {
      ScriptedServer server(of_log());
      if (same_process) {
        server.connect();
        server.publish_stored("a", 1, Resumed::fresh);
        server.flush();
        server.close();
        server.sent.clear();
      } else {
        server.publish_stored("a", 1, Resumed::maybe_sent);
      }
      server.publish_stored("b", 2, Resumed::fresh);
      server.connect(true, Properties().add(PropertyId::maximum_qos, 1));
      EXPECT_EQ(server.next_hex(), pubrel_hex("8001"));
      ASSERT_EQ(server.completed.size(), 1u) << "the new one is refused at once";
      EXPECT_EQ(server.completed[0].token, 2u);
      EXPECT_EQ(server.completed[0].outcome, Outcome::refused);
      server.ack(PacketType::pubcomp, 0x8001,
                 server_has_it ? ReasonCode::success : ReasonCode::packet_identifier_not_found);
      ASSERT_EQ(server.completed.size(), 2u);
      EXPECT_EQ(server.completed[1].token, 1u);
      EXPECT_EQ(server.completed[1].outcome, server_has_it ? Outcome::acknowledged : Outcome::refused);
      EXPECT_EQ(server.completed[1].reason,
                server_has_it ? ReasonCode::success : ReasonCode::qos_not_supported);
      EXPECT_TRUE(server.sent.empty());
    }
  }
}

// --- identifiers ----------------------------------------------------------------------------------------------------

TEST(SessionStored, identifiers_follow_the_position_round_and_round) {
  for (const std::uint64_t first : {std::uint64_t{0x3ffe}, std::uint64_t{0x1234567890abfffe}}) {
    ScriptedServer server(of_log());
    server.connect();
    for (std::uint64_t position = first; position < first + 4; ++position)
      server.publish_stored("a", position);
    server.flush();
    for (const auto id : std::initializer_list<std::uint16_t>{0xbffe, 0xbfff, 0x8000, 0x8001}) {
      EXPECT_EQ(server.next_as<PublishView>().packet_id, id);
      server.ack(PacketType::pubrec, id);
    }
    EXPECT_THAT(positions(server), ElementsAre(first, first + 1, first + 2, first + 3));
  }
}

TEST(SessionStored, ten_windows_of_positions_go_through_with_8191_between_the_oldest_and_the_newest) {
  auto config = of_log();
  config.max_inflight = 65'535;
  ScriptedServer server(config);
  server.connect();
  std::deque<std::uint64_t> live;
  std::uint64_t step = 0;
  for (std::uint64_t position = 0; position < 90'000; position += 1 + step++ % 50 * 7 % 40) {
    while (!live.empty() && live.front() + 8'191 < position) {
      const auto id = static_cast<std::uint16_t>(0x8000 + live.front() % 0x4000);
      server.ack(PacketType::pubrec, id);
      server.release(live.front());
      server.ack(PacketType::pubcomp, id);
      ASSERT_EQ(server.completed.back().token, live.front());
      live.pop_front();
    }
    server.publish_stored("a", position);
    server.flush();
    live.push_back(position);
    ASSERT_EQ(server.session.counts().in_flight, live.size());
    ASSERT_EQ(server.session.counts().queued, 0u);
    server.sent.clear();
  }
  EXPECT_EQ(server.session.counts().answers_ignored, 0u);
}

TEST(SessionStored, a_live_identifier_is_not_given_again_whatever_the_caller_does_MQTT_2_2_1_3) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_stored("a", 1);
  server.publish_stored("b", 1 + 0x4000);
  server.flush();
  EXPECT_EQ(server.sent.size(), 1u);
  EXPECT_FALSE(server.session.wants_transmit());
  server.ack(PacketType::pubrec, 0x8001);
  server.release(1);
  EXPECT_EQ(server.sent.size(), 2u);
  server.ack(PacketType::pubcomp, 0x8001);
  EXPECT_EQ(server.sent.size(), 3u);
  server.ack(PacketType::pubrec, 0x8001);
  EXPECT_FALSE(server.session.release(1));
  server.release(1 + 0x4000);
  server.ack(PacketType::pubcomp, 0x8001);
  EXPECT_THAT(completed(server), ElementsAre(1, 1 + 0x4000));
}

TEST(SessionStored, answers_under_the_plain_identifier_of_its_slot_are_not_its_own) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_stored("a", 1);
  server.flush();
  server.sent.clear();
  for (std::uint16_t id = 1; id < 40; ++id) {
    server.ack(PacketType::pubrec, id, ReasonCode::unspecified_error);
    server.ack(PacketType::puback, id);
    server.ack(PacketType::pubcomp, id);
  }
  EXPECT_TRUE(server.completed.empty());
  server.ack(PacketType::pubrec, 0x8001);
  EXPECT_EQ(server.recorded.size(), 1u);
}

// --- the records ----------------------------------------------------------------------------------------------------

using Shown = std::pair<std::string, std::optional<std::uint64_t>>;

std::vector<Shown> shown(const Session& session) {
  std::vector<Shown> result;
  session.for_each_pending([&result](RecordView record, std::optional<std::uint64_t> position) {
    result.emplace_back(as_text(record.payload()), position);
  });
  return result;
}

TEST(SessionStored, pending_records_are_shown_oldest_first_and_stay) {
  auto config = of_log();
  config.max_inflight = 3;
  ScriptedServer server(config);
  EXPECT_TRUE(shown(server.session).empty());
  server.connect();
  server.publish_stored("a", 11);
  server.publish_record("p", QoS::at_least_once);
  server.publish_stored("b", 12);
  server.flush();
  server.ack(PacketType::pubrec, 0x800b);
  server.publish_record("q", QoS::at_least_once);
  server.publish_stored("c", 14);
  const std::vector<Shown> all{{"a", 11}, {"p", std::nullopt}, {"b", 12}, {"q", std::nullopt}, {"c", 14}};
  EXPECT_EQ(shown(server.session), all);
  EXPECT_EQ(shown(server.session), all);
  EXPECT_EQ(server.session.oldest(), 1u);
  server.release(11);
  server.ack(PacketType::pubcomp, 0x800b);
  EXPECT_EQ(shown(server.session), std::vector(all.begin() + 1, all.end()));
  server.reconnect(false);
  EXPECT_EQ(shown(server.session), std::vector(all.begin() + 1, all.end()));
}

TEST(SessionStored, a_qos_0_message_in_the_middle_of_its_transmission_is_shown) {
  ScriptedServer server(of_log());
  server.connect();
  server.publish_record(std::string(1'000, 'x'), QoS::at_most_once);
  server.publish_stored("a", 1);
  std::byte part[100];
  EXPECT_EQ(server.session.transmit(part, server.now), 100u);
  ASSERT_EQ(shown(server.session).size(), 2u);
  EXPECT_EQ(shown(server.session)[0].first, std::string(1'000, 'x'));
}

TEST(SessionStored, records_of_every_stage_can_be_taken_and_given_again) {
  for (const auto version : both) {
    ScriptedServer server(of_log(version));
    server.connect();
    for (std::uint64_t i = 0; i < 3; ++i)
      server.publish_stored(std::string(1, static_cast<char>('a' + i)), i);
    server.flush();
    server.ack(PacketType::pubrec, 0x8000);
    server.ack(PacketType::pubrec, 0x8001);
    server.release(0);
    server.publish_stored("d", 3);
    std::vector<std::uint64_t> taken;
    server.session.take_all([&taken](RecordView record) { taken.push_back(record.header().token); });
    EXPECT_THAT(taken, ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(server.session.counts().in_flight, 0u);
    server.sent.clear();
    server.ack(PacketType::pubrec, 0x8002);
    server.ack(PacketType::pubcomp, 0x8000);
    EXPECT_TRUE(server.sent.empty()) << "the server must remember what comes again";
    EXPECT_TRUE(server.completed.empty());
    EXPECT_FALSE(server.session.release(1));
    server.publish_record("p", QoS::exactly_once);
    server.flush();
    server.ack(PacketType::pubrec, server.next_as<PublishView>().packet_id);
    EXPECT_EQ(server.sent.size(), 1u) << "its PUBREL waits for nobody any more";
    server.sent.clear();
    server.session.take_all([](RecordView) {});

    server.close();
    server.publish_stored("a", 0, Resumed::released);
    server.publish_stored("b", 1, Resumed::maybe_sent);
    server.publish_stored("c", 2, Resumed::maybe_sent);
    server.publish_stored("d", 3, Resumed::maybe_sent);
    server.connect(true);
    EXPECT_EQ(server.next_hex(), pubrel_hex("8000"));
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8001", 'b'));
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8002", 'c'));
    EXPECT_EQ(server.next_hex(), publish_hex(version, true, "8003", 'd'));
  }
}

}  // namespace
}  // namespace fulmar::mqtt
