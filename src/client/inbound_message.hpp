#pragma once
// InboundMessage: a received message as it lies in a lane's ring: a header, and topic, properties and payload behind it or,
// when they are large, in a block of their own.
//
// Not thread-safe: written by the I/O thread, then read by the lane.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "fulmar/message.hpp"
#include "fulmar/mqtt/packet.hpp"

namespace fulmar {

struct InboundMessage {
  std::byte* apart;  // owned: topic, properties and payload lie there
  std::uint32_t payload_size;
  std::uint32_t properties_size;
  std::uint32_t stamp_us;  // when it was read, modulo 2^32
  std::uint16_t link;      // by which connection it came, counted modulo 2^16
  std::uint16_t topic_size;
  QoS qos;
  bool retain;
  bool dup;

  // Of topic, properties and payload.
  static std::size_t content_size(const mqtt::PublishView& message) {
    return message.topic.size() + message.properties.encoded().size() + message.payload.size();
  }
  std::size_t content_size() const { return std::size_t{topic_size} + properties_size + payload_size; }

  // `block` has room for this header and, unless `apart`, the content.
  static void write(std::byte* block, const mqtt::PublishView& message, bool apart, std::uint32_t stamp_us,
                    std::uint16_t link);
  static InboundMessage read(std::span<const std::byte> block);
  // Views into the block; valid as long as it.
  Message message(std::span<const std::byte> block) const;
};

}  // namespace fulmar
