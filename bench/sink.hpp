#pragma once
// Sink: the MQTT server that clients under test publish to. It runs in a process of its own, so that its
// processor time, memory and system calls never show in a client's figures, and it does nothing but what the
// protocol asks for: 256 KiB reads, no copy of a payload, and all acknowledgements of one read in one send.
//
// It speaks 3.1.1 and 5.0: CONNECT, PUBLISH at QoS 0, 1 and 2, SUBSCRIBE, UNSUBSCRIBE, PINGREQ and
// DISCONNECT. It delivers nothing to subscribers. What it counted stands in a page of shared memory that any
// process may map.
//
// Thread-safety: Sink belongs to the thread that started it; SinkPage is read from everywhere.

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

enum class SinkBehaviour : std::uint32_t {
  acknowledge,
  mute,   // reads, never acknowledges a PUBLISH
  stall,  // stops reading
};

// The shared page. The sink writes the counters once per read, before it acknowledges what it read.
struct SinkPage {
  std::atomic<std::uint64_t> publishes[3]{};  // by QoS; complete packets, re-sends included
  std::atomic<std::uint64_t> bytes{0};        // read from all connections
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> violations{0};      // malformed packets; their connections were closed
  std::atomic<std::int64_t> last_publish_ns{0};  // steady clock, after the read that held the last PUBLISH
  std::atomic<SinkBehaviour> behaviour{SinkBehaviour::acknowledge};  // written by the benchmark

  std::uint64_t publishes_total() const;
};

// The protocol without the socket: one per connection.
class SinkProtocol {
 public:
  struct Counts {
    std::uint64_t publishes[3]{};
    bool malformed = false;
    bool disconnected = false;
  };

  // Takes as many whole packets as `input` holds (and the beginning of a PUBLISH whose payload goes on beyond
  // it), appends the answers to `replies` and returns the number of bytes taken; the caller gives the rest
  // again, with more behind it. Nothing may be given after `malformed` or `disconnected`.
  std::size_t consume(std::span<const std::uint8_t> input, std::vector<std::uint8_t>& replies, Counts& counts,
                      bool acknowledge);

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
