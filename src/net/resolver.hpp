#pragma once
// Resolver: turns a host name into addresses without ever making anyone wait. getaddrinfo(3) can block for as long as a
// name server likes and cannot be interrupted, so it runs in the Background.
//
// Not thread-safe: owned by one connection and used on its executor. At most one look-up is wanted at a time;
// destruction and cancel() are immediate. Every resolve() asks anew: nothing is remembered.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "fulmar/result.hpp"
#include "net/background.hpp"

namespace fulmar::net {

class Resolver {
 public:
  using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;
  using Handler = std::function<void(Result<Addresses>)>;

  explicit Resolver(boost::asio::any_io_executor executor);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // `handler` runs later on the executor, unless cancelled. An address literal needs no thread.
  void resolve(const std::string& host, std::uint16_t port, Handler handler);
  void cancel();

 private:
  Background background_;
};

}  // namespace fulmar::net
