#pragma once
// QueueGateway: a work queue's door to MQTT. Devices hand in work by publishing it, and hear when there is some.
//
//   <prefix>/<queue>/submit   in: a JSON object as of `fulmar queue add --lines`, {"type":"resize","payload":{"image":17}},
//                             or a list of them, which are submitted together or not at all
//   <prefix>/<queue>/ready    out: {"queue":"jobs","pending":3,...} after work became claimable, by whatever process
//
// A message of QoS 1 or 2 is acknowledged only after the commit of its items: until then the server keeps it, and sends it
// again to a persistent session. One that comes twice makes its items twice, unless they have an `id` or a `unique_key`.
// What cannot be an item is acknowledged, answered and logged; what the store cannot take now (it is full, or does not
// answer) stays unacknowledged and is tried again until it can.
// A message with a response topic (5.0) is answered: {"ok":true,"items":[{"id":"...","created":true}]} or
// {"ok":false,"error":"invalid item","message":"..."}.
//
// Thread-safety: every function from any thread. The store is used on threads of the gateway's own, so that handlers and
// I/O threads never wait for it.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "fulmar/client.hpp"
#include "fulmar/queue.hpp"

namespace fulmar {

struct QueueGatewayOptions {
  std::string prefix = "fulmar/queue";  // topic levels before the queue's name; no wildcards
  bool accept = true;                   // take items
  bool announce = true;                 // tell that there is work
  // At most one announcement in this time, 1 ms..1 h; the last change is always told.
  std::chrono::milliseconds announce_interval{100};
  // Messages that wait for their commit, 1..1,000,000. Of QoS 1 and 2 there are never more than
  // ClientConfig::receive_maximum; those of QoS 0 beyond it are dropped and counted.
  std::size_t waiting_max = 10'000;
};

struct QueueGatewayStats {
  std::uint64_t messages = 0;  // received
  std::uint64_t items = 0;     // made of them
  std::uint64_t refused = 0;   // messages that were no items, or that the store will never take
  std::uint64_t dropped = 0;   // QoS 0, beyond waiting_max or at stop()
  std::uint64_t retries = 0;   // attempts that the store could not take then
  std::uint64_t announced = 0;
  std::size_t waiting = 0;  // messages without a commit now
};

class QueueGateway {
 public:
  // `client` has to outlive the gateway; `queue` is shared, as by a Worker.
  QueueGateway(Client& client, const Queue& queue, QueueGatewayOptions options = {});
  ~QueueGateway();  // stop()
  QueueGateway(const QueueGateway&) = delete;
  QueueGateway& operator=(const QueueGateway&) = delete;

  // Subscribes and begins. Once. Errors: invalid_config (an option), invalid_topic (the prefix), outbox_full.
  Result<void> start();
  // Ends what runs; what has no commit yet stays unacknowledged, for the next session. Waits for a commit under way.
  void stop();
  QueueGatewayStats stats() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace fulmar
