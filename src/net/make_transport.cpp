#include "net/make_transport.hpp"

#include "net/stream_transport.hpp"
#include "net/websocket_transport.hpp"

namespace fulmar::net {

std::unique_ptr<Transport> make_transport(const boost::asio::any_io_executor& executor,
                                          const Endpoint& endpoint, const TlsConfig& tls,
                                          Transport::Listener& listener) {
  if (endpoint.is_websocket()) return std::make_unique<WebSocketTransport>(executor, endpoint, tls, listener);
  return std::make_unique<StreamTransport>(executor, endpoint, tls, listener);
}

}  // namespace fulmar::net
