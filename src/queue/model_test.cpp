#include "queue/model.hpp"

#include <gmock/gmock.h>

#include <map>

#include "queue/random.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(QueueModel, allows_the_transitions_of_the_diagram_and_no_others) {
  const std::map<Verb, std::vector<Status>> allowed{
      {Verb::claim, {Status::pending}},
      {Verb::extend, {Status::processing}},
      {Verb::complete, {Status::processing}},
      {Verb::fail, {Status::processing}},
      {Verb::release, {Status::processing}},
      {Verb::cancel, {Status::pending, Status::processing}},
      {Verb::retry, {Status::failed, Status::cancelled}},
      {Verb::remove, {Status::pending, Status::completed, Status::failed, Status::cancelled}}};
  for (const auto& [verb, states] : allowed) {
    for (const auto from :
         {Status::pending, Status::processing, Status::completed, Status::failed, Status::cancelled}) {
      const auto checked = check_transition("i1", from, verb);
      EXPECT_EQ(checked.has_value(), std::ranges::find(states, from) != states.end())
          << to_string(verb) << " from " << to_string(from);
      if (checked) continue;
      EXPECT_EQ(checked.error().code, Errc::illegal_transition);
      EXPECT_THAT(checked.error().message, HasSubstr("i1"));
      EXPECT_THAT(checked.error().message, HasSubstr(std::string(to_string(from)) + " -> "));
    }
  }
}

TEST(QueueModel, the_back_off_doubles_to_its_bound_and_is_never_nothing) {
  Settings settings;
  settings.backoff_min = 1s;
  settings.backoff_max = 60s;
  RandomBits random(3);
  for (int attempt = 1; attempt < 80; ++attempt) {
    const Duration ceiling = attempt <= 6 ? Duration(1s) * (1 << (attempt - 1)) : Duration(60s);
    Duration least = ceiling, most{};
    for (int i = 0; i < 200; ++i) {
      const auto delay = backoff(settings, attempt, random());
      least = std::min(least, delay);
      most = std::max(most, delay);
    }
    EXPECT_GE(least, ceiling / 2);
    EXPECT_LE(most, ceiling);
    EXPECT_GT(most - least, ceiling / 4) << "no jitter";
  }
  EXPECT_EQ(backoff(settings, 3, 42), backoff(settings, 3, 42)) << "the same for the same seed";
}

TEST(QueueModel, the_last_attempt_fails_for_good) {
  const Time now{};
  for (int max_retries : {0, 1}) {
    EXPECT_EQ(after_failure(0, max_retries, {}, now, 1).status, Status::failed);
  }
  EXPECT_EQ(after_failure(0, 2, {}, now, 1).status, Status::pending);
  EXPECT_EQ(after_failure(1, 2, {}, now, 1).status, Status::failed);
  EXPECT_EQ(after_failure(0, 9, {}, now, 1, {}, true).status, Status::failed);
  EXPECT_EQ(after_failure(0, 9, {}, now, 1, 5s).scheduled_at, now + 5s);
}

TEST(QueueModel, finds_the_way_of_a_cycle) {
  std::map<ItemId, std::vector<ItemId>> graph{{"a", {"b", "c"}}, {"b", {}}, {"c", {"d"}}, {"d", {"x"}}};
  const auto of = [&](const ItemId& id) { return graph[id]; };
  EXPECT_THAT(find_cycle("x", graph["a"], of), ElementsAre("x", "c", "d", "x"));
  EXPECT_THAT(find_cycle("y", graph["a"], of), IsEmpty());
  const std::vector<ItemId> self{"s"};
  EXPECT_THAT(find_cycle("s", self, of), ElementsAre("s", "s"));
  EXPECT_THAT(cycle_error(std::vector<ItemId>{"A", "B", "A"}).message, HasSubstr("A -> B -> A"));
}

TEST(QueueModel, a_chain_as_long_as_a_queue_is_no_problem) {
  const auto of = [](const ItemId& id) {
    const int number = std::stoi(id);
    return number == 0 ? std::vector<ItemId>{} : std::vector<ItemId>{std::to_string(number - 1)};
  };
  const std::vector<ItemId> first{"100000"};
  EXPECT_THAT(find_cycle("100001", first, of), IsEmpty());
}

TEST(QueueModel, ids_read_back_and_sort_as_their_numbers) {
  RandomBits random(1);
  std::uint64_t last_number = 0;
  std::string last = id_text(0);
  for (int i = 0; i < 1000; ++i) {
    const auto number = last_number + (random() >> (random() % 50 + 14)) + 1;
    const auto text = id_text(number);
    EXPECT_EQ(id_number(text), number);
    EXPECT_LT(last, text);
    last = text;
    last_number = number >> 8;
    last = id_text(last_number);
  }
  EXPECT_EQ(id_number("7ZZZZZZZZZZZZ"), (std::uint64_t{1} << 63) - 1);
  for (const char* other :
       {"", "3f2a9c1e", "8000000000000", "00000000000U0", "0000000000l00", "00000000000000"}) {
    EXPECT_EQ(id_number(other), std::nullopt) << other;
  }
}

TEST(QueueModel, ids_grow_also_when_the_clock_goes_back) {
  IdSequence ids;
  const Time now(1770372000s);
  auto last = ids.next(now, 7);
  EXPECT_EQ(last >> 11, 1770372000'000'000u);
  for (const auto& time : {now, now - 1h, now + 1us}) {
    const auto next = ids.next(time, 0);
    EXPECT_GT(next, last);
    last = next;
  }
}

TEST(QueueModel, reads_times_as_they_are_written_elsewhere) {
  const Time time = std::chrono::sys_days{std::chrono::year{2026} / 2 / 6} + 10h + 1us;
  EXPECT_EQ(format_time(time), "2026-02-06T10:00:00.000001Z");
  for (const char* text :
       {"2026-02-06T10:00:00.000001Z", "2026-02-06T10:00:00.000001", "2026-02-06 10:00:00.0000014",
        "2026-02-06T12:30:00.000001+02:30", "2026-02-06T05:00:00.000001-0500"}) {
    EXPECT_EQ(parse_time(text), time) << text;
  }
  EXPECT_EQ(parse_time("2026-02-06T10:00:00"), time - 1us);
  EXPECT_EQ(parse_time("2026-02-06"), time - 1us - 10h);
  for (const char* text :
       {"", "2026", "2026-13-01", "2026-02-30", "2026-02-06T24:00:00", "2026-02-06T10:00:00.",
        "2026-02-06T10:00:00+2", "2026-02-06T10:00:00 UTC", "06.02.2026"}) {
    EXPECT_EQ(parse_time(text), std::nullopt) << text;
  }
}

TEST(QueueModel, reads_words_of_older_shapes) {
  EXPECT_EQ(parse_priority("CRITICAL"), 100);
  EXPECT_EQ(parse_priority("High"), 75);
  EXPECT_EQ(parse_priority("medium"), 50);
  EXPECT_EQ(parse_priority("LOW"), 25);
  EXPECT_EQ(parse_priority("-3"), -3);
  EXPECT_EQ(parse_priority("urgent"), std::nullopt);
  EXPECT_EQ(parse_priority("5x"), std::nullopt);
  EXPECT_EQ(parse_status("in_progress"), Status::processing);
  EXPECT_EQ(parse_status("DONE"), Status::completed);
  EXPECT_EQ(parse_status("lost"), std::nullopt);
}

TEST(QueueModel, refuses_what_is_too_large_or_not_json_and_says_why) {
  NewItem item;
  item.payload = "{\"d\":\"" + std::string(Limits::payload_bytes - 8, 'x') + "\"}";
  EXPECT_TRUE(validate(item));
  item.payload.insert(10, "x");
  EXPECT_EQ(validate(item).error().code, Errc::payload_too_large);
  EXPECT_THAT(validate(item).error().message, HasSubstr("1048577 bytes; at most 1048576"));
  for (const char* bad : {"", "[]", "1", "{", "{}}", "{\"a\":1,}", "{'a':1}", "{\"a\":\"\xff\"}", "null"}) {
    item.payload = bad;
    ASSERT_FALSE(validate(item)) << bad;
    EXPECT_THAT(validate(item).error().message, HasSubstr("payload")) << bad;
  }
  item.payload = " {\"a\": [1, 2.5e3, {\"b\": null}]} \n";
  EXPECT_TRUE(validate(item));
  for (const char* id : {"with space", "", "t\xc3\xa4g", "a\nb"}) {
    item.depends_on = {id};
    EXPECT_FALSE(validate(item)) << id;
  }
  item.depends_on = {"me"};
  item.id = "me";
  EXPECT_THAT(validate(item).error().message, HasSubstr("me -> me"));
  EXPECT_FALSE(validate_queue_name(""));
  EXPECT_FALSE(validate_queue_name("a/b"));
  EXPECT_TRUE(validate_queue_name("a.b-c_9"));
  EXPECT_FALSE(validate_lease(0us));
  EXPECT_TRUE(validate_result("12"));
  EXPECT_FALSE(validate_result("twelve"));
  Settings settings;
  settings.backoff_max = 1ms;
  EXPECT_FALSE(validate(settings));
}

TEST(QueueModel, cuts_an_error_message_at_a_whole_character) {
  std::string text(Limits::error_bytes - 1, 'x');
  text += "\xc3\xa4 and more";
  EXPECT_EQ(cut_error(text).size(), Limits::error_bytes - 1);
  EXPECT_EQ(cut_error("short"), "short");
}

TEST(Words, time_spans_are_read_and_written) {
  EXPECT_EQ(parse_duration("90"), 90s);
  EXPECT_EQ(parse_duration("1.5"), 1500ms);
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("1h30m"), 90min);
  EXPECT_EQ(parse_duration("1.5h"), 90min);
  EXPECT_EQ(parse_duration("2d"), 48h);
  EXPECT_EQ(parse_duration("1w"), 168h);
  EXPECT_EQ(parse_duration("0"), 0s);
  for (const auto* wrong :
       {"", "m", "-5m", "5x", "5m3", ".", "1..5s", "5 m", "inf", "nan", "1e9d", "99999999w"})
    EXPECT_FALSE(parse_duration(wrong)) << wrong;
  EXPECT_EQ(duration_text(90min), "1h 30m");
  EXPECT_EQ(duration_text(250ms), "250ms");
  EXPECT_EQ(duration_text(0s), "0s");
}

}  // namespace
}  // namespace fulmar::queue
