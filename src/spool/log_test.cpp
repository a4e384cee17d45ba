#include "spool/log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "spool/log_fixture.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::spool::test {
namespace {

using testing::HasSubstr;
using Outcome = Acknowledgements::Outcome;

TEST(Log, gives_back_what_was_appended_byte_for_byte_across_restarts) {
  World world;
  std::map<Sequence, std::string> all;
  for (int life = 0; life < 3; ++life) {
    ASSERT_TRUE(world.open()) << world.error;
    for (int i = 0; i < 500; ++i) {
      const auto text = body(all.size());
      const auto sequence = world.append(text);
      ASSERT_TRUE(sequence);
      ASSERT_EQ(*sequence, all.size() + 1);
      all[*sequence] = text;
    }
    EXPECT_EQ(world.drain(), all);
  }
  EXPECT_EQ(world.log->stats().lost, 0u);
  EXPECT_EQ(world.log->stats().entries, all.size());
}

TEST(Log, keeps_the_times_of_an_entry) {
  World world;
  ASSERT_TRUE(world.open());
  ASSERT_TRUE(world.append("one", 5'000'000));
  world.now_ms += 7;
  ASSERT_TRUE(world.append(""));
  ReadBatch batch;
  ASSERT_TRUE(world.log->read(batch, world.now_ms));
  ASSERT_EQ(batch.entries().size(), 2u);
  EXPECT_EQ(batch.entries()[0].expires_ms, 5'000'000);
  EXPECT_EQ(batch.entries()[0].stored_ms, world.now_ms - 7);
  EXPECT_EQ(batch.entries()[1].expires_ms, 0);
  EXPECT_TRUE(batch.entries()[1].bytes.empty());
}

TEST(Log, does_not_give_an_acknowledged_entry_again_after_a_restart) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(world.append(body(i)));
  EXPECT_EQ(world.log->acknowledge(2), Outcome::done);
  for (Sequence sequence = 10; sequence <= 200; sequence += 2) world.log->acknowledge(sequence);
  EXPECT_EQ(world.log->acknowledge(2), Outcome::already);
  EXPECT_EQ(world.log->acknowledge(301), Outcome::beyond_window) << "not appended";
  EXPECT_EQ(world.log->release(7), Outcome::done);
  ASSERT_TRUE(world.log->write());
  ASSERT_TRUE(world.log->save_cursor(false));
  world.kill();
  ASSERT_TRUE(world.open());
  EXPECT_TRUE(world.log->is_released(7));
  EXPECT_FALSE(world.log->is_released(8));
  const auto left = world.drain();
  EXPECT_EQ(left.size(), 300u - 97u);
  EXPECT_FALSE(left.contains(2));
  EXPECT_TRUE(left.contains(11));
  EXPECT_FALSE(left.contains(12));
}

TEST(Log, hands_out_released_entries_marked) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.append(body(i)));
  world.log->release(4);
  world.log->acknowledge(1);
  ASSERT_TRUE(world.open());
  ReadBatch batch;
  ASSERT_TRUE(world.log->read(batch, world.now_ms));
  ASSERT_EQ(batch.entries().size(), 9u);
  for (const auto& entry : batch.entries()) EXPECT_EQ(entry.released, entry.sequence == 4);
}

TEST(Log, rewinds_to_the_oldest_entry_that_is_not_acknowledged) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 3'000; ++i) ASSERT_TRUE(world.append(body(i)));
  EXPECT_EQ(world.drain().size(), 3'000u);
  for (Sequence sequence = 1; sequence <= 1'500; ++sequence) world.log->acknowledge(sequence);
  EXPECT_TRUE(world.drain().empty());
  world.log->rewind();
  const auto again = world.drain();
  EXPECT_EQ(again.size(), 1'500u);
  EXPECT_EQ(again.begin()->first, 1'501u);
}

TEST(Log, goes_on_counting_after_everything_was_acknowledged_and_given_back) {
  World world;
  Sequence last = 0;
  for (int life = 0; life < 4; ++life) {
    ASSERT_TRUE(world.open());
    for (int i = 0; i < 2'000; ++i) {
      const auto sequence = world.append(body(i));
      ASSERT_TRUE(sequence);
      ASSERT_GT(*sequence, last);
      last = *sequence;
    }
    EXPECT_EQ(world.drain(true).size(), 2'000u);
    ASSERT_TRUE(world.log->save_cursor(true));
    EXPECT_LE(world.log->stats().segments, 1u);
    EXPECT_EQ(world.log->stats().entries, 0u);
    if (life == 1) {  // somebody tidies up
      for (const auto& name : world.names()) {
        if (name.ends_with(".seg")) static_cast<void>(world.files.remove("/spool/" + name));
      }
    }
  }
}

TEST(Log, gives_segments_back_some_at_a_time_and_all_when_nothing_waits) {
  World world(1, 4 << 20);
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(world.append(body(i)));
  const auto full = world.log->stats().segments;
  ASSERT_GE(full, 8u);
  ReadBatch batch(32 << 10);
  std::uint64_t syncs = world.log->stats().syncs;
  while (world.log->read(batch, world.now_ms) && !batch.empty()) {
    for (const auto& entry : batch.entries()) world.log->acknowledge(entry.sequence);
    ASSERT_TRUE(world.log->save_cursor(false));
  }
  EXPECT_EQ(world.log->stats().segments, 1u);
  EXPECT_LE(world.log->stats().syncs - syncs, full / 4 + 1);
}

TEST(Log, acknowledges_out_of_order_within_a_window_and_hands_out_no_more) {
  World world(1, 4 << 20);
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(world.append("x"));
  EXPECT_EQ(world.drain().size(), window_entries);
  EXPECT_EQ(world.log->acknowledge(window_entries + 1), Outcome::beyond_window);
  EXPECT_EQ(world.log->acknowledge(window_entries), Outcome::done);
  EXPECT_EQ(world.log->acknowledge(1), Outcome::done);
  EXPECT_EQ(world.drain().size(), 1u);
}

TEST(Log, refuses_when_full_and_takes_again_when_entries_were_acknowledged) {
  World world;
  world.options.overflow = Overflow::reject;
  ASSERT_TRUE(world.open());
  Sequence taken = 0;
  for (;;) {
    const auto sequence = world.append(body(taken, 1'000));
    if (!sequence) {
      EXPECT_EQ(sequence.error(), Refusal::full);
      break;
    }
    taken = *sequence;
    ASSERT_LT(taken, 5'000u);
  }
  EXPECT_LE(world.log->stats().bytes, world.options.bytes_max);
  EXPECT_GT(taken, 1'000u);
  EXPECT_EQ(world.drain(true).size(), taken);
  EXPECT_TRUE(world.append("again"));
  EXPECT_EQ(world.log->stats().dropped_overflow, 0u);
}

TEST(Log, drops_the_oldest_segment_when_full_and_counts_what_was_in_it) {
  World world;
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 5'000; ++i) ASSERT_TRUE(world.append(body(i, 1'000)));
  const auto stats = world.log->stats();
  EXPECT_LE(stats.bytes, world.options.bytes_max);
  EXPECT_GT(stats.dropped_overflow, 3'000u);
  const auto left = world.drain(true);
  EXPECT_EQ(left.size() + stats.dropped_overflow, 5'000u);
  EXPECT_EQ(left.begin()->first, stats.dropped_overflow + 1);
  EXPECT_EQ(world.log->stats().lost, 0u);
}

TEST(Log, drops_what_is_older_than_it_may_be) {
  World world;
  world.options.age_max = std::chrono::seconds(10);
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 2'000; ++i) {
    ASSERT_TRUE(world.append(body(i, 200)));
    world.now_ms += 10;
  }
  world.log->drop_aged(world.now_ms);
  EXPECT_GT(world.log->stats().dropped_age, 0u);
  const auto young = world.drain(true);
  EXPECT_EQ(young.size(), 1'000u);
  EXPECT_EQ(world.log->stats().dropped_age, 1'000u);
  EXPECT_EQ(world.log->stats().lost, 0u);
}

TEST(Log, refuses_an_entry_that_can_never_fit) {
  World world;
  ASSERT_TRUE(world.open());
  const auto limit = static_cast<std::size_t>(world.log->entry_bytes_max());
  EXPECT_EQ(world.append(std::string(limit + 1, 'x')).error(), Refusal::too_large);
  ASSERT_TRUE(world.append(std::string(limit, 'y')));
  ASSERT_TRUE(world.append("z"));
  ASSERT_TRUE(world.open());
  const auto all = world.drain();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all.at(1), std::string(limit, 'y'));
}

TEST(Log, refuses_a_bound_too_small_for_its_segments) {
  World world;
  world.options.bytes_max = 1000;
  EXPECT_FALSE(world.open());
  EXPECT_THAT(world.error, HasSubstr("give at least 1048576"));
}

TEST(Log, reads_a_log_whose_segments_have_another_size) {
  World world(1, 8 << 20);
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 3'000; ++i) ASSERT_TRUE(world.append(body(i, 1'000)));
  world.options.segment_bytes = 64 << 10;
  ASSERT_TRUE(world.open());
  for (int i = 3'000; i < 4'000; ++i) ASSERT_TRUE(world.append(body(i, 1'000)));
  const auto all = world.drain(true);
  EXPECT_EQ(all.size(), 4'000u);
  EXPECT_EQ(all.at(4'000), body(3'999, 1'000));
  ASSERT_TRUE(world.log->save_cursor(true));
  EXPECT_LE(world.log->stats().bytes, 4u * (64 << 10));
}

TEST(Log, writes_many_small_entries_with_few_system_calls) {
  World world(1, 64 << 20);
  ASSERT_TRUE(world.open());
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(world.append(body(i)));
  const auto before = world.files.count(Operation::write);
  ASSERT_TRUE(world.log->sync());
  EXPECT_LE(world.files.count(Operation::write), before + 1);
  EXPECT_EQ(world.log->synced(), 10'000u);
}

TEST(Log, leaves_the_directory_to_the_process_that_has_it) {
  const fulmar::test::TempDir directory;
  Options options;
  options.directory = directory / "spool";
  options.bytes_max = 1 << 20;
  auto first = Log::open(posix_file_system(), options, 1);
  ASSERT_TRUE(first) << first.error().message;
  const auto second = Log::open(posix_file_system(), options, 1);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("in use by process " + std::to_string(getpid())));
  first->reset();
  EXPECT_TRUE(Log::open(posix_file_system(), options, 1));
}

TEST(Log, keeps_entries_in_real_files) {
  const fulmar::test::TempDir directory;
  Options options;
  options.directory = directory.path();
  options.bytes_max = 2 << 20;
  for (Sequence life = 0; life < 3; ++life) {
    auto log = Log::open(posix_file_system(), options, 1);
    ASSERT_TRUE(log) << log.error().message;
    for (Sequence i = 0; i < 2'000; ++i) {
      const auto text = body(life * 2'000 + i);
      const Bytes part = bytes_of(text);
      ASSERT_EQ((*log)->append({1, 0, {&part, 1}}), life * 2'000 + i + 1);
    }
    ASSERT_TRUE((*log)->sync());
    ReadBatch batch;
    Sequence next = life * 2'000;
    while ((*log)->read(batch, 1) && !batch.empty()) {
      for (const auto& entry : batch.entries()) {
        ASSERT_EQ(entry.sequence, ++next);
        ASSERT_EQ(text_of(entry.bytes), body(next - 1));
        (*log)->acknowledge(entry.sequence);
      }
    }
    EXPECT_EQ(next, (life + 1) * 2'000);
  }
}

TEST(Log, warns_of_a_file_system_that_is_not_local) {
  World world;
  world.files.remote_kind_ = "NFS";
  ASSERT_TRUE(world.open());
  EXPECT_THAT(world.events, HasSubstr("/spool is on NFS"));
}

}  // namespace
}  // namespace fulmar::spool::test
