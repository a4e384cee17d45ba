// Paho C at its best: the asynchronous interface (MQTTAsync) without persistence, maxInflight = the window,
// buffers that never fill, MQTT 3.1.1 as by default, completions counted by onSuccess.

#include <MQTTAsync.h>
#include <fmt/format.h>

#include <atomic>
#include <string>
#include <thread>

#include "driver.hpp"

namespace fulmar::bench {
namespace {

class PahoDriver final : public Driver {
 public:
  ~PahoDriver() override { MQTTAsync_destroy(&client_); }

  Result<void> connect(const DriverOptions& options) override {
    qos_ = static_cast<int>(options.qos);
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
    create.maxBufferedMessages = 1'000'000;
    const auto url = fmt::format("tcp://127.0.0.1:{}", options.port);
    if (const int rc = MQTTAsync_createWithOptions(&client_, url.c_str(), "bench-paho",
                                                   MQTTCLIENT_PERSISTENCE_NONE, nullptr, &create);
        rc != MQTTASYNC_SUCCESS) {
      return fail(Errc::io_error, fmt::format("MQTTAsync_createWithOptions: {}", MQTTAsync_strerror(rc)));
    }
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
    connect.keepAliveInterval = 60;
    connect.cleansession = 1;
    connect.maxInflight = static_cast<int>(options.window);
    connect.context = this;
    connect.onSuccess = [](void* self, MQTTAsync_successData*) {
      static_cast<PahoDriver*>(self)->connected_.store(1);
    };
    connect.onFailure = [](void* self, MQTTAsync_failureData*) {
      static_cast<PahoDriver*>(self)->connected_.store(-1);
    };
    if (const int rc = MQTTAsync_connect(client_, &connect); rc != MQTTASYNC_SUCCESS) {
      return fail(Errc::connection_failed, fmt::format("MQTTAsync_connect: {}", MQTTAsync_strerror(rc)));
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (connected_.load() == 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (connected_.load() != 1) return fail(Errc::connection_failed, "no CONNACK from the sink within 10 s");

    response_.context = this;
    response_.onSuccess = [](void* self, MQTTAsync_successData*) {
      static_cast<PahoDriver*>(self)->completed_.fetch_add(1, std::memory_order_release);
    };
    return {};
  }

  bool publish(std::string_view topic, std::string_view payload) override {
    return MQTTAsync_send(client_, topic.data(), static_cast<int>(payload.size()), payload.data(), qos_, 0,
                          &response_) == MQTTASYNC_SUCCESS;
  }

  std::uint64_t completed() override { return completed_.load(std::memory_order_acquire); }

  void disconnect() override {
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer;
    MQTTAsync_disconnect(client_, &options);
  }

 private:
  MQTTAsync client_ = nullptr;
  int qos_ = 0;
  MQTTAsync_responseOptions response_ = MQTTAsync_responseOptions_initializer;
  std::atomic<int> connected_{0};
  std::atomic<std::uint64_t> completed_{0};
};

std::string version() {
  for (auto* info = MQTTAsync_getVersionInfo(); info != nullptr && info->name != nullptr; ++info) {
    if (std::string_view(info->name) == "Version") return info->value;
  }
  return "unknown";
}

}  // namespace

Library paho_library() {
  return {
      .name = "paho-c",
      .version = version(),
      // Beyond the window its sending thread stops for milliseconds at a time: it is never given more than
      // that.
      .outstanding_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        return qos == 0 ? 300 : window;
      },
      .burst_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        return qos == 0 ? UINT64_MAX : window;
      },
      .make = []() -> std::unique_ptr<Driver> { return std::make_unique<PahoDriver>(); },
      .missing = {}};
}

}  // namespace fulmar::bench
