// What the yaml: store promises beyond the contract of all stores: its file, its lock, and what happens when people, other
// programs, the disk or a kill get in between. Each defect of the design it replaces that concerns files has its test.
#include "queue/yaml_repository.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "queue/model.hpp"
#include "queue/yaml_document.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
using test::Process;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr auto patience = 20s;

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// As an editor does that writes into the file itself.
void overwrite(const std::filesystem::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
}

bool can_trace() {
  try {
    return test::run({.argv = {"strace", "-o", "/dev/null", "true"}, .output = {}}, patience) == 0;
  } catch (const std::exception&) {
    return false;
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

class YamlStore : public testing::Test {
 protected:
  std::string url() const { return "yaml:" + path_.string(); }

  Result<std::unique_ptr<Repository>> try_open(const RepositoryOptions& options = {}) const {
    return open_yaml_repository(url(), options);
  }
  std::unique_ptr<Repository> open(const RepositoryOptions& options = {}) const {
    auto store = try_open(options);
    if (!store) throw std::runtime_error(store.error().message);
    return std::move(*store);
  }

  static Result<std::vector<Submitted>> submit(Repository& store, const ItemId& id = {}) {
    NewItem item;
    item.id = id;
    return store.transact(Access::write, Durability::commit,
                          [&](Operations& op) { return op.submit(store.default_queue(), {&item, 1}); });
  }
  static std::vector<Lease> claim(Repository& store, std::size_t items_max = 1) {
    ClaimRequest request;
    request.worker = "w";
    request.items_max = items_max;
    return store
        .transact(Access::write, Durability::commit,
                  [&](Operations& op) { return op.claim(store.default_queue(), request); })
        .value()
        .leases;
  }
  static std::vector<ItemId> ids(Repository& store) {
    const auto listed = store.transact(Access::read, Durability::commit, [&](Operations& op) {
      return op.list(store.default_queue(), {}, {.items_max = 1000});
    });
    if (!listed) throw std::runtime_error(listed.error().message);
    std::vector<ItemId> result;
    for (const auto& item : listed->items) result.push_back(item.id);
    return result;
  }
  std::size_t files() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_.path())) ++count;
    return count;
  }

  test::TempDir directory_;
  const std::filesystem::path path_ = directory_ / "jobs.yaml";
};

// --- the file ---------------------------------------------------------------------------------------------------------

TEST_F(YamlStore, a_missing_file_is_made_and_an_empty_one_is_an_empty_queue) {
  const auto store = open();
  EXPECT_EQ(slurp(path_), "name: default\nitems: []\nmax_size: null\ndefault_max_retries: 3\n");
  overwrite(path_, "");
  EXPECT_THAT(ids(*store), SizeIs(0));
  ASSERT_TRUE(submit(*store, "a"));
  EXPECT_THAT(ids(*open()), ElementsAre("a"));
  std::filesystem::remove(path_);
  EXPECT_THAT(ids(*store), SizeIs(0));
  ASSERT_TRUE(submit(*store, "b"));
  EXPECT_THAT(ids(*open()), ElementsAre("b"));
}

TEST_F(YamlStore, a_missing_file_is_an_error_where_none_may_be_made) {
  EXPECT_EQ(try_open({.create = false}).error().code, Errc::not_found);
  EXPECT_EQ(try_open({.read_only = true}).error().code, Errc::not_found);
  EXPECT_EQ(files(), 0u);
  EXPECT_THAT(open_yaml_repository("yaml:" + (directory_ / "no/jobs.yaml").string(), {}).error().message,
              HasSubstr("make its directory"));
  EXPECT_EQ(open_yaml_repository("yaml:", {}).error().code, Errc::invalid_url);
  EXPECT_THAT(open_yaml_repository("yaml:" + directory_.path().string(), {}).error().message,
              HasSubstr("it is a directory"));
}

TEST_F(YamlStore, keeps_the_established_format_with_everything_that_others_wrote) {
  overwrite(path_, R"(# The team's queue.
name: tasks
items:
- id: 3f2a9c1e
  type: task
  payload: {task_id: TASK-1}
  status: pending
  created_at: '2026-02-06T10:00:00'
  priority: 5
  scheduled_at: null
  started_at: null
  completed_at: null
  retry_count: 0
  max_retries: 3
  error_message: null
  metadata: {}
  assignee: {name: Jo}
max_size: null
default_max_retries: 3
owner: team a
)");
  const auto store = open();
  EXPECT_EQ(store->default_queue(), "tasks");
  ASSERT_TRUE(submit(*store, "second"));
  const auto text = slurp(path_);
  EXPECT_THAT(text,
              testing::StartsWith("# The team's queue.\nname: tasks\nitems:\n- id: 3f2a9c1e\n  type: task\n"
                                  "  payload: {task_id: TASK-1}\n  status: pending\n"
                                  "  created_at: '2026-02-06T10:00:00.000000Z'\n  priority: 5\n"));
  EXPECT_THAT(text, HasSubstr("  metadata: {}\n  assignee: {name: Jo}\n- id: second\n"));
  EXPECT_THAT(text, testing::EndsWith("max_size: null\ndefault_max_retries: 3\nowner: team a\n"));
  // And still after the item itself was changed, by another reader.
  EXPECT_EQ(claim(*open()).at(0).item.id, "3f2a9c1e");
  EXPECT_THAT(slurp(path_), HasSubstr("  assignee: {name: Jo}\n"));
}

TEST_F(YamlStore, a_status_is_a_state_after_loading_and_not_a_word) {
  overwrite(path_,
            "items:\n- {id: a, status: Done}\n- {id: b, status: in_progress}\n- {id: c, status: pending}\n");
  const auto store = open();
  const ItemId done = "a";
  const auto refused = store->transact(Access::write, Durability::commit,
                                       [&](Operations& op) { return op.cancel({&done, 1}); });
  ASSERT_THAT(refused.value(), SizeIs(1));
  EXPECT_EQ(refused->at(0).error.code, Errc::illegal_transition);
  const auto stats = store->transact(Access::read, Durability::commit,
                                     [&](Operations& op) { return op.stats(store->default_queue()); });
  EXPECT_EQ(stats->counts.completed, 1u);
  EXPECT_EQ(stats->counts.live(), 2u);
}

TEST_F(YamlStore, an_item_that_a_crash_left_in_processing_comes_back) {
  overwrite(path_, "items:\n- {id: a, status: in_progress, created_at: '2026-02-06T10:00:00'}\n");
  const auto store = open();
  ASSERT_TRUE(store->transact(Access::write, Durability::commit, [](Operations& op) { return op.upkeep(); }));
  const auto item =
      store->transact(Access::read, Durability::commit, [](Operations& op) { return op.get("a"); });
  EXPECT_EQ(item->status, Status::pending);
  EXPECT_EQ(item->retry_count, 1);
  EXPECT_EQ(item->error_message, lease_expired_message);
}

TEST_F(YamlStore, several_queues_lie_in_one_file) {
  const auto store = open();
  const NewItem item;
  for (const auto* queue : {"tasks", "mail", "tasks"}) {
    ASSERT_TRUE(store->transact(Access::write, Durability::commit,
                                [&](Operations& op) { return op.submit(queue, {&item, 1}); }));
  }
  EXPECT_THAT(slurp(path_), HasSubstr("\nqueues:\n- name: "));
  const auto again = open();
  EXPECT_THAT(
      again->transact(Access::read, Durability::commit, [](Operations& op) { return op.queues(); }).value(),
      ElementsAre("mail", "tasks"));
  for (const auto& [queue, count] : {std::pair{"tasks", 2u}, std::pair{"mail", 1u}}) {
    EXPECT_EQ(
        again->transact(Access::read, Durability::commit, [&](Operations& op) { return op.stats(queue); })
            ->counts.pending,
        count);
  }
}

TEST_F(YamlStore, settings_and_pause_are_in_the_file) {
  Settings settings;
  settings.max_size = 7;
  settings.lease = 90s;
  {
    const auto store = open();
    ASSERT_TRUE(store->transact(Access::write, Durability::commit, [&](Operations& op) -> Result<void> {
      if (auto ok = op.set_settings("default", settings); !ok) return ok;
      return op.set_paused("default", true);
    }));
  }
  EXPECT_THAT(slurp(path_), HasSubstr("paused: true\nsettings:\n  lease_s: 90\n"));
  const auto store = open();
  EXPECT_EQ(
      store->transact(Access::read, Durability::commit, [](Operations& op) { return op.settings("default"); })
          .value(),
      settings);
  EXPECT_TRUE(
      store->transact(Access::read, Durability::commit, [](Operations& op) { return op.paused("default"); })
          .value());
}

TEST_F(YamlStore, never_truncates_in_place_and_keeps_mode_and_backup) {
  const auto store = open();
  ASSERT_TRUE(submit(*store, "a"));
  ::chmod(path_.c_str(), 0640);
  const auto before = slurp(path_);
  std::ifstream old(path_);
  ASSERT_TRUE(submit(*store, "b"));
  std::ostringstream still;
  still << old.rdbuf();
  EXPECT_EQ(still.str(), before);
  EXPECT_EQ(slurp(path_.string() + ".bak"), before);
  struct stat info{};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  EXPECT_EQ(files(), 3u);  // the queue, its lock, its backup
}

TEST_F(YamlStore, what_changes_nothing_writes_nothing) {
  const auto store = open();
  const auto version = YamlFile::at(path_)->version().value();
  EXPECT_THAT(claim(*store), SizeIs(0));
  EXPECT_EQ(YamlFile::at(path_)->version().value(), version);
}

// --- damage -----------------------------------------------------------------------------------------------------------

TEST_F(YamlStore, a_file_that_does_not_parse_is_never_overwritten) {
  const auto store = open();
  ASSERT_TRUE(submit(*store, "a"));
  const std::string broken = "name: tasks\nitems:\n- id: a\n  payload: {task_id: [\n";
  overwrite(path_, broken);
  const auto error = submit(*store, "b").error();
  EXPECT_EQ(error.code, Errc::damaged);
  EXPECT_THAT(error.message, HasSubstr(path_.string() + ":5:1: this is not YAML"));
  EXPECT_THAT(error.message, HasSubstr("fulmar queue repair yaml:"));
  EXPECT_EQ(try_open().error().code, Errc::damaged);
  EXPECT_EQ(slurp(path_), broken);
}

TEST_F(YamlStore, a_file_of_a_newer_version_is_refused_and_left_alone) {
  {
    const auto store = open();
    ASSERT_TRUE(submit(*store, "a"));
    ASSERT_TRUE(submit(*store, "b"));  // there is a backup
  }
  const auto text = "fulmar_schema: 7\n" + slurp(path_) + "- what: nobody knows\n";
  overwrite(path_, text);
  for (const bool read_only : {false, true}) {
    RepositoryOptions options;
    options.read_only = read_only;
    const auto opened = open_yaml_repository(url(), options);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::incompatible);
    EXPECT_THAT(opened.error().message,
                HasSubstr("(schema 7, known here is 1); nothing was changed: update"));
    EXPECT_THAT(opened.error().message, Not(HasSubstr("repair")));
  }
  EXPECT_EQ(repair_yaml(url(), patience).error().code, Errc::incompatible);
  EXPECT_EQ(slurp(path_), text);
  overwrite(path_, slurp(path_.string() + ".bak") + "fulmar_schema: 1\n");
  EXPECT_THAT(ids(*open()), ElementsAre("a"));
}

TEST_F(YamlStore, repair_restores_the_backup_and_sets_the_damaged_file_aside) {
  {
    const auto store = open();
    for (const auto* id : {"a", "b", "c"}) ASSERT_TRUE(submit(*store, id));
  }
  const auto sound = repair_yaml(url(), 1s);
  ASSERT_TRUE(sound);
  EXPECT_TRUE(sound->was_sound);
  EXPECT_EQ(sound->items, 3u);
  overwrite(path_, "items: [");
  const auto repaired = repair_yaml(url(), 1s);
  ASSERT_TRUE(repaired) << repaired.error().message;
  EXPECT_FALSE(repaired->was_sound);
  EXPECT_EQ(repaired->items, 2u);
  EXPECT_EQ(slurp(repaired->set_aside), "items: [");
  EXPECT_THAT(repaired->damage, HasSubstr("jobs.yaml:1:1: this is not YAML"));
  EXPECT_THAT(ids(*open()), ElementsAre("a", "b"));

  overwrite(path_, "items: [");
  overwrite(path_.string() + ".bak", "items: {");
  EXPECT_THAT(repair_yaml(url(), 1s).error().message, HasSubstr("and the backup too"));
  EXPECT_EQ(slurp(path_), "items: [");
  std::filesystem::remove(path_.string() + ".bak");
  EXPECT_EQ(repair_yaml(url(), 1s).error().code, Errc::not_found);
}

TEST_F(YamlStore, repair_brings_a_removed_file_back) {
  {
    const auto store = open();
    for (const auto* id : {"a", "b"}) ASSERT_TRUE(submit(*store, id));
  }
  std::filesystem::remove(path_);
  ASSERT_TRUE(repair_yaml(url(), 1s));
  EXPECT_THAT(ids(*open()), ElementsAre("a"));
}

// --- the lock ---------------------------------------------------------------------------------------------------------

TEST_F(YamlStore, the_lock_is_a_file_beside_that_stays_the_same) {
  const auto store = open();
  struct stat first{}, last{};
  ASSERT_EQ(::stat((path_.string() + ".lock").c_str(), &first), 0);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(submit(*store));
  ASSERT_EQ(::stat((path_.string() + ".lock").c_str(), &last), 0);
  EXPECT_EQ(first.st_ino, last.st_ino);
}

TEST_F(YamlStore, waiting_for_the_lock_ends_and_the_error_names_the_holder) {
  const auto store = open({.lock_timeout = 50ms});
  Process holder({.argv = {FULMAR_YAML_PROGRAM, "hold", path_.string()}, .output = directory_ / "out"});
  for (int i = 0; i < 2000 && slurp(directory_ / "out").empty(); ++i) std::this_thread::sleep_for(10ms);
  const auto error = submit(*store).error();
  EXPECT_EQ(error.code, Errc::timeout);
  EXPECT_THAT(error.message, HasSubstr("locked for 0.05 s by process " + std::to_string(holder.pid()) + " "));
  EXPECT_THAT(error.message, HasSubstr("hold " + directory_.path().string().substr(0, 10)));
  EXPECT_THAT(ids(*store), SizeIs(0));  // reading needs no lock
  holder.kill();
  EXPECT_TRUE(submit(*store));
}

TEST_F(YamlStore, two_ways_to_the_file_share_its_lock) {
  {
    const auto store = open();
  }
  const auto link = directory_ / "link.yaml";
  std::filesystem::create_symlink(path_, link);
  const auto lock = YamlFile::at(path_)->lock(1s);
  ASSERT_TRUE(lock);
  EXPECT_EQ(YamlFile::at(link)->lock(20ms).error().code, Errc::timeout);
  EXPECT_EQ(
      YamlFile::at(directory_ / "../" / directory_.path().filename() / "jobs.yaml")->lock(20ms).error().code,
      Errc::timeout);
}

TEST_F(YamlStore, a_link_stays_a_link) {
  {
    const auto store = open();
  }
  const auto link = directory_ / "link.yaml";
  std::filesystem::create_symlink(path_, link);
  const auto store = open_yaml_repository("yaml:" + link.string(), {});
  ASSERT_TRUE(submit(**store, "a"));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_THAT(ids(*open()), ElementsAre("a"));
}

TEST_F(YamlStore, a_lock_file_that_somebody_removed_is_made_anew_and_locked) {
  const auto store = open();
  std::filesystem::remove(path_.string() + ".lock");
  ASSERT_TRUE(submit(*store));
  EXPECT_TRUE(std::filesystem::exists(path_.string() + ".lock"));
}

TEST_F(YamlStore, processes_do_each_item_exactly_once) {
  constexpr std::size_t items = 60, processes = 4;
  {
    const auto store = open();
    const std::vector<NewItem> many(items);
    ASSERT_TRUE(store->transact(Access::write, Durability::commit,
                                [&](Operations& op) { return op.submit("default", many); }));
  }
  std::vector<Process> workers;
  for (std::size_t i = 0; i < processes; ++i) {
    workers.emplace_back(
        Process::Options{.argv = {FULMAR_YAML_PROGRAM, "work", url(), "w" + std::to_string(i)},
                         .output = directory_ / ("out" + std::to_string(i))});
  }
  std::multiset<std::string> done;
  for (std::size_t i = 0; i < processes; ++i) {
    EXPECT_EQ(workers[i].wait(60s), 0);
    std::ifstream lines(directory_ / ("out" + std::to_string(i)));
    for (std::string line; std::getline(lines, line);) done.insert(line);
  }
  EXPECT_EQ(done.size(), items);
  EXPECT_EQ(std::set(done.begin(), done.end()).size(), items);
}

TEST_F(YamlStore, who_waits_is_woken_by_another_process) {
  const auto store = open();
  const auto seen = store->wake_word("default");
  Process other({.argv = {FULMAR_YAML_PROGRAM, "submit", url(), "a"}, .output = {}});
  const auto began = std::chrono::steady_clock::now();
  while (store->wake_word("default") == seen && std::chrono::steady_clock::now() - began < patience)
    store->wait("default", seen, patience);
  EXPECT_NE(store->wake_word("default"), seen);
  EXPECT_EQ(other.wait(patience), 0);
}

// --- edits by hand ----------------------------------------------------------------------------------------------------

TEST_F(YamlStore, an_edit_in_two_strokes_is_read_whole) {
  const auto store = open();
  ASSERT_TRUE(submit(*store, "a"));
  const std::string edited = "items:\n- id: b\n- id: c\n- id: d\n";
  std::ofstream file(path_, std::ios::trunc);
  file << "items:\n- id: b\n" << std::flush;  // this is a queue too
  std::thread editor([&] {
    std::this_thread::sleep_for(YamlFile::settling / 3);
    file << edited.substr(15) << std::flush;
  });
  ASSERT_TRUE(submit(*store, "e"));
  editor.join();
  EXPECT_THAT(ids(*store), ElementsAre("b", "c", "d", "e"));
}

TEST_F(YamlStore, an_edit_while_a_transaction_runs_is_not_overwritten) {
  const auto store = open();
  ASSERT_TRUE(submit(*store, "a"));
  int runs = 0;
  NewItem item;
  item.id = "mine";
  auto body = [&](Operations& op) -> Result<void> {
    if (++runs == 1) overwrite(path_, "items:\n- id: a\n- id: by-hand\n");
    if (auto done = op.submit("default", {&item, 1}); !done) return std::unexpected(done.error());
    return {};
  };
  ASSERT_TRUE(store->transact(Access::write, Durability::commit, body));
  EXPECT_EQ(runs, 2);
  EXPECT_THAT(ids(*open()), ElementsAre("a", "by-hand", "mine"));
  runs = 0;
  item.id = "again";
  const auto refused = store->transact(Access::write_alone, Durability::commit, body);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("edited by hand meanwhile"));
  EXPECT_THAT(ids(*open()), ElementsAre("a", "by-hand"));
}

TEST_F(YamlStore, items_written_by_hand_without_an_id_keep_the_one_they_get) {
  overwrite(path_, "items:\n- type: x\n- type: x\n");
  const auto one = open(), two = open();
  const auto first = ids(*one);
  EXPECT_THAT(first, SizeIs(2));
  EXPECT_EQ(ids(*two), first);
  ASSERT_TRUE(submit(*one, "z"));
  EXPECT_EQ(ids(*two), (std::vector<ItemId>{first[0], first[1], "z"}));
}

TEST_F(YamlStore, an_edit_by_hand_among_working_threads_is_there_in_the_end) {
  const auto store = open();
  std::atomic<bool> stop = false;
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      const auto mine = open();
      while (!stop) {
        if (!submit(*mine)) ++failures;
      }
    });
  }
  for (int edit = 0; edit < 3; ++edit) {
    std::this_thread::sleep_for(30ms);
    const auto id = "by-hand-" + std::to_string(edit);
    auto text = slurp(path_);
    const auto at = text.find("\nitems:\n");
    if (at == std::string::npos) continue;
    text.insert(at + 8, "- id: " + id + "\n");
    overwrite(path_, text);
    std::this_thread::sleep_for(2 * YamlFile::settling);
    const auto now = ids(*store);
    EXPECT_EQ(std::ranges::count(now, id), 1);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

// --- kills and disks --------------------------------------------------------------------------------------------------

// The program's system calls while it changes the file, by strace.
std::vector<std::string> traced_calls(const std::vector<std::string>& argv,
                                      const std::filesystem::path& trace) {
  std::vector<std::string> words{"strace", "-qq", "-o", trace.string()};
  words.insert(words.end(), argv.begin(), argv.end());
  EXPECT_EQ(test::run({.argv = words, .output = {}}, patience), 0);
  std::vector<std::string> calls;
  std::ifstream lines(trace);
  for (std::string line; std::getline(lines, line);) calls.push_back(line);
  return calls;
}

std::size_t position(const std::vector<std::string>& calls, std::string_view what, std::size_t from = 0) {
  for (std::size_t i = from; i < calls.size(); ++i) {
    if (calls[i].find(what) != std::string::npos) return i;
  }
  return calls.size();
}

TEST_F(YamlStore, the_lock_is_held_until_the_new_version_is_synced_and_in_place) {
  if (sanitized || !can_trace()) GTEST_SKIP() << "strace may not trace here";
  {
    const auto store = open();
  }
  const auto calls = traced_calls({FULMAR_YAML_PROGRAM, "submit", url(), "a"}, directory_ / "trace");
  const auto lock = position(calls, "LOCK_EX");
  const auto file_synced = position(calls, "fsync(", lock);
  const auto kept = position(calls, "jobs.yaml.bak\")", file_synced);
  const auto renamed = position(calls, path_.string() + "\")", kept);
  const auto directory_synced = position(calls, "fsync(", renamed);
  const auto fd =
      calls[lock].substr(calls[lock].find('(') + 1, calls[lock].find(',') - calls[lock].find('(') - 1);
  const auto unlocked = position(calls, "close(" + fd + ")", directory_synced);
  ASSERT_LT(unlocked, calls.size()) << lock << " " << file_synced << " " << kept << " " << renamed << " "
                                    << directory_synced;
  EXPECT_EQ(position(calls, "close(" + fd + ")", lock), unlocked);
  EXPECT_EQ(position(calls, "O_TRUNC"), calls.size());
}

TEST_F(YamlStore, a_kill_at_every_system_call_leaves_the_old_or_the_new_state) {
  if (sanitized || !can_trace()) GTEST_SKIP() << "strace may not trace here";
  {
    const auto store = open();
    for (const auto* id : {"a", "b", "c"}) ASSERT_TRUE(submit(*store, id));
  }
  const auto before = slurp(path_);
  const auto calls = traced_calls({FULMAR_YAML_PROGRAM, "submit", url(), "d"}, directory_ / "trace");
  const auto after_length = slurp(path_).size();
  const auto first = position(calls, "jobs.yaml");
  std::size_t kills = 0, old_states = 0, new_states = 0;
  std::map<std::string, int> made;  // calls of a name, so far
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const auto call = calls[i].substr(0, calls[i].find('('));
    const auto number = std::to_string(++made[call]);
    if (i < first || call.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos)
      continue;
    overwrite(path_, before);
    const auto code =
        test::run({.argv = {"strace", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
                            std::string("inject=").append(call).append(":signal=KILL:when=").append(number),
                            FULMAR_YAML_PROGRAM, "submit", url(), "d"},
                   .output = {}},
                  patience);
    kills += code != 0;
    const auto text = slurp(path_);
    SCOPED_TRACE("killed at " + calls[i]);
    if (text == before) {
      ++old_states;
    } else {
      ++new_states;
      ASSERT_EQ(text.size(), after_length);
    }
    const auto store = open({.lock_timeout = 1s});
    const auto now = ids(*store);
    ASSERT_THAT(now, testing::AnyOf(ElementsAre("a", "b", "c"), ElementsAre("a", "b", "c", "d")));
    if (std::filesystem::exists(path_.string() + ".bak")) {
      ASSERT_TRUE(YamlDocument::parse({.text = slurp(path_.string() + ".bak")}, "backup"));
    }
    ASSERT_TRUE(submit(*store, "next"));             // the lock is free
    ASSERT_EQ(files(), 4u) << "something was left";  // with the trace
  }
  std::printf("%zu kills: %zu old states, %zu new ones\n", kills, old_states, new_states);
  EXPECT_GT(kills, 20u);
  EXPECT_GT(old_states, 5u);
  EXPECT_GT(new_states, 1u);
}

TEST_F(YamlStore, a_sync_that_fails_is_an_error_and_the_file_is_the_old_one) {
  if (sanitized || !can_trace()) GTEST_SKIP() << "strace may not trace here";
  {
    const auto store = open();
    ASSERT_TRUE(submit(*store, "a"));
  }
  const auto before = slurp(path_);
  const auto with_error = [&](const std::string& call) {
    return test::run({.argv = {"strace", "-qq", "-o", "/dev/null", "-e", "inject=" + call,
                               FULMAR_YAML_PROGRAM, "submit", url(), "b"},
                      .output = directory_ / "out"},
                     patience);
  };
  EXPECT_EQ(with_error("fsync:error=EIO:when=1"), 1);
  EXPECT_EQ(slurp(path_), before);
  EXPECT_THAT(slurp(directory_ / "out"),
              HasSubstr("jobs.yaml: cannot sync the new version: Input/output error"));
  EXPECT_EQ(with_error("rename:error=EIO:when=2"), 1);
  EXPECT_EQ(slurp(path_), before);
  EXPECT_EQ(with_error("fsync:error=EIO:when=2"), 1);
  EXPECT_THAT(slurp(directory_ / "out"),
              HasSubstr("the new version is in place, and may be gone after power loss"));
}

// A file system of its own.
class Mounted {
 public:
  explicit Mounted(const std::filesystem::path& at) : at_(at) {
    std::filesystem::create_directory(at);
    mounted_ = mount({"-t", "tmpfs", "-o", "size=128k", "tmpfs"});
  }
  ~Mounted() {
    if (mounted_) test::run({.argv = {"umount", "-l", at_.string()}, .output = {}}, patience);
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  bool is_there() const { return mounted_; }
  bool make_read_only() { return mount({"-o", "remount,ro"}); }

 private:
  bool mount(std::vector<std::string> words) {
    words.insert(words.begin(), "mount");
    words.push_back(at_.string());
    try {
      return test::run({.argv = words, .output = {}}, patience) == 0;
    } catch (const std::exception&) {
      return false;
    }
  }

  const std::filesystem::path at_;
  bool mounted_ = false;
};

TEST_F(YamlStore, a_full_disk_is_an_error_and_loses_nothing) {
  const Mounted disk(directory_ / "disk");
  if (!disk.is_there()) GTEST_SKIP() << "no right to mount a file system";
  const auto path = directory_ / "disk/jobs.yaml";
  const auto store = open_yaml_repository("yaml:" + path.string(), {}).value();
  ASSERT_TRUE(submit(*store, "a"));
  NewItem large;
  large.id = "large";
  large.payload = R"({"v": ")" + std::string(300'000, 'v') + R"("})";
  const auto submit_large = [&] {
    return store->transact(Access::write, Durability::commit,
                           [&](Operations& op) { return op.submit("default", {&large, 1}); });
  };
  const auto before = slurp(path);
  const auto error = submit_large().error();
  EXPECT_EQ(error.code, Errc::io_error);
  EXPECT_THAT(error.message, HasSubstr("No space left on device; nothing was changed: make room"));
  EXPECT_EQ(slurp(path), before);
  EXPECT_THAT(ids(*store), ElementsAre("a"));
  large.payload = "{}";
  EXPECT_TRUE(submit_large());
  EXPECT_THAT(ids(*open_yaml_repository("yaml:" + path.string(), {}).value()), ElementsAre("a", "large"));
}

TEST_F(YamlStore, a_disk_that_somebody_else_fills_and_empties_stops_it_only_meanwhile) {
  const Mounted disk(directory_ / "disk");
  if (!disk.is_there()) GTEST_SKIP() << "no right to mount a file system";
  const auto path = directory_ / "disk/jobs.yaml";
  const auto store = open_yaml_repository("yaml:" + path.string(), {}).value();
  ASSERT_TRUE(submit(*store, "a"));
  const auto ballast = directory_ / "disk/ballast";
  std::ofstream(ballast) << std::string(200'000, 'b');
  const auto before = slurp(path);
  const auto refused = submit(*store, "b");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::io_error);
  EXPECT_THAT(refused.error().message, HasSubstr("No space left on device; nothing was changed: make room"));
  EXPECT_EQ(slurp(path), before);
  std::filesystem::remove(ballast);
  EXPECT_TRUE(submit(*store, "c"));
  EXPECT_THAT(ids(*store), ElementsAre("a", "c"));
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "disk"))
    EXPECT_FALSE(entry.path().string().ends_with(".tmp")) << entry.path() << " was left over";
}

TEST_F(YamlStore, a_read_only_directory_is_an_error_that_says_so_and_can_be_read) {
  Mounted disk(directory_ / "disk");
  if (!disk.is_there()) GTEST_SKIP() << "no right to mount a file system";
  const auto path = directory_ / "disk/jobs.yaml";
  {
    ASSERT_TRUE(submit(*open_yaml_repository("yaml:" + path.string(), {}).value(), "a"));
  }
  ASSERT_TRUE(disk.make_read_only());
  const auto store = open_yaml_repository("yaml:" + path.string(), {}).value();
  EXPECT_THAT(ids(*store), ElementsAre("a"));
  EXPECT_THAT(submit(*store, "b").error().message, HasSubstr("mounted read-only"));
  EXPECT_THAT(open_yaml_repository("yaml:" + (directory_ / "disk/other.yaml").string(), {}).error().message,
              HasSubstr("mounted read-only"));
}

TEST_F(YamlStore, a_store_opened_for_reading_refuses_to_write) {
  {
    const auto store = open();
  }
  EXPECT_THAT(submit(*open({.read_only = true})).error().message, HasSubstr("opened for reading only"));
}

TEST_F(YamlStore, hundred_items_take_less_than_five_milliseconds_an_operation) {
  if (sanitized) GTEST_SKIP() << "a sanitizer is slow";
  const Mounted disk(directory_ / "disk");  // the medium's own time is not what is asked
  const auto path = disk.is_there() ? directory_ / "disk/jobs.yaml" : path_;
  const auto one = open_yaml_repository("yaml:" + path.string(), {}).value();
  const auto two = open_yaml_repository("yaml:" + path.string(), {}).value();
  const std::vector<NewItem> many(100);
  ASSERT_TRUE(one->transact(Access::write, Durability::commit,
                            [&](Operations& op) { return op.submit("default", many); }));
  auto best = std::chrono::nanoseconds::max();
  for (int round = 0; round < 5; ++round) {
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 5; ++i) {
      ASSERT_THAT(claim(*one), SizeIs(1));
      ASSERT_THAT(claim(*two), SizeIs(1));
    }
    best = std::min<std::chrono::nanoseconds>(best, (std::chrono::steady_clock::now() - began) / 10);
  }
  std::printf("%.2f ms an operation, two programs in turn\n",
              std::chrono::duration<double, std::milli>(best).count());
  EXPECT_LT(best, 5ms);
}

}  // namespace
}  // namespace fulmar::queue
