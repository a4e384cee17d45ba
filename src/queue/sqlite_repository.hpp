#pragma once
// SqliteRepository: a store in one SQLite database, for one machine and many processes. Beside the database PATH there are
//   PATH-wal, PATH-shm   SQLite's own
//   PATH-lock            the writer's lock (writer_lock.hpp)
//   PATH-workers         which processes live (living.hpp)
//   PATH-wake            who is woken (wake_file.hpp)
//
// How a change gets to the medium:  threads of a process put their bodies in a line; the first of them takes the writer's
// lock, runs all that is in line in one transaction, commits, and gives the lock free. Then, outside of the lock, who was
// promised Durability::commit waits for a sync of the WAL that began after the commit; while one runs, others gather for the
// next. So threads share transactions and syncs, and processes share syncs, as far as the disk lets them.
//
// Invariants
//   1. One write transaction at a time, in all processes, and checkpoints are made in it only: SQLite never says busy but
//      because of another program's transaction.
//   2. A body that fails has changed nothing, and does not undo others': when it had written, the transaction is rolled back
//      and the others' bodies run again.
//   3. After a sync has failed nothing is acknowledged until the database has been opened anew and what it holds was written
//      to a fresh WAL: pages that the kernel failed to write are not trusted again.
//   4. A database that is damaged is moved to PATH.bad-TIME, and what can be read of it is carried over to a new one.
//
// Thread-safety: as Repository.

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "queue/sqlite_operations.hpp"
#include "queue/writer_lock.hpp"

namespace fulmar::queue {

class SqliteRepository final : public Repository {
 public:
  static Result<std::unique_ptr<Repository>> open(const std::filesystem::path& path,
                                                  const RepositoryOptions& options);
  ~SqliteRepository() override;

  std::string_view url() const override { return url_; }
  Result<void> run(Access access, Durability durability, Body body) override;
  std::uint32_t wake_word(std::string_view queue) override { return wake_.word(queue); }
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) override {
    wake_.wait(queue, seen, at_most);
  }
  void wake(std::string_view queue) override { wake_.bump(queue); }
  Result<void> sync() override;

 private:
  struct Request {
    Access access;
    Durability durability;
    Body body;
    Result<void> result{};
    std::uint64_t commit = 0;  // the number of its transaction
    bool out = false;          // not to be run (again): its result is final
    bool done = false;
  };
  // An open database and what belongs to it.
  struct Database {
    Database(const std::filesystem::path& path, SqliteConnection::Mode mode, const Clock& clock,
             RandomBits& random, Living* living, std::int64_t instance);
    SqliteConnection connection;
    SqliteOperations operations;
    Statement begin, commit, rollback;
  };

  SqliteRepository(std::filesystem::path path, const RepositoryOptions& options, WakeFile wake,
                   WriterLock lock, Living living);
  Result<void> start();
  Result<void> open_database();       // with the writer's lock
  Result<void> set_aside_and_open();  // with the writer's lock
  Result<void> open_anew();           // after a failed sync, with the writer's lock
  Result<void> usable();              // is this still the process and the file that were opened?
  void log(LogLevel level, std::string_view text) const;

  Result<void> read(Body body);
  void lead();
  void run_together(std::vector<Request*>& requests);
  void commit(std::vector<Request*>& requests);
  void roll_back();
  Result<void> call(Request& request);
  Result<void> sync_through(std::uint64_t commit);
  Result<void> sync_failed() const;
  void mend_now();
  void sync_now_and_then();

  const std::filesystem::path path_;
  const std::string url_;
  const RepositoryOptions options_;
  const Clock& clock_;
  const int process_;
  RandomBits random_;
  WakeFile wake_;
  WriterLock lock_;
  Living living_;
  std::int64_t instance_ = 0;
  std::uint64_t inode_ = 0;
  std::chrono::steady_clock::time_point look_at_file_{};

  // The line of writers. The leader alone uses database_, lock_ and random_.
  std::mutex line_mutex_;
  std::condition_variable line_moved_;
  std::vector<Request*> line_;
  bool led_ = false;
  std::shared_ptr<Database> database_;

  std::mutex reader_mutex_;
  std::unique_ptr<Database> reader_;
  RandomBits reader_random_;

  // Commits that are on the medium.
  std::mutex sync_mutex_;
  std::condition_variable synced_some_;
  std::shared_ptr<Database> to_sync_;
  std::uint64_t committed_ = 0;
  std::uint64_t synced_ = 0;
  bool syncing_ = false;
  bool failed_ = false;  // a sync has; until open_anew()
  bool stopping_ = false;
  bool wants_sync_ = false;
  std::condition_variable interval_;
  std::thread interval_thread_;
};

}  // namespace fulmar::queue
