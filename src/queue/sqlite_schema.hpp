#pragma once
// The tables of a work queue in SQLite, and how older ones become newer ones. docs/queue-format.md tells them to users.
//
// A row of `item` keeps its size from the first claim to the last: what is not known yet holds a number that is as long, so
// that no change of state splits a page. Payloads are in a table of their own, so that none is rewritten.

#include <cstdint>
#include <string_view>

#include "fulmar/queue_types.hpp"
#include "queue/sqlite_connection.hpp"

namespace fulmar::queue::schema {

inline constexpr std::int64_t application = 0x464C5121;  // "FLQ!"
inline constexpr std::int64_t version = 1;

// item.state. One byte each in a record.
enum State : std::int64_t {
  blocked = 10,    // pending, and waits for dependencies
  ready = 11,      // pending, claimable
  scheduled = 12,  // pending, claimable when `due` has come
  processing = 13,
  completed = 14,
  failed = 15,
  cancelled = 16,
};
Status status_of(std::int64_t state);
State state_of(Status status, bool has_to_wait, bool is_scheduled);

// As long as the real ones: 6 bytes and 2.
inline constexpr std::int64_t no_lease = std::int64_t{1} << 46;
inline constexpr std::int64_t no_token = std::int64_t{1} << 46;
inline constexpr std::int64_t no_worker = 999;  // ids begin at 1000
// Times that are not known yet are the negative time of creation: 8 bytes too.

// Makes the tables, or brings them to `version`. Within a write transaction. Throws SqliteFailure. Errors: incompatible (a
// newer one, or another program's database).
Result<void> prepare(SqliteConnection& connection, std::string_view path);
// The same question for who only reads: are these tables of `version`? Errors besides: not_found (none yet), incompatible (an
// older one, too).
Result<void> check(SqliteConnection& connection, std::string_view path);

}  // namespace fulmar::queue::schema
