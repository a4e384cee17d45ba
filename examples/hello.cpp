// Publishes and receives one message:   hello mqtt://localhost
#include <cstdio>
#include <future>

#include <fulmar/client.hpp>

int main(int argc, char** argv) {
  fulmar::Client client({.urls = {argc > 1 ? argv[1] : "mqtt://localhost"}, .client_id = "hello"});
  client.start();  // returns at once; the connection is made, and made again, in the background

  std::promise<void> arrived;
  auto subscription = client.subscribe("hello/+", [&](const fulmar::Message& message) {
    std::printf("%.*s: %.*s\n", int(message.topic.size()), message.topic.data(), int(message.text().size()),
                message.text().data());
    arrived.set_value();
  });

  // Accepted whatever the broker does: it goes out as soon as there is a connection.
  auto id = client.publish("hello/world", "good morning", {.qos = fulmar::QoS::at_least_once});
  if (!id) std::printf("not accepted: %s\n", id.error().message.c_str());

  if (arrived.get_future().wait_for(std::chrono::seconds(5)) != std::future_status::ready) {
    std::printf("no message yet: %s\n", client.last_change().reason.c_str());
    return 1;
  }
}
