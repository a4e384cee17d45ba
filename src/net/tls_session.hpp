#pragma once
// TlsSession: the client's side of TLS on a connected socket. It never waits: when it cannot go on it says what the socket
// must be ready for. Whoever owns it owns the waiting.
//
// The server's certificate must be issued by an authority that the context trusts, for the server's name or address, for
// this moment and this use; else the handshake fails before anything is sent through it.
//
// Not thread-safe; does not throw.

#include <cstddef>
#include <memory>
#include <string>

#include <boost/asio/buffer.hpp>
#include <boost/system/error_code.hpp>

#include "fulmar/tls_config.hpp"
#include "net/tls_context.hpp"

struct ssl_st;

namespace fulmar::net {

class TlsSession {
 public:
  enum class Wait : unsigned char { readable, writable };

  // `host`: what the URL names; `config` says otherwise where it has a server_name. `config` must outlive the session, and
  // the socket too.
  TlsSession(TlsContext context, int socket, const std::string& host, const TlsConfig& config);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Each does what can be done now. `error` afterwards:
  //   none          handshake over, or that many bytes (> 0) read or written; of a read buffer that is not full the rest
  //                 would block, or ended() is true
  //   would_block   call again with the same bytes when the socket is ready for wait()
  //   eof           the peer has ended the stream in order
  //   other         it is over; why() says it in a line
  void handshake(boost::system::error_code& error);
  std::size_t read(boost::asio::mutable_buffer buffer, boost::system::error_code& error);
  std::size_t write(boost::asio::const_buffer buffer, boost::system::error_code& error);
  Wait wait() const { return wait_; }
  bool ended() const { return ended_.failed(); }  // read() will tell an error, without waiting
  const std::string& why() const { return why_; }

  // Tells the peer that nothing more comes, where the socket takes it at once.
  void send_close_notify();

 private:
  struct Free {
    void operator()(ssl_st* ssl) const;
  };
  struct Hooks;  // what OpenSSL calls back

  bool ask_for(const std::string& server_name);
  bool settled(int result, boost::system::error_code& error);
  void explain_handshake(unsigned long code, int system_error);
  std::string explain_alert(int reason) const;

  const TlsContext context_;
  const int socket_;
  const TlsConfig& config_;
  const std::string server_;  // name or address
  std::unique_ptr<ssl_st, Free> ssl_;
  Wait wait_ = Wait::readable;
  bool open_ = false;                // the handshake is over
  bool drained_ = false;             // the last read of the socket took all there was
  int socket_error_ = 0;             // errno of the last read or write of the socket
  boost::system::error_code ended_;  // what a read has met behind the bytes it found
  std::string why_;
  std::string bad_certificate_;  // why the server's certificate is not accepted
};

}  // namespace fulmar::net
