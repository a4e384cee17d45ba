// Our client with its defaults (MQTT 5.0, eager wake-up) and max_inflight = the window; a full outbox is an error here, so
// that no message can get lost unseen. Completions come from its metrics.

#include <fmt/format.h>

#include <algorithm>

#include "driver.hpp"
#include "fulmar/client.hpp"

namespace fulmar::bench {
namespace {

constexpr std::size_t record_bytes = 192;  // of 100 bytes of payload in the outbox, and some to spare

class FulmarDriver final : public Driver {
 public:
  Result<void> prepare(const DriverOptions& options) override {
    ClientConfig config;
    config.urls = {fmt::format("mqtt://{}:{}", options.host, options.port)};
    config.client_id = fmt::format("bench-fulmar-{}", options.number);
    config.max_inflight = static_cast<std::uint16_t>(options.window);
    config.overflow = options.drop_newest ? Overflow::drop_newest : Overflow::reject;
    if (options.queue_messages != 0) {
      config.outbox_messages = options.queue_messages;
      config.outbox_bytes = std::max(config.outbox_bytes, options.queue_messages * record_bytes);
    }
    if (options.offline)
      config.reconnect_min_delay = config.reconnect_max_delay = std::chrono::milliseconds(100);
    if (options.lazy) config.wakeup.lazy_interval = std::chrono::milliseconds(1);
#if FULMAR_BENCH_RUNTIME
    if (options.shared_threads) {
      static Runtime runtime;
      client_ = std::make_unique<Client>(std::move(config), runtime);
      return {};
    }
#else
    if (options.shared_threads) return fail(Errc::invalid_config, "this build has no Runtime");
#endif
    client_ = std::make_unique<Client>(std::move(config));
    return {};
  }

  Result<void> start() override {
    client_->start();
    return {};
  }

  bool connected() override { return client_->connected(); }

  bool publish(std::string_view topic, std::string_view payload, unsigned qos) override {
    options_.qos = static_cast<QoS>(qos);
    return client_->publish(topic, payload, options_).has_value();
  }

  std::uint64_t completed() override { return client_->metrics().acknowledged; }

  Result<void> subscribe(std::string_view filter, unsigned qos) override {
    auto subscription = client_->subscribe(filter, [this](const Message&) { received_.add(); },
                                           {.qos = static_cast<QoS>(qos)});
    if (!subscription) return std::unexpected(subscription.error());
    subscription->detach();
    return {};
  }

  std::uint64_t received() override { return received_.get(); }
  void disconnect() override { client_->shutdown(std::chrono::milliseconds(0)); }

 private:
  EventCount received_;
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
          .bounded_queue = true,
          .make = []() -> std::unique_ptr<Driver> { return std::make_unique<FulmarDriver>(); }};
}

}  // namespace fulmar::bench
