// Faults N6 and N8: a server that does not read, and ways that are slow, long or lossy.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;
using Link = ScriptedBroker::Link;

// --- N6 --------------------------------------------------------------------------------------------------------------

TEST(Faults, N6_behind_a_zero_window_memory_is_bounded_and_handlers_go_on) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = persistent_config(proxy.url(), "pressed");
  config.outbox_bytes = std::size_t{16} << 20;
  config.overflow = Overflow::reject;
  config.keepalive = 1s;
  Inbox inbox;
  Client client(config);
  const auto subscription = client.subscribe("news", inbox.handler());
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(eventually([&] { return broker.packets(PacketType::subscribe) == 1; }));
  proxy.set_flow(Direction::up, FaultProxy::Flow::stall);

  const std::size_t memory_before = resident_bytes();
  std::size_t rejected = 0;
  const std::string filler(1'000, 'x');
  for (int i = 0; i < 100'000; ++i) {
    // From time to time something comes: a server that is silent for 1.5 keep-alives as well would be given up.
    if (i % 5'000 == 0) broker.with_link([](Link& link) { link.publish("alive", "x"); });
    const auto accepted = client.publish("n/" + std::to_string(i), filler, {.qos = QoS::at_least_once});
    rejected += !accepted;
    ASSERT_TRUE(accepted || accepted.error().code == Errc::outbox_full) << accepted.error().message;
  }
  EXPECT_GT(rejected, 0u);
  const auto metrics = client.metrics();
  EXPECT_LE(metrics.outbox_bytes, config.outbox_bytes);
  EXPECT_EQ(metrics.waiting + metrics.acknowledged, metrics.accepted);
  if (!sanitized) {
    // The outbox; what is in flight; buffers.
    const std::size_t bound =
        config.outbox_bytes + config.max_inflight * std::size_t{1'100} + (std::size_t{1} << 20);
    EXPECT_LE(resident_bytes() - std::min(memory_before, resident_bytes()), bound * 11 / 10);
  }

  // The other way is free: handlers run, and what comes keeps the connection alive.
  const auto begin = Clock::now();
  std::size_t sent = 0;
  while (since(begin) < 2'500ms) {
    ASSERT_TRUE(broker.with_link([](Link& link) { link.publish("news", "x"); }));
    ASSERT_TRUE(inbox.wait_for(++sent)) << sent;
    std::this_thread::sleep_for(50ms);
  }
  EXPECT_TRUE(client.connected());
  EXPECT_EQ(client.metrics().disconnects, 0u);

  const auto accepted = client.metrics().accepted;
  proxy.set_flow(Direction::up, FaultProxy::Flow::pass);
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(client.metrics().acknowledged, accepted);
}

TEST(Faults, N6_to_a_slow_server_acknowledgements_and_pings_go_on) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  proxy.set_shape(Direction::up, {.bytes_per_s = 40'000});
  auto config = persistent_config(proxy.url(), "pressed");
  config.max_inflight = 4;
  config.keepalive = 1s;
  Inbox inbox;
  Client client(config);
  const auto subscription = client.subscribe("news", inbox.handler(), {.qos = QoS::exactly_once});
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(eventually([&] { return broker.packets(PacketType::subscribe) == 1; }));
  const std::string payload(2'000, 'x');
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(client.publish("t", payload, {.qos = QoS::at_least_once}));
  std::uint16_t id = 0;
  while (client.metrics().waiting > 0 && id < 1'000) {
    const auto asked = Clock::now();
    ++id;
    broker.with_link([&](Link& link) { link.publish("news", "x", QoS::exactly_once, id); });
    ASSERT_TRUE(eventually([&] { return broker.packets(PacketType::pubcomp) == id; }));
    EXPECT_LT(since(asked), 1s + slack) << "behind at most four messages, twice";
  }
  EXPECT_GE(id, 2u);
  EXPECT_EQ(inbox.size(), id);
  EXPECT_EQ(client.metrics().disconnects, 0u);
}

// --- N8 --------------------------------------------------------------------------------------------------------------

TEST(Faults, N8_over_a_long_way_the_window_is_used) {
  constexpr auto round_trip = 300ms;
  constexpr std::uint16_t window = 200;
  constexpr std::size_t messages = 2'000;
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  proxy.seed(8);
  for (const auto direction : {Direction::up, Direction::down}) {
    proxy.set_shape(direction, {.latency = 120ms, .jitter = 30ms});
  }
  auto config = persistent_config(proxy.url(), "far");
  config.max_inflight = window;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < messages; ++i) publish_next(client, broker.ledger(), QoS::at_least_once);
  ASSERT_TRUE(client.flush(patience));
  const auto ideal = round_trip * (messages / window);
  EXPECT_LE(since(begin), ideal * 10 / 8 + (sanitized ? slack : 200ms)) << "80 % of window / round trip";
  EXPECT_EQ(broker.ledger().balance(), all_well);
}

TEST(Faults, N8_a_message_that_comes_slowly_is_no_ping_timeout) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  proxy.set_shape(Direction::down, {.bytes_per_s = 10'000});
  auto config = config_for(proxy.url(), "patient");
  config.keepalive = 1s;
  Inbox inbox;
  Client client(config);
  const auto subscription = client.subscribe("news", inbox.handler());
  ASSERT_TRUE(client.connect(patience));
  const std::string large(35'000, 'L');  // 3.5 s
  ASSERT_TRUE(broker.with_link([&](Link& link) { link.publish("news", large); }));
  ASSERT_TRUE(inbox.wait_for(1));
  EXPECT_EQ(inbox.items()[0].text, large);
  EXPECT_EQ(client.metrics().disconnects, 0u);
}

TEST(Faults, N8_messages_that_leave_slowly_are_no_ping_timeout) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port(), {.receive_buffer = 4'096});
  proxy.set_shape(Direction::up, {.bytes_per_s = 100'000});
  auto config = config_for(proxy.url(), "patient");
  config.keepalive = 2s;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  // QoS 0: nothing comes back but what answers PINGREQ, which waits behind all of it.
  const std::string payload(10'000, 'x');
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(client.publish("t", payload));
  ASSERT_TRUE(
      eventually([&] { return broker.packets(PacketType::publish) == 50 || client.metrics().disconnects; }));
  EXPECT_EQ(client.metrics().disconnects, 0u) << client.last_change().reason;
  EXPECT_EQ(broker.packets(PacketType::publish), 50u);
}

// --- loss ------------------------------------------------------------------------------------------------------------

// The kernel drops packets in a network namespace where this program runs the same test again.
class Lossy : public testing::TestWithParam<int> {
 protected:
  static constexpr const char* inside = "FULMAR_IN_LOSSY_NAMESPACE";

  void run_inside() {
    const TempDir directory;
    const auto output = directory / "output";
    const auto filter = std::string("--gtest_filter=") +
                        testing::UnitTest::GetInstance()->current_test_suite()->name() + "." +
                        testing::UnitTest::GetInstance()->current_test_info()->name();
    const std::string script =
        "ip link set lo up && "
        "iptables -A INPUT -i lo -m statistic --mode random --probability \"$1\" -j DROP || exit 77\n"
        "export " +
        std::string(inside) + "=1\nexec \"$2\" \"$3\"";
    char probability[16];
    std::snprintf(probability, sizeof probability, "%.2f", GetParam() / 100.0);
    const auto self = std::filesystem::read_symlink("/proc/self/exe").string();
    const int code =
        run({.argv = {"unshare", "-n", "sh", "-c", "exit 0"}, .output = output}, patience) != 0
            ? 77
            : run({.argv = {"unshare", "-n", "sh", "-c", script, "lossy", probability, self, filter},
                   .output = output},
                  100s);
    std::ostringstream text;
    text << std::ifstream(output).rdbuf();
    if (code == 77)
      GTEST_SKIP() << "no network namespace with iptables (needs root and the package): " << text.str();
    EXPECT_EQ(code, 0) << text.str();
  }
};

TEST_P(Lossy, N8_way_loses_no_message) {
  if (!std::getenv(inside)) return run_inside();
  const std::size_t messages = 4'000 / static_cast<std::size_t>(GetParam());
  ScriptedBroker broker;
  auto config = persistent_config(broker.url(), "lossy");
  config.max_inflight = 100;
  // At 20 % TCP itself falls silent for several seconds now and then.
  config.keepalive = GetParam() < 20 ? 5s : 60s;
  Client client(config);
  client.start();
  for (std::size_t i = 0; i < messages; ++i) publish_next(client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client.flush(80s)) << broker.ledger().balance();
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(client.metrics().disconnects, 0u) << client.last_change().reason;
}

INSTANTIATE_TEST_SUITE_P(, Lossy, testing::Values(1, 5, 20),
                         [](const auto& test) { return std::to_string(test.param) + "_percent"; });

}  // namespace
}  // namespace fulmar::test
