#pragma once
// Channel: a connected socket with or without TLS over it, for the transports to read and write without waiting.
//
// open() connects (Connector) and does the TLS handshake. Then read_some() and write_some() do what can be done now; where
// that is nothing the owner waits on socket() for read_wait() or write_wait() and calls again.
//
// Not thread-safe: used on its executor; lives as long as the operations on its socket. Reads and writes may wait at the
// same time. Does not throw.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>

#include "fulmar/tls_config.hpp"
#include "net/background.hpp"
#include "net/connector.hpp"
#include "net/endpoint.hpp"
#include "net/tls_context.hpp"

namespace fulmar::net {

class TlsSession;

// Shared with the operations of open() that are under way.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  using Socket = Connector::Socket;
  using Wait = Socket::wait_type;
  using error_code = boost::system::error_code;
  // The peer, or a line that names what was tried. Never called within open(), nor after close().
  using OpenHandler = std::function<void(Result<std::string>)>;

  // `tls` is used where the endpoint is secure, and must outlive the channel.
  Channel(const boost::asio::any_io_executor& executor, Endpoint endpoint, const TlsConfig& tls);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  void open(std::vector<boost::asio::ip::tcp::endpoint> addresses, OpenHandler handler);
  // What open() waits for: "no TCP connection", "no answer to the TLS handshake".
  std::string_view stage() const;

  // Bytes read or written, > 0, or an error: would_block, eof, or one that explain() has a line for. After a read that did
  // not fill its buffer the next one has to wait, unless at_once() says otherwise.
  std::size_t read_some(boost::asio::mutable_buffer buffer, error_code& error);
  std::size_t write_some(boost::asio::const_buffer buffer, error_code& error);
  Wait read_wait() const { return read_wait_; }
  Wait write_wait() const { return write_wait_; }
  bool at_once() const;
  std::string explain(const error_code& error) const;

  // Bytes that the operating system has taken and the peer's has not acknowledged; 0 where it does not say.
  std::size_t unsent() const;
  // The peer learns that nothing more comes; reading goes on.
  void finish_sending();
  void close();
  Socket& socket() { return socket_; }
  const Endpoint& endpoint() const { return endpoint_; }

 private:
  void get_context();
  void start_tls(Result<TlsContext> context);
  void shake_hands();
  void opened(Result<std::string> result);

  const Endpoint endpoint_;
  const TlsConfig& tls_config_;
  Connector connector_;
  Background background_;  // reads the files of TLS
  Socket socket_;
  std::unique_ptr<TlsSession> tls_;  // after the socket: it uses it
  std::string peer_;
  OpenHandler handler_;  // empty once told or closed
  Wait read_wait_ = Wait::wait_read;
  Wait write_wait_ = Wait::wait_write;
};

}  // namespace fulmar::net
