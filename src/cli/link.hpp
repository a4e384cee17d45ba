#pragma once
// Link: a client and what has become of its connection, for a command that must end when there is no use in
// waiting. Before the first connection every failed attempt is an end (a command fails fast where a service
// would wait); after it only a refusal by the server is, because the client comes back by itself from
// everything else.
//
// Thread-safety: status() and client() from any thread; the rest from the main thread.

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cli/events.hpp"
#include "cli/options.hpp"
#include "cli/report.hpp"
#include "fulmar/client.hpp"

namespace fulmar::cli {

class Link {
 public:
  struct Failure {
    int exit_code = 1;   // the server's code where it gave one
    std::string reason;  // with the remedy
    bool by_server = false;
  };
  struct Status {
    bool connected = false;
    bool ever_connected = false;
    std::uint64_t losses = 0;  // connections that were up and ended by themselves
    std::string last_loss;
    std::optional<Failure> failure;
  };

  // Rings `events` at every change. The configuration is valid.
  Link(ClientConfig config, Events& events, bool debug);

  Client& client() { return *client_; }
  void start() { client_->start(); }
  Status status() const;
  // Says goodbye to the server. A signal during it ends the process.
  ShutdownReport close(std::chrono::milliseconds deadline);

 private:
  void changed(const StateChange& change);

  Events& events_;
  mutable std::mutex mutex_;  // held for a few assignments
  Status status_;
  bool closing_ = false;
  std::unique_ptr<Client> client_;
};

// Opens a link for a command, or says on stderr why the configuration is refused.
std::unique_ptr<Link> open_link(Command command, ClientConfig config, const CommonOptions& options,
                                Events& events);

// A client identifier that nobody else has: "fulmar-" and 16 hexadecimal digits, 23 characters as every
// server of 3.1.1 takes [MQTT-3.1.3-5].
std::string random_client_id();

}  // namespace fulmar::cli
