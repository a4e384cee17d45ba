#include "outbox/doorbell.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "outbox/ring.hpp"

namespace fulmar::outbox {
namespace {

using namespace std::chrono_literals;

TEST(SleepFlag, asks_one_producer_to_wake_for_each_announcement) {
  SleepFlag flag;
  EXPECT_FALSE(flag.must_wake());
  flag.announce();
  EXPECT_TRUE(flag.must_wake());
  EXPECT_FALSE(flag.must_wake());
}

TEST(Doorbell, returns_at_the_deadline) {
  Doorbell bell;
  const auto before = Doorbell::Clock::now();
  bell.announce();
  bell.sleep_until(before + 5ms);
  EXPECT_GE(Doorbell::Clock::now() - before, 5ms);
}

TEST(Doorbell, does_not_sleep_when_it_was_rung_after_the_announcement) {
  Doorbell bell;
  bell.announce();
  bell.ring();
  bell.sleep();  // would never return
}

// No wake-up is lost: the consumer sleeps without a deadline whenever it finds nothing.
TEST(Doorbell, loses_no_wake_up_between_two_threads) {
  constexpr std::uint64_t count = 100'000;
  Ring ring(4096, 16);
  Doorbell to_consumer, to_producer;
  std::thread producer([&] {
    for (std::uint64_t i = 0; i < count;) {
      if (std::byte* block = ring.try_reserve(8)) {
        ring.commit(block, 8);
        to_consumer.ring();
        ++i;
        continue;
      }
      to_producer.announce();
      if (ring.depth() < 16) {
        to_producer.awake();
        continue;
      }
      to_producer.sleep_until(Doorbell::Clock::now() + 10ms);
    }
  });
  for (std::uint64_t taken = 0; taken < count;) {
    if (!ring.front().empty()) {
      ring.pop();
      to_producer.ring();
      ++taken;
      continue;
    }
    to_consumer.announce();
    if (!ring.front().empty()) {
      to_consumer.awake();
      continue;
    }
    to_consumer.sleep();
  }
  producer.join();
  EXPECT_EQ(ring.popped(), count);
}

}  // namespace
}  // namespace fulmar::outbox
