// Publishes one message, receives it and prints it:   hello mqtt://localhost
#include <cstdlib>
#include <future>
#include <iostream>
#include <stdexcept>

#include <fulmar/client.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) return std::cerr << "usage: hello URL (or set MQTT_URL), e.g. hello mqtt://localhost\n", 2;

  std::promise<void> arrived;  // before the client: what handlers use has to outlive it
  fulmar::Client client({.urls = {url}, .client_id = "hello"});
  client.start();  // returns at once; the connection is made, and made again, in the background

  const auto subscription = client.subscribe("hello/+", [&](const fulmar::Message& message) {
    std::cout << message.topic << ": " << message.text() << std::endl;
    arrived.set_value();
  });
  if (!subscription) return std::cerr << subscription.error().message << '\n', 1;

  // Accepted whatever the broker does: it goes out as soon as there is a connection.
  const auto id = client.publish("hello/world", "good morning", {.qos = fulmar::QoS::at_least_once});
  if (!id) return std::cerr << id.error().message << '\n', 1;

  if (arrived.get_future().wait_for(10s) != std::future_status::ready) {
    std::cerr << "no message within 10 s: " << client.last_change().reason << '\n';
    return 1;
  }
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
