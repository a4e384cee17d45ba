// The verbs that look: queues, settings, items, statistics.
#include <algorithm>
#include <charconv>

#include "queue/model.hpp"
#include "queue/postgres_sql.hpp"

namespace fulmar::queue::postgres {
namespace {

#define FULMAR_QUEUE_COLUMNS                                                                         \
  "id, name, paused, room, max_size, default_max_retries, lease_us, backoff_min_us, backoff_max_us," \
  " keep_completed_us, keep_failed_us, keep_finished_max, durability, sync_interval_us, durable_claim"

const Statement all_queues{"SELECT name FROM fulmar_queue ORDER BY name"};
const Statement select_queue{"SELECT " FULMAR_QUEUE_COLUMNS " FROM fulmar_queue WHERE name = $1::text"};
const Statement select_queue_locked{"SELECT " FULMAR_QUEUE_COLUMNS
                                    " FROM fulmar_queue WHERE name = $1::text FOR UPDATE"};
const Statement select_queues_by_id{"SELECT " FULMAR_QUEUE_COLUMNS
                                    " FROM fulmar_queue WHERE id = ANY($1::int4[])"};
const Statement insert_queue{
    "INSERT INTO fulmar_queue (name, max_size, default_max_retries, lease_us, backoff_min_us, backoff_max_us,"
    " keep_completed_us, keep_failed_us, keep_finished_max, durability, sync_interval_us, durable_claim)"
    " VALUES ($1::text, $2::int8, $3::int4, $4::int8, $5::int8, $6::int8, $7::int8, $8::int8, $9::int8, "
    "$10::int2,"
    " $11::int8, $12::bool) ON CONFLICT (name) DO NOTHING"};
// Other bounds: what there is has to be counted.
const Statement update_queue{
    "UPDATE fulmar_queue SET max_size = $2::int8, default_max_retries = $3::int4, lease_us = $4::int8,"
    " backoff_min_us = $5::int8, backoff_max_us = $6::int8, keep_completed_us = $7::int8, keep_failed_us = "
    "$8::int8,"
    " keep_finished_max = $9::int8, durability = $10::int2, sync_interval_us = $11::int8, durable_claim = "
    "$12::bool,"
    " room = 0, counted_at = 0 WHERE name = $1::text"};
const Statement update_paused{"UPDATE fulmar_queue SET paused = $2::bool WHERE name = $1::text"};
// By state, each of which has its index: what is finished is not read.
const Statement select_room{
    "SELECT max_size"
    " - (SELECT count(*) FROM fulmar_queue_item i WHERE i.queue = q.id AND i.state = 0)"
    " - (SELECT count(*) FROM fulmar_queue_item i WHERE i.queue = q.id AND i.state = 1)"
    " - (SELECT count(*) FROM fulmar_queue_item i WHERE i.queue = q.id AND i.state = 2)"
    " - (SELECT count(*) FROM fulmar_queue_item i WHERE i.queue = q.id AND i.state = 3)"
    " FROM fulmar_queue q WHERE q.id = $1::int4"};
const Statement update_room{"UPDATE fulmar_queue SET room = $2::int8 WHERE id = $1::int4"};

const Statement select_item{
    "SELECT " FULMAR_ITEM_FIXED FULMAR_ITEM_BODIES FULMAR_ITEM_WAITS
    " FROM fulmar_queue_item i JOIN fulmar_queue q ON q.id = i.queue WHERE i.id = $1::text"};

#define FULMAR_LIST(compare, order)                                                         \
  "SELECT " FULMAR_ITEM_FIXED FULMAR_ITEM_BODIES_IF("$11") FULMAR_ITEM_WAITS                \
      ", i.ord"                                                                             \
      " FROM fulmar_queue q JOIN fulmar_queue_item i ON i.queue = q.id"                     \
      " WHERE i.queue = (SELECT id FROM fulmar_queue WHERE name = $1::text)" FULMAR_FILTER( \
          "$2", "$3", "$4", "$5", "$6", "$7") " AND (i.ord, i.id) " compare                 \
                                              " ($8::int8, $9::text)"                       \
                                              " ORDER BY i.ord " order ", i.id " order " LIMIT $10::int8"
const Statement list_forward{FULMAR_LIST(">", "ASC")};
const Statement list_backward{FULMAR_LIST("<", "DESC")};

// The ready ones in the order of their index, and those whose time has come since somebody claimed.
const Statement peek_items{
    "WITH q AS MATERIALIZED (SELECT id, name FROM fulmar_queue WHERE name = $1::text AND NOT paused), c AS MATERIALIZED ("
    "(SELECT id FROM fulmar_queue_item WHERE queue = (SELECT id FROM q) AND state = 0"
    " ORDER BY priority DESC, ord, id LIMIT $2::int8)"
    " UNION ALL (SELECT id FROM fulmar_queue_item WHERE queue = (SELECT id FROM q) AND state = 1"
    " AND scheduled_at <= " FULMAR_NOW("$3") " ORDER BY priority DESC, ord, id LIMIT $2::int8))"
    " SELECT " FULMAR_ITEM_FIXED FULMAR_ITEM_BODIES FULMAR_ITEM_WAITS
    " FROM q, c JOIN fulmar_queue_item i ON i.id = c.id ORDER BY i.priority DESC, i.ord, i.id LIMIT $2::int8"};

const Statement count_items{
    "SELECT i.type, i.state, count(*),"
    " count(*) FILTER (WHERE i.state <= 1 AND i.scheduled_at > " FULMAR_NOW("$2") "),"
    " min(CASE WHEN i.state = 0 OR i.state = 1 AND i.scheduled_at <= " FULMAR_NOW("$2")
    " THEN greatest(i.created_at, i.scheduled_at) END), " FULMAR_NOW("$2")
    " FROM fulmar_queue_item i WHERE i.queue = (SELECT id FROM fulmar_queue WHERE name = $1::text)"
    " GROUP BY i.type, i.state"};
// From claimable to claimed of the items that were finished last.
const Statement latencies{
    "SELECT greatest(f.started_at - greatest(f.created_at, f.scheduled_at), 0) FROM (VALUES (4), (5), (6)) s "
    "(state)"
    " CROSS JOIN LATERAL (SELECT created_at, scheduled_at, started_at, completed_at FROM fulmar_queue_item"
    " WHERE queue = (SELECT id FROM fulmar_queue WHERE name = $1::text) AND state = s.state AND state >= 4"
    " ORDER BY completed_at DESC LIMIT 1000) f"
    " WHERE f.started_at IS NOT NULL ORDER BY f.completed_at DESC LIMIT 1000"};

Params settings_params(std::string_view queue, const Settings& s) {
  const auto us = [](const std::optional<Duration>& d) {
    return d ? std::optional<std::int64_t>(d->count()) : std::nullopt;
  };
  const auto number = [](const std::optional<std::uint64_t>& n) {
    return n ? std::optional<std::int64_t>(static_cast<std::int64_t>(*n)) : std::nullopt;
  };
  Params params;
  params.add(queue)
      .add(number(s.max_size))
      .add(std::int32_t{s.default_max_retries})
      .add(std::int64_t{s.lease.count()});
  params.add(std::int64_t{s.backoff_min.count()}).add(std::int64_t{s.backoff_max.count()});
  params.add(us(s.keep_completed)).add(us(s.keep_failed)).add(number(s.keep_finished_max));
  params.add(static_cast<std::int16_t>(s.durability))
      .add(std::int64_t{s.sync_interval.count()})
      .add(s.durable_claim);
  return params;
}

Settings read_settings(const Rows& rows, std::size_t row, int column) {
  const auto period = [&](int at) {
    const auto us = rows.maybe_number(row, at);
    return us ? std::optional<Duration>(*us) : std::nullopt;
  };
  const auto number = [&](int at) {
    const auto n = rows.maybe_number(row, at);
    return n ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(*n)) : std::nullopt;
  };
  Settings s;
  s.max_size = number(column);
  s.default_max_retries = static_cast<int>(rows.number(row, column + 1));
  s.lease = Duration(rows.number(row, column + 2));
  s.backoff_min = Duration(rows.number(row, column + 3));
  s.backoff_max = Duration(rows.number(row, column + 4));
  s.keep_completed = period(column + 5);
  s.keep_failed = period(column + 6);
  s.keep_finished_max = number(column + 7);
  s.durability = static_cast<Durability>(rows.number(row, column + 8));
  s.sync_interval = Duration(rows.number(row, column + 9));
  s.durable_claim = rows.boolean(row, column + 10);
  return s;
}

// Where a page ended: "ord:id".
std::optional<std::pair<std::int64_t, std::string_view>> read_cursor(std::string_view after) {
  std::int64_t order = 0;
  const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), order);
  if (error != std::errc{} || end == after.data() + after.size() || *end != ':') return std::nullopt;
  return std::pair{order, after.substr(static_cast<std::size_t>(end - after.data()) + 1)};
}

}  // namespace

// --- what rows mean ---------------------------------------------------------------------------------------------------

Status status_of(std::int64_t state) {
  switch (static_cast<State>(state)) {
    case State::ready:
    case State::scheduled:
    case State::waiting: return Status::pending;
    case State::processing: return Status::processing;
    case State::completed: return Status::completed;
    case State::failed: return Status::failed;
    case State::cancelled: return Status::cancelled;
  }
  return Status::failed;
}

State state_of(Status status) {
  switch (status) {
    case Status::pending: return State::ready;
    case Status::processing: return State::processing;
    case Status::completed: return State::completed;
    case Status::failed: return State::failed;
    case Status::cancelled: return State::cancelled;
  }
  return State::failed;
}

Time time_of(std::int64_t us) { return Time(Duration(us)); }
std::int64_t us_of(Time time) { return time.time_since_epoch().count(); }
std::optional<std::int64_t> us_of(const std::optional<Time>& time) {
  return time ? std::optional<std::int64_t>(us_of(*time)) : std::nullopt;
}

std::vector<std::string_view> views(std::span<const ItemId> ids) { return {ids.begin(), ids.end()}; }

Item read_item(const Rows& rows, std::size_t row, bool waits) {
  const auto time = [&](int column) {
    const auto us = rows.maybe_number(row, column);
    return us ? std::optional<Time>(time_of(*us)) : std::nullopt;
  };
  Item item;
  item.id = rows.text(row, 0);
  item.queue = rows.text(row, 1);
  item.status = status_of(rows.number(row, 2));
  item.priority = static_cast<int>(rows.number(row, 3));
  item.retry_count = static_cast<int>(rows.number(row, 4));
  item.max_retries = static_cast<int>(rows.number(row, 5));
  item.created_at = time_of(rows.number(row, 6));
  item.scheduled_at = time(7);
  item.started_at = time(8);
  item.completed_at = time(9);
  item.lease_until = time(10);
  item.type = rows.text(row, 12);
  item.unique_key = rows.text(row, 13);
  item.lease_owner = rows.text(row, 14);
  item.error_message = rows.text(row, 15);
  item.depends_on = rows.texts(row, 16);
  if (rows.is_null(row, 17)) {
    item.payload = item.metadata = "{}";
  } else {
    item.payload = rows.text(row, 17);
    item.metadata = rows.text(row, 18);
    item.result = rows.text(row, 19);
  }
  if (waits) {
    const auto found = rows.texts(row, 20);
    for (const auto& dependency : item.depends_on) {  // in the order in which they were given
      if (std::ranges::find(found, dependency) != found.end()) item.waiting_for.push_back(dependency);
    }
    item.dependency_failed = rows.boolean(row, 21);
  }
  return item;
}

void add_filter(Params& params, const Filter& filter) {
  if (filter.statuses.empty()) {
    params.add_null();
  } else {
    std::vector<std::int16_t> states;
    for (const auto status : filter.statuses) {
      if (status == Status::pending) {
        states.insert(states.end(), {0, 1, 2});
      } else {
        states.push_back(static_cast<std::int16_t>(state_of(status)));
      }
    }
    params.add(std::span<const std::int16_t>(states));
  }
  if (filter.types.empty()) {
    params.add_null();
  } else {
    params.add(std::span<const std::string_view>(views(filter.types)));
  }
  params.add(filter.unique_key.empty() ? std::nullopt : std::optional<std::string_view>(filter.unique_key));
  params.add(us_of(filter.created_before)).add(us_of(filter.finished_before));
  params.add(filter.only_waiting_for_dependencies);
}

std::string storable(std::string_view text) {
  const auto continues = [&](std::size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    std::size_t length = 0;
    if (c != 0 && c < 0x80) {
      length = 1;
    } else if (c >= 0xC2 && c <= 0xDF && continues(i + 1)) {
      length = 2;
    } else if (c >= 0xE0 && c <= 0xEF && continues(i + 1) && continues(i + 2) &&
               !(c == 0xE0 && next < 0xA0) && !(c == 0xED && next > 0x9F)) {
      length = 3;
    } else if (c >= 0xF0 && c <= 0xF4 && continues(i + 1) && continues(i + 2) && continues(i + 3) &&
               !(c == 0xF0 && next < 0x90) && !(c == 0xF4 && next > 0x8F)) {
      length = 4;
    }
    if (length == 0) {
      result += "\xEF\xBF\xBD";
      ++i;
    } else {
      result += text.substr(i, length);
      i += length;
    }
  }
  return result;
}

// --- queues -----------------------------------------------------------------------------------------------------------

Result<std::vector<std::string>> PostgresOperations::queues() {
  auto rows = transaction_.execute(all_queues);
  if (!rows) return std::unexpected(rows.error());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < rows->size(); ++i) names.emplace_back(rows->text(i, 0));
  return names;
}

Result<std::optional<PostgresOperations::QueueRow>> PostgresOperations::find_queue(std::string_view queue,
                                                                                   bool lock) {
  auto rows = transaction_.execute(lock ? select_queue_locked : select_queue, Params().add(queue));
  if (!rows) return std::unexpected(rows.error());
  if (rows->empty()) return std::nullopt;
  return QueueRow{static_cast<std::int32_t>(rows->number(0, 0)), std::string(rows->text(0, 1)),
                  read_settings(*rows, 0, 4), rows->number(0, 3), rows->boolean(0, 2)};
}

Result<PostgresOperations::QueueRow> PostgresOperations::make_queue(std::string_view queue, bool lock) {
  auto found = find_queue(queue, lock);
  if (!found) return std::unexpected(found.error());
  if (*found) return **found;
  // Somebody else may be doing the same; then the statement after it sees theirs.
  if (auto made = transaction_.execute(insert_queue, settings_params(queue, {})); !made) {
    return std::unexpected(made.error());
  }
  found = find_queue(queue, lock);
  if (!found) return std::unexpected(found.error());
  if (*found) return **found;
  return std::unexpected(transaction_.doom(
      {Errc::io_error,
       transaction_.store().shown + ": queue " + std::string(queue) + " is removed as it is made",
       {}},
      true));
}

Result<std::map<std::int32_t, PostgresOperations::QueueRow>> PostgresOperations::queues_by_id(
    std::span<const std::int32_t> ids) {
  auto rows = transaction_.execute(select_queues_by_id, Params().add(ids));
  if (!rows) return std::unexpected(rows.error());
  std::map<std::int32_t, QueueRow> found;
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const auto id = static_cast<std::int32_t>(rows->number(i, 0));
    found.emplace(id, QueueRow{id, std::string(rows->text(i, 1)), read_settings(*rows, i, 4),
                               rows->number(i, 3), rows->boolean(i, 2)});
  }
  return found;
}

Result<std::optional<Error>> PostgresOperations::take_room(const QueueRow& queue, std::uint64_t items) {
  if (!queue.settings.max_size) return std::nullopt;
  const auto wanted = static_cast<std::int64_t>(items);
  std::int64_t room = queue.room;
  if (room < wanted) {
    auto counted = transaction_.execute(select_room, Params().add(queue.id));
    if (!counted) return std::unexpected(counted.error());
    room = counted->number(0, 0);
    if (room < wanted) {
      const auto max_size = *queue.settings.max_size;
      return queue_full(queue.name, static_cast<std::uint64_t>(static_cast<std::int64_t>(max_size) - room),
                        max_size);
    }
  }
  auto taken = transaction_.execute(update_room, Params().add(queue.id).add(room - wanted));
  if (!taken) return std::unexpected(taken.error());
  return std::nullopt;
}

Result<Settings> PostgresOperations::settings(std::string_view queue) {
  auto found = find_queue(queue, false);
  if (!found) return std::unexpected(found.error());
  if (!*found) return Settings{};
  return (*found)->settings;
}

Result<void> PostgresOperations::set_settings(std::string_view queue, const Settings& settings) {
  auto made = make_queue(queue, true);
  if (!made) return std::unexpected(made.error());
  auto updated = transaction_.execute(update_queue, settings_params(queue, settings));
  if (!updated) return std::unexpected(updated.error());
  transaction_.changed();
  return {};
}

Result<void> PostgresOperations::set_paused(std::string_view queue, bool paused) {
  auto made = make_queue(queue, true);
  if (!made) return std::unexpected(made.error());
  auto updated = transaction_.execute(update_paused, Params().add(queue).add(paused));
  if (!updated) return std::unexpected(updated.error());
  transaction_.changed();
  if (!paused) transaction_.wakes(queue);
  return {};
}

Result<bool> PostgresOperations::paused(std::string_view queue) {
  auto found = find_queue(queue, false);
  if (!found) return std::unexpected(found.error());
  return *found && (*found)->paused;
}

// --- items ------------------------------------------------------------------------------------------------------------

Result<Item> PostgresOperations::get(std::string_view id) {
  auto rows = transaction_.execute(select_item, Params().add(id));
  if (!rows) return std::unexpected(rows.error());
  if (rows->empty()) return std::unexpected(not_found(id));
  return read_item(*rows, 0, true);
}

Result<Listed> PostgresOperations::list(std::string_view queue, const Filter& filter, const Page& page) {
  auto cursor = page.newest_first ? std::pair{std::numeric_limits<std::int64_t>::max(), std::string_view("~")}
                                  : std::pair{std::numeric_limits<std::int64_t>::min(), std::string_view()};
  if (!page.after.empty()) {
    const auto read = read_cursor(page.after);
    if (!read) {
      return fulmar::fail(Errc::invalid_item, "page after \"" + page.after.substr(0, 40) +
                                                  "\": it has to be what the page before gave as next");
    }
    cursor = *read;
  }
  Params params;
  params.add(queue);
  add_filter(params, filter);
  // One more than asked for tells whether there is a next page.
  params.add(cursor.first)
      .add(cursor.second)
      .add(static_cast<std::int64_t>(page.items_max) + 1)
      .add(page.bodies);
  auto rows = transaction_.execute(page.newest_first ? list_backward : list_forward, std::move(params));
  if (!rows) return std::unexpected(rows.error());
  Listed listed;
  const auto count = std::min(rows->size(), page.items_max);
  for (std::size_t i = 0; i < count; ++i) listed.items.push_back(read_item(*rows, i, true));
  if (rows->size() > page.items_max) {
    const auto& last = listed.items.back();
    listed.next = std::to_string(rows->number(count - 1, 22)) + ":" + last.id;
  }
  return listed;
}

Result<std::vector<Item>> PostgresOperations::peek(std::string_view queue, std::size_t items_max) {
  auto rows = transaction_.execute(
      peek_items, Params().add(queue).add(static_cast<std::int64_t>(items_max)).add(transaction_.now()));
  if (!rows) return std::unexpected(rows.error());
  std::vector<Item> items;
  for (std::size_t i = 0; i < rows->size(); ++i) items.push_back(read_item(*rows, i, true));
  return items;
}

Result<Stats> PostgresOperations::stats(std::string_view queue) {
  std::vector<Call> calls;
  calls.push_back({&select_queue, Params().add(queue)});
  calls.push_back({&count_items, Params().add(queue).add(transaction_.now())});
  calls.push_back({&latencies, Params().add(queue)});
  auto answer = transaction_.execute(std::move(calls));
  if (!answer) return std::unexpected(answer.error());
  Stats stats;
  if (const auto& row = (*answer)[0]; !row.empty()) {
    stats.paused = row.boolean(0, 2);
    stats.max_size = read_settings(row, 0, 4).max_size;
  }
  const auto& counts = (*answer)[1];
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto number = static_cast<std::uint64_t>(counts.number(i, 2));
    for (auto* sum : {&stats.counts, &stats.by_type[std::string(counts.text(i, 0))]}) {
      switch (status_of(counts.number(i, 1))) {
        case Status::pending: sum->pending += number; break;
        case Status::processing: sum->processing += number; break;
        case Status::completed: sum->completed += number; break;
        case Status::failed: sum->failed += number; break;
        case Status::cancelled: sum->cancelled += number; break;
      }
    }
    stats.scheduled += static_cast<std::uint64_t>(counts.number(i, 3));
    if (static_cast<State>(counts.number(i, 1)) == State::waiting) stats.waiting += number;
    if (const auto since = counts.maybe_number(i, 4)) {
      const Duration age(std::max<std::int64_t>(counts.number(i, 5) - *since, 0));
      stats.oldest_pending_age = std::max(stats.oldest_pending_age.value_or(age), age);
    }
  }
  const auto& latency_rows = (*answer)[2];
  if (!latency_rows.empty()) {
    std::vector<std::int64_t> us;
    for (std::size_t i = 0; i < latency_rows.size(); ++i) us.push_back(latency_rows.number(i, 0));
    std::ranges::sort(us);
    stats.claim_latency_p50 = Duration(us[(us.size() - 1) / 2]);
    stats.claim_latency_p99 = Duration(us[(us.size() - 1) * 99 / 100]);
    stats.claim_latency_max = Duration(us.back());
  }
  return stats;
}

}  // namespace fulmar::queue::postgres
