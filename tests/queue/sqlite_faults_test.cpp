// What the work queue promises when processes, disks and files fail. How long the long ones are, by environment variable:
// FULMAR_QUEUE_ITEMS (100,000 by hand), FULMAR_QUEUE_KILLS (500), FULMAR_QUEUE_CALLS (30), FULMAR_QUEUE_DEATHS (200).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "fulmar/queue.hpp"
#include "tests/queue/integrity.hpp"
#include "tests/queue/ledger.hpp"
#include "tests/support/eventually.hpp"
#include "tests/support/process.hpp"
#include "tests/support/sanitizer.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using namespace queue;
using testing::HasSubstr;

constexpr auto patience = 60s;

std::size_t times(const char* variable, std::size_t otherwise) {
  const char* value = std::getenv(variable);
  return value ? std::strtoul(value, nullptr, 10) : otherwise;
}

class SqliteFaults : public testing::Test {
 protected:
  Queue open(QueueOptions options = {}) {
    auto opened = Queue::open(url_, std::move(options));
    if (!opened) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
  Queue open_unsynced() {
    QueueOptions options;
    options.durability = Durability::none;
    return open(options);
  }
  Process actor(std::vector<std::string> words, std::vector<std::string> before = {}) {
    before.push_back(FULMAR_QUEUE_ACTOR);
    before.push_back(url_);
    for (auto& word : words) before.push_back(std::move(word));
    return Process({.argv = std::move(before), .output = said_});
  }
  QueueLedger ledger() const {
    QueueLedger ledger;
    ledger.read(said_);
    return ledger;
  }
  // Everything acknowledged is there, and the database is whole.
  void settle(const QueueLedger& ledger) {
    auto queue = open();
    std::size_t lost = 0, undone = 0, doubled = 0;
    for (const auto& id : ledger.submitted) lost += !queue.get(id);
    for (const auto& [id, count] : ledger.completed) {
      const auto item = queue.get(id);
      undone += !item || item->status != Status::completed;
      doubled += count > 1;
    }
    EXPECT_EQ(lost, 0u);
    EXPECT_EQ(undone, 0u);
    EXPECT_EQ(doubled, 0u);
    EXPECT_EQ(integrity_of(path_), "ok");
  }
  void execute(const std::string& sql) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
    char* message = nullptr;
    sqlite3_exec(database, sql.c_str(), nullptr, nullptr, &message);
    EXPECT_EQ(message, nullptr) << message;
    sqlite3_close(database);
  }

  TempDir directory_;
  const std::filesystem::path path_ = directory_ / "queue.db";
  const std::string url_ = "sqlite:" + path_.string();
  const std::filesystem::path said_ = directory_ / "said";
};

// A sync of a file that has grown waits for the file system's journal too.
TEST_F(SqliteFaults, the_wal_grows_ahead_of_what_is_synced) {
  const auto sizes = [&](const char* file, Durability durability) {
    const auto path = directory_ / file;
    QueueOptions options;
    options.durability = durability;
    auto queue = Queue::open("sqlite:" + path.string(), options);
    std::set<std::uintmax_t> seen;
    for (int i = 0; queue && i < 300; ++i) {
      EXPECT_TRUE(queue->submit("t", "{}"));
      seen.insert(std::filesystem::file_size(path.string() + "-wal"));
    }
    return seen.size();
  };
  EXPECT_GT(sizes("none.db", Durability::none), 250u);
  EXPECT_LT(sizes("commit.db", Durability::commit), 10u);
}

// --- processes that die -----------------------------------------------------------------------------------------------

TEST_F(SqliteFaults, kill_9_at_every_system_call_leaves_the_old_or_the_new_state) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's process cannot be traced";
  try {
    if (run({.argv = {"strace", "-o", "/dev/null", "true"}, .output = {}}, patience) != 0) {
      GTEST_SKIP() << "strace may not trace here";
    }
  } catch (const std::exception& error) {
    GTEST_SKIP() << "no strace: " << error.what();
  }
  const auto depth = times("FULMAR_QUEUE_CALLS", 4);
  std::size_t kills = 0;
  for (const std::string call : {"pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "openat", "flock",
                                 "fcntl", "fallocate", "mmap", "close"}) {
    for (std::size_t number = 1; number <= depth; ++number) {
      // The first ones are those of opening, which the programs' loader has a part in: step over some.
      const auto when = number * (call == "openat" || call == "mmap" || call == "close" ? 5 : 1);
      auto process =
          actor({"cycle", "3"}, {"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
                                 "inject=" + call + ":signal=KILL:when=" + std::to_string(when)});
      const auto code = process.wait(patience);
      ASSERT_TRUE(code) << call;
      if (*code == 128 + SIGKILL)
        ++kills;
      else
        EXPECT_EQ(*code, 0) << call << " " << number;
    }
  }
  std::printf("%zu kills\n", kills);
  EXPECT_GE(kills, 3 * depth);  // some of the calls are made only once or twice
  settle(ledger());
}

TEST_F(SqliteFaults, kill_9_in_a_loop_loses_nothing_that_was_acknowledged) {
  const auto rounds = times("FULMAR_QUEUE_KILLS", 12);
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  std::vector<Process> processes(3);
  for (std::size_t round = 0; round < rounds; ++round) {
    auto& process = processes[round % processes.size()];
    process.kill();
    process = actor({"churn"});
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 120));
  }
  for (auto& process : processes) process.kill();
  const auto said = ledger();
  std::printf("%zu kills; %zu submitted, %zu completed\n", rounds, said.submitted.size(),
              said.completed.size());
  EXPECT_GT(said.submitted.size(), 0u);
  settle(said);
}

TEST_F(SqliteFaults, eight_processes_with_four_threads_do_each_item_once) {
  const auto count = times("FULMAR_QUEUE_ITEMS", 2'000);
  auto queue = open_unsynced();
  std::set<std::string> ids;
  std::vector<NewItem> batch(500);
  while (ids.size() < count) {
    batch.resize(std::min<std::size_t>(batch.size(), count - ids.size()));
    const auto taken = queue.submit_batch(batch);
    ASSERT_TRUE(taken);
    for (const auto& submitted : *taken) ids.insert(submitted.id);
  }
  std::vector<Process> processes;
  for (int i = 0; i < 8; ++i) processes.push_back(actor({"work", "4", "5"}));
  for (auto& process : processes) EXPECT_EQ(process.wait(10 * patience), 0);
  const auto said = ledger();
  EXPECT_EQ(said.completed.size(), ids.size());
  EXPECT_TRUE(said.refused.empty());
  for (const auto& [id, times_completed] : said.completed) {
    EXPECT_EQ(times_completed, 1) << id;
    EXPECT_TRUE(ids.contains(id)) << id;
  }
  EXPECT_EQ(queue.stats()->counts.completed, count);
}

TEST_F(SqliteFaults, the_item_of_a_killed_worker_is_claimable_at_once) {
  const auto rounds = times("FULMAR_QUEUE_DEATHS", 5);
  auto queue = open_unsynced();
  NewItem item;
  item.max_retries = 1'000'000;
  const auto id = queue.submit(item)->id;
  std::vector<double> ms;
  for (std::size_t round = 0; round < rounds; ++round) {
    auto process = actor({"hold", "3600000"});
    ASSERT_TRUE(eventually([&] { return queue.get(id)->status == Status::processing; }));
    std::chrono::steady_clock::time_point killed;
    std::thread killer([&] {
      std::this_thread::sleep_for(30ms);
      killed = std::chrono::steady_clock::now();
      process.kill();
    });
    const auto leases = queue.wait_claim({}, patience);
    killer.join();
    ms.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - killed).count());
    ASSERT_EQ(leases->size(), 1u);
    EXPECT_EQ(leases->front().item.error_message, "worker died");
    EXPECT_EQ(leases->front().item.retry_count, static_cast<int>(round + 1));
    ASSERT_TRUE(queue.release(leases->front().key()));
  }
  std::ranges::sort(ms);
  std::printf("kill -9 to claimed: p50 %.1f ms, worst %.1f ms\n", ms[ms.size() / 2], ms.back());
  EXPECT_LT(ms[ms.size() / 2], 2'000);
}

TEST_F(SqliteFaults, a_worker_that_stood_still_for_too_long_has_lost_its_lease) {
  auto queue = open_unsynced();
  const auto id = *queue.submit("t", "{}");
  auto process = actor({"hold", "200"});
  ASSERT_TRUE(eventually([&] { return ledger().claimed.contains(id); }));
  process.send_signal(SIGSTOP);
  const auto leases = queue.wait_claim({}, patience);
  ASSERT_EQ(leases->size(), 1u);
  EXPECT_EQ(leases->front().item.error_message, "lease expired");
  process.send_signal(SIGCONT);
  EXPECT_EQ(process.wait(patience), 0);
  EXPECT_EQ(ledger().refused[id], 1);
  EXPECT_TRUE(queue.complete(leases->front().key()));
}

TEST_F(SqliteFaults, a_lease_that_is_not_tied_to_its_process_outlives_it) {
  const auto id = [&] {
    auto queue = open();
    const auto submitted = *queue.submit("t", "{}");
    EXPECT_EQ(queue.claim({.tied_to_process = false})->size(), 1u);
    return submitted;
  }();
  auto queue = open();
  std::this_thread::sleep_for(120ms);
  EXPECT_TRUE(queue.claim({})->empty());
  EXPECT_EQ(queue.get(id)->status, Status::processing);
}

TEST_F(SqliteFaults, leases_of_the_machines_former_life_are_void) {
  auto queue = open();
  const auto id = *queue.submit("t", "{}");
  ASSERT_EQ(queue.claim({.tied_to_process = false})->size(), 1u);
  {
    const Queue gone = std::move(queue);
  }
  execute("UPDATE meta SET value='another boot' WHERE key='boot_id'");
  auto again = open();
  EXPECT_EQ(again.get(id)->error_message, "machine restarted");
  EXPECT_EQ(again.claim({})->size(), 1u);
}

TEST_F(SqliteFaults, a_child_after_fork_is_refused) {
  auto queue = open();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto submitted = queue.submit("t", "{}");
    ::_exit(!submitted && submitted.error().message.find("fork") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(queue.submit("t", "{}"));
}

TEST_F(SqliteFaults, who_holds_the_lock_for_too_long_is_named) {
  QueueOptions options;
  options.lock_timeout = 100ms;
  auto queue = open(options);
  const int fd = ::open((path_.string() + "-lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  const auto submitted = queue.submit("t", "{}");
  ASSERT_FALSE(submitted);
  EXPECT_EQ(submitted.error().code, Errc::timeout);
  EXPECT_THAT(submitted.error().message, HasSubstr("process " + std::to_string(::getpid())));
  EXPECT_TRUE(queue.stats()) << "readers do not wait for writers";
  ::close(fd);
  EXPECT_TRUE(queue.submit("t", "{}"));
}

// --- files ------------------------------------------------------------------------------------------------------------

TEST_F(SqliteFaults, a_queue_of_a_newer_version_is_refused_and_left_alone) {
  {
    const auto queue = open();
  }
  execute("PRAGMA user_version=99");
  for (const bool read_only : {false, true}) {
    QueueOptions options;
    options.read_only = read_only;
    const auto opened = Queue::open(url_, options);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::incompatible);
    EXPECT_THAT(opened.error().message,
                HasSubstr("(schema 99, known here is 1); nothing was changed: update"));
  }
  execute("PRAGMA user_version=1");
  EXPECT_TRUE(Queue::open(url_));
}

TEST_F(SqliteFaults, a_database_of_another_program_is_refused_and_left_alone) {
  execute("CREATE TABLE notes(text)");
  const auto opened = Queue::open(url_);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::incompatible);
  EXPECT_EQ(integrity_of(path_), "ok");
}

TEST_F(SqliteFaults, a_file_that_never_was_a_queue_is_refused_and_left_alone) {
  const std::string text(5'000, '?');
  std::ofstream(path_) << text;
  for (const bool read_only : {false, true}) {
    QueueOptions options;
    options.read_only = read_only;
    const auto opened = Queue::open(url_, options);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::incompatible);
    EXPECT_THAT(opened.error().message, HasSubstr("is no database"));
  }
  EXPECT_EQ(std::filesystem::file_size(path_), text.size());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_.path()), {}), 1) << "nothing beside";
}

TEST_F(SqliteFaults, a_queue_that_is_no_database_any_more_is_set_aside) {
  {
    const auto queue = open();
  }
  std::ofstream(path_) << std::string(5'000, '?');
  std::string said;
  QueueOptions options;
  options.log = [&](LogLevel, std::string_view text) { said = text; };
  auto queue = open(options);
  EXPECT_TRUE(queue.submit("t", "{}"));
  EXPECT_THAT(said, HasSubstr(".bad-"));
  {
    const Queue gone = std::move(queue);
  }
  std::ofstream(path_) << std::string(5'000, '?');
  options.set_damaged_aside = false;
  const auto refused = Queue::open(url_, options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::damaged);
  EXPECT_THAT(refused.error().message, HasSubstr("'fulmar queue repair " + url_ + "'"));
}

TEST_F(SqliteFaults, what_is_readable_of_a_damaged_database_is_carried_over) {
  constexpr std::size_t count = 2'000;
  {
    auto queue = open();
    std::vector<NewItem> batch(count);
    for (auto& item : batch) item.payload = "{\"d\":\"" + std::string(200, 'x') + "\"}";
    ASSERT_TRUE(queue.submit_batch(batch));
  }
  // A page in the middle, of whatever it is.
  const auto size = std::filesystem::file_size(path_);
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size / 2 / 4096 * 4096));
    file << std::string(4096, '\xee');
  }
  std::ofstream(path_.string() + "-damaged") << "found in the midst of work\n";
  std::string said;
  QueueOptions options;
  options.log = [&](LogLevel, std::string_view text) { said = text; };
  auto queue = open(options);
  const auto kept = queue.stats()->counts.pending;
  std::printf("%s\n", said.c_str());
  EXPECT_GT(kept, count / 2);
  EXPECT_LE(kept, count);
  EXPECT_EQ(integrity_of(path_), "ok");
}

TEST_F(SqliteFaults, what_lies_behind_and_between_damaged_pages_is_carried_over_too) {
  constexpr std::size_t count = 2'000;
  {
    auto queue = open();
    ASSERT_TRUE(queue.submit_batch(std::vector<NewItem>(count)));
  }
  // A page in every ten; the first ones are the tables' roots.
  std::size_t damaged = 0;
  {
    const auto size = static_cast<std::streamoff>(std::filesystem::file_size(path_));
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    for (std::streamoff page = 40; page * 1'024 < size; page += 10, ++damaged) {
      file.seekp(page * 1'024);
      file << std::string(1'024, '\xee');
    }
  }
  ASSERT_GT(damaged, 10u);
  std::ofstream(path_.string() + "-damaged") << "found in the midst of work\n";
  std::string said;
  QueueOptions options;
  options.log = [&](LogLevel, std::string_view text) { said = text; };
  auto queue = open(options);
  const auto kept = queue.stats()->counts.pending;
  std::printf("%zu pages damaged: %s\n", damaged, said.c_str());
  EXPECT_THAT(said, HasSubstr(std::to_string(kept) + " items were carried over, at least " +
                              std::to_string(count - kept) + " could not be read"));
  EXPECT_GT(kept, count / 2);
  EXPECT_LT(kept, count);
}

TEST_F(SqliteFaults, a_folder_that_cannot_be_written_is_an_error) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  std::filesystem::permissions(directory_.path(),
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_EQ(Queue::open(url_).error().code, Errc::io_error);
}

class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size) {
    try {
      mounted_ =
          run({.argv = {"mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", directory_.path().string()},
               .output = {}},
              patience) == 0;
    } catch (const std::exception&) {
      mounted_ = false;
    }
  }
  ~SmallDisk() {
    if (mounted_) run({.argv = {"umount", "-l", directory_.path().string()}, .output = {}}, patience);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  std::filesystem::path operator/(const std::string& name) const { return directory_ / name; }

 private:
  TempDir directory_;
  bool mounted_ = false;
};

TEST_F(SqliteFaults, a_full_disk_is_an_error_that_loses_nothing) {
  const SmallDisk disk("6m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  const auto url = "sqlite:" + (disk / "queue.db").string();
  std::ofstream(disk / "ballast") << std::string(2 << 20, 'b');
  auto queue = *Queue::open(url);
  NewItem item;
  item.payload = "{\"d\":\"" + std::string(20'000, 'x') + "\"}";
  std::vector<std::string> ids;
  Result<Submitted> submitted;
  while ((submitted = queue.submit(item))) {
    ids.push_back(submitted->id);
    ASSERT_LT(ids.size(), 10'000u);
  }
  EXPECT_EQ(submitted.error().code, Errc::io_error);
  EXPECT_THAT(submitted.error().message, HasSubstr("full"));
  for (const auto& id : ids) EXPECT_TRUE(queue.get(id)) << id;
  EXPECT_EQ(queue.stats()->counts.pending, ids.size());
  // Room again: the next one goes on, in the same process.
  ASSERT_TRUE(std::filesystem::remove(disk / "ballast"));
  submitted = queue.submit(item);
  ASSERT_TRUE(submitted) << submitted.error().message;
  ids.push_back(submitted->id);
  {
    const Queue closed = std::move(queue);
  }
  auto again = *Queue::open(url);
  EXPECT_EQ(again.stats()->counts.pending, ids.size());
  for (const auto& id : ids) EXPECT_TRUE(again.get(id)) << id;
}

TEST_F(SqliteFaults, a_checkpoint_that_has_no_room_loses_nothing_and_is_made_later) {
  const SmallDisk disk("90m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  const auto url = "sqlite:" + (disk / "queue.db").string();
  const auto wal_bytes = [&] { return std::filesystem::file_size(disk / "queue.db-wal"); };
  constexpr std::size_t due = 32 << 20;
  NewItem large;
  large.payload = "{\"d\":\"" + std::string(900'000, 'x') + "\"}";
  QueueOptions unsynced;
  unsynced.durability = Durability::none;
  auto filler = *Queue::open(url, unsynced);
  while (wal_bytes() + 2 * large.payload.size() < due) ASSERT_TRUE(filler.submit(large));
  const auto room = std::filesystem::space(disk / "queue.db").available;
  ASSERT_GT(room, 8u << 20);
  std::ofstream(disk / "ballast") << std::string(room - (8 << 20), 'b');

  auto queue = *Queue::open(url);
  std::vector<ItemId> ids;
  Result<ItemId> id;
  while ((id = queue.submit("t", "{\"d\":\"" + std::string(50'000, 'x') + "\"}"))) {
    ids.push_back(*id);
    ASSERT_LT(ids.size(), 1'000u);
  }
  EXPECT_THAT(id.error().message, HasSubstr("the disk is full; nothing of this was stored"));
  EXPECT_GE(wal_bytes(), due) << "no checkpoint was tried";
  EXPECT_LT(std::filesystem::file_size(disk / "queue.db"), due) << "it had room";
  EXPECT_EQ(queue.stats()->by_type.at("t").pending, ids.size());
  ASSERT_TRUE(std::filesystem::remove(disk / "ballast"));
  id = queue.submit("t", "{}");
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_GE(std::filesystem::file_size(disk / "queue.db"), due - (2 << 20))
      << "the checkpoint came with the next one";
  for (const auto& one : ids) EXPECT_TRUE(queue.get(one)) << one;
}

TEST_F(SqliteFaults, a_queue_that_has_no_room_to_begin_is_an_error_and_begins_later) {
  const SmallDisk disk("1m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  std::ofstream(disk / "ballast") << std::string(1 << 20, 'b');
  const auto url = "sqlite:" + (disk / "queue.db").string();
  const auto opened = Queue::open(url);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::io_error);
  EXPECT_THAT(opened.error().message,
              testing::AnyOf(HasSubstr("No space left on device"), HasSubstr("disk is full")));
  ASSERT_TRUE(std::filesystem::remove(disk / "ballast"));
  auto later = Queue::open(url);
  ASSERT_TRUE(later) << later.error().message;
  EXPECT_TRUE(later->submit("t", "{}"));
}

}  // namespace
}  // namespace fulmar::test
