// The verbs by id, and what clears away: cancel, retry, remove, purge, upkeep.
#include <algorithm>
#include <map>

#include "queue/postgres_sql.hpp"

namespace fulmar::queue::postgres {
namespace {

constexpr std::size_t rows_of_upkeep = 500;

const Statement cancel_items{"UPDATE fulmar_queue_item SET state = 6, completed_at = " FULMAR_NOW(
    "$2") ", lease_until = NULL, token = 0, lease_owner = NULL, request = NULL WHERE id = ANY($1::text[])"};
// What it waits for is looked up again: it may have been completed in the meantime.
const Statement retry_items{
    "UPDATE fulmar_queue_item i SET state = CASE WHEN EXISTS(SELECT 1 FROM fulmar_queue_wait w WHERE w.item "
    "= i.id AND NOT w.done)"
    " THEN 2 ELSE 0 END, retry_count = 0, scheduled_at = NULL, completed_at = NULL WHERE id = ANY($1::text[])"
    " AND NOT EXISTS(SELECT 1 FROM fulmar_queue_item o WHERE o.queue = i.queue AND o.unique_key = "
    "i.unique_key"
    " AND o.unique_key IS NOT NULL AND o.state <= 3) RETURNING id"};
const Statement select_needing{
    "SELECT dependency, item FROM fulmar_queue_wait WHERE dependency = ANY($1::text[])"};
const Statement delete_items{"DELETE FROM fulmar_queue_item i WHERE i.id = ANY($1::text[])"};
const Statement delete_free_items{
    "DELETE FROM fulmar_queue_item i WHERE i.id = ANY($1::text[]) AND i.state <> 3"
    " AND NOT " FULMAR_IS_NEEDED " RETURNING i.id"};
const Statement delete_waits{"DELETE FROM fulmar_queue_wait WHERE item = ANY($1::text[])"};
const Statement lock_to_purge{
    "SELECT i.id FROM fulmar_queue_item i WHERE i.queue = (SELECT id FROM fulmar_queue WHERE name = $1::text)"
    " AND i.state <> 3" FULMAR_FILTER(
        "$2", "$3", "$4", "$5", "$6",
        "$7") " AND NOT " FULMAR_IS_NEEDED
              " ORDER BY i.ord, i.id LIMIT $8::int8 FOR UPDATE OF i SKIP LOCKED"};

const Statement one_at_a_time{"SELECT pg_try_advisory_xact_lock(hashtextextended($1::text, 0))"};
const Statement queue_names{"SELECT name FROM fulmar_queue ORDER BY id"};
// Over the age, or beyond the number: oldest first.
const Statement lock_outdated{
    "SELECT i.id FROM fulmar_queue q CROSS JOIN (VALUES (4), (5), (6)) s (state) CROSS JOIN LATERAL ("
    "SELECT id FROM fulmar_queue_item WHERE queue = q.id AND state = s.state AND state >= 4 AND completed_at < "
    FULMAR_NOW("$1") " - CASE WHEN s.state = 4 THEN q.keep_completed_us ELSE q.keep_failed_us END"
    " ORDER BY completed_at LIMIT $2::int8) o JOIN fulmar_queue_item i ON i.id = o.id"
    " WHERE NOT " FULMAR_IS_NEEDED " LIMIT $2::int8 FOR UPDATE OF i SKIP LOCKED"};
#define FULMAR_TO_BE_COUNTED(n) \
  "keep_finished_max IS NOT NULL AND " FULMAR_NOW(n) " NOT BETWEEN counted_at AND counted_at + 10000000"
const Statement lock_beyond{"SELECT i.id FROM (SELECT * FROM fulmar_queue WHERE " FULMAR_TO_BE_COUNTED(
    "$2") ") q"
          " CROSS JOIN LATERAL (SELECT count(*) - q.keep_finished_max AS surplus"
          " FROM fulmar_queue_item WHERE queue = q.id AND state >= 4) c CROSS JOIN LATERAL (SELECT f.id FROM"
          " (VALUES (4), (5), (6)) s (state) CROSS JOIN LATERAL (SELECT id, completed_at, ord FROM "
          "fulmar_queue_item"
          " WHERE queue = q.id AND state = s.state AND state >= 4 ORDER BY completed_at LIMIT "
          "least(c.surplus, "
          "$1::int8)) f"
          " ORDER BY f.completed_at, f.ord, f.id LIMIT least(c.surplus, $1::int8)) o"
          " JOIN fulmar_queue_item i ON i.id = o.id"
          " WHERE c.surplus > 0 AND NOT " FULMAR_IS_NEEDED " LIMIT $1::int8 FOR UPDATE OF i SKIP LOCKED"};

const Statement remember_count{
    "UPDATE fulmar_queue SET counted_at = " FULMAR_NOW("$1") " WHERE id = ANY(ARRAY(SELECT id FROM fulmar_queue WHERE "
    FULMAR_TO_BE_COUNTED("$1") " FOR UPDATE SKIP LOCKED))"};

std::vector<std::string> column(const Rows& rows, int column) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < rows.size(); ++i) texts.emplace_back(rows.text(i, column));
  return texts;
}

}  // namespace

Result<std::vector<Refusal>> PostgresOperations::cancel(std::span<const ItemId> ids) {
  auto items = lock_items(views(ids));
  if (!items) return std::unexpected(items.error());
  std::vector<Refusal> refusals;
  std::vector<std::string_view> done;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto found = items->find(ids[i]);
    if (found == items->end()) {
      refusals.push_back({i, not_found(ids[i])});
    } else if (auto ok = check_transition(ids[i], found->second.status, Verb::cancel); !ok) {
      refusals.push_back({i, ok.error()});
    } else {
      found->second.status = Status::cancelled;  // when the batch names it again
      done.push_back(ids[i]);
    }
  }
  if (done.empty()) return refusals;
  auto rows = transaction_.execute(
      cancel_items, Params().add(std::span<const std::string_view>(done)).add(transaction_.now()));
  if (!rows) return std::unexpected(rows.error());
  transaction_.changed();
  return refusals;
}

Result<std::vector<Refusal>> PostgresOperations::retry(std::span<const ItemId> ids) {
  // The rows of bounded queues come before those of items, as in a submission.
  auto items = lock_items(views(ids));
  if (!items) return std::unexpected(items.error());
  std::vector<std::int32_t> queue_ids;
  for (const auto& [id, item] : *items) queue_ids.push_back(item.queue);
  auto queues = queues_by_id(queue_ids);
  if (!queues) return std::unexpected(queues.error());
  for (auto& [id, queue] : *queues) {
    if (!queue.settings.max_size) continue;
    auto locked = find_queue(queue.name, true);
    if (!locked) return std::unexpected(locked.error());
    if (*locked) queue = **locked;
  }

  std::vector<Refusal> refusals;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto found = items->find(ids[i]);
    if (found == items->end()) {
      refusals.push_back({i, not_found(ids[i])});
      continue;
    }
    auto& item = found->second;
    if (auto ok = check_transition(ids[i], item.status, Verb::retry); !ok) {
      refusals.push_back({i, ok.error()});
      continue;
    }
    auto& queue = (*queues)[item.queue];
    const std::string_view key = item.unique_key;
    auto holders =
        live_keys(item.queue, key.empty() ? std::span<const std::string_view>() : std::span(&key, 1));
    if (!holders) return std::unexpected(holders.error());
    if (!holders->empty()) {
      refusals.push_back({i, unique_key_taken(ids[i], key, holders->begin()->second)});
      continue;
    }
    auto full = take_room(queue, 1);
    if (!full) return std::unexpected(full.error());
    if (*full) {
      refusals.push_back({i, **full});
      continue;
    }
    if (queue.settings.max_size) {
      auto again = find_queue(queue.name, true);
      if (!again) return std::unexpected(again.error());
      if (*again) queue = **again;
    }
    const std::string_view id = ids[i];
    auto done = transaction_.execute(retry_items, Params().add(std::span<const std::string_view>(&id, 1)));
    if (!done) return std::unexpected(done.error());
    if (done->empty()) {
      return std::unexpected(
          transaction_.doom({Errc::already_exists,
                             "item " + ids[i] + ": an item with its unique key was made at the same moment",
                             {}},
                            true));
    }
    item.status = Status::pending;
    transaction_.changed();
    transaction_.wakes(queue.name);
  }
  return refusals;
}

Result<std::vector<Refusal>> PostgresOperations::remove(std::span<const ItemId> ids) {
  const auto all = views(ids);
  auto items = lock_items(all);
  if (!items) return std::unexpected(items.error());
  auto edges = transaction_.execute(select_needing, Params().add(std::span<const std::string_view>(all)));
  if (!edges) return std::unexpected(edges.error());
  std::map<std::string, std::set<std::string>> needing;
  for (std::size_t i = 0; i < edges->size(); ++i) {
    needing[std::string(edges->text(i, 0))].emplace(edges->text(i, 1));
  }
  std::vector<Refusal> refusals;
  std::vector<std::string_view> gone;
  std::set<std::string> gone_ids;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto found = items->find(ids[i]);
    if (found == items->end() || gone_ids.contains(ids[i])) {
      refusals.push_back({i, not_found(ids[i])});
      continue;
    }
    if (auto ok = check_transition(ids[i], found->second.status, Verb::remove); !ok) {
      refusals.push_back({i, ok.error()});
      continue;
    }
    if (std::ranges::any_of(needing[ids[i]], [&](const auto& id) { return !gone_ids.contains(id); })) {
      refusals.push_back({i, is_needed(ids[i])});
      continue;
    }
    gone.push_back(ids[i]);
    gone_ids.insert(ids[i]);
  }
  if (gone.empty()) return refusals;
  std::vector<Call> calls;
  calls.push_back({&delete_items, Params().add(std::span<const std::string_view>(gone))});
  calls.push_back({&delete_waits, Params().add(std::span<const std::string_view>(gone))});
  if (auto done = transaction_.execute(std::move(calls)); !done) return std::unexpected(done.error());
  transaction_.changed();
  return refusals;
}

// Looks once more, in a later statement than the one that locked: somebody may have come to wait for one of them.
Result<std::uint64_t> PostgresOperations::remove_locked(std::span<const std::string_view> ids) {
  if (ids.empty()) return 0;
  auto removed = transaction_.execute(delete_free_items, Params().add(ids));
  if (!removed) return std::unexpected(removed.error());
  const auto gone = column(*removed, 0);
  if (gone.empty()) return 0;
  auto waits =
      transaction_.execute(delete_waits, Params().add(std::span<const std::string_view>(views(gone))));
  if (!waits) return std::unexpected(waits.error());
  transaction_.changed();
  return gone.size();
}

Result<std::uint64_t> PostgresOperations::purge(std::string_view queue, const Filter& filter,
                                                std::size_t items_max) {
  Params params;
  params.add(queue);
  add_filter(params, filter);
  params.add(static_cast<std::int64_t>(items_max));
  auto rows = transaction_.execute(lock_to_purge, std::move(params));
  if (!rows) return std::unexpected(rows.error());
  const auto ids = column(*rows, 0);
  return remove_locked(views(ids));
}

Result<Upkeep> PostgresOperations::upkeep() {
  Upkeep done;
  std::vector<Call> calls;
  calls.push_back({&one_at_a_time, Params().add(transaction_.store().lock_prefix + "upkeep")});
  calls.push_back({&queue_names, {}});
  auto answer = transaction_.execute(std::move(calls));
  if (!answer) return std::unexpected(answer.error());
  if (!(*answer)[0].boolean(0, 0)) return done;  // another process is at it
  for (const auto& queue : column((*answer)[1], 0)) {
    auto expired = expire(queue, rows_of_upkeep - done.expired);
    if (!expired) return std::unexpected(expired.error());
    done.expired += *expired;
    if (done.expired >= rows_of_upkeep) {
      done.more = true;
      return done;
    }
  }
  const auto limit = static_cast<std::int64_t>(rows_of_upkeep);
  auto outdated = transaction_.execute(lock_outdated, Params().add(transaction_.now()).add(limit));
  if (!outdated) return std::unexpected(outdated.error());
  auto ids = column(*outdated, 0);
  auto removed = remove_locked(views(ids));
  if (!removed) return std::unexpected(removed.error());
  done.removed = *removed;
  if (ids.size() < rows_of_upkeep) {
    auto beyond = transaction_.execute(lock_beyond, Params().add(limit).add(transaction_.now()));
    if (!beyond) return std::unexpected(beyond.error());
    ids = column(*beyond, 0);
    removed = remove_locked(views(ids));
    if (!removed) return std::unexpected(removed.error());
    done.removed += *removed;
    if (ids.empty()) {
      auto remembered = transaction_.execute(remember_count, Params().add(transaction_.now()));
      if (!remembered) return std::unexpected(remembered.error());
    }
  }
  done.more = ids.size() >= rows_of_upkeep && *removed > 0;
  return done;
}

}  // namespace fulmar::queue::postgres
