#include "cli/events.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <system_error>

namespace fulmar::cli {

Events::Events() {
  sigset_t held{};
  sigemptyset(&held);
  sigaddset(&held, SIGINT);
  sigaddset(&held, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &held, &former_);
  std::signal(SIGPIPE, SIG_IGN);
  bell_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  signals_ = signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
  if (bell_ < 0 || signals_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd, signalfd");
}

Events::~Events() {
  release_signals();
  close(bell_);
  close(signals_);
}

void Events::release_signals() {
  if (!released_) pthread_sigmask(SIG_SETMASK, &former_, nullptr);
  released_ = true;
}

void Events::ring() {
  // seq_cst on both flags: either the waiter sees rung_ before it sleeps, or we see waiting_ and write.
  rung_.store(true, std::memory_order_seq_cst);
  if (!waiting_.load(std::memory_order_seq_cst)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(bell_, &one, sizeof one);
}

bool Events::wait(WaitFile file, std::optional<Clock::time_point> until) {
  waiting_.store(true, std::memory_order_seq_cst);
  int timeout_ms = -1;
  if (rung_.load(std::memory_order_seq_cst)) {
    timeout_ms = 0;
  } else if (until) {
    // Rounded up, so that it is really `until` when the time is over.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now()).count();
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
  }
  pollfd files[] = {{bell_, POLLIN, 0}, {signals_, POLLIN, 0}, {file.fd, file.events, 0}};
  const int ready = poll(files, 3, timeout_ms);
  waiting_.store(false, std::memory_order_seq_cst);
  rung_.exchange(false, std::memory_order_seq_cst);  // reads, so that what came before the ring is seen
  if (ready <= 0) return false;
  if (files[0].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = read(bell_, &count, sizeof count);
  }
  signalfd_siginfo info{};
  if (files[1].revents != 0 && read(signals_, &info, sizeof info) == sizeof info) {
    signal_ = static_cast<int>(info.ssi_signo);
  }
  return files[2].revents != 0;
}

}  // namespace fulmar::cli
