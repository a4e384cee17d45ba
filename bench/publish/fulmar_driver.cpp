// Our client with its defaults (MQTT 5.0, eager wake-up) and max_inflight = the window; a full outbox is an
// error here, so that no message can get lost unseen. Completions come from its metrics.

#include <fmt/format.h>

#include "driver.hpp"
#include "fulmar/client.hpp"

namespace fulmar::bench {
namespace {

class FulmarDriver final : public Driver {
 public:
  Result<void> connect(const DriverOptions& options) override {
    options_.qos = static_cast<QoS>(options.qos);
    ClientConfig config;
    config.urls = {fmt::format("mqtt://127.0.0.1:{}", options.port)};
    config.client_id = "bench-fulmar";
    config.max_inflight = static_cast<std::uint16_t>(options.window);
    config.overflow = Overflow::reject;
    client_ = std::make_unique<Client>(std::move(config));
    return client_->connect(std::chrono::seconds(10));
  }

  bool publish(std::string_view topic, std::string_view payload) override {
    return client_->publish(topic, payload, options_).has_value();
  }

  std::uint64_t completed() override { return client_->metrics().acknowledged; }

  void disconnect() override { client_->shutdown(std::chrono::milliseconds(200)); }

 private:
  std::unique_ptr<Client> client_;
  PublishOptions options_;
};

}  // namespace

Library fulmar_library() {
  return {.name = "fulmar",
          .version = FULMAR_VERSION,
          // 160-byte records: 5 MiB of the 8 MiB that an outbox has by default.
          .outstanding_max = [](unsigned, unsigned) -> std::uint64_t { return 32'768; },
          .burst_max = [](unsigned, unsigned) -> std::uint64_t { return 32'768; },
          .make = []() -> std::unique_ptr<Driver> { return std::make_unique<FulmarDriver>(); },
          .missing = {}};
}

}  // namespace fulmar::bench
