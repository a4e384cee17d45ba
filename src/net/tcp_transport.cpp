#include "net/tcp_transport.hpp"

#include <fcntl.h>

#include <sstream>
#include <utility>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

std::string describe(const tcp::endpoint& endpoint) {
  std::ostringstream text;
  text << endpoint;
  return text.str();
}

std::string why_lost(const error_code& error) {
  if (error == asio::error::eof) return "the server closed the connection";
  return "connection lost: " + error.message();
}

}  // namespace

struct TcpTransport::Link : std::enable_shared_from_this<Link> {
  Link(const asio::any_io_executor& executor, Listener& to)
      : socket(executor), timer(executor), listener(&to) {}

  void try_next() {
    if (next == addresses.size()) {
      auto* told = std::exchange(listener, nullptr);
      told->on_open_failed(failures);
      return;
    }
    const tcp::endpoint address = addresses[next++];
    error_code error;
    socket.close(error);
    socket.open(address.protocol(), error);
    if (error) return failed(address, error.message());
    fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
    socket.set_option(tcp::no_delay(true), error);
    const unsigned attempt = ++attempts;
    timer.expires_after(attempt_timeout);
    timer.async_wait([self = shared_from_this(), attempt, address](const error_code& cancelled) {
      if (cancelled || !self->listener || attempt != self->attempts) return;
      ++self->attempts;  // the attempt's own completion is too late now
      self->failed(address, "no answer in time");
    });
    socket.async_connect(address, [self = shared_from_this(), attempt, address](const error_code& failure) {
      if (!self->listener || attempt != self->attempts) return;
      self->timer.cancel();
      if (failure) {
        self->failed(address, failure.message());
      } else {
        self->listener->on_open(describe(address));
      }
    });
  }

  void failed(const tcp::endpoint& address, const std::string& why) {
    if (!failures.empty()) failures += "; ";
    failures += describe(address) + ": " + why;
    try_next();
  }

  void lost(const error_code& error) {
    if (auto* told = std::exchange(listener, nullptr)) told->on_lost(why_lost(error));
  }

  tcp::socket socket;
  asio::steady_timer timer;
  Listener* listener;  // null once closed, failed or lost
  std::vector<tcp::endpoint> addresses;
  std::size_t next = 0;
  unsigned attempts = 0;
  std::chrono::milliseconds attempt_timeout{2'000};
  std::string failures;
};

TcpTransport::TcpTransport(const asio::any_io_executor& executor, Listener& listener)
    : link_(std::make_shared<Link>(executor, listener)) {}

TcpTransport::~TcpTransport() { close(); }

void TcpTransport::open(Addresses addresses) {
  link_->addresses = std::move(addresses);
  // Not from within the caller's call: a listener is told of a failure at the first address later, as of any other.
  asio::post(link_->socket.get_executor(), [link = link_] {
    if (link->listener) link->try_next();
  });
}

void TcpTransport::read() {
  link_->socket.async_read_some(link_->listener->read_buffer(), [link = link_](const error_code& error, std::size_t size) {
    if (!link->listener) return;
    if (error) return link->lost(error);
    link->listener->on_read(size);
  });
}

void TcpTransport::write_some(asio::const_buffer buffer) {
  link_->socket.async_write_some(buffer, [link = link_](const error_code& error, std::size_t size) {
    if (!link->listener) return;
    if (error) return link->lost(error);
    link->listener->on_written(size);
  });
}

void TcpTransport::finish_sending() {
  error_code ignored;  // a connection that is gone already is told of by the read
  link_->socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void TcpTransport::close() {
  link_->listener = nullptr;
  error_code ignored;
  link_->timer.cancel();
  link_->socket.shutdown(tcp::socket::shutdown_both, ignored);
  link_->socket.close(ignored);
}

}  // namespace fulmar::net
