// What bounds the messages to the server: the server's limits, expiry, buffers, the caller's side of the queue.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "mqtt/scripted_server.hpp"

namespace fulmar::mqtt {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

// --- limits ---------------------------------------------------------------------------------------------------------

class LimitBytes {
 public:
  LimitBytes(PropertyId id, std::uint32_t value) : size_(PropertyWriter(buffer_).add(id, value).size()) {}
  operator PropertiesView() const { return PropertiesView(BytesView(buffer_).first(size_)); }

 private:
  std::byte buffer_[8];
  std::size_t size_;
};

TEST(SessionLimits, the_servers_receive_maximum_is_never_exceeded_MQTT_3_3_4_7_MQTT_4_9_0_2) {
  for (const auto qos : {QoS::at_least_once, QoS::exactly_once}) {
    ScriptedServer server(persistent());
    server.connect(false, LimitBytes(PropertyId::receive_maximum, 3));
    for (int i = 0; i < 10; ++i) server.publish_record(std::to_string(i), qos);
    server.flush();
    EXPECT_EQ(payloads_of(server).size(), 3u);
    EXPECT_FALSE(server.session.wants_transmit());
    for (std::uint16_t done = 0; done < 10; ++done) {
      const std::uint16_t id =
          server.session.counts().in_flight > 0 ? std::uint16_t(done + 1) : std::uint16_t(0);
      ASSERT_NE(id, 0);
      if (qos == QoS::exactly_once) {
        server.ack(PacketType::pubrec, id);
        EXPECT_LE(server.session.counts().in_flight, 3u);
        server.ack(PacketType::pubcomp, id);
      } else {
        server.ack(PacketType::puback, id);
      }
      EXPECT_EQ(server.completed.size(), done + 1u);
      EXPECT_LE(server.session.counts().in_flight, 3u);
    }
  }
}

TEST(SessionLimits, our_own_window_holds_too) {
  auto config = persistent();
  config.max_inflight = 2;
  ScriptedServer server(config);
  server.connect();
  for (int i = 0; i < 5; ++i) server.publish_record("x", QoS::at_least_once);
  server.flush();
  EXPECT_EQ(server.sent.size(), 2u);
}

TEST(SessionLimits, a_window_that_shrank_across_a_reconnect_is_not_exceeded) {
  ScriptedServer server(persistent());
  server.connect();
  for (int i = 0; i < 5; ++i) server.publish_record(std::to_string(i), QoS::exactly_once);
  server.flush();
  for (std::uint16_t id = 1; id <= 2; ++id) server.ack(PacketType::pubrec, id);
  server.reconnect(true, LimitBytes(PropertyId::receive_maximum, 1));
  // The PUBRELs are no PUBLISHes, but their exchanges occupy the window.
  EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 01", "62 02 00 02"));
  server.ack(PacketType::pubcomp, 1);
  EXPECT_TRUE(server.sent.empty());
  server.ack(PacketType::pubcomp, 2);
  EXPECT_THAT(payloads_of(server), ElementsAre("dup:2"));
  server.ack(PacketType::pubrec, 3);
  server.ack(PacketType::pubcomp, 3);
  EXPECT_THAT(payloads_of(server), ElementsAre("62 02 00 03", "dup:3"));
}

TEST(SessionLimits, an_exhausted_window_delays_no_other_packet_MQTT_3_3_4_8_MQTT_4_9_0_3) {
  ScriptedServer server(persistent());
  server.connect(false, LimitBytes(PropertyId::receive_maximum, 1));
  server.publish_record("1", QoS::at_least_once);
  server.publish_record("2", QoS::at_least_once);
  server.flush();
  server.sent.clear();
  const SubscriptionRequest request{"a"};
  EXPECT_TRUE(server.session.subscribe({&request, 1}, 0, 1));
  server.acknowledges = true;
  server.publish("a", "b", QoS::at_least_once, 9);
  server.run_timeout();
  EXPECT_THAT(payloads_of(server), ElementsAre("82 07 00 02 00 00 01 61 00", "40 02 00 09", "c0 00"));
}

TEST(SessionLimits, what_the_server_cannot_take_is_refused_with_its_reason_and_blocks_nothing_MQTT_3_2_2_11) {
  ScriptedServer server(persistent());
  Bytes limits(64);
  PropertyWriter writer(limits);
  writer.add(PropertyId::maximum_packet_size, 30)
      .add(PropertyId::retain_available, 0)
      .add(PropertyId::maximum_qos, 1);
  server.connect(false, writer.view());
  server.publish_record(std::string(30, 'x'), QoS::at_least_once);  // [MQTT-3.2.2-15]
  server.publish_record("two", QoS::exactly_once);                  // [MQTT-3.2.2-11]
  RecordParts retained;                                             // [MQTT-3.2.2-14]
  retained.topic = "t";
  retained.retain = true;
  server.publish_record(retained);
  server.publish_record("fits", QoS::at_least_once);
  server.flush();
  EXPECT_THAT(payloads_of(server), ElementsAre("fits"));
  ASSERT_EQ(server.completed.size(), 3u);
  for (const auto& one : server.completed) EXPECT_EQ(one.outcome, Outcome::refused);
  EXPECT_EQ(server.completed[0].reason, ReasonCode::packet_too_large);
  EXPECT_EQ(server.completed[1].reason, ReasonCode::qos_not_supported);
  EXPECT_EQ(server.completed[2].reason, ReasonCode::retain_not_supported);
}

TEST(SessionLimits, a_refused_message_does_not_wait_for_the_window) {
  ScriptedServer server(persistent());
  Bytes limits(64);
  PropertyWriter writer(limits);
  writer.add(PropertyId::maximum_packet_size, 30).add(PropertyId::receive_maximum, 1);
  server.connect(false, writer.view());
  server.publish_record("1", QoS::at_least_once);
  server.publish_record(std::string(30, 'x'), QoS::at_least_once);
  server.flush();
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].sequence, 2u);
}

TEST(SessionLimits, a_packet_of_exactly_the_maximum_size_is_sent) {
  ScriptedServer server(persistent());
  server.connect(false, LimitBytes(PropertyId::maximum_packet_size, 30));
  server.publish_record(std::string(24, 'x'), QoS::at_most_once);
  server.publish_record(std::string(25, 'x'), QoS::at_most_once);
  server.flush();
  ASSERT_EQ(server.sent.size(), 1u);
  EXPECT_EQ(server.next().data.size(), 30u);
  EXPECT_EQ(server.completed.at(1).outcome, Outcome::refused);
}

TEST(SessionLimits, messages_in_flight_that_a_new_server_cannot_take_are_refused_there) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(std::string(30, 'x'), QoS::at_least_once);
  server.publish_record("small", QoS::at_least_once);
  server.flush();
  server.reconnect(true, LimitBytes(PropertyId::maximum_packet_size, 30));
  EXPECT_THAT(payloads_of(server), ElementsAre("dup:small"));
  ASSERT_EQ(server.completed.size(), 1u);
  EXPECT_EQ(server.completed[0].reason, ReasonCode::packet_too_large);
  EXPECT_EQ(server.session.oldest(), 2u);
}

TEST(SessionLimits, all_65535_identifiers_can_be_in_flight_and_come_back) {
  auto config = persistent();
  config.max_inflight = 65'535;
  ScriptedServer server(config);
  server.connect();
  const auto record = record_of("", QoS::at_least_once);
  std::size_t sent = 0;
  Bytes buffer(1 << 16);
  while (sent < 70'000) {
    std::size_t taken = 0;
    while (server.session.publish(record.view())) ++taken;
    sent += taken;
    while (server.session.transmit(buffer, server.now) != 0) {
    }
    if (taken == 0) break;
  }
  EXPECT_EQ(server.session.counts().in_flight, 65'535u);
  EXPECT_EQ(server.session.counts().queued, sent - 65'535);
  const SubscriptionRequest request{"a"};
  EXPECT_FALSE(server.session.subscribe({&request, 1}, 0, 1));  // no identifier is free
  for (unsigned id = 1; id <= 65'535; ++id) {
    const Bytes puback{std::byte{0x40}, std::byte{2}, static_cast<std::byte>(id >> 8),
                       static_cast<std::byte>(id)};
    server.session.receive(puback, server.now);
    server.drain();
  }
  EXPECT_EQ(server.completed.size(), 65'535u);
  EXPECT_EQ(server.session.counts().in_flight, 0u);
}

// --- expiry ---------------------------------------------------------------------------------------------------------

RecordParts expiring(ScriptedServer& server, std::string_view payload, QoS qos, std::uint32_t expiry_s) {
  RecordParts parts;
  parts.topic = "t";
  parts.payload = as_bytes(payload);
  parts.qos = qos;
  parts.expiry_s = expiry_s;
  parts.accepted_ns = std::chrono::nanoseconds(server.now.time_since_epoch()).count();
  return parts;
}

TEST(SessionExpiry, what_expired_while_it_waited_is_not_sent) {
  for (const auto& config : {persistent(), persistent(ProtocolVersion::v3_1_1)}) {
    ScriptedServer server(config);
    server.publish_record(expiring(server, "old", QoS::at_least_once, 5));
    server.publish_record(expiring(server, "young", QoS::at_least_once, 500));
    server.publish_record("ageless", QoS::at_least_once);
    server.pass(5s);
    server.connect();
    EXPECT_THAT(payloads_of(server), ElementsAre("young", "ageless"));
    ASSERT_EQ(server.completed.size(), 1u);
    EXPECT_EQ(server.completed[0].outcome, Outcome::expired);
    EXPECT_EQ(server.completed[0].sequence, 1u);
  }
}

TEST(SessionExpiry, is_counted_down_at_each_transmission_but_what_was_sent_does_not_expire_MQTT_4_3_3_7) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(expiring(server, "x", QoS::exactly_once, 100));
  server.pass(30s);
  server.flush();
  EXPECT_EQ(server.next_as<PublishView>().properties.number(PropertyId::message_expiry_interval, 0), 70u);
  server.pass(60s);
  server.reconnect(true);
  EXPECT_EQ(server.next_as<PublishView>().properties.number(PropertyId::message_expiry_interval, 0), 10u);
  server.pass(600s);
  server.reconnect(true);
  EXPECT_EQ(server.next_as<PublishView>().properties.number(PropertyId::message_expiry_interval, 0), 1u);
  EXPECT_TRUE(server.completed.empty());
  server.ack(PacketType::pubrec, 1);
  server.ack(PacketType::pubcomp, 1);
  EXPECT_EQ(server.completed.at(0).outcome, Outcome::acknowledged);
}

TEST(SessionExpiry, of_an_old_record_and_the_longest_interval_does_not_overflow) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(expiring(server, "x", QoS::at_most_once, 0xfffffffe));
  server.pass(std::chrono::hours(24 * 365 * 20));
  server.flush();
  EXPECT_EQ(server.next_as<PublishView>().properties.number(PropertyId::message_expiry_interval, 0),
            0xfffffffe - 24u * 365 * 20 * 3600);
}

// --- big messages ---------------------------------------------------------------------------------------------------

TEST(SessionTransmit, any_buffer_size_gives_the_same_bytes) {
  Bytes expected;
  for (const std::size_t size : {65'536u, 16u, 17u, 100u, 1'000u}) {
    ScriptedServer server(persistent());
    server.write_size = size;
    server.connect();
    for (int i = 0; i < 20; ++i) {
      server.publish_record(std::string(static_cast<std::size_t>(i * 37), 'a'), static_cast<QoS>(i % 3),
                            "topic/of/some/length");
      if (i % 7 == 0) server.flush();
    }
    server.flush();
    Bytes all;
    while (!server.sent.empty()) all = all + server.next().data;
    if (expected.empty()) expected = all;
    EXPECT_EQ(hex(all), hex(expected)) << size;
    EXPECT_EQ(server.completed.size(), 7u);
  }
}

TEST(SessionTransmit, a_shared_payload_is_sent_from_where_it_is_and_released_at_the_end) {
  ScriptedServer server(persistent());
  server.connect();
  auto* shared = new SharedPayload;
  shared->size = 1'000'000;
  shared->bytes = std::make_unique<std::byte[]>(shared->size);
  std::fill_n(shared->bytes.get(), shared->size, std::byte{0x5a});
  shared->acquire();  // ours
  RecordParts parts;
  parts.topic = "big";
  parts.shared = shared;
  parts.qos = QoS::at_least_once;
  server.publish_record(parts);
  EXPECT_EQ(server.session.publish_room(), 0u);  // by bytes
  server.flush();
  const auto publish = server.next_as<PublishView>();
  EXPECT_EQ(publish.payload.size(), 1'000'000u);
  EXPECT_TRUE(std::ranges::all_of(publish.payload, [](std::byte b) { return b == std::byte{0x5a}; }));
  EXPECT_EQ(shared->owners.load(), 2u);
  server.ack(PacketType::puback, publish.packet_id);
  EXPECT_EQ(shared->owners.load(), 1u);
  shared->release();
}

TEST(SessionTransmit, a_packet_cut_by_the_end_of_the_connection_is_sent_again) {
  for (const auto qos : {QoS::at_most_once, QoS::at_least_once}) {
    ScriptedServer server(persistent());
    server.connect();
    server.publish_record(std::string(1000, 'x'), qos);
    server.publish_record("next", qos);
    Bytes buffer(100);
    EXPECT_EQ(server.session.transmit(buffer, server.now), 100u);
    EXPECT_EQ(server.session.oldest(), 1u);
    EXPECT_TRUE(server.completed.empty());
    server.reconnect(true);
    EXPECT_EQ(server.next_as<PublishView>().payload.size(), 1000u);
    EXPECT_EQ(as_text(server.next_as<PublishView>().payload), "next");
  }
}

TEST(SessionTransmit, other_packets_never_cut_into_a_publish_and_an_early_answer_is_ignored) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(std::string(1000, 'x'), QoS::at_least_once);
  Bytes buffer(100);
  EXPECT_EQ(server.session.transmit(buffer, server.now), 100u);
  const SubscriptionRequest request{"a"};
  EXPECT_TRUE(server.session.subscribe({&request, 1}, 0, 1));
  const auto puback = bytes("40 02 0001");
  server.session.receive(puback, server.now);
  server.drain();
  EXPECT_TRUE(server.completed.empty());
  EXPECT_EQ(server.session.counts().answers_ignored, 1u);
  Bytes rest(2000);
  const auto size = server.session.transmit(rest, server.now);
  rest.resize(size);
  EXPECT_EQ(size, 1009u - 100 + 9);
  EXPECT_EQ(rest[908], std::byte{'x'});
  EXPECT_EQ(rest[size - 9], std::byte{0x82});
}

TEST(SessionTransmit, a_violation_in_the_middle_of_a_packet_ends_without_disconnect) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(std::string(1000, 'x'), QoS::at_most_once);
  Bytes buffer(100);
  server.session.transmit(buffer, server.now);
  const auto reserved = bytes("00 00");
  server.session.receive(reserved, server.now);
  server.drain();
  ASSERT_EQ(server.closings.size(), 1u);
  EXPECT_TRUE(server.session.should_close());
  EXPECT_EQ(server.session.transmit(buffer, server.now), 0u);
  EXPECT_EQ(server.session.counts().queued, 1u);
}

// --- the caller's side ----------------------------------------------------------------------------------------------

TEST(SessionRoom, keeps_the_window_full_and_the_rest_with_the_caller) {
  auto config = persistent();
  config.max_inflight = 10;
  ScriptedServer server(config);
  const auto record = record_of("", QoS::at_least_once);
  std::size_t taken = 0;
  while (server.session.publish(record.view())) ++taken;
  EXPECT_EQ(taken, 256u);
  EXPECT_EQ(server.session.publish_room(), 0u);
  server.connect();
  EXPECT_EQ(server.session.counts().in_flight, 10u);
  EXPECT_EQ(server.session.publish_room(), 10u);
}

TEST(SessionRoom, is_bounded_by_bytes_but_takes_one_record_of_any_size) {
  ScriptedServer server(persistent());
  const std::string payload(300'000, 'x');
  const auto record = record_of(payload, QoS::at_most_once);
  EXPECT_TRUE(server.session.publish(record.view()));
  EXPECT_FALSE(server.session.publish(record.view()));
}

TEST(SessionTakeAll, hands_over_everything_oldest_first_and_holds_nothing) {
  ScriptedServer server(persistent());
  server.connect(false, LimitBytes(PropertyId::receive_maximum, 2));
  auto* shared = new SharedPayload;
  shared->acquire();
  for (int i = 0; i < 3; ++i) server.publish_record(std::to_string(i), QoS::exactly_once);
  RecordParts parts;
  parts.topic = "s";
  parts.shared = shared;
  server.publish_record(parts);
  server.flush();
  server.ack(PacketType::pubrec, 1);
  std::vector<std::uint64_t> sequences;
  server.session.take_all([&](RecordView record) { sequences.push_back(record.header().sequence); });
  EXPECT_THAT(sequences, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(server.session.counts().queued + server.session.counts().in_flight, 0u);
  EXPECT_EQ(server.session.oldest(), std::nullopt);
  EXPECT_EQ(shared->owners.load(), 1u);
  shared->release();
}

TEST(SessionTakeAll, in_the_middle_of_a_packet_closes_the_connection) {
  ScriptedServer server(persistent());
  server.connect();
  server.publish_record(std::string(1000, 'x'), QoS::at_most_once);
  server.publish_record("y", QoS::at_least_once);
  Bytes buffer(100);
  server.session.transmit(buffer, server.now);
  std::vector<std::uint64_t> sequences;
  server.session.take_all([&](RecordView record) { sequences.push_back(record.header().sequence); });
  EXPECT_THAT(sequences, ElementsAre(1, 2));
  EXPECT_TRUE(server.session.should_close());
}

TEST(SessionOldest, is_what_waits_longest_for_its_outcome) {
  ScriptedServer server(persistent());
  EXPECT_EQ(server.session.oldest(), std::nullopt);
  server.publish_record("1", QoS::at_least_once);
  server.publish_record("2", QoS::exactly_once);
  server.publish_record("3", QoS::at_least_once);
  EXPECT_EQ(server.session.oldest(), 1u);
  server.connect();
  EXPECT_EQ(server.session.oldest(), 1u);
  server.ack(PacketType::pubrec, 2);
  server.ack(PacketType::puback, 1);
  EXPECT_EQ(server.session.oldest(), 2u);
  server.ack(PacketType::puback, 3);
  EXPECT_EQ(server.session.oldest(), 2u);
  server.ack(PacketType::pubcomp, 2);
  EXPECT_EQ(server.session.oldest(), std::nullopt);
}

}  // namespace
}  // namespace fulmar::mqtt
