#pragma once
// The primitive fields of MQTT [MQTT5 1.5], written to a place that has room for them. Each returns the end.
//
// Thread-safety: pure functions.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

constexpr std::size_t variable_size(std::uint32_t value) {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : 4;
}

inline std::byte* put_u8(std::byte* at, std::uint8_t value) {
  *at = std::byte{value};
  return at + 1;
}
inline std::byte* put_u16(std::byte* at, std::uint16_t value) {
  at[0] = static_cast<std::byte>(value >> 8);
  at[1] = static_cast<std::byte>(value);
  return at + 2;
}
inline std::byte* put_u32(std::byte* at, std::uint32_t value) {
  return put_u16(put_u16(at, static_cast<std::uint16_t>(value >> 16)), static_cast<std::uint16_t>(value));
}
inline std::byte* put_variable(std::byte* at, std::uint32_t value) {
  while (value >= 0x80) {
    *at++ = static_cast<std::byte>(value | 0x80);
    value >>= 7;
  }
  *at = static_cast<std::byte>(value);
  return at + 1;
}
inline std::byte* put_bytes(std::byte* at, BytesView bytes) {
  if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
  return at + bytes.size();
}
inline std::byte* put_string(std::byte* at, std::string_view text) {
  return put_bytes(put_u16(at, static_cast<std::uint16_t>(text.size())), as_bytes(text));
}
inline std::byte* put_binary(std::byte* at, BytesView bytes) { return put_string(at, as_text(bytes)); }
// Properties with their length in front.
inline std::byte* put_properties(std::byte* at, BytesView encoded) {
  return put_bytes(put_variable(at, static_cast<std::uint32_t>(encoded.size())), encoded);
}

}  // namespace fulmar::mqtt
