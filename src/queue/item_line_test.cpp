#include "queue/item_line.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "queue/model.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

const Time now = *parse_time("2026-02-06T10:00:00Z");

Result<NewItem> item_of(std::string_view line, const NewItem& defaults = {}) {
  return item_of_line(line, defaults, now);
}
std::string error_of(std::string_view line) {
  const auto item = item_of(line);
  return item ? "no error" : item.error().message;
}

TEST(ItemLine, members_are_kept_as_they_are_written) {
  EXPECT_THAT(members_of(R"({ "a" : {"x":[1,2,{"y":"}"}]} , "b":"q\"{,", "c":1e400,"d":[],"e":null })"),
              ElementsAre(Pair("a", R"({"x":[1,2,{"y":"}"}]})"), Pair("b", R"("q\"{,")"), Pair("c", "1e400"),
                          Pair("d", "[]"), Pair("e", "null")));
  EXPECT_THAT(members_of("{}"), IsEmpty());
}

TEST(ItemLine, says_what_an_item_is) {
  const auto item = item_of(
      R"({"payload":{"n":12345678901234567890123},"type":"resize","priority":"high","in":"5m","max_retries":5,)"
      R"("metadata":{"by":"me"},"unique_key":"k","depends_on":["A","B"],"id":"C"})");
  ASSERT_TRUE(item) << item.error().message;
  EXPECT_EQ(item->payload, R"({"n":12345678901234567890123})") << "the number is not rounded";
  EXPECT_EQ(item->type, "resize");
  EXPECT_EQ(item->priority, 75);
  EXPECT_EQ(item->scheduled_at, now + 5min);
  EXPECT_EQ(item->max_retries, 5);
  EXPECT_EQ(item->metadata, R"({"by":"me"})");
  EXPECT_EQ(item->unique_key, "k");
  EXPECT_THAT(item->depends_on, ElementsAre("A", "B"));
  EXPECT_EQ(item->id, "C");
}

TEST(ItemLine, takes_from_the_options_what_it_does_not_say) {
  const auto item = item_of(R"({"priority":-3,"at":"2026-02-06T12:00:00+01:00","depends_on":"A"})",
                            {.type = "resize", .payload = R"({"x":1})", .priority = 9});
  ASSERT_TRUE(item) << item.error().message;
  EXPECT_EQ(item->type, "resize");
  EXPECT_EQ(item->payload, R"({"x":1})");
  EXPECT_EQ(item->priority, -3);
  EXPECT_EQ(item->scheduled_at, now + 1h);
  EXPECT_THAT(item->depends_on, ElementsAre("A"));
}

TEST(ItemLine, mistakes_name_the_member_and_what_it_should_be) {
  EXPECT_THAT(error_of("hello"), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of("[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(R"({"payload":)"), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(R"({"payload":7})"), HasSubstr("payload \"7\" is not a JSON object"));
  EXPECT_EQ(error_of(R"({"type":5})"), "type is 5; expected a string");
  EXPECT_EQ(error_of(R"({"priority":"urgent"})"),
            "priority is \"urgent\"; expected a whole number, or critical, high, medium or low");
  EXPECT_EQ(error_of(R"({"priority":1.5})"),
            "priority is 1.5; expected a whole number, or critical, high, medium or low");
  EXPECT_EQ(error_of(R"({"max_retries":0})"), "max_retries is 0; expected a whole number from 1 to 1000000");
  EXPECT_THAT(error_of(R"({"at":"tomorrow"})"), HasSubstr("expected a time in ISO 8601"));
  EXPECT_THAT(error_of(R"({"in":-5})"), HasSubstr("expected a time span"));
  EXPECT_EQ(error_of(R"({"depends_on":[1]})"), "depends_on is [1]; expected an id or a list of ids");
  EXPECT_EQ(error_of(R"({"payloads":{}})"), "unknown member 'payloads', did you mean 'payload'?");
  EXPECT_THAT(error_of(R"({"image":1})"), HasSubstr("unknown member 'image'; an item has payload, type"));
}

}  // namespace
}  // namespace fulmar::queue
