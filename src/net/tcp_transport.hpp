#pragma once
// TcpTransport: a Transport over plain TCP, with TCP_NODELAY, close-on-exec.

#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "net/transport.hpp"

namespace fulmar::net {

class TcpTransport final : public Transport {
 public:
  // `listener` must outlive the transport or its close().
  TcpTransport(const boost::asio::any_io_executor& executor, Listener& listener);
  ~TcpTransport() override;

  void open(Addresses addresses) override;
  std::string_view stage() const override { return "no TCP connection"; }
  void read() override;
  void write_some(boost::asio::const_buffer buffer) override;
  void finish_sending() override;
  void close() override;

 private:
  struct Link;
  std::shared_ptr<Link> link_;  // shared with the operations under way
};

}  // namespace fulmar::net
