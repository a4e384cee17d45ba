#pragma once
// Watch: a thread with a connection of its own that hears of work (LISTEN) and lets waiting threads go on. It also keeps
// the promise of Durability::interval: what was changed is on the server's disk after that time.
//
// Started by the first use. While its connection is away it tries again with growing delays, and those who wait are let
// go once a second to look for themselves. After each (re)connection everybody is woken: what was said in between is lost.
//
// Thread-safety: everything from any thread. Nothing here is called, and no lock is held, while it talks to the server.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "queue/postgres_connection.hpp"

namespace fulmar::queue::postgres {

// A transaction that does nothing but to be on the disk when it is over, and with it all that came before.
extern const Statement flush_statement;
std::string channel_name(std::int64_t schema_oid);

class Watch {
 public:
  Watch(ConnectionSettings settings, std::int64_t schema_oid);
  ~Watch();  // flushes what was asked for; as long as a connection attempt or an answer takes at most
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  std::uint32_t word(std::string_view queue);
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most);
  void wake(std::string_view queue);
  void flush_within(std::chrono::microseconds time);
  // For a child process: the thread is not there, and the connection is the parent's.
  void abandon();

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::uint32_t word = 0;
    std::condition_variable changed;
  };

  Entry& entry(std::string_view queue);  // under mutex_
  void start();                          // under mutex_
  void nudge();
  void run();
  std::unique_ptr<Connection> connect();
  void serve(Connection& connection);
  void wake_all();
  bool stopping();

  const ConnectionSettings settings_;
  const std::string channel_;
  const int nudge_fd_;  // readable: stop, or a flush to plan

  std::mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_;  // of the queues that this process waits on
  std::optional<Clock::time_point> flush_at_;
  bool listening_ = false;
  bool stop_ = false;
  std::atomic<bool> stop_connecting_ = false;
  std::thread thread_;
};

}  // namespace fulmar::queue::postgres
