// Faults P8 and P9: fork, signals, and processes that stand still or are told to end.
#include "tests/support/process.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;

std::set<int> descriptors() {
  std::set<int> all;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    all.insert(std::stoi(entry.path().filename()));
  }
  return all;
}

// --- P8 --------------------------------------------------------------------------------------------------------------

TEST(Faults, P8_every_descriptor_is_close_on_exec) {
  ScriptedBroker broker;
  const auto before = descriptors();
  Client client(config_for(broker.url(), "parent"));
  ASSERT_TRUE(client.connect(patience));
  std::size_t seen = 0;
  for (const int fd : descriptors()) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (before.contains(fd) || flags < 0) continue;  // the directory's own is closed by now
    ++seen;
    EXPECT_TRUE(flags & FD_CLOEXEC) << std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd));
  }
  EXPECT_GE(seen, 3u) << "socket, epoll, event";
}

// The child's exit code, or 128 + the signal that ended it, at the latest by itself after ten seconds.
template <typename Child>
int in_child(Child child) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(10);
    child();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class Fork : public testing::TestWithParam<const char*> {};

TEST_P(Fork, P8_the_child_sends_nothing) {
  const std::string what = GetParam();
  if (sanitized && what != "idles") GTEST_SKIP() << "sanitizers are not for children of threaded processes";
  ScriptedBroker broker;
  auto config = persistent_config(broker.url(), "parent");
  config.keepalive = 1s;
  auto client = std::make_unique<Client>(config);
  ASSERT_TRUE(client->connect(patience));
  for (int i = 0; i < 10; ++i) publish_next(*client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client->flush(patience));
  const auto code = in_child([&] {
    if (what == "idles") ::usleep(500'000);
    if (what == "publishes") {
      for (int i = 0; i < 1'000; ++i)
        (void)client->publish("child", as_bytes("child"), {.qos = QoS::exactly_once});
      ::usleep(200'000);
    }
    if (what == "destroys") client.reset();
  });
  EXPECT_EQ(code, 0);
  for (int i = 0; i < 10; ++i) publish_next(*client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client->flush(patience));
  EXPECT_EQ(broker.ledger().balance(), all_well) << "nothing of the child's, everything of the parent's";
  EXPECT_EQ(broker.packets(PacketType::disconnect), 0u);
  EXPECT_EQ(broker.malformed(), 0u);
  EXPECT_EQ(broker.connections(), 1u);
  EXPECT_TRUE(client->connected());
}

INSTANTIATE_TEST_SUITE_P(, Fork, testing::Values("idles", "publishes", "destroys"),
                         [](const auto& test) { return std::string(test.param); });

// --- P9: signals -----------------------------------------------------------------------------------------------------

std::atomic<std::size_t> signals_seen{0};
void count_signal(int) { signals_seen.fetch_add(1, std::memory_order_relaxed); }

// A handler without SA_RESTART: every blocking call of a thread that gets the signal ends with EINTR.
class Handling {
 public:
  explicit Handling(int signal) : signal_(signal) {
    signals_seen = 0;
    struct sigaction action{};
    action.sa_handler = count_signal;
    ::sigaction(signal, &action, &before_);
  }
  ~Handling() { ::sigaction(signal_, &before_, nullptr); }
  Handling(const Handling&) = delete;
  Handling& operator=(const Handling&) = delete;

 private:
  int signal_;
  struct sigaction before_{};
};

TEST(Faults, P9_writing_to_a_connection_that_is_gone_raises_no_signal) {
  const Handling handling(SIGPIPE);
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  Client client(persistent_config(proxy.url(), "writer"));
  ASSERT_TRUE(client.connect(patience));
  for (std::size_t round = 1; round <= 5; ++round) {
    for (int i = 0; i < 200; ++i) {
      if (i == 100) proxy.cut(round % 2 ? Ending::rst : Ending::fin);
      publish_next(client, broker.ledger(), QoS::exactly_once);
    }
    ASSERT_TRUE(eventually([&] { return client.metrics().connects == round + 1; }));
  }
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(signals_seen, 0u);
}

TEST(Faults, P9_a_storm_of_signals_disturbs_nothing) {
  const Handling handling(SIGALRM);
  const itimerval storm{{0, 500}, {0, 500}};  // 2,000 a second
  const itimerval calm{};
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  ::setitimer(ITIMER_REAL, &storm, nullptr);
  const auto begin = Clock::now();
  std::size_t lives = 0;
  while (since(begin) < 2s) {
    Client client(persistent_config(proxy.url(), "stormy"));
    const auto connected = client.connect(patience);
    ASSERT_TRUE(connected) << connected.error().message;
    for (int i = 0; i < 100; ++i) publish_next(client, broker.ledger(), QoS::exactly_once);
    if (++lives % 2) proxy.cut(Ending::rst);
    ASSERT_TRUE(client.flush(patience));
    const auto report = client.shutdown(5s);
    EXPECT_EQ(report.lost, 0u);
  }
  ::setitimer(ITIMER_REAL, &calm, nullptr);
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_GT(signals_seen, 100u);
}

// --- P9: processes ---------------------------------------------------------------------------------------------------

TEST(Faults, P9_a_broker_that_stands_still_is_left_and_found_again) {
  const std::chrono::seconds still(times("FULMAR_STOP_SECONDS", 3));
  Broker broker;
  auto config = persistent_config(broker.url(), "patient");
  config.keepalive = 1s;
  config.connect_timeout = 1s;
  Ledger ledger;
  Inbox grants;
  Client client(config);
  const auto subscription = *client.subscribe(
      "ledger", [&](const Message& message) { ledger.arrived(message.text()); }, {.qos = QoS::exactly_once},
      grants.granted());
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(1));
  for (int i = 0; i < 100; ++i) publish_next(client, ledger, QoS::exactly_once);
  broker.freeze();
  for (int i = 0; i < 100; ++i) publish_next(client, ledger, QoS::exactly_once);
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 1'500ms + slack));
  std::this_thread::sleep_for(still);
  EXPECT_EQ(client.metrics().connects, 1u);
  broker.thaw();
  ASSERT_TRUE(ledger.wait_for_all(patience)) << ledger.balance();
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(ledger.balance(), all_well);
  EXPECT_EQ(client.metrics().connects, 2u) << "one clean reconnect";
}

class Publisher {
 public:
  explicit Publisher(const std::string& url)
      : process_({.argv = {FULMAR_FAULT_PUBLISHER, url, "publisher"}, .output = directory_ / "output"}) {}
  Process& process() { return process_; }
  std::string output() const {
    std::ifstream file(directory_ / "output");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Says SIGTERM, and checks what the process says about its end.
  void end_and_check(Ledger& ledger, unsigned long connects) {
    const auto begin = Clock::now();
    process_.send_signal(SIGTERM);
    const auto code = process_.wait(5s + slack);
    ASSERT_TRUE(code) << "it does not end";
    EXPECT_EQ(*code, 0) << output();
    EXPECT_LT(since(begin), 5s + slack);
    unsigned long accepted = 0, acknowledged = 0, lost = 0, connected = 0;
    ASSERT_EQ(std::sscanf(output().c_str(), "accepted %lu acknowledged %lu lost %lu connects %lu", &accepted,
                          &acknowledged, &lost, &connected),
              4)
        << output();
    EXPECT_EQ(acknowledged, accepted);
    EXPECT_EQ(connected, connects);
    for (unsigned long i = 0; i < accepted; ++i) ledger.accepted();
    EXPECT_EQ(ledger.balance(), all_well) << "drained before the end";
  }

 private:
  TempDir directory_;
  Process process_;
};

TEST(Faults, P9_a_process_told_to_end_drains_first) {
  ScriptedBroker broker;
  Publisher publisher(broker.url());
  ASSERT_TRUE(eventually([&] { return broker.ledger().arrived_count() >= 100; })) << publisher.output();
  publisher.end_and_check(broker.ledger(), 1);
}

TEST(Faults, P9_a_process_that_stood_still_reconnects_once) {
  const std::chrono::seconds still(times("FULMAR_STOP_SECONDS", 3));
  ScriptedBroker broker;
  Publisher publisher(broker.url());
  ASSERT_TRUE(eventually([&] { return broker.ledger().arrived_count() >= 100; })) << publisher.output();
  publisher.process().send_signal(SIGSTOP);
  std::this_thread::sleep_for(1'500ms);  // as a server does whose client is silent for 1.5 keep-alives
  broker.with_link([](ScriptedBroker::Link& link) { link.end(); });
  std::this_thread::sleep_for(still - 1'500ms);
  publisher.process().send_signal(SIGCONT);
  const auto arrived = broker.ledger().arrived_count();
  ASSERT_TRUE(eventually([&] { return broker.ledger().arrived_count() >= arrived + 100; }));
  publisher.end_and_check(broker.ledger(), 2);
}

TEST(Faults, P9_a_process_that_stood_still_for_a_while_goes_on_where_the_server_waits) {
  ScriptedBroker broker;
  Publisher publisher(broker.url());
  ASSERT_TRUE(eventually([&] { return broker.ledger().arrived_count() >= 100; })) << publisher.output();
  publisher.process().send_signal(SIGSTOP);
  std::this_thread::sleep_for(
      2s);  // two keep-alives: its timers are late, and the answers wait in its socket
  publisher.process().send_signal(SIGCONT);
  const auto arrived = broker.ledger().arrived_count();
  ASSERT_TRUE(eventually([&] { return broker.ledger().arrived_count() >= arrived + 100; }));
  publisher.end_and_check(broker.ledger(), 1);
}

}  // namespace
}  // namespace fulmar::test
