// Fault N1 with a broker that keeps its state: mosquitto is restarted at random moments in mid publish, and a subscriber
// with a session of its own, on a connection of its own, says what arrived.
//
// FULMAR_RESTARTS says how often (1,000 by hand), FULMAR_SEED when.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/faults/fixture.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

class Restarts : public testing::TestWithParam<ProtocolVersion> {};

TEST_P(Restarts, N1_lose_nothing_and_double_only_what_the_standard_allows) {
  const std::size_t restarts = times("FULMAR_RESTARTS", 10);
  std::mt19937 random(static_cast<unsigned>(times("FULMAR_SEED", 1)));
  const TempDir state;
  // The log is for the start only: it would be long.
  Broker broker({.config = {"log_type none", "log_type information", "persistence true",
                            "persistence_location " + state.path().string() + "/", "autosave_interval 0"}});

  Ledger once, exactly;
  std::atomic<std::size_t> resumed{0}, anew{0};
  const auto count_sessions = [&](Client& client) {
    client.on_state_change([&](const StateChange& change) {
      if (change.state == ConnectionState::connected) ++(change.reason.contains("resumed") ? resumed : anew);
    });
  };
  auto config = persistent_config(broker.url(), "subscriber", GetParam());
  Client subscriber(config);
  count_sessions(subscriber);
  Inbox grants;
  const auto at_least_once = *subscriber.subscribe(
      "once", [&](const Message& message) { once.arrived(message.text()); }, {.qos = QoS::at_least_once},
      grants.granted());
  const auto exactly_once = *subscriber.subscribe(
      "exactly", [&](const Message& message) { exactly.arrived(message.text()); }, {.qos = QoS::exactly_once},
      grants.granted());
  ASSERT_TRUE(subscriber.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(2));

  config.client_id = "publisher";
  config.max_inflight = 50;
  Client publisher(config);
  count_sessions(publisher);
  ASSERT_TRUE(publisher.connect(patience));
  std::atomic<bool> done{false};
  std::thread publishing([&] {
    while (!done) {
      if (publisher.metrics().waiting < 200) {
        publish_next(publisher, once, QoS::at_least_once, "once");
        publish_next(publisher, exactly, QoS::exactly_once, "exactly");
      }
      std::this_thread::sleep_for(100us);
    }
  });

  const auto begin = Clock::now();
  for (std::size_t i = 1; i <= restarts; ++i) {
    // Often before everybody is back, sometimes long after.
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % (i % 8 ? 120 : 400)));
    broker.stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
    broker.start();
  }
  const auto took = since(begin);
  done = true;
  publishing.join();
  ASSERT_TRUE(publisher.flush(patience)) << publisher.last_change().reason;
  EXPECT_TRUE(once.wait_for_all(patience));
  EXPECT_TRUE(exactly.wait_for_all(patience));
  auto balance = once.balance();
  EXPECT_LE(balance.duplicates, restarts * (50 + 50)) << "in flight on either side";
  std::printf(
      "%zu restarts in %.1f s: %zu messages of QoS 1 (%zu doubled), %zu of QoS 2; %zu sessions resumed, %zu "
      "new\n",
      restarts, static_cast<double>(took.count()) / 1'000, once.accepted_count(), balance.duplicates,
      exactly.accepted_count(), resumed.load(), anew.load());
  balance.duplicates = balance.overtaken = 0;
  EXPECT_EQ(balance, all_well);
  EXPECT_EQ(exactly.balance(), all_well);
  EXPECT_EQ(anew, 2u) << "the first of each; the broker kept the others";
}

INSTANTIATE_TEST_SUITE_P(, Restarts, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) {
                           return test.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

}  // namespace
}  // namespace fulmar::test
