// nats-server: MQTT needs JetStream, where it keeps sessions, retained messages and QoS 1.
#include <fstream>
#include <stdexcept>

#include "tests/interop/server.hpp"
#include "tests/interop/server_process.hpp"
#include "tests/support/port.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

class Nats final : public Server {
 public:
  Nats() {
    // Somebody else may take a port between our look and the server's bind.
    for (int attempt = 0; attempt < 5; ++attempt) {
      port_ = free_port();
      std::ofstream config(config_file());
      config
          << "listen: 127.0.0.1:" << free_port() << '\n'
          << "server_name: fulmar_interop\n"
          << "jetstream { store_dir: \"" << (directory_ / "jetstream").string() << "\" }\n"
          << "mqtt {\n  listen: 127.0.0.1:" << port_
          << '\n'
          // How long a message may stay unacknowledged before it comes again: a resumed session waits for it.
          << "  ack_wait: \"1s\"\n}\n";
      config.close();
      if (try_start()) return;
      if (!process_.log().contains("address already in use")) break;
    }
    throw std::runtime_error("nats-server does not start; its log:\n" + process_.end_of_log());
  }

  std::uint16_t port() const override { return port_; }
  void kill() override { process_.kill(); }
  void start() override {
    if (!try_start()) {
      throw std::runtime_error("nats-server does not start again; its log:\n" + process_.end_of_log());
    }
  }
  std::string log() const override { return process_.log(); }

 private:
  std::string config_file() const { return (directory_ / "nats.conf").string(); }
  bool try_start() { return process_.start({"nats-server", "--debug", "--config", config_file()}); }

  TempDir directory_;
  std::uint16_t port_ = 0;
  ServerProcess process_{directory_ / "nats.log", "Server is ready", std::chrono::seconds(20)};
};

}  // namespace

std::unique_ptr<Server> start_nats() { return std::make_unique<Nats>(); }

}  // namespace fulmar::test
