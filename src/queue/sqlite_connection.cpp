#include "queue/sqlite_connection.hpp"

#include <SQLiteCpp/Exception.h>

#include <algorithm>
#include <array>
#include <utility>

namespace fulmar::queue {
namespace {

SQLite::Database open_database(const std::filesystem::path& path, SqliteConnection::Mode mode) {
  int flags = SQLITE_OPEN_NOMUTEX;
  if (mode == SqliteConnection::Mode::read_only) flags |= SQLITE_OPEN_READONLY;
  if (mode != SqliteConnection::Mode::read_only) flags |= SQLITE_OPEN_READWRITE;
  if (mode == SqliteConnection::Mode::create) flags |= SQLITE_OPEN_CREATE;
  try {
    // Writers have a lock of their own; SQLite's own waiting is for readers while a WAL is recovered.
    return SQLite::Database(path.string(), flags, 5'000);
  } catch (const SQLite::Exception& error) {
    throw SqliteFailure{error.getExtendedErrorCode(), error.what()};
  }
}

// 32 MiB: a checkpoint costs two syncs and the pages that changed, most of them many times until then.
constexpr int wal_pages_max = 32'768;

}  // namespace

// --- Statement --------------------------------------------------------------------------------------------------------

Statement::Statement(sqlite3* database, std::string_view sql) : database_(database) {
  const int code = sqlite3_prepare_v3(database, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
  if (code != SQLITE_OK) fail(code);
}

void Statement::fail(int /*code*/) {
  SqliteFailure failure{sqlite3_extended_errcode(database_), sqlite3_errmsg(database_)};
  sqlite3_reset(handle_);
  throw failure;
}

Statement& Statement::bind(int at, std::int64_t value) {
  if (const int code = sqlite3_bind_int64(handle_, at, value); code != SQLITE_OK) fail(code);
  return *this;
}

Statement& Statement::bind(int at, std::string_view text) {
  const char* data = text.data() ? text.data() : "";
  if (const int code = sqlite3_bind_text(handle_, at, data, static_cast<int>(text.size()), SQLITE_STATIC);
      code != SQLITE_OK) {
    fail(code);
  }
  return *this;
}

Statement& Statement::bind(int at, std::optional<std::int64_t> value) {
  return value ? bind(at, *value) : bind_null(at);
}

Statement& Statement::bind_null(int at) {
  sqlite3_bind_null(handle_, at);
  return *this;
}

bool Statement::step() {
  const int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) fail(code);
  return false;
}

void Statement::run() {
  step();
  reset();
}

std::optional<std::int64_t> Statement::first() {
  const Rows rows(*this);
  if (!step() || is_null(0)) return std::nullopt;
  return number(0);
}

// --- SqliteConnection -------------------------------------------------------------------------------------------------

SqliteConnection::SqliteConnection(const std::filesystem::path& path, Mode mode)
    : database_(open_database(path, mode)) {
  sqlite3_extended_result_codes(handle(), 1);
}

void SqliteConnection::execute(const std::string& sql) {
  try {
    database_.exec(sql);
  } catch (const SQLite::Exception& error) {
    throw SqliteFailure{error.getExtendedErrorCode(), error.what()};
  }
}

std::int64_t SqliteConnection::number(const std::string& sql) {
  try {
    return database_.execAndGet(sql).getInt64();
  } catch (const SQLite::Exception& error) {
    throw SqliteFailure{error.getExtendedErrorCode(), error.what()};
  }
}

void SqliteConnection::use_wal() {
  execute(
      // Of a new file. A change touches a few rows of each table: with larger pages most of what the WAL gets is their rest.
      "PRAGMA page_size=1024;"
      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA "
      "cache_size=-65536;"
      "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=67108864");
  page_bytes_ = number("PRAGMA page_size");
  // SQLite's own checkpoints swallow the error of a sync, and the kernel tells it only once: the next sync would be believed.
  sqlite3_wal_hook(
      handle(),
      [](void* pages, sqlite3*, const char*, int in_wal) {
        *static_cast<int*>(pages) = in_wal;
        return SQLITE_OK;
      },
      wal_pages_.get());
  // The WAL stays when the last process closes: a sync of a file that grows waits for the file system's journal too.
  int keep = 1;
  sqlite3_file_control(handle(), "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
}

sqlite3_file* SqliteConnection::wal() {
  sqlite3_file* file = nullptr;
  const int code =
      sqlite3_file_control(handle(), "main", SQLITE_FCNTL_JOURNAL_POINTER, static_cast<void*>(&file));
  return code == SQLITE_OK && file && file->pMethods ? file : nullptr;
}

int SqliteConnection::sync_wal() {
  auto* file = wal();
  if (!file) return SQLITE_OK;  // nothing was written yet
  return file->pMethods->xSync(file, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
}

int SqliteConnection::write_wal_again() {
  auto* file = wal();
  sqlite3_int64 size = 0;
  if (!file) return SQLITE_OK;
  if (const int code = file->pMethods->xFileSize(file, &size); code != SQLITE_OK) return code;
  std::array<char, 65'536> piece{};  // SQLite writes less than 128 KiB at a time
  for (sqlite3_int64 at = 0; at < size;) {
    const auto length = static_cast<int>(std::min<sqlite3_int64>(size - at, std::ssize(piece)));
    if (const int code = file->pMethods->xRead(file, piece.data(), length, at); code != SQLITE_OK)
      return code;
    if (const int code = file->pMethods->xWrite(file, piece.data(), length, at); code != SQLITE_OK)
      return code;
    at += length;
  }
  return file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
}

void SqliteConnection::grow_wal() {
  constexpr std::int64_t header = 32, frame_header = 24;
  static constexpr std::array<char, 65'536> zeros{};
  const auto used = header + *wal_pages_ * (frame_header + page_bytes_);
  const auto ahead = std::clamp<std::int64_t>(used, std::ssize(zeros), std::int64_t{1} << 20);
  if (used + ahead <= wal_bytes_) return;
  auto* file = wal();
  sqlite3_int64 size = 0;
  if (!file || file->pMethods->xFileSize(file, &size) != SQLITE_OK) return;
  // Never into what is there: another program may have written since.
  while (size < used + 2 * ahead) {
    if (file->pMethods->xWrite(file, zeros.data(), static_cast<int>(zeros.size()), size) != SQLITE_OK) return;
    size += std::ssize(zeros);
  }
  wal_bytes_ = size;
}

int SqliteConnection::checkpoint_when_due() {
  if (*wal_pages_ < wal_pages_max) return SQLITE_OK;
  const int code = sqlite3_wal_checkpoint_v2(handle(), "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  // A reader may be in the way, or the disk full: the WAL has it all, and the next COMMIT tries again.
  return (code & 0xff) == SQLITE_IOERR ? code : SQLITE_OK;
}

void SqliteConnection::roll_back() {
  if (sqlite3_get_autocommit(handle()) != 0) return;
  sqlite3_exec(handle(), "ROLLBACK", nullptr, nullptr,
               nullptr);  // an error of it ends the transaction all the same
}

unsigned SqliteConnection::data_version() {
  unsigned version = 0;
  sqlite3_file_control(handle(), "main", SQLITE_FCNTL_DATA_VERSION, &version);
  return version;
}

Error to_error(const SqliteFailure& failure, const std::filesystem::path& where) {
  const auto message = where.string() + ": ";
  const auto said = failure.message + " (SQLite " + std::to_string(failure.code) + ")";
  switch (failure.primary()) {
    case SQLITE_FULL:
      return {Errc::io_error,
              message + "the disk is full; nothing of this was stored: make room and try again",
              {}};
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {Errc::damaged,
              message + "the database is damaged: " + said +
                  "; 'fulmar queue repair sqlite:" + where.string() + "' goes on with what is readable",
              {}};
    case SQLITE_READONLY: return {Errc::io_error, message + "may not be written to: " + said, {}};
    case SQLITE_CANTOPEN:
      return {
          Errc::io_error, message + "cannot be opened: " + said + "; is the folder there, and writable?", {}};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {Errc::timeout,
              message + "is locked by a program that is not Fulmar: " + said +
                  "; end its transaction and try again",
              {}};
    default: return {Errc::io_error, message + said, {}};
  }
}

}  // namespace fulmar::queue
