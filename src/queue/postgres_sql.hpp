#pragma once
// What the statements of PostgresOperations have in common: macros, because a statement is one literal.

#include "queue/item_table.hpp"
#include "queue/postgres_operations.hpp"

// The time of a statement: of the clock given ($n), else the server's.
#define FULMAR_NOW(n) "coalesce(" n "::int8, (extract(epoch FROM statement_timestamp()) * 1000000)::int8)"

// An item `i` of queue `q`, as read_item() wants it. Bodies are left out where $n is false.
#define FULMAR_ITEM_FIXED                                                                                \
  "i.id, q.name, i.state, i.priority, i.retry_count, i.max_retries, i.created_at, i.scheduled_at,"       \
  " i.started_at, i.completed_at, i.lease_until, i.token, i.type, i.unique_key, i.lease_owner, i.error," \
  " i.depends_on"
#define FULMAR_ITEM_BODIES ", i.payload, i.metadata, i.result"
#define FULMAR_ITEM_BODIES_IF(n)                             \
  ", CASE WHEN " n "::bool THEN i.payload END, CASE WHEN " n \
  "::bool THEN i.metadata END, CASE "                        \
  "WHEN " n "::bool THEN i.result END"
// What it waits for, and whether that has failed; nothing is read for an item without dependencies.
#define FULMAR_ITEM_WAITS                                                                                  \
  ", CASE WHEN i.depends_on <> '{}' THEN ARRAY(SELECT w.dependency FROM fulmar_queue_wait w"               \
  " WHERE w.item = i.id AND NOT w.done) END, CASE WHEN i.depends_on <> '{}' THEN EXISTS(SELECT 1 FROM "    \
  "fulmar_queue_wait w"                                                                                    \
  " JOIN fulmar_queue_item d ON d.id = w.dependency WHERE w.item = i.id AND NOT w.done AND d.state >= 5) " \
  "ELSE false END"

// Item `i` is what another one, that is not completed, depends on.
#define FULMAR_IS_NEEDED "EXISTS(SELECT 1 FROM fulmar_queue_wait w WHERE w.dependency = i.id)"

// Filter in $first .. (see add_filter()): statuses, types, unique key, created before, finished before, only waiting.
#define FULMAR_FILTER(a, b, c, d, e, f)                                                                \
  " AND (" a "::int2[] IS NULL OR i.state = ANY(" a ")) AND (" b "::text[] IS NULL OR i.type = ANY(" b \
  ")) AND (" c "::text IS NULL OR i.unique_key = " c ") AND (" d "::int8 IS NULL OR i.created_at < " d \
  ") AND (" e "::int8 IS NULL OR i.completed_at < " e ") AND (NOT " f "::bool OR i.state = 2)"

namespace fulmar::queue::postgres {

Status status_of(std::int64_t state);
State state_of(Status status);  // of a finished or processing one
Time time_of(std::int64_t us);
std::int64_t us_of(Time time);
std::optional<std::int64_t> us_of(const std::optional<Time>& time);

// A row of FULMAR_ITEM_FIXED, bodies, and FULMAR_ITEM_WAITS when `waits`.
Item read_item(const Rows& rows, std::size_t row, bool waits);
void add_filter(Params& params, const Filter& filter);

// $1: items; those of them that are completed need nothing any more, and whoever waits for them does so no longer: returned.
extern const Statement settle_completed;

std::vector<std::string_view> views(std::span<const ItemId> ids);

// How many of `rows`, at least one, a statement carries. libpq moves all that it has not yet sent whenever the socket takes
// a piece: one statement of 24 MiB would copy gigabytes.
template <typename Row, typename BytesOf>
std::size_t for_one_statement(std::span<const Row> rows, BytesOf bytes_of) {
  constexpr std::size_t bytes_enough = std::size_t{1} << 20;
  std::size_t count = 0;
  for (std::size_t bytes = 0; count < rows.size() && (count == 0 || bytes < bytes_enough); ++count) {
    bytes += bytes_of(rows[count]);
  }
  return count;
}

// UTF-8 without control characters that a server does not store: others become U+FFFD.
std::string storable(std::string_view text);

}  // namespace fulmar::queue::postgres
