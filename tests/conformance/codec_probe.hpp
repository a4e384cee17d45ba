#pragma once
// Drives the codec for tests: one packet in, what it means out, and back again.

#include <memory>
#include <string>

#include "fulmar/mqtt/codec.hpp"
#include "mqtt/wire_text.hpp"

namespace fulmar::mqtt {

// What the decoder makes of the first packet of `wire`. The bytes are copied to a place of exactly their size, so that a
// sanitizer sees every read past the end.
struct Decoded {
  Decoded(const Bytes& wire, ProtocolVersion version, Sender sender, std::uint32_t maximum = no_packet_limit);
  Decoded(const Decoded&) = delete;
  Decoded& operator=(const Decoded&) = delete;

  bool accepted() const { return error == DecodeError::none && !needs_more; }
  std::string meaning() const;  // accepted

  std::unique_ptr<std::byte[]> bytes;
  ProtocolVersion version;
  Frame frame;
  bool needs_more = false;
  DecodeError error = DecodeError::none;
  PacketView view;
};

// The packet by encode() of its view.
Bytes encoded(const Decoded& packet);
// The packet put together anew from the items that its view iterates over: each property and each filter.
Bytes rebuilt(const Decoded& packet);

// first byte, remaining length, body
Bytes framed(std::byte first, const Bytes& body);
Bytes variable_integer(std::uint32_t value);
Bytes string_field(std::string_view text);

}  // namespace fulmar::mqtt
