#pragma once
// Transport: one connection that carries a stream of bytes, whatever it runs over.
//
// Not thread-safe: used on one executor. At most one read() and one write_some() at a time; the written buffer stays valid
// until on_written or close(), unless write_some() says that it is not needed any more. After close() the listener hears
// nothing more. The listener may call anything, close() and destruction of the transport included, from within its
// callbacks.

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "fulmar/result.hpp"

namespace fulmar::net {

class Transport {
 public:
  class Listener {
   public:
    virtual void on_open(const std::string& peer) = 0;        // "127.0.0.1:1883"; every handshake is over
    virtual void on_open_failed(const std::string& why) = 0;  // names what was tried
    // Where the bytes go that a read() has found; valid until on_read, which comes next, or close(). Asked for as late as
    // the transport can, so that a connection without traffic needs no buffer. Not empty.
    virtual boost::asio::mutable_buffer read_buffer() = 0;
    virtual void on_read(std::size_t size) = 0;  // > 0
    virtual void on_written(std::size_t size) = 0;
    virtual void on_lost(const std::string& why) = 0;  // the peer closed it, or it broke; once

   protected:
    ~Listener() = default;
  };
  using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;

  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  // Connects to one of the addresses and does the handshakes of the layers above. A local socket has no addresses. It does
  // not end by itself when a peer is silent: close() when the time is over.
  virtual void open(Addresses addresses) = 0;
  // What open() is waiting for, for the message of a time-out: "no TCP connection", "no answer to the TLS handshake".
  virtual std::string_view stage() const = 0;
  virtual void read() = 0;  // on_read is told once
  // on_written is told once, later. True: all was taken at once, and the buffer may go.
  virtual bool write_some(boost::asio::const_buffer buffer) = 0;
  // Bytes that the operating system has taken and the peer's has not acknowledged.
  virtual std::size_t unsent() const = 0;
  // Nothing more will be written; reading goes on. A close() with bytes unread resets the connection, and takes away from
  // the peer what it has not read yet: an orderly end is this, then reading until on_lost, then close().
  virtual void finish_sending() = 0;
  virtual void close() = 0;
};

}  // namespace fulmar::net
