#pragma once
// Background: work that may block (a name look-up, reading files) on another thread, and what follows from it back on the
// executor. Nobody waits for the work: when it is not wanted any more its thread is left behind.
//
// Not thread-safe: used on its executor. One piece of work at a time; destruction and cancel() are immediate.

#include <functional>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "fulmar/result.hpp"

namespace fulmar::net {

class Background {
 public:
  // So many pieces of work run at a time in the process, those included that were given up and have not returned yet;
  // others wait for their turn.
  static constexpr int threads_max = 64;

  explicit Background(boost::asio::any_io_executor executor);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // `work` runs on another thread, without signals, and must own what it uses; then `then` on the executor, unless
  // cancelled. What was under way is cancelled. Fails when the system gives no thread.
  Result<void> run(std::function<void()> work, std::function<void()> then);
  // Just `then`, later on the executor, unless cancelled.
  void later(std::function<void()> then);
  void cancel();

 private:
  struct Job;
  struct Threads;
  boost::asio::any_io_executor executor_;
  std::shared_ptr<Job> job_;  // shared with its thread
};

}  // namespace fulmar::net
