#include "queue/sqlite_schema.hpp"

#include <string>

namespace fulmar::queue::schema {
namespace {

// Step i takes a database from version i to i + 1.
constexpr const char* steps[] = {
    R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE queue(
  qid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0,
  max_size INTEGER, live INTEGER NOT NULL DEFAULT 0,  -- live: counted while there is a max_size
  default_max_retries INTEGER NOT NULL, lease_us INTEGER NOT NULL, backoff_min_us INTEGER NOT NULL,
  backoff_max_us INTEGER NOT NULL, keep_completed_us INTEGER, keep_failed_us INTEGER, keep_finished_max INTEGER,
  durability TEXT NOT NULL, sync_interval_us INTEGER NOT NULL, durable_claim INTEGER NOT NULL) STRICT;
CREATE TABLE type(tid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE worker(wid INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, instance INTEGER NOT NULL, UNIQUE(instance, name)) STRICT;
INSERT INTO sqlite_sequence(name, seq) VALUES('worker', 999);
CREATE TABLE item(
  id INTEGER PRIMARY KEY, qid INTEGER NOT NULL, state INTEGER NOT NULL, prio INTEGER NOT NULL, due INTEGER,
  lease INTEGER NOT NULL, token INTEGER NOT NULL, worker INTEGER NOT NULL,
  created INTEGER NOT NULL, started INTEGER NOT NULL, finished INTEGER NOT NULL,
  attempts INTEGER NOT NULL, attempts_max INTEGER NOT NULL, type INTEGER NOT NULL, ukey TEXT, ext TEXT) STRICT;
CREATE TABLE body(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, meta TEXT, deps TEXT) STRICT;
CREATE TABLE note(id INTEGER PRIMARY KEY, error TEXT, result TEXT) STRICT;
CREATE TABLE dep(on_id TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(on_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE request(worker TEXT NOT NULL, request TEXT NOT NULL, id INTEGER NOT NULL, token INTEGER NOT NULL,
  PRIMARY KEY(worker, request, id)) STRICT, WITHOUT ROWID;
CREATE INDEX item_ready ON item(qid, prio DESC, id, type) WHERE state=11;
CREATE INDEX item_due ON item(due) WHERE state=12;
CREATE INDEX item_lease ON item(lease) WHERE state=13;
CREATE INDEX item_done ON item(qid, finished) WHERE state>=14;
CREATE UNIQUE INDEX item_ukey ON item(qid, ukey) WHERE ukey IS NOT NULL AND state<14;
CREATE UNIQUE INDEX item_ext ON item(ext) WHERE ext IS NOT NULL;
)"};
static_assert(std::size(steps) == version);

}  // namespace

Status status_of(std::int64_t state) {
  switch (state) {
    case processing: return Status::processing;
    case completed: return Status::completed;
    case failed: return Status::failed;
    case cancelled: return Status::cancelled;
    default: return Status::pending;
  }
}

State state_of(Status status, bool has_to_wait, bool is_scheduled) {
  switch (status) {
    case Status::pending: return has_to_wait ? blocked : is_scheduled ? scheduled : ready;
    case Status::processing: return processing;
    case Status::completed: return completed;
    case Status::failed: return failed;
    case Status::cancelled: return cancelled;
  }
  return ready;
}

namespace {

// The version of the tables: 0 = there are none yet.
Result<std::int64_t> found_version(SqliteConnection& connection, std::string_view path) {
  const auto found = connection.number("PRAGMA user_version");
  const auto owner = connection.number("PRAGMA application_id");
  const auto tables = connection.number("SELECT count(*) FROM sqlite_schema");
  if (tables > 0 && owner != application) {
    return fail(Errc::incompatible,
                std::string(path) + ": this is a database of another program; choose another file");
  }
  if (found > version) {
    return fail(Errc::incompatible, std::string(path) +
                                        ": this queue was written by a newer Fulmar (schema " +
                                        std::to_string(found) + ", known here is " + std::to_string(version) +
                                        "); nothing was changed: update this program");
  }
  return tables == 0 ? 0 : found;
}

}  // namespace

Result<void> check(SqliteConnection& connection, std::string_view path) {
  const auto found = found_version(connection, path);
  if (!found) return std::unexpected(found.error());
  if (*found == version) return {};
  if (*found == 0) return fail(Errc::not_found, std::string(path) + ": there is no queue in it yet");
  return fail(Errc::incompatible, std::string(path) + ": this queue is of an older schema (" +
                                      std::to_string(*found) + ", this program reads " +
                                      std::to_string(version) +
                                      "); open it for writing once, which updates it");
}

Result<void> prepare(SqliteConnection& connection, std::string_view path) {
  const auto found = found_version(connection, path);
  if (!found) return std::unexpected(found.error());
  if (*found == version) return {};
  for (auto step = *found; step < version; ++step) connection.execute(steps[step]);
  connection.execute("PRAGMA user_version=" + std::to_string(version));
  connection.execute("PRAGMA application_id=" + std::to_string(application));
  return {};
}

}  // namespace fulmar::queue::schema
