// A program for the tests that stop and end processes: publishes numbers with QoS 2 until SIGTERM, then shuts down and
// says what became of them.
#include <signal.h>

#include <cstdio>
#include <string>

#include "fulmar/client.hpp"

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  if (argc != 3) {
    std::fprintf(stderr, "usage: fault_publisher URL CLIENT_ID\n");
    return 2;
  }
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, nullptr);

  fulmar::ClientConfig config;
  config.urls = {argv[1]};
  config.client_id = argv[2];
  config.clean_start = false;
  config.session_expiry = 600s;
  config.keepalive = 1s;
  config.reconnect_min_delay = 100ms;
  config.reconnect_max_delay = 200ms;
  config.outbox_bytes = std::size_t{64} << 20;
  fulmar::Client client(config);
  client.start();
  unsigned long accepted = 0;
  const timespec pause{0, 1'000'000};
  while (sigtimedwait(&term, nullptr, &pause) != SIGTERM) {
    if (client.publish("ledger", std::to_string(accepted), {.qos = fulmar::QoS::exactly_once})) ++accepted;
  }
  const auto report = client.shutdown(5s);
  const auto metrics = client.metrics();
  std::printf("accepted %lu acknowledged %lu lost %lu connects %lu\n", accepted, report.acknowledged,
              report.lost, metrics.connects);
  return report.lost == 0 ? 0 : 1;
}
