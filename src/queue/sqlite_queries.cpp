// Looking, counting and cleaning.
#include <algorithm>
#include <charconv>

#include "queue/item_table.hpp"
#include "queue/sqlite_guard.hpp"
#include "queue/sqlite_schema.hpp"

namespace fulmar::queue {
namespace {

constexpr std::size_t upkeep_rows_max = 500;

std::size_t index_of(Status status) { return static_cast<std::size_t>(status); }

std::uint64_t* count_of(Counts& counts, Status status) {
  std::uint64_t* all[] = {&counts.pending, &counts.processing, &counts.completed, &counts.failed,
                          &counts.cancelled};
  return all[index_of(status)];
}

}  // namespace

Result<Item> SqliteOperations::get(std::string_view id) {
  return guarded([&]() -> Result<Item> {
    const auto at = find(id);
    if (at == 0) return std::unexpected(not_found(id));
    Item item;
    {
      auto& statement = sql("SELECT " ITEM_COLUMNS ITEM_TABLES "WHERE i.id=?");
      statement.bind(1, at);
      Rows rows(statement);
      if (!rows.next()) return std::unexpected(not_found(id));
      item = read_item(statement);
    }
    fill_dependencies(item);
    return item;
  });
}

// --- many -------------------------------------------------------------------------------------------------------------

// Values come as parameters but for the states, which are numbers of ours.
std::string SqliteOperations::filter_sql(const Filter& filter) {
  std::string where = "i.qid=?1";
  if (!filter.statuses.empty()) {
    where += " AND i.state IN (";
    for (const auto status : filter.statuses) {
      if (status == Status::pending)
        where += "10,11,12,";
      else
        where += std::to_string(schema::state_of(status, false, false)) + ",";
    }
    where.back() = ')';
  }
  if (!filter.types.empty()) {
    where += " AND i.type IN (SELECT tid FROM type WHERE name IN (";
    for (std::size_t i = 0; i < filter.types.size(); ++i) where += "?" + std::to_string(10 + i) + ",";
    where.back() = ')';
    where += ")";
  }
  if (!filter.unique_key.empty()) where += " AND i.ukey=?2";
  if (filter.created_before) where += " AND i.created<?3";
  if (filter.finished_before) where += " AND i.finished>0 AND i.finished<?4";
  if (filter.only_waiting_for_dependencies) where += " AND i.state=10";
  return where;
}

void SqliteOperations::bind_filter(Statement& statement, const Filter& filter, std::int64_t qid) {
  statement.bind(1, qid);
  for (std::size_t i = 0; i < filter.types.size(); ++i)
    statement.bind(static_cast<int>(10 + i), filter.types[i]);
  if (!filter.unique_key.empty()) statement.bind(2, filter.unique_key);
  if (filter.created_before) statement.bind(3, filter.created_before->time_since_epoch().count());
  if (filter.finished_before) statement.bind(4, filter.finished_before->time_since_epoch().count());
}

Result<Listed> SqliteOperations::list(std::string_view name, const Filter& filter, const Page& page) {
  return guarded([&]() -> Result<Listed> {
    Listed listed;
    std::int64_t after = 0;
    if (!page.after.empty()) {
      const auto* end = page.after.data() + page.after.size();
      if (std::from_chars(page.after.data(), end, after).ptr != end) {
        return fulmar::fail(Errc::invalid_item,
                            "page cursor \"" + page.after + "\": it has to be Listed::next of a page before");
      }
    }
    std::string query = "SELECT " ITEM_COLUMNS ITEM_TABLES "WHERE " + filter_sql(filter);
    if (!page.after.empty()) query += page.newest_first ? " AND i.id<?5" : " AND i.id>?5";
    query += page.newest_first ? " ORDER BY i.id DESC" : " ORDER BY i.id";
    Statement statement(connection_.handle(), query + " LIMIT " + std::to_string(page.items_max + 1));
    bind_filter(statement, filter, queue_row(name).qid);
    if (!page.after.empty()) statement.bind(5, after);
    std::int64_t last = 0;
    for (Rows rows(statement); rows.next();) {
      if (listed.items.size() == page.items_max) {
        listed.next = std::to_string(last);
        break;
      }
      listed.items.push_back(read_item(statement));
      last = statement.number(0);
    }
    for (auto& item : listed.items) {
      fill_dependencies(item);
      if (page.bodies) continue;
      item.payload = item.metadata = "{}";
      item.result.clear();
    }
    return listed;
  });
}

Result<std::vector<Item>> SqliteOperations::peek(std::string_view name, std::size_t items_max) {
  return guarded([&]() -> Result<std::vector<Item>> {
    std::vector<Item> items;
    const auto& queue = queue_row(name);
    if (queue.paused) return items;
    // What has become due is not moved to the ready ones, since nothing is changed here.
    for (const char* text : {"SELECT " ITEM_COLUMNS ITEM_TABLES "WHERE i.state=11 AND i.qid=?1 AND ?2=?2 "
                             "ORDER BY i.prio DESC, i.id LIMIT ?3",
                             "SELECT " ITEM_COLUMNS ITEM_TABLES "WHERE i.state=12 AND i.qid=?1 AND i.due<=?2 "
                             "ORDER BY i.prio DESC, i.id LIMIT ?3"}) {
      auto& statement = sql(text);
      statement.bind(1, queue.qid)
          .bind(2, clock_.now().time_since_epoch().count())
          .bind(3, static_cast<std::int64_t>(items_max));
      for (Rows rows(statement); rows.next();) items.push_back(read_item(statement));
    }
    std::ranges::sort(items, claimed_before);
    if (items.size() > items_max) items.resize(items_max);
    return items;
  });
}

Result<void> SqliteOperations::can_remove(const ItemRow& item, std::string_view id) {
  if (auto ok = check_transition(id, schema::status_of(item.state), Verb::remove); !ok) return ok;
  if (any_dependencies() && sql("SELECT 1 FROM dep WHERE on_id=? LIMIT 1").bind(1, id).first()) {
    return std::unexpected(is_needed(id));
  }
  return {};
}

Result<std::vector<Refusal>> SqliteOperations::remove(std::span<const ItemId> ids) {
  return guarded([&]() -> Result<std::vector<Refusal>> {
    std::vector<Refusal> refusals;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto at = find(ids[i]);
      if (at == 0) {
        refusals.push_back({i, not_found(ids[i])});
        continue;
      }
      const auto item = *row(at);
      if (auto ok = can_remove(item, ids[i]); !ok)
        refusals.push_back({i, std::move(ok.error())});
      else
        erase(item);
    }
    return refusals;
  });
}

Result<std::uint64_t> SqliteOperations::purge(std::string_view name, const Filter& filter,
                                              std::size_t items_max) {
  return guarded([&]() -> Result<std::uint64_t> {
    Statement statement(
        connection_.handle(),
        "SELECT i.id,i.qid,i.state,i.token,i.created,i.attempts,i.attempts_max,i.ukey FROM item i WHERE " +
            filter_sql(filter) + " AND i.state<>13 ORDER BY i.id");
    bind_filter(statement, filter, queue_row(name).qid);
    std::vector<ItemRow> found;
    for (Rows rows(statement); found.size() < items_max && rows.next();) {
      ItemRow item{statement.number(0), statement.number(1), statement.number(2), 0, 0, 0, 0, {}};
      if (any_dependencies() && !can_remove(item, public_id(item.id))) continue;
      found.push_back(std::move(item));
    }
    for (const auto& item : found) erase(item);
    return found.size();
  });
}

Result<Stats> SqliteOperations::stats(std::string_view name) {
  return guarded([&]() -> Result<Stats> {
    const Time now = clock_.now();
    const auto time = now.time_since_epoch().count();
    const auto& queue = queue_row(name);
    Stats stats;
    stats.paused = queue.paused;
    stats.max_size = queue.settings.max_size;
    {
      auto& statement = sql("SELECT state,type,count(*) FROM item WHERE qid=? GROUP BY state,type");
      statement.bind(1, queue.qid);
      for (Rows rows(statement); rows.next();) {
        const auto number = static_cast<std::uint64_t>(statement.number(2));
        const auto status = schema::status_of(statement.number(0));
        *count_of(stats.counts, status) += number;
        *count_of(stats.by_type[type_name(statement.number(1))], status) += number;
        if (statement.number(0) == schema::blocked) stats.waiting += number;
      }
    }
    stats.scheduled =
        static_cast<std::uint64_t>(sql("SELECT count(*) FROM item WHERE state=12 AND due>? AND qid=?")
                                       .bind(1, time)
                                       .bind(2, queue.qid)
                                       .first()
                                       .value_or(0));
    const auto oldest = sql("SELECT min(max(created,coalesce(due,created))) FROM item "
                            "WHERE qid=?1 AND (state=11 OR (state=12 AND due<=?2))")
                            .bind(1, queue.qid)
                            .bind(2, time)
                            .first();
    if (oldest) stats.oldest_pending_age = now - Time(Duration(*oldest));
    std::vector<Duration> latencies;
    auto& statement =
        sql("SELECT started-max(created,coalesce(due,created)) FROM item "
            "WHERE qid=? AND state>=14 AND started>0 ORDER BY finished DESC LIMIT 1000");
    statement.bind(1, queue.qid);
    for (Rows rows(statement); rows.next();)
      latencies.push_back(std::max(Duration(statement.number(0)), Duration(0)));
    if (!latencies.empty()) {
      std::ranges::sort(latencies);
      stats.claim_latency_p50 = latencies[(latencies.size() - 1) / 2];
      stats.claim_latency_p99 = latencies[(latencies.size() - 1) * 99 / 100];
      stats.claim_latency_max = latencies.back();
    }
    return stats;
  });
}

// --- upkeep -----------------------------------------------------------------------------------------------------------

Result<Upkeep> SqliteOperations::upkeep() {
  return guarded([&]() -> Result<Upkeep> {
    const Time now = clock_.now();
    const auto time = now.time_since_epoch().count();
    Upkeep upkeep;
    upkeep.expired = expire(now) + bury(now);
    std::vector<std::string> names;
    {
      auto& statement = sql("SELECT name FROM queue ORDER BY name");
      for (Rows rows(statement); rows.next();) names.emplace_back(statement.text(0));
    }
    for (const auto& name : names) {
      const QueueRow queue = queue_row(name);
      const auto& settings = queue.settings;
      std::int64_t beyond = 0;
      if (settings.keep_finished_max) {
        // Looks only as far as the number that may be kept: where the one behind it was finished.
        const auto border =
            sql("SELECT finished FROM item WHERE qid=? AND state>=14 ORDER BY finished DESC LIMIT 1 OFFSET ?")
                .bind(1, queue.qid)
                .bind(2, static_cast<std::int64_t>(*settings.keep_finished_max))
                .first();
        beyond = border.value_or(0);
      }
      const auto before = [&](const std::optional<Duration>& keep) {
        return keep ? time - keep->count() : 0;
      };
      auto& statement =
          sql("SELECT id,qid,state,token,created,attempts,attempts_max,ukey FROM item "
              "WHERE qid=?1 AND state>=14 AND (finished<=?2 OR (state=14 AND finished<?3) OR "
              "(state>14 AND finished<?4)) ORDER BY finished LIMIT ?5");
      statement.bind(1, queue.qid)
          .bind(2, beyond)
          .bind(3, before(settings.keep_completed))
          .bind(4, before(settings.keep_failed))
          .bind(5, static_cast<std::int64_t>(upkeep_rows_max + 1));
      for (const auto& item : rows_of(statement)) {
        if (upkeep.removed == upkeep_rows_max) {
          upkeep.more = true;
          return upkeep;
        }
        if (any_dependencies() && !can_remove(item, public_id(item.id))) continue;
        erase(item);
        ++upkeep.removed;
      }
    }
    sql("DELETE FROM request WHERE NOT EXISTS(SELECT 1 FROM item i WHERE i.id=request.id AND "
        "i.token=request.token)")
        .run();
    sql("DELETE FROM worker WHERE instance=0 AND NOT EXISTS(SELECT 1 FROM item i WHERE i.state=13 AND "
        "i.worker=wid)")
        .run();
    worker_ids_.clear();
    return upkeep;
  });
}

}  // namespace fulmar::queue
