#include "queue/postgres_schema.hpp"

#include <string>

namespace fulmar::queue::postgres {
namespace {

// Times: microseconds since 1970, UTC, as the model has them (to_timestamp(created_at / 1e6) for people).
// Ids and texts compare by bytes (COLLATE "C"): the order of claims is the same in every locale.
const Statement version_1[] = {
    {"CREATE TABLE fulmar_queue_version (version int8 NOT NULL)", false},
    {"INSERT INTO fulmar_queue_version VALUES (0)", false},
    {"CREATE TABLE fulmar_queue ("
     " id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
     " name text COLLATE \"C\" NOT NULL UNIQUE,"
     " paused bool NOT NULL DEFAULT false,"
     " max_size int8,"
     " default_max_retries int4 NOT NULL,"
     " lease_us int8 NOT NULL,"
     " backoff_min_us int8 NOT NULL,"
     " backoff_max_us int8 NOT NULL,"
     " keep_completed_us int8,"
     " keep_failed_us int8,"
     " keep_finished_max int8,"
     " durability int2 NOT NULL,"
     " sync_interval_us int8 NOT NULL,"
     " durable_claim bool NOT NULL,"
     " room int8 NOT NULL DEFAULT 0,"
     " counted_at int8 NOT NULL DEFAULT 0)",
     false},
    {"CREATE TABLE fulmar_queue_item ("
     " id text COLLATE \"C\" PRIMARY KEY,"
     " queue int4 NOT NULL,"
     " state int2 NOT NULL,"  // 0 ready 1 scheduled 2 waiting (all three: pending) 3 processing 4 completed 5 failed 6 cancelled
     " priority int4 NOT NULL,"
     " retry_count int4 NOT NULL,"
     " max_retries int4 NOT NULL,"
     " ord int8 NOT NULL,"  // of submission: microseconds << 11, and what keeps apart those of the same one
     " created_at int8 NOT NULL,"
     " scheduled_at int8,"
     " started_at int8,"
     " completed_at int8,"
     " lease_until int8,"
     " token int8 NOT NULL DEFAULT 0,"
     " type text COLLATE \"C\" NOT NULL,"
     " unique_key text COLLATE \"C\","
     " lease_owner text COLLATE \"C\","
     " request text COLLATE \"C\","
     " error text NOT NULL DEFAULT '',"
     " depends_on text[] COLLATE \"C\" NOT NULL DEFAULT '{}',"
     " payload text NOT NULL,"
     " metadata text NOT NULL,"
     " result text NOT NULL DEFAULT '')"
     // Each row is written anew at every step of its life; let the space be found again soon.
     " WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,"
     " autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)",
     false},
    // Only what can run: a claim reads as many entries as it takes, whatever else is stored.
    {"CREATE INDEX fulmar_queue_item_ready ON fulmar_queue_item (queue, priority DESC, ord, id)"
     " WHERE state = 0",
     false},
    {"CREATE INDEX fulmar_queue_item_ready_type ON fulmar_queue_item"
     " (queue, type, priority DESC, ord, id) WHERE state = 0",
     false},
    {"CREATE INDEX fulmar_queue_item_due ON fulmar_queue_item (queue, scheduled_at) WHERE state = 1", false},
    {"CREATE INDEX fulmar_queue_item_waiting ON fulmar_queue_item (queue) WHERE state = 2", false},
    {"CREATE INDEX fulmar_queue_item_lease ON fulmar_queue_item (queue, lease_until) WHERE state = 3", false},
    {"CREATE INDEX fulmar_queue_item_request ON fulmar_queue_item (request)"
     " WHERE state = 3 AND request IS NOT NULL",
     false},
    {"CREATE INDEX fulmar_queue_item_finished ON fulmar_queue_item (queue, state, completed_at)"
     " WHERE state >= 4",
     false},
    {"CREATE UNIQUE INDEX fulmar_queue_item_unique ON fulmar_queue_item (queue, unique_key)"
     " WHERE state <= 3 AND unique_key IS NOT NULL",
     false},
    {"CREATE INDEX fulmar_queue_item_order ON fulmar_queue_item (queue, ord, id)", false},
    {"CREATE TABLE fulmar_queue_wait ("
     " item text COLLATE \"C\" NOT NULL,"
     " dependency text COLLATE \"C\" NOT NULL,"
     " done bool NOT NULL,"
     " PRIMARY KEY (item, dependency))",
     false},
    {"CREATE INDEX fulmar_queue_wait_dependency ON fulmar_queue_wait (dependency, item)", false},
};

const Migration all_migrations[] = {version_1};

const Statement begin{"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"};
const Statement commit{"COMMIT"};
const Statement rollback{"ROLLBACK"};
// The lock is of the database and the schema, not of tables that may not be there.
const Statement lock_migration{
    "SELECT pg_advisory_xact_lock(hashtextextended('fulmar_queue/migrate/' || coalesce(current_schema(), "
    "''), 0))"};
const Statement find_table{
    "SELECT c.relnamespace::int8 FROM pg_class c WHERE c.oid = to_regclass('fulmar_queue_version')"};
const Statement find_schema{"SELECT n.oid::int8 FROM pg_namespace n WHERE n.nspname = current_schema()"};
const Statement read_version{"SELECT max(version) FROM fulmar_queue_version"};
const Statement write_version{"UPDATE fulmar_queue_version SET version = $1::int8"};

Answer execute(Connection& connection, const Statement& statement, Params params = {}) {
  std::vector<Call> calls;
  calls.push_back({&statement, std::move(params)});
  return connection.execute(std::move(calls));
}

std::expected<Schema, Fault> migrate_locked(Connection& connection, std::string_view shown_url,
                                            std::span<const Migration> known) {
  auto schema = read_schema(connection, shown_url, known);
  if (!schema) return schema;
  const auto newest = static_cast<std::int64_t>(known.size());
  if (schema->version == newest) return schema;
  if (schema->version == 0) {
    auto where = execute(connection, find_schema);
    if (!where) return std::unexpected(std::move(where.error()));
    if ((*where)[0].empty()) {
      return std::unexpected(
          Fault{Error{Errc::not_found,
                      std::string(shown_url) +
                          ": the search_path names no schema that exists; create it, or name another one",
                      {}},
                {},
                false,
                {}});
    }
    schema->oid = (*where)[0].number(0, 0);
  }
  std::vector<Call> calls;
  for (const auto& migration : known.subspan(static_cast<std::size_t>(schema->version))) {
    for (const auto& statement : migration) calls.push_back({&statement, {}});
  }
  calls.push_back({&write_version, Params().add(newest)});
  if (auto made = connection.execute(std::move(calls)); !made)
    return std::unexpected(std::move(made.error()));
  schema->version = newest;
  return schema;
}

}  // namespace

std::span<const Migration> migrations() { return all_migrations; }

std::expected<Schema, Fault> read_schema(Connection& connection, std::string_view shown_url,
                                         std::span<const Migration> known) {
  Schema schema;
  auto table = execute(connection, find_table);
  if (!table) return std::unexpected(std::move(table.error()));
  if ((*table)[0].empty()) return schema;
  schema.oid = (*table)[0].number(0, 0);
  auto version = execute(connection, read_version);
  if (!version) return std::unexpected(std::move(version.error()));
  schema.version = (*version)[0].maybe_number(0, 0).value_or(0);
  if (schema.version < 1 || schema.version > static_cast<std::int64_t>(known.size())) {
    return std::unexpected(
        Fault{Error{schema.version < 1 ? Errc::damaged : Errc::incompatible,
                    std::string(shown_url) + ": the queue's tables are of version " +
                        std::to_string(schema.version) + ", and this program knows 1 to " +
                        std::to_string(known.size()) +
                        (schema.version < 1 ? "; restore fulmar_queue_version" : "; use a newer fulmar"),
                    {}},
              {},
              false,
              {}});
  }
  return schema;
}

std::expected<Schema, Fault> migrate(Connection& connection, std::string_view shown_url,
                                     std::span<const Migration> known) {
  std::vector<Call> calls;
  calls.push_back({&begin, {}});
  calls.push_back({&lock_migration, {}});
  if (auto locked = connection.execute(std::move(calls)); !locked) {
    static_cast<void>(execute(connection, rollback));
    return std::unexpected(std::move(locked.error()));
  }
  auto schema = migrate_locked(connection, shown_url, known);
  auto ended = execute(connection, schema ? commit : rollback);
  if (schema && !ended) return std::unexpected(std::move(ended.error()));
  return schema;
}

}  // namespace fulmar::queue::postgres
