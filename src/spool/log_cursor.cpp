// Acknowledging: in memory, now and then in the cursor, and only then are segments given back.

#include <algorithm>
#include <cerrno>
#include <tuple>

#include "spool/log.hpp"
#include "spool/text.hpp"

namespace fulmar::spool {
namespace {

constexpr std::size_t spares_max = 2;
constexpr std::size_t reclaimed_together = 4;  // segments
constexpr std::size_t quarantined_files_max = 8;

}  // namespace

Acknowledgements::Outcome Log::acknowledge(Sequence sequence) {
  if (sequence >= next_) return Acknowledgements::Outcome::beyond_window;
  const auto outcome = acks_.acknowledge(sequence);
  if (outcome == Acknowledgements::Outcome::done) {
    ++stats_.acknowledged;
    cursor_dirty_ = cursor_unsynced_ = true;
  }
  return outcome;
}

void Log::forget_releases() {
  cursor_dirty_ = cursor_unsynced_ = true;
  acks_.forget_releases();
}

Acknowledgements::Outcome Log::release(Sequence sequence) {
  if (sequence >= next_) return Acknowledgements::Outcome::beyond_window;
  const auto outcome = acks_.release(sequence);
  if (outcome == Acknowledgements::Outcome::done) cursor_dirty_ = cursor_unsynced_ = true;
  return outcome;
}

Result<void> Log::save_cursor(bool synced) {
  synced = synced || is_time_to_reclaim();
  const bool news = cursor_dirty_ || (synced && cursor_unsynced_);
  if (const auto written = news ? write_cursor(synced) : Io<void>{}; !written) {
    return fail(Errc::io_error,
                "cannot save what was acknowledged in " + describe("cursor", written.error()));
  }
  reclaim(cursor_low_);
  return {};
}

Result<std::uint64_t> Log::purge() {
  const auto purged = acks_.skip(acks_.low() + 1, next_ - 1);
  cursor_dirty_ = cursor_unsynced_ = true;
  if (auto saved = save_cursor(true); !saved) return std::unexpected(saved.error());
  return purged;
}

Io<void> Log::write_cursor(bool synced) {
  while (marks_.size() > 1 && marks_[1].after <= acks_.low()) marks_.pop_front();
  Cursor cursor;
  cursor.generation = ++generation_;
  cursor.identity = identity_;
  cursor.next = next_;
  acks_.store_in(cursor);
  const Position position = position_of(cursor.low + 1);
  cursor.segment = position.segment;
  cursor.offset = position.offset;
  cursor.after = position.after;
  const auto slot = encode(cursor);

  // Never over the one cursor that is known to be on the medium, however many are written without a sync.
  const std::size_t place = 1 - cursor_slot_;
  Io<void> done = std::unexpected(ENOENT);
  if (cursor_file_) {
    done = write_all(*cursor_file_, place * cursor_slot_bytes, slot);
    if (done && synced) {
      ++stats_.syncs;
      done = cursor_file_->sync_data();
      if (done) cursor_slot_ = place;
      if (!done) ++stats_.failed_syncs;
    }
  }
  if (!done) {
    done = renew_cursor_file(slot);
    synced = true;
  }
  if (!done) return done;
  cursor_dirty_ = false;
  if (synced) {
    cursor_unsynced_ = false;
    cursor_low_ = cursor.low;
  }
  return {};
}

// A file in which nothing has failed yet takes the old one's place.
Io<void> Log::renew_cursor_file(std::span<const std::byte> slot) {
  cursor_file_.reset();
  std::ignore = files_.remove(path("cursor.new"));
  auto file = files_.open(path("cursor.new"), FileSystem::Mode::create);
  if (!file) return std::unexpected(file.error());
  const auto made = in_turn([&] { return (*file)->allocate(cursor_file_bytes); },
                            [&] { return write_all(**file, 0, slot); }, [&] { return (*file)->sync_data(); },
                            [&] { return files_.rename(path("cursor.new"), path("cursor")); },
                            [&] { return files_.sync_directory(options_.directory); });
  if (!made) {
    std::ignore = files_.remove(path("cursor.new"));
    return made;
  }
  cursor_file_ = std::move(*file);
  cursor_slot_ = 0;
  return {};
}

bool Log::front_is_consumed(Sequence low) const {
  return segments_.size() > 1 && segments_[1].header.first - 1 <= low;
}

// A segment is given back after a sync of the cursor, which costs as much for one as for several: several at a time, then,
// unless one is needed, or nothing waits any more.
bool Log::is_time_to_reclaim() const {
  const Sequence low = acks_.low();
  if (!front_is_consumed(low)) return false;
  return spares_.empty() || low + 1 == next_ ||
         (segments_.size() > reclaimed_together && segments_[reclaimed_together].header.first - 1 <= low);
}

void Log::reclaim(Sequence low) {
  while (front_is_consumed(low)) {
    Segment segment = std::move(segments_.front());
    segments_.pop_front();
    retire(std::move(segment));
  }
}

void Log::retire(Segment segment) {
  if (reading_number_ == segment.header.number) reading_.reset();
  std::erase_if(marks_, [&](const Position& mark) { return mark.segment == segment.header.number; });
  no_space_ms_.reset();
  if (segment.damaged) return quarantine(segment.name, segment.header.bytes);
  const bool reuse = !segment.poisoned && segment.header.bytes == segment_bytes_ &&
                     spares_.size() < spares_max && bytes_used() + segment_bytes_ <= options_.bytes_max;
  if (reuse) {
    const std::string spare = spare_name(next_spare_++);
    if (files_.rename(path(segment.name), path(spare))) {
      spares_.push_back({spare, segment.header.bytes});
      return;
    }
  }
  if (const auto removed = files_.remove(path(segment.name)); !removed && removed.error() != ENOENT) {
    tell(Level::warning, "cannot remove " + describe(segment.name, removed.error()));
  }
}

// Gives up the oldest segment with all that is in it; not the last one.
bool Log::drop_front(std::uint64_t& counter, std::string_view why) {
  if (segments_.size() < 2) return false;
  const auto dropped = acks_.skip(acks_.low() + 1, segments_[1].header.first - 1);
  if (dropped) {
    counter += dropped;
    cursor_dirty_ = cursor_unsynced_ = true;
    tell(Level::warning, text(options_.directory.string(), ": ", why, ", ", dropped, " entries of ",
                              segments_.front().name, " dropped"));
  }
  return save_cursor(true).has_value();
}

void Log::drop_aged(std::int64_t now_ms) {
  if (!options_.age_max) return;
  while (segments_.size() > 1 && now_ms - segments_[1].header.created_ms > options_.age_max->count()) {
    if (!drop_front(stats_.dropped_age, "too old")) return;
  }
}

// Out of the way under another name, for a person to look at; a bounded number of such files.
void Log::quarantine(const std::string& name, std::uint64_t bytes) {
  auto bad = name + ".bad";
  std::vector<FileSystem::Item> kept;
  if (auto items = files_.list(options_.directory)) {
    for (auto& item : *items) {
      if (item.name.ends_with(".bad")) kept.push_back(std::move(item));
    }
  }
  std::ranges::sort(kept, {}, &FileSystem::Item::name);
  std::uint64_t kept_bytes = bytes;
  for (const auto& item : kept) kept_bytes += item.size;
  const std::uint64_t bytes_limit = std::max(options_.bytes_max / 8, 2 * bytes);
  for (std::size_t i = 0;
       i < kept.size() && (kept.size() - i >= quarantined_files_max || kept_bytes > bytes_limit); ++i) {
    if (kept[i].name == bad) continue;
    kept_bytes -= kept[i].size;
    std::ignore = files_.remove(path(kept[i].name));
  }
  if (const auto renamed = files_.rename(path(name), path(bad)); !renamed) {
    tell(Level::error, "cannot set aside " + describe(name, renamed.error()));
    return;
  }
  ++stats_.quarantined;
  tell(Level::warning, text(name, " was kept as ", path(bad).string(), " to be looked at"));
}

}  // namespace fulmar::spool
