#pragma once
// CRC32C (Castagnoli), as in RFC 3720: what every record, segment header and cursor is checked with.
// Ours, because Debian 12 has no small library for it: crc32c and its like are not packaged, libisal brings erasure codes
// and compression along, and Boost.CRC works byte by byte.
//
// Thread-safety: pure functions. The instruction (SSE 4.2) is chosen once, by what the machine has.

#include <cstddef>
#include <cstdint>
#include <span>

namespace fulmar::spool {

// The CRC of what `crc` was the CRC of, followed by `bytes`; start with 0.
std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes);

// The portable one, eight tables of 1 KiB; crc32c() uses it where there is no instruction.
std::uint32_t crc32c_portable(std::uint32_t crc, std::span<const std::byte> bytes);

}  // namespace fulmar::spool
