#pragma once
// Queue: a durable work queue that threads, processes and machines share. Nothing handed in is forgotten, and no item is
// done by two workers at the same time.
//
//   auto queue = fulmar::Queue::open("sqlite:jobs.db");
//   queue->submit("resize", R"({"image": 17})");
//   fulmar::Worker worker(*queue, [](const fulmar::queue::Lease& lease) -> fulmar::Result<std::string> { ... });
//
// | URL            | for                                       |
// |----------------|-------------------------------------------|
// | sqlite:PATH    | one machine, many processes               |
// | yaml:PATH      | queues that people read and edit          |
// | postgresql://… | many machines                             |
//
// These calls BLOCK: on the disk, on other processes' transactions, on a server. Each returns within
// QueueOptions::lock_timeout plus the time the medium takes. They are not for an I/O thread or a dispatch thread.
//
// Thread-safety: everything from any thread; calls of many threads share transactions and syncs. A Queue does not survive
// fork(): a child opens its own, and calls on its parent's fail.
//
// Delivery is at least once: an item whose worker dies is claimed again. At most one worker's completion of it counts, since
// complete(), fail() and extend() need the token of the claim.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/queue_types.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

struct QueueOptions {
  std::string name{};  // of the queue in the store; empty = "default", or the name in the YAML file
  bool create = true;  // the store, when it is missing
  bool read_only = false;
  std::optional<queue::Settings> settings{};       // written when they differ from those in the store
  std::optional<queue::Durability> durability{};   // instead of the settings', for this object
  std::chrono::milliseconds lock_timeout{10'000};  // for other processes
  bool set_damaged_aside = true;  // sqlite: go on with what is readable of a damaged file, and say so
  bool allow_network_file_system = false;  // sqlite: locks of such file systems are known to fail
  queue::LogSink log{};                    // rare events; called on the thread of some caller; must not block
};

class Queue {
 public:
  // Errors: invalid_url, invalid_config, not_found, io_error, damaged, incompatible (made by a newer version),
  // connection_failed, timeout.
  static Result<Queue> open(std::string_view url, QueueOptions options = {});
  ~Queue();
  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;

  const std::string& name() const;
  std::string_view url() const;

  // --- in. Errors: invalid_item, payload_too_large, queue_full, already_exists, not_found (a dependency), io_error, timeout
  Result<queue::ItemId> submit(std::string_view type, std::string_view payload);
  Result<queue::Submitted> submit(const queue::NewItem& item);
  Result<std::vector<queue::Submitted>> submit_batch(
      std::span<const queue::NewItem> items);  // all or none; one sync

  // --- leases. A claim that finds nothing is no error: it is empty.
  Result<std::vector<queue::Lease>> claim(const queue::ClaimRequest& request);
  // As claim(), but waits until there is something, at most this long; woken, not polling. cancelled: by interrupt().
  Result<std::vector<queue::Lease>> wait_claim(const queue::ClaimRequest& request,
                                               std::chrono::nanoseconds at_most);
  // The lease lasts this long from now (default: the settings'); returns until when. Errors: lease_lost, not_found,
  // illegal_transition.
  Result<queue::Time> extend(const queue::LeaseKey& lease, std::optional<queue::Duration> length = {});
  Result<void> complete(const queue::LeaseKey& lease, std::string_view result = {});
  Result<void> fail(const queue::LeaseKey& lease, std::string_view error,
                    std::optional<queue::Duration> retry_in = {});
  Result<void> release(const queue::LeaseKey& lease);  // not begun: pending again, no attempt counted
  // Many with one transaction and one sync. What cannot be done is named, the rest is done.
  Result<std::vector<queue::Refusal>> extend_batch(std::span<const queue::LeaseKey> leases,
                                                   queue::Duration length);
  Result<std::vector<queue::Refusal>> complete_batch(std::span<const queue::Completion> completions);
  Result<std::vector<queue::Refusal>> fail_batch(std::span<const queue::Failure> failures);
  // One transaction instead of two: finishes, then claims.
  Result<std::vector<queue::Lease>> complete_and_claim(std::span<const queue::Completion> completions,
                                                       const queue::ClaimRequest& request,
                                                       std::vector<queue::Refusal>* refusals = nullptr);

  // --- the plainest use: type "task", payload {"task_id": ...}
  Result<queue::ItemId> submit_task(std::string_view task_id, int priority = 0);
  Result<std::optional<queue::Item>> get_next_task();  // claimed, by this object
  Result<void> complete_task(std::string_view id);     // one that get_next_task() of this object gave

  // --- by id. Errors: not_found, illegal_transition (naming both states), and queue_full and already_exists from retry()
  Result<void> cancel(std::string_view id);
  Result<void> retry(std::string_view id);
  Result<void> remove(std::string_view id);
  Result<queue::Item> get(std::string_view id);
  Result<std::vector<queue::Refusal>> cancel_batch(std::span<const queue::ItemId> ids);
  Result<std::vector<queue::Refusal>> retry_batch(std::span<const queue::ItemId> ids);
  Result<std::vector<queue::Refusal>> remove_batch(std::span<const queue::ItemId> ids);

  // --- the whole
  Result<queue::Listed> list(const queue::Filter& filter = {}, const queue::Page& page = {});
  Result<std::vector<queue::Item>> peek(
      std::size_t items_max = 1);  // what claim() would take; changes nothing
  // In steps of a few hundred, so that others get their turn; `progress` hears how many are gone. What is processing
  // stays, and what an item that is not completed depends on.
  Result<std::uint64_t> purge(const queue::Filter& filter,
                              const std::function<void(std::uint64_t)>& progress = {});
  Result<void> pause();
  Result<void> resume();
  Result<queue::Stats> stats();
  Result<queue::Settings> settings();
  Result<void> set_settings(const queue::Settings& settings);
  Result<std::vector<std::string>> queues();  // of the store
  Result<queue::Upkeep> upkeep();  // expired leases, retention; claims do it by themselves, once a second
  Result<void> sync();             // what was done under any durability is on the medium

  // --- export and import: items as they are. The file formats are the command line's (fulmar queue export, import).
  // `sink` gets every item once, pages at a time, as of the moment of each page; an error of its own ends the export.
  Result<std::uint64_t> export_items(const std::function<Result<void>(const queue::Item&)>& sink,
                                     const queue::Filter& filter = {});
  // All or nothing.
  Result<queue::ImportReport> import_items(std::span<const queue::Item> items,
                                           queue::OnConflict conflict = queue::OnConflict::refuse);

  // --- several operations as one atomic step. `body` gets a Queue whose calls belong to the transaction; it may open
  // others of the store with in(). An error returned, or an exception (handler_failed), undoes everything. The body runs
  // once, and holds up every other writer of the store while it does. Calls that wait are refused in it.
  Result<void> with_transaction(const std::function<Result<void>(Queue&)>& body);
  Result<Queue> in(std::string_view name);  // another queue of this store, over the same connection

  void interrupt();  // wait_claim() of other threads returns `cancelled`, once each, if they wait now

 private:
  friend class Worker;  // share what a Queue shares
  friend class QueueGateway;
  class Impl;
  explicit Queue(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

struct WorkerOptions {
  std::string name{};           // empty = "<host>:<process id>"
  std::size_t threads = 1;      // 1..1024
  std::size_t claim_items = 1;  // taken at once by a thread, 1..1000; more are faster, and wait in its hands
  std::vector<std::string> types{};        // empty = all
  std::optional<queue::Duration> lease{};  // default: the settings'; extended by itself after each third
  bool tied_to_process = true;             // see ClaimRequest
  queue::LogSink log{};                    // called on the worker's threads; must not block
};

struct WorkerStats {
  std::uint64_t claimed = 0;
  std::uint64_t completed = 0;
  std::uint64_t failed = 0;      // the handler said so, or threw
  std::uint64_t lease_lost = 0;  // somebody else has the item by now; what the handler said does not count
  std::uint64_t errors = 0;      // of the store; tried again
  std::size_t busy = 0;          // handlers that run now
};

// A pool of threads that claims, runs a handler, extends leases while it runs, and completes or fails.
//
// The handler's value is the item's result (JSON, or empty); its error, or what it throws, fails the attempt. It runs on
// `threads` threads at once. It may ask `lost` whether its lease is gone, and should stop then.
//
// Thread-safety: every function from any thread. Invariants
//   1. An item claimed is completed, failed, or given back at once (no attempt counted) when stop() comes before its handler.
//   2. A handler that runs is never interrupted; a lease is extended as long as it does.
class Worker {
 public:
  struct Context {
    const queue::Lease& lease;
    std::function<bool()> lost;  // the lease is gone, or stop() has given up waiting
  };
  using Handler = std::function<Result<std::string>(const Context&)>;

  Worker(const Queue& queue, Handler handler, WorkerOptions options = {});
  ~Worker();  // stop() with 5 s, then waits for the handlers that still run
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Result<void> start();
  // Claims no more, lets running handlers come to their end; true when they all did in time. What runs beyond is `lost`.
  bool stop(std::chrono::milliseconds deadline = std::chrono::seconds(5));
  WorkerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fulmar
