// The codec by its bytes: every packet type of both versions and directions, field by field.
#include "fulmar/mqtt/codec.hpp"

#include <gtest/gtest.h>

#include <string>

#include "mqtt/scripted_server.hpp"
#include "mqtt/wire_text.hpp"

namespace fulmar::mqtt {
namespace {

constexpr auto v3 = ProtocolVersion::v3_1_1;
constexpr auto v5 = ProtocolVersion::v5;
using enum DecodeError;

DecodeError decode_all(BytesView data, ProtocolVersion version, Sender sender, PacketView& view) {
  Frame frame;
  if (const auto error = next_frame(data, version, no_packet_limit, frame); error != none) return error;
  if (frame.size != data.size()) return truncated;
  return decode(frame, version, sender, view);
}

Bytes encode_all(const PacketView& view, ProtocolVersion version) {
  Bytes data(encoded_size(view, version));
  EXPECT_EQ(encode(data, view, version), data.size());
  return data;
}

// --- what is valid --------------------------------------------------------------------------------------------------

struct Valid {
  const char* what;
  ProtocolVersion version;
  Sender sender;
  const char* packet;
};

const Valid valid[] = {
    {"CONNECT, least", v3, Sender::client, "10 (0004 'MQTT' 04 02 0000 0000)"},
    {"CONNECT, least 5.0", v5, Sender::client, "10 (0004 'MQTT' 05 00 0000 00 0000)"},
    {"CONNECT, all", v3, Sender::client,
     "10 (0004 'MQTT' 04 f6 000a 0001 'c' 0001 'w' 0001 'm' 0001 'u' 0001 'p')"},
    {"CONNECT, password alone [MQTT-3.1.2-19]", v5, Sender::client,
     "10 (0004 'MQTT' 05 42 0000 00 0000 0001 ff)"},
    {"CONNECT, all properties", v5, Sender::client,
     "10 (0004 'MQTT' 05 02 003c (11 00000001 21 0001 27 00000001 22 0000 19 01 17 00 15 0001 'm' 16 0002 "
     "00ff "
     "26 0001 'k' 0000 26 0001 'k' 0001 'v') 0002 'id')"},
    {"CONNECT, will with all properties", v5, Sender::client,
     "10 (0004 'MQTT' 05 0e 0000 00 0000 (18 00000005 01 01 02 0000000a 03 0001 't' 08 0001 'r' 09 0001 00 "
     "26 0000 0000) 0001 'w' 0000)"},
    {"CONNACK", v3, Sender::server, "20 (01 00)"},
    {"CONNACK, refused", v3, Sender::server, "20 (00 05)"},
    {"CONNACK, least 5.0", v5, Sender::server, "20 (00 00 00)"},
    {"CONNACK, refused 5.0", v5, Sender::server, "20 (00 9f 00)"},
    {"CONNACK, all properties", v5, Sender::server,
     "20 (01 00 (11 00000000 21 ffff 24 00 25 01 27 ffffffff 12 0001 'a' 22 ffff 1f 0001 'r' 26 0001 'k' "
     "0001 'v' "
     "28 01 29 00 2a 01 13 0000 1a 0001 'i' 1c 0001 's' 15 0001 'm' 16 0001 'd'))"},
    {"PUBLISH, QoS 0", v3, Sender::client, "30 (0001 'a')"},
    {"PUBLISH, QoS 2 dup retain", v3, Sender::server, "3d (0003 'a/b' 1234 'xy')"},
    {"PUBLISH, byte order mark is data [MQTT-1.5.3-3]", v3, Sender::server, "30 (0004 efbbbf 'a')"},
    {"PUBLISH, four bytes of UTF-8", v5, Sender::server, "30 (0004 f09f92a9 00)"},
    {"PUBLISH, empty topic with alias", v5, Sender::server, "30 (0000 03 23 0001 'x')"},
    {"PUBLISH, all properties of a server", v5, Sender::server,
     "32 (0001 't' ffff (01 00 02 ffffffff 23 ffff 08 0001 'r' 09 0000 26 0001 'k' 0001 'v' 0b 01 0b "
     "ffffff7f "
     "03 0002 'ct') 'body')"},
    {"PUBACK", v3, Sender::server, "40 (0001)"},
    {"PUBREC", v3, Sender::client, "50 (ffff)"},
    {"PUBREL", v3, Sender::client, "62 (0001)"},
    {"PUBCOMP", v3, Sender::server, "70 (0001)"},
    {"PUBACK 5.0", v5, Sender::server, "40 (0001)"},
    {"PUBACK with reason", v5, Sender::server, "40 (0001 10)"},
    {"PUBACK with properties", v5, Sender::server, "40 (0001 00 0b 1f 0001 'r' 26 0001 'k' 0001 'v')"},
    {"PUBREC with reason", v5, Sender::server, "50 (0001 99)"},
    {"PUBREL with properties", v5, Sender::client, "62 (0001 92 04 1f 0001 'r')"},
    {"PUBCOMP with reason", v5, Sender::server, "70 (0001 92)"},
    {"SUBSCRIBE", v3, Sender::client, "82 (0001 0001 'a' 00 0002 '/#' 02)"},
    {"SUBSCRIBE 5.0", v5, Sender::client, "82 (0001 (0b ff01 26 0000 0000) 0003 'a/+' 2d 0001 'b' 12)"},
    {"SUBACK", v3, Sender::server, "90 (0001 00 01 02 80)"},
    {"SUBACK 5.0", v5, Sender::server, "90 (0001 04 1f 0001 'r' 00 01 02 80 83 87 8f a2)"},
    {"UNSUBSCRIBE", v3, Sender::client, "a2 (0001 0001 'a' 0001 'b')"},
    {"UNSUBSCRIBE 5.0", v5, Sender::client, "a2 (0001 05 26 0000 0000 0003 'a/#')"},
    {"UNSUBACK", v3, Sender::server, "b0 (0001)"},
    {"UNSUBACK 5.0", v5, Sender::server, "b0 (0001 00 00 11)"},
    {"PINGREQ", v3, Sender::client, "c0 ()"},
    {"PINGRESP", v5, Sender::server, "d0 ()"},
    {"DISCONNECT", v3, Sender::client, "e0 ()"},
    {"DISCONNECT 5.0", v5, Sender::server, "e0 ()"},
    {"DISCONNECT with reason", v5, Sender::server, "e0 (8e)"},
    {"DISCONNECT of a client with session expiry", v5, Sender::client, "e0 (00 05 11 00000001)"},
    {"DISCONNECT of a server with reference", v5, Sender::server, "e0 (9d 08 1c 0001 's' 1f 0001 'r')"},
    {"AUTH, least", v5, Sender::server, "f0 ()"},
    {"AUTH", v5, Sender::client, "f0 (19 08 15 0001 'm' 16 0001 'd')"},
};

void PrintTo(const Valid& one, std::ostream* out) { *out << one.packet; }

class CodecValid : public testing::TestWithParam<Valid> {};

TEST_P(CodecValid, is_accepted_and_encodes_to_the_same_bytes) {
  const auto& one = GetParam();
  const auto data = bytes(one.packet);
  PacketView view;
  const auto error = decode_all(data, one.version, one.sender, view);
  ASSERT_EQ(error, none) << to_string(error);
  EXPECT_EQ(hex(encode_all(view, one.version)), hex(data));
  Bytes small(data.size() - 1);
  EXPECT_EQ(encode(small, view, one.version), 0u);
}

TEST_P(CodecValid, needs_more_bytes_until_the_last_one_is_there) {
  const auto& one = GetParam();
  const auto data = bytes(one.packet);
  for (std::size_t size = 0; size < data.size(); ++size) {
    Frame frame;
    ASSERT_EQ(next_frame(BytesView(data).first(size), one.version, no_packet_limit, frame), none);
    EXPECT_EQ(frame.size, 0u);
    EXPECT_EQ(frame.expected, size < 2 ? 0 : data.size());
  }
  const auto two = data + data;
  Frame frame;
  ASSERT_EQ(next_frame(two, one.version, no_packet_limit, frame), none);
  EXPECT_EQ(frame.size, data.size());
}

TEST_P(CodecValid, with_another_reserved_flag_is_refused_MQTT_2_1_3_1_MQTT_2_2_2_1) {
  const auto& one = GetParam();
  auto data = bytes(one.packet);
  if ((data[0] & std::byte{0xf0}) == std::byte{0x30}) return;
  for (unsigned bit = 1; bit < 16; bit <<= 1) {
    auto other = data;
    other[0] ^= static_cast<std::byte>(bit);
    PacketView view;
    EXPECT_EQ(decode_all(other, one.version, one.sender, view), header_flags_reserved);
  }
}

// Shorter and longer bodies are either another packet, which encodes to itself, or refused.
TEST_P(CodecValid, cut_or_extended_means_what_its_bytes_say) {
  const auto& one = GetParam();
  const auto data = bytes(one.packet);
  const auto check = [&](Bytes changed) {
    changed[1] = static_cast<std::byte>(changed.size() - 2);
    PacketView view;
    if (decode_all(changed, one.version, one.sender, view) != none) return false;
    PacketView again;
    const auto encoded = encode_all(view, one.version);
    EXPECT_EQ(decode_all(encoded, one.version, one.sender, again), none);
    EXPECT_EQ(hex(encode_all(again, one.version)), hex(encoded));
    return true;
  };
  for (std::size_t size = 2; size < data.size(); ++size)
    check(Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(size)));
  const auto type = static_cast<PacketType>(data[0] >> 4);
  const bool open_end = type == PacketType::publish || type == PacketType::subscribe ||
                        type == PacketType::suback || type == PacketType::unsubscribe ||
                        type == PacketType::unsuback;
  // Nothing may follow where the last field has its end; a 5.0 acknowledgement without properties has room for them.
  const bool accepted = check(data + Bytes{std::byte{0xff}});
  EXPECT_FALSE(accepted && !open_end);
}

TEST_P(CodecValid, every_changed_byte_is_refused_or_another_valid_packet) {
  const auto& one = GetParam();
  const auto data = bytes(one.packet);
  for (std::size_t at = 2; at < data.size(); ++at) {
    for (unsigned value = 0; value < 256; ++value) {
      auto changed = data;
      changed[at] = static_cast<std::byte>(value);
      PacketView view;
      if (decode_all(changed, one.version, one.sender, view) != none) continue;
      PacketView again;
      const auto encoded = encode_all(view, one.version);
      ASSERT_EQ(decode_all(encoded, one.version, one.sender, again), none) << hex(changed);
      ASSERT_EQ(hex(encode_all(again, one.version)), hex(encoded));
    }
  }
}

std::string name_of(std::string_view what) {
  std::string name;
  for (const char c : what) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += c;
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  while (name.back() == '_') name.pop_back();
  return name;
}

INSTANTIATE_TEST_SUITE_P(Packets, CodecValid, testing::ValuesIn(valid), [](const auto& one) {
  return name_of(one.param.what) + (one.param.version == v5 ? "_v5" : "_v3");
});

TEST(CodecValidForms, longer_forms_of_the_same_packet_are_read_and_written_short) {
  const struct {
    const char* longer;
    const char* shorter;
  } forms[] = {
      {"40 03 0001 00", "40 02 0001"},
      {"40 04 0001 00 00", "40 02 0001"},
      {"62 04 0001 92 00", "62 03 0001 92"},
      {"e0 01 00", "e0 00"},
      {"e0 02 00 00", "e0 00"},
      {"e0 02 8b 00", "e0 01 8b"},
      {"f0 02 00 00", "f0 00"},
  };
  for (const auto& form : forms) {
    PacketView view;
    ASSERT_EQ(decode_all(bytes(form.longer), v5, Sender::server, view), none) << form.longer;
    EXPECT_EQ(hex(encode_all(view, v5)), hex(bytes(form.shorter)));
  }
}

// --- what is not ----------------------------------------------------------------------------------------------------

struct Invalid {
  const char* packet;
  DecodeError error;
  ProtocolVersion version = v5;
  Sender sender = Sender::client;
};

const Invalid invalid[] = {
    {"10 (0004 'MQTX' 05 02 0000 00 0000)", protocol_name_unknown},  // [MQTT-3.1.2-1]
    {"10 (0006 'MQIsdp' 03 02 0000 0000)", protocol_name_unknown},
    {"10 (0004 'MQTT' 06 02 0000 00 0000)", protocol_version_unknown},
    {"10 (0004 'MQTT' 05 03 0000 00 0000)", connect_flags_reserved},              // [MQTT-3.1.2-3]
    {"10 (0004 'MQTT' 05 0a 0000 00 0000)", will_flags_without_will},             // [MQTT-3.1.2-11]
    {"10 (0004 'MQTT' 05 22 0000 00 0000)", will_flags_without_will},             // [MQTT-3.1.2-13]
    {"10 (0004 'MQTT' 04 12 0000 0000)", will_flags_without_will, v3},            // [MQTT-3.1.2-15]
    {"10 (0004 'MQTT' 05 1e 0000 00 0000 00 0001 'w' 0000)", will_qos_reserved},  // [MQTT-3.1.2-12]
    {"10 (0004 'MQTT' 04 42 0000 0000 0000)", password_without_username, v3},     // [MQTT-3.1.2-22]
    {"10 (0004 'MQTT' 04 00 0000 0000)", client_id_empty, v3},                    // [MQTT-3.1.3-7]
    {"10 (0004 'MQTT' 05 82 0000 00 0000)", truncated},                           // [MQTT-3.1.2-17]
    {"10 (0004 'MQTT' 05 06 0000 00 0000)", truncated},                           // [MQTT-3.1.2-9]
    {"10 (0004 'MQTT' 05 02 0000 00 0000 0000)", trailing_bytes},                 // [MQTT-3.1.2-16]
    {"10 (0004 'MQTT' 05 06 0000 00 0000 00 0000 0000)", topic_empty},
    {"10 (0004 'MQTT' 05 06 0000 00 0000 00 0001 '#' 0000)", topic_contains_wildcard},
    {"10 (0004 'MQTT' 05 02 0000 00 0001 ff)", string_not_utf8},            // [MQTT-3.1.3-4]
    {"10 (0004 'MQTT' 05 82 0000 00 0000 0001 00)", string_contains_null},  // [MQTT-3.1.3-12]
    {"10 (0004 'MQTT' 05 02 0000 04 16 0001 'd' 0000)", authentication_data_without_method},
    {"82 (0001 00 0001 'a')", truncated},
    {"82 (0001 00)", no_filters},   // [MQTT-3.8.3-2]
    {"82 (0001)", no_filters, v3},  // [MQTT-3.8.3-3]
    {"82 (0000 00 0001 'a' 00)", packet_id_zero},
    {"82 (0001 00 0001 'a' 03)", subscription_qos_reserved},
    {"82 (0001 00 0001 'a' 40)", subscription_options_reserved},  // [MQTT-3.8.3-5]
    {"82 (0001 00 0001 'a' 30)", retain_handling_reserved},
    {"82 (0001 0001 'a' 04)", subscription_options_reserved, v3},  // [MQTT-3-8.3-4]
    {"82 (0001 0001 'a' 03)", subscription_qos_reserved, v3},
    {"82 (0001 00 000a '$share/g/a' 04)", no_local_on_shared},  // [MQTT-3.8.3-4]
    {"82 (0001 00 0000 00)", filter_invalid},
    {"82 (0001 00 0002 'a#' 00)", filter_invalid},
    {"82 (0001 00 0001 ff 00)", string_not_utf8},  // [MQTT-3.8.3-1]
    {"82 (0001 02 0b00 0001 'a' 00)", property_value_invalid},
    {"82 (0001 04 0b01 0b02 0001 'a' 00)", property_repeated},
    {"a2 (0001 00)", no_filters},               // [MQTT-3.10.3-2]
    {"a2 (0001 00 0001 ff)", string_not_utf8},  // [MQTT-3.10.3-1]
    {"a2 (0001 00 0001)", truncated},
    {"c0 (00)", trailing_bytes},
    {"e0 (00)", trailing_bytes, v3},
    {"e0 (8b)", reason_code_unknown},  // a server's code
    {"e0 (00 04 1c 0001 's')", property_of_other_side},
    {"30 (0001 'a' 02 0b01)", property_of_other_side},  // [MQTT-3.3.4-6]
    {"f0 ()", reason_code_unknown},                     // [MQTT-3.15.2-1]
    {"30 (0001 'a' 81808000)", integer_not_minimal},
    {"30 (0001 'a' 8080808001)", integer_over_four_bytes},
    {"30 (0001 'a' 8000)", integer_not_minimal},
    {"30 (0001 'a' 80)", truncated},
};

TEST(CodecInvalid, each_broken_rule_has_its_error) {
  for (const auto& one : invalid) {
    PacketView view;
    const auto error = decode_all(bytes(one.packet), one.version, one.sender, view);
    EXPECT_EQ(error, one.error) << one.packet << ": " << to_string(error);
  }
}

TEST(CodecInvalid, every_error_has_a_text_a_clause_and_a_reason) {
  for (unsigned i = 1; i <= static_cast<unsigned>(acknowledgements_flood); ++i) {
    const auto error = static_cast<DecodeError>(i);
    EXPECT_NE(to_string(error), "no error") << i;
    EXPECT_TRUE(clause_of(error).starts_with("MQTT")) << i;
    EXPECT_GE(reason_for(error), ReasonCode::unspecified_error) << i;
  }
  EXPECT_EQ(to_string(none), "no error");
  EXPECT_EQ(to_string(static_cast<DecodeError>(200)), "no error");
}

// Every reason code of 5.0 is known where the standard lists it, and nowhere else.
TEST(CodecInvalid, reason_codes_are_those_of_the_standard_MQTT_3_2_2_8_MQTT_3_9_3_2_MQTT_3_14_2_1) {
  const auto accepted = [](Bytes packet, std::size_t at, Sender sender) {
    std::string codes;
    for (unsigned code = 0; code < 256; ++code) {
      packet[at] = static_cast<std::byte>(code);
      PacketView view;
      if (decode_all(packet, v5, sender, view) == none)
        codes += hex(Bytes{static_cast<std::byte>(code)}) + " ";
    }
    return codes;
  };
  EXPECT_EQ(accepted(bytes("20 03 00 00 00"), 3, Sender::server),
            "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f ");
  for (const auto* packet : {"40 03 0001 00", "50 03 0001 00"}) {
    EXPECT_EQ(accepted(bytes(packet), 4, Sender::server), "00 10 80 83 87 90 91 97 99 ");
  }
  for (const auto* packet : {"62 03 0001 00", "70 03 0001 00"}) {
    EXPECT_EQ(accepted(bytes(packet), 4, Sender::server), "00 92 ");
  }
  EXPECT_EQ(accepted(bytes("90 04 0001 00 00"), 5, Sender::server), "00 01 02 80 83 87 8f 91 97 9e a1 a2 ");
  EXPECT_EQ(accepted(bytes("b0 04 0001 00 00"), 5, Sender::server), "00 11 80 83 87 8f 91 ");
  EXPECT_EQ(accepted(bytes("e0 01 00"), 2, Sender::client), "00 04 80 81 82 83 90 93 94 95 96 97 98 99 ");
  EXPECT_EQ(accepted(bytes("e0 01 00"), 2, Sender::server),
            "00 80 81 82 83 87 89 8b 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2 ");
  EXPECT_EQ(accepted(bytes("f0 02 00 00"), 2, Sender::client), "18 19 ");
  EXPECT_EQ(accepted(bytes("f0 02 00 00"), 2, Sender::server), "00 18 ");
}

// --- lengths --------------------------------------------------------------------------------------------------------

TEST(CodecLength, the_remaining_length_is_minimal_at_every_size_MQTT_1_5_5_1) {
  for (const std::size_t body : {3u, 127u, 128u, 16'383u, 16'384u, 2'097'151u, 2'097'152u}) {
    const Bytes payload(body - 3);
    PublishView publish;
    publish.topic = "a";
    publish.payload = payload;
    const auto data = encode_all(publish, v3);
    const std::size_t length_size = body < 128 ? 1 : body < 16'384 ? 2 : body < 2'097'152 ? 3 : 4;
    EXPECT_EQ(data.size(), 1 + length_size + body);
    Frame frame;
    ASSERT_EQ(next_frame(data, v3, no_packet_limit, frame), none);
    EXPECT_EQ(frame.size, data.size());
    EXPECT_EQ(next_frame(data, v3, static_cast<std::uint32_t>(data.size() - 1), frame), packet_too_large);
    EXPECT_EQ(next_frame(data, v3, static_cast<std::uint32_t>(data.size()), frame), none);
    // One byte more than needed is one too many.
    if (length_size < 4) {
      auto longer = data;
      longer[length_size] |= std::byte{0x80};
      longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(length_size) + 1, std::byte{0});
      EXPECT_EQ(next_frame(longer, v3, no_packet_limit, frame), length_not_minimal);
    }
  }
}

TEST(CodecLength, the_size_limit_is_checked_on_the_header_alone_MQTT_3_1_2_24) {
  Frame frame;
  EXPECT_EQ(next_frame(bytes("30 ffffff7f"), v5, 1'000'000, frame), packet_too_large);
  EXPECT_EQ(next_frame(bytes("30 ffffff7f"), v5, no_packet_limit, frame), none);
  EXPECT_EQ(frame.expected, 268'435'460u);
  EXPECT_EQ(next_frame(bytes("30 ffffffff"), v5, no_packet_limit, frame), length_over_four_bytes);
}

TEST(CodecLength, what_is_longer_than_mqtt_allows_is_not_encoded) {
  PublishHead head;
  head.topic = "a";
  head.payload_size = variable_integer_max - 4;
  EXPECT_EQ(measure(head, v5), 1u + 4 + 4);
  head.payload_size += 1;
  EXPECT_EQ(measure(head, v5), 0u);
}

// --- views ----------------------------------------------------------------------------------------------------------

TEST(CodecView, connect_with_everything) {
  const auto data = bytes("10 (0004 'MQTT' 04 f6 000a 0001 'c' 0001 'w' 0001 'm' 0001 'u' 0001 'p')");
  PacketView packet;
  ASSERT_EQ(decode_all(data, v3, Sender::client, packet), none);
  const auto& view = std::get<ConnectView>(packet);
  EXPECT_EQ(view.version, v3);
  EXPECT_TRUE(view.clean_start);
  EXPECT_EQ(view.keepalive_s, 10);
  EXPECT_EQ(view.client_id, "c");
  ASSERT_TRUE(view.will.has_value());
  EXPECT_EQ(view.will->topic, "w");
  EXPECT_EQ(as_text(view.will->payload), "m");
  EXPECT_EQ(view.will->qos, QoS::exactly_once);
  EXPECT_TRUE(view.will->retain);
  EXPECT_EQ(view.username, "u");
  EXPECT_EQ(as_text(view.password.value()), "p");
}

TEST(CodecView, filters_can_be_walked) {
  const auto data = bytes("82 (0001 00 0003 'a/+' 2d 0001 'b' 02)");
  PacketView packet;
  ASSERT_EQ(decode_all(data, v5, Sender::client, packet), none);
  const auto& view = std::get<SubscribeView>(packet);
  EXPECT_EQ(view.filters.size(), 2u);
  std::vector<SubscriptionRequest> filters;
  for (const auto& one : view.filters) filters.push_back(one);
  ASSERT_EQ(filters.size(), 2u);
  EXPECT_EQ(filters[0].filter, "a/+");
  EXPECT_EQ(filters[0].qos, QoS::at_least_once);
  EXPECT_TRUE(filters[0].no_local);
  EXPECT_TRUE(filters[0].retain_as_published);
  EXPECT_EQ(filters[0].retain_handling, RetainHandling::do_not_send);
  EXPECT_EQ(filters[1].filter, "b");
  EXPECT_EQ(filters[1].qos, QoS::exactly_once);
  EXPECT_FALSE(filters[1].no_local);

  const auto leaving = bytes("a2 (0001 0001 'x' 0003 'y/z')");
  ASSERT_EQ(decode_all(leaving, v3, Sender::client, packet), none);
  std::vector<std::string_view> names;
  for (const auto name : std::get<UnsubscribeView>(packet).filters) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string_view>{"x", "y/z"}));
}

TEST(CodecView, names_of_types_and_codes_are_known) {
  for (unsigned type = 1; type <= 15; ++type) {
    EXPECT_NE(to_string(static_cast<PacketType>(type)), "unknown packet type");
  }
  EXPECT_EQ(to_string(static_cast<PacketType>(0)), "unknown packet type");
  unsigned known = 0;
  for (unsigned code = 0; code < 256; ++code)
    known += to_string(static_cast<ReasonCode>(code)) != "unknown reason code";
  EXPECT_EQ(known, 43u);
  EXPECT_EQ(to_string(ReasonCode::not_authorized), "not authorized");
}

}  // namespace
}  // namespace fulmar::mqtt
