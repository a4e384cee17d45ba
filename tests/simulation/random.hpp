#pragma once
// Random: the only source of chance in a simulated world (SplitMix64): the same seed, the same world, on every machine.

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace fulmar::simulation {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // 0 .. count - 1
  template <typename T = std::size_t>
  T below(std::uint64_t count) {
    return static_cast<T>(next() % count);
  }
  // first .. last
  template <typename T = std::size_t>
  T between(std::uint64_t first, std::uint64_t last) {
    return static_cast<T>(first + next() % (last - first + 1));
  }
  bool chance(unsigned per_10000) { return next() % 10'000 < per_10000; }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return *(values.begin() + below(values.size()));
  }

 private:
  std::uint64_t state_;
};

}  // namespace fulmar::simulation
