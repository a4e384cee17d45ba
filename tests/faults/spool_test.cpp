// What a spool promises when the process or the disk fails.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "tests/faults/fixture.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

// How often each number arrived.
class Arrivals {
 public:
  void add(std::string_view text) {
    const std::lock_guard lock(mutex_);
    ++counts_[std::strtoul(std::string(text).c_str(), nullptr, 10)];
  }
  std::map<unsigned long, int> counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<unsigned long, int> counts_;
};

std::set<unsigned long> numbers_in(const std::filesystem::path& file) {
  std::set<unsigned long> numbers;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line) && !in.eof();)
    numbers.insert(std::strtoul(line.c_str(), nullptr, 10));
  return numbers;
}

class Storing : public testing::TestWithParam<QoS> {};

// The broker stands still every now and then, so that messages are written, in flight, received or done with at the kill.
TEST_P(Storing, P1_kill_9_in_a_loop_loses_nothing_that_was_stored) {
  const auto rounds = times("FULMAR_PROCESS_KILLS", 25);
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  TempDir directory;
  const auto stored = directory / "stored";
  const auto spool = (directory / "spool").string();

  Broker broker;
  Arrivals arrivals;
  Client subscriber(persistent_config(broker.url(), "subscriber"));
  Inbox grants;
  const auto subscription = *subscriber.subscribe(
      "ledger", [&](const Message& message) { arrivals.add(message.text()); }, {.qos = QoS::exactly_once},
      grants.granted());
  ASSERT_TRUE(subscriber.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(1));

  for (std::size_t round = 1; round <= rounds; ++round) {
    const bool still = random() % 4 == 0;
    if (still) broker.freeze();
    Process storer({.argv = {FULMAR_FAULT_STORER, broker.url(), spool,
                             std::to_string(static_cast<int>(GetParam())), std::to_string(round * 1'000'000)},
                    .output = stored});
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % (round % 8 == 0 ? 600 : 150)));
    if (still && random() % 2 == 0) {
      broker.thaw();
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 30));
    }
    storer.kill();
    broker.thaw();
  }

  // What is left goes out now.
  ClientConfig config = persistent_config(broker.url(), "storer");
  config.spool_dir = spool;
  config.spool_bytes = std::uint64_t{64} << 20;
  config.durability = Durability::write_ahead;
  Client last(config);
  ASSERT_TRUE(last.connect(patience));
  ASSERT_TRUE(last.publish("ledger", "1", {.qos = GetParam()}));
  ASSERT_TRUE(eventually([&] { return last.metrics().waiting == 0 && arrivals.counts().contains(1); }))
      << last.metrics().waiting << " wait";
  EXPECT_EQ(last.metrics().dropped, 0u);

  const auto written = numbers_in(stored);
  const auto arrived = arrivals.counts();
  std::size_t lost = 0, doubled = 0;
  for (const auto number : written) lost += !arrived.contains(number);
  for (const auto& [number, count] : arrived) doubled += count > 1;
  std::printf("%zu kills; %zu stored, %zu lost; %zu arrived, %zu of them more than once\n", rounds,
              written.size(), lost, arrived.size(), doubled);
  EXPECT_GT(written.size(), rounds);
  EXPECT_EQ(lost, 0u);
  EXPECT_LE(doubled, GetParam() == QoS::exactly_once ? 0 : rounds * 1'024);
}

INSTANTIATE_TEST_SUITE_P(, Storing, testing::Values(QoS::at_least_once, QoS::exactly_once),
                         [](const auto& which) {
                           return "qos" + std::to_string(static_cast<int>(which.param));
                         });

}  // namespace
}  // namespace fulmar::test
