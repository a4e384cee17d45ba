#pragma once
// QueueKeeper: the daemon's hand on a work queue. It opens the store, ends what expired and removes what retention says, at
// an interval, and knows the queue's numbers. It never runs an item.
//
// A store that cannot be opened, or stops answering, is told once per reason and tried again; it never holds up the rest
// of the daemon: everything that blocks is on a thread of its own.
//
// Thread-safety: status() from any thread; start() and stop() from the one that made it.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "fulmar/queue.hpp"

namespace fulmar::daemon {

class QueueKeeper {
 public:
  struct Config {
    std::string url{};  // empty = there is no queue
    std::string name{};
    std::chrono::milliseconds upkeep_interval{1'000};
  };
  struct Status {
    std::string name{};
    queue::Stats stats{};
    bool known = false;         // stats are there, of now or of the last time that it worked
    std::uint64_t expired = 0;  // leases that this object ended
    std::uint64_t removed = 0;  // finished items, by retention
    std::string trouble{};      // why it does not work now; empty = it does
  };
  using Tell = std::function<void(bool trouble, std::string_view text)>;  // on the keeper's thread

  QueueKeeper(Config config, Tell tell) : config_(std::move(config)), tell_(std::move(tell)) {}
  ~QueueKeeper() { stop(); }
  QueueKeeper(const QueueKeeper&) = delete;
  QueueKeeper& operator=(const QueueKeeper&) = delete;

  void start();
  void stop();  // waits for the call of the store that runs: lock_timeout at most, on a store that answers
  Status status() const;

 private:
  static constexpr std::chrono::milliseconds lock_timeout{500};
  static constexpr std::chrono::milliseconds retry_interval{5'000};

  void run();
  Result<void> keep(std::optional<Queue>& queue);
  void report(const Result<void>& kept);

  const Config config_;
  const Tell tell_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  Status status_;
  std::thread thread_;
};

}  // namespace fulmar::daemon
