#include "net/connector.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <optional>

#include <boost/asio/io_context.hpp>

#include "net/heard.hpp"

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// A port whose queue of connections is full: it answers nothing any more, as an address does that packets never reach.
class BlackHole {
 public:
  BlackHole(asio::io_context& context, const asio::ip::address& address) : acceptor_(context) {
    acceptor_.open(address.is_v6() ? tcp::v6() : tcp::v4());
    acceptor_.bind({address, 0});
    acceptor_.listen(0);
    for (int i = 0; i < 4; ++i) {
      auto& filler = fillers_.emplace_back(context);
      filler.async_connect(acceptor_.local_endpoint(), [](auto) {});
    }
    context.run_for(20ms);
  }
  tcp::endpoint endpoint() const { return acceptor_.local_endpoint(); }

 private:
  tcp::acceptor acceptor_;
  std::vector<tcp::socket> fillers_;
};

class ConnectorTest : public testing::Test {
 protected:
  std::string connect(std::vector<tcp::endpoint> addresses, std::chrono::milliseconds patience = 10s) {
    Connector connector(context.get_executor());
    std::string peer;
    const auto begin = Clock::now();
    connector.connect(std::move(addresses), [&](Result<Connector::Connected> result) {
      took = Clock::now() - begin;
      peer = result ? result->peer : result.error().message;
      if (result) socket.emplace(std::move(result->socket));
    });
    run_until(context, [&] { return !peer.empty(); }, patience);
    return peer;
  }
  static std::string name(const tcp::endpoint& endpoint) {
    const auto address = endpoint.address().to_string();
    return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
           std::to_string(endpoint.port());
  }
  tcp::endpoint dead() {
    tcp::acceptor gone(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    return gone.local_endpoint();
  }

  asio::io_context context;
  tcp::acceptor live{context, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::optional<Connector::Socket> socket;
  Clock::duration took{};
};

TEST_F(ConnectorTest, goes_on_to_the_next_address_when_one_does_not_answer) {
  const BlackHole hole(context, asio::ip::address_v4::loopback());
  EXPECT_EQ(connect({hole.endpoint(), live.local_endpoint()}), name(live.local_endpoint()));
  EXPECT_GE(took, 240ms);
  EXPECT_LE(took, 400ms);
}

TEST_F(ConnectorTest, N9_a_dead_ipv6_beside_a_live_ipv4_costs_a_quarter_of_a_second) {
  std::optional<BlackHole> hole, second;
  try {
    hole.emplace(context, asio::ip::address_v6::loopback());
    second.emplace(context, asio::ip::address_v6::loopback());
  } catch (const boost::system::system_error& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
  // The families take turns: the second dead one is not waited for.
  EXPECT_EQ(connect({hole->endpoint(), second->endpoint(), live.local_endpoint()}),
            name(live.local_endpoint()));
  EXPECT_LE(took, 400ms);
}

TEST_F(ConnectorTest, goes_on_at_once_when_an_address_refuses) {
  EXPECT_EQ(connect({dead(), dead(), dead(), live.local_endpoint()}), name(live.local_endpoint()));
  EXPECT_LE(took, 200ms);
}

TEST_F(ConnectorTest, names_every_address_that_failed) {
  const auto first = dead(), second = dead();
  EXPECT_EQ(connect({first, second}),
            name(first) + ": Connection refused; " + name(second) + ": Connection refused");
  EXPECT_EQ(connect({}), "no address");
}

TEST_F(ConnectorTest, makes_sockets_that_children_do_not_inherit_and_that_send_at_once) {
  connect({live.local_endpoint()});
  ASSERT_TRUE(socket);
  EXPECT_TRUE(::fcntl(socket->native_handle(), F_GETFD) & FD_CLOEXEC);
  int no_delay = 0;
  socklen_t size = sizeof no_delay;
  ::getsockopt(socket->native_handle(), IPPROTO_TCP, TCP_NODELAY, &no_delay, &size);
  EXPECT_NE(no_delay, 0);
}

TEST_F(ConnectorTest, says_nothing_after_cancel) {
  const BlackHole hole(context, asio::ip::address_v4::loopback());
  Connector connector(context.get_executor());
  connector.connect({live.local_endpoint(), hole.endpoint()}, [](auto) { ADD_FAILURE() << "was cancelled"; });
  connector.cancel();
  context.restart();
  context.run_for(300ms);
}

}  // namespace
}  // namespace fulmar::net
