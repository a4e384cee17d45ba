#pragma once
// The tests that every kind of store has to pass: contract_test.cpp has them, each kind runs them with
//   INSTANTIATE_TEST_SUITE_P(sqlite, QueueContract, testing::Values(StoreKind{"sqlite", [] { return ...; }}), store_name);
//
// Thread-safety: ManualClock from any thread; the rest belongs to its test.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "queue/model.hpp"
#include "queue/repository.hpp"

namespace fulmar::queue {

// Stands still until it is told.
class ManualClock final : public Clock {
 public:
  Time now() const override { return Time(Duration(wall_.load())); }
  Duration uptime() const override { return Duration(uptime_.load()); }
  void advance(Duration by) {
    wall_ += by.count();
    uptime_ += by.count();
  }
  void step_wall(Duration by) { wall_ += by.count(); }

 private:
  std::atomic<std::int64_t> wall_{1'770'372'000'000'000};  // 2026-02-06T10:00:00Z
  std::atomic<std::int64_t> uptime_{5'000'000'000};
};

// A place for one store, empty at first. Everything is removed with it; repositories are closed before.
class StorePlace {
 public:
  virtual ~StorePlace() = default;
  virtual Result<std::unique_ptr<Repository>> open(const RepositoryOptions& options) = 0;
  virtual bool survives_closing() const { return true; }
  virtual bool has_many_queues() const { return true; }
  virtual bool detects_dead_workers() const { return false; }  // other processes', at once
};

struct StoreKind {
  std::string name;
  std::function<std::unique_ptr<StorePlace>()> make;
};
inline std::string store_name(const testing::TestParamInfo<StoreKind>& kind) { return kind.param.name; }

class QueueContract : public testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override {
    place_ = GetParam().make();
    reopen();
  }
  void reopen() {
    store_.reset();
    store_ = open();
  }
  std::unique_ptr<Repository> open() {
    auto opened = place_->open(options());
    if (!opened) throw std::runtime_error("cannot open the store: " + opened.error().message);
    return std::move(*opened);
  }
  RepositoryOptions options() const {
    RepositoryOptions options;
    options.clock = &clock_;
    options.seed = 7;
    return options;
  }

  // A transaction of one verb; the value, or a failed test and an exception.
  template <typename Function>
  auto must(Function&& function, Repository* store = nullptr) {
    auto result = (store ? store : store_.get())->transact(Access::write, Durability::none, function);
    if (!result) throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<typename decltype(result)::value_type>) return std::move(*result);
  }
  template <typename Function>
  Error error_of(Function&& function) {
    auto result = store_->transact(Access::write, Durability::none, function);
    if (result) throw std::runtime_error("an error was expected");
    return result.error();
  }

  ItemId submit(NewItem item = {});
  std::vector<Lease> claim(std::size_t items_max = 1, std::string worker = "w", Repository* store = nullptr);
  std::vector<Refusal> complete(const Lease& lease, std::string result = {});
  std::vector<Refusal> fail(const Lease& lease, std::string error, std::optional<Duration> retry_in = {});
  Item get(const ItemId& id);
  Stats stats();
  std::string queue() const { return std::string(store_->default_queue()); }

  ManualClock clock_;
  std::unique_ptr<StorePlace> place_;
  std::unique_ptr<Repository> store_;
};

}  // namespace fulmar::queue
