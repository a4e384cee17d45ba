#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "restart_world.hpp"

namespace fulmar::simulation {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t worlds = 400;
#else
constexpr std::uint64_t worlds = 4'000;
#endif

TEST(Restart, delivers_every_message_of_the_log_exactly_once_wherever_the_process_was_killed) {
  RestartWorld::Totals sum;
  for (std::uint64_t seed = 1; seed <= worlds; ++seed) {
    RestartWorld world(seed);
    ASSERT_TRUE(world.run()) << world.report();
    const auto& totals = world.totals();
    sum.delivered += totals.delivered;
    sum.kills += totals.kills;
    sum.connections += totals.connections;
    sum.sessions_lost += totals.sessions_lost;
    sum.resumed_released += totals.resumed_released;
    sum.taken_back += totals.taken_back;
  }
  // Worlds in which nothing happens prove nothing.
  EXPECT_GT(sum.delivered, worlds * 10);
  EXPECT_GT(sum.kills, worlds * 5);
  EXPECT_GT(sum.connections, worlds * 10);
  EXPECT_GT(sum.sessions_lost, worlds / 2);
  EXPECT_GT(sum.resumed_released, worlds / 2);
  EXPECT_GT(sum.taken_back, worlds / 2);
  RecordProperty("delivered", std::to_string(sum.delivered));
  RecordProperty("kills", std::to_string(sum.kills));
  RecordProperty("resumed_released", std::to_string(sum.resumed_released));
}

TEST(Restart, replays_one_seed) {
  const char* seed = std::getenv("FULMAR_SIM_SEED");
  if (seed == nullptr || *seed == '\0') GTEST_SKIP() << "set FULMAR_SIM_SEED as a failure has printed it";
  RestartWorld world(std::strtoull(seed, nullptr, 10));
  EXPECT_TRUE(world.run()) << world.report();
  if (std::getenv("FULMAR_SIM_HISTORY") != nullptr) std::puts(world.report().c_str());
}

}  // namespace
}  // namespace fulmar::simulation
