#pragma once
// GrowingRing: a double-ended queue of plain values in one array that doubles when it is full and never shrinks by itself.
//
// Not thread-safe. Nothing is allocated before the first push.

#include <cstddef>
#include <memory>
#include <type_traits>

namespace fulmar::mqtt {

template <typename T>
class GrowingRing {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }

  T& front() { return items_[head_]; }
  const T& front() const { return items_[head_]; }
  T& operator[](std::size_t index) { return items_[(head_ + index) & (capacity_ - 1)]; }
  const T& operator[](std::size_t index) const { return items_[(head_ + index) & (capacity_ - 1)]; }

  void push_back(const T& item) {
    if (size_ == capacity_) grow();
    items_[(head_ + size_++) & (capacity_ - 1)] = item;
  }
  void push_front(const T& item) {
    if (size_ == capacity_) grow();
    head_ = (head_ - 1) & (capacity_ - 1);
    items_[head_] = item;
    ++size_;
  }
  void pop_front() {
    head_ = (head_ + 1) & (capacity_ - 1);
    --size_;
  }
  void clear() { head_ = size_ = 0; }
  // Gives the memory back; only when empty.
  void shrink() {
    if (size_ != 0) return;
    items_.reset();
    capacity_ = head_ = 0;
  }

 private:
  void grow() {
    const std::size_t capacity = capacity_ == 0 ? 16 : capacity_ * 2;
    auto items = std::make_unique_for_overwrite<T[]>(capacity);
    for (std::size_t i = 0; i < size_; ++i) items[i] = (*this)[i];
    items_ = std::move(items);
    capacity_ = capacity;
    head_ = 0;
  }

  std::unique_ptr<T[]> items_;
  std::size_t capacity_ = 0;  // 0 or a power of two
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace fulmar::mqtt
