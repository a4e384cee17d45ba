#include "allocation_meter.hpp"

#include <cstdlib>
#include <new>

namespace fulmar::simulation {

namespace {

bool metering = false;
std::size_t held = 0;
std::uint64_t count = 0;

// In front of every block; keeps the alignment of malloc().
struct alignas(alignof(std::max_align_t)) Front {
  std::size_t size;
  bool metered;
};

}  // namespace

std::size_t AllocationMeter::bytes_held() { return held; }
std::uint64_t AllocationMeter::allocations() { return count; }
Metered::Metered() : before_(metering) { metering = true; }
Metered::~Metered() { metering = before_; }

namespace {

void* allocate(std::size_t size) {
  auto* front = static_cast<Front*>(std::malloc(sizeof(Front) + size));
  if (front == nullptr) throw std::bad_alloc();
  *front = {size, metering};
  if (metering) {
    held += size;
    ++count;
  }
  return front + 1;
}

void release(void* block) noexcept {
  if (block == nullptr) return;
  auto* front = static_cast<Front*>(block) - 1;
  if (front->metered) held -= front->size;
  std::free(front);
}

}  // namespace

}  // namespace fulmar::simulation

void* operator new(std::size_t size) { return fulmar::simulation::allocate(size); }
void* operator new[](std::size_t size) { return fulmar::simulation::allocate(size); }
void operator delete(void* block) noexcept { fulmar::simulation::release(block); }
void operator delete[](void* block) noexcept { fulmar::simulation::release(block); }
void operator delete(void* block, std::size_t) noexcept { fulmar::simulation::release(block); }
void operator delete[](void* block, std::size_t) noexcept { fulmar::simulation::release(block); }
