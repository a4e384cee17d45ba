// A service: configured by MQTT_* variables, publishes until SIGINT or SIGTERM, and accounts for every message.
//
//   MQTT_URL=mqtt://localhost graceful_shutdown        or        graceful_shutdown mqtt://localhost
#include <signal.h>

#include <iostream>
#include <stdexcept>
#include <string>

#include <fulmar/client.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  // Blocked before any thread starts, so that the signals wait for sigtimedwait() below.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGINT);
  sigaddset(&stop_signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);

  auto config = fulmar::ClientConfig::from_env({.client_id = "graceful"});
  if (!config) return std::cerr << config.error().message << '\n', 2;
  if (argc > 1) config->urls = {argv[1]};

  fulmar::Client client(*config);
  client.on_state_change([](const fulmar::StateChange& change) {
    std::cout << to_string(change.state) << ": " << change.reason << std::endl;
  });
  client.start();

  const timespec interval{.tv_sec = 0, .tv_nsec = 10'000'000};
  std::uint64_t refused = 0;
  int reading = 0;
  do {
    const auto id =
        client.publish("readings", std::to_string(reading++), {.qos = fulmar::QoS::at_least_once});
    if (!id) ++refused;
  } while (sigtimedwait(&stop_signals, nullptr, &interval) < 0);

  std::cout << "stopping" << std::endl;
  const auto report = client.shutdown(5s);  // waits until all has an outcome, at most 5 s
  const auto metrics = client.metrics();
  std::cout << "accepted " << metrics.accepted << " = acknowledged " << report.acknowledged << " + lost "
            << report.lost << "; not accepted " << refused << '\n';
  return report.lost == 0 ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
