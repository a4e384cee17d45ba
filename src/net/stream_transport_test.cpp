#include "net/stream_transport.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

struct Heard final : Transport::Listener {
  std::optional<std::string> opened, failed, lost;
  std::string received;
  std::size_t written = 0;
  std::array<char, 4096> buffer{};
  std::function<void()> changed = [] {};
  Transport* transport = nullptr;

  void on_open(const std::string& peer) override {
    opened = peer;
    changed();
  }
  void on_open_failed(const std::string& why) override {
    failed = why;
    changed();
  }
  asio::mutable_buffer read_buffer() override { return asio::buffer(buffer); }
  void on_read(std::size_t size) override {
    received.append(buffer.data(), size);
    transport->read();
    changed();
  }
  void on_written(std::size_t size) override {
    written += size;
    changed();
  }
  void on_lost(const std::string& why) override {
    lost = why;
    changed();
  }
};

class StreamTransportTest : public testing::Test {
 protected:
  StreamTransportTest()
      : transport(std::make_unique<StreamTransport>(context.get_executor(), Endpoint{}, tls, heard)) {
    heard.transport = transport.get();
  }

  bool run_until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(100ms);
    }
    return done();
  }

  const TlsConfig tls;
  asio::io_context context;
  tcp::acceptor acceptor{context, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  Heard heard;
  std::unique_ptr<StreamTransport> transport;
};

TEST_F(StreamTransportTest, carries_bytes_both_ways_and_tells_the_end) {
  tcp::socket peer(context);
  acceptor.async_accept(peer, [](auto) {});
  transport->open({acceptor.local_endpoint()});
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value() && peer.is_open(); }));
  EXPECT_EQ(*heard.opened, "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()));

  transport->read();
  const std::string there = "hello";
  transport->write_some(asio::buffer(there));
  std::string got(5, 0);
  asio::async_read(peer, asio::buffer(got), [](auto, auto) {});
  asio::write(peer, asio::buffer(std::string("world")));
  ASSERT_TRUE(run_until([&] { return heard.written == 5 && heard.received == "world" && got == "hello"; }));

  peer.close();
  ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
  EXPECT_EQ(*heard.lost, "the server closed the connection");
}

TEST_F(StreamTransportTest, tries_every_address_and_names_those_that_failed) {
  const tcp::endpoint live = acceptor.local_endpoint();
  tcp::acceptor gone(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const tcp::endpoint dead = gone.local_endpoint();
  gone.close();
  transport->open({dead, live});
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value(); }));

  Heard second;
  StreamTransport all_dead(context.get_executor(), Endpoint{}, tls, second);
  all_dead.open({dead, dead});
  ASSERT_TRUE(run_until([&] { return second.failed.has_value(); }));
  EXPECT_NE(second.failed->find(std::to_string(dead.port()) + ": Connection refused; "), std::string::npos)
      << *second.failed;
}

TEST_F(StreamTransportTest, says_nothing_after_close_even_within_a_callback) {
  transport->open({acceptor.local_endpoint()});
  heard.changed = [&] { transport.reset(); };
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value(); }));
  context.run_for(20ms);
  EXPECT_FALSE(heard.lost);
  EXPECT_FALSE(heard.failed);
}

}  // namespace
}  // namespace fulmar::net
