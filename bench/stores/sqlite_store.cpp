// SQLite as a queue: one table, its write-ahead log, one transaction for each append. synchronous=NORMAL writes a commit to
// the log and does not sync it; `synced` is the log's own xSync then, which is what synchronous=FULL does at each commit.

#include <fmt/format.h>
#include <sqlite3.h>

#include "store.hpp"

namespace fulmar::bench {
namespace {

class SqliteStore final : public Store {
 public:
  SqliteStore() = default;
  SqliteStore(const SqliteStore&) = delete;
  SqliteStore& operator=(const SqliteStore&) = delete;
  ~SqliteStore() override {
    for (auto* statement : {insert_, select_, remove_}) sqlite3_finalize(statement);
    sqlite3_close(db_);
  }

  Result<void> open(const std::filesystem::path& directory) override {
    if (sqlite3_open((directory / "queue.db").c_str(), &db_) != SQLITE_OK) return failed();
    if (auto made = execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                            "CREATE TABLE entry(id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT");
        !made) {
      return made;
    }
    for (const auto& [statement, sql] : {std::pair{&insert_, "INSERT INTO entry(body) VALUES(?)"},
                                         {&select_, "SELECT id, body FROM entry ORDER BY id LIMIT ?"},
                                         {&remove_, "DELETE FROM entry WHERE id <= ?"}}) {
      if (sqlite3_prepare_v2(db_, sql, -1, statement, nullptr) != SQLITE_OK) return failed();
    }
    return {};
  }

  Result<void> append(std::size_t count, Reach reach) override {
    if (auto begun = begin(); !begun) return begun;
    for (std::size_t i = 0; i < count; ++i) {
      const StoredEntry entry = numbered_entry(appended_++);
      sqlite3_bind_blob(insert_, 1, entry.data(), static_cast<int>(entry.size()), SQLITE_STATIC);
      const int stepped = sqlite3_step(insert_);
      sqlite3_reset(insert_);
      if (stepped != SQLITE_DONE) return failed();
    }
    if (reach == Reach::gathered) return {};
    return commit(reach == Reach::synced);
  }

  Result<void> sync() override { return commit(true); }

  Result<std::size_t> drain(std::size_t count, Reach reach) override {
    if (auto begun = begin(); !begun) return std::unexpected(begun.error());
    std::size_t drained = 0;
    sqlite3_int64 last = 0;
    sqlite3_bind_int64(select_, 1, static_cast<sqlite3_int64>(count));
    while (sqlite3_step(select_) == SQLITE_ROW) {
      last = sqlite3_column_int64(select_, 0);
      const auto* body = static_cast<const std::byte*>(sqlite3_column_blob(select_, 1));
      const auto size = static_cast<std::size_t>(sqlite3_column_bytes(select_, 1));
      if (auto sound = check_entry({body, size}, drained_++); !sound) return std::unexpected(sound.error());
      ++drained;
    }
    sqlite3_reset(select_);
    sqlite3_bind_int64(remove_, 1, last);
    const int removed = sqlite3_step(remove_);
    sqlite3_reset(remove_);
    if (removed != SQLITE_DONE) return std::unexpected(failed().error());
    if (auto done = commit(reach == Reach::synced); !done) return std::unexpected(done.error());
    return drained;
  }

 private:
  Result<void> failed() const { return fail(Errc::io_error, fmt::format("SQLite: {}", sqlite3_errmsg(db_))); }

  Result<void> execute(const char* sql) {
    return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? Result<void>{} : failed();
  }

  Result<void> begin() {
    if (within_) return {};
    within_ = true;
    return execute("BEGIN IMMEDIATE");
  }

  Result<void> commit(bool synced) {
    if (within_) {
      within_ = false;
      if (auto done = execute("COMMIT"); !done) return done;
    }
    if (!synced) return {};
    sqlite3_file* log = nullptr;
    if (sqlite3_file_control(db_, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) != SQLITE_OK || !log ||
        !log->pMethods || log->pMethods->xSync(log, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY) != SQLITE_OK) {
      return fail(Errc::io_error, "SQLite: its log cannot be synced");
    }
    return {};
  }

  sqlite3* db_ = nullptr;
  sqlite3_stmt *insert_ = nullptr, *select_ = nullptr, *remove_ = nullptr;
  bool within_ = false;  // a transaction
  std::uint64_t appended_ = 0, drained_ = 0;
};

}  // namespace

StoreKind sqlite_store() {
  return {.library = "SQLite WAL", .version = sqlite3_libversion(), .make = []() -> std::unique_ptr<Store> {
            return std::make_unique<SqliteStore>();
          }};
}

}  // namespace fulmar::bench
