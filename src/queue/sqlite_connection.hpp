#pragma once
// SqliteConnection: one open database of items, in WAL mode, and its prepared statements. What SQLite reports as an error is
// thrown as SqliteFailure; the classes above catch it at their verbs, so that nothing of it leaves the room.
//
// PRAGMA synchronous is NORMAL: a COMMIT writes the WAL and does not sync it. sync_wal() does, outside of the writer's lock,
// so that many transactions share one sync. The frames of a WAL are chained by checksums: a later one on the medium implies
// all before it. A checkpoint that begins the WAL anew has synced the WAL and the database before.
//
// Thread-safety: one thread at a time, but for sync_wal(), which any thread may call while the connection is open.

#include <SQLiteCpp/Database.h>
#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::queue {

struct SqliteFailure {
  int code{};  // extended result code
  std::string message{};
  int primary() const { return code & 0xff; }
  bool is_damage() const { return primary() == SQLITE_CORRUPT || primary() == SQLITE_NOTADB; }
};

// A prepared statement, used over and over. Bind from 1, read from 0. run() and first() leave it ready for the next use;
// after step() call reset().
class Statement {
 public:
  Statement(sqlite3* database, std::string_view sql);  // throws SqliteFailure
  ~Statement() { sqlite3_finalize(handle_); }
  Statement(Statement&& other) noexcept
      : database_(other.database_), handle_(std::exchange(other.handle_, nullptr)) {}
  Statement& operator=(Statement&&) = delete;

  Statement& bind(int at, std::int64_t value);
  Statement& bind(int at, std::string_view text);  // must live until reset(); never NULL
  Statement& bind(int at, std::optional<std::int64_t> value);
  Statement& bind_null(int at);
  Statement& bind_or_null(int at, std::string_view text) {
    return text.empty() ? bind_null(at) : bind(at, text);
  }

  bool step();  // a row is there
  void reset() { sqlite3_reset(handle_); }
  void run();  // steps to the end; no rows are expected
  std::optional<std::int64_t>
  first();  // the first column of the first row; nothing when there is no row, or NULL

  std::int64_t number(int at) const { return sqlite3_column_int64(handle_, at); }
  bool is_null(int at) const { return sqlite3_column_type(handle_, at) == SQLITE_NULL; }
  std::string_view text(int at) const {  // until the next step
    const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(handle_, at));
    return {data ? data : "", static_cast<std::size_t>(sqlite3_column_bytes(handle_, at))};
  }

 private:
  [[noreturn]] void fail(int code);

  sqlite3* database_;
  sqlite3_stmt* handle_ = nullptr;
};

// Resets a statement that rows are read from, whatever happens.
class Rows {
 public:
  explicit Rows(Statement& statement) : statement_(statement) {}
  ~Rows() { statement_.reset(); }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;
  bool next() { return statement_.step(); }
  Statement* operator->() { return &statement_; }

 private:
  Statement& statement_;
};

class SqliteConnection {
 public:
  enum class Mode : std::uint8_t { read_only, read_write, create };
  // Opens, without looking inside. Throws SqliteFailure.
  SqliteConnection(const std::filesystem::path& path, Mode mode);

  sqlite3* handle() const { return database_.getHandle(); }
  void execute(const std::string& sql);         // throws SqliteFailure
  std::int64_t number(const std::string& sql);  // of its only row and column
  // WAL mode, and how much of it. Needs the writer's lock when the database is new.
  void use_wal();

  // Any thread. The result code of SQLite.
  int sync_wal();
  // After a sync that failed, with the writer's lock: what the kernel could not write it counts as written, and only what is
  // written once more gets another chance. The result code of SQLite.
  int write_wal_again();
  // Within a transaction that writes and will be synced: a sync of a file that grows waits for the file system's journal too,
  // so that the WAL grows ahead, by zeros, which SQLite takes for frames of nobody. Nothing happens where there is no room.
  void grow_wal();
  // With the writer's lock, after a COMMIT. The result code of SQLite: an error is one of the medium, not of its room.
  int checkpoint_when_due();
  // Another number when another connection has changed the database since the last call. Within a transaction.
  unsigned data_version();
  std::int64_t total_changes() const { return sqlite3_total_changes64(handle()); }
  int changes() const { return sqlite3_changes(handle()); }
  // Of the transaction that is open, if any: SQLite may have rolled it back already.
  void roll_back();

 private:
  sqlite3_file* wal();  // null: nothing was written yet

  SQLite::Database database_;
  std::unique_ptr<int> wal_pages_ = std::make_unique<int>(0);  // as of the latest COMMIT of this connection
  std::int64_t page_bytes_ = 0;
  std::int64_t wal_bytes_ = 0;  // at least so many when it was looked at
};

// For users. `where` is the path.
Error to_error(const SqliteFailure& failure, const std::filesystem::path& where);

}  // namespace fulmar::queue
