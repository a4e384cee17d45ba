#include "net/resolver.hpp"

#include <netdb.h>
#include <signal.h>

#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
using asio::ip::tcp;

// Shared by the resolver and the look-up's thread. The mutex orders "posting the answer" and "cancelled, the executor's
// context may go away": it is held for the length of a post, never during the look-up.
struct Resolver::Lookup {
  std::string host;
  std::uint16_t port;
  std::mutex mutex;
  std::optional<asio::any_io_executor> executor;  // empty when cancelled
  Handler handler;
  // Among those that wait for a thread; by Threads only.
  std::list<std::shared_ptr<Lookup>>::iterator place{};
  bool waits = false;

  // From the look-up's thread, or within resolve().
  static void answer(const std::shared_ptr<Lookup>& lookup, Result<Addresses> result) {
    const std::lock_guard lock(lookup->mutex);
    if (!lookup->executor) return;
    // Runs where cancel() runs too, so the handler is there or it was cancelled.
    asio::post(*lookup->executor, [lookup, result = std::move(result)]() mutable {
      Handler call;
      {
        const std::lock_guard inner(lookup->mutex);
        call = std::move(lookup->handler);
        lookup->executor.reset();
      }
      if (call) call(std::move(result));
    });
  }
};

namespace {

// Signals are for the program's own threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

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

// The process's look-up threads. They come with the work and end without it. The mutex is never held during a look-up.
struct Resolver::Threads {
  std::mutex mutex;
  std::list<std::shared_ptr<Lookup>> waiting;
  int running = 0;

  // Never destroyed: a thread that hangs in getaddrinfo may outlive everything else.
  static Threads& of_process() {
    static auto* threads = new Threads;
    return *threads;
  }

  Result<void> start(const std::shared_ptr<Lookup>& lookup) {
    const std::lock_guard lock(mutex);
    if (running == threads_max) {
      lookup->place = waiting.insert(waiting.end(), lookup);
      lookup->waits = true;
      return {};
    }
    try {
      const SignalsBlocked blocked;
      std::thread([this, lookup] { run(lookup); }).detach();
    } catch (const std::system_error& error) {
      return fail(Errc::connection_failed,
                  std::string("cannot start a thread to resolve names: ") + error.what());
    }
    ++running;
    return {};
  }

  void cancel(const std::shared_ptr<Lookup>& lookup) {
    const std::lock_guard lock(mutex);
    if (std::exchange(lookup->waits, false)) waiting.erase(lookup->place);
  }

  void run(std::shared_ptr<Lookup> lookup) {
    while (lookup) {
      Lookup::answer(lookup, look_up(lookup->host, lookup->port));
      lookup = next();
    }
  }

  std::shared_ptr<Lookup> next() {
    const std::lock_guard lock(mutex);
    if (waiting.empty()) {
      --running;
      return nullptr;
    }
    auto lookup = std::move(waiting.front());
    waiting.pop_front();
    lookup->waits = false;
    return lookup;
  }
};

Resolver::Resolver(asio::any_io_executor executor) : executor_(std::move(executor)) {}
Resolver::~Resolver() { cancel(); }

void Resolver::cancel() {
  const auto lookup = std::move(lookup_);
  if (!lookup) return;
  Threads::of_process().cancel(lookup);
  const std::lock_guard lock(lookup->mutex);
  lookup->executor.reset();
  lookup->handler = nullptr;
}

void Resolver::resolve(const std::string& host, std::uint16_t port, Handler handler) {
  cancel();
  lookup_ = std::make_shared<Lookup>();
  lookup_->host = host;
  lookup_->port = port;
  lookup_->executor = executor_;
  lookup_->handler = std::move(handler);
  boost::system::error_code not_literal;
  if (const auto address = asio::ip::make_address(host, not_literal); !not_literal) {
    return Lookup::answer(lookup_, Addresses{{address, port}});
  }
  if (auto started = Threads::of_process().start(lookup_); !started) {
    Lookup::answer(lookup_, std::unexpected(std::move(started.error())));
  }
}

}  // namespace fulmar::net
