#pragma once
// Cases: counts what a test has tried and prints it at its end.

#include <cstddef>
#include <cstdio>

namespace fulmar::mqtt {

class Cases {
 public:
  explicit Cases(const char* of) : of_(of) {}
  ~Cases() {
    total() += count_;
    std::printf("[  cases   ] %zu of %s, %zu in all\n", count_, of_, total());
  }
  Cases(const Cases&) = delete;
  Cases& operator=(const Cases&) = delete;

  void operator++() { ++count_; }
  std::size_t count() const { return count_; }

 private:
  static std::size_t& total() {
    static std::size_t sum = 0;
    return sum;
  }

  const char* of_;
  std::size_t count_ = 0;
};

}  // namespace fulmar::mqtt
