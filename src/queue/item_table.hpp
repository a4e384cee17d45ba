#pragma once
// ItemTable: items and queues in memory, and the verbs on them, as plainly as the rules can be written down. It is what a
// YAML file is read into, and the model that the tests hold other stores against. Every verb may look at every item.
//
// Not thread-safe: one owner at a time. A value: a copy is a snapshot.

#include <map>
#include <set>
#include <string>

#include "queue/model.hpp"
#include "queue/random.hpp"
#include "queue/repository.hpp"

namespace fulmar::queue {

struct TableItem {
  Item item{};
  std::uint64_t order = 0;   // of submission; unique; that of the id where the id has a number
  std::uint64_t token = 0;   // while processing
  std::string request_id{};  // of the claim, while processing
};

struct TableQueue {
  Settings settings{};
  bool paused = false;
};

struct ItemTable {
  std::map<std::string, TableQueue, std::less<>> queues{};
  std::map<ItemId, TableItem, std::less<>> items{};
  IdSequence ids{};

  // As it is: with an order by its id or its time, unless it has one. The id must not be there.
  TableItem& put(TableItem item);
};

class TableOperations final : public Operations {
 public:
  TableOperations(ItemTable& table, const Clock& clock, RandomBits& random)
      : table_(table), clock_(clock), random_(random) {}

  bool changed() const { return changed_; }  // since it was made: something is to be written
  const std::set<std::string, std::less<>>& claimable() const { return claimable_; }  // queues that got work

  Result<std::vector<std::string>> queues() override;
  Result<Settings> settings(std::string_view queue) override;
  Result<void> set_settings(std::string_view queue, const Settings& settings) override;
  Result<void> set_paused(std::string_view queue, bool paused) override;
  Result<bool> paused(std::string_view queue) override;
  Result<std::vector<Submitted>> submit(std::string_view queue, std::span<const NewItem> items) override;
  Result<ImportReport> import(std::string_view queue, std::span<const Item> items,
                              OnConflict conflict) override;
  Result<Claimed> claim(std::string_view queue, const ClaimRequest& request) override;
  Result<Extended> extend(std::span<const LeaseKey> leases, Duration lease) override;
  Result<std::vector<Refusal>> complete(std::span<const Completion> completions) override;
  Result<std::vector<Refusal>> fail(std::span<const Failure> failures) override;
  Result<std::vector<Refusal>> release(std::span<const LeaseKey> leases) override;
  Result<std::vector<Refusal>> cancel(std::span<const ItemId> ids) override;
  Result<std::vector<Refusal>> retry(std::span<const ItemId> ids) override;
  Result<std::vector<Refusal>> remove(std::span<const ItemId> ids) override;
  Result<Item> get(std::string_view id) override;
  Result<Listed> list(std::string_view queue, const Filter& filter, const Page& page) override;
  Result<std::vector<Item>> peek(std::string_view queue, std::size_t items_max) override;
  Result<std::uint64_t> purge(std::string_view queue, const Filter& filter, std::size_t items_max) override;
  Result<Stats> stats(std::string_view queue) override;
  Result<Upkeep> upkeep() override;

 private:
  TableQueue& make_queue(std::string_view queue);
  const Settings& settings_of(std::string_view queue) const;
  TableItem* find(std::string_view id);
  // The item that the lease is of, or why not.
  Result<TableItem*> leased(const LeaseKey& lease, Verb verb);
  TableItem* live_with_key(std::string_view queue, std::string_view unique_key, std::string_view but = {});
  std::uint64_t live_count(std::string_view queue) const;
  Item with_derived(const Item& item) const;
  bool somebody_depends_on(const ItemId& id) const;
  bool matches(const Item& item, const Filter& filter) const;
  std::vector<TableItem*> of_queue(std::string_view queue);            // in the order of submission
  std::vector<TableItem*> eligible(std::string_view queue, Time now);  // in the order of claims
  Result<void> can_retry(const TableItem& item);
  Result<void> can_remove(const TableItem& item) const;
  void end_attempt(TableItem& item, std::string_view error, Time now, std::optional<Duration> retry_in = {},
                   bool for_good = false);
  std::uint64_t expire(std::string_view queue, Time now);  // empty: of all queues
  void finish(TableItem& item, Status status, Time now);
  void became_claimable(const Item& item);

  ItemTable& table_;
  const Clock& clock_;
  RandomBits& random_;
  bool changed_ = false;
  std::set<std::string, std::less<>> claimable_;
};

// The errors that every store words alike.
Error already_there(std::string_view id);  // of an import
Error id_taken(std::string_view id);       // of a submission
Error unique_key_taken(std::string_view id, std::string_view unique_key, std::string_view by);
Error queue_full(std::string_view queue, std::uint64_t live, std::uint64_t max_size);
Error unknown_dependency(std::string_view of, std::string_view dependency);
Error is_needed(std::string_view id);

}  // namespace fulmar::queue
