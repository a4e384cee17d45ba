#include "disk_stall.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace fulmar::bench {
namespace {

std::atomic<std::int64_t> stalled_until_ns{0};
std::atomic<std::uint64_t> held{0};

std::int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What came before the stall is over with comes after it.
void wait_for_the_disk() {
  if (!DiskStall::lasts()) return;
  held.fetch_add(1, std::memory_order_relaxed);
  while (DiskStall::lasts()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

void DiskStall::hold_for(std::chrono::nanoseconds time) { stalled_until_ns.store(now_ns() + time.count()); }
bool DiskStall::lasts() {
  const auto until = stalled_until_ns.load(std::memory_order_relaxed);
  return until != 0 && now_ns() < until;
}
std::uint64_t DiskStall::calls_held() { return held.load(std::memory_order_relaxed); }

}  // namespace fulmar::bench

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {
ssize_t pread(int file, void* into, size_t size, off_t offset) {
  fulmar::bench::wait_for_the_disk();
  return ::syscall(SYS_pread64, file, into, size, offset);
}
ssize_t pread64(int file, void* into, size_t size, off64_t offset) {
  fulmar::bench::wait_for_the_disk();
  return ::syscall(SYS_pread64, file, into, size, offset);
}
ssize_t pwrite(int file, const void* bytes, size_t size, off_t offset) {
  fulmar::bench::wait_for_the_disk();
  return ::syscall(SYS_pwrite64, file, bytes, size, offset);
}
ssize_t pwrite64(int file, const void* bytes, size_t size, off64_t offset) {
  fulmar::bench::wait_for_the_disk();
  return ::syscall(SYS_pwrite64, file, bytes, size, offset);
}
int fsync(int file) {
  fulmar::bench::wait_for_the_disk();
  return static_cast<int>(::syscall(SYS_fsync, file));
}
int fdatasync(int file) {
  fulmar::bench::wait_for_the_disk();
  return static_cast<int>(::syscall(SYS_fdatasync, file));
}
}  // extern "C"
#endif
