#include "cli/queue_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
namespace json = boost::json;

const queue::Time now = *queue::parse_time("2026-02-06T10:00:00Z");

queue::Item item(queue::Status status) {
  queue::Item one;
  one.id = "0G2M1V5T0C3XA";
  one.queue = "default";
  one.type = "resize";
  one.payload = "{\"a\":\n 1}";
  one.status = status;
  one.priority = 5;
  one.created_at = now - 90min;
  return one;
}

TEST(QueueText, an_item_is_one_line_of_json) {
  auto one = item(queue::Status::pending);
  one.waiting_for = {"A"};
  one.depends_on = {"A"};
  const auto line = item_json(one);
  EXPECT_THAT(line, Not(HasSubstr("\n")));
  const auto object = json::parse(line).as_object();
  EXPECT_EQ(object.at("id"), "0G2M1V5T0C3XA");
  EXPECT_EQ(object.at("payload").at("a"), 1);
  EXPECT_EQ(object.at("created_at"), "2026-02-06T08:30:00.000000Z");
  EXPECT_EQ(object.at("waiting_for").at(0), "A");
  EXPECT_EQ(object.at("dependency_failed"), false);
}

TEST(QueueText, a_lease_comes_before_its_item) {
  const auto line = lease_json({.item = item(queue::Status::processing), .token = 17, .until = now});
  EXPECT_THAT(
      line,
      StartsWith(R"({"lease":"0G2M1V5T0C3XA:0000000000000011","until":"2026-02-06T10:00:00.000000Z","id":)"));
  EXPECT_EQ(json::parse(line).at("status"), "processing");
}

TEST(QueueText, the_table_tells_states_apart_that_have_one_name) {
  auto scheduled = item(queue::Status::pending);
  scheduled.scheduled_at = now + 5min;
  auto waiting = item(queue::Status::pending);
  waiting.waiting_for = {"A", "B"};
  auto blocked = waiting;
  blocked.dependency_failed = true;
  auto broken = item(queue::Status::failed);
  broken.retry_count = 3;
  broken.error_message = "exit code 1: no\x1b[31m such\nfile";
  const std::vector<queue::Item> items{item(queue::Status::pending), scheduled, waiting, blocked, broken};
  EXPECT_THAT(
      item_table(items, now, 0),
      ElementsAre(
          "ID             TYPE    STATE       PRIO  TRIES  AGE",
          "0G2M1V5T0C3XA  resize  pending        5    0/3  1 h 30 min",
          "0G2M1V5T0C3XA  resize  scheduled      5    0/3  1 h 30 min    in 5 min",
          "0G2M1V5T0C3XA  resize  waiting        5    0/3  1 h 30 min    for A, B",
          "0G2M1V5T0C3XA  resize  blocked        5    0/3  1 h 30 min    for A, B",
          "0G2M1V5T0C3XA  resize  failed         5    3/3  1 h 30 min    exit code 1: no.[31m such.file"));
  for (const auto& row : item_table(items, now, 60)) EXPECT_LE(row.size(), 60u);
}

TEST(QueueText, statistics_tell_what_is_ready_and_what_is_not) {
  queue::Stats stats;
  stats.counts = {.pending = 10, .processing = 2, .completed = 5, .failed = 1, .cancelled = 0};
  stats.scheduled = 3;
  stats.waiting = 1;
  stats.oldest_pending_age = 65s;
  stats.paused = true;
  stats.max_size = 20;
  stats.by_type = {{"a", stats.counts}, {"b", {}}};
  const auto lines = stats_sheet(stats, "default");
  EXPECT_EQ(
      lines[0],
      "queue default, paused: nothing is claimed until 'fulmar queue resume', 12 of at most 20 live items");
  EXPECT_EQ(lines[1],
            "  pending     10 (6 ready, 3 scheduled, 1 waiting for others); the oldest ready for 1 min 5 s");
  EXPECT_EQ(lines[2], "  processing  2");
  EXPECT_EQ(lines.back(), "  b              0           0           0           0           0");
  const auto object = json::parse(stats_json(stats, "default")).as_object();
  EXPECT_EQ(object.at("pending"), 10);
  EXPECT_EQ(object.at("total"), 18);
  EXPECT_EQ(object.at("oldest_pending_age_s"), 65.0);
  EXPECT_EQ(object.at("by_type").at("a").at("failed"), 1);
  EXPECT_EQ(object.at("claim_latency_p50_s"), nullptr);
}

}  // namespace
}  // namespace fulmar::cli
