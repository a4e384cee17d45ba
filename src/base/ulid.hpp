#pragma once
// ULIDs: identifiers of 26 characters that sort by time: 48 bits of wall clock in milliseconds, 80 bits besides. Of those,
// 16 count up within a millisecond from a random start and 64 are drawn anew for every identifier.
// What users call is new_ulid() of fulmar/envelope.hpp.
//
// Thread-safety: UlidSequence::next() from any thread, without a lock; random_bits() from any thread; the rest is pure.

#include <array>
#include <atomic>
#include <cstdint>

namespace fulmar {

// Crockford's base 32: digits and capitals without I, L, O and U.
std::array<char, 26> ulid_text(std::uint64_t high, std::uint64_t low);

// The upper halves of ULIDs, milliseconds << 16 | counter.
// Invariants
//   1. No two are equal, and each is greater than the one before, also when the wall clock is set back by up to a second.
//   2. A greater step back is followed, so that one wrong date does not stay in all later identifiers.
//   3. More than 32,768 within a millisecond run ahead of the clock instead of waiting for it.
class UlidSequence {
 public:
  // `wall_ms` is a function: the clock is read after the last identifier is known, so that a thread that was held up
  // between the two does not take the others' progress for a step back. `random` gives the counter's start.
  template <typename WallMilliseconds>
  std::uint64_t next(WallMilliseconds&& wall_ms, std::uint64_t random) {
    // Relaxed: nothing is published by it but the number itself.
    std::uint64_t last = last_.load(std::memory_order_relaxed);
    for (;;) {
      const std::uint64_t fresh = (std::uint64_t{wall_ms()} << 16) | (random & 0x7fff);
      const bool set_back = fresh + (std::uint64_t{1'000} << 16) < last;
      const std::uint64_t next = fresh > last || set_back ? fresh : last + 1;
      if (last_.compare_exchange_weak(last, next, std::memory_order_relaxed)) return next;
    }
  }

 private:
  std::atomic<std::uint64_t> last_{0};
};

// Random bits of the kernel's, fetched for many calls at once; a forked child does not repeat its parent's.
std::uint64_t random_bits();

}  // namespace fulmar
