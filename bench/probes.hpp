#pragma once
// Probes: what a process spent — processor time, allocations, system calls.
//
// Allocations: probes.cpp defines malloc, calloc, realloc and the aligned ones for the whole program, so that
// the calls of shared libraries and of operator new come by as well; it hands on to the C library. Switched
// off, the price is one branch per allocation. Without it under the sanitizers, which bring their own.
// System calls: the kernel's tracepoint raw_syscalls:sys_enter, counted for all threads of the process by
// perf_event_open: exact, futex and the like included, and it does not slow the process as strace does. It
// needs tracefs and root, or kernel.perf_event_paranoid <= -1.
//
// Thread-safety: the counters count every thread; control them from one.

#include <linux/perf_event.h>

#include <chrono>
#include <cstdint>
#include <optional>

#include "fulmar/result.hpp"

namespace fulmar::bench {

double cpu_seconds();  // of this process: user and system, all threads
double peak_rss_bytes();

// Of this process, now: what is in memory, and the same with pages that n processes share counted as 1/n.
struct Memory {
  double rss_bytes = 0;
  double pss_bytes = 0;
};
Memory memory_now();

// How much of the machine's processor time, 0 to 1, others take while this thread sleeps for that long.
double busy_elsewhere(std::chrono::milliseconds time);

class AllocationCounter {
 public:
  static bool available();
  static void enable(bool on);
  static std::uint64_t count();  // allocations (malloc, calloc, realloc ...) while enabled
};

class SyscallCounter {
 public:
  // Counts from now on, in this thread and in all that it starts later: open it before a library starts its
  // threads.
  static Result<SyscallCounter> open() { return open(PERF_FLAG_FD_CLOEXEC); }
  // As open(), for a program that this process starts later: it is counted as well, and may read its own count (64 bits,
  // of this machine's order) from fd().
  static Result<SyscallCounter> open_inherited() { return open(0); }
  ~SyscallCounter();
  SyscallCounter(SyscallCounter&& other) noexcept;
  SyscallCounter& operator=(SyscallCounter&&) = delete;

  std::uint64_t count() const;  // itself one system call, not counted before the next
  int fd() const { return fd_; }

 private:
  static Result<SyscallCounter> open(unsigned long flags);
  explicit SyscallCounter(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace fulmar::bench
