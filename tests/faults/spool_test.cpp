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

class Storing : public testing::TestWithParam<QoS> {
 protected:
  void SetUp() override {
    subscription_ = *subscriber_.subscribe(
        "ledger", [this](const Message& message) { arrivals_.add(message.text()); },
        {.qos = QoS::exactly_once}, grants_.granted());
    ASSERT_TRUE(subscriber_.connect(patience));
    ASSERT_TRUE(grants_.grants().wait_for(1));
  }

  // A process that publishes numbers from `first` on, and writes down which are stored. `before`: words before its own.
  Process storer(std::size_t first, std::vector<std::string> before = {}) {
    for (const auto& word : {std::string(FULMAR_FAULT_STORER), broker_.url(), spool_,
                             std::to_string(static_cast<int>(GetParam())), std::to_string(first)}) {
      before.push_back(word);
    }
    return Process({.argv = std::move(before), .output = stored_});
  }

  // Sends what is left, and looks at the books.
  void settle(std::size_t kills) {
    ClientConfig config = persistent_config(broker_.url(), "storer");
    config.spool_dir = spool_;
    config.spool_bytes = std::uint64_t{64} << 20;
    config.durability = Durability::write_ahead;
    Client last(config);
    ASSERT_TRUE(last.connect(patience));
    ASSERT_TRUE(last.publish("ledger", "1", {.qos = GetParam()}));
    // However much there is, as long as it goes on.
    const auto done = [&] { return last.metrics().waiting == 0 && arrivals_.counts().contains(1); };
    for (std::uint64_t before = 0; !eventually(done); before = last.metrics().acknowledged) {
      ASSERT_GT(last.metrics().acknowledged, before) << last.metrics().waiting << " wait";
    }
    EXPECT_EQ(last.metrics().dropped, 0u);

    const auto written = numbers_in(stored_);
    const auto arrived = arrivals_.counts();
    std::size_t lost = 0, doubled = 0;
    for (const auto number : written) lost += !arrived.contains(number);
    for (const auto& [number, count] : arrived) doubled += count > 1;
    std::printf("%zu kills; %zu stored, %zu lost; %zu arrived, %zu of them more than once\n", kills,
                written.size(), lost, arrived.size(), doubled);
    EXPECT_GT(written.size(), kills);
    EXPECT_EQ(lost, 0u);
    EXPECT_LE(doubled, GetParam() == QoS::exactly_once ? 0 : kills * 1'024);
  }

  TempDir directory_;
  const std::filesystem::path stored_ = directory_ / "stored";
  const std::string spool_ = (directory_ / "spool").string();
  Broker broker_;
  Arrivals arrivals_;
  Client subscriber_{persistent_config(broker_.url(), "subscriber")};
  Inbox grants_;
  std::optional<Subscription> subscription_;
};

// The broker stands still every now and then, so that messages are written, in flight, received or done with at the kill.
TEST_P(Storing, P1_kill_9_in_a_loop_loses_nothing_that_was_stored) {
  const auto rounds = times("FULMAR_PROCESS_KILLS", 25);
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::minstd_rand random(seed);
  for (std::size_t round = 1; round <= rounds; ++round) {
    const bool still = random() % 4 == 0;
    if (still) broker_.freeze();
    auto process = storer(round * 1'000'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % (round % 8 == 0 ? 600 : 150)));
    if (still && random() % 2 == 0) {
      broker_.thaw();
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 30));
    }
    process.kill();
    broker_.thaw();
  }
  settle(rounds);
}

void kill_child_of(pid_t tracer) {
  const auto pid = std::to_string(tracer);
  std::ifstream children("/proc/" + pid + "/task/" + pid + "/children");
  pid_t traced = 0;
  if (children >> traced) ::kill(traced, SIGKILL);
}

// strace kills the process at the first, second, ... of each system call that changes a file.
TEST_P(Storing, P2_kill_at_every_system_call_loses_nothing_that_was_stored) {
  if (sanitized) GTEST_SKIP() << "a sanitizer's process cannot be traced";
  try {
    if (run({.argv = {"strace", "-o", "/dev/null", "true"}, .output = {}}, patience) != 0)
      GTEST_SKIP() << "strace may not trace here";
  } catch (const std::exception& error) {
    GTEST_SKIP() << "no strace: " << error.what();
  }
  const auto depth = times("FULMAR_CALL_KILLS", 3);
  std::size_t kills = 0, runs = 0;
  for (const std::string call :
       {"pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "fallocate", "openat", "mkdir"}) {
    for (std::size_t number = 1; number <= depth; ++number) {
      auto process =
          storer(++runs * 1'000'000, {"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
                                      "inject=" + call + ":signal=KILL:when=" + std::to_string(number)});
      if (process.wait(300ms)) {
        ++kills;
        continue;
      }
      // Such a call is not made so often. strace ends with the process, which it may not even have begun.
      ASSERT_TRUE(eventually([&] {
        kill_child_of(process.pid());
        return process.wait(10ms).has_value();
      }));
    }
  }
  settle(runs);  // each ended in a kill, by strace or by us
  EXPECT_GE(kills, 3 * depth);
}

INSTANTIATE_TEST_SUITE_P(, Storing, testing::Values(QoS::at_least_once, QoS::exactly_once),
                         [](const auto& which) {
                           return "qos" + std::to_string(static_cast<int>(which.param));
                         });

// A file system of its own, that is small.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size) {
    try {
      mounted_ =
          run({.argv = {"mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", directory_.path().string()},
               .output = {}},
              patience) == 0;
    } catch (const std::exception&) {
      mounted_ = false;
    }
  }
  ~SmallDisk() {
    if (mounted_) run({.argv = {"umount", "-l", directory_.path().string()}, .output = {}}, patience);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  std::string folder() const { return (directory_ / "spool").string(); }

 private:
  TempDir directory_;
  bool mounted_ = false;
};

TEST(Faults, P4_a_full_disk_loses_nothing_and_works_again_once_there_is_room) {
  SmallDisk disk("3m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  Broker broker;
  Ledger ledger;
  Client subscriber(persistent_config(broker.url(), "subscriber"));
  Inbox grants;
  const auto subscription = *subscriber.subscribe(
      "ledger", [&](const Message& message) { ledger.arrived(message.text()); }, {.qos = QoS::exactly_once},
      grants.granted());
  ASSERT_TRUE(subscriber.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(1));

  auto config = persistent_config(broker.url(), "publisher");
  config.spool_dir = disk.folder();
  config.spool_bytes = std::uint64_t{16} << 20;
  config.overflow = Overflow::reject;
  config.durability = Durability::write_ahead;
  Client client(config);
  const std::string filling(300, ' ');
  Outcomes outcomes;
  const auto publish = [&](int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(
          client.publish("ledger", as_bytes(ledger.next()), {.qos = QoS::at_least_once}, outcomes.handler()));
      ledger.accepted();
      ASSERT_TRUE(client.publish("filling", as_bytes(filling), {.qos = QoS::at_least_once}));
    }
  };
  ASSERT_TRUE(client.connect(patience));
  for (int round = 0; round < 2; ++round) {
    broker.freeze();
    publish(9'000);  // more than the disk takes, less than the outbox and the disk do
    EXPECT_FALSE(client.flush(500ms)) << "not all of it can be stored";
    EXPECT_GT(client.metrics().spooled, 0u);
    broker.thaw();
    ASSERT_TRUE(ledger.wait_for_all(patience));
    ASSERT_TRUE(eventually([&] { return client.metrics().waiting == 0; })) << client.metrics().waiting;
  }
  EXPECT_EQ(ledger.balance(), all_well);
  EXPECT_EQ(client.metrics().dropped, 0u);
  EXPECT_EQ(outcomes.count(Delivery::Outcome::stored) + outcomes.count(Delivery::Outcome::acknowledged),
            18'000u);
  broker.kill();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, patience));
  publish(100);
  EXPECT_TRUE(client.flush(patience)) << "there is room again";
}

}  // namespace
}  // namespace fulmar::test
