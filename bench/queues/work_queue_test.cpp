#include "work_queue.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "scratch_folder.hpp"

namespace fulmar::bench {
namespace {

using namespace std::chrono_literals;

TEST(NumberedItem, says_its_number_and_has_its_length) {
  const auto item = numbered_item(17, 128);
  EXPECT_EQ(item.size(), 128u);
  EXPECT_EQ(number_of_item(item, 128), 17u);
  EXPECT_FALSE(number_of_item(item, 127));
  EXPECT_FALSE(number_of_item(std::string(128, 'x'), 128));
}

class WorkQueues : public testing::TestWithParam<QueueKind> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
  // The server of one test, with an empty queue.
  std::string start(Safety safety) {
    server_.reset();
    folder_.emplace(testing::TempDir());
    auto server = GetParam().start(folder_->path(), safety);
    if (!server) {
      ADD_FAILURE() << server.error().message;
      return {};
    }
    server_.emplace(std::move(*server));
    if (GetParam().renew == nullptr) return server_->address();
    const auto address = GetParam().renew(*server_);
    EXPECT_TRUE(address) << address.error().message;
    return address.value_or("");
  }
  std::vector<std::uint64_t> numbers(const WorkQueue& queue) {
    std::vector<std::uint64_t> all;
    for (const auto& item : queue.items()) all.push_back(number_of_item(item, 64).value_or(999));
    std::ranges::sort(all);
    return all;
  }

  std::optional<ScratchFolder> folder_;
  std::optional<Server> server_;
};

TEST_P(WorkQueues, give_every_item_once) {
  for (const auto safety : {Safety::synced, Safety::not_synced}) {
    const auto address = start(safety);
    const auto one = GetParam().connect(address, safety, false);
    const auto other = GetParam().connect(address, safety, false);
    ASSERT_TRUE(one) << one.error().message;
    ASSERT_TRUE(other) << other.error().message;
    std::vector<std::string> items;
    for (std::uint64_t i = 0; i < 5; ++i) items.push_back(numbered_item(i, 64));
    if (GetParam().schedules) {
      ASSERT_TRUE((*one)->put_for_tomorrow(std::vector<std::string>{numbered_item(77, 64)}));
    }
    ASSERT_TRUE((*one)->put(std::span(items).first(1)));
    ASSERT_TRUE((*other)->put(std::span(items).last(4)));
    ASSERT_TRUE((*one)->claim(2));
    ASSERT_TRUE((*other)->claim(100));
    EXPECT_EQ(numbers(**one), (std::vector<std::uint64_t>{0, 1}));
    EXPECT_EQ(numbers(**other), (std::vector<std::uint64_t>{2, 3, 4}));
    EXPECT_TRUE((*one)->complete());
    EXPECT_TRUE((*other)->complete());
    ASSERT_TRUE((*one)->claim(1));
    EXPECT_TRUE((*one)->items().empty()) << "what was completed is gone, and what is scheduled waits";
  }
}

TEST_P(WorkQueues, wake_who_waits) {
  const auto address = start(Safety::not_synced);
  const pid_t producer = ::fork();
  if (producer == 0) {
    const auto queue = GetParam().connect(address, Safety::not_synced, true);
    ::usleep(50'000);
    ::_exit(queue && (*queue)->put(std::vector<std::string>{numbered_item(5, 64)}) ? 0 : 1);
  }
  const auto queue = GetParam().connect(address, Safety::not_synced, true);
  ASSERT_TRUE(queue) << queue.error().message;
  ASSERT_TRUE((*queue)->wait_claim(10s));
  EXPECT_EQ(numbers(**queue), (std::vector<std::uint64_t>{5}));
  EXPECT_TRUE((*queue)->complete());
  ASSERT_TRUE((*queue)->wait_claim(1s));
  EXPECT_TRUE((*queue)->items().empty());
  int status = -1;
  ::waitpid(producer, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Server, that_does_not_start_says_what_it_wrote) {
  const ScratchFolder folder(testing::TempDir());
  const auto server = Server::start({.words = {"/bin/sh", "-c", "echo no licence; exit 3"},
                                     .output = folder.path() / "output",
                                     .directory = folder.path()},
                                    "", {}, [] { return false; });
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().message, "/bin/sh does not start: no licence");
}

INSTANTIATE_TEST_SUITE_P(Kinds, WorkQueues, testing::ValuesIn(queue_kinds()), [](const auto& kind) {
  auto name = kind.param.library;
  std::ranges::replace(name, ' ', '_');
  return name;
});

}  // namespace
}  // namespace fulmar::bench
