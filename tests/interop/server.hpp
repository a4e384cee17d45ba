#pragma once
// Server: somebody else's MQTT server as Debian packages it, run for the tests on free loopback ports in a temporary
// directory. It keeps its state on disk there, so that kill() and start() are a crash and a recovery.
//
// Not thread-safe; use it on the thread that starts it (see Process).

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::test {

class Server {
 public:
  enum class Kind : std::uint8_t { mosquitto, nats, rabbitmq };

  // In what the servers differ as far as tests have to know it; docs/interop.md tells the whole of it.
  struct Traits {
    ProtocolVersion version = ProtocolVersion::v5;  // the highest
    QoS qos = QoS::exactly_once;                    // the highest that it takes and grants
    bool retained_for_wildcards = true;  // a new subscription with wildcards gets retained messages
    bool keeps_dots_and_spaces = true;   // topics may contain '.' and ' '
    int copies_for_overlapping = 1;      // of a message that a client's subscriptions of QoS 0 and 1 match
  };

  virtual ~Server() = default;
  virtual std::uint16_t port() const = 0;
  virtual void kill() = 0;   // SIGKILL
  virtual void start() = 0;  // again, on the same ports and files; returns when it accepts connections
  virtual std::string log() const = 0;
  // Returns when what it has acknowledged would survive kill(), with the retained message of that topic.
  virtual void settle(const std::string& retained) { (void)retained; }

  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port()); }
};

Server::Traits traits(Server::Kind kind);
std::string_view to_string(Server::Kind kind);

// Why tests with such a server cannot run here, and what to do; nothing when they can.
std::optional<std::string> missing(Server::Kind kind);

// The one server of its kind of this test program, started by its first test and stopped after the last one.
// Throws std::runtime_error with the end of the server's log when it does not start.
Server& shared_server(Server::Kind kind);

// Makes of each kind.
std::unique_ptr<Server> start_mosquitto();
std::unique_ptr<Server> start_nats();
std::unique_ptr<Server> start_rabbitmq();

}  // namespace fulmar::test
