#include "cli/progress.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;

Progress halfway() {
  return {.share = 0.5,
          .elapsed = 65s,
          .records = 1'200,
          .per_s = 412.7,
          .batches = 12,
          .waiting = 100,
          .connection = "connected"};
}

TEST(Progress, of_a_file_has_a_share_a_bar_and_an_estimate) {
  EXPECT_EQ(render_progress(halfway(), 200),
            " 50%  [#####.....]  1200 records  413/s  12 batches  100 waiting  connected  ETA 01:05");
}

TEST(Progress, of_a_stream_has_none_of_them) {
  auto progress = halfway();
  progress.share.reset();
  progress.per_s = 10;
  progress.batches = 1;
  progress.stored = 7;
  progress.lost = 2;
  progress.bad_lines = 1;
  EXPECT_EQ(render_progress(progress, 200),
            "1200 records  10.0/s  1 batch  100 waiting  7 stored  2 lost  1 bad line  connected");
}

TEST(Progress, of_reading_files_tells_messages_and_speed) {
  const ReadProgress progress{
      .done_bytes = 250'000'000, .all_bytes = 1'000'000'000, .messages = 1'200, .elapsed = 2s};
  EXPECT_EQ(render_progress(progress, 200), " 25%  [##........]  1200 messages  125 MB/s  ETA 00:06");
  EXPECT_EQ(render_progress(progress, 22), " 25%  1200 messages");
  EXPECT_EQ(render_progress(ReadProgress{}, 200), "100%  [##########]  0 messages");
}

TEST(Progress, never_takes_more_than_its_columns_and_leaves_out_the_least_important_first) {
  for (std::size_t columns = 1; columns < 120; ++columns)
    EXPECT_LE(render_progress(halfway(), columns).size(), columns);
  EXPECT_EQ(render_progress(halfway(), 80),
            " 50%  [#####.....]  1200 records  413/s  100 waiting  connected  ETA 01:05");
  EXPECT_EQ(render_progress(halfway(), 60), " 50%  1200 records  413/s  100 waiting  connected  ETA 01:05");
  EXPECT_EQ(render_progress(halfway(), 32), " 50%  1200 records  ETA 01:05");
}

TEST(Progress, an_estimate_is_given_only_when_there_is_something_to_go_by) {
  auto progress = halfway();
  for (const double share : {0.0, 1.0}) {
    progress.share = share;
    EXPECT_THAT(render_progress(progress, 200), testing::Not(testing::HasSubstr("ETA")));
  }
  progress.share = 0.5;
  progress.elapsed = 900ms;
  EXPECT_THAT(render_progress(progress, 200), testing::Not(testing::HasSubstr("ETA")));
  progress.share = 0.01;
  progress.elapsed = 600s;
  EXPECT_THAT(render_progress(progress, 200), testing::HasSubstr("ETA 16:30:00"));
}

TEST(Summary, says_what_became_of_every_record) {
  TelemetryStats s;
  s.recorded = 10;
  s.messages_sent = 10;
  s.batches_sent = 1;
  EXPECT_EQ(render_summary(s, "acknowledged", 0, 1234ms), "10 records: 10 acknowledged; 1 batch; 1.2 s");
  s.recorded = 27;
  s.offline_stored = 7;
  s.waiting = 1;
  s.dropped = {.queue_full = 2, .refused = 3, .undelivered = 3, .empty = 1};
  EXPECT_EQ(render_summary(s, "sent", 1, 0s),
            "27 records: 10 sent, 7 stored for later, 1 waiting, 1 without a value, 8 lost (queue full 2, "
            "refused 3, not "
            "delivered before "
            "the end 3); 1 batch; 1 bad line skipped; 0.0 s");
}

TEST(CountedProgress, has_a_bar_where_the_end_is_known) {
  using namespace std::chrono_literals;
  EXPECT_EQ(render_progress(CountProgress{.done = 500, .all = 1'000, .elapsed = 10s}, 100),
            " 50%  [#####.....]  500 of 1000 items  50/s  ETA 00:10");
  EXPECT_EQ(render_progress(CountProgress{.done = 500, .share = 0.25, .elapsed = 10s}, 100),
            " 25%  [##........]  500 items  50/s  ETA 00:30");
  EXPECT_EQ(render_progress(CountProgress{.done = 1, .elapsed = 10s}, 100), "1 item  0/s");
  EXPECT_EQ(render_progress(CountProgress{.done = 500, .all = 1'000, .elapsed = 10s}, 30),
            " 50%  500 of 1000 items");
}

}  // namespace
}  // namespace fulmar::cli
