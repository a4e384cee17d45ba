#include "queue/postgres_transaction.hpp"

#include <iterator>

namespace fulmar::queue::postgres {
namespace {

// A read sees one moment, however many statements it has.
const Statement begin_read{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"};
// Each statement sees what was committed before it: after a lock was waited for, the next one sees why.
const Statement begin_write{"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"};
const Statement commit_statement{"COMMIT"};
const Statement rollback_statement{"ROLLBACK"};
const Statement without_flush{"SET LOCAL synchronous_commit = off"};
// After the commit, in a transaction that writes nothing: the server lets only one transaction with a notification commit
// at a time, and would hold up all others for the flush of each.
const Statement notify{"SELECT pg_notify($1::text, $2::text)"};

}  // namespace

void Store::seed(std::uint64_t seed) {
  const std::scoped_lock lock(mutex_);
  if (seed == 0) {
    std::random_device device;
    seed = std::uint64_t{device()} << 32 | device();
  }
  engine_.seed(seed);
}

std::uint64_t Store::random() {
  const std::scoped_lock lock(mutex_);
  return engine_();
}

std::uint64_t Store::next_id(Time now) {
  const std::scoped_lock lock(mutex_);
  return ids_.next(now, engine_());
}

Result<std::vector<Rows>> Transaction::execute(std::vector<Call> calls) {
  if (doomed_) return std::unexpected(doomed_->error);
  const bool first = !begun_;
  if (first) {
    calls.insert(calls.begin(), Call{access_ == Access::read ? &begin_read : &begin_write, {}});
    begun_ = true;
  }
  auto answer = connection_.execute(std::move(calls));
  if (!answer) {
    repeatable_ = answer.error().may_be_repeated();
    doomed_ = std::move(answer.error());
    return std::unexpected(doomed_->error);
  }
  if (first) answer->erase(answer->begin());
  return std::move(*answer);
}

Result<Rows> Transaction::execute(const Statement& statement, Params params) {
  std::vector<Call> calls;
  calls.push_back({&statement, std::move(params)});
  auto rows = execute(std::move(calls));
  if (!rows) return std::unexpected(std::move(rows.error()));
  return std::move((*rows)[0]);
}

Error Transaction::doom(Error error, bool may_be_repeated) {
  if (!doomed_) {
    repeatable_ = may_be_repeated;
    doomed_ = Fault{std::move(error), {}, false, {}};
  }
  return doomed_->error;
}

std::optional<std::int64_t> Transaction::now() const {
  if (!store_.clock) return std::nullopt;
  return store_.clock->now().time_since_epoch().count();
}

Time Transaction::about_now() const {
  if (store_.clock) return store_.clock->now();
  return system_clock().now() + Duration(connection_.clock_offset_us());
}

Transaction::Finished Transaction::finish(Result<void> body, Durability durability) {
  if (doomed_) {
    roll_back();
    return {std::unexpected(doomed_->error), repeatable_, doomed_->connection_lost, false};
  }
  if (!body) {
    roll_back();
    return {std::move(body), false, false, false};
  }
  if (!begun_) return {};
  return commit(durability);
}

void Transaction::roll_back() {
  if (!begun_ || connection_.broken()) return;
  std::vector<Call> calls;
  calls.push_back({&rollback_statement, {}});
  // When this fails the connection is closed, which undoes everything too.
  static_cast<void>(connection_.execute(std::move(calls)));
}

Transaction::Finished Transaction::commit(Durability durability) {
  std::vector<Call> calls;
  const bool flush = changed_ && durability == Durability::commit;
  if (access_ != Access::read && !flush) calls.push_back({&without_flush, {}});
  const auto commit_index = calls.size();
  calls.push_back({&commit_statement, {}});
  for (const auto& queue : wakes_) {
    calls.push_back({&notify, Params().add(store_.channel).add(queue)});
  }
  auto answer = connection_.execute(std::move(calls));
  Finished finished;
  finished.flush_later = changed_ && durability == Durability::interval;
  auto& done = answer ? *answer : answer.error().done;
  if (done.size() > commit_index) {
    // A server that went away between the commit and the notification has no listeners left to miss it.
    if (done[commit_index].command() == "COMMIT") return finished;
    finished.result = fulmar::fail(Errc::io_error, store_.shown + ": the server undid the transaction");
    return finished;
  }
  auto& failure = answer.error();
  if (failure.connection_lost && access_ != Access::read) {
    finished.result =
        fulmar::fail(Errc::io_error, failure.error.message +
                                         "; the commit was on its way: it is not known whether the "
                                         "change was made: look before doing it again");
  } else {
    finished.result = std::unexpected(failure.error);
    finished.may_be_repeated = failure.may_be_repeated();
    roll_back();
  }
  return finished;
}

}  // namespace fulmar::queue::postgres
