#pragma once
// HandlerMemory: where the operations that one object has pending on its loop lie: `count` of them, each of at most `bytes`
// bytes. What is larger or one too many goes to the heap. Asio itself keeps two blocks a thread for that, of whatever size
// was freed last, so that a read, a wake-up and a turn that are pending together cost an allocation every time.
//
// Thread-safety: the loop's thread only. The memory outlives the operations: a handler holds the object, or the object
// cancels them and lets the loop run before it goes.

#include <array>
#include <cstddef>
#include <new>
#include <utility>

namespace fulmar::net {

template <std::size_t bytes, std::size_t count>
class HandlerMemory {
 public:
  static constexpr std::size_t alignment = alignof(void*);

  HandlerMemory() = default;
  HandlerMemory(const HandlerMemory&) = delete;
  HandlerMemory& operator=(const HandlerMemory&) = delete;

  void* allocate(std::size_t size) {
    for (std::size_t i = 0; i < count && size <= bytes; ++i) {
      if (!std::exchange(used_[i], true)) return slots_[i].data();
    }
    return ::operator new(size);
  }
  void deallocate(void* memory) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
      if (memory != slots_[i].data()) continue;
      used_[i] = false;
      return;
    }
    ::operator delete(memory);
  }

 private:
  static_assert(bytes % alignment == 0);
  alignas(alignment) std::array<std::array<std::byte, bytes>, count> slots_;
  std::array<bool, count> used_{};
};

template <typename T, typename Memory>
struct HandlerAllocator {
  using value_type = T;

  explicit HandlerAllocator(Memory& of) : memory(&of) {}
  template <typename U>
  HandlerAllocator(const HandlerAllocator<U, Memory>& other) : memory(other.memory) {}

  T* allocate(std::size_t objects) {
    static_assert(alignof(T) <= Memory::alignment);
    return static_cast<T*>(memory->allocate(objects * sizeof(T)));
  }
  void deallocate(T* block, std::size_t) noexcept { memory->deallocate(block); }
  template <typename U>
  bool operator==(const HandlerAllocator<U, Memory>& other) const {
    return memory == other.memory;
  }

  Memory* memory;
};

// A handler whose operation lies in `memory`.
template <typename Memory, typename Function>
struct InMemory {
  using allocator_type = HandlerAllocator<void, Memory>;
  allocator_type get_allocator() const noexcept { return allocator_type(memory); }
  template <typename... Arguments>
  void operator()(Arguments&&... arguments) {
    function(std::forward<Arguments>(arguments)...);
  }
  Memory& memory;
  Function function;
};
template <typename Memory, typename Function>
InMemory(Memory&, Function) -> InMemory<Memory, Function>;

}  // namespace fulmar::net
