#include "tests/support/broker.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/port.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

int mosquitto_pub(const Broker& broker, std::vector<std::string> more) {
  std::vector<std::string> argv = {"mosquitto_pub",
                                   "-h",
                                   "127.0.0.1",
                                   "-p",
                                   std::to_string(broker.port()),
                                   "-t",
                                   "t",
                                   "-m",
                                   "x",
                                   "-q",
                                   "1"};
  argv.insert(argv.end(), more.begin(), more.end());
  return run({.argv = argv, .output = {}}, 10s);
}

TEST(Broker, accepts_a_publish_and_logs_it) {
  Broker broker;
  EXPECT_EQ(mosquitto_pub(broker, {"-i", "somebody"}), 0);
  EXPECT_TRUE(broker.log_contains("Received PUBLISH from somebody (d0, q1, r0, m1, 't'"));
}

TEST(Broker, refuses_strangers_when_it_has_users) {
  Broker broker({.users = {{"ada", "secret"}}});
  EXPECT_EQ(mosquitto_pub(broker, {"-u", "ada", "-P", "secret"}), 0);
  EXPECT_NE(mosquitto_pub(broker, {"-u", "ada", "-P", "wrong"}), 0);
  EXPECT_NE(mosquitto_pub(broker, {}), 0);
}

TEST(Broker, comes_back_on_its_port_after_a_kill) {
  Broker broker;
  const auto port = broker.port();
  broker.kill();
  EXPECT_FALSE(broker.running());
  EXPECT_NE(mosquitto_pub(broker, {}), 0);
  broker.start();
  EXPECT_EQ(broker.port(), port);
  EXPECT_EQ(mosquitto_pub(broker, {}), 0);
}

TEST(Broker, says_why_it_does_not_start) {
  try {
    Broker broker({.config = {"no_such_option true"}});
    FAIL() << "a broker with a bad configuration started";
  } catch (const std::runtime_error& e) {
    EXPECT_TRUE(std::string_view(e.what()).contains("no_such_option")) << e.what();
  }
}

TEST(Process, reports_exit_codes_and_signals) {
  EXPECT_EQ(run({.argv = {"sh", "-c", "exit 3"}, .output = {}}, 10s), 3);
  Process sleeper({.argv = {"sleep", "600"}, .output = {}});
  EXPECT_TRUE(sleeper.running());
  EXPECT_EQ(sleeper.wait(1ms), std::nullopt);
  sleeper.send_signal(SIGTERM);
  EXPECT_EQ(sleeper.wait(10s), 128 + SIGTERM);
  EXPECT_THROW(Process({.argv = {"/no/such/program"}, .output = {}}), std::system_error);
}

TEST(SilentPort, accepts_and_never_answers) {
  SilentPort silent;
  Process pub({.argv = {"mosquitto_pub", "-h", "127.0.0.1", "-p", std::to_string(silent.port()), "-t", "t",
                        "-m", "x"},
               .output = {}});
  EXPECT_EQ(pub.wait(300ms), std::nullopt) << "it waits for a CONNACK that never comes";
}

}  // namespace
}  // namespace fulmar::test
