// Reading: the segments in order, each in large pieces, past whatever is damaged.

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "spool/log.hpp"
#include "spool/text.hpp"

namespace fulmar::spool {
namespace {

constexpr Sequence mark_distance = 64;
constexpr std::uint64_t salvage_bytes = 4096;  // what is given up around a place that cannot be read

}  // namespace

Sequence Log::below(std::size_t index) const {
  if (index + 1 < segments_.size()) return segments_[index + 1].header.first;
  return active_ ? next_ : synced_ + 1;
}

std::uint64_t Log::limit(std::size_t index) const {
  return is_active(index) ? tail_at_ + tail_.size() : segments_[index].end;
}

Log::Position Log::position_of(Sequence sequence) const {
  auto after =
      std::ranges::upper_bound(segments_, sequence, {}, [](const Segment& s) { return s.header.first; });
  if (after == segments_.begin()) return {next_number_, segment_header_bytes, next_ - 1};
  const auto& header = std::prev(after)->header;
  Position best{header.number, segment_header_bytes, header.first - 1};
  for (const auto& mark : marks_) {
    if (mark.segment == header.number && mark.after < sequence && mark.offset > best.offset) best = mark;
  }
  return best;
}

void Log::rewind() {
  wanted_ = acks_.low() + 1;
  position_ = position_of(wanted_);
}

void Log::skip_through(Sequence sequence) {
  if (sequence < wanted_) return;
  wanted_ = std::min(sequence, next_ - 1) + 1;
  if (position_.after + 1 >= wanted_) return;
  const Position there = position_of(wanted_);
  if (std::pair(there.segment, there.offset) > std::pair(position_.segment, position_.offset))
    position_ = there;
}

bool Log::read_to_end() const {
  if (wanted_ == next_) return true;
  return passed_segments() && (active_ || tail_.empty());
}

// read() is behind the last record that is in a file.
bool Log::passed_segments() const {
  // The segment it was in may have been given up.
  if (segments_.empty() || position_.segment > segments_.back().header.number) return true;
  return position_.segment == segments_.back().header.number &&
         position_.after + 1 >= below(segments_.size() - 1);
}

Result<void> Log::read(ReadBatch& batch, std::int64_t now_ms) {
  batch.entries_.clear();
  if (auto done = read_segments(batch, now_ms); !done || !batch.empty()) return done;
  if (!active_ && passed_segments()) read_tail(batch, now_ms);
  return {};
}

Result<void> Log::read_segments(ReadBatch& batch, std::int64_t now_ms) {
  while (batch.empty()) {
    const auto segment = std::ranges::lower_bound(segments_, position_.segment, {},
                                                  [](const Segment& s) { return s.header.number; });
    if (segment == segments_.end()) return {};
    const auto index = static_cast<std::size_t>(segment - segments_.begin());
    if (segment->header.number != position_.segment) {
      position_ = {segment->header.number, segment_header_bytes, segment->header.first - 1};
    }
    const auto progress = read_segment(batch, index, now_ms);
    if (!progress) return fail(Errc::io_error, "cannot read " + describe(segment->name, progress.error()));
    if (*progress == Progress::blocked) return {};
  }
  return {};
}

// Reads until the batch is filled, or this segment's records are at an end. `blocked`: there is no more to be had now.
Io<Log::Progress> Log::read_segment(ReadBatch& batch, std::size_t index, std::int64_t now_ms) {
  const Sequence end_sequence = below(index);
  const std::uint64_t end = limit(index);
  RecordScanner scanner(segments_[index].seed, position_.after, end_sequence, segments_[index].header.bytes);
  auto& buffer = batch.buffer_;
  if (buffer.size() < batch.target_bytes_) buffer.resize(batch.target_bytes_);

  for (;;) {
    const std::uint64_t base = position_.offset;
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - std::min(base, end)));
    if (position_.after + 1 < end_sequence) {
      if (auto filled = fill(index, base, {buffer.data(), count}); !filled)
        return std::unexpected(filled.error());
    }
    std::size_t at = 0;
    for (;;) {
      Record record;
      const std::size_t before = at;
      const Sequence last = scanner.last();
      const auto found = scanner.next({buffer.data(), count}, at, base + count >= end, record);
      if (found == RecordScanner::Found::record) {
        if (record.sequence > acks_.window_end()) {
          position_.offset = base + before;
          return Progress::blocked;
        }
        if (record.sequence != last + 1 && lose(segments_[index].name, last + 1, record.sequence - 1)) {
          segments_[index].damaged = true;
        }
        const auto offset =
            static_cast<std::uint64_t>(record.bytes.data() - buffer.data()) - record_header_bytes + base;
        if (marks_.empty() || record.sequence > marks_.back().after + mark_distance) {
          marks_.push_back({segments_[index].header.number, offset, record.sequence - 1});
        }
        position_.after = record.sequence;
        take(batch, record, now_ms);
        continue;
      }
      if (found == RecordScanner::Found::end) {
        if (lose(segments_[index].name, scanner.last() + 1, end_sequence - 1))
          segments_[index].damaged = true;
        position_.after = end_sequence - 1;
        if (index + 1 == segments_.size()) {
          position_.offset = end;
          return Progress::blocked;
        }
        const auto& next = segments_[index + 1].header;
        position_ = {next.number, segment_header_bytes, next.first - 1};
        return Progress::on;
      }
      break;  // more
    }
    position_.offset = base + at;
    if (!batch.empty()) return Progress::on;
    if (scanner.wanted() > buffer.size()) buffer.resize(scanner.wanted());
  }
}

// What no file has taken, from memory.
void Log::read_tail(ReadBatch& batch, std::int64_t now_ms) {
  auto& buffer = batch.buffer_;
  std::size_t used = 0;
  for (std::size_t at = 0, size = 0; at < tail_.size(); at += size) {
    std::uint32_t length = 0;
    Record record;
    std::memcpy(&length, tail_.data() + at, sizeof length);
    std::memcpy(&record.sequence, tail_.data() + at + 8, 8);
    std::memcpy(&record.stored_ms, tail_.data() + at + 16, 8);
    std::memcpy(&record.expires_ms, tail_.data() + at + 24, 8);
    const std::size_t bytes = length - record_header_bytes;
    size = static_cast<std::size_t>(record_bytes(bytes));
    if (record.sequence < wanted_) continue;
    if (record.sequence > acks_.window_end()) return;
    if (used == 0) buffer.resize(std::max({buffer.size(), batch.target_bytes_, bytes}));
    if (used + bytes > buffer.size()) return;
    if (bytes > 0) std::memcpy(buffer.data() + used, tail_.data() + at + record_header_bytes, bytes);
    record.bytes = {buffer.data() + used, bytes};
    used += bytes;
    take(batch, record, now_ms);
  }
}

void Log::take(ReadBatch& batch, const Record& record, std::int64_t now_ms) {
  if (record.sequence < wanted_) return;
  wanted_ = record.sequence + 1;
  if (acks_.is_acknowledged(record.sequence)) return;
  if (options_.age_max && now_ms - record.stored_ms > options_.age_max->count()) {
    stats_.dropped_age += acks_.skip(record.sequence, record.sequence);
    cursor_dirty_ = cursor_unsynced_ = true;
    return;
  }
  batch.entries_.push_back({record.sequence, record.stored_ms, record.expires_ms,
                            acks_.is_released(record.sequence), record.bytes});
}

// Entries that are not there and were not done with either. Returns how many.
std::uint64_t Log::lose(const std::string& where, Sequence from, Sequence to) {
  const auto lost = from <= to ? acks_.skip(from, to) : 0;
  if (!lost) return 0;
  stats_.lost += lost;
  cursor_dirty_ = cursor_unsynced_ = true;
  tell(Level::error, text(path(where).string(), ": ", lost, " entries are lost, of numbers ", from, " to ",
                          to, ": damaged, or not synced before a crash"));
  return lost;
}

// The bytes from `offset` on, from the file and from memory; bytes that cannot be read are zeros.
Io<void> Log::fill(std::size_t index, std::uint64_t offset, std::span<std::byte> into) {
  const Segment& segment = segments_[index];
  if (is_active(index)) {
    const auto stored =
        static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), tail_at_ - std::min(tail_at_, offset)));
    if (stored) {
      const auto read = fill_from_file(*active_, segment.name, offset, into.first(stored));
      if (!read) return std::unexpected(read.error());
    }
    if (stored < into.size()) {
      std::memcpy(into.data() + stored, tail_.data() + (offset + stored - tail_at_), into.size() - stored);
    }
    return {};
  }
  if (!reading_ || reading_number_ != segment.header.number) {
    auto file = files_.open(path(segment.name), FileSystem::Mode::read);
    if (!file && file.error() != ENOENT) return std::unexpected(file.error());
    if (!file) {
      std::ranges::fill(into, std::byte{});
      return {};
    }
    reading_ = std::move(*file);
    reading_number_ = segment.header.number;
  }
  const auto read = fill_from_file(*reading_, segment.name, offset, into);
  if (!read) return std::unexpected(read.error());
  return {};
}

Io<bool> Log::fill_from_file(File& file, const std::string& name, std::uint64_t offset,
                             std::span<std::byte> into) {
  const auto got = file.read(offset, into);
  if (got) {
    std::ranges::fill(into.subspan(*got), std::byte{});
    return true;
  }
  if (got.error() != EIO) return std::unexpected(got.error());
  tell(Level::error, "cannot read a part of " + describe(name, got.error()));
  while (!into.empty()) {
    const auto size = static_cast<std::size_t>(
        std::min<std::uint64_t>(into.size(), salvage_bytes - offset % salvage_bytes));
    const auto piece = file.read(offset, into.first(size));
    std::ranges::fill(into.subspan(piece.value_or(0), size - piece.value_or(0)), std::byte{});
    offset += size;
    into = into.subspan(size);
  }
  return false;
}

}  // namespace fulmar::spool
