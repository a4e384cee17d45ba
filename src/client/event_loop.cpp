#include "client/event_loop.hpp"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include <boost/asio/buffer.hpp>

#include "client/signals_blocked.hpp"

namespace fulmar {

namespace asio = boost::asio;

BufferPool::Buffer BufferPool::take() {
  if (free_.empty()) return std::make_unique_for_overwrite<std::byte[]>(buffer_size);
  auto buffer = std::move(free_.back());
  free_.pop_back();
  return buffer;
}

void BufferPool::give(Buffer buffer) {
  if (buffer && free_.size() < kept_max) free_.push_back(std::move(buffer));
}

WakeEvent::WakeEvent() : descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (descriptor_ < 0) throw std::system_error(errno, std::system_category(), "eventfd");
}

WakeEvent::~WakeEvent() { ::close(descriptor_); }

void WakeEvent::ring() const {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then its reader is on its way.
  [[maybe_unused]] const auto written = ::write(descriptor_, &one, sizeof one);
}

EventLoop::EventLoop() : wake_stream_(context_, wake_.descriptor()) { listen(); }

EventLoop::~EventLoop() {
  stop();
  wake_stream_.release();  // it is the WakeEvent that closes it
}

void EventLoop::start() {
  const std::lock_guard lock(life_);
  if (thread_.joinable()) return;
  const SignalsBlocked blocked;
  context_.restart();
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "fulmar-io");
    context_.run();
  });
}

void EventLoop::stop() {
  const std::lock_guard lock(life_);
  if (!thread_.joinable()) return;
  context_.stop();
  thread_.join();
  thread_ = {};
}

void EventLoop::post(std::move_only_function<void()> function) {
  auto posted = std::make_unique<Posted>();
  posted->function = std::move(function);
  posted_.push(std::move(posted));
  wake_.ring();
}

void EventLoop::listen() {
  wake_stream_.async_read_some(asio::buffer(&wake_value_, sizeof wake_value_),
                               [this](const boost::system::error_code& error, std::size_t) {
                                 if (error) return;
                                 listen();
                                 take_posted();
                               });
}

void EventLoop::take_posted() {
  posted_.take_all([](std::unique_ptr<Posted> posted) { posted->function(); });
}

}  // namespace fulmar
