#include "queue/writer_lock.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <system_error>
#include <utility>

namespace fulmar::queue {
namespace {

using namespace std::chrono_literals;

// How long one process goes on while others wait, and how long it then stays away: enough for one to wake up.
constexpr auto turn_max = 1ms;
constexpr auto stand_back_ns = 60'000L;
// Who holds the lock may die without waking anybody.
constexpr auto sleep_max = 5ms;

}  // namespace

Result<WriterLock> WriterLock::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) {
    const auto code = std::error_code(errno, std::system_category());
    return fail(Errc::io_error, "cannot open the lock file " + path.string() + ": " + code.message());
  }
  return WriterLock(fd, path);
}

WriterLock::~WriterLock() {
  if (fd_ >= 0) ::close(fd_);
}

WriterLock::WriterLock(WriterLock&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), wake_(other.wake_) {}

bool WriterLock::try_lock() {
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

Result<void> WriterLock::lock(std::chrono::milliseconds at_most) {
  auto& word = wake_->lock_word();
  if (word.waiters.load(std::memory_order_relaxed) != 0) {
    const auto now = Clock::now();
    if (turn_began_ == Clock::time_point{}) {
      turn_began_ = now;
    } else if (now - turn_began_ > turn_max) {
      const timespec away{.tv_sec = 0, .tv_nsec = stand_back_ns};
      ::nanosleep(&away, nullptr);
      turn_began_ = {};
    }
  } else {
    turn_began_ = {};
  }
  auto seen = word.value.load();
  if (try_lock()) return {};
  const auto deadline = Clock::now() + at_most;
  for (;;) {
    WakeFile::wait(word, seen, sleep_max);
    seen = word.value.load();
    if (try_lock()) break;
    if (Clock::now() >= deadline) {
      return fail(Errc::timeout, "the lock " + path_.string() + " is held by " + holder() +
                                     " for more than " + std::to_string(at_most.count()) +
                                     " ms; see what it does, or end it");
    }
  }
  turn_began_ = {};
  return {};
}

void WriterLock::unlock() {
  ::flock(fd_, LOCK_UN);
  auto& word = wake_->lock_word();
  if (word.waiters.load() == 0) return;
  word.value.fetch_add(1);
  WakeFile::wake(word, 1);
}

// /proc/locks tells who holds which inode, without the holder's help.
std::string WriterLock::holder() const {
  struct stat status{};
  if (::fstat(fd_, &status) != 0) return "another process";
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    int pid = 0;
    unsigned device_major = 0, device_minor = 0;
    unsigned long inode = 0;
    if (std::sscanf(line.c_str(), "%*d: FLOCK %*s WRITE %d %x:%x:%lu", &pid, &device_major, &device_minor,
                    &inode) != 4)
      continue;
    if (inode != status.st_ino || device_major != major(status.st_dev) ||
        device_minor != minor(status.st_dev))
      continue;
    std::string name;
    std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/comm"), name);
    return "process " + std::to_string(pid) + (name.empty() ? "" : " (" + name + ")");
  }
  return "another process";
}

}  // namespace fulmar::queue
