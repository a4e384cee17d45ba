#pragma once
// Repository: where items are kept. A store (a database, a file) holds queues by name; ids are unique in a store.
//
//   Queue (service) ──▶ Repository::transact ──▶ Operations: the verbs, inside one transaction
//
// A kind of store implements two classes: its Operations, which are used by one thread at a time on an open transaction,
// and its Repository, which opens transactions for many threads. model.hpp has the rules; stores only keep.
//
// Thread-safety: Repository from any thread; Operations only within the body they were given to. All calls block, on
// locks of other processes and on the medium: not for an I/O thread.
//
// Invariants (contract_test.cpp checks them for every kind of store)
//   1. A body whose result is an error has changed nothing. All that another body did is seen, or none of it.
//   2. When transact() returns a value under Durability::commit, the change survives power loss.
//   3. A verb that returns an error has changed nothing, also within a transaction that goes on.
//   4. Of all claims of an item at most one holds at any moment; only its token finishes or extends the attempt.
//   5. What is eligible is claimed by priority, highest first, then in the order of submission; imported items stand by
//      their created_at.
//   6. Before claim() looks it puts back what expired: leases, with an attempt counted and the error "lease expired",
//      and those of dead processes where the store can tell, with "worker died". They are claimable at
//      once. Until it was put back, a lease holds.
//   7. When the transaction that made work claimable is over, those who wait() on that queue are woken, in all processes.
//   8. Times come from the clock given, or, where the store has many machines and none was given, from the store's.

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "fulmar/queue_types.hpp"
#include "fulmar/result.hpp"

namespace fulmar::queue {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;  // wall clock
  // Since the machine started, time asleep included: for leases, which a step of the wall clock must not end.
  virtual Duration uptime() const = 0;
};
const Clock& system_clock();

struct Claimed {
  std::vector<Lease> leases{};  // in the order of claims
  // When it is worth looking again without having been woken: the next scheduled_at, lease_until, or look at the
  // processes. Nothing = not before the caller's own time-out.
  std::optional<Duration> look_again_in{};
};

struct Extended {
  Time until{};
  std::vector<Refusal> refusals{};
};

// The verbs. `queue` is a valid name (model.hpp); a queue that nobody has written to is as one that is empty, and comes
// into being with the first submit, import or change of its settings. Items, limits and names were validated by the caller.
//
// Refusals: a batch does what it can, in order, and names the rest by index. Their errors: not_found (no such id),
// illegal_transition (model.hpp has the wording), lease_lost (processing, but not under this token, or not any more).
class Operations {
 public:
  virtual ~Operations() = default;

  // --- queues
  virtual Result<std::vector<std::string>> queues() = 0;  // sorted
  virtual Result<Settings> settings(std::string_view queue) = 0;
  virtual Result<void> set_settings(std::string_view queue, const Settings& settings) = 0;
  // A paused queue takes items and lets leases be finished, but none is claimed.
  virtual Result<void> set_paused(std::string_view queue, bool paused) = 0;
  virtual Result<bool> paused(std::string_view queue) = 0;

  // --- in. All or nothing; in the order given. Errors: queue_full (naming the bound), already_exists (a given id),
  // not_found (a dependency neither in the store nor in the batch), invalid_item (a cycle: "A -> B -> A").
  virtual Result<std::vector<Submitted>> submit(std::string_view queue, std::span<const NewItem> items) = 0;
  // Items as they are, with ids, states and times (Item::queue is ignored). Leases are not imported: what is processing
  // comes as pending. Dependencies on unknown ids are kept and waited for. max_size does not apply.
  // Errors: already_exists under OnConflict::refuse; invalid_item (a cycle).
  virtual Result<ImportReport> import(std::string_view queue, std::span<const Item> items,
                                      OnConflict conflict) = 0;

  // --- leases
  virtual Result<Claimed> claim(std::string_view queue, const ClaimRequest& request) = 0;
  virtual Result<Extended> extend(std::span<const LeaseKey> leases, Duration lease) = 0;  // from now
  virtual Result<std::vector<Refusal>> complete(std::span<const Completion> completions) = 0;
  virtual Result<std::vector<Refusal>> fail(std::span<const Failure> failures) = 0;
  // Gives back what was claimed and not begun: pending again, no attempt counted.
  virtual Result<std::vector<Refusal>> release(std::span<const LeaseKey> leases) = 0;

  // --- by id
  virtual Result<std::vector<Refusal>> cancel(std::span<const ItemId> ids) = 0;  // pending or processing
  // Failed or cancelled ones become pending with all their attempts, at once. Refused besides: queue_full, and
  // already_exists when a live item has the unique key by now.
  virtual Result<std::vector<Refusal>> retry(std::span<const ItemId> ids) = 0;
  // Not what is processing, nor what an item that is not completed depends on (illegal_transition).
  virtual Result<std::vector<Refusal>> remove(std::span<const ItemId> ids) = 0;
  virtual Result<Item> get(std::string_view id) = 0;  // not_found

  // --- many
  virtual Result<Listed> list(std::string_view queue, const Filter& filter, const Page& page) = 0;
  // What claim() would take now, in its order. Changes nothing.
  virtual Result<std::vector<Item>> peek(std::string_view queue, std::size_t items_max) = 0;
  // Removes up to `items_max` of those the filter matches, as remove() would; returns how many. 0 = none is left that can be.
  virtual Result<std::uint64_t> purge(std::string_view queue, const Filter& filter,
                                      std::size_t items_max) = 0;
  virtual Result<Stats> stats(std::string_view queue) = 0;
  // Ends expired leases, applies retention: a few hundred rows at most, of all queues.
  virtual Result<Upkeep> upkeep() = 0;
};

enum class Access : std::uint8_t {
  read,
  write,  // may share its transaction with others' bodies; may be called again when that one was rolled back
  write_alone,  // neither: for users' code
};

// A reference to a callable `Result<void>(Operations&)`; valid as long as that is.
class Body {
 public:
  template <typename Function>
    requires(!std::same_as<std::remove_cvref_t<Function>, Body> &&
             std::is_invocable_r_v<Result<void>, Function&, Operations&>)
  Body(Function& function)  // NOLINT(google-explicit-constructor): it is one
      : object_(&function), call_([](void* object, Operations& operations) -> Result<void> {
          return (*static_cast<Function*>(object))(operations);
        }) {}
  Result<void> operator()(Operations& operations) const { return call_(object_, operations); }

 private:
  void* object_;
  Result<void> (*call_)(void*, Operations&);
};

class Repository {
 public:
  virtual ~Repository() = default;

  virtual std::string_view url() const = 0;
  virtual std::string_view default_queue() const { return "default"; }  // yaml: the name in the file

  // Runs one transaction. The error is the body's, or tells why the store could not do it; an error after which it is not
  // known whether the change was made says so (io_error). `durability` is for what the body changes.
  virtual Result<void> run(Access access, Durability durability, Body body) = 0;

  // The same for a function that returns Result<T>.
  template <typename Function>
  auto transact(Access access, Durability durability, Function&& function)
      -> std::invoke_result_t<Function&, Operations&> {
    using R = std::invoke_result_t<Function&, Operations&>;
    if constexpr (std::is_same_v<R, Result<void>>) {
      return run(access, durability, Body(function));
    } else {
      R result = std::unexpected(Error{});
      auto body = [&](Operations& operations) -> Result<void> {
        result = function(operations);
        if (!result) return std::unexpected(result.error());
        return {};
      };
      if (auto done = run(access, durability, Body(body)); !done)
        return std::unexpected(std::move(done.error()));
      return result;
    }
  }

  // --- waiting for work:  word = wake_word(q);  claim, nothing there;  wait(q, word, time)
  // A number that is another one after work became claimable.
  virtual std::uint32_t wake_word(std::string_view queue) = 0;
  // Returns when the word is another one than `seen` (at once when it is already), when the time is over, or for no reason.
  virtual void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) = 0;
  virtual void wake(std::string_view queue) = 0;  // all who wait, in this process at least

  // Everything that was changed under any durability is on the medium.
  virtual Result<void> sync() = 0;
};

struct RepositoryOptions {
  bool create = true;      // the store, when it is missing; else not_found
  bool read_only = false;  // writes fail
  std::chrono::milliseconds lock_timeout{
      10'000};  // how long to wait for another process; the error names the holder
  std::chrono::milliseconds sync_interval{50};  // for Durability::interval
  const Clock* clock = nullptr;                 // must outlive the repository; null = the store's own choice
  std::uint64_t seed = 0;                       // for jitter, tokens and ids; 0 = from the kernel
  bool set_damaged_aside =
      true;  // sqlite: carry over what is readable of a damaged file, else error `damaged`
  bool allow_network_file_system = false;
  LogSink log{};  // called on a caller's thread, under no lock
};

// `url`: sqlite:PATH, yaml:PATH, postgresql://... Errors: invalid_url, io_error, damaged, incompatible, connection_failed,
// timeout; the message names the store and what to do.
Result<std::unique_ptr<Repository>> open_repository(std::string_view url,
                                                    const RepositoryOptions& options = {});

}  // namespace fulmar::queue
