#include "queue/yaml_watch.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace fulmar::queue {

using namespace std::chrono_literals;

FileWatch::FileWatch(const std::filesystem::path& path)
    : directory_(path.parent_path()), name_(path.filename().string()) {}

FileWatch::~FileWatch() {
  if (listener_.joinable()) {
    const std::uint64_t one = 1;
    static_cast<void>(::write(stop_, &one, sizeof one) > 0);
    listener_.join();
  }
  if (stop_ >= 0) ::close(stop_);
}

void FileWatch::notify() {
  {
    const std::lock_guard guard(mutex_);
    ++events_;
  }
  event_.notify_all();
}

void FileWatch::wait(std::chrono::nanoseconds at_most, const std::function<bool()>& changed) {
  const auto deadline = std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(at_most, 24h);
  std::unique_lock guard(mutex_);
  if (!listener_.joinable()) {
    if (stop_ < 0) stop_ = ::eventfd(0, EFD_CLOEXEC);
    if (stop_ >= 0) listener_ = std::thread([this] { listen(); });
  }
  while (true) {
    const auto seen = events_;  // before the question, so that nothing is missed between it and the waiting
    guard.unlock();
    if (changed() || std::chrono::steady_clock::now() >= deadline) return;
    guard.lock();
    event_.wait_until(guard, std::min(deadline, std::chrono::steady_clock::now() + 1s),
                      [&] { return events_ != seen; });
  }
}

void FileWatch::listen() {
  const int watcher = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watcher < 0) return;  // the look once a second remains
  if (::inotify_add_watch(watcher, directory_.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE) >= 0) {
    while (true) {
      std::array<pollfd, 2> both{pollfd{watcher, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
      if (::poll(both.data(), both.size(), -1) < 0 && errno != EINTR) break;
      if (both[1].revents != 0) break;
      alignas(inotify_event) std::array<char, 4096> buffer{};
      const auto count = ::read(watcher, buffer.data(), buffer.size());
      bool ours = false;
      for (std::ptrdiff_t at = 0; at + static_cast<std::ptrdiff_t>(sizeof(inotify_event)) <= count;) {
        inotify_event event{};
        std::memcpy(&event, buffer.data() + at, sizeof event);
        const char* name = buffer.data() + at + sizeof event;
        ours |= (event.mask & IN_Q_OVERFLOW) != 0 || (event.len > 0 && name_ == name);
        at += static_cast<std::ptrdiff_t>(sizeof event + event.len);
      }
      if (ours) notify();
    }
  }
  ::close(watcher);
}

}  // namespace fulmar::queue
