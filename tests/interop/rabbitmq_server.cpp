// rabbitmq-server with its MQTT plugin, apart from any RabbitMQ of the machine: node name, database, cookie, ports and
// the port mapper (epmd) are the test's own, and all of them listen on the loopback address only.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/interop/server.hpp"
#include "tests/interop/server_process.hpp"
#include "tests/support/port.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

class Rabbit final : public Server {
 public:
  Rabbit() {
    std::filesystem::create_directory(directory_ / "database");
    write("enabled_plugins", "[rabbitmq_mqtt].\n");
    write("environment", "");  // else /etc/rabbitmq's
    // Somebody else may take a port between our look and the server's bind.
    for (int attempt = 0; attempt < 3; ++attempt) {
      port_ = free_port();
      mapper_port_ = free_port();
      distribution_port_ = free_port();
      write("rabbitmq.conf",
            "listeners.tcp = none\nmqtt.allow_anonymous = true\n"
            "mqtt.retained_message_store_dets_sync_interval = 100\nlog.console.level = info\n"
            "mqtt.listeners.tcp.1 = 127.0.0.1:" +
                std::to_string(port_) + "\n");
      mapper_ = Process({.argv = {"epmd", "-port", std::to_string(mapper_port_), "-address", "127.0.0.1"},
                         .output = directory_ / "epmd.log"});
      if (try_start()) return;
      if (!process_.log().contains("eaddrinuse") && mapper_.running()) break;
    }
    throw std::runtime_error("rabbitmq-server does not start; its log:\n" + process_.end_of_log());
  }

  std::uint16_t port() const override { return port_; }
  void kill() override { process_.kill(); }
  void start() override {
    if (!try_start()) {
      throw std::runtime_error("rabbitmq-server does not start again; its log:\n" + process_.end_of_log());
    }
  }
  std::string log() const override { return process_.log(); }
  // Retained messages are written some time after their acknowledgement.
  void settle(const std::string& retained) override {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!is_stored(retained)) {
      if (std::chrono::steady_clock::now() >= deadline) {
        throw std::runtime_error("rabbitmq-server does not store the retained message of " + retained);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

 private:
  std::string node() const { return "fulmar" + std::to_string(port_) + "@localhost"; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name) << text;
  }

  bool is_stored(const std::string& retained) const {
    for (const auto& entry : std::filesystem::directory_iterator(directory_ / "database" / node())) {
      if (!entry.path().filename().string().starts_with("mqtt_retained_")) continue;
      std::ostringstream content;
      content << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      if (content.view().contains(retained)) return true;
    }
    return false;
  }

  bool try_start() {
    const auto file = [&](const std::string& name) { return (directory_ / name).string(); };
    return process_.start({
        "env",
        "-i",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "HOME=" + directory_.path().string(),  // the Erlang cookie
        "RUNNING_UNDER_SYSTEMD=true",  // the script becomes the server instead of its parent, so that a kill hits it
        "ERL_EPMD_ADDRESS=127.0.0.1",
        "ERL_EPMD_PORT=" + std::to_string(mapper_port_),
        "RABBITMQ_NODENAME=" + node(),
        "RABBITMQ_DIST_PORT=" + std::to_string(distribution_port_),
        "RABBITMQ_MNESIA_BASE=" + file("database"),
        "RABBITMQ_LOG_BASE=" + directory_.path().string(),
        "RABBITMQ_LOGS=-",
        "RABBITMQ_ENABLED_PLUGINS_FILE=" + file("enabled_plugins"),
        "RABBITMQ_CONFIG_FILE=" + file("rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE=" + file("environment"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
        "/usr/lib/rabbitmq/bin/rabbitmq-server",
    });
  }

  TempDir directory_;
  std::uint16_t port_ = 0, mapper_port_ = 0, distribution_port_ = 0;
  Process mapper_;  // outlives the server, which registers there
  ServerProcess process_{directory_ / "rabbitmq.log", "Server startup complete", std::chrono::seconds(60)};
};

}  // namespace

std::unique_ptr<Server> start_rabbitmq() { return std::make_unique<Rabbit>(); }

}  // namespace fulmar::test
