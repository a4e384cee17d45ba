#include "client/backoff.hpp"

#include <gtest/gtest.h>

namespace fulmar {
namespace {

using namespace std::chrono_literals;

TEST(Backoff, stays_between_its_limits_and_its_ceiling_doubles) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Backoff backoff({100ms, 1'000ms, 10s}, seed);
    EXPECT_EQ(backoff.next(), 100ms);
    for (const auto ceiling : {200ms, 400ms, 800ms, 1'000ms, 1'000ms}) {
      const auto delay = backoff.next();
      EXPECT_GE(delay, 100ms);
      EXPECT_LE(delay, ceiling) << "seed " << seed;
    }
  }
}

TEST(Backoff, draws_evenly_so_that_a_fleet_does_not_return_in_step) {
  int low = 0;
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    Backoff backoff({100ms, 1'000ms, 10s}, seed);
    backoff.at_maximum();
    low += backoff.next() < 550ms;
  }
  EXPECT_GT(low, 430);
  EXPECT_LT(low, 570);
}

TEST(Backoff, starts_over_only_after_a_stable_link) {
  Backoff backoff({100ms, 1'000ms, 10s}, 1);
  for (int i = 0; i < 5; ++i) backoff.next();
  backoff.link_lost(9'999ms);
  bool above = false;
  for (int i = 0; i < 20; ++i) above |= backoff.next() > 100ms;
  EXPECT_TRUE(above);
  backoff.link_lost(10s);
  EXPECT_EQ(backoff.next(), 100ms);
}

}  // namespace
}  // namespace fulmar
