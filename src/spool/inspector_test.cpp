#include "spool/inspector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "spool/log_fixture.hpp"

namespace fulmar::spool::test {
namespace {

using testing::ElementsAre;

void fill(World& world, int entries) {
  ASSERT_TRUE(world.open());
  for (int i = 0; i < entries; ++i) ASSERT_TRUE(world.append(body(i, 500)));
  ASSERT_TRUE(world.log->sync());
}

TEST(Inspector, sees_what_waits_beside_the_process_that_has_the_spool) {
  World world;
  fill(world, 600);
  for (Sequence sequence = 1; sequence <= 150; ++sequence) world.log->acknowledge(sequence);
  world.log->acknowledge(200);
  world.log->release(201);
  ASSERT_TRUE(world.log->save_cursor(true));
  const auto inspector = Inspector::open(world.files, "/spool");
  ASSERT_TRUE(inspector);
  EXPECT_EQ(inspector->cursor()->low, 150u);
  std::map<Sequence, std::string> seen;
  std::uint64_t last_done = 0;
  const auto findings = inspector->walk(
      [&](const Entry& entry, bool acknowledged) {
        EXPECT_FALSE(acknowledged);
        EXPECT_EQ(entry.released, entry.sequence == 201);
        seen[entry.sequence] = text_of(entry.bytes);
        return true;
      },
      false,
      [&](std::uint64_t done, std::uint64_t all) {
        EXPECT_GE(done, last_done);
        EXPECT_LE(done, all);
        last_done = done;
      });
  ASSERT_TRUE(findings);
  EXPECT_EQ(findings->waiting, 449u);
  EXPECT_EQ(findings->missing, 0u);
  EXPECT_TRUE(findings->damaged.empty());
  EXPECT_EQ(findings->oldest_ms, world.now_ms);
  EXPECT_EQ(seen, world.drain());
}

TEST(Inspector, touches_nothing) {
  World world;
  fill(world, 300);
  const auto operations = [&] {
    return world.files.count(Operation::write) + world.files.count(Operation::rename) +
           world.files.count(Operation::remove) + world.files.count(Operation::allocate);
  };
  const auto before = operations();
  ASSERT_TRUE(Inspector::open(world.files, "/spool")->walk());
  EXPECT_EQ(operations(), before);
}

TEST(Inspector, names_the_files_that_are_damaged_and_counts_what_is_missing) {
  World world;
  fill(world, 600);
  auto& bytes = *world.files.content("/spool/0000000000000002.seg");
  bytes[5'000] ^= std::byte{1};
  std::ranges::fill(*world.files.content("/spool/0000000000000003.seg"), std::byte{});
  const auto inspector = Inspector::open(world.files, "/spool");
  ASSERT_TRUE(inspector);
  const auto findings = inspector->walk();
  ASSERT_TRUE(findings);
  EXPECT_THAT(findings->damaged, ElementsAre("0000000000000003.seg", "0000000000000002.seg"));
  EXPECT_THAT(findings->broken, ElementsAre("0000000000000002.seg"));
  EXPECT_GE(findings->missing, 1u);
  EXPECT_EQ(std::ranges::count(inspector->segments(), Inspector::State::damaged, &Inspector::Segment::state),
            1);
}

TEST(Inspector, stops_when_told_to) {
  World world;
  fill(world, 100);
  int seen = 0;
  const auto findings =
      Inspector::open(world.files, "/spool")->walk([&](const Entry&, bool) { return ++seen < 10; });
  ASSERT_TRUE(findings);
  EXPECT_TRUE(findings->stopped);
  EXPECT_EQ(seen, 10);
}

TEST(Inspector, says_when_there_is_no_spool) {
  EXPECT_FALSE(Inspector::open(posix_file_system(), "/nowhere/at/all"));
}

TEST(Log, forgets_everything_when_it_is_purged_and_goes_on_counting) {
  World world;
  fill(world, 600);
  EXPECT_EQ(*world.log->purge(), 600u);
  EXPECT_EQ(world.log->stats().entries, 0u);
  EXPECT_EQ(world.log->stats().segments, 1u);
  world.crash();
  ASSERT_TRUE(world.open());
  EXPECT_TRUE(world.drain().empty());
  EXPECT_EQ(world.append("next").value(), 601u);
}

}  // namespace
}  // namespace fulmar::spool::test
