#include "mqtt/block_pool.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace fulmar::mqtt {
namespace {

TEST(BlockPool, a_class_holds_what_was_asked_for_and_wastes_at_most_a_quarter) {
  for (std::size_t size = 1; size <= BlockPool::pooled_max; ++size) {
    const auto held = BlockPool::size_of(BlockPool::class_of(size));
    ASSERT_GE(held, size);
    if (size > BlockPool::smallest) {
      ASSERT_LT(held, size + size / 4 + 16) << size;
    }
    ASSERT_EQ(held % 16, 0u);
  }
}

TEST(BlockPool, a_released_block_is_given_again_to_its_class) {
  BlockPool pool;
  auto* block = pool.acquire(100);
  std::memset(block, 1, 100);
  pool.release(block, 100);
  EXPECT_EQ(pool.cached(), 112u);
  EXPECT_EQ(pool.acquire(110), block);
  EXPECT_EQ(pool.cached(), 0u);
  pool.release(block, 110);
}

TEST(BlockPool, trimming_keeps_at_most_what_it_is_told) {
  BlockPool pool;
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(pool.acquire(1024));
  for (auto* block : blocks) pool.release(block, 1024);
  EXPECT_EQ(pool.cached(), 102'400u);
  pool.trim(10'240);
  EXPECT_EQ(pool.cached(), 10'240u);
  pool.trim(0);
  EXPECT_EQ(pool.cached(), 0u);
}

TEST(BlockPool, huge_blocks_are_not_kept) {
  BlockPool pool;
  auto* block = pool.acquire(BlockPool::pooled_max + 1);
  pool.release(block, BlockPool::pooled_max + 1);
  EXPECT_EQ(pool.cached(), 0u);
}

}  // namespace
}  // namespace fulmar::mqtt
