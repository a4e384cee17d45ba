#pragma once
// The bytes of a spool: segment header, record, cursor. Their grammar and the reasons are in docs/spool-format.md.
// Numbers are little-endian. Every piece has a CRC32C, and that of a record starts from the segment's epoch, which is a
// random number: bytes of the file's former life do not count, and no payload can pretend to be a record.
//
// Thread-safety: pure functions and plain values. Nothing here reads past the bytes it is given, whatever they are.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace fulmar::spool {

using Bytes = std::span<const std::byte>;
using Sequence = std::uint64_t;  // 1, 2, 3, ... in the order of appending; 0 is none

inline constexpr std::uint16_t format_version = 1;

enum class Soundness : std::uint8_t {
  sound,
  damaged,  // or something else altogether
  foreign,  // ours, but of another version of the format
};

// --- segment -----------------------------------------------------------------------------------------------------------

inline constexpr std::size_t segment_header_bytes = 64;

// Stands at the start of the file and once more in its last 64 bytes; records lie between the two.
struct SegmentHeader {
  std::uint64_t identity{};  // of the log that it belongs to
  std::uint64_t number{};
  std::uint64_t epoch{};
  Sequence first{};  // no record of this segment is below; the segment before ends below it
  std::int64_t created_ms{};
  std::uint64_t bytes{};  // of the file

  bool operator==(const SegmentHeader&) const = default;
};

std::string segment_name(std::uint64_t number);  // 000000000000002a.seg
std::string spare_name(std::uint64_t number);    // spare-0000002a.seg
std::optional<std::uint64_t> parse_segment_name(std::string_view name);
std::optional<std::uint64_t> parse_spare_name(std::string_view name);

std::array<std::byte, segment_header_bytes> encode(const SegmentHeader& header);
Soundness decode(Bytes bytes, SegmentHeader& header);

// --- record ------------------------------------------------------------------------------------------------------------

inline constexpr std::size_t record_header_bytes = 32;
inline constexpr std::size_t record_alignment = 8;

constexpr std::uint64_t record_bytes(std::uint64_t entry_bytes) {
  return (record_header_bytes + entry_bytes + record_alignment - 1) & ~std::uint64_t{record_alignment - 1};
}

struct Record {
  Sequence sequence{};
  std::int64_t stored_ms{};
  std::int64_t expires_ms{};  // 0: never
  Bytes bytes{};              // the entry
};

std::uint32_t record_seed(std::uint64_t epoch);
// Writes header and checksum in front of the entry, which is `entry_bytes` long and lies at `at` + record_header_bytes.
void seal_record(std::byte* at, std::size_t entry_bytes, const Record& record, std::uint32_t seed);

// The sequence that a record header says, unchecked.
Sequence sequence_of(std::span<const std::byte, record_header_bytes> header);

// Finds records in the bytes of a segment, whatever state they are in: where a record should be and is not, it goes on
// at the next 8-byte boundary at which one is, with a fitting checksum and a sequence that may follow.
class RecordScanner {
 public:
  enum class Found : std::uint8_t {
    record,
    more,  // needs the bytes from `at` on again, with those that follow: `wanted()` in all
    end,   // of this segment's records
  };

  // Sequences above `last` and below `below` belong; once `below` - 1 was found there is nothing more to find.
  RecordScanner(std::uint32_t seed, Sequence last, Sequence below, std::uint64_t segment_bytes)
      : seed_(seed),
        last_(last),
        below_(below),
        length_max_(segment_bytes),
        spare_effort_(64 * segment_bytes) {}

  // `at` is where to look in `window` and moves on; a multiple of 8. `final`: the window ends where the segment's
  // records end at the latest. The record's bytes lie in the window.
  Found next(Bytes window, std::size_t& at, bool final, Record& record);

  std::size_t wanted() const { return wanted_; }
  // Were bytes skipped since the record before the last one (or, at the end, since the last one)?
  bool skipped() const { return skipped_; }
  Sequence last() const { return last_; }

 private:
  std::uint32_t seed_;
  Sequence last_, below_;
  std::uint64_t length_max_;
  std::size_t wanted_ = 0;
  bool skipped_ = false;
  bool returned_ = false;
  // Bytes whose checksum may still be computed in vain, so that a segment made of lures cannot take for ever.
  std::uint64_t spare_effort_;
};

// --- cursor ------------------------------------------------------------------------------------------------------------

inline constexpr Sequence window_entries = 8192;
inline constexpr std::size_t cursor_slot_bytes = 4096;
inline constexpr std::size_t cursor_file_bytes = 2 * cursor_slot_bytes;

// What was acknowledged. Bit (sequence % 8192) of a bitmap tells of the sequences low + 1 .. low + 8192.
struct Cursor {
  using Bitmap = std::array<std::uint64_t, window_entries / 64>;

  std::uint64_t generation{};
  std::uint64_t identity{};
  Sequence low{};           // everything up to it is acknowledged
  Sequence next{};          // that the next entry gets, at least
  std::uint64_t segment{};  // where the entry low + 1 is, or one before it
  std::uint64_t offset{};
  Sequence after{};  // the sequence of the record that is there, less one
  Bitmap acknowledged{};
  Bitmap released{};
};

std::array<std::byte, cursor_slot_bytes> encode(const Cursor& cursor);
Soundness decode(Bytes slot, Cursor& cursor);

}  // namespace fulmar::spool
