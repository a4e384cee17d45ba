#pragma once
// DispatchPool: the threads on which users' handlers run, shared by any number of lanes. A lane is one client's share: it
// lives on one worker, its calls come one at a time and in order; lanes of a worker take turns.
//
// Invariants
//   1. A lane without work costs nothing: it is in no list, and nobody looks at it.
//   2. Only the worker runs a lane, and only while it holds the lane's token (`scheduled_`); whoever turns it from false to
//      true puts the lane into the worker's list, once. The token of a lane that does not run stays taken, so that a list
//      never holds a lane that may be gone.
//   3. No user code of a lane begins after stop() has returned, be it on the worker or on an executor.
//   4. What start() was given is held until the lane has ended and no call of it runs any more, wherever that is.
//
// Thread-safety: as said at each function; "owner" is one thread at a time.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "outbox/doorbell.hpp"

namespace fulmar {

class DispatchLane;

class DispatchWorker : public std::enable_shared_from_this<DispatchWorker> {
 public:
  using Clock = std::chrono::steady_clock;

  DispatchWorker() = default;
  DispatchWorker(const DispatchWorker&) = delete;
  DispatchWorker& operator=(const DispatchWorker&) = delete;
  ~DispatchWorker();

  // Any thread. The thread, with all signals blocked; idempotent, and again after end(). Throws std::system_error.
  void start();
  // Any thread. The thread ends when it has nothing to do. Waits for that, unless it is called on the thread itself or a
  // handler does not return: the thread then owns the worker, and ends alone.
  void end();

 private:
  friend class DispatchLane;

  void push(DispatchLane& lane);  // any thread that has taken the lane's token
  void run();
  bool may_end();
  void run(DispatchLane& lane);
  bool take_pushed();
  void run_due(Clock::time_point now);
  Clock::time_point next_due() const;

  std::atomic<DispatchLane*> pushed_{nullptr};  // newest first, linked by next_
  outbox::Doorbell bell_;
  std::atomic<bool> ending_{false};
  std::atomic<unsigned> stuck_{0};  // lanes that were not waited for any longer

  std::mutex starting_;
  std::thread thread_;
  bool running_ = false;  // there is a thread, which may have been left to itself

  // The worker's own.
  std::vector<DispatchLane*> ready_;  // a queue from ready_begin_ on
  std::size_t ready_begin_ = 0;
  std::vector<DispatchLane*> timed_;  // those with a due time
};

class DispatchLane {
 public:
  using Clock = DispatchWorker::Clock;

  explicit DispatchLane(std::shared_ptr<DispatchWorker> worker);
  DispatchLane(const DispatchLane&) = delete;
  DispatchLane& operator=(const DispatchLane&) = delete;
  // It has never run, or stop() said true, or nothing but its `keep_alive` held it.
  virtual ~DispatchLane();

  // Owner. Starts the worker's thread where that has not happened. Again after stop(), also before that has had its effect.
  void start(std::shared_ptr<void> keep_alive);
  // Owner. last_turn() runs, and then no user code of this lane begins (invariant 3). Waits until its running calls have
  // returned, at the latest until the deadline; then it is false, and the lane ends when they do. Called inside a call of
  // this lane it does not wait. Idempotent.
  bool stop(Clock::time_point deadline);
  // Is this thread inside a call of this lane, on the worker or on an executor?
  bool on_thread() const;

  // A call of this lane on a thread that is not the worker's: while it exists the lane does.
  class Call {
   public:
    Call() = default;
    Call(Call&& other) noexcept : lane_(std::exchange(other.lane_, nullptr)) {}
    Call& operator=(Call&&) = delete;
    ~Call();
    explicit operator bool() const { return lane_ != nullptr; }

   private:
    friend class DispatchLane;
    explicit Call(DispatchLane* lane) : lane_(lane) {}
    DispatchLane* lane_ = nullptr;
  };

  // What outlives the lane in the hands of others.
  class Life {
   public:
    // Any thread; no lock. Empty when the lane does not run.
    Call enter();

   private:
    friend class DispatchLane;
    friend class DispatchWorker;
    enum class State : std::uint8_t { idle, running, stopping };

    static constexpr std::uint32_t closed = 1u << 31;

    void leave();
    bool no_calls() const { return (calls_.load(std::memory_order_seq_cst) & ~closed) == 0; }

    std::atomic<std::uint32_t> calls_{closed};  // on other threads than the worker's; closed: none may begin
    std::mutex mutex_;
    std::condition_variable changed_;
    DispatchLane* lane_ = nullptr;
    State state_ = State::idle;
    unsigned stuck_ = 0;  // stop()s that did not wait any longer
    std::shared_ptr<void> keep_alive_;
  };
  const std::shared_ptr<Life>& life() const { return life_; }

  // Marks that this thread runs user code of a lane, for on_thread(). On the stack only.
  class Inside {
   public:
    explicit Inside(const DispatchLane& lane);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    friend class DispatchLane;
    const DispatchLane* lane_;
    const Inside* outer_;
  };

 protected:
  // --- on the worker
  // Bounded work; true: there is more.
  virtual bool turn() = 0;
  // Is there work that turn() has not seen? Sequentially consistent with the push of that work.
  virtual bool has_work() = 0;
  // The lane stops: what must still run.
  virtual void last_turn() = 0;
  // turn() is called at this time at the latest. Forgotten when the lane stops.
  void set_due(Clock::time_point due);
  void clear_due();
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }

  // Any thread, after it has pushed work. A system call only when the worker sleeps.
  void schedule() {
    if (!scheduled_.load(std::memory_order_seq_cst) &&
        !scheduled_.exchange(true, std::memory_order_seq_cst)) {
      worker_->push(*this);
    }
  }

 private:
  friend class DispatchWorker;

  bool has_ended();

  const std::shared_ptr<DispatchWorker> worker_;
  const std::shared_ptr<Life> life_;
  std::atomic<bool> scheduled_{true};
  std::atomic<bool> stopping_{false};
  DispatchLane* next_ = nullptr;
  Clock::time_point due_ = Clock::time_point::max();  // the worker's
};

class DispatchPool {
 public:
  explicit DispatchPool(unsigned threads);
  // As stop().
  ~DispatchPool();
  DispatchPool(const DispatchPool&) = delete;
  DispatchPool& operator=(const DispatchPool&) = delete;

  // Any thread. Starts every thread now; without it each starts with its first lane.
  void start();
  // Any thread. Ends every thread, see DispatchWorker::end(); start() of a lane starts its worker's again.
  void stop();
  // Any thread. The workers in turn.
  std::shared_ptr<DispatchWorker> assign();

 private:
  std::vector<std::shared_ptr<DispatchWorker>> workers_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace fulmar
