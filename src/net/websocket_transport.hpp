#pragma once
// WebSocketTransport: MQTT's bytes in the binary frames of a WebSocket (RFC 6455) over a Channel, so with TLS or without.
//
// The borders of frames and messages mean nothing [MQTT-6.0.0-2]; a frame of text ends the connection [MQTT-6.0.0-1]; the
// subprotocol is "mqtt" on both sides [MQTT-6.0.0-3, MQTT-6.0.0-4]. Each write is one message; pings are answered while a
// read() waits. Whatever the sizes of its frames, a server can make us hold one buffer's worth; a message of more bytes than
// the largest MQTT packet has ends the connection.

#include <memory>

#include "net/channel.hpp"
#include "net/transport.hpp"

namespace fulmar::net {

class WebSocketTransport final : public Transport {
 public:
  // `listener` must outlive the transport or its close(); `tls` the transport.
  WebSocketTransport(const boost::asio::any_io_executor& executor, const Endpoint& endpoint,
                     const TlsConfig& tls, Listener& listener);
  ~WebSocketTransport() override;

  void open(Addresses addresses) override;
  std::string_view stage() const override;
  void read() override;
  bool write_some(boost::asio::const_buffer buffer) override;
  std::size_t unsent() const override;
  void finish_sending() override;
  void close() override;

 private:
  struct Link;
  const std::shared_ptr<Link> link_;  // shared with the operations under way
};

}  // namespace fulmar::net
