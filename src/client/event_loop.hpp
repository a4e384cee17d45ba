#pragma once
// EventLoop: an I/O thread, and what the connections that live on it share.
//
// Invariants
//   1. The thread starts with start() and ends with stop(); a loop that was never started has no thread.
//   2. Nothing that runs on it waits for anything but the loop itself [house invariant 1].
//
// Thread-safety: start, stop and post from any thread; post takes no lock. The rest on the loop's thread.

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "outbox/handoff.hpp"

namespace fulmar {

// Buffers for reading and writing, lent to connections while they have something to read or to write: an idle connection
// holds none. Not thread-safe.
class BufferPool {
 public:
  static constexpr std::size_t buffer_size = std::size_t{64} << 10;  // one send: larger ones are slower again
  using Buffer = std::unique_ptr<std::byte[]>;

  Buffer take();
  void give(Buffer buffer);

 private:
  static constexpr std::size_t kept_max = 32;
  std::vector<Buffer> free_;
};

// An eventfd: what wakes an event loop. ring() from any thread.
class WakeEvent {
 public:
  WakeEvent();
  ~WakeEvent();
  WakeEvent(const WakeEvent&) = delete;
  WakeEvent& operator=(const WakeEvent&) = delete;
  void ring() const;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  void start();  // idempotent
  // Ends the thread and waits for it; start() may follow. Not on the thread itself.
  void stop();
  // Runs `function` on the loop's thread, soon or after start().
  void post(std::move_only_function<void()> function);

  boost::asio::io_context& context() { return context_; }
  BufferPool& buffers() { return buffers_; }

 private:
  struct Posted {
    Posted* next = nullptr;
    std::move_only_function<void()> function;
  };
  void listen();
  void take_posted();

  boost::asio::io_context context_{1};
  outbox::Handoff<Posted> posted_;
  WakeEvent wake_;
  boost::asio::posix::stream_descriptor wake_stream_;
  std::uint64_t wake_value_ = 0;
  BufferPool buffers_;
  std::mutex life_;  // start and stop; the loop's thread never takes it
  std::thread thread_;
};

}  // namespace fulmar
