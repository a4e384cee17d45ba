#include "net/websocket_transport.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <boost/asio/compose.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/websocket/rfc6455.hpp>
#include <boost/beast/websocket/stream.hpp>

namespace fulmar::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;

namespace {

constexpr std::size_t read_buffer_size = std::size_t{16} << 10;
// A frame's header (14 bytes at most) and this much of it fill one record of TLS.
constexpr std::size_t write_buffer_size = (std::size_t{16} << 10) - 16;
// The largest MQTT packet: header of 5 bytes and 268,435,455 more [MQTT-1.5.5].
constexpr std::uint64_t message_max = 268'435'460;

// A Channel as Asio and Beast want a stream to be.
class AsyncChannel {
 public:
  using executor_type = asio::any_io_executor;

  explicit AsyncChannel(Channel& channel) : channel_(channel) {}
  executor_type get_executor() { return channel_.socket().get_executor(); }
  Channel& channel() { return channel_; }

  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return start<Read<Buffers>>(buffers, token);
  }
  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return start<Write<Buffers>>(buffers, token);
  }

 private:
  // Done at once, it is told later all the same: an operation never completes within its start.
  template <typename Work>
  struct Operation {
    Channel& channel;
    Work work;
    bool first = true;
    bool done = false;
    error_code error{};
    std::size_t size = 0;

    template <typename Self>
    void operator()(Self& self, error_code wait_error = {}) {
      if (wait_error) return self.complete(wait_error, 0);
      if (!done) {
        size = work.run(channel, error);
        if (error == asio::error::would_block) {
          first = false;
          channel.socket().async_wait(work.wait(channel), std::move(self));
          return;
        }
        done = true;
        if (first) return asio::post(channel.socket().get_executor(), std::move(self));
      }
      self.complete(error, size);
    }
  };

  template <typename Buffers>
  struct Read {
    Buffers buffers;
    std::size_t run(Channel& channel, error_code& error) {
      for (auto at = asio::buffer_sequence_begin(buffers); at != asio::buffer_sequence_end(buffers); ++at) {
        const asio::mutable_buffer buffer(*at);
        if (buffer.size() > 0) return channel.read_some(buffer, error);
      }
      error = {};
      return 0;
    }
    Channel::Wait wait(const Channel& channel) const { return channel.read_wait(); }
  };

  template <typename Buffers>
  struct Write {
    Buffers buffers;
    std::size_t run(Channel& channel, error_code& error) {
      // A frame's header and its bytes come in two buffers; one packet, or one record, takes both.
      std::array<std::byte, write_buffer_size + 16> whole;
      const std::size_t size = asio::buffer_copy(asio::buffer(whole), buffers);
      error = {};
      return size == 0 ? 0 : channel.write_some(asio::buffer(whole.data(), size), error);
    }
    Channel::Wait wait(const Channel& channel) const { return channel.write_wait(); }
  };

  template <typename Work, typename Buffers, typename Token>
  auto start(const Buffers& buffers, Token& token) {
    return asio::async_compose<Token, void(error_code, std::size_t)>(Operation<Work>{channel_, Work{buffers}},
                                                                     token, channel_.socket());
  }

  Channel& channel_;
};

// What Beast calls to end the layer below; found by their arguments.
void beast_close_socket(AsyncChannel& stream) { stream.channel().close(); }

template <typename Handler>
void async_teardown(beast::role_type, AsyncChannel& stream, Handler&& handler) {
  stream.channel().finish_sending();
  asio::post(stream.get_executor(),
             [handler = std::forward<Handler>(handler)]() mutable { handler(error_code()); });
}

std::string host_field(const Endpoint& endpoint) {
  const bool v6 = endpoint.host.contains(':');
  std::string field = v6 ? "[" + endpoint.host + "]" : endpoint.host;
  const bool usual = endpoint.port == (endpoint.is_secure() ? 443 : 80);
  return usual ? field : field + ":" + std::to_string(endpoint.port);
}

}  // namespace

struct WebSocketTransport::Link : std::enable_shared_from_this<Link> {
  Link(const asio::any_io_executor& executor, const Endpoint& endpoint, const TlsConfig& tls, Listener& to)
      : channel(std::make_shared<Channel>(executor, endpoint, tls)), stream(*channel), listener(&to) {
    stream.binary(true);
    stream.auto_fragment(false);
    stream.write_buffer_bytes(write_buffer_size);
    stream.read_message_max(message_max);
    stream.set_option(websocket::stream_base::decorator([](websocket::request_type& request) {
      request.set(beast::http::field::sec_websocket_protocol, "mqtt");
      request.set(beast::http::field::user_agent, "fulmar");
    }));
  }

  void open(Addresses addresses) {
    channel->open(std::move(addresses), [this](Result<std::string> result) {
      if (!result) return fail(result.error().message);
      peer = std::move(*result);
      shaking_hands = true;
      stream.async_handshake(response, host_field(channel->endpoint()), channel->endpoint().path,
                             [self = shared_from_this()](const error_code& error) {
                               if (self->listener) self->answered(error);
                             });
    });
  }

  void answered(const error_code& error) {
    shaking_hands = false;
    const auto& path = channel->endpoint().path;
    if (error == websocket::error::upgrade_declined) {
      return fail(peer + ": the server refused the WebSocket handshake for \"" + path + "\": HTTP " +
                  std::to_string(response.result_int()) + " " + std::string(response.reason()) +
                  "; check the URL's port and path");
    }
    if (error) return fail(peer + ": the WebSocket handshake failed: " + reason(error));
    const auto chosen = response[beast::http::field::sec_websocket_protocol];
    if (chosen != "mqtt") {
      return fail(peer + ": the server does not speak MQTT at \"" + path + "\": " +
                  (chosen.empty() ? "it has chosen no subprotocol"
                                  : "it has chosen the subprotocol \"" + std::string(chosen) + "\"") +
                  ", not \"mqtt\"");
    }
    response = {};
    listener->on_open(peer);
  }

  void read() {
    reading = true;
    if (staged_begin < staged_end) {
      asio::post(stream.get_executor(), [self = shared_from_this()] {
        if (self->listener) self->deliver();
      });
      return;
    }
    if (!staged) staged = std::make_unique<std::array<std::byte, read_buffer_size>>();
    stream.async_read_some(
        asio::buffer(*staged), [self = shared_from_this()](const error_code& error, std::size_t size) {
          if (!self->listener) return;
          if (error) return self->lost(self->reason(error));
          if (!self->stream.got_binary()) {
            return self->lost(
                "the server sent a WebSocket frame of text; MQTT travels in binary frames [MQTT-6.0.0-1]");
          }
          if (size == 0) return self->read();  // an empty frame
          self->staged_begin = 0;
          self->staged_end = size;
          self->deliver();
        });
  }

  void deliver() {
    const auto to = listener->read_buffer();
    const std::size_t size = std::min(to.size(), staged_end - staged_begin);
    std::memcpy(to.data(), staged->data() + staged_begin, size);
    staged_begin += size;
    reading = false;
    listener->on_read(size);
  }

  void write(asio::const_buffer buffer) {
    stream.async_write(buffer, [self = shared_from_this()](const error_code& error, std::size_t size) {
      if (!self->listener) return;
      // While the server's last words are still to be read: they say why.
      if (error && self->reading) return;
      if (error) return self->lost(self->reason(error));
      self->listener->on_written(size);
    });
  }

  // The server answers with a frame of its own and ends the connection (RFC 6455, section 7.1).
  void finish_sending() {
    stream.async_close(websocket::close_code::normal, [self = shared_from_this()](const error_code& error) {
      if (self->listener) self->lost(error ? self->reason(error) : "the server closed the connection");
    });
  }

  std::string reason(const error_code& error) const {
    if (error == websocket::error::closed) {
      const auto& why = stream.reason();
      std::string text = "the server closed the WebSocket";
      if (why.code != websocket::close_code::none) text += ", code " + std::to_string(why.code);
      if (!why.reason.empty()) text += ": \"" + std::string(why.reason.c_str()) + "\"";
      return text;
    }
    if (error == websocket::error::message_too_big || error == websocket::error::buffer_overflow)
      return "the server sent a WebSocket message larger than any MQTT packet";
    if (error.category() == make_error_code(websocket::error::closed).category()) {
      return "the server broke the WebSocket protocol: " + error.message();
    }
    if (error == beast::http::error::end_of_stream || error == beast::http::error::partial_message)
      return "the server closed the connection";
    if (error.category() == make_error_code(beast::http::error::bad_version).category()) {
      return "the server does not speak HTTP on this port: " + error.message();
    }
    return channel->explain(error);
  }

  void fail(const std::string& why) {
    auto* told = std::exchange(listener, nullptr);
    channel->close();
    told->on_open_failed(why);
  }

  void lost(const std::string& why) {
    if (auto* told = std::exchange(listener, nullptr)) told->on_lost(why);
  }

  void close() {
    listener = nullptr;
    channel->close();
  }

  const std::shared_ptr<Channel> channel;
  websocket::stream<AsyncChannel, false> stream;  // false: no compression
  Listener* listener;                             // null once closed, failed or lost
  websocket::response_type response;
  std::string peer;
  bool shaking_hands = false;
  bool reading = false;  // on_read is owed
  std::unique_ptr<std::array<std::byte, read_buffer_size>>
      staged;  // Beast wants its buffer before there are bytes
  std::size_t staged_begin = 0, staged_end = 0;
};

WebSocketTransport::WebSocketTransport(const asio::any_io_executor& executor, const Endpoint& endpoint,
                                       const TlsConfig& tls, Listener& listener)
    : link_(std::make_shared<Link>(executor, endpoint, tls, listener)) {}

WebSocketTransport::~WebSocketTransport() { link_->close(); }
void WebSocketTransport::open(Addresses addresses) { link_->open(std::move(addresses)); }
std::string_view WebSocketTransport::stage() const {
  return link_->shaking_hands ? "no answer to the WebSocket handshake" : link_->channel->stage();
}
void WebSocketTransport::read() { link_->read(); }
bool WebSocketTransport::write_some(asio::const_buffer buffer) {
  link_->write(buffer);
  return false;
}
std::size_t WebSocketTransport::unsent() const { return link_->channel->unsent(); }
void WebSocketTransport::finish_sending() { link_->finish_sending(); }
void WebSocketTransport::close() { link_->close(); }

}  // namespace fulmar::net
