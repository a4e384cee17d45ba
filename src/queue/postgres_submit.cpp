// The verbs that bring items in.
#include <algorithm>

#include "queue/model.hpp"
#include "queue/postgres_sql.hpp"

namespace fulmar::queue::postgres {

// A row to insert; views into what the caller handed in.
struct PostgresOperations::NewRow {
  std::string_view id{}, type{}, payload{}, metadata{}, unique_key{};
  std::string_view error{}, result{};
  State state{};
  int priority = 0;
  std::optional<std::int64_t> max_retries{};  // nothing: the queue's default
  int retry_count = 0;
  std::optional<std::int64_t> created_at{};  // nothing: now
  std::optional<std::int64_t> scheduled_at{}, started_at{}, completed_at{};
  std::optional<std::int64_t> order{};  // nothing: by the server's clock
  std::span<const ItemId> depends_on{};
  std::vector<std::string_view> waits_for{};  // those of depends_on that are not completed
};

namespace {

// A batch travels as arrays, one a column, so that any number of rows is one statement. depends_on is joined by a
// character that no id contains. Whoever is ready but not yet due becomes scheduled.
#define FULMAR_NEW_ROWS                                                                                     \
  "unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int2[], $8::int4[], $9::int8[], " \
  "$10::int8[],"                                                                                            \
  " $11::int8[], $12::text[], $13::int8[]) WITH ORDINALITY"                                                 \
  " n (id, type, payload, metadata, unique_key, state, priority, max_retries, created_at, scheduled_at, "   \
  "depends_on, ord, at)"
#define FULMAR_NEW_VALUES \
  "n.id, q.id, CASE WHEN n.state = 0 AND n.scheduled_at > " FULMAR_NOW("$14")                                        \
  " THEN 1 ELSE n.state END, n.priority, coalesce(n.max_retries, q.default_max_retries),"                            \
  " coalesce(n.created_at, " FULMAR_NOW("$14") "), n.scheduled_at, n.type, n.unique_key, n.payload, n.metadata,"     \
  " coalesce(string_to_array(n.depends_on, chr(31)), '{}'), coalesce(n.ord, (" FULMAR_NOW("$14") " << 11) + n.at)"
#define FULMAR_NEW_COLUMNS                                                                                   \
  "id, queue, state, priority, max_retries, created_at, scheduled_at, type, unique_key, payload, metadata, " \
  "depends_on, ord"

// Nothing that would have to be looked up first; what already has a live item with its key is left out.
const Statement insert_simple{
    "INSERT INTO fulmar_queue_item (" FULMAR_NEW_COLUMNS ", retry_count) SELECT " FULMAR_NEW_VALUES
    ", 0 FROM (SELECT * FROM fulmar_queue WHERE name = $1::text AND max_size IS NULL) q CROSS "
    "JOIN " FULMAR_NEW_ROWS " ORDER BY n.at ON CONFLICT DO NOTHING RETURNING id"};
const Statement insert_careful{
    "INSERT INTO fulmar_queue_item (" FULMAR_NEW_COLUMNS
    ", retry_count, started_at, completed_at, error, result) SELECT " FULMAR_NEW_VALUES
    ", m.retry_count, m.started_at, m.completed_at, coalesce(m.error, ''), coalesce(m.result, '')"
    " FROM fulmar_queue q CROSS JOIN " FULMAR_NEW_ROWS
    " JOIN unnest($15::int4[], $16::int8[], $17::int8[], $18::text[], $19::text[]) WITH ORDINALITY"
    " m (retry_count, started_at, completed_at, error, result, at) ON m.at = n.at"
    " WHERE q.name = $1::text ORDER BY n.at ON CONFLICT DO NOTHING RETURNING id"};
const Statement select_live_keys{
    "SELECT unique_key, id FROM fulmar_queue_item"
    " WHERE queue = $1::int4 AND unique_key = ANY($2::text[]) AND state <= 3 AND unique_key IS NOT NULL"};
const Statement queue_is_unbounded{"SELECT id FROM fulmar_queue WHERE name = $1::text AND max_size IS NULL"};
// In the order of ids, as all who lock several.
const Statement select_states_shared{
    "SELECT id, state FROM fulmar_queue_item WHERE id = ANY($1::text[]) ORDER BY id FOR SHARE"};
const Statement lock_graph_statement{"SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))"};
const Statement is_depended_on{"SELECT 1 FROM fulmar_queue_wait WHERE dependency = ANY($1::text[]) LIMIT 1"};
// Everything that can be reached from these over dependencies that are not completed.
const Statement select_reachable{
    "WITH RECURSIVE r (item, dependency) AS ("
    "SELECT item, dependency FROM fulmar_queue_wait WHERE item = ANY($1::text[]) AND NOT done"
    " UNION SELECT w.item, w.dependency FROM r JOIN fulmar_queue_wait w ON w.item = r.dependency AND NOT "
    "w.done)"
    " SELECT item, dependency FROM r"};
const Statement insert_wait{
    "INSERT INTO fulmar_queue_wait (item, dependency, done) SELECT w.item, w.dependency, w.done <> 0"
    " FROM unnest($1::text[], $2::text[], $3::int2[]) w (item, dependency, done)"
    " ON CONFLICT DO NOTHING"};
const Statement delete_items{"DELETE FROM fulmar_queue_item WHERE id = ANY($1::text[])"};
const Statement delete_waits_of{"DELETE FROM fulmar_queue_wait WHERE item = ANY($1::text[])"};
// Those that went on because an item was completed, which now is replaced by one that is not.
const Statement undo_waits{
    "UPDATE fulmar_queue_wait SET done = false WHERE dependency = ANY($1::text[]) AND done RETURNING item"};
const Statement make_waiting{
    "UPDATE fulmar_queue_item SET state = 2 WHERE id = ANY($1::text[]) AND state <= 1"};

std::string joined(std::span<const ItemId> ids) {
  std::string text;
  for (const auto& id : ids) {
    if (!text.empty()) text += '\x1F';
    text += id;
  }
  return text;
}

}  // namespace

// The cast keeps a planner that knows no better from the index of all that are finished.
const Statement settle_completed{
    "WITH d AS MATERIALIZED (SELECT id FROM fulmar_queue_item WHERE id = ANY($1::text[]) AND state::int4 = "
    "4),"
    " needs AS (DELETE FROM fulmar_queue_wait w USING d WHERE w.item = d.id)"
    " UPDATE fulmar_queue_wait w SET done = true FROM d WHERE w.dependency = d.id AND NOT w.done"
    " AND w.item NOT IN (SELECT id FROM d) RETURNING w.item"};

Call PostgresOperations::new_rows_call(const Statement& statement, std::string_view queue,
                                       std::span<const NewRow> rows) {
  const auto column = [&](auto value_of) {
    std::vector<std::decay_t<decltype(value_of(rows[0]))>> values;
    values.reserve(rows.size());
    for (const auto& row : rows) values.push_back(value_of(row));
    return values;
  };
  using Texts = std::span<const std::string_view>;
  using MaybeTexts = std::span<const std::optional<std::string_view>>;
  using MaybeNumbers = std::span<const std::optional<std::int64_t>>;
  std::vector<std::string> dependencies;
  dependencies.reserve(rows.size());
  for (const auto& row : rows) dependencies.push_back(joined(row.depends_on));
  std::vector<std::optional<std::string_view>> maybe_dependencies;
  for (const auto& text : dependencies) {
    maybe_dependencies.push_back(text.empty() ? std::nullopt : std::optional<std::string_view>(text));
  }
  Params params;
  params.add(queue);
  params.add(Texts(column([](const NewRow& r) { return r.id; })));
  params.add(Texts(column([](const NewRow& r) { return r.type; })));
  params.add(Texts(column([](const NewRow& r) { return r.payload; })));
  params.add(Texts(column([](const NewRow& r) { return r.metadata; })));
  params.add(MaybeTexts(column([](const NewRow& r) {
    return r.unique_key.empty() ? std::nullopt : std::optional<std::string_view>(r.unique_key);
  })));
  params.add(std::span<const std::int16_t>(
      column([](const NewRow& r) { return static_cast<std::int16_t>(r.state); })));
  params.add(std::span<const std::int32_t>(column([](const NewRow& r) { return std::int32_t{r.priority}; })));
  params.add(MaybeNumbers(column([](const NewRow& r) { return r.max_retries; })));
  params.add(MaybeNumbers(column([](const NewRow& r) { return r.created_at; })));
  params.add(MaybeNumbers(column([](const NewRow& r) { return r.scheduled_at; })));
  params.add(MaybeTexts(maybe_dependencies));
  params.add(MaybeNumbers(column([](const NewRow& r) { return r.order; })));
  params.add(transaction_.now());
  if (&statement == &insert_careful) {
    params.add(
        std::span<const std::int32_t>(column([](const NewRow& r) { return std::int32_t{r.retry_count}; })));
    params.add(MaybeNumbers(column([](const NewRow& r) { return r.started_at; })));
    params.add(MaybeNumbers(column([](const NewRow& r) { return r.completed_at; })));
    params.add(Texts(column([](const NewRow& r) { return r.error; })));
    params.add(Texts(column([](const NewRow& r) { return r.result; })));
  }
  return {&statement, std::move(params)};
}

// --- submit -----------------------------------------------------------------------------------------------------------

Result<std::vector<Submitted>> PostgresOperations::submit(std::string_view queue,
                                                          std::span<const NewItem> items) {
  if (items.empty()) return std::vector<Submitted>{};
  transaction_.changed();
  transaction_.wakes(queue);
  const bool simple = std::ranges::all_of(
      items, [](const NewItem& item) { return item.id.empty() && item.depends_on.empty(); });
  if (simple) {
    bool done = false;
    auto submitted = submit_simply(queue, items, done);
    if (!submitted || done) return submitted;
  }
  return submit_with_care(queue, items);
}

// One statement, when the queue is there and without bound, as most are. `done` stays false when it is not so.
Result<std::vector<Submitted>> PostgresOperations::submit_simply(std::string_view queue,
                                                                 std::span<const NewItem> items, bool& done) {
  const auto now = transaction_.about_now();
  std::vector<Submitted> submitted(items.size());
  std::vector<std::uint64_t> orders(items.size());
  std::vector<std::size_t> left(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    orders[i] = transaction_.store().next_id(now);
    submitted[i].id = id_text(orders[i]);
    left[i] = i;
  }
  // A key's live item may be finished between our finding it in the way and our asking who it was: then once more.
  for (int attempt = 0; attempt < 10; ++attempt) {
    std::vector<NewRow> rows;
    std::vector<std::string_view> keys;
    for (const auto i : left) {
      const auto& item = items[i];
      NewRow row{.id = submitted[i].id,
                 .type = item.type,
                 .payload = item.payload,
                 .metadata = item.metadata,
                 .unique_key = item.unique_key,
                 .priority = item.priority,
                 .scheduled_at = us_of(item.scheduled_at)};
      if (item.max_retries) row.max_retries = *item.max_retries;
      if (transaction_.now()) row.order = static_cast<std::int64_t>(orders[i]);
      if (!item.unique_key.empty()) keys.push_back(item.unique_key);
      rows.push_back(std::move(row));
    }
    auto made = insert_rows(insert_simple, queue, rows);
    if (!made) return std::unexpected(made.error());
    if (made->size() == left.size()) {
      done = true;
      return submitted;
    }
    auto there = transaction_.execute(queue_is_unbounded, Params().add(queue));
    if (!there) return std::unexpected(there.error());
    if (there->empty()) {
      if (made->empty()) return submitted;
      return std::unexpected(
          transaction_.doom({Errc::io_error, "the queue's bound changed meanwhile", {}}, true));
    }
    auto live = live_keys(static_cast<std::int32_t>(there->number(0, 0)), keys);
    if (!live) return std::unexpected(live.error());
    std::vector<std::size_t> again;
    for (const auto i : left) {
      if (made->contains(submitted[i].id)) continue;
      const auto found = items[i].unique_key.empty() ? live->end() : live->find(items[i].unique_key);
      if (found != live->end()) {
        submitted[i] = {found->second, false};
      } else {
        orders[i] = transaction_.store().next_id(now);
        submitted[i].id = id_text(orders[i]);  // its own id may have been the one in the way
        again.push_back(i);
      }
    }
    left = std::move(again);
    if (left.empty()) {
      done = true;
      return submitted;
    }
  }
  return std::unexpected(transaction_.doom(
      {Errc::timeout,
       transaction_.store().shown + ": items with the same unique keys come and go too fast",
       {}},
      true));
}

// Given ids, dependencies, a bound: everything is checked before anything is changed.
Result<std::vector<Submitted>> PostgresOperations::submit_with_care(std::string_view queue_name,
                                                                    std::span<const NewItem> items) {
  const bool ids_given = std::ranges::any_of(items, [](const NewItem& item) { return !item.id.empty(); });
  const bool dependencies =
      std::ranges::any_of(items, [](const NewItem& item) { return !item.depends_on.empty(); });
  if (ids_given && dependencies) {
    if (auto locked = lock_graph(); !locked) return std::unexpected(locked.error());
  }
  auto queue = make_queue(queue_name, false);
  if (queue && queue->settings.max_size) queue = make_queue(queue_name, true);
  if (!queue) return std::unexpected(queue.error());

  std::set<std::string_view> given, needed;
  std::vector<std::string_view> keys;
  for (const auto& item : items) {
    if (!item.id.empty()) given.insert(item.id);
    if (!item.unique_key.empty()) keys.push_back(item.unique_key);
    needed.insert(item.depends_on.begin(), item.depends_on.end());
  }
  auto live = live_keys(queue->id, keys);
  if (!live) return std::unexpected(live.error());
  std::set<std::string_view> looked_up = needed;
  looked_up.insert(given.begin(), given.end());
  auto states = share_states(looked_up);
  if (!states) return std::unexpected(states.error());

  const auto now = transaction_.about_now();
  std::vector<Submitted> submitted(items.size());
  std::vector<std::uint64_t> orders(items.size());
  std::set<std::string_view> made;
  std::vector<std::size_t> made_from;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& item = items[i];
    if (!item.unique_key.empty()) {
      if (const auto found = live->find(item.unique_key); found != live->end()) {
        submitted[i] = {found->second, false};
        continue;
      }
    }
    if (!item.id.empty() && (states->contains(item.id) || made.contains(item.id))) {
      return std::unexpected(id_taken(item.id));
    }
    orders[i] = transaction_.store().next_id(now);
    submitted[i].id = item.id.empty() ? id_text(orders[i]) : item.id;
    made.insert(submitted[i].id);
    made_from.push_back(i);
    if (!item.unique_key.empty()) live->emplace(item.unique_key, submitted[i].id);
  }

  std::vector<NewRow> rows;
  for (const auto i : made_from) {
    const auto& item = items[i];
    NewRow row{.id = submitted[i].id,
               .type = item.type,
               .payload = item.payload,
               .metadata = item.metadata,
               .unique_key = item.unique_key,
               .priority = item.priority,
               .scheduled_at = us_of(item.scheduled_at),
               .depends_on = item.depends_on};
    if (item.max_retries) row.max_retries = *item.max_retries;
    if (transaction_.now()) row.order = static_cast<std::int64_t>(orders[i]);
    for (const auto& dependency : item.depends_on) {
      const auto state = states->find(dependency);
      if (state == states->end() && !made.contains(dependency)) {
        return std::unexpected(unknown_dependency(item.id, dependency));
      }
      if (state == states->end() || state->second != State::completed) row.waits_for.push_back(dependency);
    }
    if (!row.waits_for.empty()) row.state = State::waiting;
    rows.push_back(std::move(row));
  }
  if (ids_given && dependencies) {
    if (auto ok = check_cycles(rows); !ok) return std::unexpected(ok.error());
  }
  auto full = take_room(*queue, rows.size());
  if (!full) return std::unexpected(full.error());
  if (*full) return std::unexpected(**full);
  auto inserted = insert_rows(insert_careful, queue->name, rows);
  if (!inserted) return std::unexpected(inserted.error());
  if (inserted->size() != rows.size()) {
    // Somebody made one with the same id or key after we looked: another look gives the right answer.
    return std::unexpected(transaction_.doom(
        {Errc::already_exists,
         transaction_.store().shown +
             ": an item with the same id or unique key was made at the same moment; try again",
         {}},
        true));
  }
  if (auto ok = insert_waits(rows); !ok) return std::unexpected(ok.error());
  return submitted;
}

Result<void> PostgresOperations::lock_graph() {
  auto locked =
      transaction_.execute(lock_graph_statement, Params().add(transaction_.store().lock_prefix + "graph"));
  if (!locked) return std::unexpected(locked.error());
  return {};
}

Result<std::map<std::string, ItemId, std::less<>>> PostgresOperations::live_keys(
    std::int32_t queue, std::span<const std::string_view> keys) {
  std::map<std::string, ItemId, std::less<>> found;
  if (keys.empty()) return found;
  auto rows = transaction_.execute(select_live_keys, Params().add(queue).add(keys));
  if (!rows) return std::unexpected(rows.error());
  for (std::size_t i = 0; i < rows->size(); ++i) found.emplace(rows->text(i, 0), rows->text(i, 1));
  return found;
}

Result<std::map<std::string, State, std::less<>>> PostgresOperations::share_states(
    const std::set<std::string_view>& ids) {
  std::map<std::string, State, std::less<>> states;
  if (ids.empty()) return states;
  const std::vector<std::string_view> sorted(ids.begin(), ids.end());
  auto rows =
      transaction_.execute(select_states_shared, Params().add(std::span<const std::string_view>(sorted)));
  if (!rows) return std::unexpected(rows.error());
  for (std::size_t i = 0; i < rows->size(); ++i) {
    states.emplace(rows->text(i, 0), static_cast<State>(rows->number(i, 1)));
  }
  return states;
}

Result<std::unordered_set<std::string>> PostgresOperations::insert_rows(const Statement& statement,
                                                                        std::string_view queue,
                                                                        std::span<const NewRow> rows) {
  const auto bytes_of = [](const NewRow& row) {
    return row.payload.size() + row.metadata.size() + row.result.size() + row.error.size();
  };
  std::unordered_set<std::string> made;
  while (!rows.empty()) {
    const auto count = for_one_statement(rows, bytes_of);
    auto inserted =
        transaction_.execute(std::vector<Call>{new_rows_call(statement, queue, rows.first(count))});
    if (!inserted) return std::unexpected(inserted.error());
    const auto& ids = (*inserted)[0];
    for (std::size_t i = 0; i < ids.size(); ++i) made.emplace(ids.text(i, 0));
    rows = rows.subspan(count);
  }
  return made;
}

Result<void> PostgresOperations::insert_waits(std::span<const NewRow> rows) {
  std::vector<std::string_view> items, dependencies;
  std::vector<std::int16_t> done;
  for (const auto& row : rows) {
    if (row.state == State::completed) continue;
    const std::set<std::string_view> waits_for(row.waits_for.begin(), row.waits_for.end());
    for (const auto& dependency : row.depends_on) {
      items.push_back(row.id);
      dependencies.push_back(dependency);
      done.push_back(waits_for.contains(dependency) ? 0 : 1);
    }
  }
  if (items.empty()) return {};
  auto made = transaction_.execute(insert_wait, Params()
                                                    .add(std::span<const std::string_view>(items))
                                                    .add(std::span<const std::string_view>(dependencies))
                                                    .add(std::span<const std::int16_t>(done)));
  if (!made) return std::unexpected(made.error());
  return {};
}

// The edges of `rows` replace those that their ids have in the store.
Result<void> PostgresOperations::check_cycles(std::span<const NewRow> rows) {
  std::unordered_map<std::string_view, const NewRow*> in_batch;
  std::vector<std::string_view> ids, reached;
  for (const auto& row : rows) {
    in_batch.emplace(row.id, &row);
    ids.push_back(row.id);
    reached.insert(reached.end(), row.waits_for.begin(), row.waits_for.end());
  }
  if (reached.empty()) return {};
  std::unordered_map<std::string, std::vector<ItemId>> stored;
  auto depended_on =
      transaction_.execute(is_depended_on, Params().add(std::span<const std::string_view>(ids)));
  if (!depended_on) return std::unexpected(depended_on.error());
  if (!depended_on->empty()) {
    auto edges =
        transaction_.execute(select_reachable, Params().add(std::span<const std::string_view>(reached)));
    if (!edges) return std::unexpected(edges.error());
    for (std::size_t i = 0; i < edges->size(); ++i) {
      stored[std::string(edges->text(i, 0))].emplace_back(edges->text(i, 1));
    }
  }
  const auto dependencies_of = [&](const ItemId& id) -> std::vector<ItemId> {
    if (const auto row = in_batch.find(id); row != in_batch.end()) {
      return {row->second->waits_for.begin(), row->second->waits_for.end()};
    }
    const auto found = stored.find(id);
    return found == stored.end() ? std::vector<ItemId>{} : found->second;
  };
  for (const auto& row : rows) {
    const std::vector<ItemId> waits_for(row.waits_for.begin(), row.waits_for.end());
    if (const auto path = find_cycle(row.id, waits_for, dependencies_of); !path.empty()) {
      return std::unexpected(cycle_error(path));
    }
  }
  return {};
}

// --- import -----------------------------------------------------------------------------------------------------------

Result<ImportReport> PostgresOperations::import(std::string_view queue_name, std::span<const Item> items,
                                                OnConflict conflict) {
  ImportReport report;
  if (items.empty()) return report;
  if (auto locked = lock_graph(); !locked) return std::unexpected(locked.error());
  auto queue = make_queue(queue_name, false);
  if (queue && queue->settings.max_size) queue = make_queue(queue_name, true);
  if (!queue) return std::unexpected(queue.error());

  std::set<std::string_view> ids;
  std::vector<std::string_view> keys;
  for (const auto& item : items) {
    ids.insert(item.id);
    ids.insert(item.depends_on.begin(), item.depends_on.end());
    if (!item.unique_key.empty() && is_live(item.status)) keys.push_back(item.unique_key);
  }
  const std::vector<std::string_view> all_ids(ids.begin(), ids.end());
  auto there = lock_items(all_ids);
  if (!there) return std::unexpected(there.error());
  auto live = live_keys(queue->id, keys);
  if (!live) return std::unexpected(live.error());

  // What comes of each, in order: later ones meet the earlier.
  std::map<std::string_view, const Item*> chosen;          // by id
  std::map<std::string_view, std::string_view> key_owner;  // of the chosen
  std::set<std::string> removed;                           // from the store
  for (const auto& item : items) {
    const bool id_there =
        chosen.contains(item.id) || (there->contains(item.id) && !removed.contains(item.id));
    std::string_view holder;  // of the unique key
    if (!item.unique_key.empty() && is_live(item.status)) {
      if (const auto own = key_owner.find(item.unique_key); own != key_owner.end()) {
        holder = own->second;
      } else if (const auto stored = live->find(item.unique_key);
                 stored != live->end() && !removed.contains(stored->second)) {
        holder = stored->second;
      }
      if (holder == item.id) holder = {};
    }
    if (id_there || !holder.empty()) {
      if (conflict == OnConflict::skip) {
        ++report.skipped;
        continue;
      }
      if (conflict == OnConflict::refuse) {
        if (id_there) return std::unexpected(already_there(item.id));
        return std::unexpected(unique_key_taken(item.id, item.unique_key, holder));
      }
      ++report.replaced;
      for (const std::string_view gone : {std::string_view(item.id), holder}) {
        if (gone.empty()) continue;
        if (const auto earlier = chosen.find(gone); earlier != chosen.end()) {
          key_owner.erase(earlier->second->unique_key);
          chosen.erase(earlier);
        }
        removed.emplace(gone);
      }
    } else {
      ++report.added;
    }
    chosen.emplace(item.id, &item);
    if (!item.unique_key.empty() && is_live(item.status)) key_owner.emplace(item.unique_key, item.id);
  }
  if (chosen.empty()) return report;

  std::vector<NewRow> rows;
  std::vector<std::string> errors;
  errors.reserve(chosen.size());
  std::vector<std::string_view> completed, undone;
  std::uint64_t live_added = 0;
  std::set<std::uint64_t> orders;   // those of one moment keep their order in the batch
  for (const auto& item : items) {  // in their order
    const auto found = chosen.find(item.id);
    if (found == chosen.end() || found->second != &item) continue;
    const auto status = item.status == Status::processing ? Status::pending : item.status;
    errors.push_back(storable(cut_error(item.error_message)));
    auto order = id_number(item.id).value_or(id_number_at(item.created_at, 0));
    while (!orders.insert(order).second) ++order;
    NewRow row{.id = item.id,
               .type = item.type,
               .payload = item.payload,
               .metadata = item.metadata,
               .unique_key = item.unique_key,
               .error = errors.back(),
               .result = item.result,
               .state = state_of(status),
               .priority = item.priority,
               .max_retries = item.max_retries,
               .retry_count = item.retry_count,
               .created_at = us_of(item.created_at),
               .scheduled_at = us_of(item.scheduled_at),
               .started_at = us_of(item.started_at),
               .completed_at = us_of(item.completed_at),
               .order = static_cast<std::int64_t>(order),
               .depends_on = item.depends_on};
    if (status == Status::completed) {
      completed.push_back(item.id);
    } else {
      if (removed.contains(item.id)) undone.push_back(item.id);
      for (const auto& dependency : item.depends_on) {
        const auto imported = chosen.find(dependency);
        const auto stored = there->find(dependency);
        const bool is_completed = imported != chosen.end()
                                      ? imported->second->status == Status::completed
                                      : stored != there->end() && stored->second.status == Status::completed;
        if (!is_completed) row.waits_for.push_back(dependency);
      }
      if (status == Status::pending && !row.waits_for.empty()) row.state = State::waiting;
    }
    if (is_live(status)) ++live_added;
    rows.push_back(std::move(row));
  }
  if (auto ok = check_cycles(rows); !ok) return std::unexpected(ok.error());

  transaction_.changed();
  transaction_.wakes(queue_name);
  if (!removed.empty()) {
    const std::vector<std::string_view> gone(removed.begin(), removed.end());
    std::vector<Call> calls;
    calls.push_back({&delete_items, Params().add(std::span<const std::string_view>(gone))});
    calls.push_back({&delete_waits_of, Params().add(std::span<const std::string_view>(gone))});
    if (auto done = transaction_.execute(std::move(calls)); !done) return std::unexpected(done.error());
  }
  if (queue->settings.max_size) {
    // The bound does not apply, but what comes later has to find less room.
    QueueRow counted_again = *queue;
    counted_again.room = 0;
    auto taken = take_room(counted_again, live_added);
    if (!taken) return std::unexpected(taken.error());
    if (*taken) {
      auto none = set_settings(queue_name, queue->settings);  // room = 0
      if (!none) return std::unexpected(none.error());
    }
  }
  auto inserted = insert_rows(insert_careful, queue->name, rows);
  if (!inserted) return std::unexpected(inserted.error());
  if (inserted->size() != rows.size()) {
    return std::unexpected(transaction_.doom(
        {Errc::already_exists,
         transaction_.store().shown +
             ": an item with the same id or unique key was made at the same moment; try again",
         {}},
        true));
  }
  if (auto ok = insert_waits(rows); !ok) return std::unexpected(ok.error());

  if (!completed.empty()) {
    auto freed =
        transaction_.execute(settle_completed, Params().add(std::span<const std::string_view>(completed)));
    if (!freed) return std::unexpected(freed.error());
    std::vector<std::string> dependents;
    for (std::size_t i = 0; i < freed->size(); ++i) dependents.emplace_back(freed->text(i, 0));
    if (auto ok = release_dependents(dependents); !ok) return std::unexpected(ok.error());
  }
  if (!undone.empty()) {
    auto undid = transaction_.execute(undo_waits, Params().add(std::span<const std::string_view>(undone)));
    if (!undid) return std::unexpected(undid.error());
    std::vector<std::string_view> waiting;
    for (std::size_t i = 0; i < undid->size(); ++i) waiting.push_back(undid->text(i, 0));
    if (!waiting.empty()) {
      auto made =
          transaction_.execute(make_waiting, Params().add(std::span<const std::string_view>(waiting)));
      if (!made) return std::unexpected(made.error());
    }
  }
  return report;
}

}  // namespace fulmar::queue::postgres
