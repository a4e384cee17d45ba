#include "outbox/ring.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace fulmar::outbox {
namespace {

bool push(Ring& ring, std::string_view text, std::uint64_t* sequence = nullptr) {
  std::byte* block = ring.try_reserve(text.size() + 4, sequence);
  if (!block) return false;
  const auto size = static_cast<std::uint32_t>(text.size());
  std::memcpy(block, &size, 4);
  std::memcpy(block + 4, text.data(), text.size());
  ring.commit(block, text.size() + 4);
  return true;
}

std::string text_of(std::span<const std::byte> block) {
  std::uint32_t size = 0;
  std::memcpy(&size, block.data(), 4);
  return {reinterpret_cast<const char*>(block.data()) + 4, size};
}

// Page faults that filling the ring once, 4 KiB and then `between()` at a time, costs this thread in the pushes themselves.
template <typename Between>
long faults_of_a_lap(Ring& ring, Between&& between) {
  const auto faults_so_far = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt;
  };
  const std::string text(100, 'x');
  long faults = 0;
  for (bool room = true; room;) {
    const long before = faults_so_far();
    for (int i = 0; room && i < 36; ++i) room = push(ring, text);
    faults += faults_so_far() - before;
    between();
  }
  return faults;
}

// Pages of the ring that are there; `first_block` is what its first try_reserve gave.
std::size_t pages_mapped(const Ring& ring, std::byte* first_block) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> there(ring.capacity_bytes() / page);
  EXPECT_EQ(mincore(first_block - 8, ring.capacity_bytes(), there.data()), 0);
  return static_cast<std::size_t>(
      std::ranges::count_if(there, [](unsigned char flags) { return flags & 1; }));
}

TEST(Ring, maps_memory_ahead_of_its_producers_so_that_the_first_lap_costs_them_hardly_a_page_fault) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's own memory faults too";
#endif
  constexpr std::size_t size = std::size_t{8} << 20;
  Ring alone(size, 1'000'000);
  EXPECT_GT(faults_of_a_lap(alone, [] {}), 1'000);  // or this test could not fail
  Ring ring(size, 1'000'000);
  EXPECT_LE(faults_of_a_lap(ring, [&] { while (ring.populate_ahead()); }), 4);
  EXPECT_TRUE(ring.populated());
}

TEST(Ring, maps_no_memory_before_its_first_block_and_then_as_much_as_was_used) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  if (page > 4096) GTEST_SKIP() << "the figures below are of pages of 4 KiB";
  Ring ring(std::size_t{8} << 20, 1'000'000);
  EXPECT_FALSE(ring.populate_ahead());
  std::byte* first = ring.try_reserve(100);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(pages_mapped(ring, first), 0u);
  ring.commit(first, 100);
  while (ring.populate_ahead()) {
  }
  EXPECT_EQ(pages_mapped(ring, first), 2u);
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(push(ring, std::string(100, 'x')));
  const std::size_t used = (ring.bytes() + page - 1) / page;
  while (ring.populate_ahead()) {
  }
  EXPECT_GE(pages_mapped(ring, first), 2 * used - 1);
  EXPECT_LE(pages_mapped(ring, first), 2 * used + 1);
}

TEST(Ring, maps_a_large_memory_in_steps_and_never_far_ahead) {
  Ring ring(std::size_t{256} << 20, 10'000'000);
  std::byte* first = ring.try_reserve(100);
  ring.commit(first, 100);
  const std::string text(60'000, 'x');
  while (ring.bytes() < std::size_t{16} << 20) ASSERT_TRUE(push(ring, text));
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::size_t before = pages_mapped(ring, first);
  const std::size_t used = before;
  for (bool more = true; more;) {
    more = ring.populate_ahead();
    const std::size_t now = pages_mapped(ring, first);
    EXPECT_LE((now - before) * page, std::size_t{256} << 10);
    before = now;
  }
  EXPECT_LE((before - used) * page, (std::size_t{4} << 20) + page);
  EXPECT_GE((before - used) * page, (std::size_t{4} << 20) - page);
  EXPECT_FALSE(ring.populated());
}

TEST(Ring, gives_blocks_back_in_order_with_growing_sequences) {
  Ring ring(4096, 100);
  std::uint64_t a = 9, b = 9;
  ASSERT_TRUE(push(ring, "first", &a));
  ASSERT_TRUE(push(ring, "", &b));
  EXPECT_EQ(a, 0u);
  EXPECT_EQ(b, 1u);
  EXPECT_EQ(ring.depth(), 2u);
  EXPECT_EQ(text_of(ring.front()), "first");
  ring.pop();
  EXPECT_EQ(text_of(ring.front()), "");
  ring.pop();
  EXPECT_TRUE(ring.front().empty());
  EXPECT_EQ(ring.bytes(), 0u);
  EXPECT_EQ(ring.pushed(), 2u);
}

TEST(Ring, refuses_by_bytes_and_takes_again_after_a_pop) {
  Ring ring(4096, 1000);
  const std::string kilobyte(1000, 'x');
  int taken = 0;
  while (push(ring, kilobyte)) ++taken;
  EXPECT_EQ(taken, 4);
  EXPECT_LE(ring.bytes(), ring.capacity_bytes());
  ring.pop();
  ring.pop();
  EXPECT_TRUE(push(ring, kilobyte));
}

TEST(Ring, refuses_by_count) {
  Ring ring(1 << 20, 3);
  EXPECT_TRUE(push(ring, "1"));
  EXPECT_TRUE(push(ring, "2"));
  EXPECT_TRUE(push(ring, "3"));
  EXPECT_FALSE(push(ring, "4"));
  ring.front();
  ring.pop();
  EXPECT_TRUE(push(ring, "4"));
}

TEST(Ring, refuses_a_block_that_can_never_fit) {
  Ring ring(4096, 10);
  EXPECT_EQ(ring.try_reserve(ring.block_max() + 1), nullptr);
  EXPECT_NE(ring.try_reserve(ring.block_max()), nullptr);
}

TEST(Ring, holds_back_what_stands_behind_an_uncommitted_block) {
  Ring ring(4096, 10);
  std::byte* slow = ring.try_reserve(8);
  ASSERT_TRUE(push(ring, "behind"));
  EXPECT_TRUE(ring.front().empty());
  ring.commit(slow, 8);
  EXPECT_EQ(ring.front().size(), 8u);
  ring.pop();
  EXPECT_EQ(text_of(ring.front()), "behind");
}

TEST(Ring, takes_nothing_after_close_and_still_gives_what_was_there) {
  Ring ring(4096, 10);
  ASSERT_TRUE(push(ring, "before"));
  std::byte* reserved = ring.try_reserve(8);
  ring.close();
  EXPECT_TRUE(ring.closed());
  EXPECT_FALSE(push(ring, "after"));
  EXPECT_EQ(text_of(ring.front()), "before");
  ring.pop();
  EXPECT_EQ(ring.depth(), 1u);
  ring.commit(reserved, 8);
  EXPECT_EQ(ring.front().size(), 8u);
  ring.pop();
  EXPECT_EQ(ring.depth(), 0u);
  EXPECT_EQ(ring.bytes(), 0u);
}

// A model: a deque. Random sizes run over the ring's end again and again; a stale byte taken for a commit, a lost or a
// reordered block would show.
TEST(Ring, behaves_as_a_queue_over_many_laps) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    Ring ring(4096, 64);
    std::deque<std::pair<std::uint64_t, std::string>> model;
    std::uint64_t next = 0;
    for (int step = 0; step < 20'000; ++step) {
      if (random() % 2) {
        const std::string text(random() % 700, static_cast<char>(random()));
        std::uint64_t sequence = 0;
        if (push(ring, text, &sequence)) {
          EXPECT_EQ(sequence, next++) << "seed " << seed;
          model.emplace_back(sequence, text);
        } else {
          ASSERT_GT(model.size(), 0u) << "seed " << seed;
        }
      } else if (const auto block = ring.front(); !block.empty()) {
        ASSERT_EQ(text_of(block), model.front().second) << "seed " << seed << " step " << step;
        ring.pop();
        model.pop_front();
      } else {
        ASSERT_TRUE(model.empty()) << "seed " << seed;
      }
      ASSERT_EQ(ring.depth(), model.size());
    }
  }
}

TEST(Ring, keeps_each_producers_order_and_loses_nothing_with_four_producers) {
  constexpr std::uint32_t producers = 4, each = 50'000;
  Ring ring(1 << 17, 1'000);
  std::vector<std::thread> threads;
  for (std::uint32_t producer = 0; producer < producers; ++producer) {
    threads.emplace_back([&, producer] {
      for (std::uint32_t i = 0; i < each;) {
        const std::size_t size = 8 + (i * 7 + producer) % 120;
        std::uint64_t sequence = 0;
        std::byte* block = ring.try_reserve(size, &sequence);
        if (!block) {
          std::this_thread::yield();
          continue;
        }
        std::memset(block, static_cast<int>(i), size);
        std::memcpy(block, &producer, 4);
        std::memcpy(block + 4, &i, 4);
        ring.commit(block, size);
        ++i;
      }
    });
  }
  std::vector<std::uint32_t> expected(producers, 0);
  for (std::uint64_t taken = 0; taken < std::uint64_t{producers} * each;) {
    ring.populate_ahead();
    const auto block = ring.front();
    if (block.empty()) {
      std::this_thread::yield();
      continue;
    }
    std::uint32_t producer = 0, i = 0;
    std::memcpy(&producer, block.data(), 4);
    std::memcpy(&i, block.data() + 4, 4);
    ASSERT_LT(producer, producers);
    ASSERT_EQ(i, expected[producer]++);
    const std::size_t size = 8 + (i * 7 + producer) % 120;
    ASSERT_EQ(block.size(), (size + 7) / 8 * 8);
    ASSERT_TRUE(std::all_of(block.begin() + 8, block.begin() + static_cast<std::ptrdiff_t>(size),
                            [&](std::byte b) { return b == static_cast<std::byte>(i); }));
    ring.pop();
    ++taken;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(ring.front().empty());
  EXPECT_EQ(ring.depth(), 0u);
  EXPECT_EQ(ring.popped(), std::uint64_t{producers} * each);
}

}  // namespace
}  // namespace fulmar::outbox
