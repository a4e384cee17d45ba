#pragma once
// One pass over a string field: is it UTF-8, has it U+0000, has it the wildcards + or #? Eight bytes at a time while the
// text is ASCII.
//
// Thread-safety: pure functions.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace fulmar::mqtt {

enum TextTrait : unsigned {
  text_plain = 0,
  text_not_utf8 = 1,
  text_has_null = 2,
  text_has_wildcard = 4,
};

// The traits of a text with bytes over 0x7f; slow but exact. `prefix` bytes are known to be plain ASCII.
unsigned scan_unicode(std::string_view text, std::size_t prefix, unsigned traits);

namespace scan_detail {

inline constexpr std::uint64_t low_bits = 0x0101010101010101;
inline constexpr std::uint64_t high_bits = 0x8080808080808080;

// Is one of the eight bytes zero? Exact as an "any" test.
constexpr bool any_zero(std::uint64_t word) { return ((word - low_bits) & ~word & high_bits) != 0; }

// The same for + (0x2b) and # (0x23), which differ in one bit only.
constexpr bool any_wildcard(std::uint64_t word) {
  return any_zero((word & ~(low_bits * 0x08)) ^ (low_bits * 0x23));
}

inline std::uint64_t load(const char* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Eight bytes of which the first `size` (1..7) are the text's, filled up with repetitions of its own bytes.
inline std::uint64_t load_short(const char* at, std::size_t size) {
  if (size >= 4) {
    std::uint32_t first;
    std::uint32_t last;
    std::memcpy(&first, at, 4);
    std::memcpy(&last, at + size - 4, 4);
    return std::uint64_t{first} | std::uint64_t{last} << 32;
  }
  const auto byte = [at](std::size_t index) { return std::uint64_t{static_cast<unsigned char>(at[index])}; };
  return (byte(0) * low_bits & ~std::uint64_t{0xffff}) | byte(size / 2) | byte(size - 1) << 8;
}

}  // namespace scan_detail

inline unsigned scan_text(std::string_view text) {
  using namespace scan_detail;
  const char* at = text.data();
  const std::size_t size = text.size();
  if (size == 0) return text_plain;
  unsigned traits = text_plain;
  const auto look = [&traits](std::uint64_t word) {
    if (any_zero(word)) traits |= text_has_null;
    if (any_wildcard(word)) traits |= text_has_wildcard;
  };
  if (size < 8) {
    const std::uint64_t word = load_short(at, size);
    if (word & high_bits) return scan_unicode(text, 0, traits);
    look(word);
    return traits;
  }
  std::size_t done = 0;
  for (; done + 8 <= size; done += 8) {
    const std::uint64_t word = load(at + done);
    if (word & high_bits) return scan_unicode(text, done, traits);
    look(word);
  }
  if (done != size) {
    const std::uint64_t word = load(at + size - 8);
    if (word & high_bits) return scan_unicode(text, done, traits);
    look(word);
  }
  return traits;
}

}  // namespace fulmar::mqtt
