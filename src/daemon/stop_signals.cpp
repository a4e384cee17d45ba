#include "daemon/stop_signals.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <system_error>

namespace fulmar::daemon {
namespace {

constexpr std::chrono::milliseconds same_request{250};

void raise_event(int fd) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);  // it can only be raised already
}

}  // namespace

StopSignals::StopSignals(std::function<void()> on_second) : on_second_(std::move(on_second)) {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  quit_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (event_ < 0 || quit_ < 0 || signals_ < 0)
    throw std::system_error(errno, std::generic_category(), "signalfd");
  thread_ = std::thread([this] { run(); });
}

StopSignals::~StopSignals() {
  raise_event(quit_);
  thread_.join();
  for (const int fd : {event_, quit_, signals_}) ::close(fd);
}

void StopSignals::run() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point first{};
  pthread_setname_np(pthread_self(), "fulmar-signals");
  for (;;) {
    std::array<pollfd, 2> fds{{{signals_, POLLIN, 0}, {quit_, POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[1].revents) return;
    signalfd_siginfo info{};
    if (::read(signals_, &info, sizeof info) != sizeof info) continue;
    if (requested()) {
      if (Clock::now() - first >= same_request) on_second_();
    } else {
      first = Clock::now();
      signal_.store(static_cast<int>(info.ssi_signo), std::memory_order_release);
      raise_event(event_);
    }
  }
}

}  // namespace fulmar::daemon
