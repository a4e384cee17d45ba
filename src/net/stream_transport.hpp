#pragma once
// StreamTransport: MQTT's bytes as they are over a Channel: TCP, a Unix socket, TLS.
//
// Without traffic it waits for the socket to be ready, and asks for a buffer only then.

#include <memory>

#include "net/channel.hpp"
#include "net/transport.hpp"

namespace fulmar::net {

class StreamTransport final : public Transport {
 public:
  // `listener` must outlive the transport or its close(); `tls` the transport.
  StreamTransport(const boost::asio::any_io_executor& executor, const Endpoint& endpoint,
                  const TlsConfig& tls, Listener& listener);
  ~StreamTransport() override;

  void open(Addresses addresses) override;
  std::string_view stage() const override;
  void read() override;
  bool write_some(boost::asio::const_buffer buffer) override;
  std::size_t unsent() const override;
  void finish_sending() override;
  void close() override;

 private:
  class Link;
  const std::shared_ptr<Link> link_;  // shared with the operations under way
};

}  // namespace fulmar::net
