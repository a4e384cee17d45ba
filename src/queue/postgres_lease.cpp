// The verbs of workers: claim, extend, complete, fail, release.
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <tuple>

#include "queue/postgres_sql.hpp"

namespace fulmar::queue::postgres {
namespace {

// How many that fall due at one moment enter the order of claims at once, those due first first; the rest with the next
// claim. Without a bound a claim after a million fell due could not end in time, ever.
#define FULMAR_PROMOTED_AT_ONCE "10000"
constexpr std::size_t expired_at_once = 500;

const Statement promote{
    "UPDATE fulmar_queue_item SET state = 0 WHERE id = ANY(ARRAY(SELECT id FROM fulmar_queue_item"
    " WHERE queue = (SELECT id FROM fulmar_queue WHERE name = $1::text AND NOT paused) AND state = 1"
    " AND scheduled_at <= " FULMAR_NOW("$2") " ORDER BY scheduled_at LIMIT " FULMAR_PROMOTED_AT_ONCE
                                             " FOR UPDATE SKIP LOCKED))"};

// An attempt without success, as the model's after_failure() has it without a back-off.
const Statement expire_leases{
    "UPDATE fulmar_queue_item i SET state = CASE WHEN retry_count + 1 >= max_retries THEN 5 ELSE 0 END,"
    " completed_at = CASE WHEN retry_count + 1 >= max_retries THEN " FULMAR_NOW("$2") " END,"
    " scheduled_at = CASE WHEN retry_count + 1 >= max_retries THEN scheduled_at ELSE " FULMAR_NOW("$2") " END,"
    " retry_count = retry_count + 1, error = $4::text, lease_until = NULL, token = 0, lease_owner = NULL,"
    " request = NULL WHERE id = ANY(ARRAY(SELECT id FROM fulmar_queue_item"
    " WHERE queue = (SELECT id FROM fulmar_queue WHERE name = $1::text) AND state = 3 AND lease_until <= " FULMAR_NOW("$2")
    " ORDER BY lease_until LIMIT $3::int8 FOR UPDATE SKIP LOCKED))"};

#define FULMAR_CLAIM(pick) \
  "WITH q AS MATERIALIZED (SELECT id, name, lease_us, durable_claim FROM fulmar_queue"                             \
  " WHERE name = $1::text AND NOT paused)"                                                                         \
  " UPDATE fulmar_queue_item i SET state = 3, started_at = " FULMAR_NOW("$2") ", lease_until = " FULMAR_NOW("$2")  \
  " + coalesce($3::int8, q.lease_us), token = $4::int8, lease_owner = $5::text, request = $6::text"                \
  " FROM q WHERE i.id = ANY(ARRAY(" pick ")) RETURNING " FULMAR_ITEM_FIXED FULMAR_ITEM_BODIES ", i.ord, q.durable_claim"
#define FULMAR_READY \
  "SELECT id, priority, ord FROM fulmar_queue_item WHERE queue = (SELECT id FROM q) AND state = 0"
#define FULMAR_CLAIM_ORDER " ORDER BY priority DESC, ord, id LIMIT $7::int8"
#define FULMAR_LOCK " FOR UPDATE SKIP LOCKED"
const Statement claim_any{FULMAR_CLAIM("SELECT id FROM (" FULMAR_READY FULMAR_CLAIM_ORDER FULMAR_LOCK ") r")};
const Statement claim_types{
    FULMAR_CLAIM("SELECT r.id FROM unnest($8::text[]) t (type) CROSS JOIN LATERAL (" FULMAR_READY
                 " AND type = t.type" FULMAR_CLAIM_ORDER FULMAR_LOCK
                 ") r ORDER BY r.priority DESC, r.ord, r.id LIMIT $7::int8")};

// The same request twice at once: the second waits here, and then finds what the first was given.
const Statement lock_request{"SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))"};
const Statement held_by_request{
    "SELECT " FULMAR_ITEM_FIXED FULMAR_ITEM_BODIES
    ", i.ord"
    " FROM fulmar_queue q JOIN fulmar_queue_item i ON i.queue = q.id WHERE q.name = $1::text AND i.state = 3"
    " AND i.request = $2::text AND i.lease_owner = $3::text AND i.lease_until > " FULMAR_NOW("$4")};

// When something of itself becomes claimable, and whether there is something that others have just locked.
const Statement look_again{
    "SELECT least((SELECT scheduled_at FROM fulmar_queue_item WHERE queue = q.id AND state = 1"
    " ORDER BY scheduled_at LIMIT 1), (SELECT lease_until FROM fulmar_queue_item WHERE queue = q.id AND state = 3"
    " ORDER BY lease_until LIMIT 1)) - " FULMAR_NOW("$2")
    ", CASE WHEN $3::text[] IS NULL THEN EXISTS(SELECT 1 FROM fulmar_queue_item WHERE queue = q.id AND state = 0)"
    " ELSE EXISTS(SELECT 1 FROM unnest($3::text[]) t (type) CROSS JOIN LATERAL (SELECT 1 FROM fulmar_queue_item i"
    " WHERE i.queue = q.id AND i.type = t.type AND i.state = 0 LIMIT 1) r) END"
    " FROM fulmar_queue q WHERE q.name = $1::text AND NOT q.paused"};
constexpr Duration look_at_locked = std::chrono::milliseconds(20);
constexpr Duration look_soonest = std::chrono::milliseconds(1);

// A token is 0 unless the item is processing. The state is not asked for: a planner that knows no better would take the
// index of all that are.
const Statement extend_items{"UPDATE fulmar_queue_item i SET lease_until = " FULMAR_NOW(
    "$4") " + $3::int8"
          " FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY l (id, token, at)"
          " WHERE i.id = l.id AND i.token = l.token AND l.token <> 0"
          " RETURNING l.at, i.lease_until"};
const Statement statement_time{"SELECT " FULMAR_NOW("$1")};
const Statement complete_items{"UPDATE fulmar_queue_item i SET state = 4, completed_at = " FULMAR_NOW(
    "$4") ", result = l.result,"
          " lease_until = NULL, token = 0, lease_owner = NULL, request = NULL"
          " FROM unnest($1::text[], $2::int8[], $3::text[]) WITH ORDINALITY l (id, token, result, at)"
          " WHERE i.id = l.id AND i.token = l.token AND l.token <> 0"
          " RETURNING l.at"};
// Ready when its time has come, as it had when it was claimed.
const Statement release_items{
    "UPDATE fulmar_queue_item i SET state = 0, lease_until = NULL, token = 0, lease_owner = NULL, request = "
    "NULL"
    " FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY l (id, token, at)"
    " WHERE i.id = l.id AND i.token = l.token AND l.token <> 0"
    " RETURNING l.at, (SELECT name FROM fulmar_queue WHERE id = i.queue)"};

const Statement select_for_update{
    "SELECT i.id, i.state, i.token, i.retry_count, i.max_retries, i.queue, i.unique_key, " FULMAR_NOW(
        "$2") " FROM fulmar_queue_item i WHERE i.id = ANY($1::text[]) ORDER BY i.id FOR UPDATE"};
const Statement end_items{
    "UPDATE fulmar_queue_item i SET state = e.state, retry_count = e.retry_count,"
    " scheduled_at = coalesce(e.scheduled_at, i.scheduled_at), completed_at = e.completed_at, error = "
    "e.error,"
    " lease_until = NULL, token = 0, lease_owner = NULL, request = NULL"
    " FROM unnest($1::text[], $2::int2[], $3::int4[], $4::int8[], $5::int8[], $6::text[])"
    " e (id, state, retry_count, scheduled_at, completed_at, error) WHERE i.id = e.id"};
const Statement lock_dependents{
    "SELECT id FROM fulmar_queue_item WHERE id = ANY($1::text[]) AND state = 2 ORDER BY id FOR UPDATE"};
const Statement
    free_dependents{"UPDATE fulmar_queue_item i SET state = CASE WHEN i.scheduled_at > " FULMAR_NOW(
        "$2") " THEN 1 ELSE 0 END WHERE i.id = ANY($1::text[]) AND i.state = 2"
              " AND NOT EXISTS(SELECT 1 FROM fulmar_queue_wait w WHERE w.item = i.id AND NOT w.done)"
              " RETURNING (SELECT name FROM fulmar_queue WHERE id = i.queue)"};

std::string default_worker() {
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '?';
  return std::string(host) + ":" + std::to_string(::getpid());
}

// One statement changes a row once, and carries no more bytes than it should: a batch that names an item twice, or has
// much to carry, takes several rounds.
template <typename Element, typename IdOf, typename BytesOf, typename Round>
Result<void> in_rounds(std::span<const Element> batch, IdOf id_of, BytesOf bytes_of, Round round) {
  std::vector<std::size_t> left(batch.size());
  for (std::size_t i = 0; i < left.size(); ++i) left[i] = i;
  while (!left.empty()) {
    std::set<std::string_view> seen;
    std::vector<std::size_t> now, later;
    for (const auto i : left) (seen.insert(id_of(batch[i])).second ? now : later).push_back(i);
    for (std::span<const std::size_t> rest = now; !rest.empty();) {
      const auto count = for_one_statement(rest, [&](std::size_t i) { return bytes_of(batch[i]); });
      if (auto ok = round(rest.first(count)); !ok) return ok;
      rest = rest.subspan(count);
    }
    left = std::move(later);
  }
  return {};
}

std::string_view id_of_key(const LeaseKey& key) { return key.id; }
std::size_t bytes_of_key(const LeaseKey& key) { return key.id.size() + sizeof key.token; }

struct LeaseColumns {
  std::vector<std::string_view> ids;
  std::vector<std::int64_t> tokens;
};

template <typename Element, typename KeyOf>
LeaseColumns columns(std::span<const Element> batch, std::span<const std::size_t> indexes, KeyOf key_of) {
  LeaseColumns c;
  for (const auto i : indexes) {
    const LeaseKey& key = key_of(batch[i]);
    c.ids.push_back(key.id);
    c.tokens.push_back(static_cast<std::int64_t>(key.token));
  }
  return c;
}

// The indexes of the batch whose ordinal (1..) is not in column 0.
std::vector<std::size_t> missing(std::span<const std::size_t> indexes, const Rows& rows) {
  std::vector<bool> done(indexes.size());
  for (std::size_t i = 0; i < rows.size(); ++i) done[static_cast<std::size_t>(rows.number(i, 0) - 1)] = true;
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    if (!done[i]) left.push_back(indexes[i]);
  }
  return left;
}

void sort_by_index(std::vector<Refusal>& refusals) { std::ranges::sort(refusals, {}, &Refusal::index); }

}  // namespace

// --- claim ------------------------------------------------------------------------------------------------------------

Result<Claimed> PostgresOperations::claim(std::string_view queue, const ClaimRequest& request) {
  const std::string worker = request.worker.empty() ? default_worker() : request.worker;
  const auto now = transaction_.now();
  Claimed claimed;
  const auto take = [&](const Rows& rows) {
    std::vector<std::size_t> order(rows.size());  // RETURNING promises none
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](std::size_t i) {
      return std::tuple(-rows.number(i, 3), rows.number(i, 20), rows.text(i, 0));
    });
    for (const auto i : order) {
      Lease lease{read_item(rows, i, false), static_cast<std::uint64_t>(rows.number(i, 11)), {}};
      lease.until = lease.item.lease_until.value_or(Time{});
      claimed.leases.push_back(std::move(lease));
    }
  };

  if (!request.request_id.empty()) {
    std::vector<Call> calls;
    calls.push_back(
        {&lock_request, Params().add(transaction_.store().lock_prefix + "request/" + std::string(queue) +
                                     "/" + worker + "/" + request.request_id)});
    calls.push_back({&held_by_request, Params().add(queue).add(request.request_id).add(worker).add(now)});
    auto held = transaction_.execute(std::move(calls));
    if (!held) return std::unexpected(held.error());
    take((*held)[1]);
    if (!claimed.leases.empty()) return claimed;
  }

  const auto token = static_cast<std::int64_t>(transaction_.random() >> 1 | 1);  // never 0, never negative
  std::vector<std::string_view> types;
  for (const auto& type : request.types) {
    if (std::ranges::find(types, type) == types.end()) types.push_back(type);
  }
  Params params;
  params.add(queue).add(now).add(request.lease ? std::optional<std::int64_t>(request.lease->count())
                                               : std::nullopt);
  params.add(token).add(worker);
  params.add(request.request_id.empty() ? std::nullopt : std::optional<std::string_view>(request.request_id));
  params.add(static_cast<std::int64_t>(request.items_max));
  if (!types.empty()) params.add(std::span<const std::string_view>(types));

  // One round trip.
  std::vector<Call> calls;
  calls.push_back({&expire_leases, expire_params(queue, expired_at_once)});
  calls.push_back({&promote, Params().add(queue).add(now)});
  calls.push_back({types.empty() ? &claim_any : &claim_types, std::move(params)});
  auto answer = transaction_.execute(std::move(calls));
  if (!answer) return std::unexpected(answer.error());
  const auto& rows = (*answer)[2];
  take(rows);
  if (!rows.empty() && rows.boolean(0, 21)) transaction_.changed();  // durable_claim

  if ((*answer)[0].changed() > 0) transaction_.wakes(queue);  // there may be more of them than are taken here
  if (!claimed.leases.empty()) return claimed;

  Params look;
  look.add(queue).add(now);
  if (types.empty()) {
    look.add_null();
  } else {
    look.add(std::span<const std::string_view>(types));
  }
  auto next = transaction_.execute(look_again, std::move(look));
  if (!next) return std::unexpected(next.error());
  if (next->empty()) return claimed;  // paused, or not there: whoever changes that wakes us
  if (const auto in = next->maybe_number(0, 0)) claimed.look_again_in = std::max(Duration(*in), look_soonest);
  if (next->boolean(0, 1)) {
    claimed.look_again_in = std::min(claimed.look_again_in.value_or(look_at_locked), look_at_locked);
  }
  return claimed;
}

// --- leases -----------------------------------------------------------------------------------------------------------

Result<Extended> PostgresOperations::extend(std::span<const LeaseKey> leases, Duration lease) {
  Extended extended;
  const auto round = [&](std::span<const std::size_t> indexes) -> Result<void> {
    const auto c = columns(leases, indexes, std::identity{});
    auto rows = transaction_.execute(extend_items, Params()
                                                       .add(std::span<const std::string_view>(c.ids))
                                                       .add(std::span<const std::int64_t>(c.tokens))
                                                       .add(std::int64_t{lease.count()})
                                                       .add(transaction_.now()));
    if (!rows) return std::unexpected(rows.error());
    if (!rows->empty()) extended.until = time_of(rows->number(0, 1));
    return explain(leases, missing(indexes, *rows), Verb::extend, extended.refusals);
  };
  if (auto ok = in_rounds(leases, id_of_key, bytes_of_key, round); !ok) return std::unexpected(ok.error());
  if (extended.until == Time{}) {
    auto now = transaction_.execute(statement_time, Params().add(transaction_.now()));
    if (!now) return std::unexpected(now.error());
    extended.until = time_of(now->number(0, 0)) + lease;
  }
  sort_by_index(extended.refusals);
  return extended;
}

Result<std::vector<Refusal>> PostgresOperations::complete(std::span<const Completion> completions) {
  std::vector<Refusal> refusals;
  std::vector<LeaseKey> keys;
  keys.reserve(completions.size());
  for (const auto& completion : completions) keys.push_back(completion.lease);
  const auto round = [&](std::span<const std::size_t> indexes) -> Result<void> {
    const auto c =
        columns(completions, indexes, [](const Completion& x) -> const LeaseKey& { return x.lease; });
    std::vector<std::string_view> results;
    for (const auto i : indexes) results.push_back(completions[i].result);
    std::vector<Call> calls;
    calls.push_back({&complete_items, Params()
                                          .add(std::span<const std::string_view>(c.ids))
                                          .add(std::span<const std::int64_t>(c.tokens))
                                          .add(std::span<const std::string_view>(results))
                                          .add(transaction_.now())});
    calls.push_back({&settle_completed, Params().add(std::span<const std::string_view>(c.ids))});
    auto answer = transaction_.execute(std::move(calls));
    if (!answer) return std::unexpected(answer.error());
    if (!(*answer)[0].empty()) transaction_.changed();
    std::vector<std::string> dependents;
    const auto& freed = (*answer)[1];
    for (std::size_t i = 0; i < freed.size(); ++i) dependents.emplace_back(freed.text(i, 0));
    if (auto ok = release_dependents(dependents); !ok) return ok;
    return explain(keys, missing(indexes, (*answer)[0]), Verb::complete, refusals);
  };
  const auto id_of = [](const Completion& completion) { return id_of_key(completion.lease); };
  const auto bytes_of = [](const Completion& completion) {
    return bytes_of_key(completion.lease) + completion.result.size();
  };
  if (auto ok = in_rounds(completions, id_of, bytes_of, round); !ok) return std::unexpected(ok.error());
  sort_by_index(refusals);
  return refusals;
}

Result<std::vector<Refusal>> PostgresOperations::release(std::span<const LeaseKey> leases) {
  std::vector<Refusal> refusals;
  const auto round = [&](std::span<const std::size_t> indexes) -> Result<void> {
    const auto c = columns(leases, indexes, std::identity{});
    auto rows = transaction_.execute(
        release_items,
        Params().add(std::span<const std::string_view>(c.ids)).add(std::span<const std::int64_t>(c.tokens)));
    if (!rows) return std::unexpected(rows.error());
    for (std::size_t i = 0; i < rows->size(); ++i) transaction_.wakes(rows->text(i, 1));
    return explain(leases, missing(indexes, *rows), Verb::release, refusals);
  };
  if (auto ok = in_rounds(leases, id_of_key, bytes_of_key, round); !ok) return std::unexpected(ok.error());
  sort_by_index(refusals);
  return refusals;
}

Result<std::vector<Refusal>> PostgresOperations::fail(std::span<const queue::Failure> failures) {
  std::vector<Refusal> refusals;
  const auto id_of = [](const queue::Failure& failure) { return id_of_key(failure.lease); };
  const auto bytes_of = [](const queue::Failure& failure) {
    return bytes_of_key(failure.lease) + failure.error.size();
  };
  const auto round = [&](std::span<const std::size_t> indexes) -> Result<void> {
    std::vector<std::string_view> ids;
    for (const auto i : indexes) ids.push_back(failures[i].lease.id);
    auto items = lock_items(ids);
    if (!items) return std::unexpected(items.error());
    std::vector<Ended> attempts;
    for (const auto i : indexes) {
      const auto& failure = failures[i];
      const auto found = items->find(failure.lease.id);
      if (found == items->end()) {
        refusals.push_back({i, not_found(failure.lease.id)});
      } else if (auto ok = check_transition(found->first, found->second.status, Verb::fail); !ok) {
        refusals.push_back({i, ok.error()});
      } else if (found->second.token != failure.lease.token) {
        refusals.push_back({i, lease_lost(found->first)});
      } else {
        attempts.push_back({&found->second, failure.error, failure.retry_in, failure.for_good});
      }
    }
    if (!attempts.empty()) transaction_.changed();
    return end_attempts(attempts);
  };
  if (auto ok = in_rounds(failures, id_of, bytes_of, round); !ok) return std::unexpected(ok.error());
  sort_by_index(refusals);
  return refusals;
}

// --- what they have in common -----------------------------------------------------------------------------------------

Result<PostgresOperations::LockedItems> PostgresOperations::lock_items(
    std::span<const std::string_view> ids) {
  LockedItems items;
  if (ids.empty()) return items;
  auto rows = transaction_.execute(select_for_update, Params().add(ids).add(transaction_.now()));
  if (!rows) return std::unexpected(rows.error());
  for (std::size_t i = 0; i < rows->size(); ++i) {
    LockedItem item;
    item.id = rows->text(i, 0);
    item.state = static_cast<State>(rows->number(i, 1));
    item.status = status_of(rows->number(i, 1));
    item.token = static_cast<std::uint64_t>(rows->number(i, 2));
    item.retry_count = static_cast<int>(rows->number(i, 3));
    item.max_retries = static_cast<int>(rows->number(i, 4));
    item.queue = static_cast<std::int32_t>(rows->number(i, 5));
    item.unique_key = rows->text(i, 6);
    item.now = time_of(rows->number(i, 7));
    items.emplace(item.id, item);
  }
  return items;
}

Result<void> PostgresOperations::explain(std::span<const LeaseKey> leases,
                                         std::span<const std::size_t> indexes, Verb verb,
                                         std::vector<Refusal>& refusals) {
  if (indexes.empty()) return {};
  std::vector<std::string_view> ids;
  for (const auto i : indexes) ids.push_back(leases[i].id);
  auto items = lock_items(ids);
  if (!items) return std::unexpected(items.error());
  for (const auto i : indexes) {
    const auto found = items->find(leases[i].id);
    if (found == items->end()) {
      refusals.push_back({i, not_found(leases[i].id)});
    } else if (auto ok = check_transition(leases[i].id, found->second.status, verb); !ok) {
      refusals.push_back({i, ok.error()});
    } else {
      refusals.push_back({i, lease_lost(leases[i].id)});
    }
  }
  return {};
}

Result<void> PostgresOperations::release_dependents(const std::vector<std::string>& dependents) {
  if (dependents.empty()) return {};
  const auto ids = views(dependents);
  std::vector<Call> calls;
  calls.push_back({&lock_dependents, Params().add(std::span<const std::string_view>(ids))});
  calls.push_back(
      {&free_dependents, Params().add(std::span<const std::string_view>(ids)).add(transaction_.now())});
  auto answer = transaction_.execute(std::move(calls));
  if (!answer) return std::unexpected(answer.error());
  const auto& freed = (*answer)[1];
  for (std::size_t i = 0; i < freed.size(); ++i) transaction_.wakes(freed.text(i, 0));
  return {};
}

Result<void> PostgresOperations::end_attempts(std::span<const Ended> attempts) {
  if (attempts.empty()) return {};
  std::vector<std::int32_t> queue_ids;
  for (const auto& attempt : attempts) {
    if (std::ranges::find(queue_ids, attempt.item->queue) == queue_ids.end())
      queue_ids.push_back(attempt.item->queue);
  }
  auto queues = queues_by_id(queue_ids);
  if (!queues) return std::unexpected(queues.error());
  std::vector<std::string_view> ids;
  std::vector<std::int16_t> states;
  std::vector<std::int32_t> retry_counts;
  std::vector<std::optional<std::int64_t>> scheduled, completed;
  std::vector<std::string> errors;
  for (const auto& attempt : attempts) {
    const auto& item = *attempt.item;
    const auto& queue = (*queues)[item.queue];
    const auto after = after_failure(item.retry_count, item.max_retries, queue.settings, item.now,
                                     transaction_.random(), attempt.retry_in, attempt.for_good);
    const bool again = after.status == Status::pending;
    ids.push_back(item.id);
    states.push_back(static_cast<std::int16_t>(again ? State::scheduled : State::failed));
    retry_counts.push_back(after.retry_count);
    scheduled.push_back(us_of(after.scheduled_at));
    completed.push_back(again ? std::nullopt : std::optional<std::int64_t>(us_of(item.now)));
    errors.push_back(storable(cut_error(attempt.error)));
    if (again) transaction_.wakes(queue.name);  // who waits has to know until when
  }
  auto ended =
      transaction_.execute(end_items, Params()
                                          .add(std::span<const std::string_view>(ids))
                                          .add(std::span<const std::int16_t>(states))
                                          .add(std::span<const std::int32_t>(retry_counts))
                                          .add(std::span<const std::optional<std::int64_t>>(scheduled))
                                          .add(std::span<const std::optional<std::int64_t>>(completed))
                                          .add(std::span<const std::string_view>(views(errors))));
  if (!ended) return std::unexpected(ended.error());
  return {};
}

Params PostgresOperations::expire_params(std::string_view queue, std::size_t items_max) {
  return std::move(Params()
                       .add(queue)
                       .add(transaction_.now())
                       .add(static_cast<std::int64_t>(items_max))
                       .add(lease_expired_message));
}

Result<std::uint64_t> PostgresOperations::expire(std::string_view queue, std::size_t items_max) {
  auto expired = transaction_.execute(expire_leases, expire_params(queue, items_max));
  if (!expired) return std::unexpected(expired.error());
  if (expired->changed() > 0) transaction_.wakes(queue);
  return expired->changed();
}

}  // namespace fulmar::queue::postgres
