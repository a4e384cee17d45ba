#include "net/channel.hpp"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

#include "net/tls_session.hpp"

namespace fulmar::net {

namespace asio = boost::asio;

namespace {

boost::system::error_code last_error() {
  if (errno == EAGAIN || errno == EINTR) return asio::error::would_block;
  return {errno, boost::system::system_category()};
}

Channel::Wait wait_of(TlsSession::Wait wait) {
  return wait == TlsSession::Wait::readable ? Channel::Wait::wait_read : Channel::Wait::wait_write;
}

}  // namespace

Channel::Channel(const asio::any_io_executor& executor, Endpoint endpoint, const TlsConfig& tls)
    : endpoint_(std::move(endpoint)),
      tls_config_(tls),
      connector_(executor),
      background_(executor),
      socket_(executor) {}

Channel::~Channel() = default;

void Channel::open(std::vector<asio::ip::tcp::endpoint> addresses, OpenHandler handler) {
  handler_ = std::move(handler);
  // The connector is ours and says nothing once it is destroyed.
  const auto connected = [this](Result<Connector::Connected> result) {
    if (!result) return opened(std::unexpected(std::move(result.error())));
    socket_ = std::move(result->socket);
    peer_ = std::move(result->peer);
    connector_.cancel();  // frees its memory
    if (!endpoint_.is_secure()) return opened(peer_);
    get_context();
  };
  if (endpoint_.is_local()) {
    connector_.connect(endpoint_.path, connected);
  } else {
    connector_.connect(std::move(addresses), connected);
  }
}

// Asked for here and not at open(): the files that count are those of the moment of the handshake.
void Channel::get_context() {
  if (auto kept = kept_tls_context(tls_config_)) return start_tls(std::move(kept));
  const auto context = std::make_shared<Result<TlsContext>>();
  const auto read = [context, config = tls_config_] { *context = tls_context(config); };
  const auto started = background_.run(read, [this, context] { start_tls(std::move(*context)); });
  if (!started) background_.later([this, error = started.error()] { opened(std::unexpected(error)); });
}

void Channel::start_tls(Result<TlsContext> context) {
  if (!context) return opened(std::unexpected(std::move(context.error())));
  tls_ =
      std::make_unique<TlsSession>(std::move(*context), socket_.native_handle(), endpoint_.host, tls_config_);
  shake_hands();
}

void Channel::shake_hands() {
  error_code error;
  tls_->handshake(error);
  if (error == asio::error::would_block) {
    socket_.async_wait(wait_of(tls_->wait()), [self = shared_from_this()](const error_code& cancelled) {
      if (!cancelled && self->handler_) self->shake_hands();
    });
    return;
  }
  if (error) return opened(fail(Errc::connection_failed, peer_ + ": " + explain(error)));
  opened(peer_);
}

void Channel::opened(Result<std::string> result) {
  const auto told = std::exchange(handler_, nullptr);
  if (!result) close();
  told(std::move(result));
}

std::string_view Channel::stage() const {
  if (tls_) return "no answer to the TLS handshake";
  if (!peer_.empty()) return "the certificates could not be read";
  return endpoint_.is_local() ? "no connection to the socket" : "no TCP connection";
}

std::size_t Channel::read_some(asio::mutable_buffer buffer, error_code& error) {
  if (tls_) {
    const std::size_t size = tls_->read(buffer, error);
    if (size < buffer.size()) read_wait_ = wait_of(tls_->wait());
    return size;
  }
  const auto size = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  error = size < 0 ? last_error() : size == 0 ? error_code(asio::error::eof) : error_code();
  return size < 0 ? 0 : static_cast<std::size_t>(size);
}

std::size_t Channel::write_some(asio::const_buffer buffer, error_code& error) {
  if (tls_) {
    const std::size_t size = tls_->write(buffer, error);
    if (error) write_wait_ = wait_of(tls_->wait());
    return size;
  }
  const auto size =
      ::send(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  error = size < 0 ? last_error() : error_code();
  return size < 0 ? 0 : static_cast<std::size_t>(size);
}

bool Channel::at_once() const { return tls_ && tls_->ended(); }

std::string Channel::explain(const error_code& error) const {
  if (tls_ && !tls_->why().empty()) return tls_->why();
  if (error == asio::error::eof) return "the server closed the connection";
  return "connection lost: " + error.message();
}

std::size_t Channel::unsent() const {
  int bytes = 0;
  auto& socket = const_cast<Socket&>(socket_);  // native_handle() of Asio 1.26 is not const
  if (!socket.is_open() || ioctl(socket.native_handle(), SIOCOUTQ, &bytes) != 0) return 0;
  return static_cast<std::size_t>(std::max(bytes, 0));
}

void Channel::finish_sending() {
  if (tls_) tls_->send_close_notify();
  error_code ignored;  // a connection that is gone already is told of by the read
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void Channel::close() {
  handler_ = nullptr;
  connector_.cancel();
  background_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace fulmar::net
