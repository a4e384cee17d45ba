#include "client/handler_table.hpp"

#include <gtest/gtest.h>

#include <chrono>

namespace fulmar {
namespace {

using namespace std::chrono_literals;

std::vector<HandlerTable::EntryPtr> changes_of(HandlerTable& table) {
  std::uint64_t generation = 0;
  bool afresh = false;
  return table.take_changes(generation, afresh);
}

Result<QoS> granted(const HandlerTable::EntryPtr& entry) {
  const auto future = entry->granted();
  if (future.wait_for(0s) != std::future_status::ready) return fail(Errc::timeout, "not answered");
  return future.get();
}

TEST(HandlerTable, replaces_the_handler_of_the_same_filter) {
  HandlerTable table;
  int first = 0, second = 0;
  const auto a = *table.set("a/+", [&](const Message&) { ++first; });
  const auto b = *table.set("a/+", [&](const Message&) { ++second; });
  EXPECT_NE(a->id, b->id);
  EXPECT_FALSE(a->active.load());
  EXPECT_TRUE(b->active.load());
  EXPECT_EQ(a->identifier, b->identifier);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(changes_of(table), (std::vector{a, b}));
  b->handler(Message{});
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 1);
}

TEST(HandlerTable, removes_only_the_entry_that_was_meant) {
  HandlerTable table;
  const auto old = (*table.set("a", [](const Message&) {}))->id;
  const auto now = (*table.set("a", [](const Message&) {}))->id;
  const auto generation = table.generation();
  EXPECT_EQ(table.remove("a", old), 0u);
  EXPECT_EQ(table.generation(), generation);
  EXPECT_EQ(table.remove("a", now), now);
  EXPECT_GT(table.generation(), generation);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.remove("a"), 0u);
  const auto again = (*table.set("a", [](const Message&) {}))->id;
  EXPECT_EQ(table.remove("a"), again) << "whichever it is";
}

TEST(HandlerTable, gives_filters_without_wildcards_one_identifier_and_every_other_its_own) {
  HandlerTable table;
  const auto identifier = [&](std::string_view filter) {
    return (*table.set(filter, [](const Message&) {}))->identifier;
  };
  EXPECT_EQ(identifier("a"), identifier("a/b"));
  const std::set<std::uint32_t> others{identifier("a"), identifier("a/+"), identifier("a/#"),
                                       identifier("$share/g/a"), identifier("$share/h/a")};
  EXPECT_EQ(others.size(), 5u);
  EXPECT_EQ(others.count(0), 0u);
}

TEST(HandlerTable, bounds_the_number_of_filters) {
  HandlerTable table(2);
  ASSERT_TRUE(table.set("a", [](const Message&) {}));
  ASSERT_TRUE(table.set("b", [](const Message&) {}));
  const auto third = table.set("c", [](const Message&) {});
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, Errc::outbox_full);
  EXPECT_TRUE(table.set("a", [](const Message&) {})) << "replaces";
  table.remove("b");
  EXPECT_TRUE(table.set("c", [](const Message&) {}));
}

TEST(HandlerTable, bounds_the_changes_that_nobody_takes) {
  HandlerTable table;
  const auto kept = *table.set("kept", [](const Message&) {});
  for (int i = 0; i < 10'000; ++i) {
    table.set("passing/" + std::to_string(i), [](const Message&) {});
    table.remove("passing/" + std::to_string(i));
  }
  std::uint64_t generation = 0;
  bool afresh = false;
  const auto changes = table.take_changes(generation, afresh);
  EXPECT_TRUE(afresh);
  EXPECT_LT(changes.size(), 100u);
  EXPECT_EQ(std::ranges::count(changes, kept), 1);
  EXPECT_EQ(generation, table.generation());
}

TEST(HandlerTable, fulfils_granted_once_with_the_first_outcome) {
  HandlerTable table;
  int told = 0;
  const auto entry = *table.set("a", [](const Message&) {}, {}, [&](std::uint8_t) { ++told; });
  EXPECT_EQ(granted(entry).error().code, Errc::timeout);
  table.answered("a", entry->id + 1, 0);
  table.answered("b", entry->id, 0);
  EXPECT_EQ(told, 0) << "an answer to somebody else";
  table.answered("a", entry->id, 1);
  EXPECT_EQ(granted(entry), QoS::at_least_once);
  table.answered("a", entry->id, 0x87);
  EXPECT_EQ(granted(entry), QoS::at_least_once);
  EXPECT_EQ(told, 2) << "once per SUBACK";
}

TEST(HandlerTable, says_why_a_filter_was_not_granted) {
  auto table = std::make_unique<HandlerTable>();
  const auto none = [](const Message&) {};
  const auto refused = *table->set("refused", none);
  const auto replaced = *table->set("replaced", none);
  const auto removed = *table->set("removed", none);
  const auto open = *table->set("open", none);
  const auto forgotten = *table->set("forgotten", none);
  table->answered("refused", refused->id, 0x87);
  table->set("replaced", none);
  table->remove("removed");
  EXPECT_EQ(granted(refused).error().code, Errc::refused);
  EXPECT_EQ(granted(refused).error().reason_code, 0x87);
  EXPECT_NE(granted(refused).error().message.find("not authorized (0x87)"), std::string::npos);
  EXPECT_EQ(granted(replaced).error().code, Errc::cancelled);
  EXPECT_EQ(granted(removed).error().code, Errc::cancelled);
  EXPECT_EQ(granted(open).error().code, Errc::timeout);
  table->end_grants({Errc::shutting_down, "shut down", {}});
  EXPECT_EQ(granted(open).error().code, Errc::shutting_down);
  const auto later = *table->set("later", none);
  table.reset();
  EXPECT_EQ(granted(later).error().code, Errc::shutting_down);
  EXPECT_EQ(granted(forgotten).error().code, Errc::shutting_down);
}

}  // namespace
}  // namespace fulmar
