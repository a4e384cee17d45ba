#pragma once
// DiskStall: a disk that does not answer for a while. disk_stall.cpp defines pread, pwrite, fsync and fdatasync for the
// whole program, libraries that call them by name included; while a stall lasts, none of them returns, or does anything.
// Sockets and pipes are not used by these calls.
//
// Thread-safety: any thread. Without it under the sanitizers, which bring their own.

#include <chrono>
#include <cstdint>

namespace fulmar::bench {

class DiskStall {
 public:
  static void hold_for(std::chrono::nanoseconds time);  // from now on
  static bool lasts();
  static std::uint64_t calls_held();  // so far
};

}  // namespace fulmar::bench
