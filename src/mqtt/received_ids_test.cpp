#include "mqtt/received_ids.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace fulmar::mqtt {
namespace {

TEST(ReceivedIds, behaves_like_a_map_under_random_use) {
  ReceivedIds ids;
  std::map<std::uint16_t, bool> model;
  std::mt19937 random(11);
  for (int i = 0; i < 300'000; ++i) {
    // Few distinct residues, so that probes collide.
    const auto id = static_cast<std::uint16_t>(1 + random() % 40 * 1024 + random() % 3);
    auto* entry = ids.find(id);
    ASSERT_EQ(entry != nullptr, model.contains(id));
    if (entry == nullptr) {
      const bool exactly_once = random() % 2 == 0;
      ids.insert(id).exactly_once = exactly_once;
      model[id] = exactly_once;
    } else {
      ASSERT_EQ(entry->id, id);
      ASSERT_EQ(entry->exactly_once, model[id]);
      if (random() % 3 != 0) {
        ids.erase(entry);
        model.erase(id);
      }
    }
    ASSERT_EQ(ids.size(), model.size());
    if (i % 5'000 == 4'999) {
      ids.connection_lost();
      std::erase_if(model, [](const auto& one) { return !one.second; });
    }
  }
}

TEST(ReceivedIds, holds_all_65535_identifiers) {
  ReceivedIds ids;
  for (unsigned id = 1; id <= 65'535; ++id) ids.insert(static_cast<std::uint16_t>(id));
  for (unsigned id = 1; id <= 65'535; ++id) ASSERT_NE(ids.find(static_cast<std::uint16_t>(id)), nullptr);
  for (unsigned id = 1; id <= 65'535; ++id) ids.erase(ids.find(static_cast<std::uint16_t>(id)));
  EXPECT_EQ(ids.size(), 0u);
  EXPECT_EQ(ids.find(1), nullptr);
}

TEST(ReceivedIds, only_exactly_once_outlives_the_connection_MQTT_4_1_0_1) {
  ReceivedIds ids;
  ids.insert(1).counted = true;
  auto& second = ids.insert(2);
  second.exactly_once = second.counted = second.in_order = true;
  second.stage = ReceivedIds::Stage::recorded;
  ids.connection_lost();
  EXPECT_EQ(ids.find(1), nullptr);
  ASSERT_NE(ids.find(2), nullptr);
  EXPECT_FALSE(ids.find(2)->counted);
  EXPECT_FALSE(ids.find(2)->in_order);
  EXPECT_EQ(ids.find(2)->stage, ReceivedIds::Stage::recorded);
  ids.clear();
  EXPECT_EQ(ids.find(2), nullptr);
}

}  // namespace
}  // namespace fulmar::mqtt
