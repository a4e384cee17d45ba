// What is on the disk when the power goes, at any moment of the work, and after syncs that failed. The disk is simulated
// (simulated_disk.hpp), each state it may be left in is opened on the real one.
// FULMAR_QUEUE_CUTS: how many power cuts there are (60); FULMAR_SEED: one run again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "fulmar/queue.hpp"
#include "tests/queue/integrity.hpp"
#include "tests/queue/simulated_disk.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using namespace queue;
using testing::HasSubstr;
namespace fs = std::filesystem;
using SyncBy = SimulatedDisk::SyncBy;

std::uint32_t number_of(const char* variable, std::uint32_t otherwise) {
  const char* value = std::getenv(variable);
  return value ? static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10)) : otherwise;
}

// What was acknowledged.
struct Acknowledged {
  std::set<ItemId> submitted, completed;
};

class SqlitePower : public testing::Test {
 protected:
  SqlitePower() {
    std::printf("FULMAR_SEED=%u\n", seed_);
    fs::create_directory(directory_ / "disk");
    disk_->on_event = [this](SimulatedDisk::Event event, const std::string&) {
      ++events_;
      syncs_ += event == SimulatedDisk::Event::sync;
      if (cut_at_ && cut_at_()) cut();
    };
  }

  Queue open(QueueOptions options = {}) {
    auto opened = Queue::open("sqlite:" + (directory_ / "disk/queue.db").string(), std::move(options));
    if (!opened) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
  Result<ItemId> submit(Queue& queue, std::size_t bytes = 100) {
    auto id = queue.submit("t", "{\"d\":\"" + std::string(bytes, 'x') + "\"}");
    const std::lock_guard lock(mutex_);
    if (id) acknowledged_.submitted.insert(*id);
    return id;
  }
  void complete_some(Queue& queue) {
    const auto leases = queue.claim({.items_max = 3});
    ASSERT_TRUE(leases) << leases.error().message;
    for (const auto& lease : *leases) {
      if (!queue.complete(lease.key())) continue;
      const std::lock_guard lock(mutex_);
      acknowledged_.completed.insert(lease.item.id);
    }
  }

  // The power goes: what there is then, and what was acknowledged before, is looked at later.
  void cut() {
    const std::lock_guard lock(mutex_);
    const auto name = "cut" + std::to_string(cuts_.size());
    fs::create_directory(directory_ / name);
    disk_->power_cut(directory_ / name);
    cuts_.emplace_back(directory_ / name, acknowledged_);
  }

  struct Found {
    std::size_t lost = 0;    // acknowledged, and not there
    std::size_t undone = 0;  // acknowledged as completed, and to be done again
    std::size_t damaged = 0;
  };
  // Of all cuts. The simulation is over then.
  Found look() {
    cut_at_ = nullptr;
    disk_.reset();
    Found found;
    for (const auto& [folder, acknowledged] : cuts_) {
      std::string said;
      QueueOptions options;
      options.durability = Durability::none;
      options.log = [&](LogLevel, std::string_view text) { said += text; };
      auto queue = Queue::open("sqlite:" + (folder / "queue.db").string(), options);
      if (!queue || !said.empty()) {
        ++found.damaged;
        ADD_FAILURE() << folder << ": " << (queue ? said : queue.error().message);
        continue;
      }
      for (const auto& id : acknowledged.submitted) found.lost += !queue->get(id);
      for (const auto& id : acknowledged.completed) {
        const auto item = queue->get(id);
        found.undone += !item || item->status != Status::completed;
      }
      {
        const Queue closed = std::move(*queue);
      }
      found.damaged += integrity_of(folder / "queue.db") != "ok";
    }
    std::printf("%zu power cuts in %zu writes and syncs; %zu items submitted, %zu completed\n", cuts_.size(),
                events_.load(), acknowledged_.submitted.size(), acknowledged_.completed.size());
    return found;
  }

  const std::uint32_t seed_ = number_of("FULMAR_SEED", std::random_device{}());
  TempDir directory_;
  std::unique_ptr<SimulatedDisk> disk_ = std::make_unique<SimulatedDisk>(seed_);
  std::function<bool()> cut_at_;  // at this event? On any thread
  std::atomic<std::size_t> events_ = 0, syncs_ = 0;
  std::mutex mutex_;
  Acknowledged acknowledged_;
  std::vector<std::pair<fs::path, Acknowledged>> cuts_;
};

TEST_F(SqlitePower, goes_at_any_moment_and_what_was_acknowledged_is_there) {
  const auto cuts = number_of("FULMAR_QUEUE_CUTS", 60);
  std::mutex mutex;
  std::minstd_rand random(seed_);
  std::size_t taken = 0;
  cut_at_ = [&] {
    const std::lock_guard lock(mutex);
    const bool now = taken < cuts && random() % 25 == 0;
    taken += now;
    return now;
  };
  // Closing makes a checkpoint, so that cuts fall into these too.
  for (int life = 0; life < 100 && taken < cuts; ++life) {
    auto queue = open();
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int round = 0; round < 10; ++round) {
          const auto id = submit(queue);
          EXPECT_TRUE(id) << id.error().message;
          if (round % 3 == 0) complete_some(queue);
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  const auto found = look();
  EXPECT_EQ(cuts_.size(), cuts);
  EXPECT_EQ(found.lost, 0u);
  EXPECT_EQ(found.undone, 0u);
  EXPECT_EQ(found.damaged, 0u);
}

// Without it the tests beside say nothing.
TEST_F(SqlitePower, goes_and_what_was_not_synced_may_be_lost) {
  QueueOptions options;
  options.durability = Durability::none;
  {
    auto queue = open(options);
    cut_at_ = [&] { return cuts_.size() < 10 && events_ % 50 == 0; };
    for (int i = 0; i < 400; ++i) ASSERT_TRUE(submit(queue));
  }
  const auto found = look();
  EXPECT_EQ(cuts_.size(), 10u);
  EXPECT_GT(found.lost, 0u);
  EXPECT_EQ(found.damaged, 0u) << "what is there is whole";
}

TEST_F(SqlitePower, a_sync_that_fails_is_told_and_loses_nothing_that_was_acknowledged) {
  std::string said;
  QueueOptions options;
  options.log = [&](LogLevel, std::string_view text) { said = text; };
  {
    // Closing it takes all of this into the database: the WAL begins anew, and has nothing to mend pages with.
    auto queue = open(options);
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(submit(queue));
  }
  {
    auto queue = open(options);
    // From here on the power may go.
    int seen = 0;
    cut_at_ = [&] { return ++seen % 5 == 0 && cuts_.size() < 120; };
    bool failed = false;
    disk_->fails = [&](const std::string& path, SyncBy) {
      return !std::exchange(failed, true) && path.ends_with("-wal");
    };
    const auto refused = queue.submit_batch(std::vector<NewItem>(200));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::io_error);
    EXPECT_THAT(refused.error().message, HasSubstr("the disk could not sync; it is not known whether"));
    EXPECT_THAT(said, HasSubstr("syncing works again"));
    for (int i = 0; i < 5; ++i) {
      const auto next = submit(queue);
      EXPECT_TRUE(next) << next.error().message;
    }
    cut();
  }
  const auto found = look();
  EXPECT_EQ(found.lost, 0u);
  EXPECT_EQ(found.damaged, 0u);
}

TEST_F(SqlitePower, a_disk_that_fails_for_a_while_is_told_each_time_and_then_it_goes_on) {
  {
    auto queue = open();
    ASSERT_TRUE(submit(queue));
    std::atomic<bool> broken = true;
    disk_->fails = [&](const std::string&, SyncBy) { return broken.load(); };
    for (int i = 0; i < 3; ++i) {
      const auto refused = submit(queue);
      ASSERT_FALSE(refused);
      EXPECT_EQ(refused.error().code, Errc::io_error);
      EXPECT_TRUE(queue.stats()) << "reading goes on";
      cut();
    }
    broken = false;
    const auto next = submit(queue);
    EXPECT_TRUE(next) << next.error().message;
    cut();
  }
  const auto found = look();
  EXPECT_EQ(found.lost, 0u);
  EXPECT_EQ(found.damaged, 0u);
}

// SQLite's own checkpoint at a COMMIT says nothing of it, and the sync after it succeeds.
TEST_F(SqlitePower, a_sync_that_fails_in_a_checkpoint_is_told) {
  const auto wal = directory_ / "disk/queue.db-wal";
  constexpr std::size_t bytes = 900'000, due = 32 << 20;
  {
    QueueOptions options;
    options.durability = Durability::none;
    auto filler = open(options);
    auto queue = open();
    while (fs::file_size(wal) + 2 * bytes < due)
      ASSERT_TRUE(filler.submit("t", "{\"d\":\"" + std::string(bytes, 'x') + "\"}"));
    bool failed = false;
    disk_->fails = [&](const std::string& path, SyncBy by) {
      return path.ends_with("-wal") && by == SyncBy::sqlite && !std::exchange(failed, true);
    };
    for (int i = 0; i < 100 && !failed; ++i) {
      const auto submitted = submit(queue, 100'000);
      EXPECT_EQ(!submitted, failed) << "the one whose commit made the checkpoint";
      if (submitted) continue;
      EXPECT_THAT(submitted.error().message, HasSubstr("the disk could not sync"));
    }
    ASSERT_TRUE(failed) << "there was no checkpoint";
    for (int i = 0; i < 5; ++i) cut();
    const auto next = submit(queue);
    EXPECT_TRUE(next) << next.error().message;
    for (int i = 0; i < 5; ++i) cut();
  }
  const auto found = look();
  EXPECT_EQ(found.lost, 0u);
  EXPECT_EQ(found.damaged, 0u);
}

}  // namespace
}  // namespace fulmar::test
