// Fault P7: the wall clock steps. This program has a clock_gettime() of its own, so that everything in it that reads
// CLOCK_REALTIME through the C library (std::chrono::system_clock, time(), gettimeofday()) sees the steps.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace {

std::atomic<long> step_s{0};

int stepped(clockid_t clock, timespec* now) {
  const auto result = static_cast<int>(::syscall(SYS_clock_gettime, clock, now));
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += step_s.load();
  return result;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) { return stepped(clock, now); }

extern "C" time_t time(time_t* result) {
  timespec now{};
  stepped(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

extern "C" int gettimeofday(timeval* result, void*) {
  timespec now{};
  stepped(CLOCK_REALTIME, &now);
  result->tv_sec = now.tv_sec;
  result->tv_usec = now.tv_nsec / 1'000;
  return 0;
}

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;

// Steps the wall clock by an hour, a day and ten years, forward and back, every 20 ms until destroyed.
class Steps {
 public:
  Steps() {
    thread_ = std::thread([this] {
      constexpr long hour = 3'600, year = 31'557'600;
      constexpr std::array<long, 8> steps = {hour,      -hour,      24 * hour, -24 * hour,
                                             10 * year, -10 * year, 0,         -2 * hour};
      for (std::size_t i = 0; !done_; ++i) {
        step_s = steps[i % steps.size()];
        std::this_thread::sleep_for(20ms);
      }
      step_s = 0;
    });
  }
  ~Steps() {
    done_ = true;
    thread_.join();
  }
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

TEST(Faults, P7_the_steps_are_seen_by_the_standard_library) {
  const auto before = std::chrono::system_clock::now();
  const auto steady_before = Clock::now();
  step_s = 3'600;
  EXPECT_GT(std::chrono::system_clock::now() - before, 59min);
  EXPECT_LT(Clock::now() - steady_before, 1min);
  step_s = 0;
}

TEST(Faults, P7_keep_alive_is_unaffected) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = config_for(proxy.url(), "steady");
  config.keepalive = 1s;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  const Steps steps;
  std::this_thread::sleep_for(3s);
  EXPECT_EQ(client.metrics().disconnects, 0u) << client.last_change().reason;
  EXPECT_GE(broker.packets(PacketType::pingreq), 2u);
  EXPECT_LE(broker.packets(PacketType::pingreq), 4u);
  proxy.half_open();
  const auto begin = Clock::now();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, patience));
  EXPECT_LE(since(begin), 1'500ms + slack);
  EXPECT_GE(since(begin), 400ms);
}

TEST(Faults, P7_back_off_and_the_connect_timeout_are_unaffected) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = persistent_config(proxy.url(), "steady");
  config.connect_timeout = 500ms;
  config.reconnect_min_delay = 300ms;
  config.reconnect_max_delay = 300ms;
  proxy.set_door(FaultProxy::Door::silent);
  Client client(config);
  const auto changes = watch_states(client);
  const Steps steps;
  const auto begin = Clock::now();
  client.start();
  ASSERT_TRUE(changes.wait_for(4));
  const auto at = changes.items();
  for (std::size_t i = 1; i < 4; ++i) {
    const auto took = at[i].at - (i == 1 ? begin : at[i - 1].at);
    EXPECT_GE(took, i == 1 ? 450ms : 750ms);
    EXPECT_LE(took, (i == 1 ? 550ms : 850ms) + slack);
  }
  proxy.set_door(FaultProxy::Door::open);
  publish_next(client, broker.ledger(), QoS::exactly_once);
  EXPECT_TRUE(broker.ledger().wait_for_all(patience));
}

TEST(Faults, P7_the_time_that_callers_wait_is_unaffected) {
  ScriptedBroker broker;
  broker.on(PacketType::publish, [](ScriptedBroker::Link&, const mqtt::PacketView&) { return true; });
  Client client(config_for(broker.url(), "steady"));
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}));
  const Steps steps;
  auto begin = Clock::now();
  EXPECT_FALSE(client.flush(500ms));
  EXPECT_GE(since(begin), 500ms);
  EXPECT_LE(since(begin), 500ms + slack);
  begin = Clock::now();
  EXPECT_FALSE(client.wait_for(ConnectionState::disconnected, 500ms));
  EXPECT_GE(since(begin), 500ms);
  EXPECT_LE(since(begin), 500ms + slack);
  begin = Clock::now();
  const auto report = client.shutdown(500ms);
  EXPECT_LE(since(begin), 1s + slack);
  EXPECT_EQ(report.lost, 1u);
}

TEST(Faults, P7_messages_expire_by_the_steady_clock) {
  ScriptedBroker broker;
  Client client(persistent_config(broker.url(), "steady"));
  Outcomes outcomes;
  const auto publish = [&](std::chrono::seconds expiry) {
    ASSERT_TRUE(client.publish("ledger", as_bytes(broker.ledger().next()),
                               {.qos = QoS::at_least_once, .message_expiry = expiry}, outcomes.handler()));
    broker.ledger().accepted();
  };
  const Steps steps;
  publish(1s);
  publish(60s);
  std::this_thread::sleep_for(1'200ms);
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(outcomes.wait_for(2));
  EXPECT_EQ(outcomes.items()[0].outcome, Delivery::Outcome::expired);
  EXPECT_EQ(outcomes.items()[1].outcome, Delivery::Outcome::acknowledged);
}

}  // namespace
}  // namespace fulmar::test
