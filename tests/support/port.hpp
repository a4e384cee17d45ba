#pragma once
// Loopback ports for tests.

#include <cstdint>

namespace fulmar::test {

// A TCP port of 127.0.0.1 that nobody listens on now. It lies below the range that the kernel hands to outgoing
// connections: a client that keeps trying a dead port of that range would in the end connect to itself, or keep the
// server from coming back. Throws std::runtime_error.
std::uint16_t free_port();

// Accepts connections (by the kernel's backlog) and never says a word.
class SilentPort {
 public:
  SilentPort();  // throws std::system_error
  ~SilentPort();
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  std::uint16_t port() const { return port_; }

 private:
  int socket_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace fulmar::test
