#include "base/near_miss.hpp"

#include <gtest/gtest.h>

#include <array>

namespace fulmar {
namespace {

constexpr std::array<std::string_view, 4> keys{"batch_size", "batch_bytes", "topic", "qos"};

TEST(NearMiss, finds_a_swapped_a_missing_and_a_wrong_letter) {
  EXPECT_EQ(near_miss("batch_sise", keys), "batch_size");
  EXPECT_EQ(near_miss("tpoic", keys), "topic");
  EXPECT_EQ(near_miss("topi", keys), "topic");
  EXPECT_EQ(near_miss("qoss", keys), "qos");
}

TEST(NearMiss, prefers_the_nearest) { EXPECT_EQ(near_miss("batch_byte", keys), "batch_bytes"); }

TEST(NearMiss, is_silent_when_nothing_is_near) {
  EXPECT_EQ(near_miss("password", keys), "");
  EXPECT_EQ(near_miss("", keys), "");
}

}  // namespace
}  // namespace fulmar
