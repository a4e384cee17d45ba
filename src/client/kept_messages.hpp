#pragma once
// KeptMessages: messages of a persistent session that no handler wants yet, in their order, bounded by count and bytes.
//
// Not thread-safe: owned by a dispatch lane.

#include <cstddef>
#include <cstdint>

#include <boost/container/deque.hpp>

#include "fulmar/message.hpp"

namespace fulmar {

class KeptMessages {
 public:
  struct Kept {
    OwnedMessage message;
    std::uint64_t number = 0;  // of its delivery
    std::size_t bytes = 0;
    std::uint16_t link = 0;
  };

  KeptMessages(std::size_t count_max, std::size_t bytes_max) : count_max_(count_max), bytes_max_(bytes_max) {}

  // Keeps `one`; calls give_up(kept) for the oldest until it fits, or for `one` itself when it never does.
  template <typename GiveUp>
  void add(Kept one, GiveUp&& give_up) {
    bytes_ += one.bytes;
    kept_.push_back(std::move(one));
    while (kept_.size() > count_max_ || bytes_ > bytes_max_) give_up(take(0));
  }
  Kept take(std::size_t index) {
    auto one = std::move(kept_[index]);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(index));
    bytes_ -= one.bytes;
    return one;
  }
  const Kept& operator[](std::size_t index) const { return kept_[index]; }
  std::size_t size() const { return kept_.size(); }
  std::size_t bytes() const { return bytes_; }

 private:
  const std::size_t count_max_;
  const std::size_t bytes_max_;
  boost::container::deque<Kept> kept_;
  std::size_t bytes_ = 0;
};

}  // namespace fulmar
