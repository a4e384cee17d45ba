// Claims, leases and what becomes of an attempt.
#include <algorithm>

#include "queue/item_table.hpp"
#include "queue/sqlite_guard.hpp"
#include "queue/sqlite_schema.hpp"

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;

// Of one transaction. What is left is done by the next ones.
constexpr std::int64_t promoted_max = 5'000;
constexpr std::int64_t expired_max = 1'000;
// How often it is asked which processes live.
constexpr Duration look_at_living_every = 50ms;

template <typename Element, typename One>
std::vector<Refusal> each(std::span<const Element> elements, One&& one) {
  std::vector<Refusal> refusals;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (Result<void> done = one(elements[i]); !done) refusals.push_back({i, std::move(done.error())});
  }
  return refusals;
}

}  // namespace

// --- back from a lease ------------------------------------------------------------------------------------------------

void SqliteOperations::set_note(std::int64_t id, std::string_view error, std::string_view result) {
  sql("INSERT INTO note VALUES(?1,?2,?3) ON CONFLICT(id) DO UPDATE SET "
      "error=coalesce(?2,error),result=coalesce(?3,result)")
      .bind(1, id)
      .bind_or_null(2, error)
      .bind_or_null(3, result)
      .run();
}

void SqliteOperations::finish(const ItemRow& item, std::int64_t state, Time now) {
  sql("UPDATE item SET state=?,finished=?,attempts=?,lease=?,token=?,worker=? WHERE id=?")
      .bind(1, state)
      .bind(2, now.time_since_epoch().count())
      .bind(3, std::int64_t{item.attempts})
      .bind(4, schema::no_lease)
      .bind(5, schema::no_token)
      .bind(6, schema::no_worker)
      .bind(7, item.id)
      .run();
  if (any_bounded()) count_live(queue_of(item.qid), -1);
}

void SqliteOperations::end_attempt(const ItemRow& item, std::string_view error, Time now,
                                   std::optional<Duration> retry_in, bool for_good) {
  auto& queue = queue_of(item.qid);
  const auto after =
      after_failure(item.attempts, item.attempts_max, queue.settings, now, random_(), retry_in, for_good);
  set_note(item.id, cut_error(error), {});
  if (after.status == Status::failed) {
    ItemRow failed = item;
    failed.attempts = after.retry_count;
    return finish(failed, schema::failed, now);
  }
  const bool later = *after.scheduled_at > now;
  sql("UPDATE item SET state=?,due=?,attempts=?,lease=?,token=?,worker=? WHERE id=?")
      .bind(1, std::int64_t{later ? schema::scheduled : schema::ready})
      .bind(2, after.scheduled_at->time_since_epoch().count())
      .bind(3, std::int64_t{after.retry_count})
      .bind(4, schema::no_lease)
      .bind(5, schema::no_token)
      .bind(6, schema::no_worker)
      .bind(7, item.id)
      .run();
  claimable_.insert(queue.name);
}

void SqliteOperations::promote(Time now) {
  const auto time = now.time_since_epoch().count();
  if (!sql("SELECT 1 FROM item WHERE state=12 AND due<=? LIMIT 1").bind(1, time).first()) return;
  std::vector<std::int64_t> ids;
  auto& statement = sql("SELECT id FROM item WHERE state=12 AND due<=? ORDER BY due LIMIT ?");
  statement.bind(1, time).bind(2, promoted_max);
  for (Rows rows(statement); rows.next();) ids.push_back(statement.number(0));
  for (const auto id : ids) sql("UPDATE item SET state=11 WHERE id=?").bind(1, id).run();
}

std::uint64_t SqliteOperations::expire(Time now, bool machine_restarted) {
  const auto until = machine_restarted ? schema::no_lease : clock_.uptime().count();
  if (!sql("SELECT 1 FROM item WHERE state=13 AND lease<=? LIMIT 1").bind(1, until).first()) return 0;
  const auto rows = rows_of(sql("SELECT id,qid,state,token,created,attempts,attempts_max,ukey FROM item "
                                "WHERE state=13 AND lease<=? ORDER BY lease LIMIT ?")
                                .bind(1, until)
                                .bind(2, machine_restarted ? std::int64_t{-1} : expired_max));
  for (const auto& row : rows) {
    end_attempt(row, machine_restarted ? machine_restarted_message : lease_expired_message, now, Duration(0));
  }
  return rows.size();
}

std::uint64_t SqliteOperations::bury(Time now) {
  if (!living_) return 0;
  std::vector<std::int64_t> dead;
  auto& statement = sql("SELECT DISTINCT instance FROM worker WHERE instance>0 AND instance<>?");
  statement.bind(1, instance_);
  for (Rows rows(statement); rows.next();) {
    if (!living_->is_alive(statement.number(0))) dead.push_back(statement.number(0));
  }
  std::uint64_t ended = 0;
  for (const auto instance : dead) {
    const auto rows = rows_of(sql("SELECT id,qid,state,token,created,attempts,attempts_max,ukey FROM item "
                                  "WHERE state=13 AND worker IN (SELECT wid FROM worker WHERE instance=?)")
                                  .bind(1, instance));
    for (const auto& row : rows) end_attempt(row, worker_died_message, now, Duration(0));
    ended += rows.size();
    sql("DELETE FROM worker WHERE instance=?").bind(1, instance).run();
  }
  return ended;
}

void SqliteOperations::machine_started(std::string_view boot_id) {
  const Time now = clock_.now();
  std::string former;
  {
    auto& statement = sql("SELECT value FROM meta WHERE key='boot_id'");
    Rows rows(statement);
    if (rows.next()) former = statement.text(0);
  }
  if (former != boot_id) {
    if (!former.empty()) expire(now, true);
    sql("INSERT OR REPLACE INTO meta VALUES('boot_id',?)").bind(1, boot_id).run();
  }
  bury(now);
}

// --- claims -----------------------------------------------------------------------------------------------------------

std::vector<Lease> SqliteOperations::leases_of(const QueueRow& queue, const ClaimRequest& request, Time now) {
  std::vector<Lease> leases;
  auto& statement = sql("SELECT " ITEM_COLUMNS
                        " FROM request r JOIN item i ON i.id=r.id AND i.token=r.token AND i.state=13 "
                        "JOIN body b ON b.id=i.id LEFT JOIN note n ON n.id=i.id "
                        "WHERE r.worker=? AND r.request=? AND i.qid=? ORDER BY i.prio DESC, i.id");
  statement.bind(1, request.worker).bind(2, request.request_id).bind(3, queue.qid);
  for (Rows rows(statement); rows.next();) {
    leases.push_back({read_item(statement), static_cast<std::uint64_t>(statement.number(6)),
                      lease_time(statement.number(5), now)});
  }
  return leases;
}

std::vector<std::int64_t> SqliteOperations::claimable_rows(const QueueRow& queue,
                                                           std::span<const std::string> types,
                                                           std::size_t rows_max) {
  std::vector<std::int64_t> wanted;
  for (const auto& type : types) {
    if (const auto tid = type_id(type, false); tid != 0) wanted.push_back(tid);
  }
  std::vector<std::int64_t> ids;
  if (!types.empty() && wanted.empty()) return ids;
  auto& statement =
      sql("SELECT id,type FROM item INDEXED BY item_ready WHERE state=11 AND qid=? ORDER BY prio DESC, id");
  statement.bind(1, queue.qid);
  for (Rows rows(statement); ids.size() < rows_max && rows.next();) {
    if (!wanted.empty() && std::ranges::find(wanted, statement.number(1)) == wanted.end()) continue;
    ids.push_back(statement.number(0));
  }
  return ids;
}

std::optional<Duration> SqliteOperations::next_look(const QueueRow& queue, Time now) {
  std::optional<Duration> next;
  const auto sooner = [&](Duration time) {
    next = std::max(Duration(0), next ? std::min(*next, time) : time);
  };
  if (const auto due = sql("SELECT min(due) FROM item WHERE state=12").first())
    sooner(Time(Duration(*due)) - now);
  if (const auto lease = sql("SELECT min(lease) FROM item WHERE state=13").first()) {
    sooner(Duration(*lease) - clock_.uptime());
    const bool others = living_ && sql("SELECT EXISTS(SELECT 1 FROM worker WHERE instance>0 AND instance<>?)")
                                           .bind(1, instance_)
                                           .first() == 1;
    if (others) sooner(look_at_living_every);
  }
  (void)
      queue;  // what another queue's item is woken by costs a look, and an index by queue would cost every change
  return next;
}

Result<Claimed> SqliteOperations::claim(std::string_view name, const ClaimRequest& request) {
  return guarded([&]() -> Result<Claimed> {
    const Time now = clock_.now();
    const Duration uptime = clock_.uptime();
    promote(now);
    expire(now);
    if (const auto monotonic = std::chrono::steady_clock::now(); monotonic >= look_at_living_) {
      look_at_living_ = monotonic + look_at_living_every;
      bury(now);
    }
    Claimed claimed;
    const auto& queue = queue_row(name);
    if (queue.paused || queue.qid == 0) return claimed;
    if (!request.request_id.empty()) {
      claimed.leases = leases_of(queue, request, now);
      if (!claimed.leases.empty()) return claimed;
      sql("DELETE FROM request WHERE worker=? AND request=?")
          .bind(1, request.worker)
          .bind(2, request.request_id)
          .run();
    }
    const auto ids = claimable_rows(queue, request.types, request.items_max);
    if (!ids.empty()) {
      const Duration length = request.lease.value_or(queue.settings.lease);
      const auto worker = worker_id(request.worker, request.tied_to_process);
      auto& read = sql("SELECT " ITEM_COLUMNS ITEM_TABLES "WHERE i.id=?");
      auto& update = sql("UPDATE item SET state=13,lease=?,token=?,worker=?,started=? WHERE id=?");
      claimed.leases.reserve(ids.size());
      for (const auto id : ids) {
        auto& lease = claimed.leases.emplace_back();
        lease.token = random_.token();
        lease.until = now + length;
        update.bind(1, (uptime + length).count())
            .bind(2, static_cast<std::int64_t>(lease.token))
            .bind(3, worker)
            .bind(4, now.time_since_epoch().count())
            .bind(5, id)
            .run();
        read.bind(1, id);
        {
          Rows rows(read);
          if (rows.next()) lease.item = read_item(read);
          lease.item.lease_until = lease.until;
        }
        if (!request.request_id.empty()) {
          sql("INSERT INTO request VALUES(?,?,?,?)")
              .bind(1, request.worker)
              .bind(2, request.request_id)
              .bind(3, id)
              .bind(4, static_cast<std::int64_t>(lease.token))
              .run();
        }
      }
    }
    if (ids.size() < request.items_max) claimed.look_again_in = next_look(queue, now);
    return claimed;
  });
}

// --- with a lease -----------------------------------------------------------------------------------------------------

Result<SqliteOperations::ItemRow> SqliteOperations::leased(const LeaseKey& lease, Verb verb) {
  const auto id = find(lease.id);
  auto item = id != 0 ? row(id) : std::nullopt;
  if (!item) return std::unexpected(not_found(lease.id));
  if (auto ok = check_transition(lease.id, schema::status_of(item->state), verb); !ok) {
    return std::unexpected(ok.error());
  }
  if (item->token != static_cast<std::int64_t>(lease.token)) return std::unexpected(lease_lost(lease.id));
  return std::move(*item);
}

Result<Extended> SqliteOperations::extend(std::span<const LeaseKey> leases, Duration length) {
  return guarded([&]() -> Result<Extended> {
    Extended extended;
    extended.until = clock_.now() + length;
    const auto until = (clock_.uptime() + length).count();
    extended.refusals = each(leases, [&](const LeaseKey& lease) -> Result<void> {
      const auto item = leased(lease, Verb::extend);
      if (!item) return std::unexpected(item.error());
      sql("UPDATE item SET lease=? WHERE id=?").bind(1, until).bind(2, item->id).run();
      return {};
    });
    return extended;
  });
}

// Without looking first: the token says all, as long as nobody has to be told.
bool SqliteOperations::finish_fast(const LeaseKey& lease, Time now) {
  const auto number = id_number(lease.id);
  if (!number || any_bounded()) return false;
  sql("UPDATE item SET state=14,finished=?,lease=?,token=?,worker=? WHERE id=? AND token=? AND state=13 AND "
      "ext IS NULL")
      .bind(1, now.time_since_epoch().count())
      .bind(2, schema::no_lease)
      .bind(3, schema::no_token)
      .bind(4, schema::no_worker)
      .bind(5, static_cast<std::int64_t>(*number))
      .bind(6, static_cast<std::int64_t>(lease.token))
      .run();
  return connection_.changes() == 1;
}

Result<std::vector<Refusal>> SqliteOperations::complete(std::span<const Completion> completions) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    const Time now = clock_.now();
    return each(completions, [&](const Completion& completion) -> Result<void> {
      const bool fast =
          completion.result.empty() && !any_dependencies() && finish_fast(completion.lease, now);
      if (fast) return {};
      const auto item = leased(completion.lease, Verb::complete);
      if (!item) return std::unexpected(item.error());
      finish(*item, schema::completed, now);
      if (!completion.result.empty()) set_note(item->id, {}, completion.result);
      if (any_dependencies()) {
        sql("DELETE FROM dep WHERE id=?").bind(1, item->id).run();
        release_dependents(completion.lease.id);
      }
      return {};
    });
  });
}

Result<std::vector<Refusal>> SqliteOperations::fail(std::span<const Failure> failures) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    const Time now = clock_.now();
    return each(failures, [&](const Failure& failure) -> Result<void> {
      const auto item = leased(failure.lease, Verb::fail);
      if (!item) return std::unexpected(item.error());
      end_attempt(*item, failure.error, now, failure.retry_in, failure.for_good);
      return {};
    });
  });
}

Result<std::vector<Refusal>> SqliteOperations::release(std::span<const LeaseKey> leases) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    return each(leases, [&](const LeaseKey& lease) -> Result<void> {
      const auto item = leased(lease, Verb::release);
      if (!item) return std::unexpected(item.error());
      sql("UPDATE item SET state=11,lease=?,token=?,worker=? WHERE id=?")
          .bind(1, schema::no_lease)
          .bind(2, schema::no_token)
          .bind(3, schema::no_worker)
          .bind(4, item->id)
          .run();
      claimable_.insert(queue_of(item->qid).name);
      return {};
    });
  });
}

// --- by id ------------------------------------------------------------------------------------------------------------

Result<std::vector<Refusal>> SqliteOperations::cancel(std::span<const ItemId> ids) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    const Time now = clock_.now();
    return each(ids, [&](const ItemId& id) -> Result<void> {
      const auto at = find(id);
      if (at == 0) return std::unexpected(not_found(id));
      const auto item = *row(at);
      if (auto ok = check_transition(id, schema::status_of(item.state), Verb::cancel); !ok) return ok;
      finish(item, schema::cancelled, now);
      return {};
    });
  });
}

Result<std::vector<Refusal>> SqliteOperations::retry(std::span<const ItemId> ids) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    return each(ids, [&](const ItemId& id) -> Result<void> {
      const auto at = find(id);
      if (at == 0) return std::unexpected(not_found(id));
      const auto item = *row(at);
      if (auto ok = check_transition(id, schema::status_of(item.state), Verb::retry); !ok) return ok;
      auto& queue = queue_of(item.qid);
      if (!item.ukey.empty()) {
        const auto other = sql("SELECT id FROM item WHERE qid=? AND ukey=? AND ukey IS NOT NULL AND state<14")
                               .bind(1, item.qid)
                               .bind(2, item.ukey)
                               .first();
        if (other) return std::unexpected(unique_key_taken(id, item.ukey, public_id(*other)));
      }
      if (const auto max_size = queue.settings.max_size) {
        const auto there = live(queue);
        if (there + 1 > *max_size) return std::unexpected(queue_full(queue.name, there, *max_size));
      }
      const bool wait = any_dependencies() && has_to_wait(dependencies_of(at));
      sql("UPDATE item SET state=?,due=NULL,attempts=0,finished=-created WHERE id=?")
          .bind(1, std::int64_t{wait ? schema::blocked : schema::ready})
          .bind(2, at)
          .run();
      count_live(queue, 1);
      claimable_.insert(queue.name);
      return {};
    });
  });
}

// --- dependencies -----------------------------------------------------------------------------------------------------

void SqliteOperations::release_dependents(std::string_view id) {
  std::vector<std::int64_t> dependents;
  auto& statement = sql("SELECT id FROM dep WHERE on_id=?");
  statement.bind(1, id);
  for (Rows rows(statement); rows.next();) dependents.push_back(statement.number(0));
  for (const auto dependent : dependents) reconsider(dependent);
}

void SqliteOperations::reconsider(std::int64_t id) {
  const auto item = row(id);
  if (!item || schema::status_of(item->state) != Status::pending) return;
  const bool wait = has_to_wait(dependencies_of(id));
  if (wait == (item->state == schema::blocked)) return;
  sql("UPDATE item SET state=CASE WHEN ?1 THEN 10 WHEN due>?2 THEN 12 ELSE 11 END WHERE id=?3")
      .bind(1, std::int64_t{wait})
      .bind(2, clock_.now().time_since_epoch().count())
      .bind(3, id)
      .run();
  if (!wait) claimable_.insert(queue_of(item->qid).name);
}

}  // namespace fulmar::queue
