#pragma once
// Durability: of all messages of a client (ClientConfig::durability), or of one (PublishOptions::durability).
//
// Thread-safety: plain values.

#include <cstdint>

namespace fulmar {

// How far a message has to come before a fault cannot take it, with a spool (ClientConfig::spool_dir); without one all
// messages are kept in memory.
enum class Durability : std::uint8_t {
  memory,  // survives the broker and the network, not the process
  spill,  // goes to disk while there is no connection, behind others that are there, when the outbox fills up, and at
          // shutdown: survives outages and a clean end; kill -9 takes what was in memory and in flight
  write_ahead,  // written and synced before it is sent: from Delivery::Outcome::stored on it survives kill -9 and power loss
};

}  // namespace fulmar
