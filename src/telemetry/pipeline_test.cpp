#include "telemetry/pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "tests/support/sanitizer.hpp"

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;
using Clock = Pipeline::Clock;

Clock::time_point in(std::chrono::milliseconds time) { return Clock::now() + time; }
constexpr auto patience = 20s;

// A client that is told what to do: takes batches, has no room, refuses; settles at once or when told to.
class FakeClient {
 public:
  enum class Answer { take_and_acknowledge, take, no_room, refuse, gone, take_without_properties };

  Pipeline::Publisher publisher() {
    return
        [this](std::string_view, BytesView payload, const PublishOptions& options, DeliveryHandler handler) {
          std::unique_lock lock(mutex_);
          ++calls_;
          called_.notify_all();
          switch (answer_) {
            case Answer::no_room: return Result<MessageId>(fail(Errc::outbox_full, "outbox full"));
            case Answer::refuse: return Result<MessageId>(fail(Errc::payload_too_large, "payload too large"));
            case Answer::gone: return Result<MessageId>(fail(Errc::shutting_down, "shut down"));
            case Answer::take_without_properties:
              if (options.user_properties.empty()) break;
              return Result<MessageId>(fail(Errc::not_supported_by_server, "this connection speaks 3.1.1"));
            default: break;
          }
          sequences_.emplace_back();
          for (const UserProperty& property : options.user_properties)
            sequences_.back().append(property.name).append("=").append(property.value);
          batches_.emplace_back(as_text(payload));
          called_.notify_all();
          if (answer_ == Answer::take) {
            handlers_.push_back(std::move(handler));
          } else {
            lock.unlock();
            handler({.outcome = Delivery::Outcome::acknowledged});
          }
          return Result<MessageId>(1);
        };
  }

  void answer(Answer answer) {
    const std::lock_guard lock(mutex_);
    answer_ = answer;
  }
  void settle_all(Delivery delivery) {
    std::vector<DeliveryHandler> handlers;
    {
      const std::lock_guard lock(mutex_);
      handlers.swap(handlers_);
    }
    for (auto& handler : handlers) handler(delivery);
  }
  bool wait_for_batches(std::size_t count, std::chrono::milliseconds time = patience) {
    std::unique_lock lock(mutex_);
    return called_.wait_for(lock, time, [&] { return batches_.size() >= count; });
  }
  bool wait_for_calls(std::size_t count, std::chrono::milliseconds time = patience) {
    std::unique_lock lock(mutex_);
    return called_.wait_for(lock, time, [&] { return calls_ >= count; });
  }
  std::vector<std::string> batches() {
    const std::lock_guard lock(mutex_);
    return batches_;
  }
  // NAME=VALUE of each batch's user property; empty without one.
  std::vector<std::string> sequences() {
    const std::lock_guard lock(mutex_);
    return sequences_;
  }
  // The timestamps of all records in the order of arrival.
  std::vector<std::int64_t> timestamps() {
    std::vector<std::int64_t> all;
    for (const std::string& batch : batches()) {
      constexpr std::string_view key = "{\"ts\":";
      for (std::size_t at = 0; (at = batch.find(key, at)) != std::string::npos; at += key.size()) {
        std::int64_t ts = 0;
        std::from_chars(batch.data() + at + key.size(), batch.data() + batch.size(), ts);
        all.push_back(ts);
      }
    }
    return all;
  }

 private:
  std::mutex mutex_;
  std::condition_variable called_;
  Answer answer_ = Answer::take_and_acknowledge;
  std::size_t calls_ = 0;
  std::vector<std::string> batches_, sequences_;
  std::vector<DeliveryHandler> handlers_;
};

struct Rig {
  explicit Rig(TelemetryConfig config = {})
      : pipeline(std::make_shared<Pipeline>(client.publisher(), std::move(config))) {}
  ~Rig() { pipeline->stop(Clock::now()); }

  bool record(std::int64_t ts, std::string_view name = "v") {
    const Measurement m = Measurement(ts).add(name, ts);
    return pipeline->record(m.ts_ms(), m.encoded());
  }
  FakeClient client;
  std::shared_ptr<Pipeline> pipeline;
};

bool eventually(const std::function<bool()>& condition) {
  const auto until = in(patience);
  while (!condition()) {
    if (Clock::now() > until) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

void expect_books_add_up(const TelemetryStats& s) {
  EXPECT_EQ(s.recorded, s.messages_sent + s.offline_stored + s.waiting + s.dropped.total());
}

TelemetryConfig patient() {  // batches go by size, bytes or flush; never by time
  return {.batch_interval = std::chrono::hours(1)};
}

// Page faults of this thread in recording for the first time 2 MiB (512 pages).
long faults_of_first_recording(FakeClient::Answer answer) {
  const auto faults_so_far = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt;
  };
  TelemetryConfig config{.queue_capacity = 100'000, .batch_interval = 10ms};
  Rig rig(config);
  rig.client.answer(answer);
  rig.pipeline->start();
  const Measurement m = Measurement(1).add("text", std::string(950, 'x'));
  rig.pipeline->record(m.ts_ms(), m.encoded());
  EXPECT_TRUE(rig.client.wait_for_calls(1));
  long faults = 0;
  for (int i = 0; i < 300; ++i) {
    const auto before = faults_so_far();
    for (int k = 0; k < 7; ++k) EXPECT_TRUE(rig.pipeline->record(m.ts_ms(), m.encoded()));
    faults += faults_so_far() - before;
    std::this_thread::sleep_for(1ms);  // a pace; what is looked at is this thread's
  }
  return faults;
}

TEST(Pipeline, keeps_page_faults_away_from_its_producers_also_while_the_client_takes_nothing) {
  if (test::sanitized) GTEST_SKIP() << "a sanitizer's own memory faults too";
  for (const auto answer : {FakeClient::Answer::take_and_acknowledge, FakeClient::Answer::no_room}) {
    // A busy machine may keep the sender from running for as long as this takes; but not again and again.
    long least = 1'000;
    for (int attempt = 0; attempt < 10 && least > 100; ++attempt) {
      least = std::min(least, faults_of_first_recording(answer));
    }
    EXPECT_LE(least, 100) << (answer == FakeClient::Answer::no_room ? "no room" : "taken");
  }
}

TEST(Pipeline, sends_a_batch_when_batch_size_records_are_there) {
  auto config = patient();
  config.batch_size = 10;
  Rig rig(config);
  rig.pipeline->start();
  for (int i = 1; i <= 9; ++i) rig.record(i);
  EXPECT_FALSE(rig.client.wait_for_batches(1, 30ms));
  rig.record(10);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  EXPECT_EQ(rig.client.timestamps().size(), 10u);
}

TEST(Pipeline, sends_a_batch_when_batch_interval_has_passed_since_its_first_record) {
  Rig rig({.batch_interval = 50ms});
  rig.pipeline->start();
  const auto begin = Clock::now();
  rig.record(1);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  EXPECT_GE(Clock::now() - begin, 50ms);
  EXPECT_EQ(rig.client.timestamps().size(), 1u);
}

TEST(Pipeline, sends_a_batch_before_batch_bytes_would_be_exceeded) {
  auto config = patient();
  config.batch_bytes = 1000;
  Rig rig(config);
  rig.pipeline->start();
  for (int i = 1; i <= 95; ++i) rig.record(1'700'000'000'000 + i);
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  for (const std::string& batch : rig.client.batches()) EXPECT_LE(batch.size(), 1000u);
}

// How often the sender went to sleep since it was started, by the kernel's count.
std::uint64_t sleeps_of_the_sender() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    bool sender = false;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Name:")) sender = line.ends_with("fulmar-batches");
      constexpr std::string_view label = "voluntary_ctxt_switches:";
      if (sender && line.starts_with(label)) return std::stoull(line.substr(label.size()));
    }
  }
  return 0;
}

TEST(Pipeline, wakes_the_sender_once_for_a_batch) {
  constexpr int batches = 50, batch_size = 10;
  auto config = patient();
  config.batch_size = batch_size;
  Rig rig(config);
  rig.pipeline->start();
  auto record_batch = [&, number = std::size_t{0}]() mutable {
    for (int i = 0; i < batch_size; ++i) {
      ASSERT_TRUE(rig.record(1));
      if (i < 2) std::this_thread::sleep_for(1ms);  // time to fall asleep again for one that was woken
    }
    ASSERT_TRUE(rig.client.wait_for_batches(++number));
  };
  record_batch();  // the first record of all has to wake it
  const auto before = sleeps_of_the_sender();
  ASSERT_GT(before, 0u);
  for (int i = 0; i < batches; ++i) record_batch();
  EXPECT_LE(sleeps_of_the_sender() - before, batches + batches / 2u);
}

TEST(Pipeline, sends_what_came_after_a_full_batch_within_batch_interval) {
  Rig rig({.batch_size = 10, .batch_interval = 200ms});
  rig.pipeline->start();
  for (int i = 1; i <= 10; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  for (const auto pause :
       {0ms, 5ms, 60ms}) {  // while the sender waits for a full batch, and for a record again
    std::this_thread::sleep_for(pause);
    const auto sent = rig.client.batches().size();
    const auto begin = Clock::now();
    rig.record(11);
    ASSERT_TRUE(rig.client.wait_for_batches(sent + 1));
    EXPECT_GE(Clock::now() - begin, 200ms * 9 / 10 - 5ms);
  }
}

TEST(Pipeline, drains_the_whole_queue_each_time) {
  auto config = patient();
  config.batch_size = 10;
  config.queue_capacity = 5000;
  Rig rig(config);
  for (int i = 1; i <= 1000; ++i) ASSERT_TRUE(rig.record(i));
  rig.pipeline->start();
  ASSERT_TRUE(rig.client.wait_for_batches(100));
  ASSERT_TRUE(rig.pipeline->flush(in(patience)));
  EXPECT_EQ(rig.pipeline->stats().messages_sent, 1000u);
}

TEST(Pipeline, keeps_the_order_of_record_across_batches) {
  Rig rig({.queue_capacity = 20'000, .batch_size = 7});
  rig.pipeline->start();
  for (int i = 1; i <= 10'000; ++i) ASSERT_TRUE(rig.record(i));
  ASSERT_TRUE(rig.pipeline->flush(in(patience)));
  const auto seen = rig.client.timestamps();
  EXPECT_EQ(seen.size(), 10'000u);
  EXPECT_TRUE(std::ranges::is_sorted(seen));
}

TEST(Pipeline, fills_in_the_timestamp_only_when_it_is_absent) {
  Rig rig;
  rig.pipeline->start();
  const auto now_ms = [] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  const auto before = now_ms();
  rig.record(0);
  const auto after = now_ms();
  rig.record(17);
  ASSERT_TRUE(rig.pipeline->flush(in(patience)));
  const auto seen = rig.client.timestamps();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_GE(seen[0], before);
  EXPECT_LE(seen[0], after);
  EXPECT_EQ(seen[1], 17);
}

TEST(Pipeline, says_no_and_counts_when_the_queue_is_full) {
  Rig rig({.queue_capacity = 10});
  for (int i = 1; i <= 10; ++i) EXPECT_TRUE(rig.record(i));
  for (int i = 1; i <= 5; ++i) EXPECT_FALSE(rig.record(i));
  const auto s = rig.pipeline->stats();
  EXPECT_EQ(s.recorded, 15u);
  EXPECT_EQ(s.dropped.queue_full, 5u);
  EXPECT_EQ(s.queue_size, 10u);
  EXPECT_EQ(s.queue_max, 10u);
  EXPECT_EQ(s.waiting, 10u);
  expect_books_add_up(s);
}

TEST(Pipeline, loses_nothing_while_the_client_has_no_room_and_the_queue_has) {
  auto config = patient();
  config.batch_size = 10;
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::no_room);
  rig.pipeline->start();
  for (int i = 1; i <= 500; ++i) ASSERT_TRUE(rig.record(i));
  ASSERT_TRUE(rig.client.wait_for_calls(3));  // it is offered again
  auto s = rig.pipeline->stats();
  EXPECT_TRUE(s.blocked);
  EXPECT_EQ(s.waiting, 500u);
  EXPECT_EQ(s.messages_queued, 0u);

  rig.client.answer(FakeClient::Answer::take_and_acknowledge);
  ASSERT_TRUE(rig.pipeline->flush(in(patience)));
  s = rig.pipeline->stats();
  EXPECT_FALSE(s.blocked);
  EXPECT_EQ(s.messages_sent, 500u);
  EXPECT_EQ(s.dropped.total(), 0u);
  const auto seen = rig.client.timestamps();
  EXPECT_EQ(seen.size(), 500u);
  EXPECT_TRUE(std::ranges::is_sorted(seen));
}

TEST(Pipeline, offers_a_kept_batch_again_as_soon_as_another_one_is_settled) {
  auto config = patient();
  config.batch_size = 10;
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  for (int i = 1; i <= 10; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  rig.client.answer(FakeClient::Answer::no_room);
  for (int i = 11; i <= 20; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_calls(2));
  rig.client.answer(FakeClient::Answer::take_and_acknowledge);
  rig.client.settle_all({.outcome = Delivery::Outcome::acknowledged});
  ASSERT_TRUE(rig.client.wait_for_batches(2));
}

TEST(Pipeline, a_batch_refused_for_good_is_counted_and_does_not_stop_those_behind_it) {
  auto config = patient();
  config.batch_size = 10;
  std::atomic<int> errors{0};
  config.log = [&](LogLevel level, std::string_view, std::string_view) {
    errors += level == LogLevel::error;
  };
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::refuse);
  rig.pipeline->start();
  for (int i = 1; i <= 10; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_calls(1));
  while (rig.pipeline->stats().errors == 0) std::this_thread::yield();
  rig.client.answer(FakeClient::Answer::take);
  for (int i = 11; i <= 30; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  rig.client.settle_all({.outcome = Delivery::Outcome::refused, .reason_code = 0x97});
  const auto s = rig.pipeline->stop(in(patience));
  EXPECT_EQ(s.errors, 3u);
  EXPECT_EQ(s.dropped.refused, 30u);
  EXPECT_EQ(s.waiting, 0u);
  expect_books_add_up(s);
  EXPECT_EQ(errors, 2);  // one by the client, one for both by the server
}

TEST(Pipeline, flush_waits_for_the_outcome_and_says_when_it_did_not_come) {
  Rig rig(patient());
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  rig.record(1);
  EXPECT_FALSE(rig.pipeline->flush(in(30ms)));
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  EXPECT_EQ(rig.client.batches().size(), 1u);
  EXPECT_EQ(rig.pipeline->stats().waiting, 1u);
  rig.client.settle_all({.outcome = Delivery::Outcome::acknowledged});
  EXPECT_TRUE(rig.pipeline->flush(in(patience)));
  EXPECT_EQ(rig.pipeline->stats().waiting, 0u);
}

TEST(Pipeline, a_batch_that_is_stored_has_a_place_of_its_own_in_the_books_and_is_an_outcome_for_flush) {
  Rig rig(patient());
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  for (int i = 1; i <= 3; ++i) rig.record(i);
  EXPECT_FALSE(rig.pipeline->flush(in(30ms)));
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  rig.client.settle_all({.outcome = Delivery::Outcome::stored});
  EXPECT_TRUE(rig.pipeline->flush(in(patience)));
  rig.record(4);
  EXPECT_FALSE(rig.pipeline->flush(in(30ms)));
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  rig.client.settle_all({.outcome = Delivery::Outcome::acknowledged});
  EXPECT_TRUE(rig.pipeline->flush(in(patience)));
  const auto s = rig.pipeline->stats();
  EXPECT_EQ(s.offline_stored, 3u);
  EXPECT_EQ(s.messages_sent, 1u);
  EXPECT_EQ(s.batches_sent, 1u);
  EXPECT_EQ(s.waiting, 0u);
  EXPECT_EQ(s.dropped.total(), 0u);
  EXPECT_EQ(s.oldest_unsent_age, 0ms);
  expect_books_add_up(s);
}

TEST(Pipeline, stop_is_done_when_the_rest_is_stored) {
  auto config = patient();
  config.batch_size = 10;
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  for (int i = 1; i <= 10; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  std::thread disk([&] { rig.client.settle_all({.outcome = Delivery::Outcome::stored}); });
  const auto begin = Clock::now();
  const auto s = rig.pipeline->stop(in(patience));
  disk.join();
  EXPECT_LT(Clock::now() - begin, patience / 2);
  EXPECT_EQ(s.offline_stored, 10u);
  EXPECT_EQ(s.dropped.total(), 0u);
  expect_books_add_up(s);
}

TEST(Pipeline, flush_of_nothing_is_done_at_once) {
  Rig rig(patient());
  rig.pipeline->start();
  EXPECT_TRUE(rig.pipeline->flush(in(patience)));
  EXPECT_EQ(rig.pipeline->stats().recorded, 0u);
  EXPECT_EQ(rig.client.batches().size(), 0u);
}

TEST(Pipeline, stop_sends_what_waits_and_takes_no_more) {
  Rig rig(patient());
  rig.pipeline->start();
  for (int i = 1; i <= 250; ++i) rig.record(i);
  auto s = rig.pipeline->stop(in(patience));
  EXPECT_EQ(s.messages_sent, 250u);
  EXPECT_EQ(s.batches_sent, 3u);
  EXPECT_EQ(s.waiting, 0u);
  EXPECT_FALSE(s.running);
  EXPECT_FALSE(rig.record(251));
  s = rig.pipeline->stop(in(patience));
  EXPECT_EQ(s.recorded, 251u);
  EXPECT_EQ(s.dropped.undelivered, 1u);
  expect_books_add_up(s);
}

TEST(Pipeline, stop_returns_at_its_deadline_and_accounts_for_what_could_not_be_sent) {
  auto config = patient();
  config.batch_size = 10;
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  for (int i = 1; i <= 20; ++i) rig.record(i);
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  rig.client.answer(FakeClient::Answer::no_room);
  for (int i = 21; i <= 55; ++i) rig.record(i);
  const auto begin = Clock::now();
  auto s = rig.pipeline->stop(in(50ms));
  EXPECT_LT(Clock::now() - begin, 5s);
  EXPECT_EQ(s.recorded, 55u);
  EXPECT_EQ(s.waiting, 20u);  // the client has them still
  EXPECT_EQ(s.dropped.undelivered, 35u);
  EXPECT_EQ(s.queue_size, 0u);
  expect_books_add_up(s);

  rig.client.settle_all({.outcome = Delivery::Outcome::dropped});
  s = rig.pipeline->stats();
  EXPECT_EQ(s.waiting, 0u);
  EXPECT_EQ(s.dropped.undelivered, 55u);
  expect_books_add_up(s);
}

TEST(Pipeline, stop_does_not_wait_for_a_client_that_was_shut_down) {
  Rig rig(patient());
  rig.client.answer(FakeClient::Answer::gone);
  rig.pipeline->start();
  rig.record(1);
  const auto begin = Clock::now();
  const auto s = rig.pipeline->stop(in(patience));
  EXPECT_LT(Clock::now() - begin, 5s);
  EXPECT_EQ(s.dropped.undelivered, 1u);
  expect_books_add_up(s);
}

TEST(Pipeline, stop_without_start_accounts_for_everything) {
  Rig rig;
  rig.record(1);
  const auto s = rig.pipeline->stop(in(10ms));
  EXPECT_EQ(s.dropped.undelivered, 1u);
  EXPECT_EQ(s.waiting, 0u);
  expect_books_add_up(s);
}

TEST(Pipeline, an_outcome_that_arrives_after_the_owner_has_gone_is_harmless) {
  FakeClient client;
  client.answer(FakeClient::Answer::take);
  auto pipeline = std::make_shared<Pipeline>(client.publisher(), patient());
  pipeline->start();
  const Measurement m = Measurement(1).add("v", 1);
  pipeline->record(m.ts_ms(), m.encoded());
  pipeline->stop(in(10ms));
  pipeline.reset();
  client.settle_all({.outcome = Delivery::Outcome::acknowledged});
}

TEST(Pipeline, warns_once_of_configured_fields_that_never_appear) {
  auto config = patient();
  config.fields = {"v", "typo"};
  std::mutex mutex;
  std::vector<std::string> warnings;
  config.log = [&](LogLevel level, std::string_view, std::string_view text) {
    const std::lock_guard lock(mutex);
    if (level == LogLevel::warning) warnings.emplace_back(text);
  };
  Rig rig(config);
  rig.pipeline->start();
  for (int i = 1; i <= 300; ++i) rig.record(i);
  rig.record(301, "other");
  const auto s = rig.pipeline->stop(in(patience));
  EXPECT_THAT(warnings, testing::ElementsAre(testing::HasSubstr("typo")));
  EXPECT_EQ(s.dropped.empty, 1u);
  expect_books_add_up(s);
}

TEST(Pipeline, numbers_the_batches_of_a_run_and_leaves_a_gap_for_a_refused_one) {
  auto config = patient();
  config.batch_size = 1;
  Rig rig(config);
  rig.pipeline->start();
  rig.record(1);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  rig.client.answer(FakeClient::Answer::no_room);  // the kept batch keeps its number
  rig.record(2);
  ASSERT_TRUE(rig.client.wait_for_calls(3));
  rig.client.answer(FakeClient::Answer::refuse);
  ASSERT_TRUE(eventually([&] { return rig.pipeline->stats().errors == 1; }));
  rig.client.answer(FakeClient::Answer::take_and_acknowledge);
  rig.record(3);
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  const std::string run = rig.pipeline->stats().run_id;
  EXPECT_EQ(run.size(), 26u);
  EXPECT_THAT(rig.client.sequences(),
              testing::ElementsAre("fulmar-batch=" + run + "/1", "fulmar-batch=" + run + "/3"));
  Rig other;
  EXPECT_NE(other.pipeline->stats().run_id, run);
}

TEST(Pipeline, sends_batches_without_the_sequence_where_the_server_has_no_properties) {
  auto config = patient();
  config.batch_size = 1;
  Rig rig(config);
  rig.client.answer(FakeClient::Answer::take_without_properties);
  rig.pipeline->start();
  rig.record(1);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  EXPECT_THAT(rig.client.sequences(), testing::ElementsAre(""));
  EXPECT_TRUE(rig.pipeline->flush(in(patience)));
  EXPECT_EQ(rig.pipeline->stats().errors, 0u);
}

TEST(Pipeline, sends_no_sequence_when_its_property_has_no_name) {
  auto config = patient();
  config.batch_size = 1;
  config.batch_property = "";
  Rig rig(config);
  rig.pipeline->start();
  rig.record(1);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  EXPECT_THAT(rig.client.sequences(), testing::ElementsAre(""));
}

TEST(Pipeline, an_offer_that_is_not_taken_leaves_no_trace_in_the_books) {
  auto config = patient();
  config.queue_capacity = 2;
  Rig rig(config);
  const Measurement m = Measurement(1).add("v", 1);
  const std::string huge(std::size_t{1} << 20, 'x');
  const Measurement too_large = Measurement(1).add("v", huge);
  EXPECT_EQ(rig.pipeline->offer(1, too_large.encoded()), Telemetry::Offer::too_large);
  EXPECT_EQ(rig.pipeline->offer(1, m.encoded()), Telemetry::Offer::taken);
  EXPECT_EQ(rig.pipeline->offer(2, m.encoded()), Telemetry::Offer::taken);
  EXPECT_EQ(rig.pipeline->offer(3, m.encoded()), Telemetry::Offer::queue_full);
  EXPECT_EQ(rig.pipeline->stats().recorded, 2u);
  EXPECT_EQ(rig.pipeline->stats().dropped.total(), 0u);
  rig.pipeline->start();
  ASSERT_TRUE(eventually([&] { return rig.pipeline->offer(3, m.encoded()) == Telemetry::Offer::taken; }));
  rig.pipeline->stop(in(patience));
  EXPECT_EQ(rig.pipeline->offer(4, m.encoded()), Telemetry::Offer::stopped);
  EXPECT_EQ(rig.pipeline->stats().messages_sent, 3u);
}

TEST(Pipeline, times_one_call_of_record_in_256_and_counts_the_records_of_each_batch) {
  Rig rig({.queue_capacity = 10'000, .batch_size = 100, .batch_interval = std::chrono::hours(1)});
  for (int i = 1; i <= 2'560; ++i) rig.record(i);
  const auto before = rig.pipeline->stats().enqueue_ns;
  EXPECT_EQ(before.count(), 10u);
  EXPECT_GT(before.sum, 0u);
  rig.pipeline->start();
  ASSERT_TRUE(rig.pipeline->flush(in(patience)));
  const auto batches = rig.pipeline->stats().batch_records;
  EXPECT_EQ(batches.count(), 26u);
  EXPECT_EQ(batches.sum, 2'560u);
  EXPECT_EQ(batches.counts[7], 25u) << "100 lies in (64, 128]";
  EXPECT_EQ(batches.counts[6], 1u) << "60 lies in (32, 64]";
}

TEST(Pipeline, knows_how_old_the_oldest_record_without_an_outcome_is) {
  auto config = patient();
  config.batch_size = 1;
  Rig rig(config);
  EXPECT_EQ(rig.pipeline->stats().oldest_unsent_age, 0ms);
  rig.client.answer(FakeClient::Answer::take);
  rig.pipeline->start();
  rig.record(1);
  ASSERT_TRUE(rig.client.wait_for_batches(1));
  ASSERT_TRUE(eventually([&] { return rig.pipeline->stats().oldest_unsent_age >= 20ms; }));
  rig.record(2);  // younger, and not what is asked for
  ASSERT_TRUE(rig.client.wait_for_batches(2));
  EXPECT_GE(rig.pipeline->stats().oldest_unsent_age, 20ms);
  rig.client.settle_all({.outcome = Delivery::Outcome::acknowledged});
  EXPECT_EQ(rig.pipeline->stats().oldest_unsent_age, 0ms);
}

TEST(PowerHistogram, says_in_which_bucket_a_share_is_reached) {
  SharedHistogram histogram;
  EXPECT_EQ(histogram.snapshot().quantile(0.5), 0u);
  for (const std::uint64_t value : {0u, 1u, 2u, 3u, 4u, 5u, 1'000u}) histogram.add(value);
  histogram.add(~std::uint64_t{0});
  const auto s = histogram.snapshot();
  EXPECT_EQ(s.count(), 8u);
  EXPECT_EQ(s.counts[0], 2u);
  EXPECT_EQ(s.counts[1], 1u);
  EXPECT_EQ(s.counts[2], 2u);
  EXPECT_EQ(s.counts[3], 1u);
  EXPECT_EQ(s.counts[PowerHistogram::buckets - 1], 1u);
  EXPECT_EQ(s.quantile(0), 1u);
  EXPECT_EQ(s.quantile(0.5), 4u);
  EXPECT_EQ(s.quantile(0.8), 1'024u);
}

// The books hold at every moment, with many producers, a small queue, and a client that has room now and then.
TEST(Pipeline, accounts_for_every_record_of_many_producers_at_any_moment) {
  constexpr int producers = 4, each = 20'000;
  Rig rig({.queue_capacity = 64, .batch_size = 5, .batch_interval = 10ms});
  rig.pipeline->start();
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<bool> done{false};
  std::thread weather([&] {
    for (int i = 0; !done; ++i) {
      rig.client.answer(i % 3 == 0 ? FakeClient::Answer::no_room : FakeClient::Answer::take_and_acknowledge);
      expect_books_add_up(rig.pipeline->stats());
      std::this_thread::sleep_for(200us);
    }
    rig.client.answer(FakeClient::Answer::take_and_acknowledge);
  });
  std::vector<std::thread> threads;
  for (int p = 0; p < producers; ++p)
    threads.emplace_back([&] {
      for (int i = 1; i <= each; ++i)
        if (rig.record(i)) accepted.fetch_add(1);
    });
  for (std::thread& t : threads) t.join();
  done = true;
  weather.join();
  const auto s = rig.pipeline->stop(in(patience));
  EXPECT_EQ(s.recorded, std::uint64_t{producers} * each);
  EXPECT_EQ(s.messages_sent, accepted.load());
  EXPECT_EQ(s.dropped.queue_full, s.recorded - accepted.load());
  EXPECT_EQ(s.waiting, 0u);
  EXPECT_EQ(rig.client.timestamps().size(), accepted.load());
}

}  // namespace
}  // namespace fulmar::telemetry
