// One client answers requests, another one asks:   request_response mqtt://localhost
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <stdexcept>

#include <fulmar/client.hpp>

using namespace std::chrono_literals;

// What is returned is the answer. An error is logged and counted, and nothing is answered.
static fulmar::Result<std::string> square(const fulmar::Message& request) {
  const auto text = request.text();
  int number = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc{}) {
    return fulmar::fail(fulmar::Errc::handler_failed, "not a number: " + std::string(text));
  }
  return std::to_string(number * number);
}

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) {
    return std::cerr << "usage: request_response URL (or set MQTT_URL), e.g. mqtt://localhost\n", 2;
  }

  fulmar::Client service({.urls = {url}, .client_id = "square-service"});
  const auto squares = service.respond("math/square", square);
  if (!squares) return std::cerr << squares.error().message << '\n', 1;
  service.start();
  if (squares->granted().wait_for(10s) != std::future_status::ready) {
    return std::cerr << "no connection within 10 s: " << service.last_change().reason << '\n', 1;
  }

  fulmar::Client asker({.urls = {url}, .client_id = "asker"});
  asker.start();
  const auto answer = asker.request("math/square", fulmar::as_bytes("12"), 5s);
  if (!answer) return std::cerr << answer.error().message << '\n', 1;
  std::cout << "12 squared is " << (*answer)->text() << '\n';

  // Nobody answers this one: the deadline holds, and nothing of the request is left behind.
  const auto nothing = asker.request("math/square", fulmar::as_bytes("twelve"), 500ms);
  std::cout << "twelve squared: " << (nothing ? "answered?" : to_string(nothing.error().code)) << '\n';
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
