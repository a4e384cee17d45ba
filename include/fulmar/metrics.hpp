#pragma once
// Metrics: a snapshot of a client's counters and gauges.
// Thread-safety: plain values. Each is exact by itself; those that are compared with each other below hold in every snapshot.

#include <chrono>
#include <cstdint>

namespace fulmar {

struct Metrics {
  // Counters since construction. accepted + recovered = acknowledged + refused + expired + dropped + waiting.
  std::uint64_t accepted = 0;      // publish() said yes
  std::uint64_t sent = 0;          // PUBLISH packets handed to the transport, re-sends included
  std::uint64_t resent = 0;        // of them with DUP
  std::uint64_t acknowledged = 0;  // QoS 0: sent; QoS 1, 2: acknowledged
  std::uint64_t refused = 0;
  std::uint64_t expired = 0;
  std::uint64_t dropped = 0;  // the sum of the next four
  std::uint64_t dropped_overflow = 0;
  std::uint64_t dropped_offline = 0;  // OfflineQos0::drop
  std::uint64_t dropped_shutdown = 0;
  std::uint64_t dropped_spool = 0;  // by the spool: its bound with Overflow::drop_oldest, its age, damage
  std::uint64_t recovered = 0;      // left in the spool by former runs, or by this one before a shutdown
  std::uint64_t spooled = 0;        // put into the spool
  std::uint64_t replayed = 0;       // taken from the spool to be sent
  std::uint64_t received = 0;
  std::uint64_t handled = 0;     // received, and every handler on the dispatch thread has returned
  std::uint64_t unrouted = 0;    // received, and no handler wanted it
  std::uint64_t duplicates = 0;  // calls left out by the de-duplication of envelopes
  std::uint64_t handler_errors = 0;
  std::uint64_t connects = 0;
  std::uint64_t disconnects = 0;  // links lost after CONNACK; the sum of the next four
  std::uint64_t disconnects_by_server = 0;
  std::uint64_t disconnects_by_network = 0;
  std::uint64_t disconnects_by_timeout = 0;  // keep-alive, watchdog, ack_timeout
  std::uint64_t disconnects_by_violation = 0;
  std::uint64_t reconnect_attempts = 0;
  std::uint64_t attempts_refused = 0;     // CONNACK said no
  std::uint64_t protocol_violations = 0;  // by the server
  std::uint64_t answers_ignored = 0;      // acknowledgements of nothing, of the wrong kind or twice
  std::uint64_t requests = 0;
  std::uint64_t requests_timed_out = 0;
  std::uint64_t responses_late = 0;  // answers to nothing that waits
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;

  // Gauges.
  std::uint64_t outbox_messages = 0;  // accepted and not yet taken by the I/O thread
  std::uint64_t outbox_bytes = 0;
  std::uint64_t spool_messages = 0;  // in the spool
  std::uint64_t spool_bytes = 0;     // of its files
  std::chrono::milliseconds spool_oldest_age{0};
  bool spool_failing = false;   // the disk does not take what it is given; messages go on in memory
  std::uint64_t in_flight = 0;  // sent and not yet acknowledged
  std::uint64_t waiting = 0;    // accepted and without an outcome
  std::uint64_t subscriptions = 0;
  std::uint64_t inbound_messages = 0;  // received and not yet handled
  std::chrono::microseconds round_trip{
      0};  // of the last PUBLISH to its acknowledgement, or PINGREQ; 0 = none yet
  std::chrono::microseconds handler_latency{0};  // of the last message: from the socket to its handler
};

}  // namespace fulmar
