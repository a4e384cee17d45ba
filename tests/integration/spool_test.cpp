// Client with a spool: what was accepted survives the broker, the process and the disk's moods.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/faults/fixture.hpp"
#include "tests/faults/ledger.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using Outcome = Delivery::Outcome;

constexpr auto long_enough = 20s;

class SpoolTest : public testing::TestWithParam<QoS> {
 protected:
  ClientConfig spooling(const std::string& url, Durability durability = Durability::spill) {
    auto config = config_for(url, "spooler");
    config.spool_dir = (directory_ / "spool").string();
    config.spool_bytes = std::uint64_t{16} << 20;
    config.durability = durability;
    config.clean_start = false;
    config.session_expiry = 600s;
    return config;
  }

  // A subscriber that keeps the ledger.
  std::unique_ptr<Client> witness(const std::string& url) {
    auto client = std::make_unique<Client>(config_for(url, "witness"));
    Inbox granted;
    auto subscription = client->subscribe(
        "ledger", [this](const Message& message) { ledger_.arrived(message.text()); },
        {.qos = QoS::exactly_once}, granted.granted());
    EXPECT_TRUE(subscription);
    EXPECT_TRUE(client->connect(long_enough));
    EXPECT_TRUE(granted.grants().wait_for(1));
    subscription->detach();
    return client;
  }

  void publish(Client& client, int count, DeliveryHandler (*handler)(Outcomes&) = nullptr) {
    for (int i = 0; i < count; ++i) {
      const auto id = client.publish("ledger", as_bytes(ledger_.next()), {.qos = GetParam()},
                                     handler ? handler(outcomes_) : DeliveryHandler{});
      ASSERT_TRUE(id) << id.error().message;
      ledger_.accepted();
    }
  }
  static DeliveryHandler noted(Outcomes& outcomes) { return outcomes.handler(); }

  TempDir directory_;
  Ledger ledger_;
  Outcomes outcomes_;
};

TEST_P(SpoolTest, keeps_what_waits_across_the_end_of_the_process) {
  const auto port = free_port();
  {
    Client client(spooling("mqtt://127.0.0.1:" + std::to_string(port)));
    client.start();
    publish(client, 2'000, noted);
    const auto report = client.shutdown(5s);
    EXPECT_EQ(report.spooled, 2'000u);
    EXPECT_EQ(report.lost, 0u);
    EXPECT_EQ(outcomes_.count(Outcome::stored), 2'000u);
    const auto metrics = client.metrics();
    EXPECT_EQ(metrics.accepted, 2'000u);
    EXPECT_EQ(metrics.waiting, 2'000u);
    EXPECT_EQ(metrics.spool_messages, 2'000u);
  }
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url()));
  client.start();
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(ledger_.balance(), Ledger::Balance{});
  EXPECT_TRUE(eventually([&] { return client.metrics().waiting == 0; }));
  const auto metrics = client.metrics();
  EXPECT_EQ(metrics.recovered, 2'000u);
  EXPECT_EQ(metrics.replayed, 2'000u);
  EXPECT_EQ(metrics.acknowledged, 2'000u);
  const auto report = client.shutdown(5s);
  EXPECT_EQ(report.spooled, 0u);
}

// What a kill would lose is what came in the last moments only, also while it never stops coming.
TEST_P(SpoolTest, writes_what_keeps_coming_while_the_server_is_away) {
  auto config = spooling("mqtt://127.0.0.1:" + std::to_string(free_port()));
  config.reconnect_min_delay = config.reconnect_max_delay = 60s;
  Client client(config);
  client.start();
  const auto end = std::chrono::steady_clock::now() + long_enough;
  std::uint64_t on_disk = 0;
  for (int i = 0; on_disk < 300 && std::chrono::steady_clock::now() < end; ++i) {
    publish(client, 1);
    std::this_thread::sleep_for(500us);  // a pace: less than half of the outbox in all that time
    on_disk = client.metrics().spooled;
  }
  EXPECT_GE(on_disk, 300u);
  EXPECT_LT(client.metrics().accepted, 10'000u);
}

TEST_P(SpoolTest, keeps_the_order_of_what_is_on_disk_and_what_comes_after) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url()));
  ASSERT_TRUE(client.connect(long_enough));
  publish(client, 500);
  broker.kill();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, long_enough));
  publish(client, 500);
  EXPECT_TRUE(client.flush(long_enough)) << "all of it is on disk";
  EXPECT_GT(client.metrics().spooled, 0u);
  broker.start();
  ASSERT_TRUE(subscriber->wait_for(ConnectionState::connected, long_enough));
  publish(client, 500);
  EXPECT_TRUE(eventually([&] { return client.metrics().waiting == 0; }, long_enough));
  EXPECT_EQ(client.metrics().acknowledged, 1'500u);
}

TEST_P(SpoolTest, write_ahead_tells_stored_and_delivers_once) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url(), Durability::write_ahead));
  ASSERT_TRUE(client.connect(long_enough));
  publish(client, 3'000, noted);
  EXPECT_TRUE(outcomes_.wait_for(3'000, long_enough));
  EXPECT_EQ(outcomes_.count(Outcome::stored), 3'000u);
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(ledger_.balance(), Ledger::Balance{});
  EXPECT_TRUE(eventually([&] { return client.metrics().waiting == 0; }));
  EXPECT_TRUE(eventually([&] { return client.metrics().spool_messages == 0; }));
}

TEST_P(SpoolTest, one_message_is_written_ahead_where_the_others_are_not) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url()));
  ASSERT_TRUE(client.connect(long_enough));
  const auto settled = [&] {
    const auto metrics = client.metrics();
    return metrics.waiting == 0 && metrics.spool_messages == 0;
  };
  publish(client, 100);  // perhaps by way of the disk, which has not been opened yet
  ASSERT_TRUE(eventually(settled, long_enough));
  const auto before = client.metrics().spooled;

  publish(client, 100);
  Outcomes one;
  ASSERT_TRUE(client.publish("ledger", as_bytes(ledger_.next()),
                             {.qos = GetParam(), .durability = Durability::write_ahead}, one.handler()));
  ledger_.accepted();
  publish(client, 100);
  EXPECT_TRUE(one.wait_for(1, long_enough));
  EXPECT_EQ(one.count(Outcome::stored), 1u);
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(ledger_.balance(), Ledger::Balance{}) << "in their order, too";
  ASSERT_TRUE(eventually(settled, long_enough));
  const auto after = client.metrics().spooled;
  EXPECT_GE(after, before + 1);
  EXPECT_LE(after, before + 101) << "those before it went straight";

  publish(client, 100, noted);
  EXPECT_TRUE(outcomes_.wait_for(100, long_enough));
  EXPECT_EQ(client.metrics().spooled, after) << "the disk is left alone again";
}

TEST_P(SpoolTest, one_message_goes_straight_where_the_others_are_written_ahead) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url(), Durability::write_ahead));
  ASSERT_TRUE(client.connect(long_enough));
  publish(client, 100, noted);
  EXPECT_TRUE(outcomes_.wait_for(100, long_enough));
  ASSERT_TRUE(eventually([&] { return client.metrics().waiting == 0; }, long_enough));
  Outcomes one;
  ASSERT_TRUE(client.publish("ledger", as_bytes(ledger_.next()),
                             {.qos = GetParam(), .durability = Durability::spill}, one.handler()));
  ledger_.accepted();
  EXPECT_TRUE(one.wait_for(1, long_enough));
  EXPECT_EQ(one.count(Outcome::stored), 0u);
  publish(client, 100, noted);
  EXPECT_TRUE(outcomes_.wait_for(200, long_enough));
  EXPECT_EQ(outcomes_.count(Outcome::stored), 200u);
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(ledger_.balance(), Ledger::Balance{});
}

TEST(SpoolPerMessage, is_refused_without_a_folder) {
  Client client(config_for("mqtt://127.0.0.1:" + std::to_string(free_port()), "no-spool"));
  for (const auto durability : {Durability::spill, Durability::write_ahead}) {
    const auto id = client.publish("t", as_bytes("x"), {.durability = durability});
    ASSERT_FALSE(id);
    EXPECT_EQ(id.error().code, Errc::invalid_config);
    EXPECT_NE(id.error().message.find("spool_dir"), std::string::npos);
  }
  EXPECT_TRUE(client.publish("t", as_bytes("x"), {.durability = Durability::memory}));
}

TEST_P(SpoolTest, straight_through_leaves_the_disk_alone) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client client(spooling(broker.url()));
  ASSERT_TRUE(client.connect(long_enough));
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(directory_ / "spool"); }));
  std::this_thread::sleep_for(100ms);  // it has been opened
  publish(client, 500, noted);
  EXPECT_TRUE(client.flush(long_enough));
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(client.metrics().spooled, 0u);
  EXPECT_TRUE(outcomes_.wait_for(500));
  EXPECT_EQ(outcomes_.count(Outcome::stored), 0u);
}

TEST_P(SpoolTest, shutdown_in_mid_flight_stores_what_has_no_answer) {
  if (GetParam() == QoS::at_most_once) return;  // has no answer
  Broker broker;
  auto subscriber = witness(broker.url());
  {
    Client client(spooling(broker.url()));
    ASSERT_TRUE(client.connect(long_enough));
    publish(client, 100);
    ASSERT_TRUE(client.flush(long_enough));
    broker.freeze();
    publish(client, 300, noted);
    const auto report = client.shutdown(300ms);
    EXPECT_EQ(report.lost, 0u);
    EXPECT_EQ(report.spooled, 300u);
    EXPECT_EQ(outcomes_.count(Outcome::stored), 300u);
  }
  broker.thaw();
  Client client(spooling(broker.url()));
  client.start();
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_EQ(ledger_.balance().lost, 0u);
}

TEST_P(SpoolTest, a_second_client_on_the_folder_is_told_and_goes_on_in_memory) {
  Broker broker;
  const auto subscriber = witness(broker.url());
  Client first(spooling(broker.url()));
  ASSERT_TRUE(first.connect(long_enough));
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(directory_ / "spool" / "lock"); }));
  auto config = spooling(broker.url());
  config.client_id = "second";
  Collected<std::string> lines;
  Client second(config);
  second.set_log_sink([lines](LogLevel, std::string_view component, std::string_view text) {
    if (component == "spool") lines.add(std::string(text));
  });
  ASSERT_TRUE(second.connect(long_enough));
  ASSERT_TRUE(lines.wait_for(1));
  EXPECT_TRUE(lines.items()[0].contains(config.spool_dir)) << lines.items()[0];
  publish(second, 100);
  EXPECT_TRUE(ledger_.wait_for_all(long_enough));
  EXPECT_TRUE(second.metrics().spool_failing);

  first.shutdown(5s);
  ASSERT_TRUE(eventually([&] { return !second.metrics().spool_failing; })) << "it is tried again";
  broker.stop();
  ASSERT_TRUE(second.wait_for(ConnectionState::reconnecting, long_enough));
  publish(second, 100);
  EXPECT_TRUE(eventually([&] { return second.metrics().spool_messages == 100; }))
      << second.metrics().spool_messages;
}

INSTANTIATE_TEST_SUITE_P(, SpoolTest,
                         testing::Values(QoS::at_most_once, QoS::at_least_once, QoS::exactly_once),
                         [](const auto& which) {
                           return "qos" + std::to_string(static_cast<int>(which.param));
                         });

TEST(Spool, refuses_a_message_that_no_segment_takes) {
  TempDir directory;
  auto config = config_for("mqtt://127.0.0.1:1", "spooler");
  config.spool_dir = (directory / "spool").string();
  config.spool_bytes = std::uint64_t{1} << 20;
  Client client(config);
  const std::string large(70'000, 'x');
  const auto refused = client.publish("t", large, {.qos = QoS::at_least_once});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::payload_too_large);
  EXPECT_TRUE(refused.error().message.contains("MQTT_SPOOL_BYTES")) << refused.error().message;
}

TEST(Spool, a_message_expires_across_a_restart) {
  TempDir directory;
  auto config = config_for("mqtt://127.0.0.1:" + std::to_string(free_port()), "spooler");
  config.spool_dir = (directory / "spool").string();
  {
    Client client(config);
    client.start();
    ASSERT_TRUE(client.publish("t/short", "x", {.qos = QoS::at_least_once, .message_expiry = 1s}));
    ASSERT_TRUE(client.publish("t/long", "x", {.qos = QoS::at_least_once, .message_expiry = 100s}));
    EXPECT_EQ(client.shutdown(5s).spooled, 2u);
  }
  std::this_thread::sleep_for(1100ms);
  Broker broker;
  config.urls = {broker.url()};
  Client client(config);
  ASSERT_TRUE(client.connect(long_enough));
  ASSERT_TRUE(eventually([&] { return client.metrics().recovered == 2 && client.metrics().waiting == 0; }));
  EXPECT_EQ(client.metrics().expired, 1u);
  EXPECT_EQ(client.metrics().acknowledged, 1u);
}

}  // namespace
}  // namespace fulmar::test
