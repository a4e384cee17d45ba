#include "client/envelope.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace fulmar {
namespace {

using testing::HasSubstr;

constexpr std::string_view full =
    R"({"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","type":"door.opened","ts":1700000000.25,"source":"hall",)"
    R"("data":{"door":3,"who":"Ada"},"correlate":"c1","reply_to":"answers/x"})";

std::string problem(std::string_view json) {
  const auto envelope = Envelope::parse(json);
  if (envelope) return "none";
  EXPECT_EQ(envelope.error().code, Errc::invalid_envelope);
  EXPECT_EQ(envelope.error().message.find('\n'), std::string::npos);
  return envelope.error().message;
}

TEST(Envelope, is_read_and_written_without_loss) {
  const auto envelope = Envelope::parse(full);
  ASSERT_TRUE(envelope) << envelope.error().message;
  EXPECT_EQ(envelope->id, "01ARZ3NDEKTSV4RRFFQ69G5FAV");
  EXPECT_EQ(envelope->type, "door.opened");
  EXPECT_EQ(envelope->ts, 1'700'000'000.25);
  EXPECT_EQ(envelope->source, "hall");
  EXPECT_EQ(envelope->data, R"({"door":3,"who":"Ada"})");
  EXPECT_EQ(envelope->correlate, "c1");
  EXPECT_EQ(envelope->reply_to, "answers/x");
  EXPECT_EQ(*envelope->to_json(), full);
}

TEST(Envelope, needs_no_more_than_id_type_time_and_data) {
  const auto envelope = Envelope::parse(R"({"data":{},"timestamp":5,"type":"t","id":"1","source":null})");
  ASSERT_TRUE(envelope) << envelope.error().message;
  EXPECT_EQ(envelope->ts, 5);
  EXPECT_EQ(envelope->source, "");
  EXPECT_EQ(*envelope->to_json(), R"({"id":"1","type":"t","ts":5.0,"source":"","data":{}})");
}

TEST(Envelope, prefers_ts_to_timestamp_in_either_order) {
  EXPECT_EQ(Envelope::parse(R"({"ts":1,"timestamp":2,"id":"1","type":"t","data":{}})")->ts, 1);
  EXPECT_EQ(Envelope::parse(R"({"timestamp":2,"ts":1,"id":"1","type":"t","data":{}})")->ts, 1);
}

TEST(Envelope, ignores_unknown_keys_whatever_they_hold) {
  const auto envelope = Envelope::parse(
      R"({"x":{"id":1,"data":[]},"id":"1","y":[{"type":0}],"type":"t","ts":1,"data":{"data":{"id":7}},"x":null})");
  ASSERT_TRUE(envelope) << envelope.error().message;
  EXPECT_EQ(envelope->data, R"({"data":{"id":7}})");
}

TEST(Envelope, keeps_every_digit_of_its_data_and_reads_the_time_exactly) {
  const auto envelope = Envelope::parse(
      R"({"id":"1","type":"t","ts":1763722868.1234567,"data":{"n": 12345678901234567890123, "x": 0.30000000000000004}})");
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->data, R"({"n":12345678901234567890123,"x":0.30000000000000004})");
  EXPECT_EQ(envelope->ts, 1763722868.1234567);
}

TEST(Envelope, names_the_key_that_is_wrong) {
  EXPECT_THAT(problem(R"({"type":"t","ts":1,"data":{}})"), HasSubstr("\"id\" is missing"));
  EXPECT_THAT(problem(R"({"id":"1","ts":1,"data":{}})"), HasSubstr("\"type\" is missing"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","data":{}})"), HasSubstr("\"ts\" is missing"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":1})"), HasSubstr("\"data\" is missing"));
  EXPECT_THAT(problem(R"({"id":1,"type":"t","ts":1,"data":{}})"), HasSubstr("\"id\" is not a string"));
  EXPECT_THAT(problem(R"({"id":null,"type":"t","ts":1,"data":{}})"), HasSubstr("\"id\" is not a string"));
  EXPECT_THAT(problem(R"({"id":"","type":"t","ts":1,"data":{}})"), HasSubstr("\"id\" is empty"));
  EXPECT_THAT(problem(R"({"id":"\u0000","type":"t","ts":1,"data":{}})"), HasSubstr("\"id\" contains U+0000"));
  EXPECT_THAT(problem(R"({"id":"1","type":{},"ts":1,"data":{}})"), HasSubstr("\"type\" is not a string"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":"1","data":{}})"), HasSubstr("\"ts\" is not a number"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":1e999,"data":{}})"), HasSubstr("\"ts\" is out of range"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":1,"data":[]})"), HasSubstr("\"data\" is not an object"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":1,"data":{},"reply_to":true})"),
              HasSubstr("\"reply_to\" is not a string"));
  EXPECT_THAT(problem(R"({"id":"1","type":"t","ts":1,"data":{},"id":"2"})"), HasSubstr("\"id\" comes twice"));
}

TEST(Envelope, turns_down_what_is_no_object_or_no_JSON) {
  EXPECT_THAT(problem(""), HasSubstr("not a JSON object"));
  EXPECT_THAT(problem("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(problem("\x01\x02"), HasSubstr("not a JSON object"));
  EXPECT_THAT(problem(full.substr(0, full.size() - 1)), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem(std::string(full) + "{}"), HasSubstr("not valid JSON"));
  std::string long_text(full);
  long_text.append(Envelope::size_max, ' ');
  EXPECT_THAT(problem(long_text), HasSubstr("16777216 bytes"));
}

std::string nested(std::size_t levels) {  // an object of so many levels
  std::string text = "{}";
  for (std::size_t i = 1; i < levels; ++i) text = "{\"a\":" + text + "}";
  return text;
}

TEST(Envelope, may_be_nested_64_deep_both_ways) {
  const auto with = [](const std::string& data) {
    return R"({"id":"1","type":"t","ts":1.0,"source":"","data":)" + data + "}";
  };
  const auto deepest = Envelope::parse(with(nested(63)));
  ASSERT_TRUE(deepest) << deepest.error().message;
  EXPECT_EQ(*deepest->to_json(), with(nested(63)));
  EXPECT_THAT(problem(with(nested(64))), HasSubstr("at most 64 levels"));
  auto deeper = *deepest;
  deeper.data = nested(64);
  ASSERT_FALSE(deeper.to_json());
}

TEST(Envelope, is_written_only_when_it_could_be_read) {
  const Envelope good{
      .id = "1", .type = "t", .ts = 1, .source = "s", .data = " {\n} ", .correlate = "", .reply_to = ""};
  EXPECT_EQ(*good.to_json(), R"({"id":"1","type":"t","ts":1.0,"source":"s","data":{}})");
  const auto why_not = [&](auto change) {
    Envelope bad = good;
    change(bad);
    const auto text = bad.to_json();
    return text ? "written: " + *text : text.error().message;
  };
  EXPECT_THAT(why_not([](Envelope& e) { e.id.clear(); }), HasSubstr("`id` is empty"));
  EXPECT_THAT(why_not([](Envelope& e) { e.type.clear(); }), HasSubstr("`type` is empty"));
  EXPECT_THAT(why_not([](Envelope& e) { e.source = "\xff"; }), HasSubstr("`source` is not valid UTF-8"));
  EXPECT_THAT(why_not([](Envelope& e) { e.reply_to = std::string(1, '\0'); }),
              HasSubstr("`reply_to` is not valid"));
  EXPECT_THAT(why_not([](Envelope& e) { e.ts = std::numeric_limits<double>::quiet_NaN(); }),
              HasSubstr("`ts`"));
  EXPECT_THAT(why_not([](Envelope& e) { e.data = "[]"; }), HasSubstr("`data` is not a JSON object"));
  EXPECT_THAT(why_not([](Envelope& e) { e.data = ""; }), HasSubstr("`data` is not a JSON object"));
  EXPECT_THAT(why_not([](Envelope& e) { e.data = "{},\"x\":1"; }), HasSubstr("`data` is not valid JSON"));
}

TEST(Envelope, of_many_messages_is_read_by_one_reader_without_leftovers) {
  EnvelopeReader reader(JsonStyle::canonical);
  ASSERT_TRUE(
      reader.read(R"({"id":"1","type":"t","ts":1,"source":"s","correlate":"c","data":{"seq":7,"a":1}})"));
  EXPECT_EQ(reader.sequence(), "7");
  EXPECT_EQ(reader.envelope().data, R"({"a":1,"seq":7})");
  EXPECT_FALSE(reader.read("{\"id\":\"2\""));
  ASSERT_TRUE(reader.read(R"({"id":"3","type":"t","ts":1,"data":{}})"));
  EXPECT_EQ(reader.sequence(), std::nullopt);
  EXPECT_EQ(reader.envelope().source, "");
  EXPECT_EQ(reader.envelope().correlate, "");
  EXPECT_EQ(reader.envelope().data, "{}");
}

TEST(Envelope, has_a_sequence_only_where_data_seq_is_written_as_an_integer) {
  EnvelopeReader reader(JsonStyle::canonical);
  const auto sequence = [&](std::string_view data) {
    EXPECT_TRUE(reader.read(R"({"id":"1","type":"t","ts":1,"seq":9,"data":)" + std::string(data) + "}"));
    return reader.sequence().value_or("none");
  };
  EXPECT_EQ(sequence(R"({"seq":0})"), "0");
  EXPECT_EQ(sequence(R"({"seq":-9223372036854775808})"), "-9223372036854775808");
  EXPECT_EQ(sequence(R"({"seq":18446744073709551615})"), "18446744073709551615");
  EXPECT_EQ(sequence(R"({"s\u0065q":5})"), "5");
  for (const auto* none : {R"({})", R"({"seq":1.0})", R"({"seq":"1"})", R"({"seq":true})", R"({"seq":null})",
                           R"({"seq":[1]})", R"({"seq":{"seq":1}})", R"({"x":{"seq":1}})",
                           R"({"x":[{"seq":1}]})", R"({"seq":18446744073709551616})"}) {
    EXPECT_EQ(sequence(none), "none") << none;
  }
}

TEST(Envelope, takes_another_member_and_keeps_all_that_it_had) {
  const auto more = with_member(R"(  {"id":"1","type":"t","ts":1,"data":{},"x":[1.50]})", "reply_to", "a\"b");
  EXPECT_EQ(more, R"(  {"reply_to":"a\"b","id":"1","type":"t","ts":1,"data":{},"x":[1.50]})");
  EXPECT_EQ(Envelope::parse(more)->reply_to, "a\"b");
}

TEST(Envelope, knows_which_keys_were_there_whatever_they_held) {
  EnvelopeReader reader(JsonStyle::compact);
  ASSERT_TRUE(reader.read(R"({"id":"1","type":"t","ts":1,"data":{},"reply_to":null,"correlate":""})"));
  EXPECT_TRUE(reader.has_reply_to() && reader.has_correlate());
  ASSERT_TRUE(reader.read(R"({"id":"1","type":"t","ts":1,"data":{"reply_to":1,"correlate":2}})"));
  EXPECT_FALSE(reader.has_reply_to() || reader.has_correlate());
}

TEST(Envelope, seconds_are_exact_to_the_microsecond) {
  EXPECT_EQ(seconds_of(WallTime(std::chrono::microseconds(1'700'000'000'123'456))), 1'700'000'000.123456);
}

}  // namespace
}  // namespace fulmar
