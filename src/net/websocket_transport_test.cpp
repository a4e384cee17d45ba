#include "net/websocket_transport.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/beast/websocket/stream.hpp>

#include "net/heard.hpp"

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using namespace std::chrono_literals;
using namespace std::string_literals;
using testing::HasSubstr;
using Stream = websocket::stream<tcp::socket, false>;

class WebSocketTransportTest : public testing::Test {
 public:
  ~WebSocketTransportTest() override {
    transport.reset();
    if (server.joinable()) server.join();
  }

 protected:
  // A server on a thread of its own, for one connection. It ends with the connection.
  void serve(std::function<void(tcp::socket)> talk) {
    server = std::thread([this, talk = std::move(talk)] {
      try {
        talk(acceptor.accept());
      } catch (const boost::system::system_error&) {
        ended_early = true;  // the transport closed
      }
    });
    Endpoint endpoint =
        *parse_url("ws://localhost:" + std::to_string(acceptor.local_endpoint().port()) + "/mqtt");
    transport = std::make_unique<WebSocketTransport>(context.get_executor(), endpoint, tls, heard);
    heard.transport = transport.get();
    transport->open({acceptor.local_endpoint()});
  }
  // As serve(), with the handshake done; the answer names `subprotocol`.
  void serve_websocket(std::function<void(Stream&)> talk, const std::string& subprotocol = "mqtt") {
    serve([this, talk = std::move(talk), subprotocol](tcp::socket socket) {
      Stream stream(std::move(socket));
      stream.set_option(websocket::stream_base::decorator([&](websocket::response_type& response) {
        if (!subprotocol.empty()) response.set(http::field::sec_websocket_protocol, subprotocol);
      }));
      beast::flat_buffer buffer;
      http::request<http::string_body> request;
      http::read(stream.next_layer(), buffer, request);
      asked_for = std::string(request.target());
      offered = std::string(request[http::field::sec_websocket_protocol]);
      host = std::string(request[http::field::host]);
      stream.accept(request);
      stream.binary(true);
      talk(stream);
    });
  }
  void until_closed(Stream& stream) {
    beast::flat_buffer buffer;
    beast::error_code error;
    while (!error) stream.read(buffer, error);
  }
  bool run_until(const std::function<bool()>& done) { return net::run_until(context, done); }
  bool opens() {
    const bool over = run_until([&] { return heard.opened || heard.failed; });
    return over && heard.opened;
  }
  void expect_lost(const std::string& why) {
    ASSERT_TRUE(opens()) << heard.failed.value_or("silence");
    transport->read();
    ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
    EXPECT_THAT(*heard.lost, HasSubstr(why));
  }

  const TlsConfig tls;
  asio::io_context context, server_context;
  tcp::acceptor acceptor{server_context, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::thread server;
  std::atomic<bool> ended_early{false};  // the server, by the end of the connection
  std::string asked_for, offered, host;  // read once the transport is open
  Heard heard;
  std::unique_ptr<WebSocketTransport> transport;
};

TEST_F(WebSocketTransportTest, offers_mqtt_at_the_path_of_the_url) {
  serve_websocket([&](Stream& stream) { until_closed(stream); });
  EXPECT_EQ(transport->stage(), "no TCP connection");
  ASSERT_TRUE(opens()) << heard.failed.value_or("silence");
  EXPECT_EQ(asked_for, "/mqtt");
  EXPECT_EQ(offered, "mqtt");
  EXPECT_EQ(host, "localhost:" + std::to_string(acceptor.local_endpoint().port()));
}

TEST_F(WebSocketTransportTest, carries_megabytes_both_ways_at_once) {
  std::string there(3'000'000, 'a'), back(3'000'000, 'b'), got;
  for (std::size_t i = 0; i < there.size(); ++i) {
    there[i] = static_cast<char>(i >> 5);
    back[i] = static_cast<char>(i >> 7);
  }
  std::atomic<bool> done{false};
  serve_websocket([&](Stream& stream) {
    stream.write(asio::buffer(back));
    beast::flat_buffer buffer;
    while (buffer.size() < there.size()) {
      stream.read(buffer);
      EXPECT_TRUE(stream.got_binary()) << "[MQTT-6.0.0-1]";
    }
    got = beast::buffers_to_string(buffer.data());
    done = true;
    until_closed(stream);
  });
  ASSERT_TRUE(opens());
  transport->read();
  heard.write(there);
  ASSERT_TRUE(run_until([&] { return done && heard.received.size() == back.size(); }));
  EXPECT_TRUE(got == there);
  EXPECT_TRUE(heard.received == back);
}

// [MQTT-6.0.0-2]
TEST_F(WebSocketTransportTest, knows_no_borders_of_frames_and_answers_pings) {
  std::atomic<bool> answered{false};
  serve_websocket([&](Stream& stream) {
    stream.control_callback([&](websocket::frame_type kind, beast::string_view text) {
      if (kind == websocket::frame_type::pong && text == "are you there") answered = true;
    });
    // By hand: a message of three frames, one of them empty, with a ping in their midst; then two messages in one segment.
    asio::write(stream.next_layer(), asio::buffer("\x02\x02"s
                                                  "ab"
                                                  "\x89\x0d"s
                                                  "are you there"
                                                  "\x00\x00"s
                                                  "\x80\x01"s
                                                  "c"
                                                  "\x82\x01"s
                                                  "d"
                                                  "\x82\x02"s
                                                  "ef"));
    until_closed(stream);
  });
  ASSERT_TRUE(opens());
  transport->read();
  EXPECT_TRUE(run_until([&] { return heard.received == "abcdef" && answered; })) << heard.received;
}

// [MQTT-6.0.0-1]
TEST_F(WebSocketTransportTest, ends_at_a_frame_of_text) {
  serve_websocket([&](Stream& stream) {
    stream.text(true);
    stream.write(asio::buffer("hello"s));
    until_closed(stream);
  });
  expect_lost("the server sent a WebSocket frame of text; MQTT travels in binary frames");
  EXPECT_EQ(heard.received, "");
}

TEST_F(WebSocketTransportTest, ends_at_a_masked_frame) {
  serve_websocket([&](Stream& stream) {
    asio::write(stream.next_layer(), asio::buffer("\x82\x81"s
                                                  "\x01\x02\x03\x04"
                                                  "x"s));
    until_closed(stream);
  });
  expect_lost("the server broke the WebSocket protocol: ");
}

TEST_F(WebSocketTransportTest, ends_at_a_frame_larger_than_any_packet) {
  serve_websocket([&](Stream& stream) {
    asio::write(stream.next_layer(), asio::buffer("\x82\x7f\x00\x00\x00\x00\x20\x00\x00\x00"s));
    until_closed(stream);
  });
  expect_lost("the server sent a WebSocket message larger than any MQTT packet");
}

TEST_F(WebSocketTransportTest, tells_how_the_server_closed) {
  serve_websocket([&](Stream& stream) { stream.close({websocket::close_code::going_away, "maintenance"}); });
  expect_lost("the server closed the WebSocket, code 1001: \"maintenance\"");
}

TEST_F(WebSocketTransportTest, tells_of_a_connection_that_just_ends) {
  serve_websocket([&](Stream&) {});
  expect_lost("the server closed the connection");
}

TEST_F(WebSocketTransportTest, ends_in_order_when_it_has_finished_sending) {
  std::atomic<int> code{0};
  std::string got;
  serve_websocket([&](Stream& stream) {
    beast::flat_buffer buffer;
    beast::error_code error;
    while (!error) stream.read(buffer, error);
    got = beast::buffers_to_string(buffer.data());
    code = stream.reason().code;
  });
  ASSERT_TRUE(opens());
  heard.write("the last");
  ASSERT_TRUE(run_until([&] { return heard.written == 8; }));
  transport->finish_sending();
  transport->read();
  ASSERT_TRUE(run_until([&] { return heard.lost && code != 0; })) << "lost: " << heard.lost.value_or("no");
  EXPECT_EQ(code, 1000);
  EXPECT_EQ(got, "the last");
}

TEST_F(WebSocketTransportTest, gives_the_status_of_a_refused_handshake) {
  serve([](tcp::socket socket) {
    beast::flat_buffer buffer;
    http::request<http::string_body> request;
    http::read(socket, buffer, request);
    asio::write(socket, asio::buffer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"s));
    std::array<char, 1> end{};
    asio::read(socket, asio::buffer(end));
  });
  EXPECT_FALSE(opens());
  EXPECT_THAT(heard.failed.value_or("silence"),
              HasSubstr("refused the WebSocket handshake for \"/mqtt\": HTTP 404 Not Found"));
}

// [MQTT-6.0.0-4]
TEST_F(WebSocketTransportTest, refuses_a_server_that_does_not_choose_mqtt) {
  serve_websocket([&](Stream& stream) { until_closed(stream); }, "");
  EXPECT_FALSE(opens());
  EXPECT_THAT(heard.failed.value_or("silence"),
              HasSubstr("at \"/mqtt\": it has chosen no subprotocol, not \"mqtt\""));
}

TEST_F(WebSocketTransportTest, tells_a_server_without_http) {
  serve([](tcp::socket socket) {
    asio::write(socket, asio::buffer("220 mail.example ESMTP\r\n"s));
    std::array<char, 4096> rest{};
    asio::read(socket, asio::buffer(rest));
  });
  EXPECT_FALSE(opens());
  EXPECT_THAT(heard.failed.value_or("silence"), HasSubstr("the server does not speak HTTP on this port"));
}

TEST_F(WebSocketTransportTest, bounds_what_a_server_can_put_into_its_answer) {
  serve([](tcp::socket socket) {
    asio::write(socket, asio::buffer("HTTP/1.1 101 Switching Protocols\r\n"s));
    for (const std::string line = "X-Filler: " + std::string(1'000, 'x') + "\r\n";;)
      asio::write(socket, asio::buffer(line));
  });
  ASSERT_FALSE(opens());
  EXPECT_TRUE(heard.failed);
}

TEST_F(WebSocketTransportTest, says_nothing_after_close_in_the_midst_of_the_handshake) {
  serve([](tcp::socket socket) {
    std::array<char, 4096> rest{};
    asio::read(socket, asio::buffer(rest));
  });
  ASSERT_TRUE(run_until([&] { return transport->stage() == "no answer to the WebSocket handshake"; }));
  transport.reset();
  context.restart();
  context.run_for(20ms);
  EXPECT_FALSE(heard.failed);
}

}  // namespace
}  // namespace fulmar::net
