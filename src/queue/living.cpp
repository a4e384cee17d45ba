#include "queue/living.hpp"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <system_error>

namespace fulmar::queue {
namespace {

struct flock byte_at(std::int64_t instance) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = instance;
  lock.l_len = 1;
  return lock;
}

}  // namespace

Result<Living> Living::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) return Living(fd);
  const auto code = std::error_code(errno, std::system_category());
  return fail(Errc::io_error,
              "cannot open the file of living processes " + path.string() + ": " + code.message());
}

Living::~Living() {
  if (fd_ >= 0) ::close(fd_);
}

bool Living::take(std::int64_t instance) {
  auto lock = byte_at(instance);
  return ::fcntl(fd_, F_OFD_SETLK, &lock) == 0;
}

bool Living::is_alive(std::int64_t instance) const {
  auto lock = byte_at(instance);
  return ::fcntl(fd_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace fulmar::queue
