#include "outbox/handoff.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace fulmar::outbox {
namespace {

struct Node {
  int producer = 0;
  int value = 0;
  Node* next = nullptr;
};

TEST(Handoff, gives_nodes_oldest_first) {
  Handoff<Node> handoff;
  EXPECT_FALSE(handoff.take_all([](auto) {}));
  for (int i = 0; i < 5; ++i) handoff.push(std::make_unique<Node>(Node{0, i}));
  int next = 0;
  EXPECT_TRUE(handoff.take_all([&](std::unique_ptr<Node> node) { EXPECT_EQ(node->value, next++); }));
  EXPECT_EQ(next, 5);
  EXPECT_TRUE(handoff.empty());
}

TEST(Handoff, loses_nothing_between_threads_and_keeps_each_producers_order) {
  constexpr int producers = 3, each = 20'000;
  Handoff<Node> handoff;
  std::vector<std::thread> threads;
  for (int producer = 0; producer < producers; ++producer) {
    threads.emplace_back([&, producer] {
      for (int i = 0; i < each; ++i) handoff.push(std::make_unique<Node>(Node{producer, i}));
    });
  }
  std::vector<int> next(producers, 0);
  for (int taken = 0; taken < producers * each;) {
    if (!handoff.take_all([&](std::unique_ptr<Node> node) {
          EXPECT_EQ(node->value, next[static_cast<std::size_t>(node->producer)]++);
          ++taken;
        })) {
      std::this_thread::yield();
    }
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace fulmar::outbox
