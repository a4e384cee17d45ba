// A worker that says how it is, and another client that watches it:   health mqtt://localhost
#include <cstdlib>
#include <future>
#include <iostream>
#include <stdexcept>

#include <fulmar/client.hpp>
#include <fulmar/envelope.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) return std::cerr << "usage: health URL (or set MQTT_URL), e.g. health mqtt://localhost\n", 2;

  std::promise<void> heartbeat, shutdown;
  bool first_heartbeat = true;
  fulmar::Client watcher({.urls = {url}, .client_id = "watcher"});
  // Retained: whoever comes later reads the last word.
  const auto health = watcher.subscribe("system/health/worker", [&](const fulmar::Message& message) {
    const auto envelope = fulmar::Envelope::parse(message.text());
    if (!envelope) return;
    std::cout << "health of " << envelope->source << ": " << envelope->data << std::endl;
    if (!message.retain && envelope->data.contains("\"shutdown\"")) shutdown.set_value();
  });
  const auto keepalive = watcher.subscribe("system/keepalive/worker", [&](const fulmar::Message& message) {
    std::cout << "heartbeat: " << message.text() << std::endl;
    if (std::exchange(first_heartbeat, false)) heartbeat.set_value();
  });
  if (!health || !keepalive) return 1;
  if (const auto connected = watcher.connect(10s); !connected) {
    return std::cerr << connected.error().message << '\n', 1;
  }

  fulmar::Client worker(
      {.urls = {url},
       .client_id = "worker",
       .source_name = "press-4",
       .enable_health = true,     // ready, reconnected, shutdown; as will: lost
       .enable_heartbeat = true,  // and the watchdog: three without success, a new connection
       .heartbeat_interval = 1s});
  worker.start();
  if (heartbeat.get_future().wait_for(10s) != std::future_status::ready) {
    return std::cerr << "no heartbeat within 10 s: " << worker.last_change().reason << '\n', 1;
  }
  if (const auto id = worker.publish_health(false, "degraded", "the oil is low"); !id) {
    return std::cerr << id.error().message << '\n', 1;
  }
  worker.shutdown();  // says so, as the last thing
  return shutdown.get_future().wait_for(10s) == std::future_status::ready ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
