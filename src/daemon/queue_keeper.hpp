#pragma once
// QueueKeeper: the daemon's hand on a work queue. It opens the store, ends what expired and removes what retention says, at
// an interval, and knows the queue's numbers. It never runs an item. With a client it opens the queue to MQTT as well.
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

#include "fulmar/queue_mqtt.hpp"

namespace fulmar::daemon {

class QueueKeeper {
 public:
  struct Config {
    std::string url{};  // empty = there is no queue
    std::string name{};
    std::chrono::milliseconds upkeep_interval{1'000};
    bool mqtt = false;  // take items by MQTT, and announce work
    std::string mqtt_prefix = QueueGatewayOptions{}.prefix;
  };
  struct Status {
    std::string name{};
    queue::Stats stats{};
    bool known = false;         // stats are there, of now or of the last time that it worked
    std::uint64_t expired = 0;  // leases that this object ended
    std::uint64_t removed = 0;  // finished items, by retention
    std::optional<QueueGatewayStats> gateway{};
    std::string trouble{};  // why it does not work now; empty = it does
  };
  using Tell = std::function<void(bool trouble, std::string_view text)>;  // on the keeper's thread

  // `client`, for Config::mqtt, has to outlive this.
  QueueKeeper(Config config, Tell tell, Client* client = nullptr)
      : config_(std::move(config)), tell_(std::move(tell)), client_(client) {}
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
  Result<void> open_to_mqtt(const Queue& queue);
  void report(const Result<void>& kept);

  const Config config_;
  const Tell tell_;
  Client* const client_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  Status status_;
  // From the first time that the queue was opened on, whatever becomes of the store: it tries again by itself.
  std::optional<QueueGateway> gateway_;
  std::thread thread_;
};

}  // namespace fulmar::daemon
