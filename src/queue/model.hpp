#pragma once
// The rules of the work queue, without storage, clock or randomness of their own: which transitions there are, when a
// failed item comes back, in which order items are claimed, what an id and a time look like, and what is too large.
//
// Thread-safety: pure functions; IdSequence has one owner.

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "fulmar/queue_types.hpp"

namespace fulmar::queue {

// --- states -----------------------------------------------------------------------------------------------------------

enum class Verb : std::uint8_t { claim, extend, complete, fail, release, cancel, retry, remove };

std::string_view to_string(Status status);
std::string_view to_string(Verb verb);
bool is_live(Status status);  // pending or processing: counts against max_size

// May this be done to an item in that state? illegal_transition, e.g.
//   `item 0G2M...: cannot complete what is pending (pending -> completed); claim it first`
Result<void> check_transition(std::string_view id, Status from, Verb verb);
// Of an item that is processing, but under another token or none.
Error lease_lost(std::string_view id);
Error not_found(std::string_view id);

// --- failure ----------------------------------------------------------------------------------------------------------

// How long a failed item waits: evenly from [ceiling / 2, ceiling], where the ceiling is `backoff_min` after the first
// failed attempt and doubles with each up to `backoff_max`. Never nothing, so that an item that fails at once does not
// spin; never in step with others that failed with it. `random` is 64 random bits.
Duration backoff(const Settings& settings, int failed_attempts, std::uint64_t random);

struct AfterFailure {
  Status status{};  // pending or failed
  int retry_count{};
  std::optional<Time> scheduled_at{};  // when pending
};
// An attempt ended without success. `retry_in` instead of the back-off; `for_good`: no more attempts.
AfterFailure after_failure(int retry_count, int max_retries, const Settings& settings, Time now,
                           std::uint64_t random, std::optional<Duration> retry_in = {},
                           bool for_good = false);

inline constexpr std::string_view lease_expired_message = "lease expired";
inline constexpr std::string_view worker_died_message = "worker died";
inline constexpr std::string_view machine_restarted_message = "machine restarted";

// --- claims -----------------------------------------------------------------------------------------------------------

// Pending, its time has come, and nothing that it waits for (Item::waiting_for is filled in).
bool is_eligible(const Item& item, Time now);
// The order of claims: priority, then created_at, then id.
bool claimed_before(const Item& a, const Item& b);
// Since when a pending item without dependencies could be claimed.
Time claimable_since(const Item& item);

// --- dependencies -----------------------------------------------------------------------------------------------------

// Looks for a way from `id` over its dependencies back to `id`: the ids on it, the first one again at the end; empty when
// there is none. `dependencies_of` gives those of any other item, nothing for unknown ones. Visits each item once.
std::vector<ItemId> find_cycle(std::string_view id, std::span<const ItemId> depends_on,
                               const std::function<std::vector<ItemId>(const ItemId&)>& dependencies_of);
Error cycle_error(
    std::span<const ItemId> path);  // invalid_item: "dependencies form a cycle: A -> B -> A; ..."

// --- ids --------------------------------------------------------------------------------------------------------------

// A new id is a number of 63 bits, microseconds since 1970 << 11 | 11 bits besides, written as 13 digits of Crockford's
// base 32: the text sorts as the number does. A store may keep the number where the text reads back as one.
std::string id_text(std::uint64_t number);
std::optional<std::uint64_t> id_number(std::string_view text);  // exactly what id_text() makes; else nothing
// The number for an item of that moment; `random` fills the low bits.
std::uint64_t id_number_at(Time created_at, std::uint64_t random);

// Ids that grow, also when the clock is set back or stands still.
class IdSequence {
 public:
  void seen(std::uint64_t number);  // the largest there is, by whoever
  std::uint64_t next(Time now, std::uint64_t random);

 private:
  std::uint64_t last_ = 0;
};

// --- words ------------------------------------------------------------------------------------------------------------

std::optional<Status> parse_status(std::string_view word);  // also "in_progress", "done", ... of older shapes
// A whole number, or CRITICAL 100, HIGH 75, MEDIUM 50, LOW 25 in any case.
std::optional<int> parse_priority(std::string_view word);
std::optional<Durability> parse_durability(std::string_view word);
std::string_view to_string(Durability durability);

// "90" (seconds), "250ms", "5m", "1h30m", "1.5h", "2d", "1w"; not negative, at most 100 years.
std::optional<Duration> parse_duration(std::string_view text);
// "1h 30m", "250ms", "0s": parse_duration() reads it back without the blanks.
std::string duration_text(Duration duration);
std::string format_time(Time time);  // 2026-02-06T10:00:00.000000Z
// ISO 8601, date with or without time, fraction and offset; without an offset it is UTC.
std::optional<Time> parse_time(std::string_view text);

// --- bounds -----------------------------------------------------------------------------------------------------------

bool is_json(std::string_view text);         // any one value, UTF-8, at most 64 deep
bool is_json_object(std::string_view text);  // as is_json(), and an object

Result<void> validate_queue_name(std::string_view name);
Result<void> validate(const NewItem& item);
Result<void> validate(const Item& item);  // for an import
Result<void> validate(const ClaimRequest& request);
Result<void> validate(const Settings& settings);
Result<void> validate(const Page& page);
Result<void> validate_lease(Duration lease);
Result<void> validate_result(std::string_view result);
Result<void> validate_batch(std::size_t items);
// At most Limits::error_bytes, cut before a character of UTF-8.
std::string_view cut_error(std::string_view message);

}  // namespace fulmar::queue
