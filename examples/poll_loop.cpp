// The protocol core alone, under a loop of one's own around poll(2): subscribes, publishes one message of QoS 1, prints
// what comes back and says goodbye.
//
//   poll_loop [HOST [PORT [TOPIC]]]

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "fulmar/mqtt/session.hpp"

using namespace fulmar;
using Clock = std::chrono::steady_clock;

static int connect_to(const char* host, const char* port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host, port, &hints, &found) != 0) return -1;
  int fd = -1;
  for (const addrinfo* at = found; at && fd < 0; at = at->ai_next) {
    fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) close(std::exchange(fd, -1));
  }
  freeaddrinfo(found);
  return fd;
}

static void publish(mqtt::Session& session, std::string_view topic, std::string_view text) {
  mqtt::RecordParts parts;
  parts.topic = topic;
  parts.payload = as_bytes(text);
  parts.qos = QoS::at_least_once;
  std::vector<std::uint64_t> block(mqtt::RecordView::size_for(parts) / 8);
  auto* bytes = reinterpret_cast<std::byte*>(block.data());
  mqtt::write_record(bytes, parts);
  session.publish(mqtt::RecordView(bytes));
}

int main(int argc, char** argv) {
  const std::string topic = argc > 3 ? argv[3] : "fulmar/example";
  const int fd = connect_to(argc > 1 ? argv[1] : "localhost", argc > 2 ? argv[2] : "1883");
  if (fd < 0) return std::fprintf(stderr, "cannot connect: is a broker running there?\n"), 1;

  mqtt::SessionConfig config;
  config.client_id = "poll-loop-example";
  mqtt::Session session(config);
  session.connection_opened(Clock::now());
  std::vector<std::byte> in, out(64 << 10);

  while (!session.should_close()) {
    while (const std::size_t size = session.transmit(out, Clock::now())) {
      if (send(fd, out.data(), size, MSG_NOSIGNAL) != static_cast<ssize_t>(size))
        return std::perror("send"), 1;
    }
    if (session.should_close()) break;
    int wait_ms = -1;
    if (const auto due = session.next_timeout()) {
      wait_ms = std::max(0, static_cast<int>((*due - Clock::now()) / std::chrono::milliseconds(1)) + 1);
    }
    pollfd waiting{fd, POLLIN, 0};
    if (poll(&waiting, 1, wait_ms) == 0) session.on_timeout(Clock::now());
    if (waiting.revents) {
      const std::size_t kept = in.size();
      in.resize(kept + (64 << 10));
      const ssize_t got = recv(fd, in.data() + kept, in.size() - kept, 0);
      if (got <= 0) return std::fprintf(stderr, "the server closed the connection\n"), 1;
      in.resize(kept + static_cast<std::size_t>(got));
      session.receive(in, Clock::now());
    }
    mqtt::Event event;
    while (session.next_event(event)) {
      if (std::holds_alternative<mqtt::Connected>(event)) {
        const mqtt::SubscriptionRequest request{.filter = topic, .qos = QoS::at_least_once};
        session.subscribe({&request, 1}, 0, 1);
      } else if (std::holds_alternative<mqtt::SubscriptionAcknowledged>(event)) {
        publish(session, topic, "hello from a loop of our own");
      } else if (const auto* received = std::get_if<mqtt::Received>(&event)) {
        const auto& message = received->message;
        std::cout << message.topic << ": " << as_text(message.payload) << '\n';
        if (message.packet_id != 0) session.acknowledge(message.packet_id);
        session.disconnect();
      } else if (const auto* closing = std::get_if<mqtt::Closing>(&event);
                 closing && !closing->text.empty()) {
        std::cerr << closing->text << '\n';
      }
    }
    in.erase(in.begin(), in.end() - static_cast<std::ptrdiff_t>(session.unread()));
  }
  close(fd);
}
