// Runs a handler that takes long on a thread pool of one's own:   own_executor mqtt://localhost
#include <cstdlib>
#include <future>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

#include <boost/asio/thread_pool.hpp>
#include <fulmar/asio.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  const char* url = argc > 1 ? argv[1] : std::getenv("MQTT_URL");
  if (!url) return std::cerr << "usage: own_executor URL (or set MQTT_URL), e.g. mqtt://localhost\n", 2;

  std::promise<void> all_done;
  boost::asio::thread_pool pool(2);
  fulmar::Client client({.urls = {url}, .client_id = "own-executor"});
  client.start();

  // Still one call at a time and in order. The message is acknowledged when the handler has returned.
  const auto jobs = client.subscribe(
      "jobs/slow",
      [&](const fulmar::Message& message) {
        std::this_thread::sleep_for(100ms);  // the work
        std::cout << "done: " << message.text() << std::endl;
        if (message.text() == "job 3") all_done.set_value();
      },
      {.qos = fulmar::QoS::at_least_once, .executor = fulmar::executor_of(pool.get_executor())});
  if (!jobs) return std::cerr << jobs.error().message << '\n', 1;

  // Without an executor: on the client's dispatch thread, which the slow handler does not hold up.
  const auto pings = client.subscribe("jobs/quick", [](const fulmar::Message& message) {
    std::cout << "quick: " << message.text() << std::endl;
  });
  if (!pings) return std::cerr << pings.error().message << '\n', 1;

  for (const std::string job : {"job 1", "job 2", "job 3"}) {
    if (const auto id = client.publish("jobs/slow", job, {.qos = fulmar::QoS::at_least_once}); !id) {
      return std::cerr << id.error().message << '\n', 1;
    }
  }
  if (const auto id = client.publish("jobs/quick", "ping"); !id)
    return std::cerr << id.error().message << '\n', 1;

  const bool in_time = all_done.get_future().wait_for(10s) == std::future_status::ready;
  if (!in_time) std::cerr << "not done within 10 s: " << client.last_change().reason << '\n';
  client.shutdown();  // before the pool ends: what waits in it belongs to the client
  return in_time ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
