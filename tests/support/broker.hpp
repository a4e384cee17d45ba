#pragma once
// Broker: a real mosquitto of a test's own, on a free loopback port, in a temporary directory, with its log at hand.
// It ends with the object, and with the test program whatever happens to that.
//
// Everything waits at most `patience`. Failures throw std::runtime_error with the end of the broker's log in the text.
// Not thread-safe; construct, restart and destroy it on one thread (see Process).

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {

class Broker {
 public:
  // Besides the plain port of 127.0.0.1 that every broker has.
  enum class Listener { tls, websocket, secure_websocket, psk, unix_socket };
  struct Options {
    std::vector<std::pair<std::string, std::string>>
        users{};                        // name, password; empty = everybody may connect
    std::vector<std::string> config{};  // more lines for mosquitto.conf
    std::vector<Listener> listeners{};
    // For tls and secure_websocket. With an authority of clients every client needs a certificate of it.
    std::filesystem::path certificate{}, key{}, clients_authority{};
    std::vector<std::string> tls_config{};                   // more lines for these two
    std::vector<std::pair<std::string, std::string>> psk{};  // identity, key in hex
  };
  static constexpr std::chrono::seconds patience{10};

  // Returns when the broker accepts connections.
  Broker();
  explicit Broker(Options options);
  ~Broker();

  std::uint16_t port() const { return port_; }
  std::string url() const;                   // mqtt://127.0.0.1:PORT
  std::string url(Listener listener) const;  // at 127.0.0.1; of the WebSockets without a path
  std::uint16_t port(Listener listener) const;
  std::string url_with(std::string_view user, std::string_view password) const;

  void kill();    // SIGKILL: nothing is saved, sockets are reset
  void stop();    // SIGTERM: an orderly end
  void start();   // on the same port with the same configuration; the log goes on in the same file
  void freeze();  // SIGSTOP: connections stay open and nothing is answered
  void thaw();
  void reload();  // SIGHUP: certificates are read anew
  bool running() { return process_.running(); }

  // All that was logged so far; every packet has a line ("Received PUBLISH from ID (d0, q1, r0, m7, 'topic', ...").
  std::string log() const;
  // Waits until the log contains `text`; false when it does not within the time.
  bool log_contains(std::string_view text, std::chrono::milliseconds timeout = patience) const;

 private:
  bool try_start();
  void write_config();

  TempDir directory_;
  Options options_;
  std::uint16_t port_ = 0;
  std::map<Listener, std::uint16_t> listener_ports_;
  Process process_;
};

}  // namespace fulmar::test
