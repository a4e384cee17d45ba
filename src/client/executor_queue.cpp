#include "client/executor_queue.hpp"

#include <exception>
#include <utility>

namespace fulmar {
namespace {

// Then others on the executor have their turn.
constexpr int jobs_per_run = 64;

}  // namespace

// What is given to the executor; notices when it is thrown away instead of called.
class ExecutorQueue::Run {
 public:
  explicit Run(std::shared_ptr<ExecutorQueue> queue) : queue_(std::move(queue)) {}
  Run(Run&&) noexcept = default;
  Run& operator=(Run&&) = delete;
  ~Run() {
    if (queue_) queue_->dropped();
  }
  void operator()() {
    if (const auto queue = std::exchange(queue_, nullptr)) queue->run();
  }

 private:
  std::shared_ptr<ExecutorQueue> queue_;
};

void ExecutorQueue::push(Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (std::exchange(handed_over_, true)) return;
  }
  hand_over();
}

void ExecutorQueue::resume() {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.empty() || std::exchange(handed_over_, true)) return;
  }
  hand_over();
}

void ExecutorQueue::hand_over() {
  try {
    executor_(Run(shared_from_this()));
    return;
  } catch (const std::exception& error) {
    if (const auto call = life_->enter()) runner_.executor_failed(error.what());
  } catch (...) {
    if (const auto call = life_->enter())
      runner_.executor_failed("an exception that is not a std::exception");
  }
}

void ExecutorQueue::run() {
  for (int i = 0; i < jobs_per_run; ++i) {
    const auto call = life_->enter();
    if (!call) {
      {
        const std::lock_guard lock(mutex_);
        handed_over_ = false;
      }
      // Started again in between? Then its resume() may have come too early.
      if (const auto again = life_->enter()) resume();
      return;
    }
    Job job;
    {
      const std::lock_guard lock(mutex_);
      if (jobs_.empty()) {
        handed_over_ = false;
        return;
      }
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    runner_.run_job(job);
  }
  hand_over();
}

void ExecutorQueue::dropped() {
  const auto call = life_->enter();
  std::deque<Job> lost;
  {
    const std::lock_guard lock(mutex_);
    handed_over_ = false;
    if (call) lost.swap(jobs_);
  }
  for (auto& job : lost) runner_.discard(job);
}

void ExecutorQueue::clear() {
  std::deque<Job> lost;
  const std::lock_guard lock(mutex_);
  lost.swap(jobs_);
}

}  // namespace fulmar
