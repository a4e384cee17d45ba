// Publishes one message to the broker of argv[1] and waits for its outcome through a token of Asio's.
#include <cstdio>

#include <boost/asio/use_future.hpp>
#include <fulmar/asio.hpp>

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  fulmar::Client client({.urls = {argv[1]}, .client_id = "consumer-with-asio"});
  client.start();
  const auto delivery = fulmar::async_publish(client, "consumer/asio", fulmar::as_bytes("installed"),
                                              {.qos = fulmar::QoS::at_least_once}, boost::asio::use_future)
                            .get();
  if (!delivery) {
    std::printf("%s\n", delivery.error().message.c_str());
    return 1;
  }
  std::printf("outcome: %s\n", std::string(to_string(delivery->outcome)).c_str());
}
