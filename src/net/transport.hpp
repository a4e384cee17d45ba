#pragma once
// Transport: one connection that carries a stream of bytes, whatever it runs over.
//
// Not thread-safe: used on one executor. At most one read_some and one write_some at a time; their buffers stay valid
// until the completion or close(). After close() the listener hears nothing more. The listener may call anything, close()
// and destruction of the transport included, from within its callbacks.

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "fulmar/result.hpp"

namespace fulmar::net {

class Transport {
 public:
  class Listener {
   public:
    virtual void on_open(const std::string& peer) = 0;        // "127.0.0.1:1883"
    virtual void on_open_failed(const std::string& why) = 0;  // names the addresses that were tried
    virtual void on_read(std::size_t size) = 0;               // > 0
    virtual void on_written(std::size_t size) = 0;
    virtual void on_lost(const std::string& why) = 0;  // the peer closed it, or it broke; once

   protected:
    ~Listener() = default;
  };

  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  // Tries the addresses in turn, each for at most `attempt_timeout`.
  virtual void open(std::vector<boost::asio::ip::tcp::endpoint> addresses,
                    std::chrono::milliseconds attempt_timeout) = 0;
  virtual void read_some(boost::asio::mutable_buffer buffer) = 0;
  virtual void write_some(boost::asio::const_buffer buffer) = 0;
  // Nothing more will be written; reading goes on. A close() with bytes unread resets the connection, and takes away from
  // the peer what it has not read yet: an orderly end is this, then reading until on_lost, then close().
  virtual void finish_sending() = 0;
  virtual void close() = 0;
};

}  // namespace fulmar::net
