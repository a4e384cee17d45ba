// Worker: threads that claim and run, and one that extends.
#include <algorithm>
#include <condition_variable>
#include <exception>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "queue/service.hpp"

namespace fulmar {
namespace {

using namespace queue;
using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr std::chrono::nanoseconds wait_at_most = 10s;  // for work; interrupted by stop()
// After an error of the store.
constexpr auto pause_min = 10ms;
constexpr auto pause_max = 5'000ms;

}  // namespace

class Worker::Impl {
 public:
  Impl(const Queue& queue, Handler handler, WorkerOptions options)
      : queue_(queue.impl_), handler_(std::move(handler)), options_(std::move(options)) {}

  Result<void> start();
  bool stop(std::chrono::milliseconds deadline);
  void join();
  WorkerStats stats() const;

 private:
  // What one thread has claimed. The extender may look at all; the flags are theirs to share.
  struct Held {
    Lease lease{};
    std::atomic<bool> lost{false};
    bool over = false;  // completed, failed or given back: under mutex_
  };
  using Hand = std::list<Held>;

  void work();
  void extend();
  void run(Held& held);
  void give_back(Hand::iterator from, Hand& hand);
  void failed_to(std::string_view what, const Error& error);

  Queue queue_;
  const Handler handler_;
  const WorkerOptions options_;
  Duration lease_{};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool started_ = false;
  bool stopping_ = false;
  bool given_up_ = false;    // stop() waits no longer
  std::size_t running_ = 0;  // threads
  std::list<Hand*> hands_;
  WorkerStats stats_{};
  std::vector<std::thread> threads_;
  std::thread extender_;
};

Result<void> Worker::Impl::start() {
  ClaimRequest request;
  request.worker = options_.name;
  request.items_max = options_.claim_items;
  request.lease = options_.lease;
  request.types = options_.types;
  if (auto ok = validate(request); !ok) return ok;
  if (options_.threads < 1 || options_.threads > 1024) {
    return fulmar::fail(Errc::invalid_config,
                        "threads is " + std::to_string(options_.threads) + "; allowed are 1 to 1024");
  }
  if (options_.lease) {
    lease_ = *options_.lease;
  } else {
    auto settings = queue_.settings();
    if (!settings) return std::unexpected(settings.error());
    lease_ = settings->lease;
  }
  const std::lock_guard lock(mutex_);
  if (started_) return fulmar::fail(Errc::invalid_config, "the worker was started before; make another one");
  started_ = true;
  running_ = options_.threads;
  for (std::size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { work(); });
  extender_ = std::thread([this] { extend(); });
  return {};
}

void Worker::Impl::failed_to(std::string_view what, const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    ++stats_.errors;
  }
  if (options_.log) options_.log(LogLevel::warning, "cannot " + std::string(what) + ": " + error.message);
}

void Worker::Impl::work() {
  ClaimRequest request;
  request.worker = options_.name;
  request.items_max = options_.claim_items;
  request.lease = lease_;
  request.types = options_.types;
  request.tied_to_process = options_.tied_to_process;
  auto pause = pause_min;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    auto claimed = queue_.wait_claim(request, wait_at_most);
    if (!claimed && claimed.error().code != Errc::cancelled) {
      failed_to("claim", claimed.error());
      lock.lock();
      changed_.wait_for(lock, pause, [&] { return stopping_; });
      pause = std::min<std::chrono::milliseconds>(pause * 2, pause_max);
      continue;
    }
    pause = pause_min;
    Hand hand;
    if (claimed) {
      for (auto& lease : *claimed) hand.emplace_back().lease = std::move(lease);
    }
    lock.lock();
    if (hand.empty()) continue;
    stats_.claimed += hand.size();
    hands_.push_back(&hand);
    changed_.notify_all();  // the extender has something to do
    for (auto held = hand.begin(); held != hand.end(); ++held) {
      if (stopping_) {
        lock.unlock();
        give_back(held, hand);
        lock.lock();
        break;
      }
      lock.unlock();
      run(*held);
      lock.lock();
    }
    hands_.remove(&hand);
  }
  --running_;
  changed_.notify_all();
}

void Worker::Impl::run(Held& held) {
  if (held.lost) {
    const std::lock_guard lock(mutex_);
    held.over = true;
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    ++stats_.busy;
  }
  const Context context{held.lease, [this, &held] {
                          if (held.lost) return true;
                          const std::lock_guard lock(mutex_);
                          return given_up_;
                        }};
  Result<std::string> result;
  try {
    result = handler_(context);
  } catch (const std::exception& error) {
    result = fulmar::fail(Errc::handler_failed, error.what());
  } catch (...) {
    result = fulmar::fail(Errc::handler_failed, "the handler threw something that is no std::exception");
  }
  if (result) {
    if (auto ok = validate_result(*result); !ok) result = std::unexpected(ok.error());
  }
  {
    const std::lock_guard lock(mutex_);
    --stats_.busy;
  }
  // What the store refuses for the moment is offered again for as long as the lease may hold.
  const auto until = Steady::now() + lease_;
  for (auto pause = pause_min;; pause = std::min<std::chrono::milliseconds>(pause * 2, pause_max)) {
    const auto done = result ? queue_.complete(held.lease.key(), *result)
                             : queue_.fail(held.lease.key(), result.error().message);
    const bool final = done || done.error().code == Errc::lease_lost ||
                       done.error().code == Errc::illegal_transition || done.error().code == Errc::not_found;
    if (final || Steady::now() + pause > until) {
      const std::lock_guard lock(mutex_);
      held.over = true;
      if (!done) {
        ++(final ? stats_.lease_lost : stats_.errors);
      } else {
        ++(result ? stats_.completed : stats_.failed);
      }
      return;
    }
    failed_to(result ? "complete an item" : "fail an item", done.error());
    std::this_thread::sleep_for(pause);
  }
}

void Worker::Impl::give_back(Hand::iterator from, Hand& hand) {
  for (auto held = from; held != hand.end(); ++held) {
    if (auto done = queue_.release(held->lease.key()); !done && done.error().code == Errc::io_error) {
      failed_to("give an item back", done.error());
    }
    const std::lock_guard lock(mutex_);
    held->over = true;
  }
}

void Worker::Impl::extend() {
  const auto every = std::max<std::chrono::nanoseconds>(lease_ / 3, 1ms);
  std::unique_lock lock(mutex_);
  auto next = Steady::now() + every;
  while (running_ > 0) {
    if (changed_.wait_until(lock, next, [&] { return running_ == 0; })) break;
    next = Steady::now() + every;
    std::vector<LeaseKey> keys;
    for (const auto* hand : hands_) {
      for (const auto& held : *hand) {
        if (!held.over && !held.lost) keys.push_back(held.lease.key());
      }
    }
    if (keys.empty()) continue;
    lock.unlock();
    auto refusals = queue_.extend_batch(keys, lease_);
    if (!refusals) {
      failed_to("extend leases", refusals.error());
      next = std::min(next, Steady::now() + every / 4);
    }
    lock.lock();
    if (!refusals) continue;
    for (const auto& refusal : *refusals) {
      for (auto* hand : hands_) {
        for (auto& held : *hand) {
          if (!held.over && held.lease.key() == keys[refusal.index]) held.lost = true;
        }
      }
    }
  }
}

bool Worker::Impl::stop(std::chrono::milliseconds deadline) {
  std::unique_lock lock(mutex_);
  if (!started_) return true;
  stopping_ = true;
  changed_.notify_all();
  const auto until = Steady::now() + deadline;
  // Interrupted again and again: who was about to wait would miss it once.
  while (running_ > 0) {
    lock.unlock();
    queue_.interrupt();
    lock.lock();
    const auto now = Steady::now();
    if (now >= until) break;
    changed_.wait_until(lock, std::min(until, now + 50ms), [&] { return running_ == 0; });
  }
  given_up_ = running_ > 0;
  return !given_up_;
}

void Worker::Impl::join() {
  for (auto& thread : threads_) thread.join();
  if (extender_.joinable()) extender_.join();
}

WorkerStats Worker::Impl::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Worker::Worker(const Queue& queue, Handler handler, WorkerOptions options)
    : impl_(std::make_unique<Impl>(queue, std::move(handler), std::move(options))) {}

Worker::~Worker() {
  impl_->stop(std::chrono::seconds(5));
  impl_->join();
}

Result<void> Worker::start() { return impl_->start(); }
bool Worker::stop(std::chrono::milliseconds deadline) { return impl_->stop(deadline); }
WorkerStats Worker::stats() const { return impl_->stats(); }

}  // namespace fulmar
