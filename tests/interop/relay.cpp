#include "tests/interop/relay.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

namespace fulmar::test {
namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int tcp_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot make a socket");
  const int yes = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

}  // namespace

Relay::Relay(std::uint16_t server_port) : server_port_(server_port), listener_(tcp_socket()) {
  auto address = loopback(0);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 8) != 0 ||
      ::getsockname(listener_, generic, &size) != 0) {
    const int code = errno;
    ::close(listener_);
    throw std::system_error(code, std::generic_category(), "cannot listen on a loopback port");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

Relay::~Relay() {
  done_ = true;
  thread_.join();
  ::close(listener_);
}

void Relay::cut() { cut_ = true; }
void Relay::mend() { cut_ = false; }

bool Relay::forward(int from, int to) const {
  char bytes[65'536];
  const auto got = ::recv(from, bytes, sizeof bytes, 0);
  for (ssize_t sent = 0; sent < got;) {
    const auto now = ::send(to, bytes + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
    if (now <= 0) return false;
    sent += now;
  }
  return got > 0;
}

void Relay::serve() {
  const auto hang_up = [this] {
    for (int* fd : {&client_, &server_}) {
      if (*fd >= 0) ::close(std::exchange(*fd, -1));
    }
  };
  while (!done_) {
    if (cut_) hang_up();
    pollfd ready[] = {{listener_, POLLIN, 0}, {client_, POLLIN, 0}, {server_, POLLIN, 0}};
    if (::poll(ready, 3, 5) <= 0) continue;
    const bool alive =
        (!ready[1].revents || forward(client_, server_)) && (!ready[2].revents || forward(server_, client_));
    if (!alive) hang_up();
    if (!ready[0].revents) continue;
    hang_up();
    client_ = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    server_ = tcp_socket();
    const auto address = loopback(server_port_);
    if (client_ < 0 || cut_ ||
        ::connect(server_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      hang_up();
  }
  hang_up();
}

}  // namespace fulmar::test
