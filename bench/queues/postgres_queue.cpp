// PostgreSQL as a queue: one table, FOR UPDATE SKIP LOCKED, a partial index on what waits, completed rows deleted. Synced:
// put and complete as they come, claims in a session with synchronous_commit=off, since a lost claim is an item that waits
// again; else all of them in such a session. In one go: one statement.

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include <libpq-fe.h>

#include "work_queue.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;

struct Free {
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, Free>;
using Answer = std::unique_ptr<PGresult, Free>;

constexpr const char* schema =
    "CREATE TABLE job(id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,"
    " state smallint NOT NULL DEFAULT 0, due timestamptz NOT NULL DEFAULT now(), body text NOT NULL)"
    " WITH (autovacuum_vacuum_scale_factor = 0.01);"
    "CREATE INDEX job_waits ON job(due, id) WHERE state = 0";
constexpr const char* put_sql = "INSERT INTO job(due, body) SELECT now() + $2::interval, unnest($1::text[])";
constexpr const char* put_and_wake_sql =
    "WITH made AS (INSERT INTO job(due, body) SELECT now() + $2::interval, unnest($1::text[]))"
    " SELECT pg_notify('job', '')";
constexpr const char* claim_sql =
    "WITH taken AS (SELECT id FROM job WHERE state = 0 AND due <= now() ORDER BY due, id LIMIT $1::int"
    " FOR UPDATE SKIP LOCKED)"
    " UPDATE job SET state = 1 FROM taken WHERE job.id = taken.id RETURNING job.id, job.body";
constexpr const char* complete_sql = "DELETE FROM job WHERE id = ANY($1::bigint[])";

class Postgres final : public WorkQueue {
 public:
  explicit Postgres(bool woken) : woken_(woken) {}

  Result<void> open(const std::string& address, Safety safety) {
    if (auto opened = open(durable_, address, safety == Safety::synced ? "on" : "off"); !opened)
      return opened;
    if (auto opened = open(relaxed_, address, "off"); !opened) return opened;
    // A table that was just filled has no statistics yet; the index is right whatever they say.
    for (const char* sql : {"SET enable_seqscan = off", "SET enable_sort = off", "SET enable_hashjoin = off",
                            "SET enable_mergejoin = off"}) {
      if (auto done = run(relaxed_, sql); !done) return done;
    }
    for (const auto& [name, sql] :
         {std::pair{"put", woken_ ? put_and_wake_sql : put_sql}, {"complete", complete_sql}}) {
      if (auto made = prepare(durable_, name, sql); !made) return made;
    }
    if (auto made = prepare(relaxed_, "claim", claim_sql); !made) return made;
    return woken_ ? run(relaxed_, "LISTEN job") : Result<void>{};
  }

  Result<void> put(std::span<const std::string> items) override { return put(items, "0"); }
  Result<void> put_for_tomorrow(std::span<const std::string> items) override { return put(items, "1 day"); }

  Result<void> claim(std::size_t items_max) override {
    items_.clear();
    ids_ = "{";
    const auto limit = std::to_string(items_max);
    const char* values[] = {limit.c_str()};
    const Answer answer(PQexecPrepared(relaxed_.get(), "claim", 1, values, nullptr, nullptr, 0));
    if (PQresultStatus(answer.get()) != PGRES_TUPLES_OK) return failed(relaxed_);
    for (int row = 0; row < PQntuples(answer.get()); ++row) {
      if (row > 0) ids_ += ',';
      ids_ += PQgetvalue(answer.get(), row, 0);
      items_.emplace_back(PQgetvalue(answer.get(), row, 1), PQgetlength(answer.get(), row, 1));
    }
    ids_ += '}';
    return {};
  }

  Result<void> wait_claim(std::chrono::milliseconds at_most) override {
    const auto until = std::chrono::steady_clock::now() + at_most;
    for (;;) {
      while (auto* notice = PQnotifies(relaxed_.get()))
        PQfreemem(notice);  // the claim sees what they tell of
      if (auto claimed = claim(1); !claimed || !items_.empty()) return claimed;
      if (auto* notice = PQnotifies(relaxed_.get())) {
        PQfreemem(notice);
        continue;
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      if (left.count() <= 0) return {};
      pollfd readable{.fd = PQsocket(relaxed_.get()), .events = POLLIN, .revents = 0};
      ::poll(&readable, 1, static_cast<int>(left.count()));
      if (PQconsumeInput(relaxed_.get()) == 0) return failed(relaxed_);
    }
  }

  Result<void> complete() override {
    const char* values[] = {ids_.c_str()};
    const Answer answer(PQexecPrepared(durable_.get(), "complete", 1, values, nullptr, nullptr, 0));
    if (PQresultStatus(answer.get()) != PGRES_COMMAND_OK) return failed(durable_);
    if (std::to_string(items_.size()) != PQcmdTuples(answer.get()))
      return fail(Errc::io_error, "a claimed row is not there any more");
    return {};
  }

 private:
  static Result<void> failed(const Connection& connection) {
    return fail(Errc::io_error, fmt::format("PostgreSQL: {}", PQerrorMessage(connection.get())));
  }
  static Result<void> run(const Connection& connection, const char* sql) {
    const Answer answer(PQexec(connection.get(), sql));
    return PQresultStatus(answer.get()) == PGRES_COMMAND_OK ? Result<void>{} : failed(connection);
  }
  static Result<void> prepare(const Connection& connection, const char* name, const char* sql) {
    const Answer answer(PQprepare(connection.get(), name, sql, 0, nullptr));
    return PQresultStatus(answer.get()) == PGRES_COMMAND_OK ? Result<void>{} : failed(connection);
  }

  static Result<void> open(Connection& connection, const std::string& address, std::string_view commit) {
    connection.reset(PQconnectdb(
        fmt::format("{}&options=-csynchronous_commit%3D{}%20-cclient_min_messages%3Dwarning", address, commit)
            .c_str()));
    return PQstatus(connection.get()) == CONNECTION_OK ? Result<void>{} : failed(connection);
  }

  Result<void> put(std::span<const std::string> items, const char* delay) {
    bodies_ = "{";
    for (const auto& item : items) {
      bodies_ += bodies_.size() == 1 ? "\"" : ",\"";
      for (const char c : item) {
        if (c == '"' || c == '\\') bodies_ += '\\';
        bodies_ += c;
      }
      bodies_ += '"';
    }
    bodies_ += '}';
    const char* values[] = {bodies_.c_str(), delay};
    const Answer answer(PQexecPrepared(durable_.get(), "put", 2, values, nullptr, nullptr, 0));
    const auto status = PQresultStatus(answer.get());
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? Result<void>{} : failed(durable_);
  }

  bool woken_;
  Connection durable_, relaxed_;
  std::string ids_, bodies_;
};

// Debian keeps each version's programs in a directory of its own; the newest wins.
fs::path programs() {
  fs::path best;
  int best_version = 0;
  std::error_code none;
  for (const auto& version : fs::directory_iterator("/usr/lib/postgresql", none)) {
    const int number = std::atoi(version.path().filename().c_str());
    std::error_code missing;
    if (number <= best_version || !fs::exists(version.path() / "bin" / "initdb", missing)) continue;
    best = version.path() / "bin";
    best_version = number;
  }
  return best;
}

Result<Server> start(const fs::path& folder, Safety) {
  auto sockets = make_socket_directory();
  if (!sockets) return std::unexpected(sockets.error());
  const auto data = (folder / "data").string();
  if (auto made = run_program({.words = {(programs() / "initdb").string(), "-D", data, "-U", "fulmar", "-A",
                                         "trust", "-E", "UTF8", "--locale=C.UTF-8"},
                               .output = folder / "output",
                               .directory = folder});
      !made) {
    return std::unexpected(made.error());
  }
  // SIGQUIT: at once; nobody wants the data any more.
  const Server::Command command{
      .words = {(programs() / "postgres").string(), "-D", data, "-k", sockets->string(), "-c",
                "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap"},
      .output = folder / "output",
      .directory = folder,
      .end_signal = SIGQUIT};
  std::string host = sockets->string();
  for (std::size_t at = 0; (at = host.find('/', at)) != host.npos;) host.replace(at, 1, "%2F");
  const auto address = fmt::format("postgresql://fulmar@/postgres?host={}", host);
  auto server =
      Server::start(command, address, *sockets, [&] { return PQping(address.c_str()) == PQPING_OK; });
  if (!server) return server;
  return server;
}

Result<void> run(const std::string& address, const char* sql) {
  const Connection connection(PQconnectdb((address + "&options=-cclient_min_messages%3Dwarning").c_str()));
  const Answer answer(PQexec(connection.get(), sql));
  if (PQresultStatus(answer.get()) == PGRES_COMMAND_OK) return {};
  return fail(Errc::io_error, fmt::format("PostgreSQL: {}", PQerrorMessage(connection.get())));
}

// A database of its own, and what the former one left is written back before anything is measured.
Result<std::string> renew(const Server& server) {
  for (const char* sql : {"DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench", "CHECKPOINT"}) {
    if (auto done = run(server.address(), sql); !done) return std::unexpected(done.error());
  }
  std::string address = server.address();
  address.replace(address.find("@/postgres"), std::string_view("@/postgres").size(), "@/bench");
  if (auto made = run(address, schema); !made) return std::unexpected(made.error());
  return address;
}

Result<std::unique_ptr<WorkQueue>> connect(const std::string& address, Safety safety, bool woken) {
  auto queue = std::make_unique<Postgres>(woken);
  if (auto opened = queue->open(address, safety); !opened) return std::unexpected(opened.error());
  return queue;
}

std::string version() {
  const auto line =
      first_line_of((programs() / "postgres").string(), "--version");  // postgres (PostgreSQL) 15.20 ...
  const auto at = line.find(") ");
  return at == line.npos ? line : line.substr(at + 2, line.find(' ', at + 2) - at - 2);
}

std::string why_missing() { return programs().empty() ? "not installed: apt-get install postgresql" : ""; }

}  // namespace

QueueKind postgres_queue() {
  return {.library = "PostgreSQL",
          .missing = why_missing(),
          .version = version,
          .start = start,
          .renew = renew,
          .connect = connect,
          .note = "a plain table: no priorities, retries, leases or history"};
}

QueueKind own_postgres_queue() {
  return {.library = "fulmar postgresql",
          .missing = FULMAR_BENCH_QUEUE_POSTGRESQL ? why_missing() : "not part of this build",
          .version = version,
          .start = start,
          .renew = renew,
          .connect = own_queue().connect};
}

}  // namespace fulmar::bench
