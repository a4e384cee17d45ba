#include "net/stream_transport.hpp"

#include <gtest/gtest.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "net/heard.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

class StreamTransportTest : public testing::Test {
 protected:
  StreamTransportTest()
      : transport(std::make_unique<StreamTransport>(context.get_executor(), Endpoint{}, tls, heard)) {
    heard.transport = transport.get();
  }

  bool run_until(const std::function<bool()>& done) { return net::run_until(context, done); }

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

TEST_F(StreamTransportTest, asks_for_a_buffer_when_there_are_bytes_and_not_before) {
  tcp::socket peer(context);
  acceptor.async_accept(peer, [](auto) {});
  transport->open({acceptor.local_endpoint()});
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value() && peer.is_open(); }));
  transport->read();
  context.restart();
  context.run_for(20ms);
  EXPECT_EQ(heard.buffers_asked, 0);
  asio::write(peer, asio::buffer(std::string("x")));
  ASSERT_TRUE(run_until([&] { return heard.received == "x"; }));
  context.restart();
  context.run_for(20ms);
  EXPECT_EQ(heard.buffers_asked, 1) << "for a read that has to wait";
}

TEST_F(StreamTransportTest, carries_megabytes_both_ways_at_once) {
  tcp::socket peer(context);
  acceptor.async_accept(peer, [](auto) {});
  transport->open({acceptor.local_endpoint()});
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value() && peer.is_open(); }));
  std::string there(4'000'000, 'a'), back(4'000'000, 'b'), got(4'000'000, 0);
  for (std::size_t i = 0; i < there.size(); ++i) {
    there[i] = static_cast<char>(i >> 5);
    back[i] = static_cast<char>(i >> 7);
  }
  transport->read();
  heard.write(there);
  asio::async_write(peer, asio::buffer(back), [](auto, auto) {});
  std::size_t arrived = 0;
  asio::async_read(peer, asio::buffer(got), [&](auto, std::size_t size) { arrived = size; });
  ASSERT_TRUE(run_until([&] { return arrived == got.size() && heard.received.size() == back.size(); }));
  EXPECT_TRUE(got == there);
  EXPECT_TRUE(heard.received == back);
}

// A write fails as soon as the peer has gone; what it said before has to be heard all the same.
TEST_F(StreamTransportTest, hears_the_last_words_of_a_peer_that_reset_the_connection) {
  tcp::socket peer(context);
  acceptor.async_accept(peer, [](auto) {});
  transport->open({acceptor.local_endpoint()});
  ASSERT_TRUE(run_until([&] { return heard.opened.has_value() && peer.is_open(); }));
  heard.write("never read");
  ASSERT_TRUE(run_until([&] { return heard.written > 0; }));
  asio::write(peer, asio::buffer(std::string("goodbye")));
  peer.close();  // with bytes unread: a reset
  heard.write("into nothing");
  transport->read();
  ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
  EXPECT_EQ(heard.received, "goodbye");
}

TEST(UnixTransport, carries_bytes_and_names_its_path) {
  const test::TempDir directory;
  asio::io_context context;
  const std::string path = (directory / "socket").string();
  asio::local::stream_protocol::acceptor acceptor(context, asio::local::stream_protocol::endpoint(path));
  asio::local::stream_protocol::socket peer(context);
  acceptor.async_accept(peer, [](auto) {});
  Heard heard;
  StreamTransport transport(context.get_executor(), *parse_url("unix://" + path), TlsConfig{}, heard);
  heard.transport = &transport;
  EXPECT_EQ(transport.stage(), "no connection to the socket");
  transport.open({});
  ASSERT_TRUE(run_until(context, [&] { return heard.opened.has_value() && peer.is_open(); }));
  EXPECT_EQ(*heard.opened, path);
  transport.read();
  asio::write(peer, asio::buffer(std::string("hello")));
  ASSERT_TRUE(run_until(context, [&] { return heard.received == "hello"; }));

  Heard none;
  StreamTransport nowhere(context.get_executor(), *parse_url("unix://" + path + "2"), TlsConfig{}, none);
  nowhere.open({});
  ASSERT_TRUE(run_until(context, [&] { return none.failed.has_value(); }));
  EXPECT_EQ(*none.failed, path + "2: No such file or directory");
}

}  // namespace
}  // namespace fulmar::net
