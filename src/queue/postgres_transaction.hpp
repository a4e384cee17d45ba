#pragma once
// Transaction: one transaction on a connection, begun with its first statement (in the same round trip) and ended by
// finish(). What the verbs of PostgresOperations have in common: the clock, randomness, who is to be woken, and whether
// the change has to be on the disk.
//
// Not thread-safe: used by the thread that runs the body.
//
// Invariant: after a statement failed the server refuses all others; so does this object, and finish() undoes everything
// and returns that first failure, whatever the body makes of it.

#include <mutex>
#include <random>
#include <set>
#include <string>

#include "queue/model.hpp"
#include "queue/postgres_connection.hpp"
#include "queue/repository.hpp"

namespace fulmar::queue::postgres {

// What all transactions of a repository share. Thread-safe.
struct Store {
  std::string shown{};
  std::string channel{};
  std::string lock_prefix{};  // of advisory locks
  const Clock* clock = nullptr;

  void seed(std::uint64_t seed);  // 0 = from the kernel
  std::uint64_t random();
  std::uint64_t next_id(Time now);

 private:
  std::mutex mutex_;
  std::mt19937_64 engine_;
  IdSequence ids_;
};

class Transaction {
 public:
  Transaction(Connection& connection, Store& store, Access access)
      : connection_(connection), store_(store), access_(access) {}

  // In one round trip. After an error nothing more can be done in this transaction.
  Result<std::vector<Rows>> execute(std::vector<Call> calls);
  Result<Rows> execute(const Statement& statement, Params params = {});

  // Undoes everything at the end, for this reason; another try of the body may come through.
  Error doom(Error error, bool may_be_repeated);

  // The clock given, as a parameter; NULL where the server's counts (see NOW in postgres_sql.hpp).
  std::optional<std::int64_t> now() const;
  // Of the clock given, or about what the server's shows: for ids, which have to be made here.
  Time about_now() const;
  std::uint64_t random() { return store_.random(); }
  Store& store() { return store_; }

  void wakes(std::string_view queue) { wakes_.emplace(queue); }
  // Something was changed that has to survive under Durability::commit; claims and extensions are not.
  void changed() { changed_ = true; }

  struct Finished {
    Result<void> result{};
    bool may_be_repeated = false;
    bool connection_lost = false;  // before the commit was sent
    bool flush_later = false;
  };
  // Commits when `body` is a success, else rolls back.
  Finished finish(Result<void> body, Durability durability);
  bool begun() const { return begun_; }

 private:
  Finished commit(Durability durability);
  void roll_back();

  Connection& connection_;
  Store& store_;
  const Access access_;
  bool begun_ = false;
  bool changed_ = false;
  std::optional<Fault> doomed_{};
  bool repeatable_ = false;
  std::set<std::string, std::less<>> wakes_{};
};

}  // namespace fulmar::queue::postgres
