#pragma once
// MemoryRepository: an ItemTable that many threads share and nobody keeps: for tests, and as the model for those of other
// stores. Every transaction copies the table, so that what fails can be forgotten.
//
// Thread-safety: as Repository.

#include <condition_variable>
#include <mutex>

#include "queue/item_table.hpp"

namespace fulmar::queue {

class MemoryRepository final : public Repository {
 public:
  explicit MemoryRepository(const RepositoryOptions& options = {})
      : clock_(options.clock ? *options.clock : system_clock()), random_(options.seed) {}

  std::string_view url() const override { return "memory:"; }

  Result<void> run(Access access, Durability, Body body) override {
    const std::lock_guard lock(mutex_);
    ItemTable work = table_;
    TableOperations operations(work, clock_, random_);
    if (auto done = body(operations); !done) return done;
    if (access == Access::read) return {};
    table_ = std::move(work);
    for (const auto& queue : operations.claimable()) ++words_[queue];
    if (!operations.claimable().empty()) woken_.notify_all();
    return {};
  }

  std::uint32_t wake_word(std::string_view queue) override {
    const std::lock_guard lock(mutex_);
    return words_[std::string(queue)];
  }
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) override {
    std::unique_lock lock(mutex_);
    woken_.wait_for(lock, at_most, [&] { return words_[std::string(queue)] != seen; });
  }
  void wake(std::string_view queue) override {
    const std::lock_guard lock(mutex_);
    ++words_[std::string(queue)];
    woken_.notify_all();
  }
  Result<void> sync() override { return {}; }

 private:
  const Clock& clock_;
  std::mutex mutex_;
  std::condition_variable woken_;
  RandomBits random_;
  ItemTable table_;
  std::map<std::string, std::uint32_t> words_;
};

}  // namespace fulmar::queue
