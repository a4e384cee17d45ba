#include "net/stream_transport.hpp"

#include <utility>

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

#include "net/handler_memory.hpp"

namespace fulmar::net {

namespace asio = boost::asio;
using boost::system::error_code;

class StreamTransport::Link final : public Channel {
 public:
  Link(const asio::any_io_executor& executor, const Endpoint& endpoint, const TlsConfig& tls, Listener& to)
      : Channel(executor, endpoint, tls), listener_(&to) {}

  void open(Addresses addresses) {
    Channel::open(std::move(addresses), [this](Result<std::string> result) {
      if (result) return listener_->on_open(*result);
      std::exchange(listener_, nullptr)->on_open_failed(result.error().message);
    });
  }

  void read() {
    reading_ = true;
    if (!std::exchange(more_to_read_, false)) return wait_to_read();
    asio::post(socket().get_executor(), [self = self()] { self->read_now(); });
  }

  bool write(asio::const_buffer buffer) {
    error_code error;
    const std::size_t size = write_some(buffer, error);
    if (error == asio::error::would_block) {
      socket().async_wait(write_wait(),
                          InMemory(memory_, [self = self(), buffer](const error_code& cancelled) {
                            if (!self->listener_) return;
                            if (cancelled) return self->lost(cancelled);
                            self->write(buffer);
                          }));
      return false;
    }
    asio::post(socket().get_executor(), [self = self(), size, error] {
      if (!self->listener_) return;
      if (error) return self->broken(error);
      self->listener_->on_written(size);
    });
    return !error && size == buffer.size();
  }

  void close() {
    listener_ = nullptr;
    Channel::close();
  }

 private:
  std::shared_ptr<Link> self() { return std::static_pointer_cast<Link>(shared_from_this()); }

  void wait_to_read() {
    socket().async_wait(read_wait(), InMemory(memory_, [self = self()](const error_code& cancelled) {
                          if (!self->listener_) return;
                          if (cancelled) return self->lost(cancelled);
                          self->read_now();
                        }));
  }

  void read_now() {
    if (!listener_) return;
    const auto buffer = listener_->read_buffer();
    error_code error;
    const std::size_t size = read_some(buffer, error);
    if (error == asio::error::would_block) return wait_to_read();
    if (error) return lost(error == asio::error::eof && write_error_ ? write_error_ : error);
    more_to_read_ = size == buffer.size() || at_once();
    reading_ = false;
    listener_->on_read(size);
  }

  // A write fails at once when the server has gone, while its last words are still to be read: they say why.
  void broken(const error_code& error) {
    if (!reading_) return lost(error);
    write_error_ = error;
  }

  void lost(const error_code& error) {
    if (auto* told = std::exchange(listener_, nullptr)) told->on_lost(explain(error));
  }

  HandlerMemory<152, 2> memory_;  // of the waits to read and to write
  Listener* listener_;            // null once closed, failed or lost
  bool reading_ = false;          // on_read is owed
  error_code write_error_{};      // told when there is nothing more to read
  bool more_to_read_ = false;     // the last read may have left something
};

StreamTransport::StreamTransport(const asio::any_io_executor& executor, const Endpoint& endpoint,
                                 const TlsConfig& tls, Listener& listener)
    : link_(std::make_shared<Link>(executor, endpoint, tls, listener)) {}

StreamTransport::~StreamTransport() { link_->close(); }
void StreamTransport::open(Addresses addresses) { link_->open(std::move(addresses)); }
std::string_view StreamTransport::stage() const { return link_->stage(); }
void StreamTransport::read() { link_->read(); }
bool StreamTransport::write_some(asio::const_buffer buffer) { return link_->write(buffer); }
std::size_t StreamTransport::unsent() const { return link_->unsent(); }
void StreamTransport::finish_sending() { link_->finish_sending(); }
void StreamTransport::close() { link_->close(); }

}  // namespace fulmar::net
