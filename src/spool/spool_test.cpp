#include "spool/spool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "spool/inspector.hpp"
#include "spool/log_fixture.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::spool::test {
namespace {

using namespace std::chrono_literals;
using Promise = Spool::Promise;

// A simulated disk that another thread may look at, and that can be told to answer no sync.
class Disk final : public FileSystem {
 public:
  void stall(bool on) {
    const std::lock_guard hold(mutex_);
    stalled_ = on;
    changed_.notify_all();
  }
  bool waits_for_sync(std::chrono::milliseconds limit = 10s) {
    std::unique_lock hold(mutex_);
    return changed_.wait_for(hold, limit, [&] { return waiting_; });
  }
  template <typename Do>
  auto with(Do&& act) {
    const std::lock_guard hold(mutex_);
    return act(files_);
  }

  Io<std::unique_ptr<File>> open(const Path& path, Mode mode) override {
    auto file = with([&](auto& files) { return files.open(path, mode); });
    if (!file) return std::unexpected(file.error());
    return std::make_unique<DiskFile>(*this, std::move(*file));
  }
  Io<void> make_directories(const Path& path) override {
    return with([&](auto& files) { return files.make_directories(path); });
  }
  Io<std::vector<Item>> list(const Path& path) override {
    return with([&](auto& files) { return files.list(path); });
  }
  Io<void> rename(const Path& from, const Path& to) override {
    return with([&](auto& files) { return files.rename(from, to); });
  }
  Io<void> remove(const Path& path) override {
    return with([&](auto& files) { return files.remove(path); });
  }
  Io<void> sync_directory(const Path& path) override {
    return with([&](auto& files) { return files.sync_directory(path); });
  }
  std::expected<std::unique_ptr<Lock>, LockRefused> lock(const Path& path) override {
    auto lock = with([&](auto& files) { return files.lock(path); });
    if (!lock) return std::unexpected(lock.error());
    return std::make_unique<DiskLock>(*this, std::move(*lock));
  }
  std::optional<std::string> remote_kind(const Path&) override { return std::nullopt; }
  std::uint64_t random() override {
    return with([](auto& files) { return files.random(); });
  }

 private:
  class DiskFile final : public File {
   public:
    DiskFile(Disk& disk, std::unique_ptr<File> file) : disk_(disk), file_(std::move(file)) {}
    Io<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) override {
      return disk_.with([&](auto&) { return file_->read(offset, into); });
    }
    Io<std::size_t> write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      return disk_.with([&](auto&) { return file_->write(offset, bytes); });
    }
    Io<void> sync_data() override {
      std::unique_lock hold(disk_.mutex_);
      disk_.waiting_ = disk_.stalled_;
      disk_.changed_.notify_all();
      disk_.changed_.wait(hold, [&] { return !disk_.stalled_; });
      disk_.waiting_ = false;
      return file_->sync_data();
    }
    Io<void> allocate(std::uint64_t size) override {
      return disk_.with([&](auto&) { return file_->allocate(size); });
    }
    Io<void> resize(std::uint64_t size) override {
      return disk_.with([&](auto&) { return file_->resize(size); });
    }

   private:
    Disk& disk_;
    std::unique_ptr<File> file_;
  };

  class DiskLock final : public Lock {
   public:
    DiskLock(Disk& disk, std::unique_ptr<Lock> lock) : disk_(disk), lock_(std::move(lock)) {}
    DiskLock(const DiskLock&) = delete;
    DiskLock& operator=(const DiskLock&) = delete;
    ~DiskLock() override {
      disk_.with([this](auto&) { lock_.reset(); });
    }

   private:
    Disk& disk_;
    std::unique_ptr<Lock> lock_;
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stalled_ = false, waiting_ = false;
  SimulatedFileSystem files_;
};

// The owner thread: what it did, and what it was told.
struct Owner {
  explicit Owner(Disk& disk, const std::function<void(SpoolOptions&)>& adjust = {}) {
    SpoolOptions options;
    options.log.directory = "/spool";
    options.log.bytes_max = 4 << 20;
    options.log.overflow = Overflow::reject;
    options.sync_interval = 5ms;
    options.cursor_interval = 5ms;
    options.retry_interval = 5ms;
    if (adjust) adjust(options);
    spool = std::make_unique<Spool>(
        std::move(options),
        [this] {
          const std::lock_guard hold(mutex);
          woken = true;
          ++wakes;
          changed.notify_all();
        },
        disk);
    EXPECT_TRUE(spool->start());
  }

  bool append(std::string_view text, Promise promise = Promise::written) {
    const Bytes part = bytes_of(text);
    if (!spool->append({&part, 1}, 0, next_token, promise)) return false;
    texts[next_token++] = text;
    return true;
  }

  void poll() {
    spool->poll([this](Event& event) { std::visit([this](auto& one) { on(one); }, event); });
    spool->submit();
  }
  void on(Opened& event) { opened = event; }
  void on(OpenFailed& event) { open_error = event.error.message; }
  void on(Assigned& event) {
    EXPECT_EQ(event.token, next_fate++);
    EXPECT_GT(event.sequence, assigned.empty() ? 0 : assigned.rbegin()->first);
    assigned[event.sequence] = event.token;
  }
  void on(Rejected& event) {
    EXPECT_EQ(event.token, next_fate++);
    rejected.push_back(event.reason);
  }
  void on(Stored& event) {
    EXPECT_GE(event.synced, stored.synced);
    stored = event;
  }
  void on(ReleasesSaved& event) { released = event.token; }
  void on(Chunk& event) {
    for (const auto& entry : event.entries) {
      read[entry.sequence] = text_of(entry.bytes);
      if (acknowledge) spool->acknowledge(entry.sequence);
    }
    if (keep_chunks) {
      kept.push_back(event.index);
    } else {
      spool->give_back(event.index);
    }
  }
  void on(ReadToEnd& event) { read_through = event.through; }
  void on(Dropped& event) { dropped += event.entries; }
  void on(NotDropped& event) { dropped -= event.entries; }
  void on(Failing& event) { failing = event.error.message; }
  void on(Recovered&) { recovered = true; }
  void on(Notice& event) { notices += event.text + "\n"; }

  // Turns until `holds`, for ten seconds at most.
  template <typename Holds>
  bool until(Holds&& holds) {
    const auto limit = std::chrono::steady_clock::now() + 10s;
    spool->submit();
    for (;;) {
      poll();
      if (holds()) return true;
      std::unique_lock hold(mutex);
      if (!changed.wait_until(hold, limit, [&] { return woken; })) return false;
      woken = false;
    }
  }
  // For what no event tells of.
  template <typename Holds>
  bool eventually(Holds&& holds) {
    for (int i = 0; i < 10'000 && !holds(); ++i) {
      poll();
      std::this_thread::sleep_for(1ms);
    }
    return holds();
  }
  bool until_synced() {
    return until([&] {
      return next_fate == next_token && (assigned.empty() || stored.synced >= assigned.rbegin()->first);
    });
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool woken = false;
  int wakes = 0;

  std::uint64_t next_token = 1, next_fate = 1;
  std::map<std::uint64_t, std::string> texts;  // by token
  std::map<Sequence, std::uint64_t> assigned;
  std::map<Sequence, std::string> read;
  std::vector<Refusal> rejected;
  std::deque<std::size_t> kept;
  std::optional<Opened> opened;
  std::string open_error, failing, notices;
  Stored stored;
  Sequence read_through = 0;
  std::uint64_t released = 0, dropped = 0;
  bool acknowledge = false, keep_chunks = false, recovered = false;
  std::unique_ptr<Spool> spool;  // last: its thread uses the others
};

TEST(Spool, stores_reads_and_acknowledges_across_restarts) {
  Disk disk;
  Sequence last = 0;
  for (int life = 0; life < 3; ++life) {
    Owner owner(disk);
    for (int i = 0; i < 500; ++i) ASSERT_TRUE(owner.append(body(i)));
    ASSERT_TRUE(owner.until_synced());
    ASSERT_TRUE(owner.opened);
    EXPECT_EQ(owner.opened->next, last + 1);
    EXPECT_EQ(owner.assigned.size(), 500u);
    last = owner.assigned.rbegin()->first;
    if (life == 2) {
      owner.acknowledge = true;
      owner.spool->want(true);
      ASSERT_TRUE(owner.until([&] { return owner.read_through == last; }));
      EXPECT_EQ(owner.read.size(), 1'500u);
      EXPECT_EQ(owner.read.at(last), body(499));
      ASSERT_TRUE(owner.eventually([&] { return owner.spool->stats().entries == 0; }));
    }
    EXPECT_TRUE(owner.spool->stop(10s));
  }
  Owner owner(disk);
  ASSERT_TRUE(owner.until([&] { return owner.opened.has_value(); }));
  EXPECT_EQ(owner.opened->stats.entries, 0u);
  EXPECT_EQ(owner.opened->first, owner.opened->next);
}

TEST(Spool, syncs_once_for_all_that_came_while_the_disk_was_busy) {
  Disk disk;
  Owner owner(disk, [](SpoolOptions& options) { options.sync_interval = 1h; });
  ASSERT_TRUE(owner.append("first", Promise::synced));
  ASSERT_TRUE(owner.until_synced());
  disk.stall(true);
  ASSERT_TRUE(owner.append("leader", Promise::synced));
  owner.spool->submit();
  ASSERT_TRUE(disk.waits_for_sync());
  const auto before = disk.with([](auto& files) { return files.count(Operation::sync_data); });
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(owner.append(body(i), Promise::synced));
    owner.spool->submit();
  }
  disk.stall(false);
  ASSERT_TRUE(owner.until_synced());
  EXPECT_EQ(disk.with([](auto& files) { return files.count(Operation::sync_data); }) - before, 2u);
}

TEST(Spool, never_waits_for_a_disk_that_does_not_answer_and_says_when_there_is_no_room) {
  Disk disk;
  Owner owner(disk, [](SpoolOptions& options) { options.staging_bytes = 256 << 10; });
  ASSERT_TRUE(owner.append("first", Promise::synced));
  ASSERT_TRUE(owner.until_synced());
  disk.stall(true);
  ASSERT_TRUE(owner.append("leader", Promise::synced));
  owner.spool->submit();
  ASSERT_TRUE(disk.waits_for_sync());
  int taken = 0;
  while (owner.append(body(taken, 1'000), Promise::synced)) ASSERT_LT(++taken, 1'000);
  EXPECT_GT(taken, 200);
  for (int i = 0; i < 1'000; ++i) {
    EXPECT_FALSE(owner.append(body(0, 1'000)));
    owner.poll();
  }
  disk.stall(false);
  ASSERT_TRUE(owner.until([&] { return owner.append("again"); })) << "woken when there is room";
  ASSERT_TRUE(owner.until_synced());
  EXPECT_EQ(owner.assigned.size(), static_cast<std::size_t>(taken) + 3);
}

TEST(Spool, takes_large_entries_one_at_a_time) {
  Disk disk;
  Owner owner(disk, [](SpoolOptions& options) {
    options.staging_bytes = 64 << 10;
    options.log.bytes_max = 16 << 20;
  });
  const std::string large(500'000, 'x');
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(owner.until([&] { return owner.append(large); }));
  ASSERT_TRUE(owner.append("small"));
  ASSERT_TRUE(owner.until_synced());
  owner.acknowledge = true;
  owner.spool->want(true);
  ASSERT_TRUE(owner.until([&] { return owner.read_through == 6; }));
  EXPECT_EQ(owner.read.at(5), large);
}

TEST(Spool, says_that_the_disk_fails_keeps_what_is_not_stored_and_goes_on_when_it_works_again) {
  Disk disk;
  Owner owner(disk);
  ASSERT_TRUE(owner.append("before"));
  ASSERT_TRUE(owner.until_synced());
  disk.with([](auto& files) { files.fail_at(Operation::sync_data, 1, EIO, true); });
  ASSERT_TRUE(owner.append("during", Promise::synced));
  ASSERT_TRUE(owner.until([&] { return !owner.failing.empty(); }));
  EXPECT_THAT(owner.failing, testing::HasSubstr("nothing is stored until this is helped"));
  EXPECT_EQ(owner.stored.synced, 1u);
  ASSERT_TRUE(owner.append("meanwhile"));
  ASSERT_TRUE(owner.until([&] { return !owner.rejected.empty(); }));
  EXPECT_EQ(owner.rejected[0], Refusal::failing);
  disk.with([](auto& files) { files.heal(); });
  ASSERT_TRUE(owner.until([&] { return owner.recovered && owner.stored.synced == 2; }));
  ASSERT_TRUE(owner.append("after"));
  ASSERT_TRUE(owner.until_synced());
}

TEST(Spool, reports_that_the_directory_is_taken_and_rejects_what_is_appended) {
  Disk disk;
  Owner first(disk);
  ASSERT_TRUE(first.until([&] { return first.opened.has_value(); }));
  Owner second(disk);
  ASSERT_TRUE(second.append("nowhere"));
  ASSERT_TRUE(second.until([&] { return !second.rejected.empty(); }));
  EXPECT_THAT(second.open_error, testing::HasSubstr("in use by process 4711"));
  EXPECT_TRUE(second.spool->stop(10s));
}

TEST(Spool, writes_down_what_was_acknowledged_after_64_without_waiting_for_the_time) {
  Disk disk;
  Owner owner(disk, [](auto& options) { options.cursor_interval = 1h; });
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(owner.append("entry", Promise::synced));
  ASSERT_TRUE(owner.until_synced());
  const auto low = [&] {
    const auto found = Inspector::open(disk, "/spool");
    return found && found->cursor() ? found->cursor()->low : 0;
  };
  for (Sequence sequence = 1; sequence <= 64; ++sequence) owner.spool->acknowledge(sequence);
  EXPECT_TRUE(owner.eventually([&] { return low() == 64; })) << low();
}

TEST(Spool, opens_the_directory_when_it_can_and_tells_each_reason_once) {
  Disk disk;
  {
    Owner former(disk);
    ASSERT_TRUE(former.until([&] { return former.opened.has_value(); }));
    ASSERT_TRUE(former.append("left", Promise::synced));
    former.spool->release(1, 7);
    ASSERT_TRUE(former.until([&] { return former.stored.synced == 1 && former.released == 7u; }));
    Owner next(disk);
    ASSERT_TRUE(next.until([&] { return !next.open_error.empty(); }));
    next.open_error.clear();
    next.spool->forget_releases(9);  // holds for what will be found
    next.spool->submit();
    std::this_thread::sleep_for(50ms);  // several attempts
    next.poll();
    EXPECT_EQ(next.open_error, "") << "told before";
    EXPECT_FALSE(next.opened);
    former.spool->stop(10s);
    ASSERT_TRUE(next.until([&] { return next.opened.has_value(); }));
    EXPECT_EQ(next.opened->stats.entries, 1u);
    ASSERT_TRUE(next.until([&] { return next.released == 9u; }));
    ASSERT_TRUE(next.append("more", Promise::synced));
    ASSERT_TRUE(next.until([&] { return next.stored.synced == 2; }));
  }
  Owner last(disk);
  last.spool->want(true);
  ASSERT_TRUE(last.until([&] { return last.read.size() == 2; }));
  EXPECT_EQ(last.read[1], "left");
}

TEST(Spool, stops_within_the_deadline_of_a_disk_that_does_not_answer) {
  static Disk disk;  // outlives the thread that is left behind
  {
    Owner owner(disk);
    ASSERT_TRUE(owner.append("first", Promise::synced));
    ASSERT_TRUE(owner.until_synced());
    disk.stall(true);
    ASSERT_TRUE(owner.append("second", Promise::synced));
    owner.spool->submit();
    ASSERT_TRUE(disk.waits_for_sync());
    EXPECT_FALSE(owner.spool->stop(20ms));
  }
  disk.stall(false);  // the thread ends by itself, and gives the directory free
  for (int i = 0; i < 1'000; ++i) {
    if (disk.lock("/spool/lock")) break;
    std::this_thread::sleep_for(10ms);
  }
  Owner next(disk);
  ASSERT_TRUE(next.until([&] { return next.opened || !next.open_error.empty(); }));
  ASSERT_TRUE(next.opened) << next.open_error;
  EXPECT_EQ(next.opened->stats.entries, 2u);
}

TEST(Spool, reads_no_further_than_the_owner_has_room) {
  Disk disk;
  Owner owner(disk, [](SpoolOptions& options) { options.chunk_bytes = 8 << 10; });
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(owner.append(body(i)));
  ASSERT_TRUE(owner.until_synced());
  owner.keep_chunks = true;
  owner.spool->want(true);
  ASSERT_TRUE(owner.until([&] { return owner.kept.size() == 2; }));
  const auto first = owner.read.size();
  EXPECT_LT(first, 250u);
  EXPECT_EQ(owner.read_through, 0u);
  // From the start again: what was read ahead before is not handed out any more.
  owner.spool->rewind();
  owner.read.clear();
  owner.keep_chunks = false;
  for (const auto chunk : owner.kept) owner.spool->give_back(chunk);
  ASSERT_TRUE(owner.until([&] { return owner.read_through == 1'000; }));
  EXPECT_EQ(owner.read.size(), 1'000u);
}

TEST(Spool, tells_when_a_release_is_on_the_medium_and_remembers_it) {
  Disk disk;
  {
    Owner owner(disk);
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(owner.append(body(i)));
    ASSERT_TRUE(owner.until_synced());
    owner.spool->release(3, 77);
    ASSERT_TRUE(owner.until([&] { return owner.released == 77; }));
    disk.with([](auto& files) { files.crash(); });
    owner.spool->stop(10s);
  }
  SpoolOptions options;
  auto log = Log::open(disk, {.directory = "/spool", .bytes_max = 4 << 20}, 1);
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_TRUE((*log)->is_released(3));
  EXPECT_FALSE((*log)->is_released(4));
}

TEST(Spool, loses_and_repeats_nothing_under_random_use) {
  Disk disk;
  std::mt19937_64 random(3);
  Owner owner(disk, [](SpoolOptions& options) {
    options.chunk_bytes = 16 << 10;
    options.staging_bytes = 64 << 10;
    options.log.bytes_max = 64 << 20;
  });
  owner.acknowledge = true;
  const int entries = fulmar::test::sanitized ? 3'000 : 20'000;
  for (int i = 0; i < entries;) {
    if (owner.append(body(i), random() % 50 ? Promise::written : Promise::synced)) {
      ++i;
    } else {
      std::unique_lock hold(owner.mutex);
      ASSERT_TRUE(owner.changed.wait_for(hold, 10s, [&] { return owner.woken; }));
      owner.woken = false;
    }
    if (random() % 64 == 0) owner.poll();
    if (random() % 500 == 0) owner.spool->want(random() % 2);
    if (random() % 5'000 == 0) owner.spool->rewind();
    if (random() % 1'000 == 0) owner.spool->sync();
  }
  owner.spool->want(true);
  ASSERT_TRUE(owner.until_synced());
  ASSERT_TRUE(owner.until([&] { return owner.read.size() == owner.assigned.size(); }));
  for (const auto& [sequence, text] : owner.read) ASSERT_EQ(text, owner.texts[owner.assigned[sequence]]);
  ASSERT_TRUE(owner.eventually([&] { return owner.spool->stats().entries == 0; }));
  EXPECT_TRUE(owner.spool->stop(10s));
  EXPECT_EQ(owner.spool->stats().lost, 0u);
  EXPECT_EQ(owner.spool->acknowledgements_refused(), 0u);
}

}  // namespace
}  // namespace fulmar::spool::test
