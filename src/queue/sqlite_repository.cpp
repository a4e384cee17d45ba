#include "queue/sqlite_repository.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "queue/sqlite_files.hpp"
#include "queue/sqlite_salvage.hpp"
#include "queue/sqlite_schema.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto look_at_file_every = 100ms;
constexpr std::size_t together_max = 256;  // bodies of one transaction

std::filesystem::path beside(const fs::path& path, std::string_view suffix) {
  fs::path result = path;
  result += suffix;
  return result;
}

std::uint64_t inode_of(const fs::path& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

std::string boot_id() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id.empty() ? "unknown" : id;
}

}  // namespace

SqliteRepository::Database::Database(const fs::path& path, SqliteConnection::Mode mode, const Clock& clock,
                                     RandomBits& random, Living* living, std::int64_t instance)
    : connection(path, mode),
      operations(connection, path.string(), clock, random, living, instance),
      begin(connection.handle(), mode == SqliteConnection::Mode::read_only ? "BEGIN" : "BEGIN IMMEDIATE"),
      commit(connection.handle(), "COMMIT"),
      rollback(connection.handle(), "ROLLBACK") {}

// --- opening ----------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Repository>> SqliteRepository::open(const fs::path& path,
                                                           const RepositoryOptions& options) {
  if (auto ok = check_place(path, options); !ok) return std::unexpected(ok.error());
  auto wake = WakeFile::open(beside(path, "-wake"));
  if (!wake) return std::unexpected(wake.error());
  auto lock = WriterLock::open(beside(path, "-lock"));
  if (!lock) return std::unexpected(lock.error());
  auto living = Living::open(beside(path, "-workers"));
  if (!living) return std::unexpected(living.error());
  std::unique_ptr<SqliteRepository> repository(
      new SqliteRepository(path, options, std::move(*wake), std::move(*lock), std::move(*living)));
  if (auto ok = repository->start(); !ok) return std::unexpected(ok.error());
  return repository;
}

SqliteRepository::SqliteRepository(fs::path path, const RepositoryOptions& options, WakeFile wake,
                                   WriterLock lock, Living living)
    : path_(std::move(path)),
      url_("sqlite:" + path_.string()),
      options_(options),
      clock_(options.clock ? *options.clock : system_clock()),
      process_(::getpid()),
      random_(options.seed),
      wake_(std::move(wake)),
      lock_(std::move(lock)),
      living_(std::move(living)),
      reader_random_(options.seed) {
  lock_.wait_on(wake_);
}

SqliteRepository::~SqliteRepository() {
  {
    const std::lock_guard lock(sync_mutex_);
    stopping_ = true;
  }
  interval_.notify_all();
  if (interval_thread_.joinable()) interval_thread_.join();
  // The last one to close a database makes a checkpoint: under the lock, like every other.
  if (database_ && process_ == ::getpid() && lock_.lock(options_.lock_timeout)) {
    reader_.reset();
    to_sync_.reset();
    database_.reset();
    lock_.unlock();
  }
}

void SqliteRepository::log(LogLevel level, std::string_view text) const {
  if (options_.log) options_.log(level, text);
}

Result<void> SqliteRepository::start() {
  if (auto locked = lock_.lock(options_.lock_timeout); !locked) return locked;
  auto opened = open_database();
  if (!opened && opened.error().code == Errc::damaged && options_.set_damaged_aside && !options_.read_only) {
    opened = set_aside_and_open();
  }
  lock_.unlock();
  if (!opened) return opened;
  return sync();
}

Result<void> SqliteRepository::open_database() {
  try {
    const bool is_new = !fs::exists(path_);
    if (options_.read_only) {
      SqliteConnection first(path_, SqliteConnection::Mode::read_only);
      if (auto known = schema::check(first, path_.string()); !known) return known;
      reader_ = std::make_unique<Database>(path_, SqliteConnection::Mode::read_only, clock_, reader_random_,
                                           nullptr, 0);
      return {};
    }
    SqliteConnection first(path_, SqliteConnection::Mode::create);
    if (has_damage_mark(path_)) {
      if (const auto damage = damage_of(first); !damage.empty())
        return std::unexpected(to_error({SQLITE_CORRUPT, damage}, path_));
    }
    clear_damage_mark(path_);
    // Not before it is known to be ours: this writes into it.
    if (!is_new && first.number("PRAGMA user_version") > schema::version)
      return schema::prepare(first, path_.string());
    first.use_wal();
    first.execute("BEGIN IMMEDIATE");
    if (auto prepared = schema::prepare(first, path_.string()); !prepared) {
      first.execute("ROLLBACK");
      return prepared;
    }
    if (instance_ == 0) {
      first.execute(
          "INSERT INTO meta VALUES('instance','1') ON CONFLICT(key) DO UPDATE SET value=CAST(value AS "
          "INTEGER)+1");
      instance_ = first.number("SELECT CAST(value AS INTEGER) FROM meta WHERE key='instance'");
    }
    first.execute("COMMIT");
    if (!living_.take(instance_)) {
      return fail(Errc::io_error,
                  beside(path_, "-workers").string() + ": byte " + std::to_string(instance_) +
                      " is locked by somebody else; was the database replaced by a copy? Delete this file");
    }
    auto opened = std::make_shared<Database>(path_, SqliteConnection::Mode::read_write, clock_, random_,
                                             &living_, instance_);
    opened->connection.use_wal();
    opened->begin.run();
    opened->operations.begin();
    opened->operations.machine_started(boot_id());
    opened->commit.run();
    if (is_new) sync_folder_of(path_);
    const std::lock_guard lock(sync_mutex_);
    database_ = to_sync_ = opened;
    ++committed_;
    inode_ = inode_of(path_);
    return {};
  } catch (const SqliteFailure& failure) {
    return std::unexpected(to_error(failure, path_));
  }
}

Result<void> SqliteRepository::set_aside_and_open() {
  auto aside = set_aside(path_);
  if (!aside) return std::unexpected(aside.error());
  if (auto opened = open_database(); !opened) return opened;
  try {
    const auto carried = salvage(
        *aside, clock_,
        [&](std::string_view queue, const Settings& settings, std::span<const Item> items) -> Result<void> {
          auto& database = *database_;
          database.begin.run();
          database.operations.begin();
          auto done = database.operations.set_settings(queue, settings);
          if (done) {
            auto imported = database.operations.import(queue, items, OnConflict::skip);
            if (!imported) done = std::unexpected(imported.error());
          }
          if (!done) {
            database.rollback.run();
            database.operations.rolled_back();
            return done;
          }
          database.commit.run();
          return {};
        });
    const auto lost = carried.lost == 0 ? std::string("whether there were more is not known")
                                        : "at least " + std::to_string(carried.lost) + " could not be read";
    log(LogLevel::error, path_.string() + " was damaged; it is now " + aside->string() + ". " +
                             std::to_string(carried.items) + " items were carried over, " + lost +
                             ". Keep it until you know what is missing");
  } catch (const SqliteFailure& failure) {
    return std::unexpected(to_error(failure, path_));
  }
  return {};
}

Result<void> SqliteRepository::open_anew() {
  // Before anything goes from the WAL into the database: were that half done when the power fails, only a whole WAL mends it.
  if (database_) {
    if (const int code = database_->connection.write_wal_again(); code != SQLITE_OK)
      return std::unexpected(
          to_error({code, "the disk still fails: " + std::string(sqlite3_errstr(code))}, path_));
  }
  {
    const std::lock_guard lock(sync_mutex_);
    to_sync_.reset();
  }
  database_.reset();
  if (auto opened = open_database(); !opened) return opened;
  try {
    // All that the WAL holds goes into the database, which is synced, and the WAL begins anew.
    Statement checkpoint(database_->connection.handle(), "PRAGMA wal_checkpoint(TRUNCATE)");
    if (checkpoint.first() != 0) {
      return fail(Errc::io_error,
                  path_.string() + ": a sync failed, and a long reader is in the way of starting afresh");
    }
  } catch (const SqliteFailure& failure) {
    return std::unexpected(to_error(failure, path_));
  }
  {
    const std::lock_guard lock(sync_mutex_);
    failed_ = false;
  }
  log(LogLevel::warning, path_.string() + ": syncing works again");
  return {};
}

Result<void> SqliteRepository::usable() {
  if (process_ != ::getpid()) {
    return fail(Errc::io_error,
                path_.string() + ": opened by the parent of this process; open it again after fork()");
  }
  return {};
}

// --- writing ----------------------------------------------------------------------------------------------------------

Result<void> SqliteRepository::run(Access access, Durability durability, Body body) {
  if (auto ok = usable(); !ok) return ok;
  if (access == Access::read) return read(body);
  if (options_.read_only) return fail(Errc::io_error, path_.string() + ": was opened for reading only");
  Request request{access, durability, body};
  {
    std::unique_lock line(line_mutex_);
    line_.push_back(&request);
    line_moved_.wait(line, [&] { return request.done || !led_; });
    if (!request.done) {
      led_ = true;
      line.unlock();
      lead();
      line.lock();
      led_ = false;
      line_moved_.notify_all();
    }
  }
  if (!request.result) return request.result;
  if (durability == Durability::commit) return sync_through(request.commit);
  if (durability == Durability::interval) {
    const std::lock_guard lock(sync_mutex_);
    if (!interval_thread_.joinable()) interval_thread_ = std::thread([this] { sync_now_and_then(); });
    wants_sync_ = true;
    interval_.notify_all();
  }
  return {};
}

void SqliteRepository::lead() {
  auto locked = lock_.lock(options_.lock_timeout);
  const bool have_lock = locked.has_value();
  if (have_lock) {
    bool failed = false;
    {
      const std::lock_guard lock(sync_mutex_);
      failed = failed_;
    }
    if (const auto now = std::chrono::steady_clock::now(); now >= look_at_file_ && !failed) {
      look_at_file_ = now + look_at_file_every;
      // Somebody has set it aside, or put another one in its place.
      if (inode_of(path_) != inode_ || !database_) {
        const std::lock_guard reader(reader_mutex_);
        reader_.reset();
        failed = true;
      }
    }
    if (failed) locked = open_anew();
    if (locked && !database_) locked = open_database();
  }
  // Whoever came while we waited for the lock is in it too.
  std::vector<Request*> together;
  {
    const std::lock_guard line(line_mutex_);
    std::size_t count = 0;
    while (count < line_.size() && count < together_max && line_[count]->access != Access::write_alone)
      ++count;
    if (!locked) count = line_.size();
    count = std::max<std::size_t>(count, 1);
    together.assign(line_.begin(), line_.begin() + static_cast<std::ptrdiff_t>(count));
    line_.erase(line_.begin(), line_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  std::set<std::string, std::less<>> claimable;
  if (locked) {
    run_together(together);
    claimable = database_->operations.claimable();
  } else {
    for (auto* request : together) request->result = std::unexpected(locked.error());
  }
  if (have_lock) lock_.unlock();
  for (const auto& queue : claimable) wake_.bump(queue);
  const std::lock_guard line(line_mutex_);
  for (auto* request : together) request->done = true;
}

Result<void> SqliteRepository::call(Request& request) {
  try {
    return request.body(database_->operations);
  } catch (const std::exception& error) {
    return fail(Errc::handler_failed, std::string("the transaction's function threw: ") + error.what());
  } catch (...) {
    return fail(Errc::handler_failed, "the transaction's function threw something that is no std::exception");
  }
}

void SqliteRepository::run_together(std::vector<Request*>& requests) {
  auto& database = *database_;
  // Each turn of the loop either commits, or takes one body for good out of the transaction.
  for (;;) {
    try {
      database.begin.run();
      database.operations.begin();
    } catch (const SqliteFailure& failure) {
      for (auto* request : requests) {
        if (!request->out) request->result = std::unexpected(to_error(failure, path_));
      }
      return;
    }
    bool again = false;
    for (auto* request : requests) {
      if (request->out) continue;
      const auto before = database.connection.total_changes();
      request->result = call(*request);
      if (const auto& failure = database.operations.failure()) {
        if (failure->is_damage()) mark_damage(path_);
        request->result = std::unexpected(to_error(*failure, path_));
        request->out = again = true;
        break;
      }
      if (!request->result) {
        request->out = true;
        if (database.connection.total_changes() != before) {
          again = true;
          break;
        }
      }
    }
    if (!again) return commit(requests);
    roll_back();
  }
}

void SqliteRepository::commit(std::vector<Request*>& requests) {
  auto& database = *database_;
  if (std::ranges::any_of(requests, [](auto* request) { return request->durability == Durability::commit; }))
    database.connection.grow_wal();
  try {
    database.commit.run();
  } catch (const SqliteFailure& failure) {
    roll_back();
    for (auto* request : requests) {
      if (!request->out) request->result = std::unexpected(to_error(failure, path_));
    }
    return;
  }
  const int checkpoint = database.connection.checkpoint_when_due();
  const std::lock_guard lock(sync_mutex_);
  ++committed_;
  if (checkpoint != SQLITE_OK) failed_ = true;  // which commits it hit is not known
  for (auto* request : requests) request->commit = committed_;
}

void SqliteRepository::roll_back() {
  auto& database = *database_;
  database.connection.roll_back();
  database.operations.rolled_back();
}

// --- to the medium ----------------------------------------------------------------------------------------------------

Result<void> SqliteRepository::sync_failed() const {
  return fail(Errc::io_error,
              path_.string() +
                  ": the disk could not sync; it is not known whether the change will survive a power "
                  "failure. Look at the disk, and at the item before doing it again");
}

// Other processes go on with the WAL that has a gap for us: the sooner it is closed the better. Where this fails too, the
// next one who writes tries again.
void SqliteRepository::mend_now() {
  auto nothing = [](Operations&) -> Result<void> { return {}; };
  if (auto mended = run(Access::write, Durability::none, Body(nothing)); !mended)
    log(LogLevel::error, mended.error().message);
}

Result<void> SqliteRepository::sync_through(std::uint64_t commit) {
  std::unique_lock lock(sync_mutex_);
  while (synced_ < commit) {
    if (failed_) return sync_failed();
    if (syncing_) {
      synced_some_.wait(lock);
      continue;
    }
    syncing_ = true;
    const auto target = committed_;
    const auto database = to_sync_;
    lock.unlock();
    const int code = database ? database->connection.sync_wal() : SQLITE_IOERR;
    lock.lock();
    syncing_ = false;
    if (code == SQLITE_OK) {
      synced_ = std::max(synced_, target);
      synced_some_.notify_all();
      continue;
    }
    failed_ = true;
    synced_some_.notify_all();
    lock.unlock();
    mend_now();
    lock.lock();
    return sync_failed();
  }
  return {};
}

Result<void> SqliteRepository::sync() {
  if (auto ok = usable(); !ok) return ok;
  std::uint64_t commit = 0;
  {
    const std::lock_guard lock(sync_mutex_);
    commit = committed_;
  }
  return sync_through(commit);
}

void SqliteRepository::sync_now_and_then() {
  std::unique_lock lock(sync_mutex_);
  for (;;) {
    interval_.wait(lock, [&] { return wants_sync_ || stopping_; });
    if (!wants_sync_) return;
    interval_.wait_for(lock, options_.sync_interval, [&] { return stopping_; });
    wants_sync_ = false;
    const auto commit = committed_;
    lock.unlock();
    if (auto synced = sync_through(commit); !synced) log(LogLevel::error, synced.error().message);
    lock.lock();
  }
}

// --- reading ----------------------------------------------------------------------------------------------------------

Result<void> SqliteRepository::read(Body body) {
  const std::lock_guard lock(reader_mutex_);
  try {
    if (!reader_) {
      reader_ = std::make_unique<Database>(path_, SqliteConnection::Mode::read_only, clock_, reader_random_,
                                           nullptr, 0);
      reader_->connection.execute("PRAGMA temp_store=MEMORY");
    }
    reader_->begin.run();
    // Only now a moment is chosen, and it is known whether there are changes since the last one.
    reader_->connection.number("SELECT count(*) FROM meta");
  } catch (const SqliteFailure& failure) {
    reader_.reset();
    return std::unexpected(to_error(failure, path_));
  }
  auto& operations = reader_->operations;
  operations.begin();
  Result<void> result;
  try {
    result = body(operations);
  } catch (const std::exception& error) {
    result = fail(Errc::handler_failed, std::string("the transaction's function threw: ") + error.what());
  }
  const auto failure = operations.failure();
  try {
    reader_->rollback.run();
  } catch (const SqliteFailure&) {
    reader_.reset();
  }
  if (failure) {
    if (failure->is_damage()) mark_damage(path_);
    return std::unexpected(to_error(*failure, path_));
  }
  return result;
}

}  // namespace fulmar::queue
