// What PostgreSQL adds to the contract: many machines, a server that goes away, versions of the tables, hostile texts.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "queue/postgres_operations.hpp"
#include "tests/queue/postgres/server.hpp"
#include "tests/support/port.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class PostgresQueue : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = test::Postgres::missing()) GTEST_SKIP() << *why;
    url_ = server().fresh_url();
    store_ = open();
  }

  std::unique_ptr<Repository> open(const RepositoryOptions& options = {}) { return open(url_, options); }
  static std::unique_ptr<Repository> open(const std::string& url, const RepositoryOptions& options = {}) {
    auto opened = open_postgres(url, options);
    if (!opened) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
  static RepositoryOptions impatient(std::chrono::milliseconds timeout) {
    RepositoryOptions options;
    options.lock_timeout = timeout;
    return options;
  }

  static Result<std::vector<Submitted>> submit(Repository& store, std::vector<NewItem> items,
                                               Durability durability = Durability::none,
                                               std::string_view queue = "q") {
    return store.transact(Access::write, durability, [&](Operations& op) { return op.submit(queue, items); });
  }
  static Result<Claimed> claim(Repository& store, std::size_t items_max = 1, std::string request_id = {},
                               std::string_view queue = "q") {
    ClaimRequest request{.worker = "w", .items_max = items_max, .request_id = std::move(request_id)};
    return store.transact(Access::write, Durability::none,
                          [&](Operations& op) { return op.claim(queue, request); });
  }
  static Result<std::vector<Refusal>> complete(Repository& store, const std::vector<Lease>& leases,
                                               const std::string& result = {}) {
    std::vector<Completion> completions;
    for (const auto& lease : leases) completions.push_back({lease.key(), result});
    return store.transact(Access::write, Durability::commit,
                          [&](Operations& op) { return op.complete(completions); });
  }
  static Result<Item> get(Repository& store, std::string_view id) {
    return store.transact(Access::read, Durability::none, [&](Operations& op) { return op.get(id); });
  }
  static Stats stats(Repository& store, std::string_view queue = "q") {
    auto stats =
        store.transact(Access::read, Durability::none, [&](Operations& op) { return op.stats(queue); });
    if (!stats) throw std::runtime_error(stats.error().message);
    return *stats;
  }

  std::string url_;
  std::unique_ptr<Repository> store_;
};

NewItem with_id(std::string id, std::vector<ItemId> depends_on = {}) {
  NewItem item;
  item.id = std::move(id);
  item.depends_on = std::move(depends_on);
  return item;
}

void in_threads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (auto& thread : threads) thread.join();
}

// --- opening ----------------------------------------------------------------------------------------------------------

TEST(PostgresUrl, is_shown_without_its_password) {
  using postgres::shown_url;
  EXPECT_EQ(shown_url("postgresql://me:secret@host:5432/db?a=b"), "postgresql://me:***@host:5432/db?a=b");
  EXPECT_EQ(shown_url("postgresql://me:se@c/r:et@host/db"), "postgresql://me:***@host/db");
  EXPECT_EQ(shown_url("postgresql://host/db?password=secret&x=y"), "postgresql://host/db?password=***&x=y");
  EXPECT_EQ(shown_url("postgresql://me@host:5432/db"), "postgresql://me@host:5432/db");
  EXPECT_EQ(shown_url("postgresql:///db"), "postgresql:///db");
}

TEST(PostgresUrl, errors_of_all_kinds_keep_the_password_to_themselves) {
  const auto port = std::to_string(test::free_port());
  const std::vector<std::string> urls{"postgresql://me:hush-hush@127.0.0.1:" + port + "/db",
                                      "postgresql://me:hush-hush@127.0.0.1:none/db",
                                      "postgresql://me:hush-hush@[::1/db",
                                      "postgresql://me:hush-hush@127.0.0.1:" + port + "/db?nonsense=1",
                                      "postgresql://127.0.0.1:" + port + "/db?user=me&password=hush-hush",
                                      "postgresql://me:hush-hush%zz@127.0.0.1/db"};
  for (const auto& url : urls) {
    const auto opened = open_postgres(url);
    ASSERT_FALSE(opened);
    EXPECT_THAT(opened.error().code, AnyOf(Errc::connection_failed, Errc::invalid_url)) << url;
    EXPECT_THAT(opened.error().message, Not(HasSubstr("hush"))) << url;
    EXPECT_THAT(opened.error().message, Not(HasSubstr("\n")));
  }
}

TEST(PostgresUrl, a_server_that_does_not_answer_is_given_up) {
  const test::SilentPort silent;
  RepositoryOptions options;
  options.lock_timeout = 100ms;
  const auto began = steady_clock::now();
  const auto opened =
      open_postgres("postgresql://127.0.0.1:" + std::to_string(silent.port()) + "/db", options);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::timeout);
  EXPECT_LT(steady_clock::now() - began, 5s);
}

TEST_F(PostgresQueue, makes_no_tables_where_it_must_not) {
  const auto empty = server().fresh_url();
  RepositoryOptions options;
  options.create = false;
  EXPECT_EQ(open_postgres(empty, options).error().code, Errc::not_found);
  options = {};
  options.read_only = true;
  EXPECT_EQ(open_postgres(empty, options).error().code, Errc::not_found);
  EXPECT_EQ(open_postgres(server().url("options=-csearch_path%3Dnowhere")).error().code, Errc::not_found);
}

TEST_F(PostgresQueue, read_only_reads_and_does_not_write) {
  ASSERT_TRUE(submit(*store_, {with_id("a")}));
  RepositoryOptions options;
  options.read_only = true;
  const auto reader = open(options);
  EXPECT_EQ(get(*reader, "a")->id, "a");
  EXPECT_EQ(submit(*reader, {with_id("b")}).error().code, Errc::io_error);
}

TEST_F(PostgresQueue, many_who_open_a_new_database_at_once_make_its_tables_once) {
  const auto url = server().fresh_url();
  std::atomic<int> opened = 0;
  std::mutex mutex;
  std::string errors;
  in_threads(8, [&](int) {
    const auto store = open_postgres(url);
    if (store) ++opened;
    const std::scoped_lock lock(mutex);
    if (!store) errors += store.error().message + "\n";
  });
  EXPECT_EQ(opened, 8) << errors;
}

TEST_F(PostgresQueue, works_over_tcp_and_in_the_search_path_given) {
  const auto name = url_.substr(url_.rfind("%3D") + 3);
  const auto store = open(server().tcp_url("options=-csearch_path%3D" + name));
  ASSERT_TRUE(submit(*store, {with_id("over-tcp")}));
  EXPECT_EQ(get(*store_, "over-tcp")->id, "over-tcp");
}

// --- versions ---------------------------------------------------------------------------------------------------------

std::unique_ptr<postgres::Connection> connect(const std::string& url) {
  postgres::ConnectionSettings settings;
  settings.url = url;
  settings.shown = url;
  auto opened = postgres::Connection::open(settings);
  if (!opened) throw std::runtime_error(opened.error().error.message);
  return std::move(*opened);
}

const postgres::Statement next_version[] = {
    {"ALTER TABLE fulmar_queue_item ADD COLUMN colour text NOT NULL DEFAULT 'grey'", false},
    {"CREATE INDEX fulmar_queue_item_colour ON fulmar_queue_item (colour)", false}};
const postgres::Statement broken_version[] = {
    {"ALTER TABLE fulmar_queue_item ADD COLUMN colour text NOT NULL DEFAULT 'grey'", false},
    {"ALTER TABLE fulmar_queue_item ADD COLUMN colour text NOT NULL DEFAULT 'grey'", false}};

std::vector<postgres::Migration> with(postgres::Migration one_more) {
  std::vector<postgres::Migration> all(postgres::migrations().begin(), postgres::migrations().end());
  all.push_back(one_more);
  return all;
}

TEST_F(PostgresQueue, brings_older_tables_to_the_newest_version_with_all_items) {
  ASSERT_TRUE(submit(*store_, {with_id("old")}));
  const auto connection = connect(url_);
  const auto newer = postgres::migrate(*connection, url_, with(next_version));
  ASSERT_TRUE(newer) << newer.error().error.message;
  EXPECT_EQ(newer->version, static_cast<std::int64_t>(postgres::migrations().size()) + 1);
  // A process that has them open goes on; the older program does not open them any more.
  EXPECT_EQ(get(*store_, "old")->id, "old");
  const auto refused = open_postgres(url_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::incompatible);
  EXPECT_THAT(refused.error().message, HasSubstr("use a newer fulmar"));
}

TEST_F(PostgresQueue, a_migration_that_fails_has_changed_nothing) {
  const auto connection = connect(url_);
  ASSERT_FALSE(postgres::migrate(*connection, url_, with(broken_version)));
  EXPECT_TRUE(open_postgres(url_));
  EXPECT_TRUE(postgres::migrate(*connection, url_, with(next_version)));
}

// --- texts ------------------------------------------------------------------------------------------------------------

TEST_F(PostgresQueue, hostile_texts_are_only_texts) {
  const std::vector<std::string> hostile{"'; DROP TABLE fulmar_queue_item; --",
                                         "\"quoted\"",
                                         "{a,b}",
                                         "a\\b\\'c",
                                         "$1",
                                         "%s%n",
                                         "NULL",
                                         "null",
                                         "\\x00",
                                         "''",
                                         "){(",
                                         "Ünïcödé",
                                         "😀"};
  for (const auto& text : hostile) {
    NewItem item;
    item.type = text;
    item.unique_key = text;
    item.payload = R"({"t": "\u0000\"'"})";
    const auto submitted = submit(*store_, {item}, Durability::none, text);
    ASSERT_TRUE(submitted) << text << ": " << submitted.error().message;
    ClaimRequest request{.worker = text, .types = {text}, .request_id = text};
    const auto ask = [&] {
      return store_->transact(Access::write, Durability::none,
                              [&](Operations& op) { return op.claim(text, request); });
    };
    const auto claimed = ask();
    ASSERT_TRUE(claimed) << claimed.error().message;
    ASSERT_THAT(claimed->leases, SizeIs(1)) << text;
    EXPECT_EQ(claimed->leases[0].item.type, text);
    EXPECT_EQ(claimed->leases[0].item.unique_key, text);
    EXPECT_EQ(claimed->leases[0].item.payload, item.payload);
    EXPECT_EQ(claimed->leases[0].item.lease_owner, text);
    EXPECT_EQ(ask()->leases.at(0).token, claimed->leases[0].token);
    EXPECT_EQ(stats(*store_, text).by_type.at(text).processing, 1u);
  }
  const std::vector<ItemId> ids{"a,b", "{x}", "\"", "\\", "'; --", "NULL", "a\"b"};
  for (const auto& id : ids) ASSERT_TRUE(submit(*store_, {with_id(id)}));
  ASSERT_TRUE(submit(*store_, {with_id("needs-all", ids)}));
  EXPECT_EQ(get(*store_, "needs-all")->depends_on, ids);
  EXPECT_EQ(get(*store_, "needs-all")->waiting_for, ids);
}

TEST_F(PostgresQueue, any_bytes_may_be_the_error_of_an_attempt) {
  ASSERT_TRUE(submit(*store_, {with_id("a")}));
  const auto lease = claim(*store_)->leases.at(0);
  const Failure failure{lease.key(), std::string("\0\xff ok \xc3(\xed\xa0\x80 \xc3\xbc\n", 15), {}, false};
  const auto failed = store_->transact(Access::write, Durability::none,
                                       [&](Operations& op) { return op.fail({&failure, 1}); });
  ASSERT_TRUE(failed) << failed.error().message;
  const auto message = get(*store_, "a")->error_message;
  EXPECT_THAT(message, HasSubstr(" ok "));
  EXPECT_THAT(message, HasSubstr("\xc3\xbc"));
}

TEST_F(PostgresQueue, a_text_that_no_database_takes_is_refused_and_the_store_goes_on) {
  NewItem item;
  item.unique_key = "\xff\xfe";
  const auto refused = submit(*store_, {item});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_item);
  EXPECT_TRUE(submit(*store_, {with_id("next")}));
}

TEST_F(PostgresQueue, takes_and_gives_the_largest_payloads_and_batches) {
  NewItem big;
  big.payload = R"({"x": ")" + std::string(Limits::payload_bytes - 9, 'p') + "\"}";
  big.metadata = R"({"x": ")" + std::string(Limits::metadata_bytes - 9, 'm') + "\"}";
  ASSERT_TRUE(submit(*store_, std::vector<NewItem>(24, big)));
  const auto claimed = claim(*store_, 24);
  ASSERT_TRUE(claimed) << claimed.error().message;
  ASSERT_THAT(claimed->leases, SizeIs(24));
  EXPECT_EQ(claimed->leases[23].item.payload, big.payload);
  EXPECT_EQ(claimed->leases[23].item.metadata, big.metadata);
  const auto result = "\"" + std::string(Limits::result_bytes - 2, 'r') + "\"";
  const auto completed = complete(*store_, claimed->leases, result);
  ASSERT_TRUE(completed) << completed.error().message;
  EXPECT_THAT(*completed, IsEmpty());
  const auto one = get(*store_, claimed->leases[7].item.id);
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_EQ(one->result, result);

  const auto many = submit(*store_, std::vector<NewItem>(Limits::batch_items));
  ASSERT_TRUE(many) << many.error().message;
  const auto first = claim(*store_, 1000);
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_THAT(first->leases, SizeIs(1000));
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_EQ(first->leases[i].item.id, (*many)[i].id) << "in order";
}

// --- many at once -----------------------------------------------------------------------------------------------------

TEST_F(PostgresQueue, eight_processes_of_four_threads_claim_each_item_once) {
  constexpr int processes = 8, threads = 4;
  constexpr std::size_t items = test::sanitized ? 5'000 : 20'000;
  std::set<ItemId> submitted;
  for (std::size_t n = 0; n < items; n += 1000) {
    const auto batch = submit(*store_, std::vector<NewItem>(1000));
    ASSERT_TRUE(batch) << batch.error().message;
    for (const auto& s : *batch) submitted.insert(s.id);
  }
  ASSERT_THAT(submitted, SizeIs(items));
  test::TempDir directory;
  std::vector<test::Process> workers;
  for (int p = 0; p < processes; ++p) {
    workers.emplace_back(test::Process::Options{
        .argv = {WORKER_PROGRAM, url_, std::to_string(threads), (directory / std::to_string(p)).string()},
        .output = directory / "errors"});
  }
  for (auto& worker : workers) {
    const auto code = worker.wait(180s);
    std::ifstream errors(directory / "errors");
    ASSERT_EQ(code, 0) << std::string(std::istreambuf_iterator<char>(errors), {});
  }
  std::map<ItemId, int> done;
  for (int p = 0; p < processes; ++p) {
    std::ifstream file(directory / std::to_string(p));
    for (std::string id; std::getline(file, id);) ++done[id];
  }
  EXPECT_THAT(done, SizeIs(items));
  for (const auto& [id, times] : done) EXPECT_EQ(times, 1) << id;
  EXPECT_EQ(stats(*store_).counts, (Counts{.completed = items}));
}

TEST_F(PostgresQueue, never_more_than_max_size_comes_in_however_many_try) {
  Settings settings;
  settings.max_size = 40;
  ASSERT_TRUE(store_->transact(Access::write, Durability::none,
                               [&](Operations& op) { return op.set_settings("q", settings); }));
  std::atomic<int> in = 0, full = 0, wrong = 0;
  std::atomic<std::uint64_t> most = 0;
  in_threads(8, [&](int t) {
    for (int i = 0; i < 40; ++i) {
      const auto submitted = submit(*store_, std::vector<NewItem>(static_cast<std::size_t>(1 + i % 3)));
      if (submitted) {
        in += static_cast<int>(submitted->size());
      } else {
        ++(submitted.error().code == Errc::queue_full ? full : wrong);
      }
      if (t % 2 == 0) {
        const auto claimed = claim(*store_, 2);
        if (claimed) static_cast<void>(complete(*store_, claimed->leases));
      }
      const auto live = stats(*store_).counts.live();
      for (auto seen = most.load(); live > seen && !most.compare_exchange_weak(seen, live);) {
      }
    }
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(full, 0);
  EXPECT_LE(most, 40u);
  EXPECT_EQ(stats(*store_).counts.total(), static_cast<std::uint64_t>(in));
  while (submit(*store_, {NewItem{}})) {
  }
  EXPECT_EQ(stats(*store_).counts.live(), 40u) << "and not fewer";
}

TEST_F(PostgresQueue, one_of_many_with_the_same_unique_key_at_the_same_moment_is_made) {
  for (int round = 0; round < 10; ++round) {
    NewItem item;
    item.unique_key = "k" + std::to_string(round);
    std::mutex mutex;
    std::set<ItemId> ids;
    int created = 0;
    in_threads(8, [&](int t) {
      NewItem mine = item;
      if (t % 2 == 0) mine.id = "given-" + std::to_string(round) + "-" + std::to_string(t);
      const auto submitted = submit(*store_, {mine});
      const std::scoped_lock lock(mutex);
      ASSERT_TRUE(submitted) << submitted.error().message;
      ids.insert((*submitted)[0].id);
      created += (*submitted)[0].created ? 1 : 0;
    });
    EXPECT_THAT(ids, SizeIs(1));
    EXPECT_EQ(created, 1);
  }
}

TEST_F(PostgresQueue, the_same_request_at_the_same_moment_is_one_claim) {
  ASSERT_TRUE(submit(*store_, std::vector<NewItem>(20)));
  std::mutex mutex;
  std::set<std::pair<ItemId, std::uint64_t>> leases;
  in_threads(6, [&](int) {
    const auto claimed = claim(*store_, 2, "the one");
    const std::scoped_lock lock(mutex);
    ASSERT_TRUE(claimed) << claimed.error().message;
    ASSERT_THAT(claimed->leases, SizeIs(2));
    for (const auto& lease : claimed->leases) leases.emplace(lease.item.id, lease.token);
  });
  EXPECT_THAT(leases, SizeIs(2));
}

TEST_F(PostgresQueue, who_waits_for_several_goes_on_when_they_are_completed_at_the_same_moment) {
  for (int round = 0; round < 20; ++round) {
    const auto name = [&](int i) { return "r" + std::to_string(round) + "-" + std::to_string(i); };
    std::vector<NewItem> batch;
    NewItem last = with_id(name(99));
    for (int i = 0; i < 4; ++i) {
      batch.push_back(with_id(name(i)));
      last.depends_on.push_back(name(i));
    }
    batch.push_back(last);
    ASSERT_TRUE(submit(*store_, batch));
    const auto claimed = claim(*store_, 10);
    ASSERT_THAT(claimed->leases, SizeIs(4));
    std::barrier start(5);
    in_threads(5, [&](int i) {
      start.arrive_and_wait();
      if (i < 4) {
        EXPECT_THAT(complete(*store_, {claimed->leases[static_cast<std::size_t>(i)]}).value(), IsEmpty());
      } else {
        // And one who comes to wait for one of them while it is completed.
        EXPECT_TRUE(submit(*store_, {with_id(name(100), {name(0)})}));
      }
    });
    const auto next = claim(*store_, 10);
    ASSERT_THAT(next->leases, SizeIs(2)) << round;
    ASSERT_TRUE(complete(*store_, next->leases));
  }
}

TEST_F(PostgresQueue, transactions_that_lock_each_other_out_are_tried_again) {
  ASSERT_TRUE(submit(*store_, {with_id("a"), with_id("b")}));
  std::barrier both_have_one(2);
  std::atomic<int> runs = 0;
  in_threads(2, [&](int t) {
    const ItemId first = t == 0 ? "a" : "b", second = t == 0 ? "b" : "a";
    bool met = false;
    const auto done = store_->transact(Access::write, Durability::none, [&](Operations& op) -> Result<void> {
      ++runs;
      if (auto ok = op.cancel({&first, 1}); !ok) return std::unexpected(ok.error());
      if (!met) both_have_one.arrive_and_wait();
      met = true;
      if (auto ok = op.cancel({&second, 1}); !ok) return std::unexpected(ok.error());
      return {};
    });
    EXPECT_TRUE(done) << done.error().message;
  });
  EXPECT_GE(runs, 3);
  EXPECT_EQ(stats(*store_).counts.cancelled, 2u);
}

TEST_F(PostgresQueue, waits_for_the_lock_of_another_no_longer_than_told) {
  ASSERT_TRUE(submit(*store_, {with_id("a")}));
  const auto other = open(impatient(200ms));
  const ItemId id = "a";
  const auto held =
      store_->transact(Access::write_alone, Durability::none, [&](Operations& op) -> Result<void> {
        if (auto ok = op.cancel({&id, 1}); !ok) return std::unexpected(ok.error());
        const auto began = steady_clock::now();
        const auto refused = other->transact(Access::write, Durability::none,
                                             [&](Operations& theirs) { return theirs.cancel({&id, 1}); });
        EXPECT_FALSE(refused);
        EXPECT_TRUE(!refused && refused.error().code == Errc::timeout);
        EXPECT_LT(steady_clock::now() - began, 10s);
        return {};
      });
  EXPECT_TRUE(held);
  const auto after =
      other->transact(Access::write, Durability::none, [&](Operations& op) { return op.retry({&id, 1}); });
  EXPECT_TRUE(after) << after.error().message;
}

TEST_F(PostgresQueue, more_threads_than_connections_take_turns) {
  ASSERT_TRUE(submit(*store_, std::vector<NewItem>(200)));
  std::atomic<int> claimed = 0, errors = 0;
  in_threads(40, [&](int) {
    for (int i = 0; i < 5; ++i) {
      const auto leases = claim(*store_);
      if (leases) {
        claimed += static_cast<int>(leases->leases.size());
      } else {
        ++errors;
      }
    }
  });
  EXPECT_EQ(claimed, 200);
  EXPECT_EQ(errors, 0);
}

TEST_F(PostgresQueue, a_child_of_fork_is_told_to_open_its_own_and_leaves_the_parents_alone) {
  if (test::sanitized) GTEST_SKIP() << "a child of fork() in a program of several threads";
  ASSERT_TRUE(submit(*store_, {with_id("a")}));
  const pid_t child = ::fork();
  if (child == 0) {
    const auto refused = get(*store_, "a");
    const bool as_expected = !refused && refused.error().message.contains("fork()");
    store_.reset();
    ::_exit(as_expected ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(get(*store_, "a"));
}

// --- waking -----------------------------------------------------------------------------------------------------------

TEST_F(PostgresQueue, work_wakes_who_waits_on_another_connection_at_once) {
  const auto other = open();
  // The first word comes with the connection of the listener.
  auto seen = other->wake_word("q");
  other->wait("q", seen, 10s);
  std::vector<std::chrono::microseconds> latencies;
  for (int i = 0; i < 30; ++i) {
    seen = other->wake_word("q");
    std::atomic<steady_clock::time_point> woken;
    std::thread waiter([&] {
      while (other->wake_word("q") == seen) other->wait("q", seen, 10s);
      woken = steady_clock::now();
    });
    ASSERT_TRUE(submit(*store_, {NewItem{}}, Durability::commit));
    const auto committed = steady_clock::now();
    waiter.join();
    latencies.push_back(std::chrono::duration_cast<std::chrono::microseconds>(woken.load() - committed));
  }
  std::ranges::sort(latencies);
  RecordProperty("wake_p50_us", std::to_string(latencies[15].count()));
  std::printf("wake-up after the commit returned: p50 %lld us, worst %lld us\n",
              static_cast<long long>(latencies[15].count()),
              static_cast<long long>(latencies.back().count()));
  EXPECT_LT(latencies[15], 100ms) << "by notification, not by looking once a second";
}

TEST_F(PostgresQueue, everything_that_makes_work_wakes) {
  const auto other = open();
  auto seen = other->wake_word("q");
  other->wait("q", seen, 10s);
  const auto wakes = [&](const char* what, auto verb) {
    const auto before = other->wake_word("q");
    auto done = store_->transact(Access::write, Durability::none, verb);
    ASSERT_TRUE(done) << what << ": " << done.error().message;
    const auto deadline = steady_clock::now() + 10s;
    while (other->wake_word("q") == before && steady_clock::now() < deadline) other->wait("q", before, 1s);
    EXPECT_NE(other->wake_word("q"), before) << what;
  };
  const ItemId a = "a";
  const std::vector<NewItem> batch{with_id("a"), with_id("b", {"a"})};
  wakes("submit", [&](Operations& op) { return op.submit("q", batch); });
  auto lease = claim(*store_)->leases.at(0).key();
  wakes("release", [&](Operations& op) { return op.release({&lease, 1}); });
  const Failure failure{claim(*store_)->leases.at(0).key(), "x", 0s, false};
  wakes("fail", [&](Operations& op) { return op.fail({&failure, 1}); });
  ASSERT_TRUE(
      store_->transact(Access::write, Durability::none, [&](Operations& op) { return op.cancel({&a, 1}); }));
  wakes("retry", [&](Operations& op) { return op.retry({&a, 1}); });
  const Completion completion{claim(*store_)->leases.at(0).key(), {}};
  wakes("complete what another one waits for", [&](Operations& op) { return op.complete({&completion, 1}); });
  ASSERT_TRUE(store_->transact(Access::write, Durability::none,
                               [&](Operations& op) { return op.set_paused("q", true); }));
  wakes("resume", [&](Operations& op) { return op.set_paused("q", false); });
}

// --- a server that goes away ------------------------------------------------------------------------------------------

class PostgresAway : public PostgresQueue {
 protected:
  // A server of their own, whose log is written only when it is told to, and then truly.
  static void SetUpTestSuite() {
    if (test::Postgres::missing()) return;
    server_ = std::make_unique<test::Postgres>(test::Postgres::Options{
        .fsync = true, .config = {"wal_writer_delay=10s", "wal_writer_flush_after=0"}});
  }
  static void TearDownTestSuite() { server_.reset(); }
  void SetUp() override {
    if (const auto why = test::Postgres::missing()) GTEST_SKIP() << *why;
    server_->start();  // where a test has left it down
    url_ = server_->fresh_url();
    store_ = open();
  }
  void TearDown() override { store_.reset(); }
  static inline std::unique_ptr<test::Postgres> server_;
};

TEST_F(PostgresAway, in_the_middle_of_a_transaction_undoes_it_and_the_next_call_works_when_it_is_back) {
  ASSERT_TRUE(submit(*store_, {with_id("kept")}, Durability::commit));
  const auto away =
      store_->transact(Access::write_alone, Durability::commit, [&](Operations& op) -> Result<void> {
        const ClaimRequest request{.worker = "w"};
        const auto claimed = op.claim("q", request);
        EXPECT_TRUE(claimed);
        EXPECT_THAT(claimed->leases, SizeIs(1));
        server_->kill();
        const NewItem item = with_id("lost");
        if (auto ok = op.submit("q", {&item, 1}); !ok) return std::unexpected(ok.error());
        return {};
      });
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code, Errc::connection_failed);
  EXPECT_THAT(away.error().message, HasSubstr("connection"));
  const auto still_away = claim(*store_);
  ASSERT_FALSE(still_away);
  EXPECT_EQ(still_away.error().code, Errc::connection_failed);
  EXPECT_THAT(still_away.error().message, HasSubstr("try again when the server is there"));
  server_->start();
  const auto back = claim(*store_);
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_THAT(back->leases, SizeIs(1)) << "the claim was undone with the rest";
  EXPECT_EQ(back->leases[0].item.id, "kept");
  EXPECT_EQ(get(*store_, "lost").error().code, Errc::not_found);
}

TEST_F(PostgresAway, and_back_between_two_calls_is_not_noticed) {
  ASSERT_TRUE(submit(*store_, {with_id("a")}, Durability::commit));
  server_->stop();
  server_->start();
  const auto back = submit(*store_, {with_id("b")}, Durability::commit);
  EXPECT_TRUE(back) << back.error().message;
  EXPECT_EQ(stats(*store_).counts.pending, 2u);
}

TEST_F(PostgresAway, time_and_again_loses_nothing_that_was_acknowledged_and_doubles_nothing) {
  std::mutex mutex;
  std::set<ItemId> acknowledged, completed;
  std::atomic<bool> stop = false;
  std::atomic<int> failed_calls = 0, unexpected_errors = 0;
  const auto note = [&](const Error& error) {
    ++failed_calls;
    if (error.code == Errc::connection_failed || error.code == Errc::timeout) return;
    if (error.code == Errc::io_error && error.message.contains("not known")) return;
    ++unexpected_errors;
    ADD_FAILURE() << error.message;
  };
  std::vector<std::jthread> threads;
  struct Stop {  // before they are joined, also when the server does not come back
    std::atomic<bool>& stop;
    ~Stop() { stop = true; }
  } stop_at_the_end{stop};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) {
        const auto id = std::to_string(t) + "-" + std::to_string(i);
        const auto submitted = submit(*store_, {with_id(id)}, Durability::commit);
        if (submitted) {
          const std::scoped_lock lock(mutex);
          acknowledged.insert(id);
        } else {
          note(submitted.error());
          std::this_thread::sleep_for(5ms);
        }
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      const auto claimed = claim(*store_, 3);
      if (!claimed) {
        note(claimed.error());
        std::this_thread::sleep_for(5ms);
        continue;
      }
      if (claimed->leases.empty()) {
        std::this_thread::sleep_for(1ms);
        continue;
      }
      const auto refused = complete(*store_, claimed->leases);
      if (!refused) {
        note(refused.error());
        continue;
      }
      const std::scoped_lock lock(mutex);
      std::set<std::size_t> not_done;
      for (const auto& refusal : *refused) not_done.insert(refusal.index);
      for (std::size_t i = 0; i < claimed->leases.size(); ++i) {
        if (not_done.contains(i)) continue;
        EXPECT_TRUE(completed.insert(claimed->leases[i].item.id).second) << "done twice";
      }
    }
  });
  for (int round = 0; round < 4; ++round) {
    std::size_t before = 0;
    const auto count = [&] {
      const std::scoped_lock lock(mutex);
      return acknowledged.size();
    };
    before = count();
    const auto deadline = steady_clock::now() + 30s;
    while (count() < before + 100 && steady_clock::now() < deadline) std::this_thread::sleep_for(1ms);
    if (round % 2 == 0) {
      server_->kill();
    } else {
      server_->crash();
    }
    server_->start();
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_GT(failed_calls, 0) << "the server was not missed";
  EXPECT_EQ(unexpected_errors, 0);
  EXPECT_GE(acknowledged.size(), 100u);
  for (const auto& id : acknowledged) {
    const auto item = get(*store_, id);
    ASSERT_TRUE(item) << id << " was acknowledged and is gone";
  }
  for (const auto& id : completed) EXPECT_EQ(get(*store_, id)->status, Status::completed) << id;
}

TEST_F(PostgresAway, what_waits_is_let_go_and_is_woken_again_when_it_is_back) {
  auto seen = store_->wake_word("q");
  store_->wait("q", seen, 10s);
  seen = store_->wake_word("q");
  server_->crash();
  while (store_->wake_word("q") == seen) store_->wait("q", seen, 10s);
  const auto without = store_->wake_word("q");
  const auto began = steady_clock::now();
  store_->wait("q", without, 60s);
  EXPECT_LT(steady_clock::now() - began, 30s) << "nobody would tell it";
  server_->start();
  const auto deadline = steady_clock::now() + 20s;
  while (store_->wake_word("q") == without && steady_clock::now() < deadline) store_->wait("q", without, 1s);
  EXPECT_NE(store_->wake_word("q"), without);
}

TEST_F(PostgresAway, a_server_that_keeps_its_sockets_and_does_not_answer_is_given_up) {
  const auto impatient_store = open(impatient(300ms));
  ASSERT_TRUE(submit(*impatient_store, {with_id("a")}, Durability::commit));
  server_->freeze_sessions();
  const auto began = steady_clock::now();
  const auto given_up = impatient_store->transact(Access::write_alone, Durability::none,
                                                  [&](Operations& op) { return op.get("a"); });
  const auto took = steady_clock::now() - began;
  server_->thaw_sessions();
  ASSERT_FALSE(given_up);
  EXPECT_EQ(given_up.error().code, Errc::timeout) << given_up.error().message;
  EXPECT_LT(took, 10s);
  EXPECT_TRUE(get(*impatient_store, "a"));
}

TEST_F(PostgresAway, keeps_what_each_durability_promises) {
  ASSERT_TRUE(submit(*store_, {with_id("commit")}, Durability::commit));
  ASSERT_TRUE(submit(*store_, {with_id("interval")}, Durability::interval));
  // The server itself would take ten seconds.
  const auto deadline = steady_clock::now() + 8s;
  while (server_->sql("SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()") != "t" &&
         steady_clock::now() < deadline) {
    std::this_thread::sleep_for(10ms);
  }
  ASSERT_TRUE(submit(*store_, {with_id("none")}, Durability::none));
  server_->crash();
  server_->start();
  EXPECT_TRUE(get(*store_, "commit"));
  EXPECT_TRUE(get(*store_, "interval"));
  EXPECT_EQ(get(*store_, "none").error().code, Errc::not_found)
      << "it was flushed although nobody asked for it";
  ASSERT_TRUE(submit(*store_, {with_id("synced")}, Durability::none));
  ASSERT_TRUE(store_->sync());
  server_->crash();
  server_->start();
  EXPECT_TRUE(get(*store_, "synced"));
}

TEST_F(PostgresAway, a_claim_is_not_flushed_unless_the_queue_wants_it) {
  for (const bool durable : {false, true}) {
    Settings settings;
    settings.durable_claim = durable;
    ASSERT_TRUE(store_->transact(Access::write, Durability::commit,
                                 [&](Operations& op) { return op.set_settings("q", settings); }));
    const auto id = durable ? "durable" : "usual";
    ASSERT_TRUE(submit(*store_, {with_id(id)}, Durability::commit));
    const ClaimRequest request{.worker = "w", .items_max = 9};
    ASSERT_TRUE(store_->transact(Access::write, Durability::commit,
                                 [&](Operations& op) { return op.claim("q", request); }));
    server_->crash();
    server_->start();
    EXPECT_EQ(get(*store_, id)->status, durable ? Status::processing : Status::pending);
  }
}

TEST_F(PostgresAway, says_when_the_server_would_lose_everything_anyway) {
  std::string said;
  RepositoryOptions options;
  options.log = [&](LogLevel, std::string_view text) { said += text; };
  static_cast<void>(open(options));
  EXPECT_EQ(said, "");
  static_cast<void>(open(server().fresh_url(), options));
  EXPECT_THAT(said, HasSubstr("fsync = off"));
}

}  // namespace
}  // namespace fulmar::queue
