#include "net/connector.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <utility>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Address = asio::generic::stream_protocol::endpoint;

namespace {

struct Target {
  Address address;
  std::string name;
};

std::string describe(const tcp::endpoint& endpoint) {
  std::ostringstream text;
  text << endpoint;
  return text.str();
}

// RFC 8305, section 4: the families alternate, each in the resolver's order.
std::vector<Target> interleave(const std::vector<tcp::endpoint>& addresses) {
  std::vector<Target> order;
  const auto next_of = [&](std::size_t from, bool v6) {
    while (from < addresses.size() && addresses[from].address().is_v6() != v6) ++from;
    return from;
  };
  const bool first_v6 = !addresses.empty() && addresses.front().address().is_v6();
  std::size_t ours = next_of(0, first_v6), others = next_of(0, !first_v6);
  while (order.size() < Connector::addresses_max && (ours < addresses.size() || others < addresses.size())) {
    for (auto* at : {&ours, &others}) {
      if (*at >= addresses.size() || order.size() == Connector::addresses_max) continue;
      const auto& one = addresses[*at];
      order.push_back({one, describe(one)});
      *at = next_of(*at + 1, one.address().is_v6());
    }
  }
  return order;
}

// With the flags at its creation: between socket() and fcntl() another thread could fork and exec.
error_code open_socket(Connector::Socket& socket, const Address& address) {
  const int family = address.protocol().family();
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return {errno, boost::system::system_category()};
  if (family != AF_UNIX) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  error_code error;
  socket.assign(address.protocol(), fd, error);
  if (error) ::close(fd);
  return error;
}

// What a connect() that reported success can still have got wrong.
error_code check_connected(Connector::Socket& socket, const Address& address) {
  error_code error;
  if (address.protocol().family() == AF_UNIX) {
    // With the listener's backlog full there is nothing to wait for, and the socket stays unconnected.
    socket.remote_endpoint(error);
    return error == asio::error::not_connected ? error_code(asio::error::try_again) : error;
  }
  // A port that nobody listens on can be the one that the kernel gave to this very connection.
  const auto local = socket.local_endpoint(error);
  return !error && local == address ? error_code(asio::error::connection_refused) : error;
}

}  // namespace

struct Connector::Race : std::enable_shared_from_this<Connector::Race> {
  Race(const asio::any_io_executor& executor, std::vector<Target> all, Handler to)
      : timer(executor), targets(std::move(all)), handler(std::move(to)) {
    sockets.reserve(targets.size());
  }

  void start_next() {
    while (next < targets.size()) {
      const std::size_t index = next++;
      auto& socket = sockets.emplace_back(timer.get_executor());
      if (const auto error = open_socket(socket, targets[index].address)) {
        add_failure(index, error);
        continue;
      }
      ++under_way;
      socket.async_connect(targets[index].address, [self = shared_from_this(), index](error_code error) {
        if (self->handler) self->on_result(index, error);
      });
      return start_timer();
    }
    if (under_way == 0) finish(fail(Errc::connection_failed, failures.empty() ? "no address" : failures));
  }

  void start_timer() {
    if (next == targets.size()) {
      timer.cancel();
      return;
    }
    timer.expires_after(attempt_delay);
    timer.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled && self->handler) self->start_next();
    });
  }

  void on_result(std::size_t index, error_code error) {
    --under_way;
    auto& socket = sockets[index];
    if (!error) error = check_connected(socket, targets[index].address);
    if (!error) return finish(Connected{std::move(socket), targets[index].name});
    error_code ignored;
    socket.close(ignored);
    add_failure(index, error);
    start_next();
  }

  void add_failure(std::size_t index, error_code error) {
    if (!failures.empty()) failures += "; ";
    failures += targets[index].name + ": " + error.message();
  }

  void finish(Result<Connected> result) {
    const auto told = std::exchange(handler, nullptr);
    end();
    told(std::move(result));
  }

  void end() {
    handler = nullptr;
    timer.cancel();
    error_code ignored;
    for (auto& socket : sockets) socket.close(ignored);
  }

  asio::steady_timer timer;
  const std::vector<Target> targets;
  std::vector<Socket> sockets;  // by target, as far as they were tried; never reallocated
  Handler handler;              // empty once told or cancelled
  std::size_t next = 0;
  std::size_t under_way = 0;
  std::string failures;
};

Connector::Connector(asio::any_io_executor executor) : executor_(std::move(executor)) {}
Connector::~Connector() { cancel(); }

void Connector::connect(std::vector<tcp::endpoint> addresses, Handler handler) {
  race_ = std::make_shared<Race>(executor_, interleave(addresses), std::move(handler));
  asio::post(executor_, [race = race_] {
    if (race->handler) race->start_next();
  });
}

void Connector::connect(const std::string& socket_path, Handler handler) {
  // Longer paths are refused where the URL is read.
  std::vector<Target> target{{asio::local::stream_protocol::endpoint(socket_path), socket_path}};
  race_ = std::make_shared<Race>(executor_, std::move(target), std::move(handler));
  asio::post(executor_, [race = race_] {
    if (race->handler) race->start_next();
  });
}

void Connector::cancel() {
  if (const auto race = std::move(race_)) race->end();
}

}  // namespace fulmar::net
