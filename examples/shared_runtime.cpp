// A hundred clients on two threads:   shared_runtime mqtt://localhost
#include <cstdlib>
#include <deque>
#include <iostream>
#include <stdexcept>
#include <string>

#include <fulmar/client.hpp>
#include <fulmar/runtime.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) return std::cerr << "usage: shared_runtime URL (or set MQTT_URL), e.g. mqtt://localhost\n", 2;

  fulmar::Runtime runtime({.io_threads = 1, .dispatch_threads = 1});
  std::deque<fulmar::Client> devices;  // a Client cannot be moved; a deque never moves its elements
  for (int number = 0; number < 100; ++number) {
    const fulmar::ClientConfig config{
        .urls = {url},
        .client_id = "device-" + std::to_string(number),
        .outbox_bytes = 64 << 10,  // small: there are many
        .inbound_bytes = 256 << 10,
    };
    devices.emplace_back(config, runtime).start();
  }

  for (auto& device : devices) {
    if (const auto id = device.publish("devices/hello", "here", {.qos = fulmar::QoS::at_least_once}); !id) {
      return std::cerr << id.error().message << '\n', 1;
    }
  }
  std::uint64_t acknowledged = 0;
  for (auto& device : devices) {
    device.flush(10s);
    acknowledged += device.metrics().acknowledged;
  }
  std::cout << devices.size() << " clients, " << acknowledged << " messages acknowledged\n";
  return acknowledged == devices.size() ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
