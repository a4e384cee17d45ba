#pragma once
// Sink: the MQTT server that clients under test publish to and receive from. It runs in a process of its own, so
// that its processor time, memory and system calls never show in a client's figures, and it does nothing but what
// the protocol asks for: 256 KiB reads, no copy of a payload, and all acknowledgements of one read in one send.
//
// It speaks 3.1.1 and 5.0: CONNECT, PUBLISH at QoS 0, 1 and 2, SUBSCRIBE, UNSUBSCRIBE, PINGREQ and DISCONNECT. It
// delivers nothing of what it gets; a subscriber is flooded with messages of the sink's own when asked for (flood).
// What it counted stands in a page of shared memory that any process may map.
//
// Thread-safety: Sink belongs to the thread that started it; SinkPage is read from everywhere.

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

enum class SinkBehaviour : std::uint32_t {
  acknowledge,
  mute,    // reads, never acknowledges a PUBLISH
  stall,   // stops reading and accepting
  silent,  // ends all connections, then accepts and never answers
  down,    // ends all connections and does not listen; nobody else gets the port
};

// The shared page. The sink writes the counters once per read, before it acknowledges what it read.
struct SinkPage {
  std::atomic<std::uint64_t> publishes[3]{};  // by QoS; complete packets, re-sends included
  std::atomic<std::uint64_t> bytes{0};        // read from all connections
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> violations{0};      // malformed packets; their connections were closed
  std::atomic<std::uint64_t> connections{0};     // open now and past CONNECT
  std::atomic<std::int64_t> last_publish_ns{0};  // steady clock, after the read that held the last PUBLISH

  // Written by the benchmark; `applied` follows within 5 ms.
  std::atomic<SinkBehaviour> behaviour{SinkBehaviour::acknowledge};
  std::atomic<SinkBehaviour> applied{SinkBehaviour::acknowledge};

  // A return from `down` or `silent`, steady clock; 0 until it happened.
  std::atomic<std::int64_t> listening_ns{0};     // before the call of listen()
  std::atomic<std::int64_t> accepted_ns{0};      // the last connection since then was accepted
  std::atomic<std::int64_t> acknowledged_ns{0};  // the first PUBLISH since then was acknowledged

  // A flood: every subscriber is sent messages of `flood_payload` bytes under the topic of its first filter until
  // `flood_until_ns`; then `flooded` says how many, all connections together. Start it by flood().
  std::atomic<std::uint32_t> flood_qos{0};
  std::atomic<std::uint32_t> flood_payload{0};
  std::atomic<std::int64_t> flood_until_ns{0};
  std::atomic<std::int64_t> flood_began_ns{0};  // the first message
  std::atomic<std::uint64_t> flooded{0};

  std::uint64_t publishes_total() const;
  void flood(unsigned qos, unsigned payload_bytes, std::chrono::nanoseconds time);
  // True while messages of a flood may still be sent.
  bool flooding() const { return flood_until_ns.load(std::memory_order_acquire) != 0; }
  // Sets the behaviour and waits until it holds; false after a second.
  bool become(SinkBehaviour wanted);
};

// "acknowledge", "mute", ...
std::optional<SinkBehaviour> sink_behaviour(std::string_view name);
// What a script asks of the sink (harness.hpp, Control), one line each:
//   become BEHAVIOUR | arrived | violations | last_publish_ns | connections | flood QOS BYTES MILLISECONDS | flooding |
//   flooded | flood_began_ns | reconnect (listening_ns accepted_ns acknowledged_ns)
std::string sink_control(SinkPage& page, std::string_view command);

// The protocol without the socket: one per connection.
class SinkProtocol {
 public:
  struct Counts {
    std::uint64_t publishes[3]{};
    std::uint64_t acknowledgements = 0;  // PUBACKs for what a flood sent
    std::string filter{};                // of a SUBSCRIBE, the first one
    bool connected = false;              // CONNECT came
    bool malformed = false;
    bool disconnected = false;
  };

  // Takes as many whole packets as `input` holds (and the beginning of a PUBLISH whose payload goes on beyond
  // it), appends the answers to `replies` and returns the number of bytes taken; the caller gives the rest
  // again, with more behind it. Nothing may be given after `malformed` or `disconnected`.
  std::size_t consume(std::span<const std::uint8_t> input, std::vector<std::uint8_t>& replies, Counts& counts,
                      bool acknowledge);
  std::uint8_t level() const { return level_; }

 private:
  void control(std::uint8_t first, std::span<const std::uint8_t> body, std::vector<std::uint8_t>& replies,
               Counts& counts);
  void published(std::uint8_t qos, std::uint16_t packet_id, std::vector<std::uint8_t>& replies,
                 Counts& counts, bool acknowledge);

  std::size_t skip_ = 0;  // bytes of the current PUBLISH that have not come yet
  std::uint8_t skip_qos_ = 0;
  std::uint16_t skip_packet_id_ = 0;
  std::uint8_t level_ = 4;
};

class Sink {
 public:
  // Listens on a free loopback port and forks. Call it before the process has a second thread.
  static Result<Sink> start();
  ~Sink();  // ends the process
  Sink(Sink&& other) noexcept;
  Sink& operator=(Sink&&) = delete;

  std::uint16_t port() const { return port_; }
  int page_fd() const { return page_fd_; }  // inherited by programs that are executed
  SinkPage& page() const { return *page_; }
  double cpu_seconds() const;  // of the sink's process, so far

  // Maps the page in another process.
  static Result<SinkPage*> map_page(int fd);

 private:
  Sink(pid_t pid, std::uint16_t port, int page_fd, SinkPage* page)
      : pid_(pid), port_(port), page_fd_(page_fd), page_(page) {}

  pid_t pid_;
  std::uint16_t port_;
  int page_fd_;
  SinkPage* page_;
};

}  // namespace fulmar::bench
