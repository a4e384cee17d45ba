#pragma once
// Resolver: turns a host name into addresses without ever making anyone wait. getaddrinfo(3) can block for as long as a
// name server likes and cannot be interrupted, so it runs on a thread of its own that is left behind when nobody wants
// its answer any more.
//
// Not thread-safe: owned by one connection and used on its executor. At most one look-up is wanted at a time;
// destruction and cancel() are immediate. Every resolve() asks anew: nothing is remembered.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "fulmar/result.hpp"

namespace fulmar::net {

class Resolver {
 public:
  using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;
  using Handler = std::function<void(Result<Addresses>)>;

  // So many look-ups run at a time in the process, those included that were given up and have not returned yet; others wait
  // for their turn.
  static constexpr int threads_max = 64;

  explicit Resolver(boost::asio::any_io_executor executor);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // `handler` runs later on the executor, unless cancelled. An address literal needs no thread and no turn.
  void resolve(const std::string& host, std::uint16_t port, Handler handler);
  void cancel();

 private:
  struct Lookup;
  struct Threads;
  boost::asio::any_io_executor executor_;
  std::shared_ptr<Lookup> lookup_;
};

}  // namespace fulmar::net
