#pragma once
// Living: which of the processes that opened a store are alive, told by the kernel. Each holds a lock on one byte of a file
// for as long as it has the store open (open file description locks, fcntl(2)); when it dies, however it dies, the kernel
// gives the byte free, and whoever asks sees it.
//
// Thread-safety: one thread at a time. A forked child shares the parent's lock: it must not use the store.

#include <cstdint>
#include <filesystem>
#include <utility>

#include "fulmar/result.hpp"

namespace fulmar::queue {

class Living {
 public:
  // Takes the byte `instance`, which must be nobody's.
  static Result<Living> open(const std::filesystem::path& path);
  ~Living();
  Living(Living&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Living& operator=(Living&&) = delete;

  bool take(std::int64_t instance);            // false when somebody has it
  bool is_alive(std::int64_t instance) const;  // somebody else has it

 private:
  explicit Living(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace fulmar::queue
