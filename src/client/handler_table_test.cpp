#include "client/handler_table.hpp"

#include <gtest/gtest.h>

namespace fulmar {
namespace {

TEST(HandlerTable, replaces_the_handler_of_the_same_filter) {
  HandlerTable table;
  int first = 0, second = 0;
  const auto a = table.set("a/+", [&](const Message&) { ++first; });
  const auto before = table.snapshot();
  const auto b = table.set("a/+", [&](const Message&) { ++second; });
  EXPECT_NE(a, b);
  const auto entries = table.snapshot();
  ASSERT_EQ(entries->size(), 1u);
  entries->front()->handler(Message{});
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 1);
  EXPECT_FALSE(before->front()->active.load());
}

TEST(HandlerTable, removes_only_the_entry_that_was_meant) {
  HandlerTable table;
  const auto old = table.set("a", [](const Message&) {});
  const auto now = table.set("a", [](const Message&) {});
  const auto generation = table.generation();
  EXPECT_FALSE(table.remove("a", old));
  EXPECT_EQ(table.generation(), generation);
  EXPECT_TRUE(table.remove("a", now));
  EXPECT_GT(table.generation(), generation);
  EXPECT_TRUE(table.snapshot()->empty());
}

}  // namespace
}  // namespace fulmar
