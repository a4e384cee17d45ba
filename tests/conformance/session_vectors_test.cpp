// Packets and conversations through a Session, arriving whole, byte by byte and split at every place.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/conformance/cases.hpp"
#include "tests/conformance/codec_probe.hpp"
#include "tests/conformance/conversation.hpp"
#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

constexpr auto v5 = ProtocolVersion::v5;

// Runs it in all ways of arriving; all give what the first one gives.
Transcript run_in_all_pieces(const Conversation& conversation, ProtocolVersion version, Cases& cases) {
  const auto whole = run(conversation, version, {});
  ++cases;
  const auto size = server_bytes(conversation);
  for (const std::size_t piece : {1u, 2u, 3u, 7u}) {
    ++cases;
    EXPECT_EQ(run(conversation, version, {.size = piece}), whole) << "in pieces of " << piece;
  }
  for (std::size_t at = 1; at < size; ++at) {
    ++cases;
    EXPECT_EQ(run(conversation, version, {.split_at = at}), whole) << "split at " << at;
  }
  return whole;
}

TEST(Conversations, have_the_outcome_that_stands_in_the_file_however_the_bytes_arrive) {
  Cases cases("conversations");
  for (const auto& conversation : conversations()) {
    SCOPED_TRACE(conversation.where + ' ' + conversation.name);
    for (const auto version : conversation.versions) {
      const auto transcript = run_in_all_pieces(conversation, version, cases);
      EXPECT_EQ(transcript.events, conversation.events);
      EXPECT_EQ(transcript.sent, hex(conversation.sends));
      EXPECT_EQ(transcript.closes, conversation.closes);
    }
  }
}

TEST(Conversations, cover_every_rule_that_only_a_session_sees) {
  for (auto error = DecodeError::packet_unexpected; error < DecodeError::acknowledgements_flood;
       error = static_cast<DecodeError>(static_cast<int>(error) + 1)) {
    const auto text = "violation " + std::string(name_of(error)) + ' ';
    EXPECT_TRUE(std::ranges::any_of(conversations(), [&](const Conversation& c) {
      return std::ranges::any_of(c.events, [&](const std::string& event) { return event.starts_with(text); });
    })) << text;
  }
}

// A session that waits for such a packet.
Conversation around(const PacketVector& vector, ProtocolVersion version) {
  Conversation conversation;
  const auto type = static_cast<PacketType>(static_cast<unsigned>(vector.wire[0]) >> 4);
  conversation.config = {"persistent", "topic_alias_maximum=65535"};
  const bool with_method = vector.meaning.find("authentication_method=\"M\"") != std::string::npos;
  if (type == PacketType::connack) {
    conversation.config.push_back("raw");
    if (with_method) conversation.config.push_back("method=M");
  }
  if (type == PacketType::auth && version == v5) {
    conversation.config.push_back("raw");
    conversation.config.push_back("method=M");
    if (!vector.meaning.starts_with("AUTH code=0x18")) {
      conversation.steps.push_back({{}, bytes("20 07 00 00 04 15 0001 'M'")});
      conversation.steps.push_back({{"reauthenticate", "r"}, {}});
    }
  }
  conversation.steps.push_back({{}, vector.wire});
  return conversation;
}

bool is_servers(const PacketVector& vector, ProtocolVersion version) {
  return std::ranges::count(vector.senders, Sender::server) != 0 &&
         std::ranges::count(vector.versions, version) != 0;
}

TEST(SessionVectors,
     every_invalid_packet_of_a_server_ends_the_connection_with_its_reason_MQTT_4_8_0_1_MQTT_4_13_2_1) {
  Cases cases("invalid packets through a session");
  for (const auto& vector : packet_vectors()) {
    for (const auto version : {ProtocolVersion::v3_1_1, v5}) {
      if (vector.error == DecodeError::none || !is_servers(vector, version)) continue;
      SCOPED_TRACE(vector.where + ' ' + vector.name + (version == v5 ? " 5" : " 3.1.1"));
      const auto transcript = run_in_all_pieces(around(vector, version), version, cases);
      ASSERT_FALSE(transcript.events.empty());
      EXPECT_EQ(transcript.events.back(),
                "violation " + std::string(name_of(vector.error)) + ' ' + hex_byte(vector.reason));
      EXPECT_TRUE(transcript.closes);
      // 5.0 says why in a DISCONNECT, the last packet; 3.1.1 just closes.
      const auto disconnect = "e0 01 " + hex_byte(vector.reason).substr(2);
      EXPECT_EQ(transcript.sent.ends_with(disconnect), version == v5) << transcript.sent;
      if (version != v5) {
        EXPECT_EQ(transcript.sent, "");
      }
    }
  }
}

TEST(SessionVectors, every_valid_packet_of_a_server_is_taken) {
  Cases cases("valid packets through a session");
  for (const auto& vector : packet_vectors()) {
    for (const auto version : {ProtocolVersion::v3_1_1, v5}) {
      if (vector.error != DecodeError::none || !is_servers(vector, version)) continue;
      SCOPED_TRACE(vector.where + ' ' + vector.name + (version == v5 ? " 5" : " 3.1.1"));
      const auto transcript = run_in_all_pieces(around(vector, version), version, cases);
      const auto last = transcript.events.empty() ? "" : transcript.events.back();
      const auto type = static_cast<PacketType>(static_cast<unsigned>(vector.wire[0]) >> 4);
      if (type == PacketType::connack) {
        const bool accepted = vector.meaning.find("code=0x00") != std::string::npos;
        EXPECT_TRUE(last.starts_with(accepted ? "connected" : "refused")) << last;
        EXPECT_EQ(transcript.closes, !accepted);
      } else if (type == PacketType::publish) {
        EXPECT_EQ(last, "received " + vector.meaning);
      } else if (type == PacketType::disconnect) {
        EXPECT_EQ(last.substr(0, 17), "server_disconnect");
        EXPECT_TRUE(transcript.closes);
      } else if (type == PacketType::auth &&
                 vector.meaning.find("authentication_method") == std::string::npos) {
        EXPECT_EQ(last, "violation auth_method_differs 0x82");  // [MQTT-4.12.0-5]
      } else if (type == PacketType::auth) {
        EXPECT_EQ(last, "authentication" + vector.meaning.substr(4));
      } else {
        EXPECT_EQ(last, "");  // an acknowledgement of nothing
      }
      if (type != PacketType::connack && type != PacketType::disconnect && !last.starts_with("violation")) {
        EXPECT_FALSE(transcript.closes);
      }
    }
  }
}

TEST(SessionVectors, a_thousand_packets_in_one_segment_are_a_thousand_packets_one_by_one) {
  Conversation conversation;
  conversation.steps.emplace_back();
  auto& stream = conversation.steps[0].server;
  for (unsigned i = 1; i <= 1'000; ++i) {
    const Bytes id{static_cast<std::byte>(i >> 8), static_cast<std::byte>(i)};
    const auto payload = string_field(std::string(i % 50, 'x'));
    switch (i % 4) {
      case 0: stream = stream + framed(std::byte{0x30}, bytes("0001 'a' 00") + payload); break;
      case 1:
        stream = stream + framed(std::byte{0x32}, bytes("0001 'a'") + id + bytes("00") + payload);
        break;
      case 2:
        stream = stream + framed(std::byte{0x34}, bytes("0001 'a'") + id + bytes("00") + payload);
        break;
      default: stream = stream + bytes("d0 00"); break;
    }
  }
  const auto whole = run(conversation, v5, {});
  EXPECT_EQ(whole.events.size(), 750u);
  EXPECT_FALSE(whole.closes);
  EXPECT_EQ(run(conversation, v5, {.size = 1}), whole);
  EXPECT_EQ(run(conversation, v5, {.size = 1460}), whole);
}

TEST(SessionVectors, valid_packets_one_behind_the_other_are_taken_like_each_alone) {
  for (const auto version : {ProtocolVersion::v3_1_1, v5}) {
    Conversation all;
    all.config = {"topic_alias_maximum=65535"};
    all.steps.emplace_back();
    std::vector<std::string> expected;
    for (const auto& vector : packet_vectors()) {
      const auto type = static_cast<PacketType>(static_cast<unsigned>(vector.wire[0]) >> 4);
      if (vector.error != DecodeError::none || !is_servers(vector, version)) continue;
      if (type == PacketType::connack || type == PacketType::disconnect || type == PacketType::auth) continue;
      all.steps[0].server = all.steps[0].server + vector.wire;
      if (type == PacketType::publish) expected.push_back("received " + vector.meaning);
    }
    const auto whole = run(all, version, {});
    EXPECT_EQ(whole.events, expected);
    EXPECT_FALSE(whole.closes);
    for (const std::size_t piece : {1u, 2u, 5u, 64u}) EXPECT_EQ(run(all, version, {.size = piece}), whole);
  }
}

}  // namespace
}  // namespace fulmar::mqtt
