#pragma once
// AllocationMeter: how much memory the code inside of a Metered scope has allocated and still holds, wherever it is freed.
// Linking allocation_meter.cpp replaces the global operator new of the program.
//
// Not thread-safe: the simulation has one thread.

#include <cstddef>
#include <cstdint>

namespace fulmar::simulation {

struct AllocationMeter {
  static std::size_t bytes_held();
  static std::uint64_t allocations();
};

// What is allocated while one of these lives is metered.
class Metered {
 public:
  Metered();
  ~Metered();
  Metered(const Metered&) = delete;
  Metered& operator=(const Metered&) = delete;

 private:
  bool before_;
};

}  // namespace fulmar::simulation
