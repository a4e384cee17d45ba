#include "client/dispatch_pool.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <vector>

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using Clock = DispatchLane::Clock;

// Counts what it is given and calls a function for each.
class CountingLane final : public DispatchLane {
 public:
  explicit CountingLane(std::shared_ptr<DispatchWorker> worker, std::function<void(CountingLane&)> each = {})
      : DispatchLane(std::move(worker)), each_(std::move(each)) {}

  void give(int count = 1) {
    given_.fetch_add(count, std::memory_order_seq_cst);
    schedule();
  }
  int taken() const { return taken_.load(); }
  int last_turns() const { return last_turns_.load(); }

 private:
  bool turn() override {
    for (int i = 0; i < 10; ++i) {
      if (stopping()) return true;
      if (taken_.load() == given_.load(std::memory_order_seq_cst)) return false;
      ++taken_;
      if (each_) each_(*this);
    }
    return true;
  }
  bool has_work() override { return taken_.load() != given_.load(std::memory_order_seq_cst); }
  void last_turn() override { ++last_turns_; }

  const std::function<void(CountingLane&)> each_;
  std::atomic<int> given_{0}, taken_{0}, last_turns_{0};
};

template <typename Predicate>
bool eventually(Predicate&& predicate) {
  const auto until = Clock::now() + 10s;
  while (!predicate()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

TEST(DispatchPool, takes_all_work_of_many_lanes_given_by_many_threads) {
  DispatchPool pool(2);
  std::vector<std::unique_ptr<CountingLane>> lanes;
  for (int i = 0; i < 20; ++i) lanes.push_back(std::make_unique<CountingLane>(pool.assign()));
  for (auto& lane : lanes) lane->give(5);  // before its start
  for (auto& lane : lanes) lane->start(nullptr);
  std::vector<std::thread> givers;
  for (int t = 0; t < 3; ++t) {
    givers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        for (auto& lane : lanes) lane->give();
      }
    });
  }
  for (auto& giver : givers) giver.join();
  for (auto& lane : lanes) EXPECT_TRUE(eventually([&] { return lane->taken() == 1'505; })) << lane->taken();
  for (auto& lane : lanes) {
    EXPECT_TRUE(lane->stop(Clock::now() + 10s));
    EXPECT_EQ(lane->last_turns(), 1);
  }
}

TEST(DispatchPool, lets_lanes_of_a_worker_take_turns) {
  DispatchPool pool(1);
  CountingLane other(pool.assign());
  std::atomic<int> seen_by_busy{-1};
  CountingLane busy(pool.assign(), [&](CountingLane& lane) {
    if (lane.taken() == 1) other.give();
    if (other.taken() == 1 && seen_by_busy < 0) seen_by_busy = lane.taken();
  });
  busy.give(100'000);
  other.start(nullptr);
  busy.start(nullptr);
  ASSERT_TRUE(eventually([&] { return busy.taken() == 100'000; }));
  EXPECT_GT(seen_by_busy.load(), 0);
  EXPECT_LE(seen_by_busy.load(), 30) << "after a turn or two";
  EXPECT_TRUE(busy.stop(Clock::now() + 10s));
  EXPECT_TRUE(other.stop(Clock::now() + 10s));
}

TEST(DispatchPool, stops_and_starts_a_lane_again_with_what_was_left) {
  DispatchPool pool(1);
  CountingLane lane(pool.assign());
  EXPECT_TRUE(lane.stop(Clock::now())) << "never started";
  for (int round = 1; round <= 50; ++round) {
    auto keep_alive = std::make_shared<int>();
    lane.start(keep_alive);
    lane.give(3);
    ASSERT_TRUE(lane.stop(Clock::now() + 10s));
    EXPECT_TRUE(lane.stop(Clock::now())) << "idempotent";
    EXPECT_TRUE(eventually([&] { return keep_alive.use_count() == 1; }));
  }
  lane.start(nullptr);
  EXPECT_TRUE(eventually([&] { return lane.taken() == 150; }));
  EXPECT_TRUE(lane.stop(Clock::now() + 10s));
}

TEST(DispatchPool, does_not_wait_for_a_call_beyond_the_deadline_and_keeps_alive_what_it_uses) {
  std::promise<void> go;
  std::atomic<bool> inside{false};
  auto pool = std::make_shared<DispatchPool>(1);
  struct Owner {
    Owner(std::shared_ptr<DispatchPool> of, std::function<void(CountingLane&)> each)
        : threads(std::move(of)), lane(threads->assign(), std::move(each)) {}
    std::shared_ptr<DispatchPool> threads;
    CountingLane lane;
  };
  std::weak_ptr<Owner> weak;
  {
    auto owner = std::make_shared<Owner>(pool, [&, ready = go.get_future().share()](CountingLane&) {
      inside = true;
      ready.wait();
    });
    weak = owner;
    owner->lane.start(owner);
    owner->lane.give(5);
    ASSERT_TRUE(eventually([&] { return inside.load(); }));
    EXPECT_FALSE(owner->lane.stop(Clock::now() + 20ms));
  }
  pool.reset();
  EXPECT_FALSE(weak.expired());
  go.set_value();
  EXPECT_TRUE(eventually([&] { return weak.expired(); })) << "destroyed on its own worker, pool and all";
}

TEST(DispatchPool, knows_when_it_is_inside_a_call_and_does_not_wait_for_itself) {
  DispatchPool pool(1);
  std::atomic<int> result{-1};
  CountingLane lane(pool.assign(), [&](CountingLane& self) {
    result = self.on_thread() && self.stop(Clock::now() + 10s) ? 1 : 0;
  });
  EXPECT_FALSE(lane.on_thread());
  lane.start(nullptr);
  const auto begin = Clock::now();
  lane.give(3);
  EXPECT_TRUE(eventually([&] { return result == 1; }));
  EXPECT_TRUE(lane.stop(Clock::now() + 10s));
  EXPECT_LT(Clock::now() - begin, 5s);
  EXPECT_EQ(lane.taken(), 1) << "no call begins after the stop";
}

TEST(DispatchPool, may_be_stopped_and_used_again) {
  DispatchPool pool(2);
  CountingLane lane(pool.assign());
  for (int round = 1; round <= 20; ++round) {
    lane.start(nullptr);
    lane.give();
    ASSERT_TRUE(eventually([&] { return lane.taken() == round; }));
    ASSERT_TRUE(lane.stop(Clock::now() + 10s));
    pool.stop();
  }
}

TEST(DispatchPool, holds_a_stop_until_calls_on_other_threads_have_returned) {
  DispatchPool pool(1);
  CountingLane lane(pool.assign());
  auto keep_alive = std::make_shared<int>();
  EXPECT_FALSE(lane.life()->enter()) << "does not run";
  lane.start(keep_alive);
  {
    const auto call = lane.life()->enter();
    ASSERT_TRUE(call);
    EXPECT_FALSE(lane.stop(Clock::now() + 20ms));
    EXPECT_FALSE(lane.life()->enter()) << "no call begins after the stop";
    EXPECT_EQ(keep_alive.use_count(), 2);
  }
  EXPECT_EQ(keep_alive.use_count(), 1);
  EXPECT_TRUE(lane.stop(Clock::now() + 10s));
}

}  // namespace
}  // namespace fulmar
