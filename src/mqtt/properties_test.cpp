#include "fulmar/mqtt/properties.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "mqtt/wire_text.hpp"

namespace fulmar::mqtt {
namespace {

using enum DecodeError;

constexpr PropertyPlace places[] = {PropertyPlace::connect,
                                    PropertyPlace::will,
                                    PropertyPlace::connack,
                                    PropertyPlace::publish_from_client,
                                    PropertyPlace::publish_from_server,
                                    PropertyPlace::puback,
                                    PropertyPlace::pubrec,
                                    PropertyPlace::pubrel,
                                    PropertyPlace::pubcomp,
                                    PropertyPlace::subscribe,
                                    PropertyPlace::suback,
                                    PropertyPlace::unsubscribe,
                                    PropertyPlace::unsuback,
                                    PropertyPlace::disconnect_from_client,
                                    PropertyPlace::disconnect_from_server,
                                    PropertyPlace::auth};

// A letter per place, in the order of `places`: C connect, W will, K connack, P p publish, 1-4 acknowledgements,
// S s subscribe and its answer, U u unsubscribe and its answer, D d disconnect, A auth.
constexpr std::string_view letters = "CWKPp1234SsUuDdA";

struct Known {
  const char* one;      // an encoded property
  const char* allowed;  // places of [MQTT5 2.2.2.2] and of the packets' own sections
};
const Known all[] = {
    {"01 01", "WPp"},       {"02 00000001", "WPp"},
    {"03 0001 'x'", "WPp"}, {"08 0001 'x'", "WPp"},
    {"09 0001 ff", "WPp"},  {"0b 01", "pS"},
    {"11 00000001", "CKD"}, {"12 0001 'x'", "K"},
    {"13 0001", "K"},       {"15 0001 'x'", "CKA"},
    {"17 01", "C"},         {"18 00000001", "W"},
    {"19 01", "C"},         {"1a 0001 'x'", "K"},
    {"1c 0001 'x'", "Kd"},  {"1f 0001 'x'", "K1234suDdA"},
    {"21 0001", "CK"},      {"22 0001", "CK"},
    {"23 0001", "Pp"},      {"24 01", "K"},
    {"25 01", "K"},         {"26 0001 'k' 0001 'v'", "CWKPp1234SsUuDdA"},
    {"27 00000001", "CK"},  {"28 01", "K"},
    {"29 01", "K"},         {"2a 01", "K"},
};

DecodeError check(const Bytes& encoded, PropertyPlace place) {
  PropertiesView view;
  return check_properties(encoded, place, view);
}

TEST(Properties, each_stands_where_the_standard_allows_it_and_once) {
  for (const auto& known : all) {
    const auto one = bytes(known.one);
    const auto id = static_cast<PropertyId>(one[0]);
    for (std::size_t i = 0; i < std::size(places); ++i) {
      const bool allowed = std::string_view(known.allowed).find(letters[i]) != std::string_view::npos;
      const auto error = check(one, places[i]);
      EXPECT_EQ(error == none, allowed) << known.one << ' ' << letters[i] << ": " << to_string(error);
      if (!allowed) {
        EXPECT_TRUE(error == property_misplaced || error == property_of_other_side);
        continue;
      }
      const bool repeatable =
          id == PropertyId::user_property || (id == PropertyId::subscription_identifier && letters[i] == 'p');
      EXPECT_EQ(check(one + one, places[i]), repeatable ? none : property_repeated) << known.one;
    }
  }
}

TEST(Properties, there_are_27_and_no_more) {
  unsigned known = 0;
  for (unsigned id = 0; id < 256; ++id) known += kind_of(static_cast<PropertyId>(id)) != PropertyKind::none;
  EXPECT_EQ(known, 27u);
  for (unsigned id = 0; id < 256; ++id) {
    if (kind_of(static_cast<PropertyId>(id)) != PropertyKind::none) continue;
    for (const auto place : places) {
      const auto error =
          check(Bytes{static_cast<std::byte>(id), std::byte{1}, std::byte{0}, std::byte{0}}, place);
      EXPECT_TRUE(error == property_unknown) << id << ' ' << to_string(error);
    }
  }
}

TEST(Properties, cut_at_any_byte_they_are_refused) {
  for (const auto& known : all) {
    const auto one = bytes(known.one);
    const auto place = places[letters.find(known.allowed[0])];
    for (std::size_t size = 1; size < one.size(); ++size) {
      EXPECT_EQ(check(Bytes(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(size)), place), truncated)
          << known.one << ' ' << size;
    }
  }
}

TEST(Properties, values_out_of_their_range_are_refused) {
  const struct {
    const char* encoded;
    PropertyPlace place;
    DecodeError error;
  } cases[] = {
      {"01 02", PropertyPlace::will, property_value_invalid},
      {"17 02", PropertyPlace::connect, property_value_invalid},
      {"19 ff", PropertyPlace::connect, property_value_invalid},
      {"24 02", PropertyPlace::connack, property_value_invalid},
      {"25 02", PropertyPlace::connack, property_value_invalid},
      {"28 02", PropertyPlace::connack, property_value_invalid},
      {"29 02", PropertyPlace::connack, property_value_invalid},
      {"2a 02", PropertyPlace::connack, property_value_invalid},
      {"21 0000", PropertyPlace::connect, property_value_invalid},
      {"27 00000000", PropertyPlace::connack, property_value_invalid},
      {"23 0000", PropertyPlace::publish_from_client, topic_alias_zero},
      {"0b 00", PropertyPlace::subscribe, property_value_invalid},
      {"0b 8000", PropertyPlace::subscribe, integer_not_minimal},
      {"0b 8080808001", PropertyPlace::subscribe, integer_over_four_bytes},
      {"08 0000", PropertyPlace::will, response_topic_invalid},
      {"08 0001 '+'", PropertyPlace::will, response_topic_invalid},
      {"08 0001 ff", PropertyPlace::will, string_not_utf8},
      {"03 0001 00", PropertyPlace::will, string_contains_null},
      {"26 0001 ff 0000", PropertyPlace::will, string_not_utf8},  // [MQTT-1.5.7-1]
      {"26 0000 0001 ff", PropertyPlace::will, string_not_utf8},
      {"16 0001 'd'", PropertyPlace::auth, authentication_data_without_method},
      {"16 0001 'd' 15 0001 'm'", PropertyPlace::auth, none},
      {"11 00000000", PropertyPlace::connect, none},
      {"22 0000", PropertyPlace::connect, none},
      {"13 0000", PropertyPlace::connack, none},
      {"09 0000", PropertyPlace::will, none},
      {"0b ffffff7f", PropertyPlace::subscribe, none},
      {"a600 0000 0000", PropertyPlace::will, integer_not_minimal},
  };
  for (const auto& one : cases) EXPECT_EQ(check(bytes(one.encoded), one.place), one.error) << one.encoded;
}

TEST(Properties, a_writer_and_a_view_are_each_others_inverse) {
  std::byte buffer[256];
  PropertyWriter writer(buffer);
  writer.add(PropertyId::payload_format_indicator, 1)
      .add(PropertyId::message_expiry_interval, 70'000)
      .add(PropertyId::topic_alias, 258)
      .add(PropertyId::subscription_identifier, 300)
      .add(PropertyId::content_type, "text")
      .add(PropertyId::correlation_data, std::string_view("\0\xff", 2))
      .add_user("k", "v")
      .add_user("", "");
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(hex(writer.encoded()), hex(bytes("01 01 02 00011170 23 0102 0b ac02 03 0004 'text' 09 0002 00ff "
                                             "26 0001 'k' 0001 'v' 26 0000 0000")));
  PropertiesView view;
  ASSERT_EQ(check_properties(writer.encoded(), PropertyPlace::publish_from_server, view), none);
  EXPECT_EQ(view.number(PropertyId::payload_format_indicator, 9), 1u);
  EXPECT_EQ(view.number(PropertyId::message_expiry_interval, 9), 70'000u);
  EXPECT_EQ(view.number(PropertyId::topic_alias, 9), 258u);
  EXPECT_EQ(view.number(PropertyId::subscription_identifier, 9), 300u);
  EXPECT_EQ(view.text(PropertyId::content_type), "text");
  EXPECT_EQ(view.find(PropertyId::correlation_data)->data().size(), 2u);
  EXPECT_EQ(view.find(PropertyId::user_property)->name, "k");
  EXPECT_EQ(view.find(PropertyId::user_property)->text, "v");
  EXPECT_EQ(view.number(PropertyId::receive_maximum, 9), 9u);
  EXPECT_EQ(view.text(PropertyId::reason_string), "");
  EXPECT_FALSE(view.find(PropertyId::response_topic).has_value());
  int users = 0;
  for (auto at = view.begin(); at != view.end(); at++) users += at->id == PropertyId::user_property;
  EXPECT_EQ(users, 2);
  // A view that was not decoded does not know what it lacks, and looks.
  const PropertiesView unchecked(writer.encoded());
  EXPECT_FALSE(unchecked.find(PropertyId::response_topic).has_value());
  EXPECT_EQ(unchecked.number(PropertyId::topic_alias, 9), 258u);
}

TEST(Properties, what_does_not_fit_or_has_another_kind_is_not_written) {
  std::byte buffer[6];
  PropertyWriter full(buffer);
  full.add(PropertyId::message_expiry_interval, 1).add(PropertyId::payload_format_indicator, 1);
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(full.size(), 5u);
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::topic_alias, 65'536).ok());
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::payload_format_indicator, 256).ok());
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::subscription_identifier, 268'435'456).ok());
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::content_type, 1u).ok());
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::topic_alias, "x").ok());
  EXPECT_FALSE(PropertyWriter(buffer).add(PropertyId::content_type, "too long").ok());
  EXPECT_FALSE(PropertyWriter(buffer).add_user("too", "long").ok());
  Bytes large(200'000);
  const std::string long_text(65'536, 'x');
  EXPECT_FALSE(PropertyWriter(large).add(PropertyId::content_type, long_text).ok());
  EXPECT_FALSE(PropertyWriter(large).add_user(long_text, "").ok());
  EXPECT_TRUE(PropertyWriter(large).add_user(std::string_view(long_text).substr(1), "").ok());
}

}  // namespace
}  // namespace fulmar::mqtt
