#include "tests/support/port.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <stdexcept>
#include <system_error>

namespace fulmar::test {
namespace {

// A socket bound to `port` of 127.0.0.1, or -1.
int bind_loopback(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot make a socket");
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Without listen() two such sockets may share a port; listening is what proves that it is free.
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && ::listen(fd, 64) == 0)
    return fd;
  ::close(fd);
  return -1;
}

std::uint16_t random_port() {
  static constexpr std::uint16_t first = 10'000, last = 32'767;
  std::random_device random;  // two test programs started together must not walk the same way
  return std::uniform_int_distribution<std::uint16_t>(first, last)(random);
}

}  // namespace

std::uint16_t free_port() {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::uint16_t port = random_port();
    if (const int fd = bind_loopback(port); fd >= 0) {
      ::close(fd);
      return port;
    }
  }
  throw std::runtime_error("no free loopback port found in 100 attempts");
}

SilentPort::SilentPort() {
  for (int attempt = 0; attempt < 100 && socket_ < 0; ++attempt) {
    port_ = random_port();
    socket_ = bind_loopback(port_);
  }
  if (socket_ < 0) throw std::runtime_error("no free loopback port found in 100 attempts");
}

SilentPort::~SilentPort() { ::close(socket_); }

}  // namespace fulmar::test
