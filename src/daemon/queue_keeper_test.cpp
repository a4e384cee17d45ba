#include "daemon/queue_keeper.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "tests/support/temp_dir.hpp"

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

TEST(QueueKeeper, ends_leases_that_expired_and_knows_the_numbers) {
  const test::TempDir folder;
  const auto url = "sqlite:" + (folder / "q.db").string();
  auto queue = Queue::open(url, {.name = "mail"});
  ASSERT_TRUE(queue) << queue.error().message;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(queue->submit("letter", "{}"));
  ASSERT_TRUE(queue->claim({.lease = 10ms, .tied_to_process = false}));
  QueueKeeper keeper({.url = url, .name = "mail", .upkeep_interval = 20ms}, [](bool, std::string_view) {});
  keeper.start();
  EXPECT_TRUE(eventually([&] {
    const auto status = keeper.status();
    return status.known && status.expired == 1 && status.stats.counts.pending == 3;
  }));
  EXPECT_EQ(keeper.status().name, "mail");
  EXPECT_EQ(keeper.status().trouble, "");
}

TEST(QueueKeeper, tells_a_store_that_cannot_be_opened_once_and_goes_on) {
  const test::TempDir folder;
  std::mutex mutex;
  std::vector<std::string> told;
  QueueKeeper keeper(
      {.url = "sqlite:" + (folder / "none/q.db").string(), .name = {}, .upkeep_interval = 20ms},
      [&](bool trouble, std::string_view text) {
        const std::lock_guard lock(mutex);
        if (trouble) told.emplace_back(text);
      });
  keeper.start();
  ASSERT_TRUE(eventually([&] { return !keeper.status().trouble.empty(); }));
  const auto begin = std::chrono::steady_clock::now();
  keeper.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(told[0], HasSubstr("none"));
  EXPECT_FALSE(keeper.status().known);
}

}  // namespace
}  // namespace fulmar::daemon
