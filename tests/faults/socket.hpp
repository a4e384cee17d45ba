#pragma once
// Sockets of the fault servers: owned descriptors on loopback, and a way to wake a thread that polls.
//
// Thread-safety: Wake from any thread; the rest by its owner.

#include <cstdint>
#include <string_view>
#include <utility>

namespace fulmar::test {

// How a connection ends.
enum class Ending : std::uint8_t { fin, rst };

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();
  void reset();  // closes with RST

 private:
  int fd_ = -1;
};

// Non-blocking, close-on-exec, without delay. Throw std::system_error.
Socket listen_on_loopback(std::uint16_t port, int backlog = 1024, const char* address = "127.0.0.1");
std::uint16_t port_of(const Socket& listener);
Socket connect_to_loopback(std::uint16_t port);               // empty when nobody listens
Socket accept_from(const Socket& listener);                   // empty when there is none
bool send_text(const Socket& socket, std::string_view text);  // false when it does not take it all
void set_receive_buffer(const Socket& socket, int bytes);

// Readable from ring() to clear().
class Wake {
 public:
  Wake();  // throws std::system_error
  int fd() const { return event_.fd(); }
  void ring() const;
  void clear() const;

 private:
  Socket event_;
};

}  // namespace fulmar::test
