#include "client/deduplicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using Instant = Deduplicator::Instant;

constexpr Instant start{std::chrono::hours(1)};

std::string envelope(std::string_view id, std::string_view data, std::string_view type = "t") {
  return R"({"id":")" + std::string(id) + R"(","type":")" + std::string(type) + R"(","ts":1,"data":)" +
         std::string(data) + "}";
}

class DeduplicatorTest : public testing::Test {
 protected:
  std::optional<Deduplicator::Key> key_of(std::string_view payload) {
    Message message;
    message.payload = as_bytes(payload);
    return seen_.key_of(message);
  }
  Deduplicator::Key key(std::string_view id, std::string_view data, std::string_view type = "t") {
    const auto found = key_of(envelope(id, data, type));
    EXPECT_TRUE(found) << envelope(id, data, type);
    return found.value_or(Deduplicator::Key{});
  }

  Deduplicator seen_{30s, 4};
};

TEST_F(DeduplicatorTest, sees_an_envelope_again_only_after_its_handler_succeeded) {
  const auto one = key("1", R"({"seq":1})");
  EXPECT_FALSE(seen_.seen(one, 1, start));
  EXPECT_FALSE(seen_.seen(one, 1, start)) << "the handler failed: looking alone marks nothing";
  seen_.mark(one, 1, start);
  EXPECT_TRUE(seen_.seen(one, 1, start + 1s));
}

TEST_F(DeduplicatorTest, counts_each_handler_apart) {
  const auto one = key("1", R"({"seq":1})");
  seen_.mark(one, 1, start);
  EXPECT_FALSE(seen_.seen(one, 2, start));
  seen_.mark(one, 2, start);
  EXPECT_TRUE(seen_.seen(one, 2, start));
  EXPECT_EQ(seen_.size(), 2u);
}

TEST_F(DeduplicatorTest, tells_envelopes_apart_by_type_id_and_sequence) {
  const auto one = key("1", R"({"seq":1})");
  EXPECT_EQ(key("1", R"({"other":"data","seq":1})"), one) << "the sequence stands for the data";
  EXPECT_NE(key("2", R"({"seq":1})"), one);
  EXPECT_NE(key("1", R"({"seq":2})"), one);
  EXPECT_NE(key("1", R"({"seq":1})", "u"), one);
}

TEST_F(DeduplicatorTest, tells_envelopes_without_a_sequence_apart_by_the_value_of_their_data) {
  const auto one = key("1", R"({"a":1,"b":[2,{"c":3,"d":"x"}]})");
  EXPECT_EQ(key("1", R"( { "b" : [2.0, {"d":"\u0078","c":3e0}], "a" : 1 } )"), one);
  EXPECT_NE(key("1", R"({"a":1,"b":[{"c":3,"d":"x"},2]})"), one) << "the order of an array is a part of it";
  EXPECT_NE(key("1", R"({"a":"1","b":[2,{"c":3,"d":"x"}]})"), one);
  EXPECT_NE(key("1", R"({"seq":1.5})"), key("1", R"({"seq":2.5})"));
}

TEST_F(DeduplicatorTest, is_not_deceived_by_separators_within_type_and_id) {
  EXPECT_NE(key("b|c", R"({"seq":1})", "a"), key("c", R"({"seq":1})", "a|b"));
  EXPECT_NE(key("1|seq=2", R"({"seq":1})"), key("1", R"({"seq":2})"));
}

TEST_F(DeduplicatorTest, has_no_key_for_what_is_not_an_envelope) {
  EXPECT_EQ(key_of(""), std::nullopt);
  EXPECT_EQ(key_of("21.5"), std::nullopt);
  EXPECT_EQ(key_of(R"({"seq":1})"), std::nullopt);
  EXPECT_EQ(key_of(R"({"id":"1","type":"t","ts":1,"data":[]})"), std::nullopt);
}

TEST_F(DeduplicatorTest, forgets_after_the_time_to_live_which_nothing_prolongs) {
  const auto one = key("1", R"({"seq":1})");
  seen_.mark(one, 1, start);
  EXPECT_TRUE(seen_.seen(one, 1, start + 29'999ms));
  seen_.mark(one, 1, start + 29'999ms);
  EXPECT_FALSE(seen_.seen(one, 1, start + 30s));
  EXPECT_EQ(seen_.size(), 0u);
  seen_.mark(one, 1, start + 31s);
  EXPECT_TRUE(seen_.seen(one, 1, start + 60s));
}

TEST_F(DeduplicatorTest, forgets_the_oldest_when_full) {
  for (int i = 0; i < 6; ++i) seen_.mark(key(std::to_string(i), "{}"), 1, start);
  EXPECT_EQ(seen_.size(), 4u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(seen_.seen(key(std::to_string(i), "{}"), 1, start), i >= 2) << i;
}

TEST(Deduplicator, agrees_with_a_plain_model_over_random_histories) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    const auto below = [&](std::uint64_t n) { return random() % n; };
    const std::size_t capacity = 1 + below(40);
    Deduplicator seen(100ms, capacity);
    std::vector<std::pair<std::pair<std::uint64_t, std::uint64_t>, Instant>> model;  // oldest first
    Instant now = start;
    for (int step = 0; step < 5'000; ++step) {
      now += std::chrono::milliseconds(below(8));
      const std::pair<std::uint64_t, std::uint64_t> what{below(60), below(3)};
      const Deduplicator::Key key{what.first * 64, what.first};  // collides in small tables
      std::erase_if(model, [&](const auto& entry) { return now - entry.second >= 100ms; });
      const bool known = std::ranges::any_of(model, [&](const auto& entry) { return entry.first == what; });
      ASSERT_EQ(seen.seen(key, what.second, now), known) << "seed " << seed << " step " << step;
      if (below(3) == 0) continue;  // the handler failed
      seen.mark(key, what.second, now);
      if (!known) model.emplace_back(what, now);
      if (model.size() > capacity) model.erase(model.begin());
      ASSERT_EQ(seen.size(), model.size());
    }
  }
}

TEST(CanonicalHash, is_the_same_in_every_process_and_version) {
  // printf '{}' | sha256sum | cut -c 1-32
  EXPECT_EQ(canonical_hash("{}"), "44136fa355b3678a1146ad16f7e8649e");
  // printf '{"a":[1,0.5,"x"],"b":{"c":null,"d":true}}' | sha256sum | cut -c 1-32
  EXPECT_EQ(canonical_hash(R"( {"b":{"d":true,"c":null},"a":[1.0,5e-1,"\u0078"]} )"),
            "903512e64879b33f75116d27fe8065d0");
  EXPECT_EQ(canonical_hash("[]").error().code, Errc::invalid_envelope);
}

}  // namespace
}  // namespace fulmar
