#include "cli/input.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace fulmar::cli {
namespace {

Result<std::string> read_all(int fd, const std::string& name) {
  constexpr std::size_t step = std::size_t{256} << 10;
  std::string content;
  for (;;) {
    const auto size = content.size();
    content.resize(size + step);
    const auto got = read(fd, content.data() + size, step);
    content.resize(size + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Errc::io_error, "cannot read " + name + ": " + std::strerror(errno));
    if (got == 0) return content;
    if (content.size() > payload_max) {
      return fail(Errc::payload_too_large,
                  name + " is larger than a message may be (" + std::to_string(payload_max) + " bytes)");
    }
  }
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(Errc::io_error, "cannot open '" + path + "' given by -f: " + std::strerror(errno));
  auto content = read_all(fd, "'" + path + "' given by -f");
  close(fd);
  return content;
}

Result<std::string> read_stdin() {
  auto content = read_all(STDIN_FILENO, "stdin");
  if (content && content->empty()) {
    return fail(Errc::io_error, "stdin is empty; an empty message is sent with -n");
  }
  return content;
}

}  // namespace fulmar::cli
