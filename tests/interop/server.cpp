#include "tests/interop/server.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/support/broker.hpp"

namespace fulmar::test {
namespace {

// The base line, with all that it needs to survive a crash.
class Mosquitto final : public Server {
 public:
  std::uint16_t port() const override { return broker_.port(); }
  void kill() override { broker_.kill(); }
  void start() override { broker_.start(); }
  std::string log() const override { return broker_.log(); }
  // It writes a new file and then renames it, between two turns of its loop.
  void settle(const std::string&) override {
    const auto before = saved();
    const auto deadline = std::chrono::steady_clock::now() + Broker::patience;
    while (saved() == before) {
      if (std::chrono::steady_clock::now() >= deadline) throw std::runtime_error("mosquitto does not save");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

 private:
  std::filesystem::file_time_type saved() const {
    std::error_code not_yet;
    const auto time = std::filesystem::last_write_time(directory_ / "mosquitto.db", not_yet);
    return not_yet ? std::filesystem::file_time_type::min() : time;
  }

  TempDir directory_;
  Broker broker_{{.config = {"persistence true", "persistence_location " + directory_.path().string() + "/",
                             "autosave_interval 1"}}};
};

std::array<std::unique_ptr<Server>, 3> servers;

// Stops the servers while the test program is still whole.
class StopServers final : public testing::Environment {
  void TearDown() override {
    for (auto& server : servers) server.reset();
  }
};
[[maybe_unused]] const auto* const environment = testing::AddGlobalTestEnvironment(new StopServers);

bool installed(std::string_view program) {
  for (const auto* folder : {"", "/usr/sbin/", "/usr/bin/", "/usr/local/sbin/", "/usr/local/bin/"}) {
    if (::access((folder + std::string(program)).c_str(), X_OK) == 0) return true;
  }
  return false;
}

}  // namespace

Server::Traits traits(Server::Kind kind) {
  switch (kind) {
    case Server::Kind::mosquitto: return {};
    case Server::Kind::nats:
      return {.version = ProtocolVersion::v3_1_1,
              .qos = QoS::at_least_once,
              .keeps_dots_and_spaces = false,
              .copies_for_overlapping = 2};
    case Server::Kind::rabbitmq:
      return {.version = ProtocolVersion::v3_1_1,
              .qos = QoS::at_least_once,
              .retained_for_wildcards = false,
              .keeps_dots_and_spaces = false,
              .copies_for_overlapping = 2};
  }
  return {};
}

std::string_view to_string(Server::Kind kind) {
  switch (kind) {
    case Server::Kind::mosquitto: return "mosquitto";
    case Server::Kind::nats: return "nats";
    case Server::Kind::rabbitmq: return "rabbitmq";
  }
  return "?";
}

std::optional<std::string> missing(Server::Kind kind) {
  struct Needs {
    std::string package;
    std::vector<std::string_view> programs;
  };
  static const std::array<Needs, 3> all = {{
      {"mosquitto", {"mosquitto"}},
      {"nats-server", {"nats-server"}},
      {"rabbitmq-server", {"/usr/lib/rabbitmq/bin/rabbitmq-server", "epmd"}},
  }};
  const auto& needs = all.at(static_cast<std::size_t>(kind));
  for (const auto program : needs.programs) {
    // ctest takes the test for skipped by the words "is not installed" (CMakeLists.txt).
    if (!installed(program)) {
      return needs.package + " is not installed: ./dev setup interop, or apt-get install " + needs.package;
    }
  }
  return {};
}

Server& shared_server(Server::Kind kind) {
  auto& server = servers.at(static_cast<std::size_t>(kind));
  if (!server) {
    switch (kind) {
      case Server::Kind::mosquitto: server = start_mosquitto(); break;
      case Server::Kind::nats: server = start_nats(); break;
      case Server::Kind::rabbitmq: server = start_rabbitmq(); break;
    }
  }
  return *server;
}

std::unique_ptr<Server> start_mosquitto() { return std::make_unique<Mosquitto>(); }

}  // namespace fulmar::test
