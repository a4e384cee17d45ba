#include "cli/format.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace fulmar::cli {
namespace {

using namespace std::string_literals;

// 2026-01-02 03:04:05.067890123 UTC
constexpr WallTime some_time{.seconds = 1'767'323'045, .nanoseconds = 67'890'123};

class FormatTest : public testing::Test {
 protected:
  FormatTest() {
    setenv("TZ", "UTC0", 1);
    tzset();
  }

  static std::string printed(const Format& format, const Message& message, bool end_of_line = true) {
    std::string out;
    format.render(message, some_time, end_of_line, out);
    return out;
  }
  static std::string printed(std::string_view text, const Message& message = one()) {
    const auto format = Format::compile(text);
    return format ? printed(*format, message, false) : "refused: " + format.error().message;
  }
  static Message message(std::string_view topic, std::string_view payload) {
    Message made;
    made.topic = topic;
    made.payload = as_bytes(payload);
    return made;
  }
  static Message one() {
    auto made = message("ret/1", "one");
    made.retain = true;
    return made;
  }
};

TEST_F(FormatTest, payload_form_prints_bytes_untouched_and_nothing_for_an_empty_payload) {
  const auto binary = "a\0b\n\xff"s;
  EXPECT_EQ(printed(Format::payload(), message("t", binary)), binary + "\n");
  EXPECT_EQ(printed(Format::payload(), message("t", binary), false), binary);
  EXPECT_EQ(printed(Format::payload(), message("t", "")), "");
}

TEST_F(FormatTest, verbose_form_prints_the_topic_and_null_for_an_empty_payload) {
  EXPECT_EQ(printed(Format::verbose(), one()), "ret/1 one\n");
  EXPECT_EQ(printed(Format::verbose(), one(), false), "ret/1 one");
  EXPECT_EQ(printed(Format::verbose(), message("t", "")), "t (null)\n");
  EXPECT_EQ(printed(Format::verbose(), message("t", ""), false), "");
}

// The expectations of the next three tests were printed by mosquitto_sub 2.0.11.
TEST_F(FormatTest, fields_print_what_mosquitto_sub_prints) {
  EXPECT_EQ(printed("%t %p %q %r %l %x %X %%"), "ret/1 one 0 1 3 6f6e65 6F6E65 %");
  EXPECT_EQ(printed("%I|%U"), "2026-01-02T03:04:05+0000|1767323045.067890123");
  EXPECT_EQ(printed("@@|@N|@s|@Y@m@d|@Q"), "@|067890123|1767323045|20260102|%Q");
  EXPECT_EQ(printed(R"(\\|\a|\n|\r|\t|\v|\e|\0|)"), "\\|\a|\n|\r|\t|\v|\033|\0|"s);
  EXPECT_EQ(printed(""), "");
}

TEST_F(FormatTest, widths_and_flags_print_what_mosquitto_sub_prints) {
  EXPECT_EQ(printed("%10t|%-10t|%010l|%2.2t|%-5l|%5q|%10x|%10p|%-10p|"),
            "     ret/1|ret/1     |0000000003|re|3    |0|        6f|       one|one       |");
  EXPECT_EQ(printed("%5l|%05l|%-05l|%5r|%5I|%30I|%-30I|%5U"),
            "    3|00003|3    |1|2026-01-02T03:04:05+0000|      2026-01-02T03:04:05+0000|"
            "2026-01-02T03:04:05+0000      |1767323045.067890123");
  EXPECT_EQ(printed("%0t|%.2t|%3.1t|%10.2t|%.0t|%10.t|%5%|%.2p|%1.2x"),
            "ret/1|re|  r|        re||          |%|one| ");
  const auto payload = "a\0b\"\\\n\t\x01\x7f\xffz"s;
  const auto binary = message("b", payload);
  EXPECT_EQ(printed("%x|%3p|%20x|%-20X|", binary),
            "610062225c0a09017fff7a|a\0b|          610062225c|610062225C          |"s);
}

TEST_F(FormatTest, json_prints_what_mosquitto_sub_prints) {
  EXPECT_EQ(
      printed("%j"),
      R"({"tst":"2026-01-02T03:04:05.067890Z+0000","topic":"ret/1","qos":0,"retain":1,"payloadlen":3,"payload":"one"})");
  const auto json = message(
      "j", R"({"a": [1,2, {"b":null}],"s":"\u00e9\/x","f":27.50,"e":1e5,"neg":-0.1,"big":12345678901})");
  EXPECT_EQ(
      printed("%J", json).substr(42),
      R"("topic":"j","qos":0,"retain":0,"payloadlen":87,"payload":{"a":[1,2,{"b":null}],"s":"é/x","f":27.5,)"
      R"("e":100000,"neg":-0.1,"big":12345678901}})");
  EXPECT_EQ(printed("%j", message("j", R"({"a": "\u00e9"})")).substr(42),
            R"("topic":"j","qos":0,"retain":0,"payloadlen":15,"payload":"{\"a\": \"\\u00e9\"}"})");
  EXPECT_EQ(printed("%j", message("j", "")).substr(42),
            R"("topic":"j","qos":0,"retain":0,"payloadlen":0,"payload":null})");
  EXPECT_EQ(printed("%j", message("j", "\x01\n\"\\")).substr(42),
            R"("topic":"j","qos":0,"retain":0,"payloadlen":4,"payload":"\u0001\n\"\\"})");
}

TEST_F(FormatTest, pretty_json_prints_what_mosquitto_sub_prints) {
  const auto format = Format::compile("%J", true);
  ASSERT_TRUE(format);
  EXPECT_EQ(printed(*format, message("js", R"({"a":[],"o":{},"n":[1,[2,{"x":1}],{}]})")),
            "{\n\t\"tst\":\t\"2026-01-02T03:04:05.067890Z+0000\",\n\t\"topic\":\t\"js\",\n\t\"qos\":\t0,"
            "\n\t\"retain\":\t0,\n"
            "\t\"payloadlen\":\t38,\n\t\"payload\":\t{\n\t\t\"a\":\t[],\n\t\t\"o\":\t{\n\t\t},\n\t\t\"n\":\t["
            "1, [2, {\n"
            "\t\t\t\t\t\"x\":\t1\n\t\t\t\t}], {\n\t\t\t}]\n\t}\n}\n");
}

TEST_F(FormatTest, a_payload_that_is_not_json_is_told_and_leaves_its_place_empty) {
  const auto format = Format::compile("<%J>");
  ASSERT_TRUE(format);
  std::string out;
  EXPECT_FALSE(format->render(message("t", "one"), some_time, true, out));
  EXPECT_EQ(out, "<>\n");
}

TEST_F(FormatTest, mistakes_are_refused_with_the_character) {
  const auto refused = [](std::string_view text, std::string_view why) {
    const auto format = Format::compile(text);
    EXPECT_FALSE(format) << text;
    if (!format) {
      EXPECT_NE(format.error().message.find(why), std::string::npos) << format.error().message;
    }
  };
  refused("%z", "'z'");
  refused(R"(\q)", "'q'");
  refused("a%", "incomplete");
  refused("%5", "incomplete");
  refused("%-", "incomplete");
  refused("%.", "incomplete");
  refused("@", "incomplete");
  refused("\\", "incomplete");
  refused("%m", "not supported");
  refused("%99999999999999999999t", "width");
}

}  // namespace
}  // namespace fulmar::cli
