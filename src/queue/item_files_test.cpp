#include "queue/item_files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <fstream>

#include "queue/model.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::queue {
namespace {

using testing::HasSubstr;

constexpr std::string_view established = R"(name: tasks
items:
- id: 3f2a9c1e
  type: task
  payload: {task_id: TASK-1}
  status: pending
  created_at: '2026-02-06T10:00:00.000000Z'
  priority: 5
  scheduled_at: null
  started_at: null
  completed_at: null
  retry_count: 0
  max_retries: 3
  error_message: null
  metadata: {}
max_size: null
default_max_retries: 3
)";

struct Read {
  Result<ReadSummary> summary;
  std::vector<ItemText> items;
};

Read read(std::string_view text, ReadOptions options = {}, std::string_view name = "q.yaml") {
  Read read{ReadSummary{}, {}};
  read.summary = read_items(text, name, options, [&](ItemText&& item) -> Result<void> {
    read.items.push_back(std::move(item));
    return {};
  });
  return read;
}

std::string error_of(std::string_view text, std::string_view name = "q.yaml") {
  const auto result = read(text, {}, name).summary;
  return result ? "no error" : result.error().message;
}

std::string written(const std::vector<ItemText>& items, ItemFormat format, const DocumentHead& head) {
  std::string text;
  ItemWriter writer(
      format,
      [&](std::string_view piece) -> Result<void> {
        text += piece;
        return {};
      },
      head);
  for (const auto& item : items) EXPECT_TRUE(writer.write(item));
  EXPECT_TRUE(writer.finish());
  return text;
}

Time at(std::string_view text) { return parse_time(text).value(); }

Item full_item() {
  Item item;
  item.id = "0G2M7QXYZABCD";
  item.type = "resize image";
  item.payload =
      R"({"a": 1, "b": [true, null, 1.50, -0.0, 1e400, 12345678901234567890], "": {"x": "null", "z": "a: b"}})";
  item.status = Status::completed;
  item.priority = -7;
  item.created_at = at("2026-02-06T10:00:00.123456Z");
  item.scheduled_at = at("2026-02-06T10:00:01Z");
  item.started_at = at("2026-02-06T10:00:02Z");
  item.completed_at = at("2026-02-06T10:00:03Z");
  item.retry_count = 2;
  item.max_retries = 9;
  item.error_message = "it's \"bad\": # no\n\ttab \xE2\x80\xA8 \xF0\x9F\x98\x80 end ";
  item.metadata =
      R"({"yes": "no", "2026-01-01": "2026-01-01", "~": "~", "k": "\u0000\u0004\u0085\ufeff\b\f"})";
  item.result = R"(["done", {"w": 3}])";
  item.unique_key = "007";
  item.depends_on = {"1e3", "0x1F", "x-1"};
  return item;
}

TEST(ItemFiles, the_established_format_comes_out_as_it_went_in) {
  const auto in = read(established);
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  ASSERT_EQ(in.items.size(), 1u);
  const auto& item = in.items[0].item;
  EXPECT_EQ(in.summary->head.name, "tasks");
  EXPECT_EQ(in.summary->converted, 0u);
  EXPECT_EQ(item.id, "3f2a9c1e");
  EXPECT_EQ(item.payload, R"({"task_id": "TASK-1"})");
  EXPECT_EQ(item.priority, 5);
  EXPECT_EQ(item.created_at, at("2026-02-06T10:00:00Z"));
  EXPECT_EQ(written(in.items, ItemFormat::yaml, in.summary->head), established);
}

TEST(ItemFiles, every_field_survives_both_formats) {
  ItemText text;
  text.item = full_item();
  for (const auto format : {ItemFormat::yaml, ItemFormat::json_lines}) {
    const auto out = written({text}, format, {});
    const auto back = read(out, {.format = format});
    ASSERT_TRUE(back.summary) << back.summary.error().message << "\n" << out;
    ASSERT_EQ(back.items.size(), 1u);
    auto item = back.items[0].item;
    item.queue.clear();
    auto expected = full_item();
    EXPECT_EQ(item.error_message, expected.error_message) << out;
    EXPECT_EQ(item.payload, expected.payload) << out;
    // What JSON may write in two ways comes back in one of them.
    if (format == ItemFormat::yaml) {
      EXPECT_EQ(written({back.items[0]}, format, {}), out);
    }
    item.metadata = expected.metadata;
    EXPECT_EQ(item, expected) << out;
  }
}

TEST(ItemFiles, every_reader_of_yaml_takes_a_number_for_one) {
  ItemText text;
  text.item.id = "a";
  text.item.payload = R"({"a": 1e5, "b": -2.5E-3, "c": 1.0e+7, "d": 12})";
  const auto out = written({text}, ItemFormat::yaml, {});
  EXPECT_THAT(out, HasSubstr("payload: {a: 1.0e+5, b: -2.5e-3, c: 1.0e+7, d: 12}"));
  EXPECT_EQ(read(out).items.at(0).item.payload, R"({"a": 1e5, "b": -2.5e-3, "c": 1e7, "d": 12})");
  EXPECT_EQ(read("items: [{id: a, payload: {a: 5., b: .5e3, c: +7, d: 0x10, e: 5.e3, f: 007}}]")
                .items.at(0)
                .item.payload,
            R"({"a": 5.0, "b": 0.5e3, "c": 7, "d": 16, "e": 5e3, "f": "007"})");
}

TEST(ItemFiles, a_lease_is_kept_of_what_is_processing_only) {
  ItemText text;
  text.item = full_item();
  text.item.status = Status::processing;
  text.item.lease_owner = "worker one";
  text.item.lease_until = at("2026-02-06T11:00:00Z");
  text.lease_token = 0xFFFFFFFFFFFFFFFF;
  text.lease_request = "r 1";
  auto back = read(written({text}, ItemFormat::yaml, {}));
  ASSERT_TRUE(back.summary) << back.summary.error().message;
  EXPECT_EQ(back.items[0].lease_token, 0xFFFFFFFFFFFFFFFF);
  EXPECT_EQ(back.items[0].lease_request, "r 1");
  EXPECT_EQ(back.items[0].item.lease_owner, "worker one");
  EXPECT_EQ(back.items[0].item.lease_until, text.item.lease_until);
  text.item.status = Status::pending;
  back = read(written({text}, ItemFormat::yaml, {}));
  ASSERT_TRUE(back.summary);
  EXPECT_EQ(back.items[0].lease_token, 0u);
  EXPECT_EQ(back.items[0].item.lease_owner, "");
}

TEST(ItemFiles, settings_pause_and_unknown_keys_are_kept) {
  const std::string text = R"(# Ours. Ask before you edit.

name: tasks
items:
- id: a
  payload: {n: 1}
  created_at: '2026-02-06T10:00:00Z'
  assignee: {name: Jo, since: 2026-02-06 10:00:00}
  tags: [x, 'y', "z\n"]
  sprint: 0x1F
  kind: !special thing
max_size: 10
default_max_retries: 5
paused: true
settings: {lease_s: 0.25, keep_failed_s: 60, keep_completed_s: null, durability: none}
owner: team a
)";
  const auto in = read(text, {.unknown_into_metadata = false});
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  const auto& head = in.summary->head;
  EXPECT_TRUE(head.paused);
  EXPECT_EQ(head.settings.max_size, 10u);
  EXPECT_EQ(head.settings.default_max_retries, 5);
  EXPECT_EQ(head.settings.lease, std::chrono::milliseconds(250));
  EXPECT_EQ(head.settings.keep_failed, std::chrono::seconds(60));
  EXPECT_EQ(head.settings.keep_completed, std::nullopt);
  EXPECT_EQ(head.settings.durability, Durability::none);
  EXPECT_FALSE(in.items[0].max_retries_given);
  const auto out = written(in.items, ItemFormat::yaml, head);
  for (const auto* line :
       {"# Ours. Ask before you edit.\n\nname: tasks\n",
        "  assignee: {name: Jo, since: 2026-02-06 10:00:00}\n", "  tags: [x, 'y', \"z\\n\"]\n",
        "  sprint: 0x1F\n", "  kind: !special thing\n", "\nowner: team a\n", "  lease_s: 0.25\n"}) {
    EXPECT_THAT(out, HasSubstr(line));
  }
  const auto again = read(out, {.unknown_into_metadata = false});
  ASSERT_TRUE(again.summary) << again.summary.error().message;
  EXPECT_EQ(written(again.items, ItemFormat::yaml, again.summary->head), out);
}

TEST(ItemFiles, an_import_puts_unknown_keys_into_the_metadata) {
  const auto in = read("items:\n- {id: a, title: Fix it, metadata: {by: me, title: old}, size: 3}\n");
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  EXPECT_EQ(in.items[0].item.metadata, R"({"by": "me", "title": "old", "size": 3})");
}

TEST(ItemFiles, older_shapes_are_read) {
  const auto in = read(R"(
tasks:
  - task_id: TASK-1
    title: Fix it
    priority: HIGH
    status: in_progress
    blockedBy: [TASK-0]
    created_at: 2026-02-06 10:00:00
  - id: b
    task_id: TASK-2
    priority: low
    dependencies: TASK-1
    created_at: 1770372000.5
  - payload: {n: 1}
)");
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  ASSERT_EQ(in.items.size(), 3u);
  const auto& first = in.items[0].item;
  EXPECT_EQ(first.id, "TASK-1");
  EXPECT_EQ(first.payload, R"({"task_id": "TASK-1"})");
  EXPECT_EQ(first.metadata, R"({"title": "Fix it"})");
  EXPECT_EQ(first.priority, 75);
  EXPECT_EQ(first.status, Status::processing);
  EXPECT_EQ(first.depends_on, std::vector<ItemId>{"TASK-0"});
  EXPECT_EQ(first.created_at, at("2026-02-06T10:00:00Z"));
  const auto& second = in.items[1].item;
  EXPECT_EQ(second.id, "b");
  EXPECT_EQ(second.payload, R"({"task_id": "TASK-2"})");
  EXPECT_EQ(second.depends_on, std::vector<ItemId>{"TASK-1"});
  EXPECT_EQ(second.created_at, at("2026-02-06T10:00:00.5Z"));
  EXPECT_EQ(second.priority, 25);
  EXPECT_EQ(in.items[2].item.id.size(), 13u);
  EXPECT_EQ(in.summary->converted, 4u);  // and the list's name
  EXPECT_THAT(in.summary->notes, testing::Contains("status in_progress is now processing"));
}

TEST(ItemFiles, the_top_may_be_a_list_or_queue_or_json) {
  for (const auto* text :
       {"- id: a\n- id: b\n", "queue:\n- id: a\n- id: b\n", "queue: jobs\nitems: [{id: a}, {id: b}]\n",
        R"([{"id": "a"}, {"id": "b"}])", "{\"id\":\"a\"}\n\n{\"id\":\"b\"}\n"}) {
    const auto in = read(text, {}, "standard input");
    ASSERT_TRUE(in.summary) << text << in.summary.error().message;
    EXPECT_EQ(in.items.size(), 2u) << text;
  }
}

TEST(ItemFiles, local_naive_times_are_utc_unless_asked_otherwise) {
  const std::string text = "items: [{id: a, created_at: '2026-07-06T10:00:00'}]";
  EXPECT_EQ(read(text).items.at(0).item.created_at, at("2026-07-06T10:00:00Z"));
  const char* const old = ::getenv("TZ");
  const std::string before = old ? old : "";
  ::setenv("TZ", "UTC-2", 1);  // two hours ahead
  ::tzset();
  EXPECT_EQ(read(text, {.local_times = true}).items.at(0).item.created_at, at("2026-07-06T08:00:00Z"));
  EXPECT_EQ(read("items: [{id: a, created_at: '2026-07-06T10:00:00+01:00'}]", {.local_times = true})
                .items.at(0)
                .item.created_at,
            at("2026-07-06T09:00:00Z"));
  old ? ::setenv("TZ", before.c_str(), 1) : ::unsetenv("TZ");
  ::tzset();
}

TEST(ItemFiles, a_missing_id_is_the_same_each_time_the_text_is_read) {
  const ReadOptions options{.now = at("2026-02-06T10:00:00Z")};
  const auto first = read("items: [{type: a}, {type: a}]", options);
  const auto second = read("items: [{type: a}, {type: a}]", options);
  ASSERT_EQ(first.items.size(), 2u);
  EXPECT_EQ(first.items[0].item.id, second.items[0].item.id);
  EXPECT_LT(first.items[0].item.id, first.items[1].item.id);
  EXPECT_LT(first.items[0].item.created_at, first.items[1].item.created_at);
}

TEST(ItemFiles, an_empty_text_is_an_empty_queue) {
  for (const auto* text : {"", "\n\n", "# nothing yet\n", "---\n", "items:\n", "items: []\n", "name: x\n"}) {
    const auto in = read(text);
    EXPECT_TRUE(in.summary) << text;
    EXPECT_EQ(in.items.size(), 0u);
  }
}

TEST(ItemFiles, errors_say_where_and_what_to_do) {
  EXPECT_THAT(error_of("items:\n- id: a\n  payload: {a: [1\n"), HasSubstr("q.yaml:4:1: this is not YAML"));
  EXPECT_EQ(error_of("items:\n- id: a\n  status: lost\n"),
            "q.yaml:3:11: status \"lost\" is none; it has to be pending, processing, completed, failed or "
            "cancelled");
  EXPECT_THAT(error_of("items:\n- id: a\n  priority: urgent\n"),
              HasSubstr("q.yaml:3:13: priority \"urgent\" is none"));
  EXPECT_THAT(error_of("items:\n- id: a\n  created_at: soon\n"),
              HasSubstr("q.yaml:3:15: created_at \"soon\""));
  EXPECT_THAT(error_of("items:\n- id: a\n- id: a\n"),
              HasSubstr("q.yaml:3:3: the id \"a\" is there a second time (first in line 2)"));
  EXPECT_THAT(error_of("items:\n- id: a\n  id: b\n"),
              HasSubstr("q.yaml:3:3: the key \"id\" is there a second time"));
  EXPECT_THAT(error_of("items:\n- id: a\n  payload: [1]\n"),
              HasSubstr("q.yaml:3:12: payload has to be a map"));
  EXPECT_THAT(error_of("items:\n- id: a\n  payload: {x: .nan}\n"), HasSubstr("q.yaml:3:16: .nan"));
  EXPECT_THAT(error_of("items:\n- id: a\n  depends_on: [a]\n"),
              HasSubstr("q.yaml:2:3: item a: dependencies form a cycle: a -> a"));
  EXPECT_THAT(error_of("items: {a: 1}\n"), HasSubstr("q.yaml:1:8: items has to be a list"));
  EXPECT_THAT(error_of("items: [x]\n"), HasSubstr("q.yaml:1:9: an item has to be a map"));
  EXPECT_THAT(error_of("hello\n"), HasSubstr("q.yaml:1:1: this is one text"));
  EXPECT_THAT(error_of("items: []\nsettings: {leese_s: 3}\n"),
              HasSubstr("q.yaml:2:12: settings has no \"leese_s\""));
  EXPECT_THAT(error_of("items: []\n--- \nitems: []\n"), HasSubstr("a second document begins there"));
  EXPECT_THAT(error_of("items: []\nx: \xff\n"), HasSubstr("q.yaml:2:4: the text is not UTF-8"));
  EXPECT_THAT(error_of("items: []\nx: a\x04z\n"), HasSubstr("q.yaml:2:5: a control character (0x04)"));
  for (const auto* text : {",aln", "]", "items: []\n]\n", "--- \n,\n--- \n"}) {
    EXPECT_THAT(error_of(text), HasSubstr("this is not YAML")) << text;
  }
  EXPECT_THAT(error_of("a: &x [*x]\n"), HasSubstr("the alias stands inside"));
  EXPECT_THAT(error_of("{\"id\":\"a\"}\n{\"id\":\"b\",}\n", "q.jsonl"),
              HasSubstr("q.jsonl:2:11: this is not JSON"));
  EXPECT_THAT(error_of("{\"id\":\"a\",\"priority\":1.5}\n", "q.jsonl"),
              HasSubstr("q.jsonl:1: priority \"1.5\""));
  EXPECT_THAT(error_of("{\"id\":\"a\",\n\"priority\":1}\n", "q.jsonl"),
              HasSubstr("each line has to be one whole object"));
}

TEST(ItemFiles, aliases_are_written_out_and_cannot_blow_up) {
  const auto in = read("items:\n- {id: a, metadata: &m {k: v}}\n- {id: b, metadata: *m}\n");
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  EXPECT_EQ(in.items[1].item.metadata, R"({"k": "v"})");
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const auto name = std::to_string(i), one = "*a" + std::to_string(i - 1);
    bomb.append("a").append(name).append(": &a").append(name).append(" [").append(one);
    for (int j = 1; j < 8; ++j) bomb.append(", ").append(one);
    bomb += "]\n";
  }
  EXPECT_THAT(error_of(bomb), HasSubstr("aliases of this document stand for too much"));
}

TEST(ItemFiles, every_escape_of_yaml_is_a_character) {
  const auto in =
      read("items: [{id: a, error_message: \"\\N\\_\\L\\P\\x41\\u00e9\\U0001F600\\0\\a\\e\\v\\/\"}]");
  ASSERT_TRUE(in.summary) << in.summary.error().message;
  EXPECT_EQ(in.items[0].item.error_message, std::string_view("\xC2\x85\xC2\xA0\xE2\x80\xA8\xE2\x80\xA9"
                                                             "A\xC3\xA9\xF0\x9F\x98\x80\0\a\x1b\v/",
                                                             22));
  EXPECT_EQ(read(written(in.items, ItemFormat::yaml, {})).items.at(0).item.error_message,
            in.items[0].item.error_message);
}

TEST(ItemFiles, nesting_is_bounded) {
  const std::string deep =
      "items:\n- id: a\n  payload: {x: " + std::string(60, '[') + std::string(60, ']') + "}\n";
  EXPECT_EQ(error_of(deep), "no error");
  EXPECT_THAT(error_of("a: " + std::string(100, '[') + std::string(100, ']')), HasSubstr("levels deep"));
  EXPECT_NE(error_of("a: " + std::string(100'000, '[')), "no error");
  EXPECT_NE(error_of("{\"a\": " + std::string(100'000, '['), "q.jsonl"), "no error");
}

TEST(ItemFiles, a_payload_of_a_mebibyte_and_long_keys_come_back) {
  ItemText text;
  text.item.id = "a";
  text.item.payload = R"({")" + std::string(2000, 'k') + R"(": ")" + std::string(1'000'000, 'v') + R"("})";
  text.item.metadata =
      R"({"x": {")" + std::string(1500, ' ') + R"(": [{")" + std::string(1500, ':') + R"(": 1}]}})";
  for (const auto format : {ItemFormat::yaml, ItemFormat::json_lines}) {
    const auto back = read(written({text}, format, {}), {.format = format});
    ASSERT_TRUE(back.summary) << back.summary.error().message;
    EXPECT_TRUE(back.items[0].item.payload == text.item.payload);
    EXPECT_TRUE(back.items[0].item.metadata == text.item.metadata);
  }
  text.item.payload = R"({"v":")" + std::string(2'000'000, 'v') + R"("})";
  const auto back = read(written({text}, ItemFormat::yaml, {}));
  ASSERT_FALSE(back.summary);
  EXPECT_THAT(back.summary.error().message, HasSubstr("at most 1048576 are allowed"));
}

TEST(ItemFiles, a_payload_at_the_bound_does_not_grow_over_it) {
  ItemText text;
  text.item.id = "a";
  std::string& payload = text.item.payload = R"({"v":[0)";
  while (payload.size() + 4 <= Limits::payload_bytes) payload += ",0";
  payload += "]}";
  const auto back = read(written({text}, ItemFormat::yaml, {}));
  ASSERT_TRUE(back.summary) << back.summary.error().message;
  EXPECT_TRUE(back.items[0].item.payload == payload);
}

TEST(ItemFiles, the_sinks_error_ends_the_reading) {
  int seen = 0;
  const auto result = read_items(established, "q.yaml", {}, [&](ItemText&&) -> Result<void> {
    ++seen;
    return fail(Errc::queue_full, "full");
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::queue_full);
  EXPECT_EQ(seen, 1);
}

TEST(ItemFiles, a_file_is_written_whole_or_not_at_all) {
  const test::TempDir directory;
  const auto path = directory / "out.yaml";
  const auto one = [](ItemWriter& writer) { return writer.write(full_item()); };
  const auto broken = [](ItemWriter& writer) -> Result<void> {
    static_cast<void>(writer.write(full_item()));
    return fail(Errc::cancelled, "no more");
  };
  EXPECT_EQ(write_item_file(path, ItemFormat::yaml, false, {}, one).value(), 1u);
  const auto again = write_item_file(path, ItemFormat::yaml, false, {}, one);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::already_exists);
  EXPECT_FALSE(write_item_file(path, ItemFormat::yaml, true, {}, broken));
  const auto back = read_item_file(path, {}, [](ItemText&&) { return Result<void>{}; });
  ASSERT_TRUE(back);
  EXPECT_EQ(back->items, 1u);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(directory.path())) ++files;
  EXPECT_EQ(files, 1u);
  EXPECT_FALSE(write_item_file("/nowhere/at/all", ItemFormat::yaml, true, {}, one));
}

TEST(ItemFiles, a_missing_file_and_a_directory_are_errors) {
  const test::TempDir directory;
  const auto sink = [](ItemText&&) { return Result<void>{}; };
  EXPECT_EQ(read_item_file(directory / "none", {}, sink).error().code, Errc::not_found);
  EXPECT_EQ(read_item_file(directory.path(), {}, sink).error().code, Errc::io_error);
}

}  // namespace
}  // namespace fulmar::queue
