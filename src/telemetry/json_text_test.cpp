#include "telemetry/json_text.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

namespace fulmar::telemetry {
namespace {

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string number(auto value) {
  std::string out;
  append_json_number(out, value);
  return out;
}

TEST(JsonText, escapes_what_json_asks_for_and_nothing_else) {
  EXPECT_EQ(quoted(""), "\"\"");
  EXPECT_EQ(quoted("a/b'\x7f"), "\"a/b'\x7f\"");
}

TEST(JsonText, escapes_quotes_backslashes_and_control_characters) {
  EXPECT_EQ(quoted("\"\\\b\f\n\r\t"), R"("\"\\\b\f\n\r\t")");
  EXPECT_EQ(quoted(std::string_view("\0\x1f", 2)), R"("\u0000\u001f")");
}

TEST(JsonText, leaves_valid_utf8_as_it_is) { EXPECT_EQ(quoted("Grüße €𝄞"), "\"Grüße €𝄞\""); }

TEST(JsonText, replaces_each_byte_that_is_not_utf8) {
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(quoted("a\xff"
                   "b"),
            "\"a" + bad + "b\"");
  EXPECT_EQ(quoted("\xc3"), "\"" + bad + "\"") << "cut at the end";
  EXPECT_EQ(quoted("\xc0\xaf"), "\"" + bad + bad + "\"") << "over-long";
  EXPECT_EQ(quoted("\xe0\x80\xaf"), "\"" + bad + bad + bad + "\"") << "over-long";
  EXPECT_EQ(quoted("\xed\xa0\x80"), "\"" + bad + bad + bad + "\"") << "surrogate";
  EXPECT_EQ(quoted("\xf4\x90\x80\x80"), "\"" + bad + bad + bad + bad + "\"") << "above U+10FFFF";
  EXPECT_EQ(quoted("\xe2\x82"
                   "x"),
            "\"" + bad + bad + "x\"");
}

TEST(JsonText, writes_the_shortest_number_that_reads_back_as_the_same) {
  EXPECT_EQ(number(0.1), "0.1");
  EXPECT_EQ(number(5.0), "5");
  EXPECT_EQ(number(1e22), "1e+22");
  EXPECT_EQ(number(std::int64_t{-42}), "-42");
  EXPECT_EQ(number(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  for (const double d : {1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456.789012345678})
    EXPECT_EQ(std::strtod(number(d).c_str(), nullptr), d);
}

TEST(JsonText, tells_json_values_null_and_nonsense_apart) {
  for (const auto text : {"1", " {\"a\":[null,{\"b\":1e5}]} ", "\"x\"", "true", "[null]"})
    EXPECT_EQ(check_json(text), JsonKind::value) << text;
  for (const auto text : {"null", " null\n"}) EXPECT_EQ(check_json(text), JsonKind::null) << text;
  for (const auto text :
       {"", " ", "{", "[1,]", "{\"a\":1,}", "nan", "1 2", "{}x", "'a'", "[1]]", "\"\xff\"", "// c\n1"})
    EXPECT_EQ(check_json(text), JsonKind::invalid) << text;
  EXPECT_EQ(check_json(std::string(65, '[') + std::string(65, ']')), JsonKind::invalid);
  EXPECT_EQ(check_json(std::string(64, '[') + std::string(64, ']')), JsonKind::value);
}

}  // namespace
}  // namespace fulmar::telemetry
