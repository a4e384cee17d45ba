#pragma once
// Relay: a TCP port of its own in front of a server's, for a client whose connection a test wants to cut: neither side
// says goodbye.
//
// One client at a time. Thread-safety: every function from any thread.

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace fulmar::test {

class Relay {
 public:
  explicit Relay(std::uint16_t server_port);  // throws std::system_error
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }
  void cut();  // the connection, and every further one at once, until mend()
  void mend();

 private:
  void serve();
  bool forward(int from, int to) const;  // false: the connection is over

  std::uint16_t server_port_;
  std::uint16_t port_ = 0;
  int listener_ = -1, client_ = -1, server_ = -1;  // the last two are the thread's
  std::atomic<bool> cut_{false}, done_{false};
  std::thread thread_;
};

}  // namespace fulmar::test
