#include "daemon/status.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

StatusSnapshot example() {
  StatusSnapshot s;
  s.version = "1.2.3";
  s.url = "mqtt://127.0.0.1:23456";
  s.state = ConnectionState::reconnecting;
  s.reason = "connection refused by 127.0.0.1:23456";
  s.since = 75s;
  s.broker = {.pid = 4711, .restarts = 2};
  s.telemetry.recorded = 110;
  s.telemetry.messages_sent = 70;
  s.telemetry.waiting = 30;
  s.telemetry.dropped = {.queue_full = 7, .refused = 3};
  s.telemetry.queue_size = 12;
  s.telemetry.queue_max = 1000;
  s.telemetry.last_batch = "[{\"ts\":1}]";
  s.telemetry.last_batch_records = 10;
  s.telemetry.last_batch_bytes = 1536;
  s.client.outbox_bytes = 2 << 20;
  s.outbox_bytes_max = 64 << 20;
  s.host.target_s = 0.1;
  s.host.period = {.count = 5, .p50 = 100ms, .p99 = 101ms, .p999 = 102ms, .max = 123ms};
  s.records_per_s = 10.04;
  s.batches_per_s = 1;
  s.events = {"10:00:00 something happened"};
  return s;
}

TEST(StatusScreen, says_everything_there_is_to_know) {
  std::string all;
  for (const std::string& line : render_screen(example(), 200, 50)) all += line + "\n";
  for (const auto text : {"fulmard 1.2.3",
                          "mqtt://127.0.0.1:23456",
                          "pid 4711",
                          "2 restarts",
                          "reconnecting",
                          "connection refused by 127.0.0.1:23456",
                          "1 min 15 s",
                          "10.0/s",
                          "1.0/s",
                          "recorded 110",
                          "acknowledged 70",
                          "waiting 30",
                          "10 (queue full 7, refused 3)",
                          "12 of 1000",
                          "2.0 MiB of 64.0 MiB",
                          "target 100 ms",
                          "p99.9 102 ms",
                          "max 123 ms",
                          "10 records, 1.5 KiB: [{\"ts\":1}]",
                          "something happened"})
    EXPECT_THAT(all, HasSubstr(text));
}

TEST(StatusScreen, shows_the_input_in_place_of_the_sampling) {
  auto s = example();
  s.input = StatusSnapshot::Input{
      .path = "/run/in",
      .stats = {.records = 3, .lines = 5, .bad_lines = 2, .bytes = 50, .bytes_total = 200, .ended = true}};
  const auto lines = render_screen(s, 200, 50);
  EXPECT_THAT(lines, Contains(HasSubstr("/run/in   25%   line 5   bad lines 2   at its end")));
  EXPECT_THAT(lines, Not(Contains(StartsWith("sampling"))));
  EXPECT_THAT(render_line(s), HasSubstr("input /run/in"));
}

TEST(StatusScreen, shows_the_work_queue_where_there_is_one) {
  auto s = example();
  EXPECT_THAT(render_screen(s, 200, 50), Not(Contains(StartsWith("work queue"))));
  s.work.emplace();
  s.work->name = "mail";
  s.work->known = true;
  s.work->stats.counts = {.pending = 12, .processing = 2, .completed = 5, .failed = 1, .cancelled = 0};
  s.work->stats.scheduled = 3;
  s.work->expired = 4;
  EXPECT_THAT(render_screen(s, 200, 50), Contains("work queue   mail   pending 12 (3 scheduled)   processing "
                                                  "2   completed 5   failed 1   cancelled 0   "
                                                  "leases expired 4"));
  EXPECT_THAT(render_line(s), HasSubstr("; work queue mail   pending 12"));
  s.work->trouble = "q.db: disk is full";
  EXPECT_THAT(render_screen(s, 200, 50), Contains(HasSubstr("NOT ANSWERING: q.db: disk is full")));
}

TEST(StatusScreen, says_how_long_records_have_waited_and_what_record_costs) {
  auto s = example();
  EXPECT_THAT(render_screen(s, 200, 50), Not(Contains(HasSubstr("oldest"))));
  s.telemetry.oldest_unsent_age = 12'300ms;
  s.telemetry.enqueue_ns.counts[6] = 999;
  s.telemetry.enqueue_ns.counts[10] = 2;
  const auto lines = render_screen(s, 200, 50);
  EXPECT_THAT(lines, Contains(HasSubstr("waiting 30 (the oldest for 12.3 s)")));
  EXPECT_THAT(lines, Contains(HasSubstr("p50 <= 64.0 ns   p99.9 <= 1.02 us   (1001 calls timed)")));
}

TEST(StatusScreen, says_what_is_on_disk_and_whether_the_disk_works) {
  auto s = example();
  EXPECT_THAT(render_screen(s, 200, 50), Not(Contains(StartsWith("on disk"))));
  EXPECT_THAT(render_screen(s, 200, 50), Not(Contains(HasSubstr("stored"))));
  EXPECT_THAT(render_line(s), Not(HasSubstr("on disk")));
  s.disk = StatusSnapshot::Disk{.folder = "/var/spool/x", .bytes_max = 1 << 30};
  EXPECT_THAT(render_screen(s, 200, 50), Contains(HasSubstr("0 messages   files 0 B of 1.0 GiB   /var")));
  s.telemetry.offline_stored = 9;
  s.client.spool_messages = 5;
  s.client.spool_bytes = 4 << 20;
  s.client.spool_oldest_age = 12'300ms;
  s.disk->sent_per_s = 50;
  auto lines = render_screen(s, 200, 50);
  EXPECT_THAT(lines, Contains(HasSubstr("acknowledged 70   stored 9   waiting 30")));
  EXPECT_THAT(lines,
              Contains(StartsWith("on disk      5 messages, the oldest for 12.3 s   files 4.0 MiB of 1.0 "
                                  "GiB   sending 50.0/s   /var/spool/x")));
  EXPECT_THAT(render_line(s), HasSubstr("acknowledged 70, stored 9, waiting 30"));
  EXPECT_THAT(render_line(s), HasSubstr("on disk 5 messages, the oldest for 12.3 s"));
  s.client.spool_failing = true;
  s.client.dropped_spool = 2;
  EXPECT_THAT(render_screen(s, 200, 50),
              Contains(HasSubstr("dropped 2   FAILING: new messages wait in memory")));
  EXPECT_THAT(render_line(s), HasSubstr("FAILING"));
}

TEST(StatusScreen, fits_any_terminal) {
  for (const std::size_t columns : {1u, 10u, 40u, 80u})
    for (const std::size_t rows : {1u, 5u, 50u}) {
      const auto lines = render_screen(example(), columns, rows);
      EXPECT_LE(lines.size(), rows);
      for (const std::string& line : lines) {
        const auto characters = std::ranges::count_if(line, [](char c) { return (c & 0xc0) != 0x80; });
        EXPECT_LE(static_cast<std::size_t>(characters), columns) << line;
      }
    }
}

TEST(StatusScreen, shows_a_broker_that_is_down) {
  auto s = example();
  s.broker = StatusSnapshot::Broker{.pid = -1, .restarts = 1};
  EXPECT_THAT(render_screen(s, 200, 50), Contains(HasSubstr("down, 1 restart)")));
  s.broker.reset();
  EXPECT_THAT(render_screen(s, 200, 50), Contains(StartsWith("broker")));
  EXPECT_THAT(render_screen(s, 200, 50), Not(Contains(HasSubstr("restart"))));
}

TEST(StatusLine, is_one_line_with_the_figures) {
  const std::string line = render_line(example());
  EXPECT_THAT(line, Not(HasSubstr("\n")));
  EXPECT_THAT(line, StartsWith("reconnecting; 10.0 records/s, 1.0 batches/s; recorded 110, acknowledged 70, "
                               "waiting 30, dropped 10"));
  EXPECT_THAT(line, HasSubstr("queue 12/1000"));
  EXPECT_THAT(line, HasSubstr("p99.9 102 ms"));
}

TEST(StatusTotals, add_up_and_explain_what_was_dropped) {
  EXPECT_EQ(render_totals(example().telemetry),
            "recorded 110 = acknowledged 70 + stored 0 + waiting 30 + dropped 10 (queue full 7, refused 3)");
  TelemetryStats t;
  t.recorded = t.messages_sent = 5;
  EXPECT_EQ(render_totals(t), "recorded 5 = acknowledged 5 + stored 0 + waiting 0 + dropped 0");
}

TEST(Fit, cuts_by_characters_and_marks_the_cut) {
  EXPECT_EQ(fit("abc", 3), "abc");
  EXPECT_EQ(fit("abcd", 3), "ab…");
  EXPECT_EQ(fit("äöü", 3), "äöü");
  EXPECT_EQ(fit("äöüß", 3), "äö…");
  EXPECT_EQ(fit("abc", 1), "…");
  EXPECT_EQ(fit("abc", 0), "");
  EXPECT_EQ(fit("", 5), "");
}

TEST(Fit, lets_no_control_character_reach_the_terminal) {
  EXPECT_EQ(fit("a\x1b[31mb\n\x7f", 20), "a.[31mb..");
  EXPECT_EQ(fit("\xc2\x9b"
                "1m",
                20),
            ".1m");
}

TEST(ShowDuration, has_three_digits_and_a_unit) {
  EXPECT_EQ(show_duration(5ns), "5.00 ns");
  EXPECT_EQ(show_duration(1500ns), "1.50 us");
  EXPECT_EQ(show_duration(100ms), "100 ms");
  EXPECT_EQ(show_duration(12'345ms), "12.3 s");
}

}  // namespace
}  // namespace fulmar::daemon
