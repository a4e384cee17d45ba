// Paho C at its best: the asynchronous interface (MQTTAsync) without persistence, maxInflight = the window, buffers that
// never fill, MQTT 3.1.1 as by default, completions counted by onSuccess.

#include <MQTTAsync.h>
#include <fmt/format.h>

#include <string>

#include "driver.hpp"

namespace fulmar::bench {
namespace {

class PahoDriver final : public Driver {
 public:
  ~PahoDriver() override {
    if (client_ != nullptr) MQTTAsync_destroy(&client_);
  }

  Result<void> prepare(const DriverOptions& options) override {
    options_ = options;
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
    create.maxBufferedMessages =
        options.queue_messages != 0 ? static_cast<int>(options.queue_messages) : 1'000'000;
    create.sendWhileDisconnected = options.offline ? 1 : 0;
    create.allowDisconnectedSendAtAnyTime = options.offline ? 1 : 0;
    const auto url = fmt::format("tcp://{}:{}", options.host, options.port);
    if (const int rc = MQTTAsync_createWithOptions(&client_, url.c_str(),
                                                   fmt::format("bench-paho-{}", options.number).c_str(),
                                                   MQTTCLIENT_PERSISTENCE_NONE, nullptr, &create);
        rc != MQTTASYNC_SUCCESS) {
      return fail(Errc::io_error, fmt::format("MQTTAsync_createWithOptions: {}", MQTTAsync_strerror(rc)));
    }
    MQTTAsync_setCallbacks(
        client_, this, nullptr,
        [](void* self, char* topic, int, MQTTAsync_message* message) {
          static_cast<PahoDriver*>(self)->received_.add();
          MQTTAsync_freeMessage(&message);
          MQTTAsync_free(topic);
          return 1;
        },
        nullptr);
    response_.context = this;
    response_.onSuccess = [](void* self, MQTTAsync_successData*) {
      static_cast<PahoDriver*>(self)->completed_.fetch_add(1, std::memory_order_release);
    };
    return {};
  }

  Result<void> start() override {
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
    connect.keepAliveInterval = 60;
    connect.cleansession = 1;
    connect.maxInflight = static_cast<int>(options_.window);
    if (options_.offline) {
      connect.automaticReconnect = 1;
      connect.minRetryInterval = 1;
      connect.maxRetryInterval = 1;
    }
    if (const int rc = MQTTAsync_connect(client_, &connect); rc != MQTTASYNC_SUCCESS) {
      return fail(Errc::connection_failed, fmt::format("MQTTAsync_connect: {}", MQTTAsync_strerror(rc)));
    }
    return {};
  }

  bool connected() override { return MQTTAsync_isConnected(client_) != 0; }

  bool publish(std::string_view topic, std::string_view payload, unsigned qos) override {
    return MQTTAsync_send(client_, topic.data(), static_cast<int>(payload.size()), payload.data(),
                          static_cast<int>(qos), 0, &response_) == MQTTASYNC_SUCCESS;
  }

  std::uint64_t completed() override { return completed_.load(std::memory_order_acquire); }

  Result<void> subscribe(std::string_view filter, unsigned qos) override {
    const int rc = MQTTAsync_subscribe(client_, std::string(filter).c_str(), static_cast<int>(qos), nullptr);
    if (rc != MQTTASYNC_SUCCESS) {
      return fail(Errc::io_error, fmt::format("MQTTAsync_subscribe: {}", MQTTAsync_strerror(rc)));
    }
    return {};
  }

  std::uint64_t received() override { return received_.get(); }

  void disconnect() override {
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer;
    MQTTAsync_disconnect(client_, &options);
  }

 private:
  DriverOptions options_;
  MQTTAsync client_ = nullptr;
  MQTTAsync_responseOptions response_ = MQTTAsync_responseOptions_initializer;
  std::atomic<std::uint64_t> completed_{0};
  EventCount received_;
};

std::string version() {
  for (auto* info = MQTTAsync_getVersionInfo(); info != nullptr && info->name != nullptr; ++info) {
    if (std::string_view(info->name) == "Version") return info->value;
  }
  return "unknown";
}

}  // namespace

Library paho_c_library() {
  return {
      .name = "paho-c",
      .version = version(),
      // Beyond the window its sending thread stops for milliseconds at a time: it is never given more than that.
      .outstanding_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        return qos == 0 ? 300 : window;
      },
      .burst_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        return qos == 0 ? UINT64_MAX : window;
      },
      .bounded_queue = true,
      .make = []() -> std::unique_ptr<Driver> { return std::make_unique<PahoDriver>(); }};
}

}  // namespace fulmar::bench
