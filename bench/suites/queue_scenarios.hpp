#pragma once
// The child's half of the suite `queue`. Parameters of all: library, address, safety, payload_bytes.
//
//   queue_one    depth, scheduled, batch, seconds: one process puts for that long, then claims and completes
//   queue_many   depth, batch, processes, seconds: all of them put, claim and complete, in turn
//   queue_wake   rounds: from the call of put to an item in the hands of another process, which waits for it
//   queue_death  rounds: from the kill of a worker to its item in the hands of a process that waits for it
//   queue_wall   folder, seconds: what the disk leaves to anybody, a page written and synced
//
// Items are counted, and their numbers compared: a queue that loses, doubles or changes one fails.
//
// Thread-safety: each is a process of its own, and starts further ones before it connects.

#include "harness.hpp"

namespace fulmar::bench {

Result<ChildReport> queue_one(const Parameters& parameters);
Result<ChildReport> queue_many(const Parameters& parameters);
Result<ChildReport> queue_wake(const Parameters& parameters);
Result<ChildReport> queue_death(const Parameters& parameters);
Result<ChildReport> queue_wall(const Parameters& parameters);

}  // namespace fulmar::bench
