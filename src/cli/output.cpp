#include "cli/output.hpp"

#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace fulmar::cli {
namespace {

// A file on disk never blocks; a pipe that polls writable has room for PIPE_BUF bytes. Its O_NONBLOCK is not
// ours to set: the flag belongs to everybody who shares the open file.
std::size_t chunk_for(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? std::size_t{1} << 20 : std::size_t{PIPE_BUF};
}

}  // namespace

Output::Output(int fd, Events& events) : fd_(fd), events_(events), chunk_(chunk_for(fd)) {}

void Output::append(std::string_view message) {
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock,
               [&] { return closed_ || waiting_.empty() || waiting_.size() + message.size() <= bytes_max; });
    if (closed_) return;
    waiting_ += message;
  }
  events_.ring();
}

void Output::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
}

Output::Result Output::write_all() {
  for (;;) {
    if (written_ == writing_.size()) {
      writing_.clear();
      written_ = 0;
      {
        const std::lock_guard lock(mutex_);
        writing_.swap(waiting_);
      }
      if (writing_.empty()) return Result::written;
      room_.notify_all();
    }
    while (written_ < writing_.size()) {
      const bool writable = events_.wait({.fd = fd_, .events = POLLOUT});
      if (events_.signal()) return Result::signal;
      if (!writable) continue;
      const auto size = write(fd_, writing_.data() + written_, std::min(chunk_, writing_.size() - written_));
      if (size >= 0) {
        written_ += static_cast<std::size_t>(size);
      } else if (errno == EPIPE) {
        return Result::closed_by_reader;
      } else if (errno != EINTR && errno != EAGAIN) {
        error_ = errno;
        return Result::failed;
      }
    }
  }
}

}  // namespace fulmar::cli
