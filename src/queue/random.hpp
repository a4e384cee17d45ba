#pragma once
// RandomBits: 64 random bits at a time, for tokens, ids and jitter; the same ones for the same seed.
//
// Not thread-safe: one owner.

#include <cstdint>

#include "base/ulid.hpp"

namespace fulmar::queue {

class RandomBits {
 public:
  explicit RandomBits(std::uint64_t seed = 0) : state_(seed), seeded_(seed != 0) {}  // 0: from the kernel

  std::uint64_t operator()() {
    if (!seeded_) return random_bits();
    // SplitMix64 (Steele, Lea, Flood 2014): every state is as good as any other.
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // A token for a lease: 48 bits with the first one set, so that every token takes as much room in a record; never 0.
  std::uint64_t token() { return ((*this)() >> 17) | (std::uint64_t{1} << 46); }

 private:
  std::uint64_t state_;
  bool seeded_;
};

}  // namespace fulmar::queue
