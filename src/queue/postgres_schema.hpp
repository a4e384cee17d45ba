#pragma once
// The tables of the queues in a PostgreSQL database, and how older ones become today's.
//
// They lie in one schema of the database: that in which they are found over the search_path, else its first one
// (postgresql://host/database?options=-csearch_path%3Dwork chooses it).
//
//   fulmar_queue_version   one row: the number of migrations made
//   fulmar_queue           one row a queue: its settings, whether it is paused, and `room` (below)
//   fulmar_queue_item      one row an item
//   fulmar_queue_wait      one row for each dependency of an item, as long as that is not completed; `done` when the
//                          dependency is
//
// States are those of the model, with `pending` divided by why, so that the index of claims holds only what can be claimed.
//
// `room`: how many live items may still come into a queue with max_size before they have to be counted again. Who adds
// holds the queue's row and takes from it; nobody else writes it. It can be too small (what was finished since), never too
// large. So a submission neither counts all items nor makes those who finish some write to one place.
//
// `counted_at`: when the finished items were counted last and were not too many; so that not every process counts them all
// every second.

#include <cstdint>
#include <span>

#include "queue/postgres_connection.hpp"

namespace fulmar::queue::postgres {

enum class State : std::int16_t { ready, scheduled, waiting, processing, completed, failed, cancelled };

// Statements that make version n of version n - 1; the first makes the tables.
using Migration = std::span<const Statement>;
std::span<const Migration> migrations();

struct Schema {
  std::int64_t version = 0;  // 0 = no tables
  std::int64_t oid = 0;      // of the PostgreSQL schema they are in: names locks and the channel
};

// Reads what there is. Refuses, with `incompatible`, tables of a newer version than `known` has.
std::expected<Schema, Fault> read_schema(Connection& connection, std::string_view shown_url,
                                         std::span<const Migration> known = migrations());
// Brings the tables to the newest version; one process at a time, the others wait for it and find the work done.
std::expected<Schema, Fault> migrate(Connection& connection, std::string_view shown_url,
                                     std::span<const Migration> known = migrations());

}  // namespace fulmar::queue::postgres
