#pragma once
// SqliteOperations: the verbs, as SQL on one connection with an open transaction.
//
// A claim reads only what can be claimed, whatever else is stored: the index holds nothing else. It is a SELECT and an UPDATE
// by row, since UPDATE ... WHERE id IN (SELECT ...) RETURNING builds two ephemeral tables a call and takes twice as long.
//
// Leases end by the time since the machine started, so that no step of the wall clock ends or prolongs them; a restart of
// the machine ends them all.
//
// Thread-safety: one thread at a time.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "queue/living.hpp"
#include "queue/model.hpp"
#include "queue/random.hpp"
#include "queue/repository.hpp"
#include "queue/sqlite_connection.hpp"

namespace fulmar::queue {

class SqliteOperations final : public Operations {
 public:
  // `living` is null in a repository that only reads; `instance` is this repository's byte in it.
  SqliteOperations(SqliteConnection& connection, std::string path, const Clock& clock, RandomBits& random,
                   Living* living, std::int64_t instance);

  // --- around a transaction: begin() after BEGIN, rolled_back() after a ROLLBACK.
  void begin();
  void rolled_back() { forget(); }
  // What went wrong in a verb since begin(), such that the transaction is not to be committed.
  const std::optional<SqliteFailure>& failure() const { return failure_; }
  const std::set<std::string, std::less<>>& claimable() const { return claimable_; }  // queues that got work
  // Ends the leases of the machine's former life, and of processes that are gone. Once, when the database is opened.
  void machine_started(std::string_view boot_id);

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
  struct QueueRow {
    std::int64_t qid = 0;  // 0: there is none yet
    std::string name{};
    bool paused = false;
    Settings settings{};
  };
  struct ItemRow {  // what the rules need of an item
    std::int64_t id = 0;
    std::int64_t qid = 0;
    std::int64_t state = 0;
    std::int64_t token = 0;
    std::int64_t created = 0;
    int attempts = 0;
    int attempts_max = 0;
    std::string ukey{};
  };

  // Runs a verb: SQLite's failures become errors.
  template <typename Verb>
  std::invoke_result_t<Verb&> guarded(Verb&& verb);
  // A prepared statement; `sql` is a literal, known by its address.
  Statement& sql(const char* text);

  // --- names, kept in memory while nobody else writes
  void forget();
  QueueRow& queue_row(std::string_view name);
  QueueRow& queue_of(std::int64_t qid);
  QueueRow& make_queue(std::string_view name);
  QueueRow read_queue(Statement& row);
  std::int64_t type_id(const std::string& name, bool make);  // 0: there is none
  const std::string& type_name(std::int64_t tid);
  std::int64_t worker_id(const std::string& name, bool tied);
  const std::string& worker_name(std::int64_t wid);
  bool any_dependencies();
  bool any_bounded();

  // --- items
  std::int64_t find(std::string_view id);  // its row; 0 when there is none
  std::optional<ItemRow> row(std::int64_t id);
  Result<ItemRow> leased(const LeaseKey& lease, Verb verb);  // or why not
  std::string public_id(std::int64_t id);
  Item read_item(Statement& row);
  void fill_dependencies(Item& item);
  std::vector<ItemId> dependencies_of(std::int64_t id);
  bool is_completed(std::string_view id);
  bool has_to_wait(std::span<const ItemId> depends_on);
  std::int64_t fresh_id(Time now);
  void insert(std::int64_t id, const QueueRow& queue, const Item& item, bool external_id);
  void erase(const ItemRow& item);
  Result<void> can_remove(const ItemRow& item, std::string_view id);
  void release_dependents(std::string_view id);
  void reconsider(std::int64_t id);  // blocked or not, by its dependencies

  // --- changes of state
  void finish(const ItemRow& item, std::int64_t state, Time now);
  void end_attempt(const ItemRow& item, std::string_view error, Time now,
                   std::optional<Duration> retry_in = {}, bool for_good = false);
  void set_note(std::int64_t id, std::string_view error, std::string_view result);
  void count_live(QueueRow& queue, std::int64_t change);
  std::uint64_t live(const QueueRow& queue);
  void promote(Time now);
  std::uint64_t expire(Time now, bool machine_restarted = false);
  std::uint64_t bury(Time now);  // the items of dead processes
  std::vector<ItemRow> rows_of(Statement& statement);
  std::vector<Lease> leases_of(const QueueRow& queue, const ClaimRequest& request, Time now);
  std::vector<std::int64_t> claimable_rows(const QueueRow& queue, std::span<const std::string> types,
                                           std::size_t rows_max);
  bool finish_fast(const LeaseKey& lease, Time now);
  std::optional<Duration> next_look(const QueueRow& queue, Time now);
  Time lease_time(std::int64_t lease, Time now) const;

  static std::string filter_sql(const Filter& filter);
  static void bind_filter(Statement& statement, const Filter& filter, std::int64_t qid);

  SqliteConnection& connection_;
  std::string path_;
  const Clock& clock_;
  RandomBits& random_;
  Living* living_;
  std::int64_t instance_;

  std::unordered_map<const char*, Statement> statements_;
  std::optional<SqliteFailure> failure_;
  std::set<std::string, std::less<>> claimable_;

  // What was read since somebody else wrote, or a transaction was rolled back.
  unsigned data_version_ = 0;
  bool fresh_ = false;
  std::map<std::string, QueueRow, std::less<>> queues_;
  std::unordered_map<std::int64_t, std::string> queue_names_;
  std::unordered_map<std::string, std::int64_t> type_ids_;
  std::unordered_map<std::int64_t, std::string> type_names_;
  std::map<std::pair<std::string, bool>, std::int64_t> worker_ids_;
  std::unordered_map<std::int64_t, std::string> worker_names_;
  std::optional<bool> any_dependencies_;
  std::optional<bool> any_bounded_;  // a queue with a max_size
  IdSequence ids_;
  bool ids_known_ = false;
  std::chrono::steady_clock::time_point look_at_living_{};
};

}  // namespace fulmar::queue
