#include "mqtt/in_flight.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>
#include <vector>

namespace fulmar::mqtt {
namespace {

std::uint16_t take(InFlight& in_flight) {
  const auto id = in_flight.take();
  in_flight[id].kind = InFlight::Kind::publish_qos_1;
  in_flight.append(in_flight.messages, id);
  return id;
}

void free(InFlight& in_flight, std::uint16_t id) {
  in_flight.remove(in_flight.messages, id);
  in_flight.free(id);
}

std::vector<std::uint16_t> order(InFlight& in_flight) {
  std::vector<std::uint16_t> ids;
  for (auto id = in_flight.messages.first; id != 0; id = in_flight[id].next) ids.push_back(id);
  return ids;
}

TEST(InFlight, every_identifier_can_be_live_at_once_and_none_twice_MQTT_2_2_1_3) {
  InFlight in_flight;
  std::set<std::uint16_t> live;
  while (in_flight.has_free()) ASSERT_TRUE(live.insert(take(in_flight)).second);
  EXPECT_EQ(live.size(), 65'535u);
  EXPECT_EQ(live.count(0), 0u);
  EXPECT_EQ(*live.rbegin(), 65'535u);
  free(in_flight, 4'711);
  EXPECT_EQ(take(in_flight), 4'711);
}

TEST(InFlight, random_use_never_gives_a_live_identifier_again_and_keeps_the_order_MQTT_2_3_1_2_MQTT_4_6_0_1) {
  InFlight in_flight;
  std::mt19937 random(7);
  std::deque<std::uint16_t> live;
  for (int i = 0; i < 200'000; ++i) {
    const bool grow = live.empty() || (live.size() < 300 && random() % 2 == 0);
    if (grow) {
      const auto id = take(in_flight);
      ASSERT_NE(id, 0);
      for (std::size_t k = live.size() < 20 ? 0 : live.size() - 20; k < live.size(); ++k)
        ASSERT_NE(live[k], id);
      live.push_back(id);
    } else {
      const auto victim = live.begin() + static_cast<std::ptrdiff_t>(random() % live.size());
      ASSERT_EQ(in_flight.find(*victim), *victim);
      free(in_flight, *victim);
      ASSERT_EQ(in_flight.find(*victim), 0);
      live.erase(victim);
    }
    ASSERT_EQ(in_flight.used(), live.size());
    ASSERT_EQ(in_flight.messages.size, live.size());
    if (i % 1000 == 0) {
      ASSERT_EQ(order(in_flight), std::vector<std::uint16_t>(live.begin(), live.end()));
    }
  }
}

TEST(InFlight, a_freed_identifier_rests_before_it_is_given_again) {
  InFlight in_flight;
  const auto first = take(in_flight);
  free(in_flight, first);
  for (int i = 0; i < 8; ++i) {
    const auto id = take(in_flight);
    EXPECT_NE(id, first);
    free(in_flight, id);
  }
}

TEST(InFlight, nothing_is_found_under_foreign_identifiers) {
  InFlight in_flight;
  EXPECT_EQ(in_flight.find(0), 0);
  EXPECT_EQ(in_flight.find(1), 0);
  EXPECT_EQ(in_flight.find(65'535), 0);
  const auto id = take(in_flight);
  EXPECT_EQ(in_flight.find(id), id);
  EXPECT_EQ(in_flight.find(0), 0);
  EXPECT_EQ(in_flight.find(static_cast<std::uint16_t>(id + 1)), 0);
}

TEST(InFlight, reserved_identifiers_are_never_handed_out) {
  InFlight in_flight(true);
  std::set<std::uint16_t> live;
  while (in_flight.has_free()) ASSERT_TRUE(live.insert(take(in_flight)).second);
  EXPECT_EQ(live.size(), 32'767u);
  EXPECT_EQ(*live.rbegin(), 32'767u);
  for (std::uint32_t id = 0x8000; id <= 0xffff; ++id) {
    ASSERT_EQ(in_flight.find(static_cast<std::uint16_t>(id)), 0);
  }
}

TEST(InFlight, a_reserved_identifier_and_a_plain_one_never_answer_for_each_other) {
  InFlight in_flight(true);
  std::mt19937 random(11);
  std::deque<std::pair<std::uint16_t, std::uint16_t>> live;  // identifier, slot
  std::uint64_t position = 0x3f00;
  std::uint64_t oldest = position;
  for (int i = 0; i < 100'000; ++i) {
    if (random() % 2 == 0 && position - oldest < 8'000) {
      if (random() % 3 == 0) {
        const auto slot = take(in_flight);
        ASSERT_EQ(in_flight[slot].id, slot);
        live.emplace_back(slot, slot);
      } else {
        const auto id = InFlight::reserved_id(position);
        ASSERT_EQ(in_flight.find(id), 0);
        const auto slot = in_flight.take_reserved(id);
        in_flight[slot].kind = InFlight::Kind::publish_qos_2;
        in_flight.append(in_flight.messages, slot);
        ASSERT_EQ(in_flight[slot].id, id);
        live.emplace_back(id, slot);
      }
      position += 1 + random() % 20;
    } else if (!live.empty()) {
      const auto [id, slot] = live.front();
      live.pop_front();
      ASSERT_EQ(in_flight.find(id), slot);
      if (id != slot) {
        ASSERT_EQ(in_flight.find(slot), 0);
      }
      free(in_flight, slot);
      ASSERT_EQ(in_flight.find(id), 0);
      ASSERT_EQ(in_flight.find(slot), 0);
    }
    if (live.empty()) oldest = position;
    if (i % 1'000 != 0) continue;
    for (const auto& [id, slot] : live) ASSERT_EQ(in_flight.find(id), slot);
    ASSERT_EQ(in_flight.messages.size, live.size());
  }
}

TEST(InFlight, gives_its_memory_back_only_when_nothing_is_in_flight) {
  InFlight in_flight;
  const auto id = take(in_flight);
  in_flight.shrink();
  EXPECT_EQ(in_flight.find(id), id);
  free(in_flight, id);
  in_flight.shrink();
  EXPECT_NE(take(in_flight), 0);
}

}  // namespace
}  // namespace fulmar::mqtt
