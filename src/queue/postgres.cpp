#include "queue/postgres.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "queue/postgres_operations.hpp"
#include "queue/postgres_watch.hpp"

namespace fulmar::queue {
namespace postgres {
namespace {

constexpr std::size_t connections_max = 16;
constexpr int attempts_max = 10;

class PostgresRepository final : public Repository {
 public:
  static Result<std::unique_ptr<Repository>> open(std::string_view url, const RepositoryOptions& options);
  ~PostgresRepository() override;

  std::string_view url() const override { return settings_.shown; }
  Result<void> run(Access access, Durability durability, Body body) override;
  std::uint32_t wake_word(std::string_view queue) override { return watch_->word(queue); }
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) override {
    watch_->wait(queue, seen, at_most);
  }
  void wake(std::string_view queue) override { watch_->wake(queue); }
  Result<void> sync() override;

 private:
  PostgresRepository(std::string_view url, const RepositoryOptions& options);
  Result<void> prepare(const RepositoryOptions& options);

  // A connection for the time of one transaction; it goes back unless it broke.
  class Lent {
   public:
    Lent(PostgresRepository& owner, std::unique_ptr<Connection> connection, bool used_before)
        : owner_(&owner), connection_(std::move(connection)), used_before_(used_before) {}
    Lent(Lent&&) = default;
    ~Lent() {
      if (connection_) owner_->give_back(std::move(connection_), keep_);
    }
    Connection& operator*() { return *connection_; }
    bool used_before() const { return used_before_; }
    void keep() { keep_ = true; }  // after an orderly end; without it the connection is closed

   private:
    PostgresRepository* owner_;
    std::unique_ptr<Connection> connection_;
    bool used_before_;
    bool keep_ = false;
  };
  Result<Lent> lend(bool fresh);
  void give_back(std::unique_ptr<Connection> connection, bool keep);
  Result<void> check_usable(Access access) const;

  const ConnectionSettings settings_;
  const bool read_only_;
  const std::chrono::milliseconds sync_interval_;
  const pid_t owner_pid_;
  Store store_;
  Schema schema_;
  std::unique_ptr<Watch> watch_;

  std::mutex mutex_;
  std::condition_variable given_back_;
  std::vector<std::unique_ptr<Connection>> idle_;  // the last used last
  std::size_t connections_ = 0;                    // lent and idle
};

PostgresRepository::PostgresRepository(std::string_view url, const RepositoryOptions& options)
    : settings_{.url = std::string(url),
                .shown = shown_url(url),
                .lock_timeout = std::max(options.lock_timeout, std::chrono::milliseconds(1)),
                .read_only = options.read_only},
      read_only_(options.read_only),
      sync_interval_(options.sync_interval),
      owner_pid_(::getpid()) {
  store_.shown = settings_.shown;
  store_.clock = options.clock;
  store_.seed(options.seed);
}

PostgresRepository::~PostgresRepository() {
  if (::getpid() == owner_pid_) return;
  // A child of fork(): the sessions are the parent's, which would be ended by an orderly farewell.
  if (watch_) {
    watch_->abandon();
    static_cast<void>(watch_.release());
  }
  for (auto& connection : idle_) connection->abandon();
}

Result<std::unique_ptr<Repository>> PostgresRepository::open(std::string_view url,
                                                             const RepositoryOptions& options) {
  std::unique_ptr<PostgresRepository> repository(new PostgresRepository(url, options));
  if (auto ok = repository->prepare(options); !ok) return std::unexpected(ok.error());
  return repository;
}

Result<void> PostgresRepository::prepare(const RepositoryOptions& options) {
  auto connection = lend(true);
  if (!connection) return std::unexpected(connection.error());
  auto schema = read_schema(**connection, settings_.shown);
  const auto newest = static_cast<std::int64_t>(migrations().size());
  if (schema && schema->version < newest) {
    if (schema->version == 0 && (!options.create || options.read_only)) {
      return fulmar::fail(Errc::not_found, settings_.shown +
                                               ": there are no queues in this database; open it once for "
                                               "writing to make their tables, or name another database");
    }
    if (options.read_only) {
      return fulmar::fail(Errc::incompatible, settings_.shown + ": the queue's tables are of version " +
                                                  std::to_string(schema->version) +
                                                  "; open them once for writing to bring them to version " +
                                                  std::to_string(newest));
    }
    schema = migrate(**connection, settings_.shown);
  }
  if (!schema) return std::unexpected(schema.error().error);
  schema_ = *schema;
  store_.channel = channel_name(schema_.oid);
  store_.lock_prefix = "fulmar_queue/" + std::to_string(schema_.oid) + "/";
  if ((**connection).fsync_off() && options.log) {
    options.log(LogLevel::warning, settings_.shown +
                                       ": the server runs with fsync = off: what is handed in does not "
                                       "survive its power loss");
  }
  connection->keep();
  watch_ = std::make_unique<Watch>(settings_, schema_.oid);
  return {};
}

Result<void> PostgresRepository::check_usable(Access access) const {
  if (::getpid() != owner_pid_) {
    return fulmar::fail(Errc::io_error,
                        settings_.shown +
                            ": this queue was opened by the parent process; a child of fork() "
                            "has to open its own");
  }
  if (read_only_ && access != Access::read) {
    return fulmar::fail(Errc::io_error,
                        settings_.shown + ": opened read-only; open it for writing to change it");
  }
  return {};
}

// --- connections ------------------------------------------------------------------------------------------------------

Result<PostgresRepository::Lent> PostgresRepository::lend(bool fresh) {
  std::unique_lock lock(mutex_);
  const auto deadline = std::chrono::steady_clock::now() + settings_.lock_timeout;
  for (;;) {
    while (!idle_.empty()) {
      auto connection = std::move(idle_.back());
      idle_.pop_back();
      if (!fresh && connection->usable()) return Lent(*this, std::move(connection), true);
      --connections_;  // the server has gone since, and with it the others most likely: they come here too
    }
    if (connections_ < connections_max) break;
    if (given_back_.wait_until(lock, deadline) == std::cv_status::timeout) {
      return fulmar::fail(Errc::timeout, settings_.shown + ": all " + std::to_string(connections_max) +
                                             " connections are busy for " +
                                             std::to_string(settings_.lock_timeout.count()) +
                                             " ms; use fewer threads, or shorter transactions");
    }
  }
  ++connections_;
  lock.unlock();
  auto opened = Connection::open(settings_);
  if (opened) return Lent(*this, std::move(*opened), false);
  give_back(nullptr, false);
  return std::unexpected(std::move(opened.error().error));
}

void PostgresRepository::give_back(std::unique_ptr<Connection> connection, bool keep) {
  {
    const std::scoped_lock lock(mutex_);
    if (connection && keep && !connection->broken()) {
      idle_.push_back(std::move(connection));
    } else {
      --connections_;
    }
  }
  given_back_.notify_one();
}

// --- transactions -----------------------------------------------------------------------------------------------------

Result<void> PostgresRepository::run(Access access, Durability durability, Body body) {
  if (auto ok = check_usable(access); !ok) return ok;
  bool fresh = false;
  for (int attempt = 1;; ++attempt) {
    auto connection = lend(fresh);
    if (!connection) return std::unexpected(connection.error());
    Transaction transaction(**connection, store_, access);
    PostgresOperations operations(transaction);
    auto finished = transaction.finish(body(operations), durability);
    if (!(**connection).broken()) connection->keep();
    if (finished.flush_later) watch_->flush_within(sync_interval_);
    if (finished.result || access == Access::write_alone || attempt == attempts_max) {
      return std::move(finished.result);
    }
    if (finished.connection_lost && connection->used_before() && !fresh) {
      fresh = true;  // one that had died since its last use, most likely
      continue;
    }
    if (!finished.may_be_repeated) return std::move(finished.result);
    {
      const auto done_with = std::move(*connection);
    }
    const auto ceiling_us = std::uint64_t{1'000} << std::min(attempt, 6);
    std::this_thread::sleep_for(std::chrono::microseconds(store_.random() % ceiling_us));
  }
}

Result<void> PostgresRepository::sync() {
  if (auto ok = check_usable(Access::read); !ok) return ok;
  if (read_only_) return {};
  for (bool fresh : {false, true}) {
    auto connection = lend(fresh);
    if (!connection) return std::unexpected(connection.error());
    std::vector<Call> calls;
    calls.push_back({&flush_statement, {}});
    auto flushed = (**connection).execute(std::move(calls));
    if (flushed) {
      connection->keep();
      return {};
    }
    if (!flushed.error().connection_lost || fresh) return std::unexpected(std::move(flushed.error().error));
  }
  return {};
}

}  // namespace
}  // namespace postgres

bool is_postgres_url(std::string_view url) {
  return url.starts_with("postgresql://") || url.starts_with("postgres://");
}

Result<std::unique_ptr<Repository>> open_postgres(std::string_view url, const RepositoryOptions& options) {
  return postgres::PostgresRepository::open(url, options);
}

}  // namespace fulmar::queue
