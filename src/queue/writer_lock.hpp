#pragma once
// WriterLock: one writer of a store at a time, among all processes, by flock() on a file that is never renamed or deleted.
// The kernel gives it free when the holder dies. Unlike SQLite's busy handler, which polls in growing steps, it is taken by
// who waits as soon as it is free, and who has had it for a while lets the waiting ones go first.
//
// Thread-safety: one thread at a time. A forked child must not use it.

#include <chrono>
#include <filesystem>
#include <string>

#include "fulmar/result.hpp"
#include "queue/wake_file.hpp"

namespace fulmar::queue {

class WriterLock {
 public:
  static Result<WriterLock> open(const std::filesystem::path& path);
  ~WriterLock();
  WriterLock(WriterLock&& other) noexcept;
  WriterLock& operator=(WriterLock&& other) = delete;

  // Where its waiters sleep; call it once, before lock(). It must outlive the lock.
  void wait_on(WakeFile& wake) { wake_ = &wake; }

  // timeout: names the process that holds it.
  Result<void> lock(std::chrono::milliseconds at_most);
  void unlock();

 private:
  using Clock = std::chrono::steady_clock;
  WriterLock(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  bool try_lock();
  std::string holder() const;

  int fd_;
  std::filesystem::path path_;
  WakeFile* wake_ = nullptr;
  Clock::time_point turn_began_{};  // since when nobody else had it while somebody waited
};

}  // namespace fulmar::queue
