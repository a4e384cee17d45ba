#pragma once
// FileWatch: waiting until a file has changed, by whoever: inotify on its directory (the file itself is replaced by others),
// and a look once a second where the kernel says nothing (network file systems, no more watches).
//
// Thread-safety: every function from any thread. A thread of its own listens from the first wait() on.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace fulmar::queue {

class FileWatch {
 public:
  explicit FileWatch(const std::filesystem::path& path);
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // Returns when `changed` says so, asked at once, after each event and once a second, or when the time is over.
  void wait(std::chrono::nanoseconds at_most, const std::function<bool()>& changed);
  void notify();  // all who wait ask again

 private:
  void listen();

  const std::filesystem::path directory_;
  const std::string name_;
  std::mutex mutex_;
  std::condition_variable event_;
  std::uint64_t events_ = 0;
  int stop_ = -1;  // an eventfd, of the thread
  std::thread listener_;
};

}  // namespace fulmar::queue
