// Sends one message to itself through the broker of argv[1].
#include <cstdio>
#include <future>

#include <fulmar/client.hpp>

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  fulmar::Client client({.urls = {argv[1]}, .client_id = "consumer"});
  std::promise<std::string> arrived;
  const auto subscription = client.subscribe("consumer/to-itself", [&](const fulmar::Message& message) {
    arrived.set_value(std::string(message.text()));
  });
  if (!subscription) return 1;
  if (const auto connected = client.connect(std::chrono::seconds(10)); !connected) {
    std::printf("%s\n", connected.error().message.c_str());
    return 1;
  }
  if (!client.publish("consumer/to-itself", "installed", {.qos = fulmar::QoS::at_least_once})) return 1;
  auto text = arrived.get_future();
  if (text.wait_for(std::chrono::seconds(10)) != std::future_status::ready) return 1;
  std::printf("received: %s\n", text.get().c_str());
}
