#include "fulmar/mqtt/topic.hpp"

#include <gtest/gtest.h>

#include <string>

namespace fulmar::mqtt {
namespace {

using namespace std::string_literals;

std::string utf8(char32_t c) {
  std::string text;
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xc0 | c >> 6);
    text += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xe0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    text += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    text += static_cast<char>(0xf0 | c >> 18);
    text += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    text += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    text += static_cast<char>(0x80 | (c & 0x3f));
  }
  return text;
}

TEST(Utf8, every_code_point_but_null_and_surrogates_is_valid_MQTT_1_5_4_1_MQTT_1_5_4_2) {
  for (char32_t c = 0; c <= 0x110005; ++c) {
    const bool valid = c != 0 && !(c >= 0xd800 && c <= 0xdfff) && c <= 0x10ffff;
    ASSERT_EQ(is_valid_utf8(utf8(c)), valid) << std::hex << static_cast<unsigned>(c);
  }
}

TEST(Utf8, overlong_stray_and_cut_sequences_are_invalid_at_every_place_of_a_word) {
  const std::string bad[] = {"\xc0\x80"s,
                             "\xc1\xbf"s,
                             "\xe0\x80\x80"s,
                             "\xe0\x9f\xbf"s,
                             "\xf0\x80\x80\x80"s,
                             "\xf0\x8f\xbf\xbf"s,
                             "\xf5\x80\x80\x80"s,
                             "\x80"s,
                             "\xbf"s,
                             "\xc3"s,
                             "\xe2\x82"s,
                             "\xf0\x9f\x92"s,
                             "\xc3("s,
                             "\xe2(\x82"s,
                             "\xff"s,
                             "\xfe"s,
                             "\0"s,
                             "\xed\xa0\x80"s};
  for (const auto& sequence : bad) {
    for (std::size_t before = 0; before < 20; ++before) {
      for (const std::size_t after : {0u, 1u, 7u, 9u}) {
        const auto text = std::string(before, 'a') + sequence + std::string(after, 'b');
        EXPECT_FALSE(is_valid_utf8(text)) << before << ' ' << after << ' ' << sequence;
      }
    }
  }
}

TEST(Utf8, ascii_of_every_length_is_valid) {
  for (std::size_t size = 0; size < 100; ++size) EXPECT_TRUE(is_valid_utf8(std::string(size, '~')));
}

TEST(Utf8, a_byte_order_mark_is_data_MQTT_1_5_4_3) {
  EXPECT_TRUE(
      is_valid_utf8("\xef\xbb\xbf"
                    "a"));
  EXPECT_FALSE(matches("a",
                       "\xef\xbb\xbf"
                       "a"));
}

TEST(TopicName, one_character_to_65535_bytes_MQTT_4_7_3_1_MQTT_4_7_3_3) {
  EXPECT_EQ(check_topic_name(""), TopicError::empty);
  EXPECT_EQ(check_topic_name("a"), TopicError::none);
  EXPECT_EQ(check_topic_name("/"), TopicError::none);
  EXPECT_EQ(check_topic_name("a b/\xc3\xa9"), TopicError::none);
  EXPECT_EQ(check_topic_name(std::string(65'535, 'a')), TopicError::none);
  EXPECT_EQ(check_topic_name(std::string(65'536, 'a')), TopicError::too_long);
}

TEST(TopicName, wildcards_null_and_ill_formed_text_are_found_at_every_place_MQTT_4_7_1_1_MQTT_4_7_3_2) {
  for (std::size_t size = 1; size < 40; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      std::string name(size, 'x');
      name[at] = '+';
      EXPECT_EQ(check_topic_name(name), TopicError::wildcard_in_name) << size << ' ' << at;
      name[at] = '#';
      EXPECT_EQ(check_topic_name(name), TopicError::wildcard_in_name) << size << ' ' << at;
      name[at] = '\0';
      EXPECT_EQ(check_topic_name(name), TopicError::contains_null) << size << ' ' << at;
      name[at] = '\xff';
      EXPECT_EQ(check_topic_name(name), TopicError::not_utf8) << size << ' ' << at;
      for (const char near : {'"', '$', '*', ',', '\x01', '\x7f'}) {
        name[at] = near;
        EXPECT_EQ(check_topic_name(name), TopicError::none) << size << ' ' << at << ' ' << near;
      }
      EXPECT_EQ(check_topic_name(name + "\xc3\xa9+"), TopicError::wildcard_in_name);
    }
  }
}

TEST(TopicFilter, wildcards_fill_whole_levels_and_hash_is_last_MQTT_4_7_1_1_MQTT_4_7_1_2) {
  for (const auto* good :
       {"#", "+", "a/#", "+/+/#", "/+", "+/", "//", "a/+/b", "$SYS/#", "+/tennis/#", "a"}) {
    EXPECT_EQ(check_topic_filter(good), TopicError::none) << good;
  }
  for (const auto* bad : {"a#", "#/a", "a/#/b", "##", "a/b#", "#a"}) {
    EXPECT_EQ(check_topic_filter(bad), TopicError::misplaced_hash) << bad;
  }
  for (const auto* bad : {"a+", "+a", "a/+b", "++", "a/b+/c"}) {
    EXPECT_EQ(check_topic_filter(bad), TopicError::misplaced_plus) << bad;
  }
  EXPECT_EQ(check_topic_filter(""), TopicError::empty);
  EXPECT_EQ(check_topic_filter("a\0b"s), TopicError::contains_null);
  EXPECT_EQ(check_topic_filter("\xff"), TopicError::not_utf8);
  EXPECT_EQ(check_topic_filter(std::string(65'536, 'a')), TopicError::too_long);
}

TEST(TopicFilter, a_share_has_a_plain_group_and_a_filter_MQTT_4_8_2_1_MQTT_4_8_2_2) {
  for (const auto* good :
       {"$share/g/a", "$share/g/#", "$share/group/+/x", "$share/g//", "$shared/a", "$share/g/$share"}) {
    EXPECT_EQ(check_topic_filter(good), TopicError::none) << good;
  }
  for (const auto* bad :
       {"$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"}) {
    EXPECT_EQ(check_topic_filter(bad), TopicError::bad_share) << bad;
  }
  EXPECT_EQ(check_topic_filter("$share/g/a#"), TopicError::misplaced_hash);
}

TEST(TopicMatching, levels_and_wildcards) {
  struct Case {
    const char* filter;
    const char* name;
    bool match;
  };
  const Case cases[] = {
      {"a", "a", true},           {"a", "b", false},        {"a", "A", false},
      {"a", "a/", false},         {"a/", "a", false},       {"a/", "a/", true},
      {"/a", "a", false},         {"/a", "/a", true},       {"a/b", "a/b", true},
      {"a/b", "a/bc", false},     {"a/bc", "a/b", false},   {"#", "a", true},
      {"#", "a/b/c", true},       {"#", "/", true},         {"a/#", "a", true},
      {"a/#", "a/", true},        {"a/#", "a/b/c", true},   {"a/#", "ab", false},
      {"a/#", "b/a", false},      {"+", "a", true},         {"+", "a/b", false},
      {"+", "/a", false},         {"+/+", "/a", true},      {"/+", "/a", true},
      {"/+", "/", true},          {"+/+", "/", true},       {"a/+", "a", false},
      {"a/+", "a/", true},        {"a/+/c", "a/b/c", true}, {"a/+/c", "a//c", true},
      {"a/+/c", "a/b/d", false},  {"a/+/#", "a", false},    {"a/+/#", "a/b", true},
      {"a/+/#", "a/b/c/d", true}, {"+/b", "a/b", true},     {"a/b/c", "a/b", false},
      {"a/b", "a/b/c", false},    {"//", "//", true},       {"/#", "/", true},
      {"/#", "a", false},
  };
  for (const auto& one : cases)
    EXPECT_EQ(matches(one.filter, one.name), one.match) << one.filter << " : " << one.name;
}

TEST(TopicMatching, a_leading_wildcard_does_not_match_dollar_topics_MQTT_4_7_2_1) {
  EXPECT_FALSE(matches("#", "$SYS/a"));
  EXPECT_FALSE(matches("+/a", "$SYS/a"));
  EXPECT_TRUE(matches("$SYS/#", "$SYS/a"));
  EXPECT_TRUE(matches("$SYS/+", "$SYS/a"));
  EXPECT_TRUE(matches("a/+", "a/$x"));
  EXPECT_FALSE(matches("$share/g/#", "$SYS/a"));
}

TEST(TopicMatching, the_group_of_a_share_is_skipped) {
  EXPECT_TRUE(matches("$share/g/a/+", "a/b"));
  EXPECT_FALSE(matches("$share/g/a/+", "b/b"));
  EXPECT_TRUE(matches("$share/g/#", "a"));
}

TEST(TopicMatching, compares_bytes_and_normalises_nothing_MQTT_4_7_3_4) {
  EXPECT_FALSE(matches("e\xcc\x81", "\xc3\xa9"));
  EXPECT_TRUE(matches("\xc3\xa9/+", "\xc3\xa9/\xe2\x82\xac"));
}

TEST(TopicError, every_error_has_its_text) {
  for (int i = 0; i <= static_cast<int>(TopicError::bad_share); ++i) {
    EXPECT_NE(to_string(static_cast<TopicError>(i)), "unknown") << i;
  }
}

}  // namespace
}  // namespace fulmar::mqtt
