#include "sink.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numeric>

namespace fulmar::bench {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes publish(std::uint8_t qos, std::uint16_t id, std::size_t payload) {
  const std::size_t length = 2 + 3 + (qos != 0 ? 2 : 0) + payload;
  Bytes packet{static_cast<std::uint8_t>(0x30 | qos << 1)};
  for (auto left = length;; left >>= 7) {
    packet.push_back(static_cast<std::uint8_t>((left & 0x7f) | (left > 0x7f ? 0x80 : 0)));
    if (left <= 0x7f) break;
  }
  packet.insert(packet.end(), {0, 3, 'a', '/', 'b'});
  if (qos != 0)
    packet.insert(packet.end(), {static_cast<std::uint8_t>(id >> 8), static_cast<std::uint8_t>(id)});
  packet.insert(packet.end(), payload, 0x30);  // looks like a PUBLISH when framing is lost
  return packet;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Bytes connect_v3{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'a'};
const Bytes connect_v5{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 1, 'a'};

struct Session {
  SinkProtocol protocol;
  SinkProtocol::Counts counts;
  Bytes replies;

  // Gives the stream in pieces of `piece` bytes through a buffer, as a socket would.
  void feed(const Bytes& stream, std::size_t piece = SIZE_MAX, bool acknowledge = true) {
    Bytes buffer;
    for (std::size_t at = 0; at < stream.size();) {
      const auto size = std::min(piece, stream.size() - at);
      buffer.insert(buffer.end(), stream.begin() + static_cast<std::ptrdiff_t>(at),
                    stream.begin() + static_cast<std::ptrdiff_t>(at + size));
      at += size;
      const auto taken = protocol.consume(buffer, replies, counts, acknowledge);
      buffer.erase(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(taken));
      if (counts.malformed || counts.disconnected) return;
    }
  }
};

TEST(SinkProtocol, answers_every_packet_however_the_stream_is_cut) {
  const Bytes stream = connect_v3 + publish(0, 0, 10) + publish(1, 0x1234, 300) + publish(2, 7, 20'000) +
                       Bytes{0x62, 2, 0, 7} + Bytes{0xc0, 0} + publish(1, 9, 0) + Bytes{0xe0, 0};
  const Bytes expected{0x20, 2,    0, 0, 0x40, 2,    0x12, 0x34, 0x50, 2, 0,
                       7,    0x70, 2, 0, 7,    0xd0, 0,    0x40, 2,    0, 9};
  for (const std::size_t piece :
       {std::size_t{1}, std::size_t{3}, std::size_t{64}, std::size_t{5000}, SIZE_MAX}) {
    Session session;
    session.feed(stream, piece);
    EXPECT_EQ(session.replies, expected) << "in pieces of " << piece;
    EXPECT_EQ(session.counts.publishes[0], 1u);
    EXPECT_EQ(session.counts.publishes[1], 2u);
    EXPECT_EQ(session.counts.publishes[2], 1u);
    EXPECT_TRUE(session.counts.disconnected);
    EXPECT_FALSE(session.counts.malformed);
  }
}

TEST(SinkProtocol, speaks_version_5_with_properties) {
  Session session;
  session.feed(connect_v5 + Bytes{0x82, 14, 0, 1, 0, 0, 1, 'a', 1, 0, 4, 'b', '/', 'c', 'd', 2} +
               Bytes{0xa2, 6, 0, 2, 0, 0, 1, 'a'});
  EXPECT_EQ(session.replies, (Bytes{0x20, 3, 0, 0, 0, 0x90, 5, 0, 1, 0, 1, 2, 0xb0, 4, 0, 2, 0, 0}));
}

TEST(SinkProtocol, counts_and_says_nothing_when_mute) {
  Session session;
  session.feed(connect_v3 + publish(1, 1, 5) + publish(2, 2, 5), SIZE_MAX, false);
  EXPECT_EQ(session.replies, (Bytes{0x20, 2, 0, 0}));
  EXPECT_EQ(session.counts.publishes[1] + session.counts.publishes[2], 2u);
}

TEST(SinkProtocol, refuses_what_is_malformed) {
  for (const Bytes& bad : {Bytes{0x36, 5, 0, 1, 'a', 0, 1},           // QoS 3
                           Bytes{0x30, 3, 0, 9, 'a', 'a', 'a', 'a'},  // topic longer than the packet
                           Bytes{0x30, 0xff, 0xff, 0xff, 0xff, 1},    // remaining length of five bytes
                           Bytes{0xf0, 0}, Bytes{0x62, 1, 0}}) {
    Session session;
    session.feed(connect_v3 + bad);
    EXPECT_TRUE(session.counts.malformed) << static_cast<int>(bad[0]) << ' ' << static_cast<int>(bad[1]);
  }
}

TEST(SinkProtocol, tells_the_filter_of_a_subscription_and_counts_acknowledgements) {
  Session session;
  session.feed(connect_v3 + Bytes{0x82, 8, 0, 1, 0, 3, 'a', '/', 'b', 1} +
               Bytes{0x40, 2, 0, 1, 0x40, 2, 0, 2});
  EXPECT_TRUE(session.counts.connected);
  EXPECT_EQ(session.counts.filter, "a/b");
  EXPECT_EQ(session.counts.acknowledgements, 2u);
  EXPECT_EQ(session.replies, (Bytes{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}));
}

// A connection to the sink; -1 when it was refused.
class Peer {
 public:
  explicit Peer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Peer() { ::close(fd_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  bool connected() const { return connected_; }
  void send(const Bytes& bytes) { ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // Exactly so many, or what came before the end.
  Bytes receive(std::size_t size) {
    Bytes bytes(size);
    const auto got = ::recv(fd_, bytes.data(), size, MSG_WAITALL);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }

 private:
  int fd_;
  bool connected_ = false;
};

const Bytes connack_v3{0x20, 2, 0, 0};

TEST(Sink, goes_away_and_comes_back_on_the_same_port) {
  const auto sink = Sink::start();
  ASSERT_TRUE(sink) << sink.error().message;
  Peer before(sink->port());
  before.send(connect_v3);
  ASSERT_EQ(before.receive(4), connack_v3);

  ASSERT_TRUE(sink->page().become(SinkBehaviour::down));
  EXPECT_TRUE(before.receive(1).empty()) << "the connection is over";
  EXPECT_FALSE(Peer(sink->port()).connected());

  ASSERT_TRUE(sink->page().become(SinkBehaviour::acknowledge));
  Peer after(sink->port());
  ASSERT_TRUE(after.connected());
  after.send(connect_v3 + publish(1, 7, 10));
  EXPECT_EQ(after.receive(8), connack_v3 + (Bytes{0x40, 2, 0, 7}));
  for (int i = 0; i < 5000 && sink->page().acknowledged_ns.load() == 0; ++i) ::usleep(1000);
  EXPECT_GT(sink->page().accepted_ns.load(), sink->page().listening_ns.load());
  EXPECT_GT(sink->page().acknowledged_ns.load(), sink->page().accepted_ns.load());
}

TEST(Sink, that_is_silent_accepts_and_does_not_answer) {
  const auto sink = Sink::start();
  ASSERT_TRUE(sink) << sink.error().message;
  ASSERT_TRUE(sink->page().become(SinkBehaviour::silent));
  Peer peer(sink->port());
  ASSERT_TRUE(peer.connected());
  peer.send(connect_v3);
  ASSERT_TRUE(sink->page().become(SinkBehaviour::acknowledge));
  EXPECT_TRUE(peer.receive(1).empty()) << "not one byte until it was closed";
}

TEST(Sink, floods_a_subscriber_with_whole_numbered_messages_within_its_window) {
  const auto sink = Sink::start();
  ASSERT_TRUE(sink) << sink.error().message;
  Peer peer(sink->port());
  peer.send(connect_v3 + Bytes{0x82, 8, 0, 1, 0, 3, 'a', '/', 'b', 1});
  ASSERT_EQ(peer.receive(9), connack_v3 + (Bytes{0x90, 3, 0, 1, 1}));
  sink->page().flood(1, 4, std::chrono::milliseconds(50));
  // 1,000 in flight at most; nobody acknowledges, so that is what comes.
  for (unsigned id = 1; id <= 1000; ++id) {
    const Bytes expected{
        0x32, 11,  0,   3,  'a', '/', 'b', static_cast<std::uint8_t>(id >> 8), static_cast<std::uint8_t>(id),
        'x',  'x', 'x', 'x'};
    ASSERT_EQ(peer.receive(expected.size()), expected) << id;
  }
  for (int i = 0; i < 5000 && sink->page().flooding(); ++i) ::usleep(1000);
  EXPECT_FALSE(sink->page().flooding()) << "a full window does not keep it going";
  EXPECT_EQ(sink->page().flooded.load(), 1000u);
}

TEST(SinkControl, answers_what_a_script_asks_and_refuses_the_rest) {
  const auto sink = Sink::start();
  ASSERT_TRUE(sink) << sink.error().message;
  auto& page = sink->page();
  EXPECT_EQ(sink_control(page, "become mute"), "ok");
  EXPECT_EQ(page.applied.load(), SinkBehaviour::mute);
  EXPECT_EQ(sink_control(page, "become asleep"), "error");
  EXPECT_EQ(sink_control(page, "arrived"), "0");
  EXPECT_EQ(sink_control(page, "reconnect"), "0 0 0");
  EXPECT_EQ(sink_control(page, "flood 0"), "error");
  EXPECT_EQ(sink_control(page, "sing"), "error");
}

}  // namespace
}  // namespace fulmar::bench
