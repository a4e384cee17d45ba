// libmosquitto at its best: its own network thread (mosquitto_loop_start), max_inflight_messages = the window,
// TCP_NODELAY, MQTT 3.1.1 as by default, completions counted by the publish callback. It has no bound for what waits.

#include <fmt/format.h>
#include <mosquitto.h>

#include <string>

#include "driver.hpp"

namespace fulmar::bench {
namespace {

class MosquittoDriver final : public Driver {
 public:
  MosquittoDriver() { mosquitto_lib_init(); }
  ~MosquittoDriver() override {
    if (client_ != nullptr) mosquitto_destroy(client_);
    mosquitto_lib_cleanup();
  }

  Result<void> prepare(const DriverOptions& options) override {
    options_ = options;
    client_ = mosquitto_new(fmt::format("bench-mosquitto-{}", options.number).c_str(), true, this);
    if (client_ == nullptr) return fail(Errc::io_error, "mosquitto_new failed");
    mosquitto_int_option(client_, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_max_inflight_messages_set(client_, options.window);
    mosquitto_reconnect_delay_set(client_, 1, 1, false);
    mosquitto_connect_callback_set(client_, [](mosquitto*, void* self, int reason) {
      static_cast<MosquittoDriver*>(self)->connected_.store(reason == 0);
    });
    mosquitto_disconnect_callback_set(client_, [](mosquitto*, void* self, int) {
      static_cast<MosquittoDriver*>(self)->connected_.store(false);
    });
    mosquitto_publish_callback_set(client_, [](mosquitto*, void* self, int) {
      static_cast<MosquittoDriver*>(self)->completed_.fetch_add(1);
    });
    mosquitto_message_callback_set(client_, [](mosquitto*, void* self, const mosquitto_message*) {
      static_cast<MosquittoDriver*>(self)->received_.add();
    });
    return {};
  }

  Result<void> start() override {
    // A failure here is tried again by the thread.
    const int rc = mosquitto_connect_async(client_, options_.host.c_str(), options_.port, 60);
    if (rc != MOSQ_ERR_SUCCESS && !options_.offline) {
      return fail(Errc::connection_failed,
                  fmt::format("mosquitto_connect_async: {}", mosquitto_strerror(rc)));
    }
    if (const int started = mosquitto_loop_start(client_); started != MOSQ_ERR_SUCCESS) {
      return fail(Errc::io_error, fmt::format("mosquitto_loop_start: {}", mosquitto_strerror(started)));
    }
    return {};
  }

  bool connected() override { return connected_.load(); }

  bool publish(std::string_view topic, std::string_view payload, unsigned qos) override {
    const int rc = mosquitto_publish(client_, nullptr, topic.data(), static_cast<int>(payload.size()),
                                     payload.data(), static_cast<int>(qos), false);
    // NO_CONN for QoS 1 and 2: it is queued all the same.
    return rc == MOSQ_ERR_SUCCESS || (rc == MOSQ_ERR_NO_CONN && qos != 0);
  }

  std::uint64_t completed() override { return completed_.load(std::memory_order_acquire); }

  Result<void> subscribe(std::string_view filter, unsigned qos) override {
    const int rc = mosquitto_subscribe(client_, nullptr, std::string(filter).c_str(), static_cast<int>(qos));
    if (rc != MOSQ_ERR_SUCCESS) {
      return fail(Errc::io_error, fmt::format("mosquitto_subscribe: {}", mosquitto_strerror(rc)));
    }
    return {};
  }

  std::uint64_t received() override { return received_.get(); }

  void disconnect() override {
    mosquitto_disconnect(client_);
    mosquitto_loop_stop(client_, false);
  }

 private:
  DriverOptions options_;
  mosquitto* client_ = nullptr;
  std::atomic<bool> connected_{false};
  std::atomic<std::uint64_t> completed_{0};
  EventCount received_;
};

}  // namespace

Library mosquitto_library() {
  int major = 0;
  int minor = 0;
  int revision = 0;
  mosquitto_lib_version(&major, &minor, &revision);
  return {
      .name = "libmosquitto",
      .version = fmt::format("{}.{}.{}", major, minor, revision),
      // Every acknowledgement makes it walk its list of messages in flight: with a window of 100 and nothing queued
      // behind it, it is at its fastest; a larger window is best kept full.
      .outstanding_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        if (qos == 0) return 10'000;
        return window > 20 && window <= 200 ? window : 30'000;
      },
      .burst_max = [](unsigned, unsigned) -> std::uint64_t { return UINT64_MAX; },
      .make = []() -> std::unique_ptr<Driver> { return std::make_unique<MosquittoDriver>(); }};
}

}  // namespace fulmar::bench
