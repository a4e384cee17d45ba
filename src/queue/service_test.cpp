#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <set>
#include <thread>

#include "fulmar/queue.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using namespace queue;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class QueueService : public testing::Test {
 protected:
  Queue open(QueueOptions options = {}) {
    auto opened = Queue::open(url(), std::move(options));
    if (!opened) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
  std::string url() const { return "sqlite:" + (directory_ / "queue.db").string(); }
  static QueueOptions unsynced() {
    QueueOptions options;
    options.durability = Durability::none;
    return options;
  }

  test::TempDir directory_;
};

template <typename Condition>
bool eventually(Condition&& condition) {
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

TEST_F(QueueService, hands_an_item_from_submit_to_complete) {
  auto queue = open();
  const auto id = queue.submit("resize", R"({"image":17})");
  ASSERT_TRUE(id) << id.error().message;
  const auto leases = queue.claim({});
  ASSERT_THAT(*leases, SizeIs(1));
  EXPECT_EQ(leases->front().item.id, *id);
  EXPECT_THAT(leases->front().item.lease_owner, HasSubstr(":"));
  EXPECT_TRUE(queue.extend(leases->front().key()));
  EXPECT_TRUE(queue.complete(leases->front().key(), R"({"ok":true})"));
  EXPECT_EQ(queue.get(*id)->status, Status::completed);
  const auto again = queue.complete(leases->front().key());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::illegal_transition);
}

TEST_F(QueueService, has_the_plainest_use) {
  auto queue = open();
  ASSERT_TRUE(queue.submit_task("TASK-1"));
  ASSERT_TRUE(queue.submit_task("TASK-\"2\"", 5));
  const auto task = queue.get_next_task();
  ASSERT_TRUE(task && *task);
  EXPECT_EQ((*task)->payload, R"({"task_id":"TASK-\"2\""})");
  EXPECT_EQ((*task)->type, "task");
  EXPECT_TRUE(queue.complete_task((*task)->id));
  EXPECT_FALSE(queue.complete_task((*task)->id));
  ASSERT_TRUE(*queue.get_next_task());
  EXPECT_FALSE(*queue.get_next_task());
}

TEST_F(QueueService, says_what_is_wrong_before_it_asks_the_store) {
  auto queue = open();
  EXPECT_EQ(queue.submit("t", "[1]").error().code, Errc::invalid_item);
  EXPECT_EQ(queue.submit("t", "{\"d\":\"" + std::string(2 << 20, 'x') + "\"}").error().code,
            Errc::payload_too_large);
  EXPECT_EQ(queue.claim({.items_max = 0}).error().code, Errc::invalid_item);
  EXPECT_EQ(queue.claim({.items_max = 1001}).error().code, Errc::invalid_item);
  const std::vector<NewItem> batch{NewItem{}, NewItem{.type = ""}};
  EXPECT_THAT(queue.submit_batch(batch).error().message, HasSubstr("item 2 of the batch"));
  EXPECT_EQ(queue.stats()->counts.total(), 0u);
  ASSERT_TRUE(queue.submit("t", "{}"));
  ASSERT_TRUE(queue.submit("t", "{}"));
  const auto leases = *queue.claim({.items_max = 2});
  const std::vector<Completion> completions{{leases[0].key(), "no json"}, {leases[1].key(), "1"}};
  const auto refusals = *queue.complete_batch(completions);
  ASSERT_THAT(refusals, SizeIs(1));
  EXPECT_EQ(refusals[0].index, 0u);
  EXPECT_EQ(queue.stats()->counts.completed, 1u);
}

TEST_F(QueueService, a_transaction_is_one_step_or_none) {
  auto queue = open();
  const auto failed = queue.with_transaction([](Queue& inside) -> Result<void> {
    EXPECT_TRUE(inside.submit("t", "{}"));
    EXPECT_TRUE(inside.in("other")->submit("t", "{}"));
    throw std::runtime_error("oh");
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::handler_failed);
  EXPECT_EQ(queue.stats()->counts.total(), 0u);
  ASSERT_TRUE(queue.with_transaction([](Queue& inside) -> Result<void> {
    EXPECT_TRUE(inside.submit("t", "{}"));
    EXPECT_TRUE(inside.in("other")->submit("t", "{}"));
    EXPECT_FALSE(inside.wait_claim({}, 1s));
    return {};
  }));
  EXPECT_EQ(queue.stats()->counts.total(), 1u);
  EXPECT_EQ(queue.in("other")->stats()->counts.total(), 1u);
}

TEST_F(QueueService, a_waiting_claim_is_woken_by_another_handle) {
  auto queue = open(unsynced());
  auto other = open(unsynced());
  std::thread later([&] {
    std::this_thread::sleep_for(20ms);
    EXPECT_TRUE(other.submit("t", "{}"));
  });
  const auto leases = queue.wait_claim({}, 20s);
  later.join();
  EXPECT_THAT(*leases, SizeIs(1));
  EXPECT_THAT(*queue.wait_claim({}, 1ms), IsEmpty());
}

TEST_F(QueueService, a_waiting_claim_gets_what_becomes_due) {
  auto queue = open(unsynced());
  NewItem item;
  item.scheduled_at = std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now()) + 50ms;
  ASSERT_TRUE(queue.submit(item));
  EXPECT_THAT(*queue.claim({}), IsEmpty());
  EXPECT_THAT(*queue.wait_claim({}, 20s), SizeIs(1));
}

TEST_F(QueueService, an_interrupted_wait_says_so) {
  auto queue = open(unsynced());
  std::atomic<bool> over = false;
  std::thread waiter([&] {
    EXPECT_EQ(queue.wait_claim({}, 60s).error().code, Errc::cancelled);
    over = true;
  });
  while (!over) {
    queue.interrupt();
    std::this_thread::sleep_for(1ms);
  }
  waiter.join();
}

TEST_F(QueueService, goes_from_one_store_to_another_with_everything) {
  auto from = open();
  ASSERT_TRUE(from.submit("a", R"({"n":1})"));
  NewItem waiting;
  waiting.id = "second";
  waiting.depends_on = {from.list()->items.front().id};
  ASSERT_TRUE(from.submit(waiting));
  auto to = *Queue::open("sqlite:" + (directory_ / "to.db").string());
  std::vector<Item> items;
  EXPECT_EQ(*from.export_items([&](const Item& item) -> Result<void> {
    items.push_back(item);
    return {};
  }),
            2u);
  EXPECT_EQ(to.import_items(items)->added, 2u);
  EXPECT_EQ(to.list()->items, from.list()->items);
}

TEST_F(QueueService, refuses_urls_and_places_with_a_reason) {
  EXPECT_EQ(Queue::open("redis:x").error().code, Errc::invalid_url);
  EXPECT_EQ(Queue::open("sqlite:").error().code, Errc::invalid_url);
  EXPECT_EQ(Queue::open("sqlite:/nowhere/at/all.db").error().code, Errc::io_error);
  EXPECT_EQ(Queue::open(url(), {.create = false}).error().code, Errc::not_found);
  EXPECT_EQ(Queue::open(url(), {.name = "a b"}).error().code, Errc::invalid_item);
}

// --- workers ----------------------------------------------------------------------------------------------------------

TEST_F(QueueService, workers_do_each_item_once) {
  auto queue = open(unsynced());
  constexpr int count = 300;
  std::mutex mutex;
  std::multiset<std::string> done;
  Worker worker(queue,
                [&](const Worker::Context& context) -> Result<std::string> {
                  const std::lock_guard lock(mutex);
                  done.insert(context.lease.item.id);
                  return "1";
                },
                {.threads = 4, .claim_items = 3});
  ASSERT_TRUE(worker.start());
  std::set<std::string> ids;
  for (int i = 0; i < count; ++i) ids.insert(*queue.submit("t", "{}"));
  EXPECT_TRUE(eventually([&] { return worker.stats().completed == count; }));
  EXPECT_TRUE(worker.stop());
  EXPECT_EQ(std::set<std::string>(done.begin(), done.end()), ids);
  EXPECT_EQ(done.size(), static_cast<std::size_t>(count));
  EXPECT_EQ(queue.stats()->counts.completed, static_cast<std::uint64_t>(count));
}

TEST_F(QueueService, a_worker_fails_what_its_handler_fails_or_throws) {
  auto queue = open(unsynced());
  NewItem item;
  item.max_retries = 1;
  ASSERT_TRUE(queue.submit(item));
  ASSERT_TRUE(queue.submit(item));
  std::atomic<int> calls = 0;
  Worker worker(queue, [&](const Worker::Context&) -> Result<std::string> {
    if (calls++ == 0) throw std::runtime_error("thrown");
    return fail(Errc::cancelled, "returned");
  });
  ASSERT_TRUE(worker.start());
  EXPECT_TRUE(eventually([&] { return worker.stats().failed == 2; }));
  std::set<std::string> errors;
  const auto listed = queue.list();
  for (const auto& dead : listed->items) {
    EXPECT_EQ(dead.status, Status::failed);
    errors.insert(dead.error_message);
  }
  EXPECT_THAT(errors, testing::ElementsAre("returned", "thrown"));
}

TEST_F(QueueService, a_worker_extends_its_leases_while_a_handler_runs) {
  auto queue = open(unsynced());
  ASSERT_TRUE(queue.submit("t", "{}"));
  std::atomic<bool> finish = false;
  Worker worker(queue,
                [&](const Worker::Context& context) -> Result<std::string> {
                  while (!finish) std::this_thread::sleep_for(1ms);
                  EXPECT_FALSE(context.lost());
                  return "";
                },
                {.lease = 300ms});
  ASSERT_TRUE(worker.start());
  ASSERT_TRUE(eventually([&] { return worker.stats().busy == 1; }));
  auto other = open(unsynced());
  EXPECT_THAT(*other.wait_claim({}, 1s), IsEmpty());
  finish = true;
  EXPECT_TRUE(eventually([&] { return worker.stats().completed == 1; }));
}

TEST_F(QueueService, a_handler_hears_that_its_item_was_cancelled) {
  auto queue = open(unsynced());
  const auto id = *queue.submit("t", "{}");
  Worker worker(queue,
                [&](const Worker::Context& context) -> Result<std::string> {
                  while (!context.lost()) std::this_thread::sleep_for(1ms);
                  return "";
                },
                {.lease = 60ms});
  ASSERT_TRUE(worker.start());
  ASSERT_TRUE(eventually([&] { return worker.stats().busy == 1; }));
  ASSERT_TRUE(queue.cancel(id));
  EXPECT_TRUE(eventually([&] { return worker.stats().lease_lost == 1; }));
  EXPECT_EQ(queue.get(id)->status, Status::cancelled);
}

TEST_F(QueueService, a_stopped_worker_finishes_what_runs_and_gives_back_what_waits) {
  auto queue = open(unsynced());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(queue.submit("t", "{}"));
  std::atomic<bool> finish = false;
  Worker worker(queue,
                [&](const Worker::Context&) -> Result<std::string> {
                  while (!finish) std::this_thread::sleep_for(1ms);
                  return "";
                },
                {.claim_items = 5});
  ASSERT_TRUE(worker.start());
  ASSERT_TRUE(eventually([&] { return worker.stats().busy == 1; }));
  EXPECT_FALSE(worker.stop(10ms));
  finish = true;
  EXPECT_TRUE(worker.stop(20s));
  const auto counts = queue.stats()->counts;
  EXPECT_EQ(counts.completed, 1u);
  EXPECT_EQ(counts.pending, 4u);
  const auto listed = queue.list();
  for (const auto& item : listed->items) EXPECT_EQ(item.retry_count, 0);
}

}  // namespace
}  // namespace fulmar
