#pragma once
// What the durable work queue is made of: items and their life, leases, filters, settings, statistics. See fulmar/queue.hpp.
//
//            submit                 claim (lease)               complete
//   ───────────────────▶ pending ──────────────────▶ processing ──────────▶ completed
//                          ▲  │ cancel                 │  │  fail or lease expired, attempts left → pending, later
//                          │  ▼                        │  │  fail or lease expired, none left ───▶ failed (dead letter)
//                          │ cancelled ◀─── cancel ────┘  │
//                          └─────────── retry ── from failed and cancelled
//
// Thread-safety: plain values. Times are UTC and carry microseconds.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/log.hpp"
#include "fulmar/result.hpp"

namespace fulmar::queue {

using Time = std::chrono::sys_time<std::chrono::microseconds>;
using Duration = std::chrono::microseconds;

// Opaque text of 1..128 bytes, unique in its store. New ids have 13 characters, sort by the time of submission and are
// unlikely to be made twice anywhere; ids that a caller or an import brings are kept as they are.
using ItemId = std::string;

enum class Status : std::uint8_t { pending, processing, completed, failed, cancelled };

// Bounds, checked where an item comes in. Errors: invalid_item or payload_too_large, naming field, value and bound.
struct Limits {
  static constexpr std::size_t payload_bytes = std::size_t{1} << 20;
  static constexpr std::size_t metadata_bytes = std::size_t{64} << 10;
  static constexpr std::size_t result_bytes = std::size_t{1} << 20;
  static constexpr std::size_t error_bytes = 4096;  // longer messages are cut, at a whole character
  static constexpr std::size_t name_bytes = 64;     // of a queue: letters, digits, '_', '-', '.'
  static constexpr std::size_t type_bytes = 128;
  static constexpr std::size_t id_bytes = 128;  // visible ASCII characters
  static constexpr std::size_t worker_bytes = 128;
  static constexpr std::size_t unique_key_bytes = 256;
  static constexpr std::size_t dependencies = 1000;  // of one item
  static constexpr std::size_t claim_items = 1000;   // of one claim
  static constexpr std::size_t batch_items = 10'000;
  static constexpr std::size_t page_items = 10'000;
  static constexpr int attempts = 1'000'000;
  static constexpr Duration lease_min = std::chrono::milliseconds(1);
  static constexpr Duration lease_max = std::chrono::hours(24 * 30);
};

// An item as it is stored.
struct Item {
  ItemId id{};
  std::string queue{};
  std::string type = "task";
  std::string payload = "{}";  // a JSON object, as text
  Status status = Status::pending;
  int priority = 0;                    // higher first
  Time created_at{};                   // when it was submitted: first in, first out within a priority
  std::optional<Time> scheduled_at{};  // not before
  std::optional<Time> started_at{};    // of the latest attempt
  std::optional<Time> completed_at{};  // when it was completed, failed for good, or cancelled
  int retry_count = 0;                 // attempts that failed or whose lease expired
  int max_retries = 3;                 // attempts in all; below 1 counts as 1
  std::string error_message{};         // of the latest failed attempt; empty = none
  std::string metadata = "{}";         // a JSON object, as text
  std::string result{};                // JSON, as text, given with complete(); empty = none
  std::string lease_owner{};           // worker, while processing
  std::optional<Time> lease_until{};   // while processing
  std::string unique_key{};            // empty = none
  std::vector<ItemId> depends_on{};
  // Derived, never written: those of depends_on that are not completed (unknown ids included), and whether one of them
  // has failed or was cancelled, so that this item waits for somebody to retry that one.
  std::vector<ItemId> waiting_for{};
  bool dependency_failed = false;

  bool operator==(const Item&) const = default;
};

// What a caller hands in.
struct NewItem {
  std::string type = "task";
  std::string payload = "{}";  // a JSON object, as text
  int priority = 0;
  std::optional<Time> scheduled_at{};  // not before; may be in the past
  std::optional<int> max_retries{};  // attempts in all, 1..1,000,000; default: Settings::default_max_retries
  std::string metadata = "{}";
  std::string unique_key{};  // a second live item of the queue with this key is not made; its id is returned
  std::vector<ItemId> depends_on{};  // ids in the store or in the same batch
  ItemId id{};                       // empty = a new one
};

struct Submitted {
  ItemId id{};
  bool created = true;  // false: a live item with this unique_key was there already, and this is its id
};

// Who may finish an attempt: the token is new for each claim.
struct LeaseKey {
  ItemId id{};
  std::uint64_t token{};
  bool operator==(const LeaseKey&) const = default;
};

struct Lease {
  Item item{};
  std::uint64_t token{};
  Time until{};
  LeaseKey key() const { return {item.id, token}; }
};

struct ClaimRequest {
  std::string worker{};  // a name for people, 1..128 bytes; empty = "<host>:<process id>"
  std::size_t items_max = 1;
  std::optional<Duration> lease{};   // default: Settings::lease
  std::vector<std::string> types{};  // empty = all
  // Not empty: asking again with the same worker and request_id returns the leases of the first time that still hold,
  // with their tokens, and nothing new while there are any.
  std::string request_id{};
  // The lease ends when this process dies or closes its queue, at once, instead of at lease_until. Only where the store
  // can tell (sqlite). Turn it off where the claiming process goes away and another one finishes the item.
  bool tied_to_process = true;
};

struct Completion {
  LeaseKey lease{};
  std::string result{};  // JSON, as text; empty = none
};

struct Failure {
  LeaseKey lease{};
  std::string error{};
  std::optional<Duration> retry_in{};  // instead of the back-off
  bool for_good = false;               // no more attempts, whatever is left
};

// Batch verbs accept what they can; this names what they could not.
struct Refusal {
  std::size_t index{};  // in the batch
  Error error{};
};

// What upkeep() did.
struct Upkeep {
  std::uint64_t expired = 0;  // leases ended
  std::uint64_t removed = 0;  // finished items, by retention
  bool more = false;          // call again: the bound on the rows of one call was reached
};

// --- looking ----------------------------------------------------------------------------------------------------------

struct Filter {
  std::vector<Status> statuses{};  // empty = all
  std::vector<std::string> types{};
  std::string unique_key{};
  std::optional<Time> created_before{};
  std::optional<Time> finished_before{};  // completed_at
  bool only_waiting_for_dependencies = false;
  bool operator==(const Filter&) const = default;
};

struct Page {
  std::string after{};  // Listed::next of the page before; empty = from the start
  std::size_t items_max = 100;
  bool newest_first = false;  // default: in the order of submission
  bool bodies = true;         // payload, metadata and result too
};

struct Listed {
  std::vector<Item> items{};
  std::string next{};  // empty = that was all
};

// --- settings ---------------------------------------------------------------------------------------------------------

// What a call that changes something has made sure of when it returns. A process that dies loses nothing under any.
enum class Durability : std::uint8_t {
  commit,    // the change is on the medium: it survives power loss
  interval,  // it will be, within Settings::sync_interval
  none,  // it will be when the store thinks fit: after power loss the store is consistent and some seconds old
};

// Of a queue; kept in the store, so that every process works by the same.
struct Settings {
  std::optional<std::uint64_t> max_size{};  // live items (pending and processing); nothing = without bound
  int default_max_retries = 3;
  Duration lease = std::chrono::seconds(60);
  Duration backoff_min =
      std::chrono::seconds(1);  // the ceiling after the first failed attempt; doubles with each
  Duration backoff_max = std::chrono::hours(1);
  // Retention of finished items: those over the age or beyond the number are removed, oldest first.
  std::optional<Duration> keep_completed = std::chrono::hours(24);
  std::optional<Duration> keep_failed{};  // and cancelled ones
  std::optional<std::uint64_t> keep_finished_max = 100'000;
  Durability durability = Durability::commit;
  Duration sync_interval = std::chrono::milliseconds(50);  // for Durability::interval
  // Claims are not synced: when the power fails the worker is gone too, and a lost claim is an item that is pending again.
  // For work that can take the machine down: sync them, so that its attempts are counted.
  bool durable_claim = false;
  bool operator==(const Settings&) const = default;
};

// --- statistics -------------------------------------------------------------------------------------------------------

struct Counts {
  std::uint64_t pending = 0;  // all of them: claimable, scheduled and waiting
  std::uint64_t processing = 0;
  std::uint64_t completed = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t total() const { return pending + processing + completed + failed + cancelled; }
  std::uint64_t live() const { return pending + processing; }
  bool operator==(const Counts&) const = default;
};

// Exact as of one moment; counted from the items themselves.
struct Stats {
  Counts counts{};
  std::uint64_t scheduled = 0;                   // pending ones whose time has not come
  std::uint64_t waiting = 0;                     // pending ones with a dependency that is not completed
  std::optional<Duration> oldest_pending_age{};  // of those that could be claimed now, since they could
  // From claimable to claimed, of the up to 1,000 items that were finished last; nothing when there are none.
  std::optional<Duration> claim_latency_p50{};
  std::optional<Duration> claim_latency_p99{};
  std::optional<Duration> claim_latency_max{};
  std::map<std::string, Counts> by_type{};
  bool paused = false;
  std::optional<std::uint64_t> max_size{};
};

// --- import -----------------------------------------------------------------------------------------------------------

enum class OnConflict : std::uint8_t {
  refuse,
  skip,
  replace
};  // when the id, or the unique key of a live item, is there

struct ImportReport {
  std::uint64_t added = 0;
  std::uint64_t skipped = 0;
  std::uint64_t replaced = 0;
};

// --- rare events ------------------------------------------------------------------------------------------------------

using LogSink = std::function<void(LogLevel, std::string_view text)>;

}  // namespace fulmar::queue
