#pragma once
// WakeFile: words in a mapped file by which processes wake each other: who made work claimable bumps the queue's word, who
// waits sleeps on it (a futex). Waking costs no system call while nobody sleeps. The file holds nothing that matters: it may
// be deleted at any time; who mapped the old one is woken by its time-out from then on.
//
// Also the word on which processes wait for the writer's lock: see WriterLock.
//
// Thread-safety: from any thread and any process that has the file mapped.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar::queue {

class WakeFile {
 public:
  // A queue's name chooses its word; two names may share one, and then wake each other for nothing.
  static constexpr std::size_t words = 64;

  static Result<WakeFile> open(const std::filesystem::path& path);
  ~WakeFile();
  WakeFile(WakeFile&& other) noexcept;
  WakeFile& operator=(WakeFile&& other) noexcept;

  std::uint32_t word(std::string_view queue) const;
  void bump(std::string_view queue);
  // Until the word is another one than `seen`, the time is over, or for no reason.
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most);

  struct Word {
    std::atomic<std::uint32_t> value;
    std::atomic<std::uint32_t>
        waiters;  // too many when one died in its sleep: then waking costs a system call
  };
  Word& lock_word() { return map_->lock; }
  static void wait(Word& word, std::uint32_t seen, std::chrono::nanoseconds at_most);
  static void wake(Word& word, int how_many);  // after the value was changed

 private:
  struct Map {
    Word lock;
    char unused[56];
    Word queues[words];
  };
  explicit WakeFile(Map* map) : map_(map) {}
  Word& of(std::string_view queue) const;

  Map* map_ = nullptr;
};

}  // namespace fulmar::queue
