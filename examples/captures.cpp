// Subscribes with wildcards and prints what they stand for:   captures mqtt://localhost
#include <cstdlib>
#include <future>
#include <iostream>
#include <stdexcept>

#include <fulmar/client.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) return std::cerr << "usage: captures URL (or set MQTT_URL), e.g. captures mqtt://localhost\n", 2;

  std::promise<void> last_one;
  fulmar::Client client({.urls = {url}, .client_id = "captures"});
  client.start();

  const auto readings =
      client.subscribe("site/+/room/+/#",
                       [&](const fulmar::Message& message) {
                         const auto captures = message.captures();  // one for each wildcard, in their order
                         std::cout << "site " << captures[0] << ", room " << captures[1] << ", "
                                   << captures[2] << ": " << message.text() << std::endl;
                         if (captures[2] == "window/left") last_one.set_value();
                       },
                       {.qos = fulmar::QoS::at_least_once});
  if (!readings) return std::cerr << readings.error().message << '\n', 1;

  // Whether the server granted it. A refusal carries the server's reason code.
  const auto granted = readings->granted();
  if (granted.wait_for(10s) != std::future_status::ready) {
    return std::cerr << "no answer within 10 s: " << client.last_change().reason << '\n', 1;
  }
  if (!granted.get()) return std::cerr << granted.get().error().message << '\n', 1;

  const fulmar::PublishOptions at_least_once{.qos = fulmar::QoS::at_least_once};
  for (const auto& [topic, text] : {std::pair{"site/north/room/12/temperature", "21.5"},
                                    std::pair{"site/south/room/3/window/left", "open"}}) {
    if (const auto id = client.publish(topic, text, at_least_once); !id) {
      return std::cerr << id.error().message << '\n', 1;
    }
  }
  if (last_one.get_future().wait_for(10s) != std::future_status::ready) {
    return std::cerr << "not everything came within 10 s\n", 1;
  }
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
