// Publishes and asks from a coroutine of Boost.Asio's:   coroutine mqtt://localhost
#include <cstdlib>
#include <iostream>
#include <stdexcept>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fulmar/asio.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;

static asio::awaitable<void> ask_and_tell(fulmar::Client& client, bool& done) {
  const auto time = co_await fulmar::async_request(client, "clock/now", {}, 10s, {}, asio::use_awaitable);
  if (!time) {
    std::cerr << time.error().message << '\n';
    co_return;
  }
  std::cout << "it is " << (*time)->text() << '\n';

  const auto delivery = co_await fulmar::async_publish(
      client, "door/bell", fulmar::as_bytes("ding"), {.qos = fulmar::QoS::exactly_once}, asio::use_awaitable);
  if (!delivery) {
    std::cerr << delivery.error().message << '\n';
    co_return;
  }
  std::cout << "the bell's message was " << to_string(delivery->outcome) << '\n';
  done = true;
}

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url)
    return std::cerr << "usage: coroutine URL (or set MQTT_URL), e.g. coroutine mqtt://localhost\n", 2;

  fulmar::Client client({.urls = {url}, .client_id = "coroutine"});
  const auto clock = client.respond("clock/now", [](const fulmar::Message&) { return "noon"; });
  if (!clock) return std::cerr << clock.error().message << '\n', 1;
  client.start();

  bool done = false;
  asio::io_context context;  // completions come back to it, and it runs until the coroutine has ended
  asio::co_spawn(context, ask_and_tell(client, done), asio::detached);
  context.run();
  return done ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
