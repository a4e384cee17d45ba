// Names, rows, and what comes in. Leases are in sqlite_leases.cpp, looking and cleaning in sqlite_queries.cpp.
#include "queue/sqlite_operations.hpp"

#include <algorithm>
#include <utility>

#include <boost/json.hpp>

#include "queue/item_table.hpp"
#include "queue/sqlite_guard.hpp"
#include "queue/sqlite_schema.hpp"

namespace fulmar::queue {
namespace {

std::optional<std::int64_t> us(const std::optional<Duration>& period) {
  return period ? std::optional(period->count()) : std::nullopt;
}

std::int64_t us(Time time) { return time.time_since_epoch().count(); }

std::string ids_json(std::span<const ItemId> ids) {
  if (ids.empty()) return {};
  boost::json::array array(ids.begin(), ids.end());
  return boost::json::serialize(array);
}

std::vector<ItemId> ids_from_json(std::string_view text) {
  std::vector<ItemId> ids;
  if (text.empty()) return ids;
  boost::json::error_code error;
  const auto value = boost::json::parse(text, error);
  if (error || !value.is_array()) return ids;
  for (const auto& id : value.get_array()) {
    if (id.is_string()) ids.emplace_back(id.get_string());
  }
  return ids;
}

}  // namespace

SqliteOperations::SqliteOperations(SqliteConnection& connection, std::string path, const Clock& clock,
                                   RandomBits& random, Living* living, std::int64_t instance)
    : connection_(connection),
      path_(std::move(path)),
      clock_(clock),
      random_(random),
      living_(living),
      instance_(instance) {}

void SqliteOperations::begin() {
  failure_.reset();
  claimable_.clear();
  const auto version = connection_.data_version();
  if (fresh_ && version == data_version_) return;
  data_version_ = version;
  fresh_ = true;
  queues_.clear();
  worker_ids_.clear();
  any_dependencies_.reset();
  any_bounded_.reset();
  ids_known_ = false;
}

void SqliteOperations::forget() {
  fresh_ = false;
  queues_.clear();
  queue_names_.clear();
  type_ids_.clear();
  type_names_.clear();
  worker_ids_.clear();
  worker_names_.clear();
  any_dependencies_.reset();
  any_bounded_.reset();
  ids_known_ = false;
}

Statement& SqliteOperations::sql(const char* text) {
  const auto at = statements_.find(text);
  if (at != statements_.end()) return at->second;
  return statements_.emplace(text, Statement(connection_.handle(), text)).first->second;
}

// --- names ------------------------------------------------------------------------------------------------------------

SqliteOperations::QueueRow SqliteOperations::read_queue(Statement& row) {
  const auto optional_us = [&](int at) {
    return row.is_null(at) ? std::nullopt : std::optional(Duration(row.number(at)));
  };
  const auto optional_count = [&](int at) {
    return row.is_null(at) ? std::nullopt : std::optional(static_cast<std::uint64_t>(row.number(at)));
  };
  QueueRow queue;
  queue.qid = row.number(0);
  queue.name = row.text(1);
  queue.paused = row.number(2) != 0;
  queue.settings.max_size = optional_count(3);
  queue.settings.default_max_retries = static_cast<int>(row.number(4));
  queue.settings.lease = Duration(row.number(5));
  queue.settings.backoff_min = Duration(row.number(6));
  queue.settings.backoff_max = Duration(row.number(7));
  queue.settings.keep_completed = optional_us(8);
  queue.settings.keep_failed = optional_us(9);
  queue.settings.keep_finished_max = optional_count(10);
  queue.settings.durability = parse_durability(row.text(11)).value_or(Durability::commit);
  queue.settings.sync_interval = Duration(row.number(12));
  queue.settings.durable_claim = row.number(13) != 0;
  return queue;
}

#define QUEUE_COLUMNS                                                                                      \
  "qid,name,paused,max_size,default_max_retries,lease_us,backoff_min_us,backoff_max_us,keep_completed_us," \
  "keep_failed_us,keep_finished_max,durability,sync_interval_us,durable_claim"

SqliteOperations::QueueRow& SqliteOperations::queue_row(std::string_view name) {
  if (const auto at = queues_.find(name); at != queues_.end()) return at->second;
  QueueRow queue;
  queue.name = name;
  {
    auto& statement = sql("SELECT " QUEUE_COLUMNS " FROM queue WHERE name=?");
    statement.bind(1, name);
    Rows rows(statement);
    if (rows.next()) queue = read_queue(statement);
  }
  if (queue.qid != 0) queue_names_[queue.qid] = queue.name;
  return queues_[std::string(name)] = std::move(queue);
}

SqliteOperations::QueueRow& SqliteOperations::queue_of(std::int64_t qid) {
  const auto at = queue_names_.find(qid);
  if (at != queue_names_.end()) return queue_row(at->second);
  auto& statement = sql("SELECT name FROM queue WHERE qid=?");
  statement.bind(1, qid);
  std::string name;
  {
    Rows rows(statement);
    if (rows.next()) name = statement.text(0);
  }
  return queue_row(name);
}

SqliteOperations::QueueRow& SqliteOperations::make_queue(std::string_view name) {
  auto& queue = queue_row(name);
  if (queue.qid != 0) return queue;
  const Settings& s = queue.settings;
  sql("INSERT INTO "
      "queue(name,default_max_retries,lease_us,backoff_min_us,backoff_max_us,keep_completed_us,keep_failed_"
      "us,"
      "keep_finished_max,durability,sync_interval_us,durable_claim) VALUES(?,?,?,?,?,?,?,?,?,?,?)")
      .bind(1, name)
      .bind(2, std::int64_t{s.default_max_retries})
      .bind(3, s.lease.count())
      .bind(4, s.backoff_min.count())
      .bind(5, s.backoff_max.count())
      .bind(6, us(s.keep_completed))
      .bind(7, us(s.keep_failed))
      .bind(8, s.keep_finished_max ? std::optional(static_cast<std::int64_t>(*s.keep_finished_max))
                                   : std::nullopt)
      .bind(9, to_string(s.durability))
      .bind(10, s.sync_interval.count())
      .bind(11, std::int64_t{s.durable_claim})
      .run();
  queue.qid = sqlite3_last_insert_rowid(connection_.handle());
  queue_names_[queue.qid] = queue.name;
  return queue;
}

std::int64_t SqliteOperations::type_id(const std::string& name, bool make) {
  if (const auto at = type_ids_.find(name); at != type_ids_.end()) return at->second;
  auto id = sql("SELECT tid FROM type WHERE name=?").bind(1, name).first();
  if (!id) {
    if (!make) return 0;
    sql("INSERT INTO type(name) VALUES(?)").bind(1, name).run();
    id = sqlite3_last_insert_rowid(connection_.handle());
  }
  type_names_[*id] = name;
  return type_ids_[name] = *id;
}

const std::string& SqliteOperations::type_name(std::int64_t tid) {
  auto& name = type_names_[tid];
  if (name.empty()) {
    auto& statement = sql("SELECT name FROM type WHERE tid=?");
    statement.bind(1, tid);
    Rows rows(statement);
    if (rows.next()) name = statement.text(0);
  }
  return name;
}

std::int64_t SqliteOperations::worker_id(const std::string& name, bool tied) {
  tied = tied && living_ != nullptr;
  if (const auto at = worker_ids_.find({name, tied}); at != worker_ids_.end()) return at->second;
  const std::int64_t instance = tied ? instance_ : 0;
  auto id = sql("SELECT wid FROM worker WHERE instance=? AND name=?").bind(1, instance).bind(2, name).first();
  if (!id) {
    sql("INSERT INTO worker(name,instance) VALUES(?,?)").bind(1, name).bind(2, instance).run();
    id = sqlite3_last_insert_rowid(connection_.handle());
  }
  worker_names_[*id] = name;
  return worker_ids_[{name, tied}] = *id;
}

const std::string& SqliteOperations::worker_name(std::int64_t wid) {
  auto& name = worker_names_[wid];
  if (name.empty()) {
    auto& statement = sql("SELECT name FROM worker WHERE wid=?");
    statement.bind(1, wid);
    Rows rows(statement);
    if (rows.next()) name = statement.text(0);
  }
  return name;
}

bool SqliteOperations::any_dependencies() {
  if (!any_dependencies_) any_dependencies_ = sql("SELECT EXISTS(SELECT 1 FROM dep)").first() == 1;
  return *any_dependencies_;
}

bool SqliteOperations::any_bounded() {
  if (!any_bounded_)
    any_bounded_ = sql("SELECT EXISTS(SELECT 1 FROM queue WHERE max_size IS NOT NULL)").first() == 1;
  return *any_bounded_;
}

// --- queues -----------------------------------------------------------------------------------------------------------

Result<std::vector<std::string>> SqliteOperations::queues() {
  return guarded([&]() -> Result<std::vector<std::string>> {
    std::vector<std::string> names;
    auto& statement = sql("SELECT name FROM queue ORDER BY name");
    for (Rows rows(statement); rows.next();) names.emplace_back(statement.text(0));
    return names;
  });
}

Result<Settings> SqliteOperations::settings(std::string_view queue) {
  return guarded([&]() -> Result<Settings> { return queue_row(queue).settings; });
}

Result<void> SqliteOperations::set_settings(std::string_view name, const Settings& s) {
  return guarded([&]() -> Result<void> {
    auto& queue = make_queue(name);
    if (queue.settings == s) return {};
    const bool count = s.max_size && !queue.settings.max_size;
    queue.settings = s;
    any_bounded_.reset();
    sql("UPDATE queue SET max_size=?,default_max_retries=?,lease_us=?,backoff_min_us=?,backoff_max_us=?,"
        "keep_completed_us=?,keep_failed_us=?,keep_finished_max=?,durability=?,sync_interval_us=?,durable_"
        "claim=? "
        "WHERE qid=?")
        .bind(1, s.max_size ? std::optional(static_cast<std::int64_t>(*s.max_size)) : std::nullopt)
        .bind(2, std::int64_t{s.default_max_retries})
        .bind(3, s.lease.count())
        .bind(4, s.backoff_min.count())
        .bind(5, s.backoff_max.count())
        .bind(6, us(s.keep_completed))
        .bind(7, us(s.keep_failed))
        .bind(8, s.keep_finished_max ? std::optional(static_cast<std::int64_t>(*s.keep_finished_max))
                                     : std::nullopt)
        .bind(9, to_string(s.durability))
        .bind(10, s.sync_interval.count())
        .bind(11, std::int64_t{s.durable_claim})
        .bind(12, queue.qid)
        .run();
    if (count) {
      sql("UPDATE queue SET live=(SELECT count(*) FROM item WHERE qid=?1 AND state<14) WHERE qid=?1")
          .bind(1, queue.qid)
          .run();
    }
    return {};
  });
}

Result<void> SqliteOperations::set_paused(std::string_view name, bool paused) {
  return guarded([&]() -> Result<void> {
    auto& queue = make_queue(name);
    if (queue.paused == paused) return {};
    queue.paused = paused;
    sql("UPDATE queue SET paused=? WHERE qid=?").bind(1, std::int64_t{paused}).bind(2, queue.qid).run();
    if (!paused) claimable_.insert(queue.name);
    return {};
  });
}

Result<bool> SqliteOperations::paused(std::string_view queue) {
  return guarded([&]() -> Result<bool> { return queue_row(queue).paused; });
}

void SqliteOperations::count_live(QueueRow& queue, std::int64_t change) {
  if (!queue.settings.max_size || change == 0) return;
  sql("UPDATE queue SET live=live+? WHERE qid=?").bind(1, change).bind(2, queue.qid).run();
}

std::uint64_t SqliteOperations::live(const QueueRow& queue) {
  return static_cast<std::uint64_t>(
      sql("SELECT live FROM queue WHERE qid=?").bind(1, queue.qid).first().value_or(0));
}

// --- rows -------------------------------------------------------------------------------------------------------------

std::int64_t SqliteOperations::find(std::string_view id) {
  if (const auto number = id_number(id)) {
    const auto row = static_cast<std::int64_t>(*number);
    if (sql("SELECT 1 FROM item WHERE id=? AND ext IS NULL").bind(1, row).first()) return row;
  }
  return sql("SELECT id FROM item WHERE ext=?").bind(1, id).first().value_or(0);
}

#define ROW_COLUMNS "id,qid,state,token,created,attempts,attempts_max,ukey"

std::vector<SqliteOperations::ItemRow> SqliteOperations::rows_of(Statement& statement) {
  std::vector<ItemRow> result;
  for (Rows rows(statement); rows.next();) {
    result.push_back({statement.number(0), statement.number(1), statement.number(2), statement.number(3),
                      statement.number(4), static_cast<int>(statement.number(5)),
                      static_cast<int>(statement.number(6)), std::string(statement.text(7))});
  }
  return result;
}

std::optional<SqliteOperations::ItemRow> SqliteOperations::row(std::int64_t id) {
  auto rows = rows_of(sql("SELECT " ROW_COLUMNS " FROM item WHERE id=?").bind(1, id));
  if (rows.empty()) return std::nullopt;
  return std::move(rows.front());
}

std::string SqliteOperations::public_id(std::int64_t id) {
  auto& statement = sql("SELECT ext FROM item WHERE id=?");
  statement.bind(1, id);
  Rows rows(statement);
  if (rows.next() && !statement.is_null(0)) return std::string(statement.text(0));
  return id_text(static_cast<std::uint64_t>(id));
}

Time SqliteOperations::lease_time(std::int64_t lease, Time now) const {
  return now + (Duration(lease) - clock_.uptime());
}

// Columns: ITEM_COLUMNS of sqlite_guard.hpp.
Item SqliteOperations::read_item(Statement& row) {
  const Time now = clock_.now();
  Item item;
  item.id = row.is_null(15) ? id_text(static_cast<std::uint64_t>(row.number(0))) : std::string(row.text(15));
  item.queue =
      queue_names_.contains(row.number(1)) ? queue_names_[row.number(1)] : queue_of(row.number(1)).name;
  item.status = schema::status_of(row.number(2));
  item.priority = static_cast<int>(row.number(3));
  if (!row.is_null(4)) item.scheduled_at = Time(Duration(row.number(4)));
  if (item.status == Status::processing) {
    item.lease_until = lease_time(row.number(5), now);
    item.lease_owner = worker_name(row.number(7));
  }
  item.created_at = Time(Duration(row.number(8)));
  if (row.number(9) > 0) item.started_at = Time(Duration(row.number(9)));
  if (row.number(10) > 0) item.completed_at = Time(Duration(row.number(10)));
  item.retry_count = static_cast<int>(row.number(11));
  item.max_retries = static_cast<int>(row.number(12));
  item.type = type_name(row.number(13));
  item.unique_key = row.text(14);
  item.payload = row.text(16);
  if (!row.is_null(17)) item.metadata = row.text(17);
  if (!row.is_null(18)) item.depends_on = ids_from_json(row.text(18));
  item.error_message = row.text(19);
  item.result = row.text(20);
  return item;
}

std::vector<ItemId> SqliteOperations::dependencies_of(std::int64_t id) {
  auto& statement = sql("SELECT deps FROM body WHERE id=?");
  statement.bind(1, id);
  Rows rows(statement);
  return rows.next() ? ids_from_json(statement.text(0)) : std::vector<ItemId>{};
}

bool SqliteOperations::is_completed(std::string_view id) {
  const auto at = find(id);
  return at != 0 && row(at)->state == schema::completed;
}

bool SqliteOperations::has_to_wait(std::span<const ItemId> depends_on) {
  return std::ranges::any_of(depends_on, [&](const ItemId& id) { return !is_completed(id); });
}

void SqliteOperations::fill_dependencies(Item& item) {
  for (const auto& dependency : item.depends_on) {
    const auto at = find(dependency);
    const auto there = at != 0 ? row(at) : std::nullopt;
    if (there && there->state == schema::completed) continue;
    item.waiting_for.push_back(dependency);
    if (there && !is_live(schema::status_of(there->state))) item.dependency_failed = true;
  }
}

// --- in ---------------------------------------------------------------------------------------------------------------

std::int64_t SqliteOperations::fresh_id(Time now) {
  if (!ids_known_) {
    ids_.seen(static_cast<std::uint64_t>(sql("SELECT max(id) FROM item").first().value_or(0)));
    ids_known_ = true;
  }
  return static_cast<std::int64_t>(ids_.next(now, random_()));
}

void SqliteOperations::insert(std::int64_t id, const QueueRow& queue, const Item& item, bool external_id) {
  const Time now = clock_.now();
  const auto created = us(item.created_at);
  const bool wait =
      !item.depends_on.empty() && item.status == Status::pending && has_to_wait(item.depends_on);
  const auto state = schema::state_of(item.status, wait, item.scheduled_at > now);
  auto& statement = sql("INSERT INTO item VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  statement.bind(1, id)
      .bind(2, queue.qid)
      .bind(3, std::int64_t{state})
      .bind(4, std::int64_t{item.priority})
      .bind(5, item.scheduled_at ? std::optional(us(*item.scheduled_at)) : std::nullopt)
      .bind(6, schema::no_lease)
      .bind(7, schema::no_token)
      .bind(8, schema::no_worker)
      .bind(9, created)
      .bind(10, item.started_at ? us(*item.started_at) : -created)
      .bind(11, item.completed_at ? us(*item.completed_at) : -created)
      .bind(12, std::int64_t{item.retry_count})
      .bind(13, std::int64_t{item.max_retries})
      .bind(14, type_id(item.type, true))
      .bind_or_null(15, item.unique_key);
  if (external_id)
    statement.bind(16, item.id);
  else
    statement.bind_null(16);
  statement.run();
  const auto deps = ids_json(item.depends_on);
  sql("INSERT INTO body VALUES(?,?,?,?)")
      .bind(1, id)
      .bind(2, item.payload)
      .bind_or_null(3, item.metadata == "{}" ? std::string_view{} : item.metadata)
      .bind_or_null(4, deps)
      .run();
  if (item.status != Status::completed) {
    for (const auto& dependency : item.depends_on) {
      sql("INSERT OR IGNORE INTO dep VALUES(?,?)").bind(1, dependency).bind(2, id).run();
      any_dependencies_ = true;
    }
  }
  if (!item.error_message.empty() || !item.result.empty()) set_note(id, item.error_message, item.result);
}

Result<std::vector<Submitted>> SqliteOperations::submit(std::string_view name,
                                                        std::span<const NewItem> items) {
  return guarded([&]() -> Result<std::vector<Submitted>> {
    const Time now = clock_.now();
    const auto& known = queue_row(name);
    // Everything is looked at before anything is changed.
    std::map<ItemId, const NewItem*, std::less<>> given;
    std::map<std::string, std::size_t, std::less<>> keys;
    std::vector<Submitted> result(items.size());
    std::vector<std::size_t> twin(items.size());
    std::uint64_t created = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& item = items[i];
      twin[i] = i;
      if (!item.unique_key.empty()) {
        const auto live = sql("SELECT id FROM item WHERE qid=? AND ukey=? AND ukey IS NOT NULL AND state<14")
                              .bind(1, known.qid)
                              .bind(2, item.unique_key)
                              .first();
        if (live) {
          result[i] = {public_id(*live), false};
          continue;
        }
        const auto [at, fresh] = keys.emplace(item.unique_key, i);
        if (!fresh) {
          twin[i] = at->second;
          result[i].created = false;
          continue;
        }
      }
      ++created;
      if (item.id.empty()) continue;
      if (find(item.id) != 0 || !given.emplace(item.id, &item).second)
        return std::unexpected(id_taken(item.id));
      result[i].id = item.id;
    }
    const auto dependencies = [&](const ItemId& id) -> std::vector<ItemId> {
      if (const auto at = given.find(id); at != given.end()) return at->second->depends_on;
      const auto there = find(id);
      return there != 0 ? dependencies_of(there) : std::vector<ItemId>{};
    };
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& item = items[i];
      if (!result[i].created || item.depends_on.empty()) continue;
      for (const auto& dependency : item.depends_on) {
        if (!given.contains(dependency) && find(dependency) == 0) {
          return std::unexpected(unknown_dependency(item.id, dependency));
        }
      }
      if (item.id.empty()) continue;
      if (const auto path = find_cycle(item.id, item.depends_on, dependencies); !path.empty()) {
        return std::unexpected(cycle_error(path));
      }
    }
    if (known.settings.max_size && created > 0) {
      const auto there = live(known);
      if (there + created > *known.settings.max_size) {
        return std::unexpected(queue_full(name, there, *known.settings.max_size));
      }
    }

    auto& queue = make_queue(name);
    Item to;
    to.created_at = now;
    std::vector<std::int64_t> with_dependencies;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& from = items[i];
      if (!result[i].created) {
        if (twin[i] != i) result[i].id = result[twin[i]].id;
        continue;
      }
      to.id = from.id;
      to.type = from.type;
      to.payload = from.payload;
      to.priority = from.priority;
      to.scheduled_at = from.scheduled_at;
      to.max_retries = from.max_retries.value_or(queue.settings.default_max_retries);
      to.metadata = from.metadata;
      to.unique_key = from.unique_key;
      to.depends_on = from.depends_on;
      const auto id = fresh_id(now);
      insert(id, queue, to, !from.id.empty());
      if (from.id.empty()) result[i].id = id_text(static_cast<std::uint64_t>(id));
    }
    count_live(queue, static_cast<std::int64_t>(created));
    if (created > 0) claimable_.insert(queue.name);
    return result;
  });
}

Result<ImportReport> SqliteOperations::import(std::string_view name, std::span<const Item> items,
                                              OnConflict conflict) {
  return guarded([&]() -> Result<ImportReport> {
    // Much may be wrong half way: a savepoint undoes it.
    connection_.execute("SAVEPOINT import");
    const auto undo = [&](Error error) -> std::unexpected<Error> {
      connection_.execute("ROLLBACK TO import; RELEASE import");
      forget();
      return std::unexpected(std::move(error));
    };
    ImportReport report;
    auto& queue = make_queue(name);
    for (const auto& from : items) {
      Item to = from;
      if (to.status == Status::processing) to.status = Status::pending;
      const auto same_id = find(to.id);
      std::optional<std::int64_t> same_key;
      if (!to.unique_key.empty() && is_live(to.status)) {
        same_key =
            sql("SELECT id FROM item WHERE qid=? AND ukey=? AND ukey IS NOT NULL AND state<14 AND id<>?")
                .bind(1, queue.qid)
                .bind(2, to.unique_key)
                .bind(3, same_id)
                .first();
      }
      const bool taken = same_id != 0 || same_key;
      if (taken && conflict == OnConflict::refuse) {
        return undo(same_id != 0 ? already_there(to.id)
                                 : unique_key_taken(to.id, to.unique_key, public_id(*same_key)));
      }
      if (taken && conflict == OnConflict::skip) {
        ++report.skipped;
        continue;
      }
      if (same_id != 0) erase(*row(same_id));
      if (same_key) erase(*row(*same_key));
      ++(taken ? report.replaced : report.added);
      // An id of ours keeps its place; any other gets one by its time of creation.
      const auto number = id_number(to.id);
      const auto bound = id_number_at(clock_.now() + std::chrono::hours(24), 0);
      const bool ours = number && *number > 0 && *number < bound;
      auto id = static_cast<std::int64_t>(ours ? *number : id_number_at(to.created_at, 0));
      bool external = !ours;
      while (id == 0 || sql("SELECT 1 FROM item WHERE id=?").bind(1, id).first()) {
        ++id;
        external = true;
      }
      insert(id, queue, to, external);
      count_live(queue, is_live(to.status) ? 1 : 0);
      if (any_dependencies()) release_dependents(to.id);
    }
    const auto dependencies = [&](const ItemId& id) {
      const auto there = find(id);
      return there != 0 ? dependencies_of(there) : std::vector<ItemId>{};
    };
    for (const auto& item : items) {
      if (item.depends_on.empty()) continue;
      if (const auto path = find_cycle(item.id, dependencies(item.id), dependencies); !path.empty()) {
        return undo(cycle_error(path));
      }
    }
    connection_.execute("RELEASE import");
    ids_known_ = false;
    claimable_.emplace(name);
    return report;
  });
}

void SqliteOperations::erase(const ItemRow& item) {
  sql("DELETE FROM item WHERE id=?").bind(1, item.id).run();
  sql("DELETE FROM body WHERE id=?").bind(1, item.id).run();
  sql("DELETE FROM note WHERE id=?").bind(1, item.id).run();
  if (any_dependencies()) {
    sql("DELETE FROM dep WHERE id=?").bind(1, item.id).run();
  }
  if (is_live(schema::status_of(item.state))) count_live(queue_of(item.qid), -1);
}

}  // namespace fulmar::queue
