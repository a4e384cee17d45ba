// The fields that many packets share: strings, integers, packet identifiers, reason codes, sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/conformance/cases.hpp"
#include "tests/conformance/codec_probe.hpp"
#include "tests/conformance/packet_builder.hpp"
#include "tests/conformance/packet_text.hpp"
#include "tests/conformance/vector_file.hpp"

namespace fulmar::mqtt {
namespace {

constexpr auto v3 = ProtocolVersion::v3_1_1;
constexpr auto v5 = ProtocolVersion::v5;

// --- strings --------------------------------------------------------------------------------------------------------

// A string field: makes a packet with a given encoded string in it.
struct Field {
  std::string name;
  ProtocolVersion version;
  std::function<PlacedPacket(const Bytes& string)> packet;
};

std::vector<Field> string_fields() {
  std::vector<Field> fields;
  const auto add = [&fields](const char* name, ProtocolVersion version, Sender sender, unsigned char first,
                             const char* before, const char* after) {
    fields.push_back({name, version, [=](const Bytes& string) {
                        return PlacedPacket{framed(std::byte{first}, bytes(before) + string + bytes(after)),
                                            sender};
                      }});
  };
  using enum Sender;
  add("CONNECT protocol name", v5, client, 0x10, "", "05 02 003c 00 0001 'c'");
  add("CONNECT client identifier", v3, client, 0x10, "0004 'MQTT' 04 02 003c", "");
  add("CONNECT client identifier", v5, client, 0x10, "0004 'MQTT' 05 02 003c 00", "");
  add("CONNECT will topic", v3, client, 0x10, "0004 'MQTT' 04 06 003c 0001 'c'", "0000");
  add("CONNECT will topic", v5, client, 0x10, "0004 'MQTT' 05 06 003c 00 0001 'c' 00", "0000");
  add("CONNECT user name", v3, client, 0x10, "0004 'MQTT' 04 c2 003c 0001 'c'", "0001 'p'");
  add("CONNECT user name", v5, client, 0x10, "0004 'MQTT' 05 c2 003c 00 0001 'c'", "0001 'p'");
  for (const auto sender : {client, server}) {
    add("PUBLISH topic", v3, sender, 0x30, "", "'payload'");
    add("PUBLISH topic QoS 1", v3, sender, 0x32, "", "0001 'payload'");
    add("PUBLISH topic", v5, sender, 0x30, "", "00 'payload'");
    add("PUBLISH topic QoS 2", v5, sender, 0x34, "", "0001 00 'payload'");
  }
  add("SUBSCRIBE filter", v3, client, 0x82, "0001", "01");
  add("SUBSCRIBE second filter", v3, client, 0x82, "0001 0001 'a' 00", "01");
  add("SUBSCRIBE filter", v5, client, 0x82, "0001 00", "01");
  add("UNSUBSCRIBE filter", v3, client, 0xa2, "0001", "");
  add("UNSUBSCRIBE second filter", v5, client, 0xa2, "0001 00 0001 'a'", "");
  for (std::size_t i = 0; i < property_place_count; ++i) {
    const auto place = static_cast<PropertyPlace>(i);
    const auto add_property = [&](const std::string& name, const Bytes& before, const Bytes& after) {
      fields.push_back({name + " at place " + std::to_string(i), v5,
                        [=](const Bytes& string) { return packet_around(place, before + string + after); }});
    };
    for (unsigned id = 0; id < 256; ++id) {
      if (kind_of(static_cast<PropertyId>(id)) != PropertyKind::string) continue;
      const Bytes before{static_cast<std::byte>(id)};
      const auto probe = packet_around(place, before + bytes("0001 'x'"));
      if (!Decoded(probe.wire, v5, probe.sender).accepted()) continue;
      add_property(std::string(name_of(static_cast<PropertyId>(id))), before, {});
    }
    add_property("name of a user property", bytes("26"), bytes("0001 'v'"));
    add_property("value of a user property", bytes("26 0001 'k'"), {});
  }
  return fields;
}

struct Sequence {
  const char* what;
  std::string text;
};

const Sequence bad_sequences[] = {
    {"a stray continuation byte", "\x80"},
    {"the last continuation byte", "\xbf"},
    {"over-long U+0000 in two bytes", "\xc0\x80"},
    {"over-long U+007F in two bytes", "\xc1\xbf"},
    {"over-long U+0000 in three bytes", "\xe0\x80\x80"},
    {"over-long U+07FF in three bytes", "\xe0\x9f\xbf"},
    {"over-long U+0000 in four bytes", "\xf0\x80\x80\x80"},
    {"over-long U+FFFF in four bytes", "\xf0\x8f\xbf\xbf"},
    {"the first high surrogate", "\xed\xa0\x80"},
    {"the last high surrogate", "\xed\xaf\xbf"},
    {"the first low surrogate", "\xed\xb0\x80"},
    {"the last low surrogate", "\xed\xbf\xbf"},
    {"a pair of surrogates", "\xed\xa0\xbd\xed\xb8\x80"},
    {"U+110000", "\xf4\x90\x80\x80"},
    {"far above U+10FFFF", "\xf7\xbf\xbf\xbf"},
    {"a sequence of five bytes", "\xf8\x88\x80\x80\x80"},
    {"a sequence of six bytes", "\xfc\x84\x80\x80\x80\x80"},
    {"FE", "\xfe"},
    {"FF", "\xff"},
    {"two bytes, one missing", "\xc3"},
    {"three bytes, one missing", "\xe2\x82"},
    {"three bytes, two missing", "\xe2"},
    {"four bytes, one missing", "\xf0\x9f\x92"},
    {"four bytes, three missing", "\xf0"},
    {"a lead byte before ASCII", "\xc3("},
    {"a broken middle", "\xe2(\xa1"},
    {"Latin-1", "caf\xe9"},
};

TEST(Strings, ill_formed_utf8_is_refused_in_every_field_at_every_place_MQTT_1_5_3_1_MQTT_1_5_4_1) {
  Cases cases("ill-formed strings");
  const auto fields = string_fields();
  EXPECT_GT(fields.size(), 70u);
  for (const auto& field : fields) {
    for (const auto& sequence : bad_sequences) {
      for (const auto& [before, after] :
           {std::pair{"", ""}, {"", "abcdefghi"}, {"abcde", ""}, {"abcdefghijk", "lmnop"}}) {
        const auto packet = field.packet(string_field(before + sequence.text + after));
        ++cases;
        EXPECT_EQ(name_of(Decoded(packet.wire, field.version, packet.sender).error), "string_not_utf8")
            << field.name << ": " << sequence.what << ": " << hex(packet.wire);
      }
    }
  }
}

TEST(Strings, null_is_refused_in_every_field_at_every_place_MQTT_1_5_3_2_MQTT_1_5_4_2_MQTT_1_5_7_1) {
  Cases cases("strings with U+0000");
  for (const auto& field : string_fields()) {
    for (std::size_t size = 1; size <= 20; ++size) {
      for (std::size_t at = 0; at < size; ++at) {
        std::string text(size, 'x');
        text[at] = '\0';
        const auto packet = field.packet(string_field(text));
        ++cases;
        EXPECT_EQ(name_of(Decoded(packet.wire, field.version, packet.sender).error), "string_contains_null")
            << field.name << ' ' << size << ' ' << at;
      }
    }
  }
}

TEST(Strings, every_other_text_is_kept_as_it_is_MQTT_1_5_3_3_MQTT_1_5_4_3) {
  const Sequence good[] = {
      {"a byte order mark",
       "\xef\xbb\xbf"
       "a"},
      {"U+0001", "\x01"},
      {"U+007F", "\x7f"},
      {"U+0080", "\xc2\x80"},
      {"U+07FF", "\xdf\xbf"},
      {"U+0800", "\xe0\xa0\x80"},
      {"U+D7FF", "\xed\x9f\xbf"},
      {"U+E000", "\xee\x80\x80"},
      {"U+FFFD", "\xef\xbf\xbd"},
      {"U+FFFF", "\xef\xbf\xbf"},
      {"U+10000", "\xf0\x90\x80\x80"},
      {"U+10FFFF", "\xf4\x8f\xbf\xbf"},
  };
  Cases cases("well-formed strings");
  for (const auto& field : string_fields()) {
    if (field.name == "CONNECT protocol name") continue;
    for (const auto& sequence : good) {
      const auto packet = field.packet(string_field(sequence.text));
      const Decoded decoded(packet.wire, field.version, packet.sender);
      ++cases;
      ASSERT_TRUE(decoded.accepted()) << field.name << ": " << sequence.what << ' ' << name_of(decoded.error);
      EXPECT_NE(decoded.meaning().find(in_quotes(sequence.text)), std::string::npos) << decoded.meaning();
    }
  }
}

TEST(Strings, may_have_65535_bytes_in_every_field_MQTT_4_7_3_3) {
  const std::string longest(65'535, 'x');
  Cases cases("longest strings");
  for (const auto& field : string_fields()) {
    if (field.name == "CONNECT protocol name") continue;
    const auto packet = field.packet(string_field(longest));
    const Decoded decoded(packet.wire, field.version, packet.sender);
    ++cases;
    ASSERT_TRUE(decoded.accepted()) << field.name;
    EXPECT_EQ(rebuilt(decoded) == packet.wire || encoded(decoded).size() == packet.wire.size(), true)
        << field.name;
  }
}

// --- reason codes ---------------------------------------------------------------------------------------------------

TEST(ReasonCodes, exactly_the_listed_ones_are_accepted_in_each_packet) {
  using enum Sender;
  struct Row {
    const char* packet;
    ProtocolVersion version;
    Sender sender;
    unsigned char first;
    const char* before;
    const char* after;
    Bytes listed;
  };
  const auto received = bytes("00 10 80 83 87 90 91 97 99");
  const auto released = bytes("00 92");
  const Row rows[] = {
      {"CONNACK", v3, server, 0x20, "00", "", bytes("00 01 02 03 04 05")},
      {"CONNACK", v5, server, 0x20, "00", "00",
       bytes("00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f")},
      {"PUBACK", v5, server, 0x40, "0001", "", received},
      {"PUBACK with properties", v5, client, 0x40, "0001", "00", received},
      {"PUBREC", v5, server, 0x50, "0001", "", received},
      {"PUBREC with properties", v5, client, 0x50, "0001", "00", received},
      {"PUBREL", v5, server, 0x62, "0001", "", released},
      {"PUBREL with properties", v5, client, 0x62, "0001", "00", released},
      {"PUBCOMP", v5, server, 0x70, "0001", "", released},
      {"PUBCOMP with properties", v5, client, 0x70, "0001", "00", released},
      {"SUBACK", v3, server, 0x90, "0001", "", bytes("00 01 02 80")},
      {"SUBACK, second code", v3, server, 0x90, "0001 00", "", bytes("00 01 02 80")},
      {"SUBACK", v5, server, 0x90, "0001 00", "", bytes("00 01 02 80 83 87 8f 91 97 9e a1 a2")},
      {"SUBACK, first code", v5, server, 0x90, "0001 00", "00", bytes("00 01 02 80 83 87 8f 91 97 9e a1 a2")},
      {"UNSUBACK", v5, server, 0xb0, "0001 00", "", bytes("00 11 80 83 87 8f 91")},
      {"UNSUBACK, second code", v5, server, 0xb0, "0001 00 00", "", bytes("00 11 80 83 87 8f 91")},
      {"DISCONNECT of a client", v5, client, 0xe0, "", "",
       bytes("00 04 80 81 82 83 90 93 94 95 96 97 98 99")},
      {"DISCONNECT of a server", v5, server, 0xe0, "", "00",
       bytes("00 80 81 82 83 87 89 8b 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2")},
      {"AUTH of a client", v5, client, 0xf0, "", "00", bytes("18 19")},
      {"AUTH of a server", v5, server, 0xf0, "", "00", bytes("00 18")},
  };
  Cases cases("reason codes");
  for (const auto& row : rows) {
    for (unsigned code = 0; code < 256; ++code) {
      const auto byte = static_cast<std::byte>(code);
      const auto packet = framed(std::byte{row.first}, bytes(row.before) + Bytes{byte} + bytes(row.after));
      const bool listed = std::ranges::find(row.listed, byte) != row.listed.end();
      const Decoded decoded(packet, row.version, row.sender);
      ++cases;
      EXPECT_EQ(name_of(decoded.error), listed ? "none" : "reason_code_unknown") << row.packet << ' ' << code;
    }
  }
}

// --- packet identifiers, QoS, flags ---------------------------------------------------------------------------------

TEST(PacketIdentifiers,
     zero_is_refused_wherever_there_is_one_and_all_others_are_accepted_MQTT_2_3_1_1_MQTT_2_2_1_3) {
  struct Row {
    const char* before;
    const char* after;
    unsigned char first;
    ProtocolVersion version;
    Sender sender;
  };
  using enum Sender;
  const Row rows[] = {
      {"0001 'a'", "", 0x32, v3, client},
      {"0001 'a'", "00", 0x34, v5, server},
      {"", "", 0x40, v3, server},
      {"", "", 0x40, v5, server},
      {"", "", 0x50, v3, server},
      {"", "", 0x50, v5, server},
      {"", "", 0x62, v3, server},
      {"", "", 0x62, v5, server},
      {"", "", 0x70, v3, server},
      {"", "", 0x70, v5, server},
      {"", "0001 'a' 00", 0x82, v3, client},
      {"", "00 0001 'a' 00", 0x82, v5, client},
      {"", "00", 0x90, v3, server},
      {"", "00 00", 0x90, v5, server},
      {"", "0001 'a'", 0xa2, v3, client},
      {"", "00 0001 'a'", 0xa2, v5, client},
      {"", "", 0xb0, v3, server},
      {"", "00 00", 0xb0, v5, server},
  };
  Cases cases("packet identifiers");
  for (const auto& row : rows) {
    for (const unsigned id : {0u, 1u, 255u, 256u, 65'535u}) {
      const auto body = bytes(row.before) +
                        Bytes{static_cast<std::byte>(id >> 8), static_cast<std::byte>(id)} + bytes(row.after);
      const auto packet = framed(std::byte{row.first}, body);
      const Decoded decoded(packet, row.version, row.sender);
      ++cases;
      EXPECT_EQ(name_of(decoded.error), id == 0 ? "packet_id_zero" : "none") << hex(packet);
      if (id != 0) {
        EXPECT_NE(decoded.meaning().find("id=" + std::to_string(id)), std::string::npos);
      }
    }
  }
}

TEST(Flags,
     every_reserved_bit_of_connect_connack_and_subscribe_is_refused_MQTT_3_1_2_3_MQTT_3_2_2_1_MQTT_3_8_3_5) {
  Cases cases("reserved bits");
  for (const auto version : {v3, v5}) {
    const auto error_of = [&](Sender sender, unsigned char first, const Bytes& body) {
      ++cases;
      return name_of(Decoded(framed(std::byte{first}, body), version, sender).error);
    };
    const auto properties = version == v5 ? bytes("00") : Bytes();
    const auto flags_of = [](unsigned flags) { return Bytes{static_cast<std::byte>(flags)}; };
    for (unsigned flags = 0; flags < 256; ++flags) {
      // Its fields are there as the flags say, so that nothing but a flag can be wrong.
      auto connect = bytes("0004 'MQTT'") + flags_of(version == v5 ? 5 : 4) + flags_of(flags) +
                     bytes("003c") + properties + bytes("0001 'c'");
      if (flags & 0x04) connect = connect + properties + bytes("0001 'w' 0000");
      if (flags & 0x80) connect = connect + bytes("0001 'u'");
      if (flags & 0x40) connect = connect + bytes("0001 'p'");
      const char* expected = "none";
      if (flags & 0x01) {
        expected = "connect_flags_reserved";
      } else if (!(flags & 0x04) && flags & 0x38) {
        expected = "will_flags_without_will";
      } else if ((flags & 0x18) == 0x18) {
        expected = "will_qos_reserved";
      } else if (version == v3 && (flags & 0xc0) == 0x40) {
        expected = "password_without_username";
      }
      EXPECT_EQ(error_of(Sender::client, 0x10, connect), expected) << flags;
      EXPECT_EQ(error_of(Sender::server, 0x20, flags_of(flags) + bytes("00") + properties),
                flags > 1 ? "connack_flags_reserved" : "none")
          << flags;
      expected = "none";
      if (flags & (version == v5 ? 0xc0u : 0xfcu)) {
        expected = "subscription_options_reserved";
      } else if ((flags & 3) == 3) {
        expected = "subscription_qos_reserved";
      } else if ((flags & 0x30) == 0x30) {
        expected = "retain_handling_reserved";
      }
      EXPECT_EQ(
          error_of(Sender::client, 0x82, bytes("0001") + properties + bytes("0001 'a'") + flags_of(flags)),
          expected)
          << flags;
    }
  }
}

// --- integers and sizes ---------------------------------------------------------------------------------------------

TEST(Lengths, are_read_and_written_in_one_to_four_bytes_MQTT_1_5_5_1) {
  const struct {
    std::uint32_t value;
    const char* bytes;
  } rows[] = {{0, "00"},
              {1, "01"},
              {127, "7f"},
              {128, "80 01"},
              {16'383, "ff 7f"},
              {16'384, "80 80 01"},
              {2'097'151, "ff ff 7f"},
              {2'097'152, "80 80 80 01"},
              {268'435'455, "ff ff ff 7f"}};
  for (const auto& row : rows) {
    const auto wire = bytes("30") + bytes(row.bytes);
    Frame frame;
    ASSERT_EQ(next_frame(wire, v5, no_packet_limit, frame), DecodeError::none);
    EXPECT_EQ(frame.expected, wire.size() + row.value);
    PublishHead head;
    head.topic = "a";
    if (row.value < 3) continue;
    head.payload_size = row.value - 3;
    const auto size = measure(head, v3);
    ASSERT_EQ(size, wire.size() + 3);
    Bytes out(size);
    write(out.data(), head, v3);
    out.resize(wire.size());
    EXPECT_EQ(hex(out), hex(wire));
  }
  PublishHead head;
  head.topic = "a";
  head.payload_size = variable_integer_max - 2;
  EXPECT_EQ(measure(head, v3), 0u);
}

TEST(Lengths, of_five_bytes_and_not_minimal_ones_are_refused_for_every_packet_type) {
  Cases cases("remaining lengths");
  const unsigned char firsts[] = {0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70, 0x82,
                                  0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0};
  for (const auto first : firsts) {
    const auto error_of = [&](const char* length) {
      ++cases;
      return name_of(Decoded(Bytes{std::byte{first}} + bytes(length), v5, Sender::server).error);
    };
    for (const auto* length :
         {"80 80 80 80", "ff ff ff ff", "ff ff ff ff 7f", "80 80 80 80 00", "80 80 80 80 80"}) {
      EXPECT_EQ(error_of(length), "length_over_four_bytes") << static_cast<unsigned>(first) << ' ' << length;
    }
    for (const auto* length : {"80 00", "ff 00", "80 80 00", "81 80 00", "80 80 80 00", "ff ff ff 00"}) {
      EXPECT_EQ(error_of(length), "length_not_minimal") << static_cast<unsigned>(first) << ' ' << length;
    }
  }
}

TEST(Lengths, a_packet_over_the_maximum_is_refused_on_its_header_alone_MQTT_3_1_2_24) {
  Cases cases("packets over the maximum");
  for (const auto& vector : packet_vectors()) {
    if (vector.error != DecodeError::none) continue;
    const auto size = static_cast<std::uint32_t>(vector.wire.size());
    const auto head = static_cast<std::ptrdiff_t>(1 + vector.lengths.at(0).size);
    const Bytes header(vector.wire.begin(), vector.wire.begin() + head);
    for (const auto version : vector.versions) {
      for (const auto sender : vector.senders) {
        ++cases;
        EXPECT_EQ(name_of(Decoded(header, version, sender, size - 1).error), "packet_too_large")
            << vector.name;
        EXPECT_EQ(name_of(Decoded(vector.wire, version, sender, size - 1).error), "packet_too_large")
            << vector.name;
        EXPECT_TRUE(Decoded(vector.wire, version, sender, size).accepted()) << vector.name;
      }
    }
  }
  EXPECT_EQ(Decoded(bytes("30 ff ff ff 7f"), v5, Sender::server, 1 << 20).error,
            DecodeError::packet_too_large);
}

TEST(PacketTypes, reserved_ones_are_refused_at_the_first_byte) {
  for (unsigned first = 0; first < 16; ++first) {
    for (const auto version : {v3, v5}) {
      EXPECT_EQ(Decoded({static_cast<std::byte>(first)}, version, Sender::server).error,
                DecodeError::packet_type_reserved);
    }
    EXPECT_EQ(Decoded({static_cast<std::byte>(0xf0 | first)}, v3, Sender::server).error,
              DecodeError::packet_type_reserved);
  }
}

}  // namespace
}  // namespace fulmar::mqtt
