#include "client/dispatch_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "client/signals_blocked.hpp"

namespace fulmar {
namespace {

thread_local const DispatchLane::Inside* innermost = nullptr;

}  // namespace

// --- worker ----------------------------------------------------------------------------------------------------------

DispatchWorker::~DispatchWorker() {
  // A thread that still runs owns this, so it is the thread itself that is here.
  if (thread_.joinable()) thread_.detach();
}

void DispatchWorker::start() {
  const std::lock_guard lock(starting_);
  ending_.store(false, std::memory_order_seq_cst);
  if (running_) return;
  if (thread_.joinable()) thread_.detach();  // has ended, and end() is about to join it: it finds nothing
  const SignalsBlocked blocked;
  thread_ = std::thread([self = shared_from_this()] { self->run(); });
  running_ = true;
}

void DispatchWorker::end() {
  std::thread thread;
  {
    const std::lock_guard lock(starting_);
    ending_.store(true, std::memory_order_seq_cst);
    thread.swap(thread_);
  }
  bell_.ring();
  if (!thread.joinable()) return;
  if (thread.get_id() == std::this_thread::get_id() || stuck_.load(std::memory_order_seq_cst) != 0) {
    thread.detach();
  } else {
    thread.join();
  }
}

bool DispatchWorker::may_end() {
  const std::lock_guard lock(starting_);
  if (!ending_.load(std::memory_order_relaxed)) return false;
  running_ = false;
  return true;
}

void DispatchWorker::push(DispatchLane& lane) {
  lane.next_ = pushed_.load(std::memory_order_relaxed);
  // seq_cst: the first half of the doorbell's handshake.
  while (!pushed_.compare_exchange_weak(lane.next_, &lane, std::memory_order_seq_cst,
                                        std::memory_order_relaxed)) {
  }
  bell_.ring();
}

bool DispatchWorker::take_pushed() {
  if (pushed_.load(std::memory_order_seq_cst) == nullptr) return false;
  const auto end = static_cast<std::ptrdiff_t>(ready_.size());
  for (auto* lane = pushed_.exchange(nullptr, std::memory_order_acquire); lane; lane = lane->next_) {
    ready_.push_back(lane);
  }
  std::reverse(ready_.begin() + end, ready_.end());
  return true;
}

void DispatchWorker::run() {
  pthread_setname_np(pthread_self(), "fulmar-dispatch");
  for (;;) {
    take_pushed();
    if (!timed_.empty()) run_due(Clock::now());
    if (ready_begin_ < ready_.size()) {
      auto* const lane = ready_[ready_begin_++];
      if (ready_begin_ == ready_.size()) {
        ready_.clear();
        ready_begin_ = 0;
      } else if (ready_begin_ >= 64 && ready_begin_ * 2 >= ready_.size()) {
        ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(ready_begin_));
        ready_begin_ = 0;
      }
      run(*lane);
      continue;
    }
    if (ending_.load(std::memory_order_seq_cst) && may_end()) return;
    bell_.announce();
    if (pushed_.load(std::memory_order_seq_cst) != nullptr || ending_.load(std::memory_order_seq_cst)) {
      bell_.awake();
      continue;
    }
    bell_.sleep_until(next_due());
  }
}

void DispatchWorker::run(DispatchLane& lane) {
  const bool last = lane.stopping_.load(std::memory_order_acquire);
  bool more = false;
  {
    const DispatchLane::Inside inside(lane);
    if (last) {
      lane.last_turn();
    } else {
      more = lane.turn();
    }
  }
  if (last && lane.has_ended()) return;  // it may be gone
  if (last || more) return ready_.push_back(&lane);
  lane.scheduled_.store(false, std::memory_order_seq_cst);
  // Work whose pusher still saw the token taken is seen here.
  if ((lane.stopping_.load(std::memory_order_seq_cst) || lane.has_work()) &&
      !lane.scheduled_.exchange(true, std::memory_order_seq_cst)) {
    ready_.push_back(&lane);
  }
}

void DispatchWorker::run_due(Clock::time_point now) {
  std::erase_if(timed_, [&](DispatchLane* lane) {
    if (lane->due_ > now) return false;
    lane->due_ = Clock::time_point::max();
    lane->schedule();
    return true;
  });
}

DispatchWorker::Clock::time_point DispatchWorker::next_due() const {
  auto due = Clock::time_point::max();
  for (const auto* lane : timed_) due = std::min(due, lane->due_);
  return due;
}

// --- lane ------------------------------------------------------------------------------------------------------------

DispatchLane::DispatchLane(std::shared_ptr<DispatchWorker> worker)
    : worker_(std::move(worker)), life_(std::make_shared<Life>()) {
  life_->lane_ = this;
}

DispatchLane::~DispatchLane() = default;

void DispatchLane::start(std::shared_ptr<void> keep_alive) {
  worker_->start();
  const std::lock_guard lock(life_->mutex_);
  life_->keep_alive_ = std::move(keep_alive);
  stopping_.store(false, std::memory_order_seq_cst);
  life_->calls_.fetch_and(~Life::closed, std::memory_order_seq_cst);
  const bool was_idle = life_->state_ == Life::State::idle;
  life_->state_ = Life::State::running;
  if (was_idle) worker_->push(*this);  // with the token, which an idle lane has
}

bool DispatchLane::stop(Clock::time_point deadline) {
  const auto life = life_;  // the lane may be gone when the wait is over
  const auto worker = worker_;
  std::unique_lock lock(life->mutex_);
  if (life->state_ == Life::State::running) {
    life->state_ = Life::State::stopping;
    life->calls_.fetch_or(Life::closed, std::memory_order_seq_cst);
    stopping_.store(true, std::memory_order_seq_cst);
    schedule();
  }
  const auto ended = [&] { return life->state_ != Life::State::stopping && life->no_calls(); };
  const bool inside = on_thread();
  if (!inside && life->changed_.wait_until(lock, deadline, ended)) return true;
  if (life->state_ == Life::State::stopping) {  // so nobody is to wait for the worker either
    ++life->stuck_;
    worker->stuck_.fetch_add(1, std::memory_order_seq_cst);
  }
  return inside;
}

// On the worker, which holds the token and keeps it: whoever starts the lane again has it from there (invariant 2).
bool DispatchLane::has_ended() {
  const auto life = life_;
  const auto worker = worker_;
  std::shared_ptr<void> keep_alive;  // let go of last: that may destroy this
  const std::lock_guard lock(life->mutex_);
  worker->stuck_.fetch_sub(std::exchange(life->stuck_, 0), std::memory_order_seq_cst);
  if (!stopping_.load(std::memory_order_relaxed)) return false;  // started again in the meantime
  clear_due();
  life->state_ = Life::State::idle;
  if (life->no_calls()) keep_alive = std::move(life->keep_alive_);
  life->changed_.notify_all();
  return true;
}

bool DispatchLane::on_thread() const {
  for (const auto* inside = innermost; inside; inside = inside->outer_) {
    if (inside->lane_ == this) return true;
  }
  return false;
}

void DispatchLane::set_due(Clock::time_point due) {
  if (due_ == Clock::time_point::max()) worker_->timed_.push_back(this);
  due_ = due;
}

void DispatchLane::clear_due() {
  if (due_ == Clock::time_point::max()) return;
  due_ = Clock::time_point::max();
  std::erase(worker_->timed_, this);
}

DispatchLane::Call DispatchLane::Life::enter() {
  auto seen = calls_.load(std::memory_order_seq_cst);
  do {
    if (seen & closed) return Call();
  } while (!calls_.compare_exchange_weak(seen, seen + 1, std::memory_order_seq_cst));
  return Call(lane_);
}

void DispatchLane::Life::leave() {
  if (calls_.fetch_sub(1, std::memory_order_seq_cst) != (closed | 1)) return;
  std::shared_ptr<void> keep_alive;
  const std::lock_guard lock(mutex_);
  if (state_ == State::idle) keep_alive = std::move(keep_alive_);
  changed_.notify_all();
}

DispatchLane::Call::~Call() {
  if (!lane_) return;
  const auto life = lane_->life_;
  life->leave();
}

DispatchLane::Inside::Inside(const DispatchLane& lane) : lane_(&lane), outer_(innermost) { innermost = this; }
DispatchLane::Inside::~Inside() { innermost = outer_; }

// --- pool ------------------------------------------------------------------------------------------------------------

DispatchPool::DispatchPool(unsigned threads) {
  workers_.reserve(std::max(threads, 1u));
  for (unsigned i = 0; i < std::max(threads, 1u); ++i) workers_.push_back(std::make_shared<DispatchWorker>());
}

DispatchPool::~DispatchPool() { stop(); }

void DispatchPool::stop() {
  for (const auto& worker : workers_) worker->end();
}

void DispatchPool::start() {
  for (const auto& worker : workers_) worker->start();
}

std::shared_ptr<DispatchWorker> DispatchPool::assign() {
  return workers_[next_.fetch_add(1, std::memory_order_relaxed) % workers_.size()];
}

}  // namespace fulmar
