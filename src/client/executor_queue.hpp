#pragma once
// ExecutorQueue: the messages of one filter whose handler runs on an executor of the user's. They run one at a time and in
// order, whatever the executor does.
//
// Invariants
//   1. At most one function of ours is with the executor.
//   2. What waits is counted by the lane against its bound.
//   3. While the lane is stopped nothing runs and what waits stays; resume() goes on.
//
// Thread-safety: all functions from any thread. No user code runs under the lock, and the I/O thread does not know it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "client/dispatch_pool.hpp"
#include "client/handler_table.hpp"
#include "fulmar/message.hpp"

namespace fulmar {

class ExecutorQueue : public std::enable_shared_from_this<ExecutorQueue> {
 public:
  struct Job {
    HandlerTable::EntryPtr entry;
    OwnedMessage message;
    Acknowledgement acknowledgement{};  // for QoS 1 and 2
    std::size_t bytes = 0;
    bool marks = false;  // the call counts for de-duplication, by `key`
    std::array<std::uint64_t, 2> key{};
  };

  // What the lane does with a job, during a Call of its Life.
  class Runner {
   public:
    virtual void run_job(Job& job) = 0;
    virtual void discard(Job& job) = 0;  // the executor will never run it
    virtual void executor_failed(const char* what) = 0;

   protected:
    ~Runner() = default;
  };

  ExecutorQueue(Executor executor, Runner& runner, std::shared_ptr<DispatchLane::Life> life)
      : executor_(std::move(executor)), runner_(runner), life_(std::move(life)) {}

  void push(Job job);
  void resume();
  // Forgets what waits, unacknowledged; when the lane goes.
  void clear();

 private:
  class Run;

  void run();
  void dropped();
  void hand_over();

  const Executor executor_;
  Runner& runner_;  // while there is a Call
  const std::shared_ptr<DispatchLane::Life> life_;
  std::mutex mutex_;
  std::deque<Job> jobs_;
  bool handed_over_ = false;  // a function of ours is with the executor, or runs
};

}  // namespace fulmar
