// The spool's files, whatever bytes they hold: segment headers, cursor slots, and the records of a segment, looked at in
// windows of any size. What is found is well-formed and ascending, the same through every window, and lies in the input.
// Input: the setting, then the bytes of a file.

#include <vector>

#include "fuzz_input.hpp"
#include "spool/format.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::spool;

struct Seen {
  Sequence sequence;
  std::size_t at, size;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> scan(Bytes segment, std::size_t window_bytes, std::uint32_t seed, Sequence below) {
  std::vector<Seen> seen;
  RecordScanner scanner(seed, 0, below, segment.size());
  std::size_t offset = 0, size = window_bytes;
  for (auto found = RecordScanner::Found::more; found != RecordScanner::Found::end;) {
    const auto window = segment.subspan(offset, std::min(size, segment.size() - offset));
    std::size_t at = 0;
    Record record;
    do {
      found = scanner.next(window, at, offset + window.size() == segment.size(), record);
      if (found != RecordScanner::Found::record) continue;
      fuzz::require(record.bytes.data() >= window.data() &&
                        record.bytes.data() + record.bytes.size() <= window.data() + window.size(),
                    "a record lies outside of its window");
      fuzz::require(record.sequence < below && (seen.empty() || record.sequence > seen.back().sequence),
                    "sequences do not ascend");
      seen.push_back({record.sequence, static_cast<std::size_t>(record.bytes.data() - segment.data()),
                      record.bytes.size()});
    } while (found == RecordScanner::Found::record);
    fuzz::require(found == RecordScanner::Found::end || at > 0 || scanner.wanted() > window.size(),
                  "it makes no progress");
    offset += std::min(at, window.size());
    size = std::max(window_bytes, scanner.wanted());
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto setting = input.byte();
  const std::size_t window_bytes = 32 + 8 * std::size_t{input.byte()};
  const Bytes bytes = input.rest();
  SegmentHeader header;
  if (decode(bytes, header) == Soundness::sound) {
    SegmentHeader again;
    fuzz::require(decode(encode(header), again) == Soundness::sound && again == header, "a header changes");
  }
  Cursor cursor;
  static_cast<void>(decode(bytes, cursor));
  // A checksum is hard to guess: the input's records are given theirs, unless the setting says not to.
  std::vector<std::byte> segment(bytes.begin(), bytes.end());
  segment.resize(segment.size() & ~std::size_t{7});
  const auto seed = record_seed(setting);
  for (std::size_t at = 0; !(setting & 1) && at + record_header_bytes <= segment.size();) {
    const std::size_t entry = std::min<std::size_t>(std::to_integer<std::size_t>(segment[at]),
                                                    segment.size() - at - record_header_bytes);
    if (std::to_integer<int>(segment[at + 1]) < 200) {
      seal_record(&segment[at], entry, {std::to_integer<Sequence>(segment[at + 8]) + 1, 0, 0, {}}, seed);
    }
    at += static_cast<std::size_t>(record_bytes(entry));
  }
  const Sequence below = setting & 2 ? ~Sequence{0} : 100;
  fuzz::require(scan(segment, window_bytes, seed, below) == scan(segment, segment.size() + 8, seed, below),
                "what is found depends on the window");
  return 0;
}
