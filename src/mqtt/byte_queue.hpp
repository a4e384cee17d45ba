#pragma once
// ByteQueue: encoded packets that wait to be transmitted, contiguous, first in first out.
//
// Not thread-safe. The buffer doubles when it is full and is kept for the next packets.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

class ByteQueue {
 public:
  bool empty() const { return head_ == tail_; }
  std::size_t size() const { return tail_ - head_; }
  BytesView bytes() const { return {buffer_.get() + head_, size()}; }

  // Room for `size` bytes behind the last one; commit() makes the part that was filled count.
  std::span<std::byte> reserve(std::size_t size) {
    if (capacity_ - tail_ < size) make_room(size);
    return {buffer_.get() + tail_, size};
  }
  void commit(std::size_t size) { tail_ += size; }

  // Moves as much as fits from the front to `out`; returns how much.
  std::size_t take(std::span<std::byte> out) {
    const std::size_t count = std::min(out.size(), size());
    if (count != 0) std::memcpy(out.data(), buffer_.get() + head_, count);
    head_ += count;
    if (head_ == tail_) clear();
    return count;
  }
  void clear() { head_ = tail_ = 0; }
  // Gives the memory back; only when empty.
  void shrink() {
    if (!empty()) return;
    buffer_.reset();
    capacity_ = 0;
  }

 private:
  void make_room(std::size_t wanted) {
    const std::size_t used = size();
    if (capacity_ - used >= wanted && head_ >= used) {
      std::memcpy(buffer_.get(), buffer_.get() + head_, used);
    } else {
      const std::size_t capacity = std::max({std::size_t{256}, capacity_ * 2, used + wanted});
      auto buffer = std::make_unique_for_overwrite<std::byte[]>(capacity);
      if (used != 0) std::memcpy(buffer.get(), buffer_.get() + head_, used);
      buffer_ = std::move(buffer);
      capacity_ = capacity;
    }
    head_ = 0;
    tail_ = used;
  }

  std::unique_ptr<std::byte[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
};

}  // namespace fulmar::mqtt
