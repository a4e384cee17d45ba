#include "client/runtime.hpp"

#include <stdexcept>
#include <string>

namespace fulmar {

Runtime::Impl::Impl(Options options) : dispatch_pool_(options.dispatch_threads) {
  const auto check = [](const char* name, unsigned threads) {
    if (threads >= 1 && threads <= 256) return;
    throw std::invalid_argument("Runtime: " + std::string(name) + " is " + std::to_string(threads) +
                                "; expected 1 to 256");
  };
  check("io_threads", options.io_threads);
  check("dispatch_threads", options.dispatch_threads);
  for (unsigned i = 0; i < options.io_threads; ++i) loops_.push_back(std::make_unique<EventLoop>());
}

void Runtime::Impl::stop_dispatch() { dispatch_pool_.stop(); }

void Runtime::Impl::stop() {
  for (const auto& loop : loops_) loop->stop();
}

Runtime::Runtime(Options options) : impl_(std::make_shared<Impl>(options)) {}
Runtime::~Runtime() = default;

}  // namespace fulmar
