#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "world.hpp"

namespace fulmar::simulation {
namespace {

std::optional<std::uint64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t default_steps = 1'000;
#else
constexpr std::uint64_t default_steps = 10'000;
#endif
constexpr std::uint64_t worlds_per_block = 20;

// Ten blocks of twenty worlds of 10,000 steps: two million steps.
class SimulatedWorlds : public testing::TestWithParam<std::uint64_t> {};

TEST_P(SimulatedWorlds, break_no_rule) {
  const auto first = number_from("FULMAR_SIM_FIRST").value_or(1) + GetParam() * worlds_per_block;
  const auto steps = number_from("FULMAR_SIM_STEPS").value_or(default_steps);
  World::Totals sum;
  for (auto seed = first; seed < first + worlds_per_block; ++seed) {
    World world(seed);
    ASSERT_TRUE(world.run(steps)) << world.report();
    const auto totals = world.totals();
    sum.published += totals.published;
    sum.delivered += totals.delivered;
    sum.received += totals.received;
    sum.connections += totals.connections;
    sum.packets += totals.packets;
  }
  // A world in which nothing happens proves nothing.
  EXPECT_GT(sum.published, steps / 10);
  EXPECT_GT(sum.delivered, steps / 20);
  EXPECT_GT(sum.received, steps / 50);
  EXPECT_GT(sum.connections, 10u);
  RecordProperty("published", std::to_string(sum.published));
  RecordProperty("delivered", std::to_string(sum.delivered));
  RecordProperty("received", std::to_string(sum.received));
  RecordProperty("connections", std::to_string(sum.connections));
  RecordProperty("packets", std::to_string(sum.packets));
}

INSTANTIATE_TEST_SUITE_P(Simulation, SimulatedWorlds, testing::Range<std::uint64_t>(0, 10),
                         [](const auto& instance) { return "block_" + std::to_string(instance.param); });

TEST(Simulation, replays_one_seed) {
  const auto seed = number_from("FULMAR_SIM_SEED");
  if (!seed) GTEST_SKIP() << "set FULMAR_SIM_SEED and FULMAR_SIM_STEPS as a failure has printed them";
  World world(*seed);
  EXPECT_TRUE(world.run(number_from("FULMAR_SIM_STEPS").value_or(default_steps))) << world.report();
  if (std::getenv("FULMAR_SIM_HISTORY") != nullptr) std::puts(world.report().c_str());
}

TEST(Simulation, a_session_stops_allocating_when_it_has_seen_its_load) {
  for (const std::uint64_t seed : {5u, 6u}) {
    World world(seed, true);
    world.allocations_in(20'000);
    const auto published = world.totals().published;
    const auto allocations = world.allocations_in(20'000);
    const auto messages = world.totals().published - published;
    EXPECT_GT(messages, 1'000u);
    // Not none: a burst may still be the largest so far.
    EXPECT_LE(allocations, messages / 200) << world.report();
  }
}

TEST(Simulation, gives_the_same_history_for_the_same_seed) {
  for (const std::uint64_t seed : {3u, 4u}) {
    World first(seed);
    World second(seed);
    EXPECT_TRUE(first.run(2'000)) << first.report();
    EXPECT_TRUE(second.run(2'000)) << second.report();
    EXPECT_EQ(first.report(), second.report());
  }
}

}  // namespace
}  // namespace fulmar::simulation
