#include "queue/wake_file.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <system_error>
#include <utility>

namespace fulmar::queue {

Result<WakeFile> WakeFile::open(const std::filesystem::path& path) {
  const auto failed = [&](std::string_view what, int error) {
    const std::string reason = std::error_code(error, std::system_category()).message();
    const std::string advice =
        error == ENOSPC || error == EDQUOT ? "; make room on the disk and try again" : "";
    return fail(Errc::io_error, path.string() + ": cannot " + std::string(what) + ": " + reason + advice);
  };
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return failed("open it", errno);
  // Never shrunk: somebody may have it mapped.
  struct stat status{};
  int error = ::fstat(fd, &status) == 0 ? 0 : errno;
  if (error == 0 && status.st_size < static_cast<off_t>(sizeof(Map))) error = ::posix_fallocate(fd, 0, 4096);
  if (error != 0) {
    ::close(fd);
    return failed("make room in it", error);
  }
  void* memory = ::mmap(nullptr, sizeof(Map), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  error = memory == MAP_FAILED ? errno : 0;
  ::close(fd);
  if (error != 0) return failed("map it", error);
  return WakeFile(static_cast<Map*>(memory));
}

WakeFile::~WakeFile() {
  if (map_) ::munmap(map_, sizeof(Map));
}

WakeFile::WakeFile(WakeFile&& other) noexcept : map_(std::exchange(other.map_, nullptr)) {}

WakeFile& WakeFile::operator=(WakeFile&& other) noexcept {
  std::swap(map_, other.map_);
  return *this;
}

WakeFile::Word& WakeFile::of(std::string_view queue) const {
  std::uint32_t hash = 2166136261;  // FNV-1a: the same in every process
  for (const char c : queue) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return map_->queues[hash % words];
}

std::uint32_t WakeFile::word(std::string_view queue) const {
  return of(queue).value.load(std::memory_order_acquire);
}

void WakeFile::bump(std::string_view queue) {
  Word& word = of(queue);
  // Sequentially consistent, as in wait(): either the waiter sees the new value or we see the waiter.
  word.value.fetch_add(1);
  wake(word, INT_MAX);
}

void WakeFile::wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) {
  wait(of(queue), seen, at_most);
}

void WakeFile::wait(Word& word, std::uint32_t seen, std::chrono::nanoseconds at_most) {
  if (at_most <= std::chrono::nanoseconds::zero()) return;
  const timespec time{.tv_sec = at_most.count() / 1'000'000'000, .tv_nsec = at_most.count() % 1'000'000'000};
  word.waiters.fetch_add(1);
  if (word.value.load() == seen) {
    ::syscall(SYS_futex, &word.value, FUTEX_WAIT, seen, &time, nullptr, 0);
  }
  word.waiters.fetch_sub(1);
}

void WakeFile::wake(Word& word, int how_many) {
  if (word.waiters.load() == 0) return;
  ::syscall(SYS_futex, &word.value, FUTEX_WAKE, how_many, nullptr, nullptr, 0);
}

}  // namespace fulmar::queue
