#include "client/vitals.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct Published {
  std::string topic, payload;
  QoS qos;
  bool retain;
  bool heartbeat;
  Vitals::Instant at;
};

class VitalsTest : public testing::Test {
 protected:
  VitalsTest() {
    config_.client_id = "edge-7";
    config_.enable_health = true;
    config_.enable_heartbeat = true;
    config_.heartbeat_interval = 5s;
  }

  void make() {
    vitals_.emplace(config_, [this](const Vitals::Publication& p) {
      published_.push_back(
          {std::string(p.topic), std::string(p.payload), p.qos, p.retain, p.is_heartbeat, now_});
      if (p.is_heartbeat && link_takes_) vitals_->heartbeat_sent(now_);
      return server_takes_;
    });
  }
  void connect() { vitals_->connected(now_, wall_); }

  // Virtual time: on to `until`, by way of every timeout that is asked for.
  void pass(std::chrono::milliseconds time) {
    const auto until = now_ + time;
    for (;;) {
      const auto next = vitals_->next_timeout();
      if (!next || *next > until || vitals_->must_reconnect(now_)) break;
      wall_ += std::chrono::duration_cast<WallTime::duration>(std::max(*next, now_) - now_);
      now_ = std::max(*next, now_);
      vitals_->on_timeout(now_, wall_);
    }
    now_ = until;
  }

  std::vector<Published> take(bool heartbeats) {
    std::vector<Published> some;
    for (const auto& each : published_)
      if (each.heartbeat == heartbeats) some.push_back(each);
    published_.clear();
    return some;
  }
  std::vector<std::string> health_events() {
    std::vector<std::string> events;
    for (const auto& each : take(false)) {
      const auto envelope = Envelope::parse(each.payload);
      if (!envelope) return {envelope.error().message};
      const auto begin = envelope->data.find("\"event\":\"") + 9;
      events.push_back(envelope->data.substr(begin, envelope->data.find('"', begin) - begin));
    }
    return events;
  }
  std::vector<std::chrono::milliseconds> beats() {
    std::vector<std::chrono::milliseconds> times;
    for (const auto& each : take(true))
      times.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(each.at - start_));
    return times;
  }

  ClientConfig config_;
  const Vitals::Instant start_{1h};
  Vitals::Instant now_ = start_;
  WallTime wall_{1'700'000'000'250ms};
  bool link_takes_ = true;
  bool server_takes_ = true;
  std::optional<Vitals> vitals_;
  std::vector<Published> published_;
};

TEST_F(VitalsTest, says_ready_first_then_reconnected_and_shutdown_before_the_end) {
  make();
  connect();
  EXPECT_THAT(health_events(), ElementsAre("ready"));
  for (int i = 0; i < 2; ++i) {
    vitals_->disconnected();
    connect();
    EXPECT_THAT(health_events(), ElementsAre("reconnected"));
  }
  vitals_->leaving(wall_);
  EXPECT_THAT(health_events(), ElementsAre("shutdown"));
  vitals_->disconnected();
  vitals_->leaving(wall_);
  EXPECT_THAT(published_, IsEmpty()) << "there is no link to say it on";
}

TEST_F(VitalsTest, health_is_a_retained_envelope_of_quality_1) {
  config_.source_name = "hall";
  make();
  connect();
  const auto health = take(false);
  ASSERT_EQ(health.size(), 1u);
  EXPECT_EQ(health[0].topic, "system/health/edge-7");
  EXPECT_EQ(health[0].qos, QoS::at_least_once);
  EXPECT_TRUE(health[0].retain);
  const auto envelope = Envelope::parse(health[0].payload);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->type, "health.status");
  EXPECT_EQ(envelope->source, "hall");
  EXPECT_EQ(envelope->ts, 1'700'000'000.25);
  EXPECT_EQ(envelope->id.size(), 26u);
  EXPECT_EQ(envelope->data, R"({"ok":true,"event":"ready","timestamp":1700000000.25})");
}

TEST_F(VitalsTest, the_will_says_lost_and_is_new_for_each_attempt) {
  make();
  const auto first = vitals_->will(wall_), second = vitals_->will(wall_);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->topic, "system/health/edge-7");
  EXPECT_EQ(first->qos, QoS::at_least_once);
  EXPECT_TRUE(first->retain);
  const auto envelope = Envelope::parse(first->payload);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->source, "edge-7");
  EXPECT_EQ(envelope->data, R"({"ok":false,"event":"lost","timestamp":1700000000.25})");
  EXPECT_NE(envelope->id, Envelope::parse(second->payload)->id);
}

TEST_F(VitalsTest, the_users_own_will_comes_first_and_without_health_there_is_no_other) {
  config_.will = WillMessage{.topic = "mine", .payload = "gone"};
  make();
  EXPECT_EQ(vitals_->will(wall_)->topic, "mine");
  config_.will.reset();
  config_.enable_health = false;
  make();
  EXPECT_FALSE(vitals_->will(wall_));
}

TEST_F(VitalsTest, is_silent_when_it_is_not_enabled) {
  config_.enable_health = config_.enable_heartbeat = false;
  make();
  connect();
  EXPECT_EQ(vitals_->next_timeout(), std::nullopt);
  pass(1h);
  vitals_->leaving(wall_);
  EXPECT_THAT(published_, IsEmpty());
  EXPECT_FALSE(vitals_->must_reconnect(now_));
}

TEST_F(VitalsTest, beats_at_once_and_then_at_every_interval) {
  make();
  EXPECT_EQ(vitals_->next_timeout(), std::nullopt);
  connect();
  pass(16s);
  EXPECT_THAT(beats(), ElementsAre(0s, 5s, 10s, 15s));
}

TEST_F(VitalsTest, a_heartbeat_is_bare_JSON_of_quality_0) {
  make();
  connect();
  const auto beat = take(true);
  ASSERT_EQ(beat.size(), 1u);
  EXPECT_EQ(beat[0].topic, "system/keepalive/edge-7");
  EXPECT_EQ(beat[0].qos, QoS::at_most_once);
  EXPECT_FALSE(beat[0].retain);
  EXPECT_EQ(beat[0].payload, R"({"ok":true,"event":"heartbeat","timestamp":1700000000.25})");
}

TEST_F(VitalsTest, beats_only_while_connected_and_anew_after_each_connect) {
  make();
  connect();
  pass(7s);
  vitals_->disconnected();
  EXPECT_EQ(vitals_->next_timeout(), std::nullopt);
  pass(60s);
  EXPECT_FALSE(vitals_->must_reconnect(now_)) << "there is nothing to be given up";
  connect();
  pass(6s);
  EXPECT_THAT(beats(), ElementsAre(0s, 5s, 67s, 72s));
}

TEST_F(VitalsTest, beats_once_when_it_comes_late_by_several_intervals) {
  make();
  connect();
  now_ += 12s;
  vitals_->on_timeout(now_, wall_);
  vitals_->on_timeout(now_, wall_);
  pass(4s);
  EXPECT_THAT(beats(), ElementsAre(0s, 12s, 15s));
}

TEST_F(VitalsTest, gives_the_link_up_when_nothing_could_be_sent_for_three_intervals) {
  make();
  connect();
  pass(5s);
  link_takes_ = false;
  pass(10s - 1ms);
  EXPECT_THAT(beats(), ElementsAre(0s, 5s, 10s)) << "one on its way is enough";
  EXPECT_EQ(vitals_->next_timeout(), start_ + 20s) << "three intervals after the last success";
  now_ = start_ + 20s - 1ms;
  EXPECT_FALSE(vitals_->must_reconnect(now_));
  now_ = start_ + 20s;
  EXPECT_TRUE(vitals_->must_reconnect(now_));
  vitals_->disconnected();
  EXPECT_FALSE(vitals_->must_reconnect(now_));
}

TEST_F(VitalsTest, goes_on_when_the_stuck_heartbeat_leaves_in_time) {
  make();
  link_takes_ = false;
  connect();
  pass(14s);
  vitals_->heartbeat_sent(now_);
  link_takes_ = true;
  EXPECT_FALSE(vitals_->must_reconnect(now_));
  pass(6s);
  EXPECT_THAT(beats(), ElementsAre(0s, 14s, 15s, 20s));
}

TEST_F(VitalsTest, does_not_take_the_success_of_the_link_before_for_one_of_this) {
  make();
  link_takes_ = false;
  connect();
  vitals_->disconnected();
  vitals_->heartbeat_sent(now_);
  now_ += 1s;
  connect();
  now_ += 15s;
  EXPECT_TRUE(vitals_->must_reconnect(now_));
}

TEST_F(VitalsTest, does_not_blame_the_link_for_a_heartbeat_that_the_server_does_not_take) {
  link_takes_ = server_takes_ = false;
  make();
  connect();
  pass(1h);
  EXPECT_FALSE(vitals_->must_reconnect(now_));
  EXPECT_EQ(beats().size(), 721u);
}

TEST_F(VitalsTest, a_step_of_the_wall_clock_changes_nothing_but_timestamps_P7) {
  make();
  connect();
  for (const auto step : {std::chrono::hours(1), std::chrono::hours(-1), std::chrono::hours(87'600),
                          std::chrono::hours(-175'200)}) {
    wall_ += step;
    pass(5s);
  }
  EXPECT_THAT(beats(), ElementsAre(0s, 5s, 10s, 15s, 20s));
  EXPECT_FALSE(vitals_->must_reconnect(now_));
}

TEST(HealthPayload, needs_a_reason_when_all_is_not_well) {
  const WallTime wall{1s};
  EXPECT_FALSE(health_payload("s", false, "", "", wall));
  EXPECT_EQ(health_payload("s", false, "", "", wall).error().code, Errc::invalid_envelope);
  EXPECT_EQ(Envelope::parse(*health_payload("s", false, "", "disk \"full\"", wall))->data,
            R"({"ok":false,"err":"disk \"full\"","timestamp":1.0})");
  EXPECT_EQ(Envelope::parse(*health_payload("s", true, "", "", wall))->data,
            R"({"ok":true,"timestamp":1.0})");
  EXPECT_FALSE(health_payload("s", true, "\xff", "", wall)) << "not UTF-8";
}

}  // namespace
}  // namespace fulmar
