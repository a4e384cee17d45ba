#pragma once
// HandlerMemory: where the operations that one object has pending on its loop lie, `count` of them. Asio itself keeps two
// blocks a thread for that, of whatever size was freed last, so that a read, a wake-up and a turn that are pending together
// cost an allocation every time.
//
// Thread-safety: the loop's thread only. The memory outlives the operations: a handler holds the object, or the object
// cancels them and lets the loop run before it goes.

#include <array>
#include <cstddef>
#include <new>
#include <utility>

namespace fulmar::net {

template <std::size_t count>
class HandlerMemory {
 public:
  HandlerMemory() = default;
  HandlerMemory(const HandlerMemory&) = delete;
  HandlerMemory& operator=(const HandlerMemory&) = delete;

  void* allocate(std::size_t size) {
    for (auto& slot : slots_) {
      if (slot.used || size > sizeof slot.bytes) continue;
      slot.used = true;
      return slot.bytes;
    }
    return ::operator new(size);  // one more than was thought of
  }
  void deallocate(void* memory) noexcept {
    for (auto& slot : slots_) {
      if (memory != slot.bytes) continue;
      slot.used = false;
      return;
    }
    ::operator delete(memory);
  }

 private:
  struct Slot {
    alignas(std::max_align_t) std::byte bytes[176];  // the largest takes 168
    bool used = false;
  };
  std::array<Slot, count> slots_;
};

template <typename T, std::size_t count>
struct HandlerAllocator {
  using value_type = T;
  template <typename U>
  struct rebind {
    using other = HandlerAllocator<U, count>;
  };

  explicit HandlerAllocator(HandlerMemory<count>& of) : memory(&of) {}
  template <typename U>
  HandlerAllocator(const HandlerAllocator<U, count>& other) : memory(other.memory) {}

  T* allocate(std::size_t objects) { return static_cast<T*>(memory->allocate(objects * sizeof(T))); }
  void deallocate(T* block, std::size_t) noexcept { memory->deallocate(block); }
  template <typename U>
  bool operator==(const HandlerAllocator<U, count>& other) const {
    return memory == other.memory;
  }

  HandlerMemory<count>* memory;
};

// A handler whose operation lies in `memory`.
template <std::size_t count, typename Function>
struct InMemory {
  using allocator_type = HandlerAllocator<void, count>;
  allocator_type get_allocator() const noexcept { return allocator_type(memory); }
  template <typename... Arguments>
  void operator()(Arguments&&... arguments) {
    function(std::forward<Arguments>(arguments)...);
  }
  HandlerMemory<count>& memory;
  Function function;
};
template <std::size_t count, typename Function>
InMemory(HandlerMemory<count>&, Function) -> InMemory<count, Function>;

}  // namespace fulmar::net
