#include "probes.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FULMAR_BENCH_COUNTS_ALLOCATIONS 0
#else
#define FULMAR_BENCH_COUNTS_ALLOCATIONS 1
#endif

namespace {

constinit std::atomic<bool> counting{false};
constinit std::atomic<std::uint64_t> allocations{0};

}  // namespace

#if FULMAR_BENCH_COUNTS_ALLOCATIONS
namespace {
inline void note_allocation() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  note_allocation();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  note_allocation();
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  note_allocation();
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  note_allocation();
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note_allocation();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  note_allocation();
  void* memory = __libc_memalign(alignment, size);
  if (memory == nullptr) return ENOMEM;
  *result = memory;
  return 0;
}
}  // extern "C"
#endif

namespace fulmar::bench {

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

Memory memory_now() {
  Memory memory;
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    const auto value = [&] { return std::strtod(line.c_str() + 4, nullptr) * 1024; };  // "Rss:   1234 kB"
    if (line.starts_with("Rss:")) memory.rss_bytes = value();
    if (line.starts_with("Pss:")) memory.pss_bytes = value();
  }
  return memory;
}

double busy_elsewhere(std::chrono::milliseconds time) {
  struct Ticks {
    double all = 0;
    double idle = 0;
  };
  const auto now = [] {
    Ticks ticks;
    std::ifstream file("/proc/stat");
    std::string cpu;
    file >> cpu;  // "cpu  user nice system idle iowait irq ..."
    double value = 0;
    for (int i = 0; i < 8 && file >> value; ++i) {
      ticks.all += value;
      if (i == 3 || i == 4) ticks.idle += value;
    }
    return ticks;
  };
  const auto before = now();
  std::this_thread::sleep_for(time);
  const auto after = now();
  const double all = after.all - before.all;
  return all > 0 ? 1 - (after.idle - before.idle) / all : 0;
}

bool AllocationCounter::available() { return FULMAR_BENCH_COUNTS_ALLOCATIONS != 0; }
void AllocationCounter::enable(bool on) { counting.store(on, std::memory_order_relaxed); }
std::uint64_t AllocationCounter::count() { return allocations.load(std::memory_order_relaxed); }

Result<SyscallCounter> SyscallCounter::open(unsigned long flags) {
  std::uint64_t id = 0;
  for (const char* root : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
    std::ifstream file(fmt::format("{}/events/raw_syscalls/sys_enter/id", root));
    if (file >> id) break;
  }
  if (id == 0) {
    return fail(
        Errc::io_error,
        "system calls are not counted: /sys/kernel/tracing/events/raw_syscalls cannot be read; as root: "
        "mount -t tracefs none /sys/kernel/tracing");
  }
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.config = id;
  attributes.inherit = 1;
  const auto fd = static_cast<int>(::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, flags));
  if (fd < 0) {
    return fail(Errc::io_error,
                fmt::format("system calls are not counted: perf_event_open: {}; run as root or set "
                            "kernel.perf_event_paranoid to -1",
                            std::strerror(errno)));
  }
  return SyscallCounter(fd);
}

SyscallCounter::SyscallCounter(SyscallCounter&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

SyscallCounter::~SyscallCounter() {
  if (fd_ >= 0) ::close(fd_);
}

std::uint64_t SyscallCounter::count() const {
  std::uint64_t value = 0;
  if (::read(fd_, &value, sizeof value) != sizeof value) return 0;
  return value;
}

}  // namespace fulmar::bench
