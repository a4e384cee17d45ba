#include "client/filter_trie.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>

#include "fulmar/mqtt/topic.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

std::shared_ptr<HandlerTable::Entry> entry_of(std::string_view filter) {
  auto entry = std::make_shared<HandlerTable::Entry>();
  entry->filter = filter;
  return entry;
}

std::vector<std::string> matching(FilterTrie& trie, std::string_view topic) {
  std::vector<HandlerTable::Entry*> entries;
  trie.match(topic, entries);
  std::vector<std::string> filters;
  for (const auto* entry : entries) filters.push_back(entry->filter);
  return filters;
}

TEST(FilterTrie, matches_as_the_standard_says) {
  FilterTrie trie;
  for (const auto filter : {"sport/tennis/player1/#", "sport/#", "#", "+", "sport/+", "+/+", "/+", "$SYS/#",
                            "$SYS/monitor/+", "+/monitor/Clients", "sport/tennis/+"}) {
    trie.insert(entry_of(filter));
  }
  EXPECT_THAT(matching(trie, "sport/tennis/player1"),
              UnorderedElementsAre("sport/tennis/player1/#", "sport/#", "#", "sport/tennis/+"));
  EXPECT_THAT(matching(trie, "sport/tennis/player1/score/wimbledon"),
              UnorderedElementsAre("sport/tennis/player1/#", "sport/#", "#"));
  EXPECT_THAT(matching(trie, "sport"), UnorderedElementsAre("sport/#", "#", "+"));
  EXPECT_THAT(matching(trie, "sport/"), UnorderedElementsAre("sport/#", "#", "sport/+", "+/+"));
  EXPECT_THAT(matching(trie, "/finance"), UnorderedElementsAre("#", "+/+", "/+"));
  EXPECT_THAT(matching(trie, "$SYS"), UnorderedElementsAre("$SYS/#"));
  EXPECT_THAT(matching(trie, "$SYS/monitor/Clients"), UnorderedElementsAre("$SYS/#", "$SYS/monitor/+"));
}

TEST(FilterTrie, keeps_shared_subscriptions_beside_the_plain_one_of_the_same_filter) {
  FilterTrie trie;
  const auto first = entry_of("$share/g/a/+");
  EXPECT_EQ(trie.insert(first), nullptr);
  EXPECT_EQ(trie.insert(entry_of("$share/h/a/+")), nullptr);
  EXPECT_EQ(trie.insert(entry_of("a/+")), nullptr);
  EXPECT_EQ(trie.insert(entry_of("$share/g/a/+")), first) << "replaced";
  EXPECT_EQ(trie.size(), 3u);
  EXPECT_THAT(matching(trie, "a/b"), UnorderedElementsAre("$share/g/a/+", "$share/h/a/+", "a/+"));
  EXPECT_FALSE(trie.remove(*first)) << "is not there any more";
}

// Levels from a small alphabet, so that filters and topics meet; a plain list with mqtt::matches() is the model.
TEST(FilterTrie, agrees_with_the_plain_matcher_through_random_changes) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](unsigned n) { return random() % n; };
    const auto levels = [&](bool filter) {
      std::string text;
      const auto count = 1 + pick(5);
      for (unsigned i = 0; i < count; ++i) {
        static const char* const names[] = {"", "a", "b", "$c", "longer-level-name", "longer-level-nama"};
        if (i > 0) text += '/';
        if (filter && pick(3) == 0) {
          if (i + 1 == count && pick(2) == 0) return text + "#";
          text += '+';
        } else {
          text += names[pick(6)];
        }
      }
      return text.empty() ? std::string("a") : text;
    };
    FilterTrie trie;
    std::map<std::string, std::shared_ptr<HandlerTable::Entry>> model;
    for (int step = 0; step < 3'000; ++step) {
      auto filter = levels(true);
      if (pick(6) == 0) filter = "$share/g" + std::to_string(pick(2)) + "/" + filter;
      ASSERT_EQ(mqtt::check_topic_filter(filter), mqtt::TopicError::none) << filter;
      if (pick(3) != 0) {
        auto entry = entry_of(filter);
        ASSERT_EQ(trie.insert(entry), model.contains(filter) ? model[filter] : nullptr);
        model[filter] = entry;
      } else if (const auto found = model.lower_bound(filter); found != model.end()) {
        ASSERT_TRUE(trie.remove(*found->second)) << found->first;
        model.erase(found);
      }
      if (step > 2'500) {  // and down to nothing
        if (!model.empty()) {
          ASSERT_TRUE(trie.remove(*model.begin()->second));
          model.erase(model.begin());
        }
      }
      ASSERT_EQ(trie.size(), model.size());
      const auto topic = levels(false);
      std::vector<std::string> expected;
      for (const auto& [text, entry] : model) {
        if (mqtt::matches(text, topic)) expected.push_back(text);
      }
      ASSERT_THAT(matching(trie, topic), testing::UnorderedElementsAreArray(expected))
          << "seed " << seed << ", step " << step << ", topic " << topic;
    }
  }
}

TEST(FilterTrie, gives_the_captures_of_wildcards_in_their_order) {
  std::vector<std::string_view> captures;
  const auto of = [&](std::string_view filter, std::string_view topic) {
    captures_of(filter, topic, captures);
    return captures;
  };
  EXPECT_THAT(of("a/+/b/#", "a/1/b/2/3"), ElementsAre("1", "2/3"));
  EXPECT_THAT(of("a/#", "a"), ElementsAre(""));
  EXPECT_THAT(of("#", "a/b"), ElementsAre("a/b"));
  EXPECT_THAT(of("+/+", "/x"), ElementsAre("", "x"));
  EXPECT_THAT(of("a/#", "a/"), ElementsAre(""));
  EXPECT_THAT(of("+", "a"), ElementsAre("a"));
  EXPECT_THAT(of("a/b", "a/b"), ElementsAre());
}

TEST(P14, routes_among_ten_thousand_filters_in_less_than_two_microseconds) {
  HandlerTable table(10'000);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 10'000; ++i) {
    const auto n = std::to_string(i);
    ASSERT_TRUE(table.set(i % 3 == 0   ? "site/" + n + "/+/temperature"
                          : i % 3 == 1 ? "site/" + n + "/hall/temperature"
                                       : "site/" + n + "/#",
                          [](const Message&) {}));
  }
  std::uint64_t generation = 0;
  bool afresh = false;
  FilterTrie trie;
  for (const auto& entry : table.take_changes(generation, afresh)) trie.insert(entry);
  const auto built = std::chrono::steady_clock::now();
  EXPECT_LT(built - begin, std::chrono::seconds(test::sanitized ? 10 : 1));
  std::vector<HandlerTable::Entry*> entries;
  std::size_t found = 0;
  constexpr int messages = 20'000;
  auto best = std::chrono::steady_clock::duration::max();
  for (int round = 0; round < 5; ++round) {
    const auto before = std::chrono::steady_clock::now();
    for (int i = 0; i < messages; ++i) {
      char topic[64];
      const auto size = std::snprintf(topic, sizeof topic, "site/%d/hall/temperature", (i * 7919) % 10'000);
      entries.clear();
      trie.match({topic, static_cast<std::size_t>(size)}, entries);
      found += entries.size();
    }
    best = std::min(best, (std::chrono::steady_clock::now() - before) / messages);
  }
  EXPECT_EQ(found, 5u * messages);
  if (!test::sanitized) {
    EXPECT_LT(best, std::chrono::microseconds(2));
  }
}

}  // namespace
}  // namespace fulmar
