#pragma once
// make_transport: the Transport that a URL asks for.

#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "fulmar/tls_config.hpp"
#include "net/endpoint.hpp"
#include "net/transport.hpp"

namespace fulmar::net {

// `listener` must outlive the transport or its close(); `tls` the transport. What is wrong with the files that `tls` names
// is told by on_open_failed.
std::unique_ptr<Transport> make_transport(const boost::asio::any_io_executor& executor,
                                          const Endpoint& endpoint, const TlsConfig& tls,
                                          Transport::Listener& listener);

}  // namespace fulmar::net
