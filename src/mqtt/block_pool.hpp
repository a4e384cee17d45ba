#pragma once
// BlockPool: memory for records, recycled by size class, so that a steady stream of messages allocates nothing.
// Four classes per doubling: a block is at most a quarter larger than asked for. Larger ones than `pooled_max` are not kept.
//
// Not thread-safe. Blocks are 16-byte aligned and outlive nothing: all must be back before the pool goes.

#include <array>
#include <bit>
#include <cstddef>
#include <new>

namespace fulmar::mqtt {

class BlockPool {
 public:
  static constexpr std::size_t smallest = 64;
  static constexpr std::size_t pooled_max = std::size_t{256} << 10;

  BlockPool() = default;
  ~BlockPool() { trim(0); }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  std::byte* acquire(std::size_t size) {
    if (size > pooled_max) return static_cast<std::byte*>(::operator new(size));
    const std::size_t index = class_of(size);
    if (Free* block = free_[index]) {
      free_[index] = block->next;
      cached_ -= size_of(index);
      return reinterpret_cast<std::byte*>(block);
    }
    return static_cast<std::byte*>(::operator new(size_of(index)));
  }

  // `size` as it was acquired.
  void release(std::byte* block, std::size_t size) {
    if (size > pooled_max) {
      ::operator delete(block);
      return;
    }
    const std::size_t index = class_of(size);
    free_[index] = new (block) Free{free_[index]};
    cached_ += size_of(index);
  }

  // Gives memory back until at most `keep` bytes are cached, the largest blocks first.
  void trim(std::size_t keep) {
    for (std::size_t index = free_.size(); index-- > 0 && cached_ > keep;) {
      while (free_[index] != nullptr && cached_ > keep) {
        Free* block = free_[index];
        free_[index] = block->next;
        cached_ -= size_of(index);
        ::operator delete(block);
      }
    }
  }

  std::size_t cached() const { return cached_; }

  // Class 0 holds up to 64 bytes, class 1 up to 80, then 96, 112, 128, 160, 192 ...
  static constexpr std::size_t class_of(std::size_t size) {
    if (size <= smallest) return 0;
    const std::size_t last = size - 1;
    const auto doubling = static_cast<std::size_t>(std::bit_width(last)) - 1;
    return (doubling - 6) * 4 + (last >> (doubling - 2) & 3) + 1;
  }
  static constexpr std::size_t size_of(std::size_t index) {
    if (index == 0) return smallest;
    return (5 + (index - 1) % 4) << (4 + (index - 1) / 4);
  }

 private:
  struct Free {
    Free* next;
  };

  std::array<Free*, 49> free_{};
  std::size_t cached_ = 0;
};

static_assert(BlockPool::class_of(BlockPool::pooled_max) == 48);

}  // namespace fulmar::mqtt
