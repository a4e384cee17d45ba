#pragma once
// Runtime::Impl: the threads behind a Runtime, its event loops and its dispatch workers, given to clients in turn.
//
// Thread-safety: any thread.

#include <atomic>
#include <memory>
#include <vector>

#include "client/dispatch_pool.hpp"
#include "client/event_loop.hpp"
#include "fulmar/runtime.hpp"

namespace fulmar {

class Runtime::Impl {
 public:
  explicit Impl(Options options);

  EventLoop& assign_loop() {
    return *loops_[next_loop_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
  }
  std::shared_ptr<DispatchWorker> assign_worker() { return dispatch_pool_.assign(); }
  // Ends the dispatch threads, but for one that is in a handler; a lane's start() may follow. For the owner of the only client.
  void stop_dispatch();
  // Ends the I/O threads and waits for them; start() of a loop may follow. For the owner of the only client.
  void stop();

 private:
  std::vector<std::unique_ptr<EventLoop>> loops_;
  std::atomic<std::size_t> next_loop_{0};
  DispatchPool dispatch_pool_;
};

}  // namespace fulmar
