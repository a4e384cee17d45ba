// Ours, as it comes: defaults but for the durability. Our queue in PostgreSQL is the same class under another URL.

#include <fmt/format.h>

#include "fulmar/queue.hpp"
#include "work_queue.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;

class Own final : public WorkQueue {
 public:
  explicit Own(Queue queue) : queue_(std::move(queue)) {}

  Result<void> put(std::span<const std::string> items) override {
    if (items.size() == 1) return outcome(queue_.submit("bench", items.front()));
    return submit(items, {});
  }

  Result<void> put_for_tomorrow(std::span<const std::string> items) override {
    return submit(items, std::chrono::time_point_cast<std::chrono::microseconds>(
                             std::chrono::system_clock::now() + std::chrono::hours(24)));
  }

  Result<void> claim(std::size_t items_max) override {
    return keep(queue_.claim({.worker = "bench", .items_max = items_max}));
  }

  Result<void> wait_claim(std::chrono::milliseconds at_most) override {
    return keep(queue_.wait_claim({.worker = "bench"}, at_most));
  }

  Result<void> complete() override {
    if (leases_.size() == 1) return queue_.complete(leases_.front());
    std::vector<queue::Completion> completions;
    completions.reserve(leases_.size());
    for (const auto& lease : leases_) completions.push_back({.lease = lease});
    const auto refused = queue_.complete_batch(completions);
    if (!refused) return std::unexpected(refused.error());
    return refused->empty() ? Result<void>{} : std::unexpected(refused->front().error);
  }

 private:
  template <typename T>
  static Result<void> outcome(const Result<T>& result) {
    return result ? Result<void>{} : std::unexpected(result.error());
  }

  Result<void> submit(std::span<const std::string> items, std::optional<queue::Time> when) {
    std::vector<queue::NewItem> all;
    all.reserve(items.size());
    for (const auto& item : items) all.push_back({.type = "bench", .payload = item, .scheduled_at = when});
    return outcome(queue_.submit_batch(all));
  }

  Result<void> keep(Result<std::vector<queue::Lease>> claimed) {
    items_.clear();
    leases_.clear();
    if (!claimed) return std::unexpected(claimed.error());
    for (auto& lease : *claimed) {
      leases_.push_back(lease.key());
      items_.push_back(std::move(lease.item.payload));
    }
    return {};
  }

  Queue queue_;
  std::vector<queue::LeaseKey> leases_;
};

Result<Server> start(const fs::path& folder, Safety) {
  return Server(fmt::format("sqlite:{}", (folder / "queue.db").string()));
}

Result<Server> start_yaml(const fs::path& folder, Safety) {
  return Server(fmt::format("yaml:{}", (folder / "queue.yaml").string()));
}

Result<std::unique_ptr<WorkQueue>> connect(const std::string& address, Safety safety, bool) {
  auto queue = Queue::open(address, {.durability = safety == Safety::synced ? queue::Durability::commit
                                                                            : queue::Durability::none});
  if (!queue) return std::unexpected(queue.error());
  return std::make_unique<Own>(std::move(*queue));
}

std::string version() { return FULMAR_VERSION; }

}  // namespace

QueueKind own_queue() {
  return {.library = "fulmar", .version = version, .start = start, .connect = connect, .notices_death = true};
}

QueueKind own_yaml_queue() {
  return {.library = "fulmar",
          .missing = FULMAR_BENCH_QUEUE_YAML ? "" : "not part of this build",
          .version = version,
          .start = start_yaml,
          .connect = connect};
}

}  // namespace fulmar::bench
