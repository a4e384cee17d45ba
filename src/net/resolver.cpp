#include "net/resolver.hpp"

#include <netdb.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include <boost/asio/ip/address.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

Result<Resolver::Addresses> look_up(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (code != 0) {
    const std::string why = code == EAI_SYSTEM ? std::system_category().message(errno) : gai_strerror(code);
    return fail(Errc::connection_failed, "cannot resolve host \"" + host + "\": " + why);
  }
  Resolver::Addresses addresses;
  for (const addrinfo* at = found; at; at = at->ai_next) {
    tcp::endpoint endpoint;
    if (at->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), at->ai_addr, at->ai_addrlen);
    endpoint.resize(at->ai_addrlen);
    endpoint.port(port);
    addresses.push_back(endpoint);
  }
  freeaddrinfo(found);
  if (addresses.empty()) return fail(Errc::connection_failed, "host \"" + host + "\" has no address");
  return addresses;
}

}  // namespace

Resolver::Resolver(asio::any_io_executor executor) : background_(std::move(executor)) {}
Resolver::~Resolver() = default;

void Resolver::cancel() { background_.cancel(); }

void Resolver::resolve(const std::string& host, std::uint16_t port, Handler handler) {
  boost::system::error_code not_literal;
  if (const auto address = asio::ip::make_address(host, not_literal); !not_literal) {
    return background_.later(
        [handler = std::move(handler), address, port] { handler(Addresses{{address, port}}); });
  }
  const auto answer = std::make_shared<Result<Addresses>>();
  const auto tell = [handler = std::move(handler), answer] { handler(std::move(*answer)); };
  const auto started = background_.run([answer, host, port] { *answer = look_up(host, port); }, tell);
  if (started) return;
  *answer = fail(Errc::connection_failed, "cannot resolve host \"" + host + "\": " + started.error().message);
  background_.later(tell);
}

}  // namespace fulmar::net
