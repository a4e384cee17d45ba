#include "client/json_rewrite.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>

namespace fulmar {
namespace {

using testing::HasSubstr;

std::string rewritten(std::string_view text, JsonStyle style, std::size_t depth = 64) {
  std::string out;
  const auto wrong = rewrite_json_object(text, style, depth, out);
  return wrong ? "WRONG: " + *wrong : out;
}
std::string compact(std::string_view text) { return rewritten(text, JsonStyle::compact); }
std::string canonical(std::string_view text) { return rewritten(text, JsonStyle::canonical); }

TEST(JsonRewrite, compact_drops_white_space_and_nothing_else) {
  EXPECT_EQ(compact(" { \"b\" : [ 1 , 2.50, { } , [ ] ] ,\n\t\"a\": null, \"b\": true } \r\n"),
            R"({"b":[1,2.50,{},[]],"a":null,"b":true})");
  EXPECT_EQ(compact(R"({"n":[123456789012345678901234567890,0.10000000000000000000001,1E+2,-0,1e400]})"),
            R"({"n":[123456789012345678901234567890,0.10000000000000000000001,1E+2,-0,1e400]})");
}

TEST(JsonRewrite, escapes_what_must_be_escaped_and_nothing_else) {
  EXPECT_EQ(compact(R"({"\u0061\/\u00fc\ud83d\ude00":"\"\\\b\f\n\r\t\u0000\u001F\u007f"})"),
            "{\"a/\u00fc\U0001F600\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\"}");
}

TEST(JsonRewrite, canonical_sorts_names_at_every_level) {
  EXPECT_EQ(canonical(R"({"b":{"z":1,"y":[{"d":1,"c":2}]},"a":0,"ab":1,"a!":2})"),
            R"({"a":0,"a!":2,"ab":1,"b":{"y":[{"c":2,"d":1}],"z":1}})");
  EXPECT_EQ(canonical(R"({"a":2,"b":0,"a":1})"), R"({"a":2,"a":1,"b":0})")
      << "equal names stay in their order";
}

TEST(JsonRewrite, canonical_gives_equal_numbers_one_spelling) {
  EXPECT_EQ(canonical(R"({"n":[1,1.0,1e0,10E-1,-0,0.0,-0.0]})"), R"({"n":[1,1,1,1,0,0,0]})");
  EXPECT_EQ(canonical(R"({"n":[9223372036854775807,-9223372036854775808,18446744073709551615]})"),
            R"({"n":[9223372036854775807,-9223372036854775808,18446744073709551615]})");
  EXPECT_EQ(canonical(R"({"n":[9007199254740993,9007199254740992]})"),
            R"({"n":[9007199254740993,9007199254740992]})")
      << "neighbours that a double cannot tell apart";
  EXPECT_EQ(canonical(R"({"n":[1e18,9223372036854775808.0,18446744073709551616,1e20,0.10,1e-7,27.5]})"),
            R"({"n":[1000000000000000000,9223372036854775808,18446744073709551616,1e+20,0.1,1e-07,27.5]})");
  EXPECT_EQ(canonical(R"({"n":[1e400,1e-400]})"), R"({"n":[1e400,1e-400]})") << "beyond a double: as written";
}

TEST(JsonRewrite, canonical_is_its_own_canonical_form) {
  for (const auto* text :
       {R"({"b":{"z":1.50,"y":[{"d":1e2,"c":"\u0041"}]},"a":0})", R"({})", R"({"n":[1e400]})"}) {
    const auto once = canonical(text);
    EXPECT_EQ(canonical(once), once);
  }
}

// The same random value, spelled in as many ways as JSON has.
class Spelling {
 public:
  Spelling(std::uint64_t value, std::uint64_t manner) : value_(value), manner_(manner) {}

  std::string object(int depth) {
    std::vector<std::string> members;
    const auto count = value_() % 5;
    for (std::uint64_t i = 0; i < count; ++i) {
      auto member = string(std::to_string(i) + letters());
      member += space() + ":" + space();
      members.push_back(member + value(depth));
    }
    std::ranges::shuffle(members, manner_);
    return "{" + joined(members) + "}";
  }

 private:
  std::string value(int depth) {
    switch (value_() % (depth > 0 ? 6 : 4)) {
      case 0: return value_() % 2 ? "true" : "null";
      case 1: return number(static_cast<std::int64_t>(value_()) >> (value_() % 64));
      case 2: return fraction(static_cast<double>(value_() % 1'000'000) / 8);
      case 3: return string(letters());
      case 4: return object(depth - 1);
      default: break;
    }
    std::vector<std::string> elements;
    const auto count = value_() % 4;
    for (std::uint64_t i = 0; i < count; ++i) elements.push_back(value(depth - 1));
    return "[" + joined(elements) + "]";
  }
  std::string joined(const std::vector<std::string>& parts) {
    std::string text = space();
    for (const auto& part : parts)
      text += (text.find_first_not_of(" \n\t") == std::string::npos ? "" : ",") + space() + part + space();
    return text;
  }
  std::string number(std::int64_t number) {
    auto text = std::to_string(number);
    if (std::abs(number) >= std::int64_t{1} << 53) return text;  // with a fraction it would be another double
    if (number != 0 && text.ends_with('0') && manner_() % 2) return text.substr(0, text.size() - 1) + "e1";
    return manner_() % 2 ? text : text + ".000";
  }
  std::string fraction(double number) {
    char text[64];
    std::snprintf(text, sizeof text, manner_() % 2 ? "%.10f" : "%.17e", number);
    return text;
  }
  std::string letters() {
    std::string text;
    constexpr std::array<std::string_view, 6> some{"a", "Z", "\"", "\n", "\u00e9", "/"};
    for (auto i = value_() % 6; i > 0; --i) text += some[value_() % some.size()];
    return text;
  }
  std::string string(std::string_view text) {
    std::string out = "\"";
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04X", c);
      if (c >= 0x80) {
        out += manner_() % 2 ? std::string(text.substr(i, 2)) : "\\u00E9";
        ++i;
      } else if (c < 0x20 || c == '"' || manner_() % 4 == 0) {
        out += escape;
      } else if (c == '/' && manner_() % 2) {
        out += "\\/";
      } else {
        out += text[i];
      }
    }
    return out + "\"";
  }
  std::string space() {
    constexpr std::array<std::string_view, 4> some{"", " ", "\n", "\t  "};
    return std::string(some[manner_() % some.size()]);
  }

  std::mt19937_64 value_, manner_;
};

TEST(JsonRewrite, canonical_is_one_text_for_one_value_however_it_is_spelled) {
  std::set<std::string> different;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const auto first = canonical(Spelling(seed, 1).object(4));
    ASSERT_THAT(first, testing::StartsWith("{"));
    different.insert(first);
    for (std::uint64_t manner = 2; manner < 8; ++manner) {
      const auto text = Spelling(seed, manner).object(4);
      ASSERT_EQ(canonical(text), first) << "seed " << seed << " manner " << manner << ": " << text;
    }
  }
  EXPECT_GT(different.size(), 300u) << "the values differ: it is not one text for all";
}

TEST(JsonRewrite, says_what_is_not_an_object) {
  EXPECT_EQ(compact(""), "WRONG: is not a JSON object");
  EXPECT_EQ(compact("[1]"), "WRONG: is not a JSON object");
  EXPECT_THAT(compact("{\"a\":1"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(compact("{} {}"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(compact("{},\"id\":1"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(compact("{\"a\":\"\xff\"}"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(compact(R"({"a":"\ud800"})"), HasSubstr("is not valid JSON"));
  EXPECT_EQ(rewritten(R"({"a":[1]})", JsonStyle::compact, 2), R"({"a":[1]})");
  EXPECT_THAT(rewritten(R"({"a":[[1]]})", JsonStyle::compact, 2), HasSubstr("at most 2 levels"));
}

TEST(JsonRewrite, seconds_have_a_fraction_and_no_exponent) {
  const auto seconds = [](double value) {
    std::string out;
    append_json_seconds(out, value);
    return out;
  };
  EXPECT_EQ(seconds(1'700'000'000), "1700000000.0");
  EXPECT_EQ(seconds(1'700'000'000.25), "1700000000.25");
  EXPECT_EQ(seconds(1e-7), "0.0000001");
  EXPECT_EQ(seconds(-0.5), "-0.5");
  EXPECT_EQ(seconds(1.7976931348623157e308).size(), 311u);
  EXPECT_EQ(std::strtod(seconds(5e-324).c_str(), nullptr), 5e-324);
}

}  // namespace
}  // namespace fulmar
