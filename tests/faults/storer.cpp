// A program for the tests that end processes: publishes numbers from FIRST on, with a spool in DIRECTORY and durability
// write_ahead, and writes each that is stored to standard output, a line each. Ends by SIGTERM with a shutdown.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "fulmar/client.hpp"

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  if (argc != 5) {
    std::fprintf(stderr, "usage: fault_storer URL DIRECTORY QOS FIRST\n");
    return 2;
  }
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, nullptr);

  fulmar::ClientConfig config;
  config.urls = {argv[1]};
  config.client_id = "storer";
  config.clean_start = false;
  config.session_expiry = 600s;
  config.reconnect_min_delay = 100ms;
  config.reconnect_max_delay = 200ms;
  config.spool_dir = argv[2];
  config.spool_bytes = std::uint64_t{64} << 20;
  config.durability = fulmar::Durability::write_ahead;
  const auto qos = static_cast<fulmar::QoS>(std::atoi(argv[3]));
  unsigned long number = std::strtoul(argv[4], nullptr, 10);

  std::atomic<unsigned long> open{0};  // accepted, and the outcome is not known
  fulmar::Client client(config);
  client.start();
  const timespec pause{0, 200'000};
  while (sigtimedwait(&term, nullptr, &pause) != SIGTERM) {
    for (int burst = 0; burst < 20 && open.load() < 400; ++burst) {
      const std::string text = std::to_string(number);
      ++open;
      const auto id = client.publish("ledger", fulmar::as_bytes(text), {.qos = qos},
                                     [text, &open](const fulmar::Delivery& delivery) {
                                       if (delivery.outcome == fulmar::Delivery::Outcome::stored ||
                                           delivery.outcome == fulmar::Delivery::Outcome::acknowledged) {
                                         const std::string line = text + "\n";
                                         if (::write(STDOUT_FILENO, line.data(), line.size()) < 0)
                                           std::abort();
                                       }
                                       --open;
                                     });
      if (!id) {
        --open;
        break;
      }
      ++number;
    }
  }
  const auto report = client.shutdown(5s);
  return report.lost == 0 ? 0 : 1;
}
