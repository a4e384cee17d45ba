// libmosquitto at its best: its own network thread (mosquitto_loop_start), max_inflight_messages = the
// window, TCP_NODELAY, MQTT 3.1.1 as by default, completions counted by the publish callback.

#include <fmt/format.h>
#include <mosquitto.h>

#include <atomic>
#include <thread>

#include "driver.hpp"

namespace fulmar::bench {
namespace {

class MosquittoDriver final : public Driver {
 public:
  MosquittoDriver() { mosquitto_lib_init(); }
  ~MosquittoDriver() override {
    mosquitto_destroy(client_);
    mosquitto_lib_cleanup();
  }

  Result<void> connect(const DriverOptions& options) override {
    qos_ = static_cast<int>(options.qos);
    client_ = mosquitto_new("bench-mosquitto", true, this);
    if (client_ == nullptr) return fail(Errc::io_error, "mosquitto_new failed");
    mosquitto_int_option(client_, MOSQ_OPT_TCP_NODELAY, 1);
    mosquitto_max_inflight_messages_set(client_, options.window);
    mosquitto_connect_callback_set(client_, [](mosquitto*, void* self, int reason) {
      static_cast<MosquittoDriver*>(self)->connected_.store(reason == 0 ? 1 : -1);
    });
    mosquitto_publish_callback_set(client_, [](mosquitto*, void* self, int) {
      static_cast<MosquittoDriver*>(self)->completed_.fetch_add(1, std::memory_order_release);
    });
    if (const int rc = mosquitto_connect(client_, "127.0.0.1", options.port, 60); rc != MOSQ_ERR_SUCCESS) {
      return fail(Errc::connection_failed, fmt::format("mosquitto_connect: {}", mosquitto_strerror(rc)));
    }
    if (const int rc = mosquitto_loop_start(client_); rc != MOSQ_ERR_SUCCESS) {
      return fail(Errc::io_error, fmt::format("mosquitto_loop_start: {}", mosquitto_strerror(rc)));
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (connected_.load() == 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (connected_.load() != 1) return fail(Errc::connection_failed, "no CONNACK from the sink within 10 s");
    return {};
  }

  bool publish(std::string_view topic, std::string_view payload) override {
    return mosquitto_publish(client_, nullptr, topic.data(), static_cast<int>(payload.size()), payload.data(),
                             qos_, false) == MOSQ_ERR_SUCCESS;
  }

  std::uint64_t completed() override { return completed_.load(std::memory_order_acquire); }

  void disconnect() override {
    mosquitto_disconnect(client_);
    mosquitto_loop_stop(client_, false);
  }

 private:
  mosquitto* client_ = nullptr;
  int qos_ = 0;
  std::atomic<int> connected_{0};
  std::atomic<std::uint64_t> completed_{0};
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
      // Every acknowledgement makes it walk its list of messages in flight: with a window of 100 and nothing
      // queued behind it, it is at its fastest; a larger window is best kept full.
      .outstanding_max = [](unsigned qos, unsigned window) -> std::uint64_t {
        if (qos == 0) return 10'000;
        return window > 20 && window <= 200 ? window : 30'000;
      },
      .burst_max = [](unsigned, unsigned) -> std::uint64_t { return UINT64_MAX; },
      .make = []() -> std::unique_ptr<Driver> { return std::make_unique<MosquittoDriver>(); },
      .missing = {}};
}

}  // namespace fulmar::bench
