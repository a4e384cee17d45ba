// Every example runs against a real broker and prints what it promises.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <iterator>
#include <thread>

#include "tests/support/broker.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/port.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::StartsWith;

class Example : public testing::Test {
 protected:
  // Starts the program of that name; its output is printed when the test fails.
  Process start(const std::string& name, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), std::string(FULMAR_EXAMPLES) + "/" + name);
    return Process({.argv = std::move(arguments), .output = directory_ / "output"});
  }
  void run(const std::string& name, std::vector<std::string> arguments, int expected_exit_code = 0) {
    auto program = start(name, std::move(arguments));
    const auto exit_code = program.wait(60s);
    ASSERT_TRUE(exit_code) << name << " did not end; it said:\n" << output();
    ASSERT_EQ(*exit_code, expected_exit_code) << output();
  }
  std::string output() const {
    std::ifstream file(directory_ / "output", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDir directory_;
};

TEST_F(Example, hello_prints_what_it_published) {
  const Broker broker;
  run("hello", {broker.url()});
  EXPECT_EQ(output(), "hello/world: good morning\n");
}

TEST_F(Example, hello_takes_the_url_from_the_environment) {
  const Broker broker;
  auto program =
      Process({.argv = {"env", "MQTT_URL=" + broker.url(), std::string(FULMAR_EXAMPLES) + "/hello"},
               .output = directory_ / "output"});
  EXPECT_EQ(program.wait(60s), 0);
  EXPECT_EQ(output(), "hello/world: good morning\n");
}

TEST_F(Example, hello_says_what_is_missing_or_wrong) {
  auto without = Process({.argv = {"env", "-u", "MQTT_URL", std::string(FULMAR_EXAMPLES) + "/hello"},
                          .output = directory_ / "output"});
  EXPECT_EQ(without.wait(60s), 2);
  EXPECT_THAT(output(), StartsWith("usage: hello URL"));
  run("hello", {"http://localhost"}, 2);
  EXPECT_THAT(output(), HasSubstr("urls (MQTT_URL): invalid URL \"http://localhost\""));
}

TEST_F(Example, captures_prints_what_the_wildcards_stand_for) {
  const Broker broker;
  run("captures", {broker.url()});
  EXPECT_EQ(output(),
            "site north, room 12, temperature: 21.5\n"
            "site south, room 3, window/left: open\n");
}

TEST_F(Example, request_response_prints_an_answer_and_a_timeout) {
  const Broker broker;
  run("request_response", {broker.url()});
  EXPECT_EQ(output(), "12 squared is 144\ntwelve squared: timeout\n");
}

TEST_F(Example, coroutine_prints_an_answer_and_an_outcome) {
  const Broker broker;
  run("coroutine", {broker.url()});
  EXPECT_EQ(output(), "it is noon\nthe bell's message was acknowledged\n");
}

TEST_F(Example, own_executor_keeps_the_order_and_does_not_hold_up_others) {
  const Broker broker;
  run("own_executor", {broker.url()});
  EXPECT_EQ(output(), "quick: ping\ndone: job 1\ndone: job 2\ndone: job 3\n");
}

TEST_F(Example, client_certificate_is_let_in_with_it_and_not_without) {
  Certificates certificates(directory_.path());
  const auto server = certificates.server();
  Broker::Options options{.listeners = {Broker::Listener::tls}};
  options.certificate = server.certificate;
  options.key = server.key;
  options.clients_authority = certificates.ca_file();
  const Broker broker(options);
  const auto url = broker.url(Broker::Listener::tls);
  const auto client = certificates.client();
  run("client_certificate",
      {url, certificates.ca_file().string(), client.certificate.string(), client.key.string()});
  EXPECT_EQ(output(), "connected, and both sides know who the other is\nacknowledged 1, lost 0\n");

  const auto unknown =
      certificates.issue({.name = "unknown", .use = Certificates::Use::client, .self_signed = true});
  run("client_certificate",
      {url, certificates.ca_file().string(), unknown.certificate.string(), unknown.key.string()}, 1);
}

TEST_F(Example, health_prints_a_life_from_ready_to_shutdown) {
  const Broker broker;
  run("health", {broker.url()});
  EXPECT_THAT(output(),
              ContainsRegex("health of press-4: ..ok.:true,.event.:.ready.,.timestamp.:[0-9.]+.\n"));
  EXPECT_THAT(output(), ContainsRegex("heartbeat: ..ok.:true,.event.:.heartbeat.,.timestamp.:[0-9.]+.\n"));
  EXPECT_THAT(output(), ContainsRegex("..ok.:false,.event.:.degraded.,.err.:.the oil is low."));
  EXPECT_THAT(output(), ContainsRegex("..ok.:true,.event.:.shutdown."));
}

class GracefulShutdown : public Example, public testing::WithParamInterface<int> {};

TEST_P(GracefulShutdown, accounts_for_every_message) {
  const Broker broker;
  auto program = start("graceful_shutdown", {broker.url()});
  ASSERT_TRUE(broker.log_contains("Received PUBLISH from graceful")) << output();
  program.send_signal(GetParam());
  EXPECT_EQ(program.wait(60s), 0) << output();
  EXPECT_THAT(output(), StartsWith("connecting: "));
  EXPECT_THAT(output(), ContainsRegex("\nstopping\n"));
  EXPECT_THAT(output(), ContainsRegex("accepted ([0-9]+) = acknowledged [0-9]+ . lost 0; not accepted 0\n"));
  EXPECT_TRUE(broker.log_contains("Received DISCONNECT from graceful"));
}

INSTANTIATE_TEST_SUITE_P(, GracefulShutdown, testing::Values(SIGINT, SIGTERM),
                         [](const auto& test) { return test.param == SIGINT ? "SIGINT" : "SIGTERM"; });

TEST_F(Example, graceful_shutdown_without_a_broker_tells_what_was_lost) {
  auto program = start("graceful_shutdown", {"mqtt://127.0.0.1:" + std::to_string(free_port())});
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!output().contains("Connection refused") && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(10ms);
  program.send_signal(SIGTERM);
  EXPECT_EQ(program.wait(60s), 1) << output();
  EXPECT_THAT(output(),
              ContainsRegex("accepted ([0-9]+) = acknowledged 0 . lost [1-9][0-9]*; not accepted 0\n"));
}

TEST_F(Example, shared_runtime_runs_a_hundred_clients) {
  const Broker broker;
  run("shared_runtime", {broker.url()});
  EXPECT_EQ(output(), "100 clients, 100 messages acknowledged\n");
}

TEST_F(Example, poll_loop_drives_the_protocol_core_by_hand) {
  const Broker broker;
  run("poll_loop", {"127.0.0.1", std::to_string(broker.port())});
  EXPECT_EQ(output(), "fulmar/example: hello from a loop of our own\n");
}

}  // namespace
}  // namespace fulmar::test
