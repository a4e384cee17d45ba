#include "net/resolver.hpp"

#include <netdb.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using asio::ip::tcp;

// Shared by the resolver and the look-up's thread. The mutex orders "posting the answer" and "cancelled, the executor's
// context may go away": it is held for the length of a post, never during the look-up.
struct Resolver::Lookup {
  std::mutex mutex;
  std::optional<asio::any_io_executor> executor;  // empty when cancelled
  Handler handler;
};

namespace {

std::atomic<int> lookups_running{0};

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

Resolver::Resolver(asio::any_io_executor executor) : executor_(std::move(executor)) {}
Resolver::~Resolver() { cancel(); }

void Resolver::cancel() {
  const auto lookup = std::move(lookup_);
  if (!lookup) return;
  const std::lock_guard lock(lookup->mutex);
  lookup->executor.reset();
  lookup->handler = nullptr;
}

void Resolver::resolve(const std::string& host, std::uint16_t port, Handler handler) {
  cancel();
  lookup_ = std::make_shared<Lookup>();
  lookup_->executor = executor_;
  lookup_->handler = std::move(handler);
  // Runs on the executor: where cancel() runs too, so the handler is there or it was cancelled.
  const auto answer = [](const std::shared_ptr<Lookup>& lookup, Result<Addresses> result) {
    const std::lock_guard lock(lookup->mutex);
    if (!lookup->executor) return;
    asio::post(*lookup->executor, [lookup, result = std::move(result)]() mutable {
      Handler call;
      {
        const std::lock_guard inner(lookup->mutex);
        call = std::move(lookup->handler);
        lookup->executor.reset();
      }
      if (call) call(std::move(result));
    });
  };

  boost::system::error_code not_literal;
  if (const auto address = asio::ip::make_address(host, not_literal); !not_literal) {
    answer(lookup_, Addresses{{address, port}});
    return;
  }
  if (lookups_running.fetch_add(1, std::memory_order_relaxed) >= abandoned_max) {
    lookups_running.fetch_sub(1, std::memory_order_relaxed);
    answer(lookup_, fail(Errc::connection_failed,
                         "cannot resolve host \"" + host + "\": too many name look-ups hang"));
    return;
  }
  try {
    std::thread([host, port, lookup = lookup_, answer] {
      answer(lookup, look_up(host, port));
      lookups_running.fetch_sub(1, std::memory_order_relaxed);
    }).detach();
  } catch (const std::system_error& error) {
    lookups_running.fetch_sub(1, std::memory_order_relaxed);
    answer(lookup_, fail(Errc::connection_failed,
                         std::string("cannot start a thread to resolve names: ") + error.what()));
  }
}

}  // namespace fulmar::net
