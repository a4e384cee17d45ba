// TLS with a certificate on both sides:   client_certificate mqtts://localhost ca.pem client.pem client.key
#include <cstdlib>
#include <iostream>
#include <stdexcept>

#include <fulmar/client.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) try {
  if (argc != 5) {
    std::cerr
        << "usage: client_certificate URL CA CERTIFICATE KEY, e.g. mqtts://localhost ca.pem my.pem my.key\n";
    return 2;
  }
  fulmar::ClientConfig config{.urls = {argv[1]}, .client_id = "client-certificate"};
  config.tls.ca_file = argv[2];    // who may vouch for the server; empty: the system's authorities
  config.tls.cert_file = argv[3];  // who we are
  config.tls.key_file = argv[4];

  fulmar::Client client(config);
  if (const auto connected = client.connect(10s); !connected) {
    std::cerr << connected.error().message << '\n';
    return 1;
  }
  std::cout << "connected, and both sides know who the other is\n";
  if (const auto id = client.publish("vault/door", "closed", {.qos = fulmar::QoS::at_least_once}); !id) {
    return std::cerr << id.error().message << '\n', 1;
  }
  const auto report = client.shutdown();
  std::cout << "acknowledged " << report.acknowledged << ", lost " << report.lost << '\n';
  return report.lost == 0 ? 0 : 1;
} catch (const std::invalid_argument& wrong_configuration) {
  std::cerr << wrong_configuration.what() << '\n';
  return 2;
}
