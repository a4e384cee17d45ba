// Which protocol version the client speaks to servers that do not speak 5.0, each in its own way.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fulmar/client.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using testing::ElementsAre;

const std::string accepted_3_1_1 = "\x20\x02\x00\x00"s;
const std::string accepted_v5 = "\x20\x03\x00\x00\x00"s;

// Reads one CONNECT of each connection and answers with bytes of the test's choice; an answer that accepts keeps the
// connection until the next one comes, any other closes it.
class Greeter {
 public:
  using Answer = std::function<std::string(int version, std::size_t connection)>;

  explicit Greeter(Answer answer) : answer_(std::move(answer)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 8) != 0 ||
        ::getsockname(listener_, generic, &size) != 0) {
      ::close(listener_);
      throw std::runtime_error("cannot listen on a loopback port");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Greeter() {
    done_ = true;
    thread_.join();
    ::close(listener_);
  }

  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }
  // The protocol levels of the CONNECTs so far: 4 is 3.1.1.
  std::vector<int> versions() const {
    const std::lock_guard lock(mutex_);
    return versions_;
  }
  // Closes the connection that was accepted.
  void hang_up() { hang_up_ = true; }

 private:
  void serve() {
    int kept = -1;
    const auto close_kept = [&] {
      if (kept >= 0) ::close(kept);
      kept = -1;
    };
    while (!done_) {
      if (hang_up_.exchange(false)) close_kept();
      pollfd ready{listener_, POLLIN, 0};
      if (::poll(&ready, 1, 5) <= 0) continue;
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      close_kept();
      unsigned char connect[512] = {};  // fixed header of two bytes, "MQTT" with its length, protocol level
      if (::recv(client, connect, sizeof connect, 0) < 9) {
        ::close(client);
        continue;
      }
      const int version = connect[8];
      std::size_t connection = 0;
      {
        const std::lock_guard lock(mutex_);
        connection = versions_.size();
        versions_.push_back(version);
      }
      const std::string answer = answer_(version, connection);
      if (!answer.empty()) ::send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
      if (answer == accepted_3_1_1 || answer == accepted_v5) {
        kept = client;
      } else {
        ::close(client);
      }
    }
    close_kept();
  }

  Answer answer_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> done_{false}, hang_up_{false};
  mutable std::mutex mutex_;
  std::vector<int> versions_;
  std::thread thread_;
};

ClientConfig config_for(const Greeter& server) {
  ClientConfig config;
  config.urls = {server.url()};
  config.client_id = "version-test";
  config.reconnect_min_delay = 100ms;
  config.reconnect_max_delay = 100ms;
  return config;
}

void wait_for_connections(const Greeter& server, std::size_t count) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (server.versions().size() < count && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(2ms);
  }
}

TEST(Version, falls_to_3_1_1_at_once_and_for_good_when_the_server_says_so) {
  // In its own format, or as 5.0 has it [MQTT-3.1.2-2, MQTT5 3.1.2.2].
  for (const auto& refusal : {"\x20\x02\x00\x01"s, "\x20\x03\x00\x84\x00"s}) {
    Greeter server([&](int version, std::size_t) { return version == 5 ? refusal : accepted_3_1_1; });
    Client client(config_for(server));
    const auto connected = client.connect(5s);
    ASSERT_TRUE(connected) << connected.error().message;
    EXPECT_EQ(client.metrics().reconnect_attempts, 0u);
    server.hang_up();
    wait_for_connections(server, 3);
    EXPECT_THAT(server.versions(), ElementsAre(5, 4, 4));
  }
}

TEST(Version, tries_3_1_1_at_once_when_the_server_closes_instead_of_answering) {
  Greeter server([](int version, std::size_t) { return version == 5 ? ""s : accepted_3_1_1; });
  Client client(config_for(server));
  const auto connected = client.connect(5s);
  ASSERT_TRUE(connected) << connected.error().message;
  server.hang_up();
  wait_for_connections(server, 4);
  EXPECT_THAT(server.versions(), ElementsAre(5, 4, 5, 4)) << "a closed connection proves nothing for good";
}

TEST(Version, returns_to_5_0_when_silence_had_another_reason) {
  Greeter server(
      [](int version, std::size_t connection) { return connection < 2 || version != 5 ? ""s : accepted_v5; });
  Client client(config_for(server));
  ASSERT_TRUE(client.connect(5s));
  EXPECT_THAT(server.versions(), ElementsAre(5, 4, 5));
}

TEST(Version, stays_with_5_0_when_the_server_has_spoken_it) {
  Greeter server([](int version, std::size_t connection) {
    return connection == 1 || version != 5 ? ""s : accepted_v5;
  });
  Client client(config_for(server));
  ASSERT_TRUE(client.connect(5s));
  server.hang_up();
  wait_for_connections(server, 3);
  EXPECT_THAT(server.versions(), ElementsAre(5, 5, 5));
}

TEST(Version, is_never_raised_above_the_one_that_was_asked_for) {
  Greeter server([](int, std::size_t connection) { return connection < 2 ? ""s : accepted_3_1_1; });
  auto config = config_for(server);
  config.protocol = ProtocolVersion::v3_1_1;
  Client client(config);
  ASSERT_TRUE(client.connect(5s));
  EXPECT_THAT(server.versions(), ElementsAre(4, 4, 4));
}

}  // namespace
}  // namespace fulmar
