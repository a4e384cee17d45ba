#pragma once
// Handoff: a lock-free list that hands owned nodes from any thread to one consumer, in order. For the rare things: the
// node is allocated by whoever has something to say, so nothing is ever refused; what goes in is bounded by its users.
//
// Thread-safety: push and empty from any thread; take_all from one consumer at a time.

#include <atomic>
#include <memory>
#include <utility>

namespace fulmar::outbox {

// Node has a member `Node* next`.
template <typename Node>
class Handoff {
 public:
  Handoff() = default;
  Handoff(const Handoff&) = delete;
  Handoff& operator=(const Handoff&) = delete;
  ~Handoff() {
    take_all([](std::unique_ptr<Node>) {});
  }

  // Sequentially consistent, so that a SleepFlag or Doorbell may follow.
  void push(std::unique_ptr<Node> node) {
    Node* raw = node.release();
    raw->next = newest_.load(std::memory_order_relaxed);
    while (!newest_.compare_exchange_weak(raw->next, raw, std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
    }
  }

  bool empty() const { return newest_.load(std::memory_order_seq_cst) == nullptr; }

  // Gives every node that is there now to `take(std::unique_ptr<Node>)`, oldest first. False when there was none.
  template <typename Take>
  bool take_all(Take&& take) {
    if (empty()) return false;
    Node* newest = newest_.exchange(nullptr, std::memory_order_acquire);  // pairs with push
    Node* oldest = nullptr;
    while (newest) newest = std::exchange(newest->next, std::exchange(oldest, newest));
    while (oldest) {
      std::unique_ptr<Node> node(oldest);
      oldest = std::exchange(node->next, nullptr);
      take(std::move(node));
    }
    return true;
  }

 private:
  std::atomic<Node*> newest_{nullptr};
};

}  // namespace fulmar::outbox
