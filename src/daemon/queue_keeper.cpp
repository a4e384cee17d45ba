#include "daemon/queue_keeper.hpp"

#include <algorithm>
#include <utility>

namespace fulmar::daemon {

void QueueKeeper::start() {
  thread_ = std::thread([this] { run(); });
}

void QueueKeeper::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (gateway_) gateway_->stop();
}

QueueKeeper::Status QueueKeeper::status() const {
  const std::lock_guard lock(mutex_);
  auto status = status_;
  if (gateway_) status.gateway = gateway_->stats();
  return status;
}

void QueueKeeper::run() {
  std::optional<Queue> queue;
  for (;;) {
    const auto kept = keep(queue);
    report(kept);
    if (!kept) queue.reset();  // opened anew: the file may have been replaced, the server restarted
    const auto pause = kept ? config_.upkeep_interval : std::max(config_.upkeep_interval, retry_interval);
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, pause, [&] { return stopping_; })) return;
  }
}

Result<void> QueueKeeper::keep(std::optional<Queue>& queue) {
  if (!queue) {
    auto opened = Queue::open(config_.url, {.name = config_.name,
                                            .create = true,
                                            .read_only = false,
                                            .settings = {},
                                            .durability = {},
                                            .lock_timeout = lock_timeout,
                                            .set_damaged_aside = true,
                                            .allow_network_file_system = false,
                                            .log = [this](LogLevel level, std::string_view text) {
                                              tell_(level != LogLevel::info, text);
                                            }});
    if (!opened) return std::unexpected(std::move(opened.error()));
    queue.emplace(std::move(*opened));
  }
  if (config_.mqtt && client_ && !gateway_) {
    if (auto opened = open_to_mqtt(*queue); !opened) return opened;
  }
  for (bool more = true; more;) {
    const auto done = queue->upkeep();
    if (!done) return std::unexpected(done.error());
    const std::lock_guard lock(mutex_);
    status_.expired += done->expired;
    status_.removed += done->removed;
    more = done->more && !stopping_;
  }
  auto stats = queue->stats();
  if (!stats) return std::unexpected(std::move(stats.error()));
  const std::lock_guard lock(mutex_);
  status_.name = queue->name();
  status_.stats = std::move(*stats);
  status_.known = true;
  return {};
}

Result<void> QueueKeeper::open_to_mqtt(const Queue& queue) {
  {
    const std::lock_guard lock(mutex_);
    gateway_.emplace(*client_, queue, QueueGatewayOptions{.prefix = config_.mqtt_prefix});
  }
  return gateway_->start();
}

void QueueKeeper::report(const Result<void>& kept) {
  const std::string trouble = kept ? "" : kept.error().message;
  std::string before;
  {
    const std::lock_guard lock(mutex_);
    before = std::exchange(status_.trouble, trouble);
  }
  if (before == trouble) return;
  tell_(!kept, kept ? "answers again" : trouble + "; trying again");
}

}  // namespace fulmar::daemon
