#pragma once
// PostgresOperations: the verbs of the queue on tables of PostgreSQL (postgres_schema.hpp).
//
// Rules that keep it right under READ COMMITTED, where each statement sees what was committed when it began:
//   1. What is decided here about an item (model.hpp's rules) is decided of a row that is locked; rows are locked in the
//      order of their ids. Claims, expiry and retention skip what somebody else has locked.
//   2. A submission locks the rows of its dependencies (FOR SHARE), so that none is completed unnoticed; who completes
//      looks for dependents in a later statement, and locks a dependent before it looks what else that one waits for.
//   3. Whoever adds live items to a queue with max_size holds the queue's row.
//   4. Imports, and submissions that could close a cycle, come one at a time in a store.
// Deadlocks that are left (batches that overlap in the middle of user transactions) are resolved by the server, and tried
// again by the repository.

#include <map>
#include <set>
#include <unordered_map>

#include "queue/postgres_schema.hpp"
#include "queue/postgres_transaction.hpp"

namespace fulmar::queue::postgres {

class PostgresOperations final : public Operations {
 public:
  explicit PostgresOperations(Transaction& transaction) : transaction_(transaction) {}

  // postgres_queues.cpp
  Result<std::vector<std::string>> queues() override;
  Result<Settings> settings(std::string_view queue) override;
  Result<void> set_settings(std::string_view queue, const Settings& settings) override;
  Result<void> set_paused(std::string_view queue, bool paused) override;
  Result<bool> paused(std::string_view queue) override;
  Result<Listed> list(std::string_view queue, const Filter& filter, const Page& page) override;
  Result<std::vector<Item>> peek(std::string_view queue, std::size_t items_max) override;
  Result<Stats> stats(std::string_view queue) override;
  Result<Item> get(std::string_view id) override;

  // postgres_submit.cpp
  Result<std::vector<Submitted>> submit(std::string_view queue, std::span<const NewItem> items) override;
  Result<ImportReport> import(std::string_view queue, std::span<const Item> items,
                              OnConflict conflict) override;

  // postgres_lease.cpp
  Result<Claimed> claim(std::string_view queue, const ClaimRequest& request) override;
  Result<Extended> extend(std::span<const LeaseKey> leases, Duration lease) override;
  Result<std::vector<Refusal>> complete(std::span<const Completion> completions) override;
  Result<std::vector<Refusal>> fail(std::span<const Failure> failures) override;
  Result<std::vector<Refusal>> release(std::span<const LeaseKey> leases) override;

  // postgres_change.cpp
  Result<std::vector<Refusal>> cancel(std::span<const ItemId> ids) override;
  Result<std::vector<Refusal>> retry(std::span<const ItemId> ids) override;
  Result<std::vector<Refusal>> remove(std::span<const ItemId> ids) override;
  Result<std::uint64_t> purge(std::string_view queue, const Filter& filter, std::size_t items_max) override;
  Result<Upkeep> upkeep() override;

 private:
  struct QueueRow {
    std::int32_t id = 0;
    std::string name{};
    Settings settings{};
    std::int64_t room = 0;
    bool paused = false;
  };
  struct LockedItem {
    ItemId id{};
    Status status{};
    State state{};
    std::uint64_t token = 0;
    int retry_count = 0;
    int max_retries = 0;
    std::int32_t queue = 0;
    std::string unique_key{};
    Time now{};
  };
  using LockedItems = std::unordered_map<ItemId, LockedItem>;
  struct NewRow;

  // --- queues
  Result<std::optional<QueueRow>> find_queue(std::string_view queue, bool lock);
  Result<QueueRow> make_queue(std::string_view queue, bool lock);
  Result<std::map<std::int32_t, QueueRow>> queues_by_id(std::span<const std::int32_t> ids);
  // Takes room for so many live items in a queue whose row is locked, if it is bounded; or says that there is not so much.
  Result<std::optional<Error>> take_room(const QueueRow& queue, std::uint64_t items);

  // --- items
  Result<LockedItems> lock_items(std::span<const std::string_view> ids);
  // The error for each item of a batch of leases that could not be ended: gone, in another state, or lost.
  Result<void> explain(std::span<const LeaseKey> leases, std::span<const std::size_t> indexes, Verb verb,
                       std::vector<Refusal>& refusals);
  // After items were completed: those that wait for nothing else any more become claimable.
  Result<void> release_dependents(const std::vector<std::string>& dependents);
  // Ends the attempts of locked items without success. Wakes their queues.
  struct Ended {
    const LockedItem* item{};
    std::string_view error{};
    std::optional<Duration> retry_in{};
    bool for_good = false;
  };
  Result<void> end_attempts(std::span<const Ended> attempts);
  // Puts back what is leased beyond its time.
  Result<std::uint64_t> expire(std::string_view queue, std::size_t items_max);
  Params expire_params(std::string_view queue, std::size_t items_max);
  Result<std::uint64_t> remove_locked(std::span<const std::string_view> ids);

  // --- in
  Result<std::vector<Submitted>> submit_simply(std::string_view queue, std::span<const NewItem> items,
                                               bool& done);
  Result<std::vector<Submitted>> submit_with_care(std::string_view queue, std::span<const NewItem> items);
  Result<std::map<std::string, ItemId, std::less<>>> live_keys(std::int32_t queue,
                                                               std::span<const std::string_view> keys);
  Result<std::map<std::string, State, std::less<>>> share_states(const std::set<std::string_view>& ids);
  // The ids of those that it made.
  Result<std::unordered_set<std::string>> insert_rows(const Statement& statement, std::string_view queue,
                                                      std::span<const NewRow> rows);
  Result<void> check_cycles(std::span<const NewRow> rows);
  Result<void> insert_waits(std::span<const NewRow> rows);
  Result<void> lock_graph();
  Call new_rows_call(const Statement& statement, std::string_view queue, std::span<const NewRow> rows);

  Transaction& transaction_;
};

}  // namespace fulmar::queue::postgres
