#include "spool/crc32c.hpp"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace fulmar::spool {
namespace {

static_assert(std::endian::native == std::endian::little, "words of a file are loaded as they lie");

constexpr std::uint32_t polynomial = 0x82f63b78;  // reflected

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the CRC of byte b followed by k zero bytes.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ polynomial : crc >> 1;
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[k - 1][byte];
      tables[k][byte] = before >> 8 ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables tables = make_tables();

std::uint64_t load64(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc32c_sse42(std::uint32_t crc,
                                                             std::span<const std::byte> bytes) {
  std::uint64_t state = ~crc;
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  // Few instructions besides the chain of checksums, so that the processor begins the next entry's before this one ends.
  for (; left >= 32; at += 32, left -= 32) {
    state = _mm_crc32_u64(state, load64(at));
    state = _mm_crc32_u64(state, load64(at + 8));
    state = _mm_crc32_u64(state, load64(at + 16));
    state = _mm_crc32_u64(state, load64(at + 24));
  }
  for (; left >= 8; at += 8, left -= 8) state = _mm_crc32_u64(state, load64(at));
  auto narrow = static_cast<std::uint32_t>(state);
  if (left >= 4) {
    std::uint32_t word = 0;
    std::memcpy(&word, at, sizeof word);
    narrow = _mm_crc32_u32(narrow, word);
    at += 4, left -= 4;
  }
  for (; left; ++at, --left) narrow = _mm_crc32_u8(narrow, static_cast<unsigned char>(*at));
  return ~narrow;
}
#endif

using Function = std::uint32_t (*)(std::uint32_t, std::span<const std::byte>);

Function choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42;
#endif
  return crc32c_portable;
}

}  // namespace

std::uint32_t crc32c_portable(std::uint32_t crc, std::span<const std::byte> bytes) {
  std::uint32_t state = ~crc;
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    const std::uint64_t word = load64(at) ^ state;
    state = 0;
    for (std::size_t k = 0; k < 8; ++k) state ^= tables[7 - k][word >> (8 * k) & 0xff];
  }
  for (; left; ++at, --left) state = state >> 8 ^ tables[0][(state ^ static_cast<std::uint32_t>(*at)) & 0xff];
  return ~state;
}

std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes) {
  static const Function function = choose();
  return function(crc, bytes);
}

}  // namespace fulmar::spool
