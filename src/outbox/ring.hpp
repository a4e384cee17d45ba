#pragma once
// Ring: a lock-free bounded queue of variable-size blocks, many producers, one consumer. A producer reserves a block,
// writes into it and commits it: the block is built in place, so a message is copied once.
//
// Thread-safety: try_reserve, commit, depth, bytes and sequence numbers from any thread; front, pop, populate_ahead and
// populated from one consumer at a time. A producer takes one compare-and-swap and one exchange; it never waits for another producer or for the consumer.
//
// Invariants
//   1. Bounded by bytes and by count [house invariant 5]; try_reserve says no instead of waiting.
//   2. Blocks come out in the order in which they were reserved. A block that is reserved and not yet committed holds back
//      those behind it: write and commit without delay.
//   3. All memory between tail and head that has not been committed is zero, so a word that is not zero is a commit.
//   4. Each block has a 64-bit sequence, 0, 1, 2, ..., which is its identity for the ring's life [house invariant 3].
//   5. Memory is mapped as it is used, and stays: a ring that was never used costs none. In the first lap the consumer maps
//      it ahead of the producers, no further than as much again as they have used and at most 4 MiB, so that they meet no
//      page faults but the first.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fulmar::outbox {

class Ring {
 public:
  // Room for `bytes` (rounded up to a power of two of at least 4 KiB, at most 8 GiB; each block takes its size rounded up
  // to 8 plus 8) and `count_max` blocks (1..2^31-1). Throws std::bad_alloc.
  Ring(std::size_t bytes, std::size_t count_max);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // An 8-byte aligned block of `size` bytes, or nullptr when it does not fit now. Every block must be committed.
  std::byte* try_reserve(std::size_t size, std::uint64_t* sequence = nullptr);
  // Hands the block of `size` bytes, as reserved, to the consumer. Sequentially consistent: see SleepFlag.
  void commit(std::byte* block, std::size_t size);

  // From now on try_reserve says no; what was reserved before is still to be committed and popped.
  void close() { head_.fetch_or(closed_bit, std::memory_order_seq_cst); }
  void reopen() { head_.fetch_and(~closed_bit, std::memory_order_seq_cst); }
  bool closed() const { return head_.load(std::memory_order_seq_cst) & closed_bit; }

  // The oldest block, or an empty span when there is none (or it is not committed yet). Its size is a multiple of 8.
  std::span<std::byte> front();
  void pop();

  // Invariant 5: maps some of what the producers use next, at most 256 KiB at a time, when half of what was mapped ahead is
  // used up; `ahead_min` bytes at least, once the first block was reserved. True: there is more to map now; call again.
  bool populate_ahead(std::size_t ahead_min = 4096);
  bool populated() const { return populated_ == capacity_bytes(); }  // nothing is left to map

  std::size_t depth() const;  // blocks, reserved ones included
  std::size_t bytes() const;  // in use, overhead included
  std::size_t capacity_bytes() const { return std::size_t{capacity_} * word_size; }
  std::size_t block_max() const {
    return (std::size_t{capacity_} / 2) * word_size - word_size;
  }  // largest block
  std::uint64_t pushed() const;  // blocks ever reserved; acquires what their producers did before
  std::uint64_t popped() const { return popped_.load(std::memory_order_acquire); }

 private:
  static constexpr std::size_t word_size = 8;
  using Word = std::uint64_t;

  // Positions count words and wrap at 2^31, sequences at 2^32; both in one word, so that one exchange moves both.
  struct Mark {
    std::uint32_t position;
    std::uint32_t sequence;
    static Mark of(std::uint64_t packed) {
      return {static_cast<std::uint32_t>(packed >> 32) & position_mask, static_cast<std::uint32_t>(packed)};
    }
    std::uint64_t packed() const { return std::uint64_t{position & position_mask} << 32 | sequence; }
    std::uint32_t words_since(Mark older) const { return (position - older.position) & position_mask; }
  };
  static constexpr std::uint32_t position_mask = 0x7fffffff;
  static constexpr std::uint64_t closed_bit = std::uint64_t{1} << 63;  // of head_

  void prefetch_blocks_ahead(std::uint32_t position, std::uint32_t block_words);
  std::atomic<Word>& word(std::uint32_t position) { return words_[position & (capacity_ - 1)]; }

  std::atomic<Word>* words_;
  const std::uint32_t capacity_;  // words, a power of two
  const std::uint32_t count_max_;

  alignas(64) std::atomic<std::uint64_t> head_{0};  // Mark: where the next block is reserved; closed_bit
  // What producers last saw of tail_ and popped_: keeps them off the consumer's cache line while there is room.
  std::atomic<std::uint64_t> seen_tail_{0};
  std::atomic<std::uint64_t> seen_popped_{0};

  alignas(64) std::atomic<std::uint64_t> tail_{0};  // Mark: the oldest block
  std::atomic<std::uint64_t> popped_{0};            // blocks ever popped, in 64 bits
  std::size_t populate_to_ = 0;                     // where mapping has to come; consumer
  std::size_t populated_ = 0;  // bytes, mapped from the ring's beginning; the consumer's own
};

}  // namespace fulmar::outbox
