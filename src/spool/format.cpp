#include "spool/format.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "spool/crc32c.hpp"

namespace fulmar::spool {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are stored as they lie in memory");

constexpr std::string_view segment_magic{"FLMSEG\r\n", 8};
constexpr std::string_view cursor_magic{"FLMCUR\r\n", 8};
constexpr std::size_t crc_at = 12;

template <typename T>
T load(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename T>
void store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

std::uint32_t crc_without_itself(Bytes bytes) {
  return crc32c(crc32c(0, bytes.first(crc_at)), bytes.subspan(crc_at + 4));
}

void seal_prefix(std::span<std::byte> bytes, std::string_view magic) {
  std::memcpy(bytes.data(), magic.data(), magic.size());
  store(bytes.data() + 8, format_version);
  store(bytes.data() + 10, static_cast<std::uint16_t>(~format_version));
  store(bytes.data() + crc_at, crc_without_itself(bytes));
}

// The first twelve bytes have the same meaning in every version there will ever be. The version's complement beside it
// tells another version from a flipped bit.
Soundness check_prefix(Bytes bytes, std::string_view magic) {
  if (std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) return Soundness::damaged;
  const auto version = load<std::uint16_t>(bytes.data() + 8);
  if (load<std::uint16_t>(bytes.data() + 10) != static_cast<std::uint16_t>(~version))
    return Soundness::damaged;
  if (version != format_version) return Soundness::foreign;
  return load<std::uint32_t>(bytes.data() + crc_at) == crc_without_itself(bytes) ? Soundness::sound
                                                                                 : Soundness::damaged;
}

std::uint32_t record_crc(const std::byte* at, std::size_t length, std::uint32_t seed) {
  return crc32c(crc32c(seed, {at, 4}), {at + 8, length - 8});
}

std::optional<std::uint64_t> number_in(std::string_view name, std::string_view prefix, std::size_t digits) {
  if (!name.starts_with(prefix) || !name.ends_with(".seg")) return std::nullopt;
  name.remove_prefix(prefix.size());
  name.remove_suffix(4);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
  if (name.size() != digits || error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return number;
}

std::string name_of(const char* prefix, std::uint64_t number, int digits) {
  char name[40];
  const int size = std::snprintf(name, sizeof name, "%s%0*llx.seg", prefix, digits,
                                 static_cast<unsigned long long>(number));
  return {name, static_cast<std::size_t>(size)};
}

}  // namespace

std::string segment_name(std::uint64_t number) { return name_of("", number, 16); }
std::string spare_name(std::uint64_t number) { return name_of("spare-", number & 0xffffffff, 8); }
std::optional<std::uint64_t> parse_segment_name(std::string_view name) { return number_in(name, "", 16); }
std::optional<std::uint64_t> parse_spare_name(std::string_view name) { return number_in(name, "spare-", 8); }

std::array<std::byte, segment_header_bytes> encode(const SegmentHeader& header) {
  std::array<std::byte, segment_header_bytes> bytes{};
  store(&bytes[16], header.identity);
  store(&bytes[24], header.number);
  store(&bytes[32], header.epoch);
  store(&bytes[40], header.first);
  store(&bytes[48], header.created_ms);
  store(&bytes[56], header.bytes);
  seal_prefix(bytes, segment_magic);
  return bytes;
}

Soundness decode(Bytes bytes, SegmentHeader& header) {
  if (bytes.size() < segment_header_bytes) return Soundness::damaged;
  bytes = bytes.first(segment_header_bytes);
  const Soundness soundness = check_prefix(bytes, segment_magic);
  if (soundness != Soundness::sound) return soundness;
  header.identity = load<std::uint64_t>(&bytes[16]);
  header.number = load<std::uint64_t>(&bytes[24]);
  header.epoch = load<std::uint64_t>(&bytes[32]);
  header.first = load<Sequence>(&bytes[40]);
  header.created_ms = load<std::int64_t>(&bytes[48]);
  header.bytes = load<std::uint64_t>(&bytes[56]);
  return Soundness::sound;
}

std::uint32_t record_seed(std::uint64_t epoch) {
  std::array<std::byte, 8> bytes{};
  store(bytes.data(), epoch);
  return crc32c(0, bytes);
}

void seal_record(std::byte* at, std::size_t entry_bytes, const Record& record, std::uint32_t seed) {
  const std::size_t length = record_header_bytes + entry_bytes;
  store(at, static_cast<std::uint32_t>(length));
  store(at + 8, record.sequence);
  store(at + 16, record.stored_ms);
  store(at + 24, record.expires_ms);
  store(at + 4, record_crc(at, length, seed));
}

Sequence sequence_of(std::span<const std::byte, record_header_bytes> header) {
  return load<Sequence>(&header[8]);
}

RecordScanner::Found RecordScanner::next(Bytes window, std::size_t& at, bool final, Record& record) {
  if (returned_) skipped_ = false;
  returned_ = false;
  wanted_ = 0;
  for (;;) {
    if (last_ + 1 >= below_) return Found::end;
    const std::size_t rest = at < window.size() ? window.size() - at : 0;
    if (rest < record_header_bytes) {
      if (final) return Found::end;
      wanted_ = record_header_bytes;
      return Found::more;
    }
    const std::byte* here = window.data() + at;
    const std::size_t length = load<std::uint32_t>(here);
    const auto sequence = load<Sequence>(here + 8);
    // The sequence first: it tells bytes of a former life without computing their checksum.
    if (length >= record_header_bytes && length <= length_max_ && sequence > last_ && sequence < below_) {
      if (length > rest && !final) {
        wanted_ = (length + record_alignment - 1) & ~(record_alignment - 1);  // windows stay aligned
        return Found::more;
      }
      if (length <= rest) {
        if (record_crc(here, length, seed_) == load<std::uint32_t>(here + 4)) {
          record = {sequence,
                    load<std::int64_t>(here + 16),
                    load<std::int64_t>(here + 24),
                    {here + record_header_bytes, length - record_header_bytes}};
          at = std::min(at + static_cast<std::size_t>(record_bytes(length - record_header_bytes)),
                        window.size());
          last_ = sequence;
          returned_ = true;
          return Found::record;
        }
        if (length > spare_effort_) return Found::end;
        spare_effort_ -= length;
      }
    }
    skipped_ = true;
    at += record_alignment;
    while (at + 8 <= window.size() && load<std::uint64_t>(window.data() + at) == 0) at += record_alignment;
  }
}

std::array<std::byte, cursor_slot_bytes> encode(const Cursor& cursor) {
  std::array<std::byte, cursor_slot_bytes> bytes{};
  store(&bytes[16], cursor.generation);
  store(&bytes[24], cursor.identity);
  store(&bytes[32], cursor.low);
  store(&bytes[40], cursor.next);
  store(&bytes[48], cursor.segment);
  store(&bytes[56], cursor.offset);
  store(&bytes[64], cursor.after);
  store(&bytes[72], cursor.acknowledged);
  store(&bytes[72 + sizeof(Cursor::Bitmap)], cursor.released);
  seal_prefix(bytes, cursor_magic);
  return bytes;
}

Soundness decode(Bytes slot, Cursor& cursor) {
  static_assert(72 + 2 * sizeof(Cursor::Bitmap) <= cursor_slot_bytes);
  if (slot.size() < cursor_slot_bytes) return Soundness::damaged;
  slot = slot.first(cursor_slot_bytes);
  const Soundness soundness = check_prefix(slot, cursor_magic);
  if (soundness != Soundness::sound) return soundness;
  cursor.generation = load<std::uint64_t>(&slot[16]);
  cursor.identity = load<std::uint64_t>(&slot[24]);
  cursor.low = load<Sequence>(&slot[32]);
  cursor.next = load<Sequence>(&slot[40]);
  cursor.segment = load<std::uint64_t>(&slot[48]);
  cursor.offset = load<std::uint64_t>(&slot[56]);
  cursor.after = load<Sequence>(&slot[64]);
  cursor.acknowledged = load<Cursor::Bitmap>(&slot[72]);
  cursor.released = load<Cursor::Bitmap>(&slot[72 + sizeof(Cursor::Bitmap)]);
  return Soundness::sound;
}

}  // namespace fulmar::spool
