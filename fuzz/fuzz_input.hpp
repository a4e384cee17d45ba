#pragma once
// What the fuzzers share: reading an input bit by bit, and failing loudly.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "fulmar/mqtt/codec.hpp"

namespace fulmar::fuzz {

// An input that has run out gives zeros.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(rest_[0]);
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint16_t two() { return static_cast<std::uint16_t>(byte() << 8 | byte()); }
  BytesView bytes(std::size_t count) {
    const auto part = rest_.first(count < rest_.size() ? count : rest_.size());
    rest_ = rest_.subspan(part.size());
    return part;
  }
  BytesView rest() { return bytes(rest_.size()); }

 private:
  BytesView rest_;
};

// The conditions under which a packet is decoded, from one byte.
struct Setting {
  mqtt::ProtocolVersion version;
  mqtt::Sender sender;
  std::uint32_t maximum_packet_size;

  explicit Setting(std::uint8_t from)
      : version(from & 1 ? mqtt::ProtocolVersion::v5 : mqtt::ProtocolVersion::v3_1_1),
        sender(from & 2 ? mqtt::Sender::client : mqtt::Sender::server),
        maximum_packet_size(from & 4 ? 64 : mqtt::no_packet_limit) {}
};

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace fulmar::fuzz
