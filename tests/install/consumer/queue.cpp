// Hands work to itself, with what is installed.
#include "fulmar/queue.hpp"

#include <cstdio>

#include "fulmar/queue_mqtt.hpp"

int main(int, char** argv) {
  fulmar::Client client({.urls = {argv[1]}, .client_id = "consumer"});
  auto queue = fulmar::Queue::open(argv[2]);
  if (!queue) return std::fprintf(stderr, "%s\n", queue.error().message.c_str()), 1;
  fulmar::QueueGateway gateway(client, *queue);
  if (!gateway.start() || !client.connect(std::chrono::seconds(10))) return 1;
  if (!queue->submit("greeting", R"({"text":"installed"})")) return 1;
  const auto leases = queue->claim({});
  if (!leases || leases->size() != 1 || !queue->complete(leases->front().key())) return 1;
  std::printf("done: %s\n", leases->front().item.payload.c_str());
}
