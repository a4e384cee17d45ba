// Every property of MQTT 5.0 in every packet: where it may stand, how often, with which values.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>

#include "tests/conformance/cases.hpp"
#include "tests/conformance/codec_probe.hpp"
#include "tests/conformance/packet_builder.hpp"
#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

// The table of the standard [MQTT5 2.2.2.2], a letter per place:
//   C CONNECT  W will  c CONNACK  P p PUBLISH from client, server  4..7 PUBACK PUBREC PUBREL PUBCOMP
//   S SUBSCRIBE  s SUBACK  U UNSUBSCRIBE  u UNSUBACK  D d DISCONNECT from client, server  A AUTH
constexpr std::string_view place_letters = "CWcPp4567SsUuDdA";
static_assert(place_letters.size() == property_place_count);

struct Row {
  unsigned id;
  char kind;  // 1 2 4 bytes, v variable, s string, b binary, p pair
  std::string_view places;
  std::string_view repeatable = "";
  std::string_view other_side = "";
  std::uint32_t min = 0;
  std::uint32_t max = 0xffffffff;
};

constexpr Row rows[] = {
    {0x01, '1', "WPp", "", "", 0, 1},
    {0x02, '4', "WPp"},
    {0x03, 's', "WPp"},
    {0x08, 's', "WPp"},
    {0x09, 'b', "WPp"},
    {0x0b, 'v', "pS", "p", "P", 1},
    {0x11, '4', "CcD", "", "d"},
    {0x12, 's', "c"},
    {0x13, '2', "c"},
    {0x15, 's', "CcA"},
    {0x16, 'b', "CcA"},
    {0x17, '1', "C", "", "", 0, 1},
    {0x18, '4', "W"},
    {0x19, '1', "C", "", "", 0, 1},
    {0x1a, 's', "c"},
    {0x1c, 's', "cd", "", "D"},
    {0x1f, 's', "c4567suDdA"},
    {0x21, '2', "Cc", "", "", 1},
    {0x22, '2', "Cc"},
    {0x23, '2', "Pp", "", "", 1},
    {0x24, '1', "c", "", "", 0, 1},
    {0x25, '1', "c", "", "", 0, 1},
    {0x26, 'p', place_letters, place_letters},
    {0x27, '4', "Cc", "", "", 1},
    {0x28, '1', "c", "", "", 0, 1},
    {0x29, '1', "c", "", "", 0, 1},
    {0x2a, '1', "c", "", "", 0, 1},
};

const Row* row_of(unsigned id) {
  const auto* row = std::ranges::find(rows, id, &Row::id);
  return row == std::end(rows) ? nullptr : row;
}

Bytes value_of(char kind, std::uint32_t number) {
  const auto byte = [number](int shift) { return static_cast<std::byte>(number >> shift); };
  switch (kind) {
    case '1': return {byte(0)};
    case '2': return {byte(8), byte(0)};
    case '4': return {byte(24), byte(16), byte(8), byte(0)};
    case 'v': return variable_integer(number);
    case 'p': return string_field("k") + string_field("v");
    default: return string_field("x");
  }
}

Bytes property(const Row& row, std::uint32_t number = 1) {
  return Bytes{static_cast<std::byte>(row.id)} + value_of(row.kind, number);
}

// What the property needs beside it.
Bytes company_of(unsigned id) { return id == 0x16 ? bytes("15 0001 'M'") : Bytes(); }

template <typename Visit>
void for_each_place(Visit visit) {
  for (std::size_t i = 0; i < property_place_count; ++i) {
    const char letter = place_letters[i];
    const auto place = static_cast<PropertyPlace>(i);
    SCOPED_TRACE(std::string("place ") + letter);
    visit(letter, place, Sender::server);
    if (letter == 'A') visit(letter, place, Sender::client);
  }
}

DecodeError error_of(PropertyPlace place, const Bytes& properties, Sender auth_sender) {
  const auto packet = packet_around(place, properties, auth_sender);
  const Decoded decoded(packet.wire, ProtocolVersion::v5, packet.sender);
  EXPECT_FALSE(decoded.needs_more);
  return decoded.error;
}

TEST(PropertyTable, has_the_kinds_of_the_standard) {
  for (unsigned id = 0; id < 256; ++id) {
    const auto* row = row_of(id);
    const char kinds[] = {'-', '1', '2', '4', 'v', 's', 'b', 'p'};
    EXPECT_EQ(kinds[static_cast<std::size_t>(kind_of(static_cast<PropertyId>(id)))], row ? row->kind : '-')
        << id;
  }
}

TEST(PropertyTable, every_identifier_in_every_packet_is_accepted_or_refused_by_the_right_rule) {
  Cases cases("identifiers in packets");
  for_each_place([&](char letter, PropertyPlace place, Sender sender) {
    for (std::uint32_t id = 0; id < 700; ++id) {
      const auto* row = row_of(id);
      auto expected = DecodeError::property_unknown;
      if (row != nullptr) {
        expected = row->places.contains(letter)       ? DecodeError::none
                   : row->other_side.contains(letter) ? DecodeError::property_of_other_side
                                                      : DecodeError::property_misplaced;
      }
      const auto before = expected == DecodeError::none ? company_of(id) : Bytes();
      const auto one = row ? property(*row) : variable_integer(id) + bytes("0001 'x'");
      ++cases;
      EXPECT_EQ(name_of(error_of(place, before + one, sender)), name_of(expected)) << id;
      // Behind another property it is the same.
      if (letter != 'A') {
        EXPECT_EQ(name_of(error_of(place, bytes("26 0000 0000") + before + one, sender)), name_of(expected))
            << id;
      }
    }
  });
}

TEST(PropertyTable, only_user_properties_and_a_servers_subscription_identifiers_stand_twice) {
  Cases cases("properties that stand twice");
  for_each_place([&](char letter, PropertyPlace place, Sender sender) {
    for (const auto& row : rows) {
      if (!row.places.contains(letter)) continue;
      const auto expected =
          row.repeatable.contains(letter) ? DecodeError::none : DecodeError::property_repeated;
      for (const auto& between : {Bytes(), bytes("26 0001 'k' 0000")}) {
        ++cases;
        const auto twice = company_of(row.id) + property(row) + between + property(row);
        EXPECT_EQ(name_of(error_of(place, twice, sender)), name_of(expected)) << row.id;
      }
    }
  });
}

TEST(PropertyTable, values_out_of_range_are_refused_and_all_others_are_accepted) {
  Cases cases("values of properties");
  for_each_place([&](char letter, PropertyPlace place, Sender sender) {
    for (const auto& row : rows) {
      if (!row.places.contains(letter)) continue;
      std::vector<std::uint32_t> values;
      if (row.kind == '1') {
        for (std::uint32_t i = 0; i < 256; ++i) values.push_back(i);
      }
      if (row.kind == '2') values = {0, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff};
      if (row.kind == '4') values = {0, 1, 2, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
      if (row.kind == 'v') values = {0, 1, 127, 128, 16'383, 16'384, 2'097'151, 2'097'152, 268'435'455};
      for (const auto value : values) {
        const bool good = value >= row.min && value <= row.max;
        const auto expected = good             ? DecodeError::none
                              : row.id == 0x23 ? DecodeError::topic_alias_zero
                                               : DecodeError::property_value_invalid;
        ++cases;
        const auto packet = packet_around(place, property(row, value), sender);
        const Decoded decoded(packet.wire, ProtocolVersion::v5, packet.sender);
        EXPECT_EQ(name_of(decoded.error), name_of(expected)) << row.id << ' ' << value;
        if (!good || decoded.error != DecodeError::none) continue;
        PropertiesView view;
        const auto encoded_property = property(row, value);
        ASSERT_EQ(check_properties(encoded_property, place, view), DecodeError::none);
        EXPECT_EQ(view.number(static_cast<PropertyId>(row.id), value + 1), value);
        EXPECT_EQ(hex(rebuilt(decoded)), hex(packet.wire));
      }
    }
  });
}

TEST(PropertyTable, every_property_that_is_cut_anywhere_is_refused) {
  Cases cases("cut properties");
  for_each_place([&](char letter, PropertyPlace place, Sender sender) {
    for (const auto& row : rows) {
      if (!row.places.contains(letter)) continue;
      const auto before = company_of(row.id);
      const auto whole = property(row, row.kind == 'v' ? 300 : 1);
      for (std::size_t size = 1; size < whole.size(); ++size) {
        ++cases;
        const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        EXPECT_EQ(name_of(error_of(place, before + part, sender)), "truncated") << row.id << ' ' << size;
      }
      // A string that reaches past the properties into what follows them.
      if (row.kind == 's' || row.kind == 'b' || row.kind == 'p') {
        ++cases;
        auto longer = whole;
        longer[2] = std::byte{200};
        EXPECT_EQ(name_of(error_of(place, before + longer, sender)), "truncated") << row.id;
      }
    }
  });
}

TEST(PropertyTable, a_property_length_past_the_packet_is_refused_in_every_packet) {
  Cases cases("property lengths");
  for_each_place([&](char, PropertyPlace place, Sender sender) {
    const auto empty = packet_around(place, {}, sender);
    const auto with = packet_around(place, bytes("26 0001 'k' 0001 'v'"), sender);
    // Behind the head that both have stands the property length.
    std::size_t at = 2;
    while (empty.wire[at] == with.wire[at]) ++at;
    for (const auto length : {100u, 127u, 128u, 16'384u, 268'435'455u}) {
      const Bytes head(with.wire.begin() + 2, with.wire.begin() + static_cast<std::ptrdiff_t>(at));
      const Bytes rest(with.wire.begin() + static_cast<std::ptrdiff_t>(at) + 1, with.wire.end());
      const auto wrong = framed(with.wire[0], head + variable_integer(length) + rest);
      ++cases;
      EXPECT_EQ(name_of(Decoded(wrong, ProtocolVersion::v5, with.sender).error), "property_length_wrong")
          << length;
    }
  });
}

TEST(PropertyTable, sixty_five_thousand_user_properties_are_read_within_50_ms) {
  Bytes properties;
  for (int i = 0; i < 65'000; ++i) properties = std::move(properties) + bytes("26 0001 'k' 0001 'v'");
  const auto packet = packet_around(PropertyPlace::publish_from_server, properties);
  const auto begin = std::chrono::steady_clock::now();
  const Decoded decoded(packet.wire, ProtocolVersion::v5, Sender::server);
  const auto took = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(decoded.accepted());
  std::size_t count = 0;
  for (const auto& one : std::get<PublishView>(decoded.view).properties)
    count += one.name == "k" && one.text == "v";
  EXPECT_EQ(count, 65'000u);
  EXPECT_LT(took, std::chrono::milliseconds(50));
}

TEST(PropertyTable, no_properties_are_a_length_of_zero_MQTT_2_2_2_1) {
  for_each_place([&](char letter, PropertyPlace place, Sender sender) {
    const auto packet = packet_around(place, {}, sender);
    const Decoded decoded(packet.wire, ProtocolVersion::v5, packet.sender);
    ASSERT_TRUE(decoded.accepted());
    const auto again = encoded(decoded);
    // Acknowledgements and DISCONNECT may leave the length out, the others may not.
    const bool optional = std::string_view("4567Dd").contains(letter);
    EXPECT_EQ(again == packet.wire, !optional) << hex(again);
  });
}

}  // namespace
}  // namespace fulmar::mqtt
