// Paho C++ at its best: mqtt::async_client, which stands on Paho C's MQTTAsync, without persistence; as Paho C's driver
// otherwise. Completions are counted by an action listener, so that its user need not keep the tokens.

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>

#include "driver.hpp"
// After ours: its header of 1.2.0 forgets to include <memory>.
#include <mqtt/async_client.h>

namespace fulmar::bench {
namespace {

class PahoCppDriver final : public Driver, private mqtt::callback, private mqtt::iaction_listener {
 public:
  Result<void> prepare(const DriverOptions& options) override {
    options_ = options;
    const auto create =
        mqtt::create_options_builder()
            .send_while_disconnected(options.offline, options.offline)
            .max_buffered_messages(options.queue_messages != 0 ? static_cast<int>(options.queue_messages)
                                                               : 1'000'000)
            .finalize();
    return guarded("async_client", [&] {
      client_ = std::make_unique<mqtt::async_client>(fmt::format("tcp://{}:{}", options.host, options.port),
                                                     fmt::format("bench-pahocpp-{}", options.number), create,
                                                     nullptr);
      client_->set_callback(*this);
    });
  }

  Result<void> start() override {
    mqtt::connect_options connect;
    connect.set_keep_alive_interval(60);
    connect.set_clean_session(true);
    connect.set_max_inflight(static_cast<int>(options_.window));
    if (options_.offline) connect.set_automatic_reconnect(1, 1);
    return guarded("connect", [&] { client_->connect(connect); });
  }

  bool connected() override { return client_->is_connected(); }

  bool publish(std::string_view topic, std::string_view payload, unsigned qos) override {
    try {
      client_->publish(std::string(topic), payload.data(), payload.size(), static_cast<int>(qos), false,
                       nullptr, *this);
      return true;
    } catch (const mqtt::exception&) {
      return false;
    }
  }

  std::uint64_t completed() override { return completed_.load(std::memory_order_acquire); }

  Result<void> subscribe(std::string_view filter, unsigned qos) override {
    return guarded("subscribe", [&] { client_->subscribe(std::string(filter), static_cast<int>(qos)); });
  }

  std::uint64_t received() override { return received_.get(); }

  void disconnect() override {
    const auto done =
        guarded("disconnect", [&] { client_->disconnect()->wait_for(std::chrono::milliseconds(200)); });
    static_cast<void>(done);  // not connected: as well
  }

 private:
  template <typename Call>
  static Result<void> guarded(std::string_view what, Call&& call) {
    try {
      call();
      return {};
    } catch (const mqtt::exception& problem) {
      return fail(Errc::connection_failed, fmt::format("paho-cpp: {}: {}", what, problem.what()));
    }
  }

  void message_arrived(mqtt::const_message_ptr) override { received_.add(); }
  void on_failure(const mqtt::token&) override {}
  void on_success(const mqtt::token&) override { completed_.fetch_add(1, std::memory_order_release); }

  DriverOptions options_;
  std::atomic<std::uint64_t> completed_{0};
  EventCount received_;
  std::unique_ptr<mqtt::async_client> client_;
};

}  // namespace

Library paho_cpp_library() {
  const auto c_library = paho_c_library();
  return {.name = "paho-cpp",
          .version = PAHO_CPP_VERSION,
          .outstanding_max = c_library.outstanding_max,
          .burst_max = c_library.burst_max,
          .bounded_queue = true,
          .make = []() -> std::unique_ptr<Driver> { return std::make_unique<PahoCppDriver>(); }};
}

}  // namespace fulmar::bench
