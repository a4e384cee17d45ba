#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "durable_world.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::simulation {
namespace {

std::optional<std::uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

constexpr std::uint64_t default_seeds = fulmar::test::sanitized ? 100 : 400;

TEST(Durability, what_was_accepted_ends_once_and_what_was_stored_arrives_P1_P3_P4_P5) {
  if (const auto seed = number_from("FULMAR_SEED")) {
    DurableWorld world(*seed, true);
    ASSERT_TRUE(world.run()) << world.report();
    return;
  }
  const auto seeds = number_from("FULMAR_SEEDS").value_or(default_seeds);
  const auto first = number_from("FULMAR_FIRST_SEED").value_or(1);
  DurableWorld::Totals sum;
  std::uint64_t broken = 0;
  for (auto seed = first; seed < first + seeds && broken < 10; ++seed) {
    DurableWorld world(seed);
    if (!world.run()) {
      ++broken;
      ADD_FAILURE() << world.report() << "To see all of it: FULMAR_SEED=" << seed
                    << " durability_simulation_test";
    }
    const auto& totals = world.totals();
    sum.accepted += totals.accepted;
    sum.stored += totals.stored;
    sum.delivered += totals.delivered;
    sum.recovered += totals.recovered;
    sum.connections += totals.connections;
    sum.deaths += totals.deaths;
    sum.stops += totals.stops;
    sum.faults += totals.faults;
  }
  // A world in which nothing happens proves nothing.
  EXPECT_GT(sum.accepted, seeds * 20);
  EXPECT_GT(sum.stored, seeds * 5);
  EXPECT_GT(sum.delivered, seeds * 10);
  EXPECT_GT(sum.recovered, seeds);
  EXPECT_GT(sum.connections, seeds * 2);
  EXPECT_GT(sum.deaths, seeds);
  EXPECT_GT(sum.stops, seeds);
  EXPECT_GT(sum.faults, seeds / 10);
  RecordProperty("accepted", std::to_string(sum.accepted));
  RecordProperty("stored", std::to_string(sum.stored));
  RecordProperty("delivered", std::to_string(sum.delivered));
  RecordProperty("recovered", std::to_string(sum.recovered));
  RecordProperty("deaths", std::to_string(sum.deaths));
}

TEST(Durability, a_world_is_the_same_for_the_same_seed) {
  for (const std::uint64_t seed : {3u, 4u, 5u}) {
    DurableWorld first(seed);
    DurableWorld second(seed);
    first.run();
    second.run();
    EXPECT_EQ(first.report(), second.report());
  }
}

}  // namespace
}  // namespace fulmar::simulation
