#include "daemon/broker_child.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <thread>

#include "tests/support/process.hpp"

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = BrokerChild::Clock;

bool answers(const BrokerChild& broker) {
  return test::run(
             {.argv = {"mosquitto_pub", "-p", std::to_string(broker.port()), "-t", "t", "-m", "x", "-q", "1"},
              .output = {}},
             10s) == 0;
}

TEST(BrokerChild, starts_a_broker_that_answers_and_leaves_nothing_behind) {
  BrokerChild broker;
  const auto started = broker.start();
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_TRUE(answers(broker));
  const pid_t pid = broker.pid();
  const auto directory = broker.directory();
  EXPECT_TRUE(std::filesystem::exists(directory / "mosquitto.conf"));
  EXPECT_EQ(std::filesystem::status(directory).permissions(), std::filesystem::perms::owner_all);
  broker.stop();
  EXPECT_NE(::kill(pid, 0), 0);
  EXPECT_FALSE(std::filesystem::exists(directory));
  broker.stop();
}

TEST(BrokerChild, restarts_a_killed_broker_on_the_same_port_and_says_so) {
  BrokerChild broker;
  ASSERT_TRUE(broker.start());
  const auto port = broker.port();
  EXPECT_EQ(broker.supervise(Clock::now()), std::nullopt);
  const pid_t first = broker.pid();
  ::kill(first, SIGKILL);
  std::optional<std::string> event;
  for (int i = 0; i < 1000 && !event; ++i) {
    std::this_thread::sleep_for(5ms);
    event = broker.supervise(Clock::now());
  }
  ASSERT_TRUE(event);
  EXPECT_THAT(*event, testing::AllOf(testing::HasSubstr(std::to_string(first)),
                                     testing::HasSubstr("killed by signal 9"),
                                     testing::HasSubstr("its log ends with: ")));
  EXPECT_EQ(broker.pid(), -1);
  EXPECT_EQ(broker.supervise(Clock::now()), std::nullopt) << "not before the back-off";
  event = broker.supervise(Clock::now() + 10s);
  ASSERT_TRUE(event);
  EXPECT_THAT(*event, testing::HasSubstr("restarted"));
  EXPECT_EQ(broker.port(), port);
  EXPECT_EQ(broker.restarts(), 1u);
  EXPECT_NE(broker.pid(), first);
  bool up = false;
  for (int i = 0; i < 100 && !up; ++i) {
    up = answers(broker);
    if (!up) std::this_thread::sleep_for(50ms);
  }
  EXPECT_TRUE(up);
}

TEST(BrokerChild, backs_off_longer_each_time_the_broker_dies_young) {
  BrokerChild broker;
  ASSERT_TRUE(broker.start());
  std::vector<std::string> ends;
  auto now = Clock::now();
  while (ends.size() < 3) {
    if (broker.pid() >= 0) ::kill(broker.pid(), SIGKILL);
    for (int i = 0; i < 1000 && broker.pid() >= 0; ++i) {
      std::this_thread::sleep_for(2ms);
      now = Clock::now();
      if (const auto event = broker.supervise(now)) ends.push_back(*event);
    }
    broker.supervise(now + 10s);
  }
  EXPECT_THAT(ends[0], testing::HasSubstr("in 0.1 s"));
  EXPECT_THAT(ends[1], testing::HasSubstr("in 0.2 s"));
  EXPECT_THAT(ends[2], testing::HasSubstr("in 0.4 s"));
}

TEST(FindProgram, looks_where_system_programs_are_too) {
  EXPECT_TRUE(find_program("mosquitto"));
  EXPECT_TRUE(find_program("sh"));
  EXPECT_FALSE(find_program("no-such-program-here"));
}

}  // namespace
}  // namespace fulmar::daemon
