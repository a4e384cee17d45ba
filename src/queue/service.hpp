#pragma once
// Queue::Impl: what several Queue objects share (a store, opened once), or a transaction's body sees.
//
// Thread-safety: as Queue, but within a transaction: then one thread, its body's.

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "fulmar/queue.hpp"
#include "queue/model.hpp"
#include "queue/repository.hpp"

namespace fulmar {

class Queue::Impl {
 public:
  // One for all queues of a store that were opened together.
  struct Store {
    std::unique_ptr<queue::Repository> repository{};
    std::optional<queue::Durability> durability{};  // instead of the queues' own
    queue::LogSink log{};
    std::string worker{};  // "<host>:<process id>"
    // By get_next_task(), for complete_task().
    std::mutex tasks_mutex{};
    std::unordered_map<queue::ItemId, std::uint64_t> tasks{};
    // Upkeep: at most once a second, by whoever claims.
    std::atomic<std::int64_t> next_upkeep_ns{0};
    std::atomic<std::uint32_t> interrupts{0};
  };

  Impl(std::shared_ptr<Store> store, std::string name, queue::Operations* within = nullptr)
      : store_(std::move(store)), name_(std::move(name)), within_(within) {}

  const std::string& name() const { return name_; }
  Store& store() const { return *store_; }
  const std::shared_ptr<Store>& shared_store() const { return store_; }
  queue::Operations* within() const { return within_; }

  // Reads the settings that decide how this object works. Errors as Repository::run().
  Result<void> load_settings();
  void use_settings(const queue::Settings& settings);

  // Runs a function of Operations& that returns Result<T>: in a transaction of its own, or in the one this belongs to.
  template <typename Function>
  auto change(Function&& function) {
    return run(queue::Access::write, durability_.load(std::memory_order_relaxed), function);
  }
  template <typename Function>
  auto lease(Function&& function) {
    return run(queue::Access::write, claim_durability_.load(std::memory_order_relaxed), function);
  }
  template <typename Function>
  auto look(Function&& function) {
    return run(queue::Access::read, queue::Durability::none, function);
  }
  template <typename Function>
  auto run(queue::Access access, queue::Durability durability, Function&& function) {
    if (within_) return function(*within_);
    return store_->repository->transact(access, durability, function);
  }

  // The request with what was left open filled in; an error when something is wrong with it.
  Result<queue::ClaimRequest> complete_request(const queue::ClaimRequest& request) const;
  void upkeep_now_and_then();
  queue::Durability durability() const { return durability_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<Store> store_;
  std::string name_;
  queue::Operations* within_;
  std::atomic<queue::Durability> durability_{queue::Durability::commit};
  std::atomic<queue::Durability> claim_durability_{queue::Durability::none};
};

}  // namespace fulmar
