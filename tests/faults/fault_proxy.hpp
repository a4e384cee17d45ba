#pragma once
// FaultProxy: a TCP port of its own in front of a server's, where the way between a client and that server fails as a test
// says. It cuts both streams into MQTT packets, so that a rule can name the packet at which something happens.
//
// It stores each packet whole before it passes it on, and reads no more from a side while `queue_max` bytes wait for the
// other one: pressure passes through it.
//
// Thread-safety: every function from any thread; they take effect at once, and return when they have.

#include <poll.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "tests/faults/socket.hpp"

namespace fulmar::test {

enum class Direction : std::uint8_t { up, down };  // up: from the client to the server

// What is done with one packet, once.
struct Rule {
  enum class Act : std::uint8_t {
    cut_before,  // the connection ends, the packet does not pass
    cut_within,  // its first `bytes` pass, then the connection ends
    cut_after,   // it passes, then the connection ends
    drop,
    duplicate,
    delay,  // and all behind it
  };
  Direction direction = Direction::up;
  std::optional<mqtt::PacketType> type{};  // none: any
  Act act = Act::cut_before;
  std::size_t nth = 1;  // of the packets that match since the rule was made, over all connections
  Ending ending = Ending::fin;
  std::size_t bytes = 1;
  std::chrono::milliseconds delay{0};
};

class FaultProxy {
 public:
  static constexpr std::size_t queue_max = std::size_t{64} << 10;

  struct Options {
    int receive_buffer = 0;  // of its sockets, bytes; 0: as much as the kernel likes, which may be megabytes
  };

  explicit FaultProxy(std::uint16_t server_port) : FaultProxy(server_port, Options{}) {}
  FaultProxy(std::uint16_t server_port, Options options);  // throws std::system_error
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  std::uint16_t port() const { return port_; }
  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }

  void add(Rule rule);
  std::size_t rules_left() const;  // those that have not happened yet
  // The connection ends when so many bytes have passed, over all connections and from now on.
  void cut_at_byte(Direction direction, std::uint64_t byte, Ending ending);

  // What becomes of new connections.
  enum class Door : std::uint8_t {
    open,
    reset,    // accepted and reset
    silent,   // accepted, and nothing is ever said
    refused,  // nobody listens
  };
  void set_door(Door door);

  // What becomes of the bytes of all connections, also later ones.
  enum class Flow : std::uint8_t {
    pass,
    stall,    // are not read: they wait in the socket until the window is zero
    swallow,  // are read and thrown away
  };
  void set_flow(Direction direction, Flow flow);

  struct Shape {
    std::uint64_t bytes_per_s = 0;  // 0: as fast as it goes
    std::chrono::milliseconds latency{0};
    std::chrono::milliseconds jitter{0};  // added to the latency, evenly drawn; the order stays
  };
  void set_shape(Direction direction, Shape shape);
  void seed(std::uint64_t seed);  // of the jitter

  // Sees every packet that comes, before a rule does, on the proxy's thread.
  using Observer = std::function<void(Direction direction, const mqtt::Frame& packet)>;
  void observe(Observer observer);

  void cut(Ending ending);  // every connection there is
  // Every connection there is: nothing passes any more, either way, and neither side is told, ever.
  void half_open();

  std::size_t accepted() const;                                           // connections, so far
  std::size_t connections() const;                                        // that are open on either side
  std::size_t packets(Direction direction, mqtt::PacketType type) const;  // that came, so far
  std::uint64_t bytes(Direction direction) const;                         // that were passed on, so far

 private:
  using Clock = std::chrono::steady_clock;
  struct Parcel {
    std::vector<std::byte> bytes;
    std::size_t sent = 0;
    Clock::time_point due{};
  };
  struct Pipe {
    int from = -1, to = -1;
    std::vector<std::byte> input;  // less than a packet
    std::deque<Parcel> output;
    std::size_t queued = 0;
    Clock::time_point last_due{}, next_write{};
    bool ended = false;   // `from` has said all
    bool closed = false;  // `to` was told
    bool packets = true;  // false: what came is not MQTT; it is passed on as it is
  };
  struct Link {
    Socket client, server;
    std::array<Pipe, 2> pipes;
    std::optional<Ending> ending;  // once the outputs are empty
    bool frozen = false;
    bool over = false;
  };
  // What holds for one direction of all links.
  struct Lane {
    Flow flow = Flow::pass;
    Shape shape{};
    std::uint64_t bytes = 0;
    std::optional<std::uint64_t> cut_at{};
    Ending cut_ending = Ending::fin;
    std::array<std::size_t, 16> packets{};
  };

  Socket listen() const;
  void serve();
  std::optional<Clock::time_point> watch(std::vector<pollfd>& fds);
  void work(Clock::time_point now);
  void accept();
  void read(Link& link, Direction direction, Clock::time_point now);
  void take_packets(Link& link, Direction direction, Clock::time_point now);
  void write(Link& link, Direction direction, Clock::time_point now);
  void pass(Link& link, Direction direction, std::vector<std::byte> bytes, Clock::time_point now,
            std::chrono::milliseconds delay);
  void end(Link& link, Ending ending);
  std::optional<Rule> rule_for(Direction direction, mqtt::PacketType type);
  void changed();
  Lane& lane(Direction direction) { return lanes_[static_cast<std::size_t>(direction)]; }
  const Lane& lane(Direction direction) const { return lanes_[static_cast<std::size_t>(direction)]; }

  const std::uint16_t server_port_;
  const Options options_;
  std::uint16_t port_ = 0;
  Wake wake_;
  mutable std::mutex mutex_;  // all below
  Socket listener_;
  Door door_ = Door::open;
  std::list<Link> links_;
  std::vector<Rule> rules_;
  Observer observer_;
  std::array<Lane, 2> lanes_;
  std::mt19937_64 random_{1};
  std::size_t accepted_ = 0;
  bool done_ = false;
  std::thread thread_;
};

// Listens, and answers no SYN: its queue of connections is full.
class DeafPort {
 public:
  DeafPort();  // throws std::system_error
  std::uint16_t port() const { return port_; }
  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }

 private:
  Socket listener_;
  std::uint16_t port_ = 0;
  std::vector<Socket> queue_;
};

}  // namespace fulmar::test
