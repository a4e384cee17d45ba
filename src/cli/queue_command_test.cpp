// fulmar queue, as people and scripts use it: what it prints, and how it ends.

#include <SQLiteCpp/Database.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include <boost/json.hpp>

#include "cli/command_rig.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::ContainsRegex;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;
namespace json = boost::json;

std::vector<json::object> objects_of(const std::string& lines) {
  std::vector<json::object> all;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) all.push_back(json::parse(line).as_object());
  return all;
}

std::string without_end(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

class QueueCommandTest : public testing::Test {
 protected:
  QueueCommandTest() { use("sqlite:" + (directory_ / "queue.db").string()); }

  void use(const std::string& url) {
    url_ = url;
    setenv("FULMAR_QUEUE", url.c_str(), 1);
  }
  static Words argv_of(const Words& words) {
    Words argv{FULMAR_PROGRAM, "queue"};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  }
  Ran run(const Words& words, const fs::path& input = "/dev/null") {
    return Running(directory_, "run" + std::to_string(++runs_), argv_of(words), input).finish();
  }
  Running start(const std::string& name, const Words& words) {
    return Running(directory_, name, argv_of(words));
  }
  std::string ok(const Words& words, const fs::path& input = "/dev/null") {
    const auto ran = run(words, input);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return without_end(ran.out);
  }
  // The exit code, and the one line of the error.
  void expect_error(const Words& words, int code, const testing::Matcher<std::string>& text) {
    const auto ran = run(words);
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, StartsWith("Error: "));
    EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1) << ran.err;
    EXPECT_THAT(ran.err, text);
  }
  fs::path file(const std::string& name, const std::string& content, int mode = 0600) {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    chmod(path.c_str(), static_cast<mode_t>(mode));
    return path;
  }
  json::object stats() { return json::parse(ok({"stats", "--json"})).as_object(); }
  std::int64_t count(std::string_view state) { return stats().at(state).as_int64(); }
  json::object show(const std::string& id) { return json::parse(ok({"show", id, "--json"})).as_object(); }
  std::string claim(const Words& more = {}) {
    Words words{"next"};
    words.insert(words.end(), more.begin(), more.end());
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return ran.code == 0 ? std::string(json::parse(ran.out).at("lease").as_string()) : "";
  }
  void submit(int items, const std::string& type = "task") {
    std::string lines;
    for (int i = 0; i < items; ++i) lines += "{\"n\":" + std::to_string(i) + "}\n";
    ok({"add", "--payload-lines", "--type", type, "--file", file("lines", lines)});
  }

  test::TempDir directory_;
  std::string url_;
  int runs_ = 0;
};

// --- a life -----------------------------------------------------------------------------------------------------------

TEST_F(QueueCommandTest, an_item_is_added_claimed_and_completed) {
  const auto id = ok({"add", R"({"image":17})", "--type", "resize", "--priority", "high"});
  EXPECT_EQ(id.size(), 13u);
  const auto claimed = run({"next", "--worker", "me", "--lease", "5m"});
  EXPECT_EQ(claimed.code, 0);
  const auto object = json::parse(claimed.out).as_object();
  EXPECT_EQ(object.at("id"), json::value(id));
  EXPECT_EQ(object.at("payload").at("image"), 17);
  EXPECT_EQ(object.at("lease_owner"), "me");
  const std::string lease(object.at("lease").as_string());
  EXPECT_EQ(run({"next"}).code, 10) << "nothing else is there";
  EXPECT_EQ(run({"next", "--wait", "100ms"}).code, 10);
  EXPECT_THAT(ok({"extend", lease, "--lease", "10m"}), MatchesRegex("20..-..-..T..:..:..\\.[0-9]{6}Z"));
  EXPECT_EQ(ok({"complete", lease, "--result", R"({"bytes":4711})"}), "");
  const auto item = show(id);
  EXPECT_EQ(item.at("status"), "completed");
  EXPECT_EQ(item.at("result").at("bytes"), 4711);
  EXPECT_THAT(ok({"show", id}),
              AllOf(HasSubstr("state         completed"), HasSubstr("result        {\"bytes\":4711}")));
}

TEST_F(QueueCommandTest, urgent_items_come_first_and_scheduled_ones_later) {
  ok({"add", R"({"n":1})", "--priority", "low"});
  ok({"add", R"({"n":2})", "--priority", "CRITICAL"});
  ok({"add", R"({"n":3})", "--priority", "1000", "--in", "1h"});
  ok({"add", R"({"n":4})", "--priority", "26", "--at", "2020-01-01"});
  const auto claimed = objects_of(ok({"next", "--items", "10"}));
  ASSERT_EQ(claimed.size(), 3u);
  EXPECT_EQ(claimed[0].at("payload").at("n"), 2);
  EXPECT_EQ(claimed[1].at("payload").at("n"), 4);
  EXPECT_EQ(claimed[2].at("payload").at("n"), 1);
  EXPECT_EQ(stats().at("scheduled"), 1);
}

TEST_F(QueueCommandTest, a_failed_attempt_comes_back_and_the_last_one_is_a_dead_letter) {
  const auto id = ok({"add", "{}", "--max-retries", "2"});
  ok({"fail", claim(), "--error", "no such image", "--retry-in", "0s"});
  EXPECT_EQ(show(id).at("status"), "pending");
  EXPECT_EQ(show(id).at("error_message"), "no such image");
  ok({"fail", claim(), "--error", "still none"});
  EXPECT_THAT(ok({"list", "--status", "failed"}),
              AllOf(HasSubstr(id), HasSubstr("2/2"), HasSubstr("still none")));
  EXPECT_EQ(ok({"retry", "--all"}), "1 item is pending again");
  EXPECT_EQ(show(id).at("retry_count"), 0);
  ok({"fail", claim(), "--for-good"});
  EXPECT_EQ(show(id).at("status"), "failed");
}

TEST_F(QueueCommandTest, items_are_cancelled_retried_and_removed_by_id) {
  const auto a = ok({"add", "{}"});
  const auto b = ok({"add", "{}"});
  ok({"cancel", a, b});
  EXPECT_EQ(count("cancelled"), 2);
  ok({"retry", a});
  ok({"remove", b});
  EXPECT_EQ(count("total"), 1);
  ok({"release", claim()});
  EXPECT_EQ(show(a).at("retry_count"), 0);
}

TEST_F(QueueCommandTest, dependencies_are_waited_for_and_unique_keys_are_unique) {
  const auto a = ok({"add", "{}", "--unique-key", "k"});
  const auto again = run({"add", "{}", "--unique-key", "k"});
  EXPECT_EQ(again.out, a + "\n");
  EXPECT_EQ(again.err, "not added: a live item has the unique key 'k' already\n");
  const auto b = ok({"add", "{}", "--depends-on", a});
  EXPECT_THAT(ok({"list", "--blocked"}), AllOf(HasSubstr(b), HasSubstr("waiting"), HasSubstr("for " + a)));
  ok({"cancel", a});
  EXPECT_THAT(ok({"list"}), HasSubstr("blocked"));
}

TEST_F(QueueCommandTest, a_paused_queue_gives_nothing) {
  ok({"add", "{}"});
  ok({"pause"});
  EXPECT_EQ(run({"next"}).code, 10);
  EXPECT_THAT(ok({"stats"}), HasSubstr("queue default, paused: nothing is claimed"));
  ok({"resume"});
  claim();
}

TEST_F(QueueCommandTest, queues_of_one_store_are_apart) {
  ok({"add", "{}", "--name", "mail"});
  ok({"add", "{}"});
  EXPECT_EQ(ok({"queues"}), "default\nmail");
  EXPECT_EQ(json::parse(ok({"stats", "--json", "--name", "mail"})).at("total"), 1);
}

// --- many -------------------------------------------------------------------------------------------------------------

TEST_F(QueueCommandTest, lines_become_items_and_bad_ones_are_named) {
  const auto lines = file("lines",
                          "{\"payload\":{\"n\":1},\"priority\":\"high\",\"in\":\"5m\"}\n"
                          "\n"
                          "nonsense\n"
                          "{\"payload\":{\"n\":2},\"id\":\"B\",\"depends_on\":[\"A\"]}\n"
                          "{\"payload\":{\"n\":3},\"id\":\"C\"}\n"
                          "{\"prority\":1}");
  const auto ran = run({"add", "--lines", "--file", lines});
  EXPECT_EQ(ran.code, 65);
  EXPECT_THAT(ran.out, StartsWith("2 items added, 3 bad lines left out; "));
  EXPECT_THAT(ran.err,
              AllOf(HasSubstr("Warning: line 3: no JSON object"), ContainsRegex("Warning: line 4: .*A"),
                    HasSubstr("Warning: line 6: unknown member 'prority', did you mean 'priority'?")));
  EXPECT_EQ(stats().at("scheduled"), 1);
  EXPECT_EQ(show("C").at("payload").at("n"), 3);
}

TEST_F(QueueCommandTest, a_line_that_is_too_long_for_any_item_is_left_out) {
  const auto ran = run({"add", "--payload-lines", "--file",
                        file("lines", "{}\n{\"x\":\"" + std::string(3 << 20, 'x') + "\"}\n{\"n\":3}\nno\n")});
  EXPECT_EQ(ran.code, 65);
  EXPECT_THAT(ran.out, StartsWith("2 items added, 2 bad lines left out; "));
  EXPECT_THAT(ran.err, AllOf(HasSubstr("line 2: "), HasSubstr("line 4: ")));
  EXPECT_EQ(count("pending"), 2);
}

TEST_F(QueueCommandTest, a_line_is_an_item_as_soon_as_it_is_there) {
  ok({"add", "{}"});  // so that there is a store
  Fifo fifo(directory_ / "fifo");
  Running adding(directory_, "adding", argv_of({"add", "--lines", "--ids"}), fifo.path());
  fifo.write("{\"payload\":{\"n\":1}}\n");
  EXPECT_TRUE(eventually([&] { return adding.out().size() == 14; }));
  EXPECT_EQ(count("pending"), 2);
  fifo.write("{\"payload\":{\"n\":2}}\n");
  fifo.close();
  EXPECT_EQ(adding.finish().code, 0);
  EXPECT_EQ(count("pending"), 3);
}

TEST_F(QueueCommandTest, a_full_queue_takes_what_fits_and_says_so) {
  ok({"settings", "max_size=3"});
  const auto ran = run({"add", "--payload-lines", "--file", file("lines", "{}\n{}\n{}\n{}\n{}\n")});
  EXPECT_EQ(ran.code, 14);
  EXPECT_THAT(ran.out, StartsWith("3 items added; "));
  EXPECT_THAT(ran.err,
              AllOf(HasSubstr("line 4: "), HasSubstr("; this line and those after it were not added")));
  EXPECT_EQ(count("pending"), 3);
  expect_error({"add", "{}"}, 14, HasSubstr("full"));
}

TEST_F(QueueCommandTest, list_pages_through_everything) {
  submit(2'500);
  EXPECT_EQ(objects_of(ok({"list", "--json", "--limit", "all"})).size(), 2'500u);
  const auto some = run({"list", "--limit", "7"});
  EXPECT_EQ(std::ranges::count(some.out, '\n'), 8);
  EXPECT_EQ(some.err, "there are more: --limit all shows them\n");
  EXPECT_EQ(objects_of(ok({"list", "--json", "--newest", "--limit", "1"})).at(0).at("payload").at("n"),
            2'499);
}

TEST_F(QueueCommandTest, purge_tells_before_it_deletes) {
  submit(5);
  for (int i = 0; i < 3; ++i) ok({"complete", claim()});
  expect_error({"purge"}, 1, HasSubstr("nothing done: this would delete 3 items; add --yes to do it"));
  EXPECT_EQ(ok({"purge", "--older-than", "1d", "--yes"}), "0 items purged");
  EXPECT_EQ(ok({"purge", "--yes"}), "3 items purged");
  EXPECT_EQ(count("total"), 2);
}

TEST_F(QueueCommandTest, watch_prints_a_line_each_time_where_there_is_no_terminal) {
  submit(2);
  const auto lines = ok({"watch", "--interval", "50ms", "--count", "2"});
  EXPECT_THAT(
      lines, MatchesRegex("20[^ ]*Z pending 2 processing 0 completed 0 failed 0 cancelled 0\n"
                          "20[^ ]*Z pending 2 processing 0 completed 0 failed 0 cancelled 0 0.0 finished/s"));
  auto watching = start("watching", {"watch", "--interval", "50ms"});
  ASSERT_TRUE(eventually([&] { return std::ranges::count(watching.out(), '\n') >= 2; }));
  watching.signal(SIGINT);
  EXPECT_EQ(watching.finish().code, 0);
}

// --- files and stores -------------------------------------------------------------------------------------------------

TEST_F(QueueCommandTest, what_is_exported_edited_and_imported_is_as_it_was) {
  const auto a = ok({"add", R"({"n":1})", "--metadata", R"({"by":"me"})"});
  const auto b = ok({"add", R"({"n":2})", "--depends-on", a});
  const auto path = (directory_ / "out.yaml").string();
  EXPECT_EQ(ok({"export", "--output", path}), "2 items written to " + path);
  expect_error({"import", path}, 15,
               AllOf(HasSubstr(a), HasSubstr("--on-conflict replace takes the file's, skip keeps")));
  EXPECT_EQ(ok({"import", path, "--on-conflict", "skip"}),
            "2 items read from " + path + ": 0 added, 2 skipped: they were there already");

  auto text = content_of(path);
  text.replace(text.find("priority: 0"), 11, "priority: 42");
  file("out.yaml", text);
  EXPECT_THAT(ok({"import", path, "--on-conflict", "replace", "--dry-run"}),
              StartsWith("dry run, nothing changed: 2 items read from "));
  EXPECT_EQ(show(a).at("priority"), 0);
  EXPECT_EQ(ok({"import", path, "--on-conflict", "replace"}),
            "2 items read from " + path + ": 0 added, 2 replaced");
  EXPECT_EQ(show(a).at("priority"), 42);
  EXPECT_EQ(show(a).at("metadata").at("by"), "me");
  EXPECT_EQ(show(b).at("depends_on").at(0), json::value(a));

  const auto lines = file("out.jsonl", ok({"export", "--format", "json"}) + "\n");
  use("sqlite:" + (directory_ / "second.db").string());
  EXPECT_EQ(ok({"import", lines, "--dry-run"}), "dry run: 2 items would be added to a new store");
  EXPECT_FALSE(fs::exists(directory_ / "second.db"));
  EXPECT_EQ(ok({"import", lines}), "2 items read from " + lines.string() + ": 2 added");
  EXPECT_EQ(show(a).at("priority"), 42);
}

TEST_F(QueueCommandTest, older_shapes_are_imported) {
  const auto path = file("old.yaml",
                         "tasks:\n- task_id: TASK-1\n  status: in_progress\n  priority: CRITICAL\n"
                         "- task_id: TASK-2\n  status: done\n  blockedBy: []\n");
  const auto ran = run({"import", path});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("in_progress"));
  EXPECT_EQ(count("pending"), 1) << "what was being worked on is pending: nobody has its lease";
  EXPECT_EQ(count("completed"), 1);
}

TEST_F(QueueCommandTest, a_queue_moves_from_yaml_to_sqlite_with_its_settings) {
  const auto yaml = "yaml:" + (directory_ / "a.yaml").string();
  const auto sqlite = "sqlite:" + (directory_ / "b.db").string();
  use(yaml);
  ok({"settings", "max_size=50", "lease=5m"});
  const auto id = ok({"add", R"({"n":1})"});
  ok({"add", R"({"n":2})"});
  EXPECT_EQ(ok({"migrate", yaml, sqlite, "--dry-run"}), "dry run: 2 items would be copied to a new store");
  EXPECT_THAT(
      ok({"migrate", yaml, sqlite}),
      AllOf(StartsWith("2 items in 1 queue copied and found again in sqlite:"), EndsWith(": 2 added")));
  const auto name = without_end(ok({"queues"}));
  use(sqlite);
  EXPECT_EQ(json::parse(ok({"show", id, "--json", "--name", name})).at("payload").at("n"), 1);
  EXPECT_THAT(ok({"settings", "--name", name}),
              AllOf(HasSubstr("max_size            50\n"), HasSubstr("lease               5m\n")));
  expect_error({"migrate", yaml, sqlite}, 15, HasSubstr(id));
}

TEST_F(QueueCommandTest, a_yaml_queue_that_was_broken_by_hand_is_repaired_from_its_backup) {
  use("yaml:" + (directory_ / "q.yaml").string());
  ok({"add", R"({"n":1})"});
  ok({"add", R"({"n":2})"});
  EXPECT_THAT(ok({"repair"}), EndsWith(" is sound: 2 items"));
  const auto broken = content_of(directory_ / "q.yaml") + "- id: {\n";
  file("q.yaml", broken);
  expect_error({"add", "{}"}, 65, ContainsRegex("q\\.yaml:[0-9]+:[0-9]+: "));
  expect_error({"list"}, 65, HasSubstr("q.yaml:"));
  EXPECT_EQ(content_of(directory_ / "q.yaml"), broken) << "it is not overwritten";
  EXPECT_THAT(ok({"repair"}), HasSubstr("restored from the backup: "));
  EXPECT_GE(count("pending"), 1);
}

// --- bad input --------------------------------------------------------------------------------------------------------

TEST_F(QueueCommandTest, mistakes_have_their_own_exit_codes) {
  const auto id = ok({"add", "{}"});
  expect_error({"show", "NOBODY"}, 11, HasSubstr("NOBODY"));
  expect_error({"cancel", "NOBODY"}, 11, HasSubstr("NOBODY"));
  expect_error({"complete", "NOBODY:0123456789abcdef"}, 11, HasSubstr("NOBODY"));
  expect_error({"complete", id}, 12,
               HasSubstr("cannot complete what is pending (pending -> completed); claim it first"));
  expect_error({"retry", id}, 12, HasSubstr("pending"));
  const auto lease = claim();
  expect_error({"complete", id}, 13, HasSubstr("it takes the lease, ID:TOKEN"));
  expect_error({"complete", id + ":0123456789abcdef"}, 13, HasSubstr("lease"));
  ok({"complete", lease});
  expect_error({"complete", lease}, 12, HasSubstr("completed"));
  expect_error({"cancel", id}, 12, HasSubstr("completed"));
  expect_error({"add", "{}", "--id", id}, 15, HasSubstr(id));
}

TEST_F(QueueCommandTest, what_is_no_item_is_not_taken) {
  expect_error({"add", "[1]"}, 16, HasSubstr("is not a JSON object"));
  expect_error({"add", "{\"a\":}"}, 16, HasSubstr("is not a JSON object"));
  expect_error({"add", "--file", file("large", "{\"x\":\"" + std::string(2 << 20, 'x') + "\"}")}, 16,
               HasSubstr("has more than 1048576 bytes"));
  expect_error({"add", "--file", file("empty", "")}, 16, HasSubstr("is empty"));
  expect_error({"add", "--file", directory_ / "none"}, 17, HasSubstr("No such file"));
  expect_error({"add", "{}", "--depends-on", "NOBODY"}, 11, HasSubstr("NOBODY"));
  expect_error({"add", "{}", "--id", "A", "--depends-on", "A"}, 16, HasSubstr("A -> A"));
  EXPECT_EQ(count("total"), 0);
}

TEST_F(QueueCommandTest, a_store_that_is_not_there_or_cannot_be_used_is_told) {
  expect_error({"list"}, 11, HasSubstr("queue.db"));
  expect_error({"list", "--queue", "jobs.db"}, 1,
               HasSubstr("it has to begin with sqlite:, yaml: or postgresql://"));
  expect_error({"add", "{}", "--queue", "sqlite:/no/such/folder/q.db"}, 17, HasSubstr("/no/such/folder"));
  expect_error({"add", "{}", "--name", "a b"}, 16, HasSubstr("queue name"));
  unsetenv("FULMAR_QUEUE");
  setenv("XDG_DATA_HOME", (directory_ / "data").c_str(), 1);
  expect_error({"stats"}, 11, HasSubstr("'fulmar queue add' makes it"));
  ok({"add", "{}"});
  EXPECT_TRUE(fs::exists(directory_ / "data/fulmar/queue.db"));
  unsetenv("XDG_DATA_HOME");
}

TEST_F(QueueCommandTest, a_store_of_a_newer_version_is_left_alone) {
  ok({"add", "{}"});
  {
    SQLite::Database database((directory_ / "queue.db").string(), SQLite::OPEN_READWRITE);
    database.exec("PRAGMA user_version = 999");
  }
  const std::string out = directory_ / "out.yaml";
  for (const Words& words :
       {Words{"add", "{}"}, Words{"next"}, Words{"list"}, Words{"stats"}, Words{"show", "A"},
        Words{"export", "--output", out}, Words{"purge"}, Words{"repair"}}) {
    expect_error(
        words, 18,
        HasSubstr("queue.db: this queue was written by a newer Fulmar (schema 999, known here is 1); nothing "
                  "was changed: update this program"));
  }
  EXPECT_FALSE(fs::exists(out));
  use("yaml:" + file("newer.yaml", "fulmar_schema: 2\nname: a\nitems: []\n").string());
  for (const Words& words : {Words{"add", "{}"}, Words{"list"}, Words{"repair"}})
    expect_error(words, 18,
                 HasSubstr("newer.yaml:1:1: this was written by a newer Fulmar (schema 2, known here is 1)"));
}

TEST_F(QueueCommandTest, a_damaged_store_is_told_and_repaired) {
  submit(500);
  {
    std::fstream database(directory_ / "queue.db", std::ios::in | std::ios::out | std::ios::binary);
    for (std::streamoff page = 40; page < 140; page += 20) {
      database.seekp(page * 1'024);
      database << std::string(1'024, '\xee');
    }
  }
  const auto before = content_of(directory_ / "queue.db");
  expect_error({"export", "--output", directory_ / "out.yaml"}, 65,
               AllOf(HasSubstr("the database is damaged"), HasSubstr("'fulmar queue repair sqlite:")));
  const auto tried = run({"repair", "--dry-run"});
  EXPECT_EQ(tried.code, 65);
  EXPECT_THAT(tried.err, HasSubstr("nothing was changed: without --dry-run it is set aside"));
  EXPECT_EQ(content_of(directory_ / "queue.db"), before);

  const auto repaired = run({"repair"});
  EXPECT_EQ(repaired.code, 0) << repaired.err;
  EXPECT_THAT(repaired.err, AllOf(HasSubstr("was damaged; it is now"), HasSubstr("items were carried over")));
  EXPECT_THAT(repaired.out, HasSubstr(", all readable"));
  EXPECT_GT(count("pending"), 250);
  EXPECT_EQ(run({"repair"}).err, "");
}

TEST_F(QueueCommandTest, a_trial_of_repair_tells_what_it_would_do) {
  use("yaml:" + (directory_ / "jobs.yaml").string());
  ok({"add", "{}", "--id", "A"});
  ok({"add", "{}", "--id", "B"});
  const auto path = file("jobs.yaml", "items: [\n");
  EXPECT_THAT(ok({"repair", "--dry-run"}),
              EndsWith("dry run, nothing changed: the backup has 1 item and would take its place"));
  EXPECT_EQ(content_of(path), "items: [\n");
}

TEST_F(QueueCommandTest, a_disk_that_cannot_sync_is_told) {
  if (test::sanitized) GTEST_SKIP() << "a sanitizer's process cannot be traced";
  ok({"add", "{}"});
  if (test::run({.argv = {"sh", "-c", "strace -o /dev/null true"}, .output = {}}, patience) != 0)
    GTEST_SKIP() << "strace may not trace here";
  // The first two are those of opening.
  const auto failing = [&](const std::string& when) {
    Words words{"strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=fdatasync,fsync",
                "-e",
                "inject=fdatasync,fsync:error=EIO:when=" + when};
    const auto command = argv_of({"add", "{}"});
    words.insert(words.end(), command.begin(), command.end());
    return Running(directory_, "strace" + std::to_string(++runs_), words).finish();
  };
  int told = 0;
  for (const std::string when : {"1+", "1", "2", "3"}) {
    const auto ran = failing(when);
    if (ran.code == 0) continue;
    ++told;
    EXPECT_EQ(ran.code, 17) << ran.err;
    EXPECT_THAT(ran.err, ContainsRegex("the disk (could not sync|still fails)|disk I/O error"));
    EXPECT_EQ(ran.out, "");
  }
  EXPECT_GT(told, 0);
  const auto before = count("pending");
  ok({"add", "{}"});
  EXPECT_EQ(count("pending"), before + 1);
}

// --- work -------------------------------------------------------------------------------------------------------------

TEST_F(QueueCommandTest, work_gives_the_command_the_item_and_completes_it) {
  const auto id = ok({"add", R"({"n":1})", "--type", "resize", "--metadata", R"({"by":"me"})"});
  const auto script =
      "cat; echo; echo $FULMAR_ITEM_ID $FULMAR_ITEM_TYPE $FULMAR_ITEM_ATTEMPT $FULMAR_ITEM_METADATA; "
      "\"$PROGRAM\" queue add '{\"n\":2}' --id next";
  setenv("PROGRAM", FULMAR_PROGRAM, 1);
  const auto ran = run({"work", "--count", "1", "--", "sh", "-c", script});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, "{\"n\":1}\n" + id + " resize 1 {\"by\":\"me\"}\nnext\n1 completed, 0 failed\n");
  EXPECT_THAT(ran.err, AllOf(StartsWith("working on queue default of " + url_ + ", 1 command at a time"),
                             ContainsRegex(id + "  resize  attempt 1/3  completed  [0-9.]+ s\n")));
  EXPECT_EQ(show(id).at("status"), "completed");
  EXPECT_EQ(show("next").at("status"), "pending");
}

TEST_F(QueueCommandTest, the_exit_code_of_the_command_decides) {
  const auto id_of = [&](int code) { return ok({"add", "{\"code\":" + std::to_string(code) + "}"}); };
  const auto done = id_of(0);
  const auto later = id_of(75);
  const auto never = id_of(65);
  const auto again = id_of(3);
  const auto ran = run({"work", "--until-empty", "--jobs", "4", "--retry-in", "1h", "--", "sh", "-c",
                        "code=$(tr -dc 0-9); echo one >&2; echo two >&2; exit $code"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, StartsWith("1 completed, "));
  EXPECT_EQ(show(done).at("status"), "completed");
  EXPECT_EQ(show(later).at("status"), "pending");
  EXPECT_EQ(show(later).at("error_message"), "exit code 75: one\ntwo");
  EXPECT_EQ(show(later).at("retry_count"), 1);
  EXPECT_EQ(show(never).at("status"), "failed");
  EXPECT_EQ(show(never).at("retry_count"), 1);
  EXPECT_EQ(show(again).at("error_message"), "exit code 3: one\ntwo");
  EXPECT_NE(show(again).at("status"), "failed") << "there are attempts left";
}

TEST_F(QueueCommandTest, what_a_command_prints_is_the_result_where_that_is_asked_for) {
  const auto id = ok({"add", R"({"n":1})"});
  ok({"work", "--count", "1", "--result", "--", "cat"});
  EXPECT_EQ(show(id).at("result").at("n"), 1);
  const auto text = ok({"add", "{}"});
  ok({"work", "--count", "1", "--result", "--", "echo", "a \"text\""});
  EXPECT_EQ(show(text).at("result"), "a \"text\"\n");
}

TEST_F(QueueCommandTest, a_command_that_hangs_is_killed_and_its_attempt_has_failed) {
  const auto id = ok({"add", "{}", "--max-retries", "1"});
  ok({"work", "--count", "1", "--time-limit", "200ms", "--", "sleep", "600"});
  EXPECT_EQ(show(id).at("status"), "failed");
  EXPECT_EQ(show(id).at("error_message"), "killed after 200ms (--time-limit)");
}

TEST_F(QueueCommandTest, a_command_that_is_not_there_claims_nothing) {
  ok({"add", "{}"});
  expect_error({"work", "--", "no-such-command-of-mine"}, 1, HasSubstr("there is no such command in PATH"));
  EXPECT_EQ(count("pending"), 1);
}

TEST_F(QueueCommandTest, a_lease_is_extended_while_the_command_runs) {
  const auto id = ok({"add", "{}"});
  const auto go = directory_ / "go";
  auto working = start("working", {"work", "--count", "1", "--lease", "300ms", "--", "sh", "-c",
                                   "while [ ! -e " + go.string() + " ]; do sleep 0.02; done"});
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  const auto until = std::chrono::steady_clock::now() + 1s;  // three leases
  while (std::chrono::steady_clock::now() < until) EXPECT_EQ(run({"next", "--wait", "100ms"}).code, 10);
  file("go", "");
  EXPECT_EQ(working.finish().code, 0);
  EXPECT_EQ(show(id).at("retry_count"), 0);
}

TEST_F(QueueCommandTest, a_command_whose_lease_is_lost_is_killed) {
  const auto id = ok({"add", "{}"});
  auto working = start("working", {"work", "--count", "1", "--lease", "600ms", "--", "sleep", "600"});
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  ok({"cancel", id});
  const auto ran = working.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.err, ContainsRegex(id + "  task  attempt 1/3  lost  .*its command was killed\n"));
  EXPECT_EQ(ran.out, "0 completed, 0 failed, 1 lost\n");
  EXPECT_EQ(show(id).at("status"), "cancelled");
}

TEST_F(QueueCommandTest, the_first_signal_lets_commands_finish_and_the_second_gives_their_items_back) {
  submit(3);
  const auto go = directory_ / "go";
  const Words words{"work", "--", "sh", "-c", "while [ ! -e " + go.string() + " ]; do sleep 0.02; done"};
  auto draining = start("draining", words);
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  draining.signal(SIGTERM);
  ASSERT_TRUE(eventually([&] { return draining.err().find("no new items") != std::string::npos; }));
  file("go", "");
  const auto drained = draining.finish();
  EXPECT_EQ(drained.code, 0);
  EXPECT_EQ(drained.out, "1 completed, 0 failed\n");
  EXPECT_EQ(count("pending"), 2);

  fs::remove(go);
  auto given_up = start("given_up", words);
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  given_up.signal(SIGINT);
  ASSERT_TRUE(eventually([&] { return given_up.err().find("no new items") != std::string::npos; }));
  given_up.signal(SIGINT);
  const auto ran = given_up.finish();
  EXPECT_EQ(ran.code, 128 + SIGINT);
  EXPECT_EQ(ran.out, "0 completed, 0 failed, 1 given back\n");
  EXPECT_EQ(count("pending"), 2);
  for (const auto& item : objects_of(ok({"list", "--json", "--status", "pending"})))
    EXPECT_EQ(item.at("retry_count"), 0);
}

// Each run of the command writes a line, so that doubles and losses show.
TEST_F(QueueCommandTest, the_item_of_a_worker_that_is_killed_is_done_by_the_other_one) {
  constexpr int items = 40;
  submit(items);
  const auto log = (directory_ / "log").string();
  const auto hang = (directory_ / "hang").string();
  file("hang", "");
  // While there is the file, the command hangs with its item; the first one does.
  const auto script = "n=$(tr -dc 0-9); echo begin $n >>" + log + "; while [ -e " + hang +
                      " ] && [ $n = 0 ]; do sleep 0.02; done; echo end $n >>" + log;
  const Words words{"work", "--quiet", "--", "sh", "-c", script};
  auto first = start("first", words);
  ASSERT_TRUE(eventually([&] { return content_of(log) == "begin 0\n"; }));
  auto second = start("second", words);
  ASSERT_TRUE(eventually([&] { return count("completed") == items - 1; }));
  EXPECT_EQ(count("processing"), 1);
  first.signal(SIGKILL);
  EXPECT_EQ(first.finish().code, 128 + SIGKILL);
  ASSERT_TRUE(eventually([&] { return content_of(log).ends_with("begin 0\n"); })) << "it came back";
  fs::remove(hang);
  ASSERT_TRUE(eventually([&] { return count("completed") == items; }));
  second.signal(SIGTERM);
  EXPECT_EQ(second.finish().code, 0);

  std::map<std::string, int> ended;
  std::istringstream lines(content_of(log));
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("end ")) ++ended[line];
  EXPECT_EQ(ended.size(), static_cast<std::size_t>(items));
  for (const auto& [line, times] : ended)
    EXPECT_EQ(times, 1) << line << ": the killed worker's command was killed, too";
}

}  // namespace
}  // namespace fulmar::cli
