// Appending: entries gather in memory, go to the file in few writes, and stay in memory until a sync has covered them.

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "spool/log.hpp"
#include "spool/text.hpp"

namespace fulmar::spool {
namespace {

constexpr std::int64_t space_retry_ms = 1'000;

bool is_lack_of_space(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

}  // namespace

std::uint64_t Log::entry_bytes_max() const {
  return std::min<std::uint64_t>(tail_max_, segment_bytes_ - 2 * segment_header_bytes) / record_alignment *
             record_alignment -
         record_header_bytes;
}

std::expected<Sequence, Refusal> Log::append(const NewEntry& entry) {
  if (failing_) return std::unexpected(Refusal::failing);
  std::size_t size = 0;
  for (const auto& part : entry.parts) size += part.size();
  if (size > entry_bytes_max()) return std::unexpected(Refusal::too_large);
  const auto needed = static_cast<std::size_t>(record_bytes(size));

  if (active_ && tail_.size() + needed > tail_max_ && !sync()) return std::unexpected(Refusal::failing);
  const auto fits = [&] {
    return active_ &&
           tail_at_ + tail_.size() + needed <= segments_.back().header.bytes - segment_header_bytes;
  };
  if (!fits() && !sync()) return std::unexpected(Refusal::failing);
  if (!fits()) {
    if (const auto refused = rotate(entry.stored_ms)) return std::unexpected(*refused);
    if (!fits()) return std::unexpected(Refusal::failing);
  }

  const std::size_t at = tail_.size();
  tail_.resize(at + needed);
  std::byte* place = tail_.data() + at + record_header_bytes;
  for (const auto& part : entry.parts) {
    if (!part.empty()) std::memcpy(place, part.data(), part.size());
    place += part.size();
  }
  const Sequence sequence = next_++;
  seal_record(tail_.data() + at, size, {sequence, entry.stored_ms, entry.expires_ms, {}},
              segments_.back().seed);
  ++stats_.appended;
  return sequence;
}

Io<void> Log::push_tail() {
  const auto fresh = Bytes(tail_).subspan(tail_written_);
  if (fresh.empty()) return {};
  if (const auto written = write_all(*active_, tail_at_ + tail_written_, fresh); !written) return written;
  tail_written_ = tail_.size();
  written_ = next_ - 1;
  return {};
}

Result<void> Log::write() {
  if (failing_) return std::unexpected(last_error_);
  if (!active_) return {};
  if (const auto written = push_tail(); !written) return repair("cannot write", written.error());
  return {};
}

Result<void> Log::sync() {
  if (failing_) return std::unexpected(last_error_);
  if (!active_ || (tail_.empty() && !segment_is_new_)) return {};
  if (const auto written = push_tail(); !written) return repair("cannot write", written.error());
  ++stats_.syncs;
  if (const auto synced = active_->sync_data(); !synced) {
    ++stats_.failed_syncs;
    return repair("cannot sync", synced.error());
  }
  if (segment_is_new_) {
    if (const auto synced = files_.sync_directory(options_.directory); !synced) {
      ++stats_.failed_syncs;
      return repair("cannot sync the directory of", synced.error());
    }
    segment_is_new_ = false;
  }
  tail_at_ += tail_.size();
  tail_.clear();
  tail_written_ = 0;
  synced_ = written_ = next_ - 1;
  return {};
}

void Log::fail_with(std::string message) {
  failing_ = true;
  last_error_ = {Errc::io_error, std::move(message), std::nullopt};
  tell(Level::error, last_error_.message);
}

Result<void> Log::recover() {
  if (!failing_) return {};
  return repair({}, 0);
}

// The active segment cannot be trusted beyond what is synced. It ends there; what follows is in memory and goes into a
// fresh file, under the same sequences: those in the old file do not count, since a segment ends where the next begins.
Result<void> Log::repair(std::string_view action, int error) {
  if (active_) {
    Segment& broken = segments_.back();
    broken_by_ = text(action, " ", describe(broken.name, error));
    active_.reset();
    broken.end = tail_at_;
    broken.poisoned = true;
    std::erase_if(marks_, [&](const Position& mark) { return mark.after >= synced_; });
    if (broken.header.first > synced_) {
      std::ignore = files_.remove(path(broken.name));
      segments_.pop_back();
    }
  }
  segment_is_new_ = false;
  tail_written_ = 0;
  written_ = synced_;
  failing_ = false;
  if (tail_.empty()) return {};

  const std::int64_t now_ms = [&] {
    std::int64_t stored_ms = 0;
    std::memcpy(&stored_ms, tail_.data() + 16, sizeof stored_ms);
    return stored_ms;
  }();
  auto spare = take_spare(now_ms);
  if (!spare) {
    fail_with(text(broken_by_, "; no other file could be had (", to_string(spare.error()),
                   "): nothing is stored until this is helped"));
    return std::unexpected(last_error_);
  }
  auto moved = begin_segment(std::move(*spare), synced_ + 1, now_ms);
  if (moved) {
    const std::uint32_t seed = segments_.back().seed;
    for (std::size_t at = 0; at < tail_.size();) {
      std::uint32_t length = 0;
      Record record;
      std::memcpy(&length, tail_.data() + at, sizeof length);
      std::memcpy(&record.sequence, tail_.data() + at + 8, 8);
      std::memcpy(&record.stored_ms, tail_.data() + at + 16, 8);
      std::memcpy(&record.expires_ms, tail_.data() + at + 24, 8);
      seal_record(tail_.data() + at, length - record_header_bytes, record, seed);
      at += static_cast<std::size_t>(record_bytes(length - record_header_bytes));
    }
    moved = in_turn([&] { return push_tail(); }, [&] { return active_->sync_data(); },
                    [&] { return files_.sync_directory(options_.directory); });
    ++stats_.syncs;
    if (!moved) {
      ++stats_.failed_syncs;
      active_.reset();
      std::ignore = files_.remove(path(segments_.back().name));
      segments_.pop_back();
      tail_written_ = 0;
      written_ = synced_;
    }
  }
  if (!moved) {
    fail_with(text(broken_by_, "; another file failed too (", std::strerror(moved.error()),
                   "): nothing is stored until this is helped"));  // NOLINT(concurrency-mt-unsafe)
    return std::unexpected(last_error_);
  }
  segment_is_new_ = false;
  tail_at_ += tail_.size();
  tail_.clear();
  tail_written_ = 0;
  synced_ = written_ = next_ - 1;
  tell(Level::warning, text(broken_by_, "; went on in ", segments_.back().name, ", nothing is lost"));
  return {};
}

// Ends the active segment, which is synced, so that only the last segment can have a torn tail, and begins the next one.
std::optional<Refusal> Log::rotate(std::int64_t now_ms) {
  auto spare = take_spare(now_ms);
  if (!spare) return spare.error();
  if (active_) segments_.back().end = tail_at_;
  active_.reset();
  const auto name = spare->name;
  if (const auto begun = begin_segment(std::move(*spare), next_, now_ms); !begun) {
    fail_with("cannot begin a segment in " + describe(name, begun.error()));
    return Refusal::failing;
  }
  // The next one, while there is time: one that is done with, or a new one, so that a disk that is full is noticed before
  // it matters.
  if (spares_.empty() && front_is_consumed(acks_.low())) std::ignore = save_cursor(true);
  if (spares_.empty() && may_allocate(now_ms)) std::ignore = add_spare(now_ms);
  return std::nullopt;
}

std::uint64_t Log::bytes_used() const {
  std::uint64_t bytes = 0;
  for (const auto& segment : segments_) bytes += segment.header.bytes;
  for (const auto& spare : spares_) bytes += spare.bytes;
  return bytes;
}

bool Log::may_allocate(std::int64_t now_ms) const {
  if (no_space_ms_ && now_ms >= *no_space_ms_ && now_ms - *no_space_ms_ < space_retry_ms) return false;
  return bytes_used() + segment_bytes_ <= options_.bytes_max;
}

Io<void> Log::add_spare(std::int64_t now_ms) {
  const std::string name = spare_name(next_spare_++);
  auto made = [&]() -> Io<void> {
    auto file = files_.open(path(name), FileSystem::Mode::create);
    if (!file) return std::unexpected(file.error());
    return in_turn([&] { return (*file)->allocate(segment_bytes_); }, [&] { return (*file)->sync_data(); },
                   [&] { return files_.sync_directory(options_.directory); });
  }();
  if (made) {
    spares_.push_back({name, segment_bytes_});
    no_space_ms_.reset();
    return made;
  }
  std::ignore = files_.remove(path(name));
  if (!no_space_ms_) tell(Level::warning, "no room for another segment: " + describe(name, made.error()));
  no_space_ms_ = now_ms;
  return made;
}

std::expected<Log::Spare, Refusal> Log::take_spare(std::int64_t now_ms) {
  Refusal refusal = Refusal::full;
  if (spares_.empty() && front_is_consumed(acks_.low())) std::ignore = save_cursor(true);
  if (spares_.empty() && may_allocate(now_ms)) {
    const auto added = add_spare(now_ms);
    if (!added && !is_lack_of_space(added.error())) {
      refusal = Refusal::failing;
      last_error_ = {Errc::io_error, "cannot make a segment in " + describe("", added.error()), std::nullopt};
    }
  }
  while (spares_.empty() && options_.overflow == Overflow::drop_oldest) {
    if (!drop_front(stats_.dropped_overflow, "the spool is full")) break;
    // A file that was not fit to be used again has left its place.
    if (spares_.empty() && may_allocate(now_ms)) std::ignore = add_spare(now_ms);
  }
  if (spares_.empty()) return std::unexpected(refusal);
  Spare spare = std::move(spares_.back());
  spares_.pop_back();
  return spare;
}

Io<void> Log::begin_segment(Spare spare, Sequence first, std::int64_t now_ms) {
  Segment segment;
  segment.header = {identity_, next_number_++, files_.random(), first, now_ms, spare.bytes};
  segment.name = segment_name(segment.header.number);
  segment.seed = record_seed(segment.header.epoch);
  segment.end = spare.bytes - segment_header_bytes;
  const auto header = encode(segment.header);
  auto file = files_.open(path(spare.name), FileSystem::Mode::read_write);
  auto begun = [&]() -> Io<void> {
    if (!file) return std::unexpected(file.error());
    return in_turn(
        [&] { return write_all(**file, segment.end, header); }, [&] { return write_all(**file, 0, header); },
        // Before it is named: the header of a life that a crash undid may still be in the file, and would
        // say that this segment begins elsewhere.
        [&] { return (*file)->sync_data(); },
        [&] { return files_.rename(path(spare.name), path(segment.name)); });
  }();
  if (!begun) {
    std::ignore = files_.remove(path(spare.name));
    return begun;
  }
  active_ = std::move(*file);
  segment_is_new_ = true;
  tail_at_ = segment_header_bytes;
  tail_written_ = 0;
  segments_.push_back(std::move(segment));
  return {};
}

Stats Log::stats() const {
  Stats stats = stats_;
  stats.entries = next_ - 1 - acks_.low() - acks_.above_low();
  stats.bytes = bytes_used();
  stats.segments = segments_.size();
  stats.spares = spares_.size();
  if (stats.entries && !segments_.empty()) stats.oldest_ms = segments_.front().header.created_ms;
  return stats;
}

}  // namespace fulmar::spool
