#pragma once
// WorkPool: N commands at a time for the items of a queue. A thread each claims an item, runs the command, and completes or
// fails the attempt; one more thread extends the leases.
//
// What the command's end means:
//   exit code 0      the item is completed
//   exit code 75     not now: the attempt counts, and the next one comes after `retry_in`
//   exit code 65     never: failed for good, whatever attempts are left
//   anything else    the attempt failed; the next one comes after the queue's growing pause
// The error of a failed attempt is the exit code and the last lines of stderr.
//
// Invariants
//   1. A command is killed, with all that it started, before its lease ends without having been extended: at the latest
//      when the store says that the lease is lost, and when it has not answered until the lease runs out.
//   2. Every item claimed is completed, failed, given back, or was lost to somebody else, which is told.
//
// Thread-safety: drain() and give_up() from any thread; the rest from the one that made it.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/queue_options.hpp"
#include "cli/queue_process.hpp"
#include "fulmar/queue.hpp"

namespace fulmar::cli {

class WorkPool {
 public:
  static constexpr int exit_retry_later = 75;  // sysexits.h: EX_TEMPFAIL
  static constexpr int exit_never = 65;        // EX_DATAERR

  enum class Kind : std::uint8_t { completed, failed, lost, given_back, trouble };
  struct Event {
    Kind kind;
    const queue::Item* item;  // none: trouble with the store
    std::string text;
    std::chrono::duration<double> took{0};
  };
  struct Totals {
    std::uint64_t completed = 0;
    std::uint64_t failed = 0;
    std::uint64_t lost = 0;
    std::uint64_t given_back = 0;
  };
  struct Hooks {
    std::function<void(const Event&)> event;          // on the pool's threads, one at a time
    std::function<void(std::string_view)> on_stderr;  // what commands write there; one at a time
    std::function<void()> ended;                      // once, when the last thread is about to end
  };

  // `lease` is how long the queue's leases last; `program` is where options.program[0] was found.
  WorkPool(const QueueCommandOptions& options, Queue& queue, const ProcessGuard& guard, std::string program,
           queue::Duration lease, Hooks hooks);
  ~WorkPool();  // give_up(), and waits
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;

  void start();
  void drain();    // claims no more; commands that run come to their end
  void give_up();  // the same, and kills them: their items are given back, no attempt counted
  // Every thread has ended, or the time is over; wakes threads that drain() came too early for.
  bool wait(std::chrono::milliseconds at_most);
  Totals totals() const;
  std::optional<Error> fatal() const;  // why it ended by itself, where that is an error

 private:
  using Clock = std::chrono::steady_clock;
  enum class Stop : std::uint8_t { no, drain, give_up };

  // An item in hand.
  struct Hand {
    Hand(queue::Lease taken, const ProcessGuard& guard) : lease(std::move(taken)), process(guard) {}
    queue::Lease lease;
    ChildProcess process;
    Clock::time_point ends;  // of the lease, at the latest
    Clock::time_point extend_at;
    bool lost = false;
    bool given_up = false;
  };

  void run_thread();
  std::optional<queue::Lease> claim(Clock::time_point& asked_at);
  bool take_one_of_count();
  void work_on(queue::Lease lease, Clock::time_point asked_at);
  void settle(Hand& hand, const Result<ChildEnd>& end, Clock::duration took);
  void complete(Hand& hand, const ChildEnd& end, std::chrono::duration<double> took);
  void fail(Hand& hand, const queue::Failure& failure, const std::string& text,
            std::chrono::duration<double> took);
  template <typename Verb>
  Result<void> until_lease_ends(Hand& hand, Verb&& verb);
  std::string result_of(const queue::Item& item, const ChildEnd& end);
  std::vector<std::string> environment_of(const queue::Lease& lease) const;

  void keep_leases();
  void extend(const std::vector<std::shared_ptr<Hand>>& due);
  void lose(Hand& hand);

  void tell(Kind kind, const queue::Item* item, std::string text, std::chrono::duration<double> took = {});
  void trouble(const Error& error);
  void stop_with(Error error);
  bool stopping() const { return stop_.load(std::memory_order_relaxed) != Stop::no; }
  bool pause_for(Clock::duration time);  // false: it is time to end

  const QueueCommandOptions& options_;
  Queue& queue_;
  const ProcessGuard& guard_;
  const std::string program_;
  const queue::Duration lease_;
  const Hooks hooks_;

  std::atomic<Stop> stop_{Stop::no};
  mutable std::mutex mutex_;  // of what follows; no call of the queue is made under it
  std::condition_variable changed_;
  std::list<std::shared_ptr<Hand>> hands_;
  std::size_t threads_alive_ = 0;
  std::uint64_t left_of_count_ = 0;
  bool keeper_ends_ = false;
  Totals totals_;
  std::optional<Error> fatal_;
  std::string trouble_told_;
  std::mutex telling_;  // for the hooks

  std::vector<std::thread> threads_;
  std::thread keeper_;
};

}  // namespace fulmar::cli
