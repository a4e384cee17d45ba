#pragma once
// Cursor: reads the fields of a packet one after the other, never past the end.
// The first failed read sets `error` and makes all that follow return zeros.
//
// Not thread-safe: a local of the decoder.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fulmar/mqtt/decode_error.hpp"
#include "fulmar/mqtt/types.hpp"
#include "mqtt/text_scan.hpp"

namespace fulmar::mqtt {

inline std::uint16_t load_u16(const std::byte* at) {
  return static_cast<std::uint16_t>(static_cast<unsigned>(at[0]) << 8 | static_cast<unsigned>(at[1]));
}
inline std::uint32_t load_u32(const std::byte* at) {
  return std::uint32_t{load_u16(at)} << 16 | load_u16(at + 2);
}

// A variable byte integer at `at` [MQTT5 1.5.5]: returns its size, 0 when more bytes are needed, -1 when it has over four
// bytes, -2 when it is not minimal.
inline int load_variable(const std::byte* at, std::size_t available, std::uint32_t& value) {
  value = 0;
  for (int i = 0; i < 4; ++i) {
    if (static_cast<std::size_t>(i) == available) return 0;
    const auto byte = static_cast<std::uint32_t>(at[i]);
    value |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) return byte == 0 && i > 0 ? -2 : i + 1;
  }
  return -1;
}

class Cursor {
 public:
  explicit Cursor(BytesView bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  DecodeError error = DecodeError::none;

  bool ok() const { return error == DecodeError::none; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }
  const std::byte* at() const { return at_; }

  bool fail(DecodeError why) {
    if (ok()) error = why;
    at_ = end_;
    return false;
  }
  bool need(std::size_t size) { return left() >= size || fail(DecodeError::truncated); }

  std::uint8_t u8() { return need(1) ? static_cast<std::uint8_t>(*at_++) : std::uint8_t{0}; }
  std::uint16_t u16() {
    if (!need(2)) return 0;
    at_ += 2;
    return load_u16(at_ - 2);
  }
  std::uint32_t u32() {
    if (!need(4)) return 0;
    at_ += 4;
    return load_u32(at_ - 4);
  }
  std::uint32_t variable() {
    std::uint32_t value = 0;
    const int size = load_variable(at_, left(), value);
    if (size > 0) {
      at_ += size;
      return value;
    }
    fail(size == 0    ? DecodeError::truncated
         : size == -1 ? DecodeError::integer_over_four_bytes
                      : DecodeError::integer_not_minimal);
    return 0;
  }
  std::uint16_t packet_id() {
    const auto id = u16();
    if (ok() && id == 0) fail(DecodeError::packet_id_zero);
    return id;
  }
  BytesView bytes(std::size_t size) {
    if (!need(size)) return {};
    at_ += size;
    return {at_ - size, size};
  }
  BytesView binary() { return bytes(u16()); }
  // A UTF-8 string; `traits` tells of wildcards.
  std::string_view string(unsigned& traits) {
    const auto text = as_text(binary());
    traits = scan_text(text);
    if (traits & text_not_utf8) {
      fail(DecodeError::string_not_utf8);
    } else if (traits & text_has_null) {
      fail(DecodeError::string_contains_null);
    }
    return text;
  }
  std::string_view string() {
    unsigned traits = 0;
    return string(traits);
  }
  BytesView rest() { return bytes(left()); }
  // The last read: nothing may be left.
  DecodeError finish() {
    if (at_ != end_) fail(DecodeError::trailing_bytes);
    return error;
  }

 private:
  const std::byte* at_;
  const std::byte* end_;
};

}  // namespace fulmar::mqtt
