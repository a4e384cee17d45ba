// `fulmar queue` and fulmar::Queue on a real PostgreSQL server: a life from the first item to the export, a worker that is
// killed, and a server that goes away in mid claim.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include <boost/json.hpp>

#include "cli/command_rig.hpp"
#include "fulmar/queue.hpp"
#include "tests/queue/postgres/server.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;
namespace json = boost::json;

class QueueOnPostgres : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = test::Postgres::missing()) GTEST_SKIP() << *why;
    url_ = queue::server().fresh_url();
    setenv("FULMAR_QUEUE", url_.c_str(), 1);
  }
  static void TearDownTestSuite() {
    if (!test::Postgres::missing()) queue::server().start();
  }

  static Words argv_of(const Words& words) {
    Words argv{FULMAR_PROGRAM, "queue"};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  }
  Running start(const std::string& name, const Words& words) const {
    return Running(directory_, name, argv_of(words));
  }
  Ran run(const Words& words) { return start("run" + std::to_string(++runs_), words).finish(); }
  std::string ok(const Words& words) {
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 0) << ran.err;
    auto text = ran.out;
    while (text.ends_with('\n')) text.pop_back();
    return text;
  }
  std::int64_t count(std::string_view state) {
    return json::parse(ok({"stats", "--json"})).as_object().at(state).as_int64();
  }

  test::TempDir directory_;
  std::string url_;
  int runs_ = 0;
};

TEST_F(QueueOnPostgres, items_are_added_claimed_completed_counted_and_exported) {
  EXPECT_EQ(run({"stats"}).code, 11) << "there are no tables yet";
  const auto low = ok({"add", R"({"n":1})", "--type", "resize", "--priority", "low"});
  const auto high = ok({"add", R"({"n":2})", "--type", "resize", "--priority", "high"});
  ok({"add", R"({"n":3})", "--in", "1h"});
  EXPECT_EQ(count("pending"), 3);
  EXPECT_EQ(count("scheduled"), 1);

  const auto claimed = json::parse(ok({"next"})).as_object();
  EXPECT_EQ(claimed.at("id").as_string(), high);
  EXPECT_EQ(run({"complete", high}).code, 13) << "the lease is what completes";
  ok({"complete", std::string(claimed.at("lease").as_string()), "--result", R"({"bytes":4711})"});
  EXPECT_EQ(run({"cancel", high}).code, 12);
  EXPECT_EQ(run({"show", "NOBODY"}).code, 11);

  const auto worked = run({"work", "--until-empty", "--", "sh", "-c", "exit 65"});
  EXPECT_EQ(worked.code, 0) << worked.err;
  EXPECT_EQ(count("failed"), 1);
  EXPECT_THAT(ok({"list", "--status", "failed"}), AllOf(HasSubstr(low), HasSubstr("exit code 65")));
  EXPECT_EQ(ok({"retry", "--all"}), "1 item is pending again");

  const auto path = (directory_ / "queue.yaml").string();
  EXPECT_THAT(ok({"export", "--output", path}), StartsWith("3 items written"));
  EXPECT_THAT(content_of(path), AllOf(HasSubstr("id: " + high), HasSubstr("status: completed")));
  EXPECT_THAT(ok({"import", path, "--on-conflict", "replace"}), HasSubstr("0 added, 3 replaced"));
  EXPECT_THAT(ok({"migrate", url_, "sqlite:" + (directory_ / "copy.db").string()}),
              HasSubstr("3 items in 1 queue copied and found again"));
}

TEST_F(QueueOnPostgres, the_item_of_a_killed_worker_comes_back_when_its_lease_is_over) {
  ok({"add", "{}"});
  auto worker = start("worker", {"work", "--lease", "1s", "--", "sleep", "60"});
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  worker.signal(SIGKILL);
  EXPECT_EQ(worker.finish().code, 128 + SIGKILL);
  const auto again = json::parse(ok({"next", "--wait", "15s"})).as_object();
  EXPECT_EQ(again.at("retry_count").as_int64(), 1);
  EXPECT_EQ(again.at("error_message").as_string(), "lease expired");
}

TEST_F(QueueOnPostgres, a_server_that_goes_away_in_mid_claim_is_told_and_nothing_is_lost) {
  const auto id = ok({"add", R"({"n":1})"});
  ok({"settings", "durability=commit"});
  auto opened = Queue::open(url_);
  ASSERT_TRUE(opened) << opened.error().message;
  auto& queue = *opened;
  // The server goes between the claim and its commit.
  const auto claimed = queue.with_transaction([&](Queue& transaction) -> Result<void> {
    const auto leases = transaction.claim({});
    EXPECT_TRUE(leases && leases->size() == 1);
    queue::server().crash();
    return transaction.complete(leases->front().key());
  });
  ASSERT_FALSE(claimed);
  EXPECT_EQ(claimed.error().code, Errc::connection_failed) << claimed.error().message;
  const auto refused = run({"next"});
  EXPECT_EQ(refused.code, 17);
  EXPECT_THAT(refused.err,
              AllOf(StartsWith("Error: postgresql://"), HasSubstr("try again when the server is there")));
  EXPECT_EQ(std::ranges::count(refused.err, '\n'), 1) << refused.err;

  queue::server().start();
  const auto back = queue.claim({});
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_THAT(*back, SizeIs(1)) << "the claim was undone with its transaction";
  EXPECT_EQ(back->front().item.id, id);
  EXPECT_TRUE(queue.complete(back->front().key()));
  EXPECT_EQ(count("completed"), 1);
}

TEST_F(QueueOnPostgres, a_worker_goes_on_when_the_server_is_back) {
  for (int i = 0; i < 5; ++i) ok({"add", "{}"});
  const auto log = (directory_ / "log").string();
  const auto go = (directory_ / "go").string();
  auto worker = start("worker", {"work", "--lock-timeout", "2s", "--", "sh", "-c",
                                 "while [ ! -e " + go + " ]; do sleep 0.02; done; echo done >>" + log});
  ASSERT_TRUE(eventually([&] { return count("processing") == 1; }));
  queue::server().crash();
  std::ofstream(go) << "go\n";
  ASSERT_TRUE(eventually([&] { return worker.err().contains("connection"); })) << worker.err();
  queue::server().start();
  ASSERT_TRUE(eventually([&] { return count("completed") == 5; })) << worker.err();
  worker.signal(SIGTERM);
  EXPECT_EQ(worker.finish().code, 0);
}

TEST_F(QueueOnPostgres, tables_of_a_newer_version_are_left_alone_also_by_who_reads) {
  ok({"add", "{}"});
  ok({"add", "{}"});
  const auto path = url_.substr(url_.find("search_path"));
  const auto schema =
      path.substr(path.find("%3D") == std::string::npos ? path.find('=') + 1 : path.find("%3D") + 3);
  queue::server().sql("UPDATE " + schema + ".fulmar_queue_version SET version = 99");
  for (const Words& words : {Words{"list"}, Words{"stats"}, Words{"next"}, Words{"add", "{}"}}) {
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 18) << words.front();
    EXPECT_THAT(ran.err, HasSubstr("version 99, and this program knows 1 to")) << words.front();
  }
}

}  // namespace
}  // namespace fulmar::cli
