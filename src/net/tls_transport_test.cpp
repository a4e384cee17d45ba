// StreamTransport over TLS. What the certificates of real brokers do is tested in tests/integration/transport_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include "net/heard.hpp"
#include "net/make_transport.hpp"
#include "net/tls_context.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using namespace std::string_literals;
using testing::HasSubstr;
using Stream = asio::ssl::stream<tcp::socket>;

class TlsTransportTest : public testing::Test {
 protected:
  TlsTransportTest() {
    const auto files = certificates.server();
    server_tls.use_certificate_chain_file(files.certificate);
    server_tls.use_private_key_file(files.key, asio::ssl::context::pem);
    tls.ca_file = certificates.ca_file();
  }
  ~TlsTransportTest() override {
    transport.reset();
    if (server.joinable()) server.join();
  }

  // A server on a thread of its own, for one connection.
  void serve(const std::string& scheme, std::function<void(Stream&)> talk) {
    server = std::thread([this, talk = std::move(talk)] {
      try {
        Stream stream(acceptor.accept(), server_tls);
        stream.handshake(Stream::server);
        talk(stream);
      } catch (const boost::system::system_error&) {  // the transport closed
      }
    });
    const auto endpoint =
        parse_url(scheme + "://localhost:" + std::to_string(acceptor.local_endpoint().port()));
    transport = make_transport(context.get_executor(), *endpoint, tls, heard);
    heard.transport = transport.get();
    transport->open({acceptor.local_endpoint()});
  }
  bool run_until(const std::function<bool()>& done) { return net::run_until(context, done); }
  bool opens() {
    return run_until([&] { return heard.opened || heard.failed; }) && heard.opened;
  }

  test::TempDir directory;
  test::Certificates certificates{directory.path()};
  asio::ssl::context server_tls{asio::ssl::context::tls_server};
  TlsConfig tls;
  asio::io_context context, server_context;
  tcp::acceptor acceptor{server_context, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::thread server;
  Heard heard;
  std::unique_ptr<Transport> transport;
};

void wait_for_the_end(Stream& stream) {
  std::array<char, 4096> rest{};
  boost::system::error_code error;
  while (!error) stream.read_some(asio::buffer(rest), error);
}

class TlsVersions : public TlsTransportTest, public testing::WithParamInterface<int> {};

TEST_P(TlsVersions, carry_megabytes_both_ways_at_once_and_the_name_of_the_server) {
  SSL_CTX_set_max_proto_version(server_tls.native_handle(), GetParam());
  std::string there(3'000'000, 'a'), back(3'000'000, 'b'), got(3'000'000, 0), asked, protocol;
  for (std::size_t i = 0; i < there.size(); ++i) {
    there[i] = static_cast<char>(i >> 5);
    back[i] = static_cast<char>(i >> 7);
  }
  tls.alpn = {"other", "mqtt"};
  SSL_CTX_set_alpn_select_cb(
      server_tls.native_handle(),
      [](SSL*, const unsigned char** out, unsigned char* size, const unsigned char* in, unsigned length,
         void*) {
        return SSL_select_next_proto(const_cast<unsigned char**>(out), size,
                                     reinterpret_cast<const unsigned char*>("\x04mqtt"), 5, in,
                                     length) == OPENSSL_NPN_NEGOTIATED
                   ? SSL_TLSEXT_ERR_OK
                   : SSL_TLSEXT_ERR_ALERT_FATAL;
      },
      nullptr);
  std::atomic<bool> done{false};
  serve("mqtts", [&](Stream& stream) {
    EXPECT_EQ(SSL_version(stream.native_handle()), GetParam());
    EXPECT_STREQ(SSL_get_servername(stream.native_handle(), TLSEXT_NAMETYPE_host_name), "localhost");
    const unsigned char* chosen = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(stream.native_handle(), &chosen, &size);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(chosen), size), "mqtt");
    asio::write(stream, asio::buffer(back));
    if (GetParam() == TLS1_3_VERSION) SSL_key_update(stream.native_handle(), SSL_KEY_UPDATE_REQUESTED);
    asio::write(stream, asio::buffer("!"s));
    asio::read(stream, asio::buffer(got));
    done = true;
    wait_for_the_end(stream);
  });
  ASSERT_TRUE(opens()) << heard.failed.value_or("silence");
  transport->read();
  heard.write(there);
  ASSERT_TRUE(run_until([&] { return done && heard.received.size() == back.size() + 1; }))
      << heard.received.size() << heard.lost.value_or("");
  EXPECT_TRUE(got == there);
  EXPECT_TRUE(heard.received == back + "!");
}

INSTANTIATE_TEST_SUITE_P(, TlsVersions, testing::Values(TLS1_2_VERSION, TLS1_3_VERSION),
                         [](const auto& one) { return one.param == TLS1_2_VERSION ? "TLS_1_2" : "TLS_1_3"; });

TEST_F(TlsTransportTest, holds_no_buffer_while_nothing_comes) {
  std::atomic<bool> go{false};
  serve("mqtts", [&](Stream& stream) {
    while (!go) std::this_thread::yield();
    asio::write(stream, asio::buffer("x"s));
    wait_for_the_end(stream);
  });
  ASSERT_TRUE(opens());
  transport->read();
  context.restart();
  context.run_for(20ms);  // the tickets of TLS 1.3 come, and are no bytes of ours
  const int before = heard.buffers_asked;
  context.restart();
  context.run_for(20ms);
  EXPECT_EQ(heard.buffers_asked, before);
  go = true;
  ASSERT_TRUE(run_until([&] { return heard.received == "x"; }));
}

TEST_F(TlsTransportTest, tells_an_orderly_end_from_a_cut) {
  serve("mqtts", [](Stream& stream) {
    asio::write(stream, asio::buffer("bye"s));
    boost::system::error_code ignored;
    stream.shutdown(ignored);
  });
  ASSERT_TRUE(opens());
  transport->read();
  ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
  EXPECT_EQ(heard.received, "bye");
  EXPECT_EQ(*heard.lost, "the server closed the connection");
}

TEST_F(TlsTransportTest, counts_an_end_without_close_notify_as_lost) {
  serve("mqtts", [](Stream& stream) {
    asio::write(stream, asio::buffer("by"s));
    stream.next_layer().shutdown(tcp::socket::shutdown_send);
    char byte = 0;
    boost::system::error_code error;
    while (!error) stream.next_layer().read_some(asio::buffer(&byte, 1), error);
  });
  ASSERT_TRUE(opens());
  transport->read();
  ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
  EXPECT_EQ(heard.received, "by");
  EXPECT_THAT(*heard.lost, HasSubstr("the connection was cut: the server closed it without"));
}

TEST_F(TlsTransportTest, ends_in_order_when_it_has_finished_sending) {
  std::atomic<bool> notified{false};
  serve("mqtts", [&](Stream& stream) {
    std::string got(4, 0);
    asio::read(stream, asio::buffer(got));
    char byte = 0;
    boost::system::error_code error;
    asio::read(stream, asio::buffer(&byte, 1), error);
    notified = error == asio::error::eof;
    asio::write(stream, asio::buffer("rest"s));  // what was on its way is still read
  });
  ASSERT_TRUE(opens());
  heard.write("last");
  ASSERT_TRUE(run_until([&] { return heard.written == 4; }));
  transport->read();
  transport->finish_sending();
  ASSERT_TRUE(run_until([&] { return heard.lost.has_value(); }));
  EXPECT_TRUE(notified);
  EXPECT_EQ(heard.received, "rest");
}

TEST_F(TlsTransportTest, N10_names_the_handshake_that_a_server_leaves_unanswered) {
  serve("wss", [](Stream& stream) { wait_for_the_end(stream); });
  ASSERT_TRUE(run_until([&] { return transport->stage() == "no answer to the WebSocket handshake"; }));
  EXPECT_FALSE(heard.failed);
}

TEST_F(TlsTransportTest, N10_tells_versions_that_have_nothing_in_common) {
  SSL_CTX_set_min_proto_version(server_tls.native_handle(), TLS1_3_VERSION);
  tls.psk = "key";
  tls.psk_identity = "device";
  serve("mqtts", [](Stream&) {});
  EXPECT_FALSE(opens());
  EXPECT_THAT(heard.failed.value_or("silence"),
              HasSubstr("the server does not speak TLS 1.2, which tls.psk needs"));
}

TEST_F(TlsTransportTest, N10_tells_a_server_that_speaks_something_else) {
  server = std::thread([this] {
    auto socket = acceptor.accept();
    boost::system::error_code error;
    asio::write(socket, asio::buffer("HTTP/1.1 400 Bad Request\r\n\r\n"s), error);
    std::array<char, 4096> rest{};
    asio::read(socket, asio::buffer(rest), error);
  });
  const auto endpoint = parse_url("mqtts://localhost:" + std::to_string(acceptor.local_endpoint().port()));
  transport = make_transport(context.get_executor(), *endpoint, tls, heard);
  transport->open({acceptor.local_endpoint()});
  EXPECT_FALSE(opens());
  EXPECT_THAT(heard.failed.value_or("silence"), HasSubstr("the server does not speak TLS on this port"));
}

TEST_F(TlsTransportTest, shares_what_it_read_until_a_file_is_renewed) {
  const auto client = certificates.client();
  tls.cert_file = client.certificate;
  tls.key_file = client.key;
  const auto first = tls_context(tls);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(*tls_context(tls), *first);
  auto others = tls;
  others.alpn = {"mqtt"};
  EXPECT_NE(*tls_context(others), *first);
  EXPECT_EQ(*tls_context(tls), *first);
  certificates.client();  // renewed
  const auto renewed = tls_context(tls);
  ASSERT_TRUE(renewed);
  EXPECT_NE(*renewed, *first);
  std::filesystem::remove(client.key);
  EXPECT_THAT(tls_context(tls).error().message, HasSubstr("client.key\": cannot be read: No such file"));
}

TEST_F(TlsTransportTest, reads_the_authorities_of_the_system_by_default) {
  TlsConfig system;
  const auto context_of_system = tls_context(system);
  EXPECT_TRUE(context_of_system) << context_of_system.error().message;
  tls.ca_file = directory / "empty.pem";
  std::ofstream{tls.ca_file};
  EXPECT_THAT(tls_context(tls).error().message,
              HasSubstr("empty.pem\": holds no certificates in PEM format"));
}

}  // namespace
}  // namespace fulmar::net
