// Opening a log: look at everything without touching it, refuse what is not for us, then put it in order.

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <map>
#include <tuple>

#include "spool/log.hpp"
#include "spool/text.hpp"

namespace fulmar::spool {
namespace {

constexpr std::uint64_t segment_bytes_min = 64 << 10;
constexpr std::uint64_t segment_bytes_usual = 4 << 20;
constexpr std::uint64_t segment_bytes_limit = 1 << 30;
constexpr std::size_t scan_bytes = 256 << 10;

// Is it the file that fails, or this process or the machine for now? The latter says nothing about the file.
bool is_passing(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == EACCES || error == EPERM;
}

}  // namespace

struct Log::Found {
  std::vector<Segment> segments;
  std::vector<FileSystem::Item> damaged;
  std::vector<FileSystem::Item> spares;
  std::optional<Cursor> cursor;
  std::size_t cursor_slot = 0;
  bool cursor_exists = false;
  bool cursor_half_written = false;
};

Result<void> Options::validate() const {
  if (directory.empty()) return fail(Errc::invalid_config, "spool directory is empty: name a directory");
  if (bytes_max < 16 * segment_bytes_min) {
    return fail(Errc::invalid_config,
                text("spool bound of ", bytes_max, " bytes is too small: give at least 1048576 (1 MiB)"));
  }
  if (segment_bytes && (!std::has_single_bit(segment_bytes) || segment_bytes < segment_bytes_min ||
                        segment_bytes > std::min(segment_bytes_limit, bytes_max / 16))) {
    return fail(Errc::invalid_config,
                text("spool segments of ", segment_bytes,
                     " bytes: use a power of two from 65536 to a sixteenth of the bound of ", bytes_max));
  }
  if (age_max && age_max->count() <= 0) {
    return fail(Errc::invalid_config,
                text("maximum age of ", age_max->count(), " ms: give more than 0, or none"));
  }
  return {};
}

std::uint64_t Options::effective_segment_bytes() const {
  if (segment_bytes) return segment_bytes;
  return std::clamp(std::bit_floor(bytes_max / 16), segment_bytes_min,
                    std::clamp(std::bit_floor(bytes_max / 256), segment_bytes_usual, segment_bytes_limit));
}

std::string_view to_string(Refusal refusal) {
  switch (refusal) {
    case Refusal::full: return "spool full";
    case Refusal::too_large: return "too large for the spool";
    case Refusal::failing: return "spool failing";
  }
  return "refused";
}

Log::Log(FileSystem& files, Options options, EventSink events, std::unique_ptr<FileSystem::Lock> lock)
    : files_(files),
      options_(std::move(options)),
      segment_bytes_(options_.effective_segment_bytes()),
      tail_max_(static_cast<std::size_t>(std::clamp<std::uint64_t>(
          options_.unsynced_bytes_max, 1 << 15, segment_bytes_ - 2 * segment_header_bytes))),
      events_(std::move(events)),
      lock_(std::move(lock)) {}

std::string Log::describe(std::string_view name, int error) const {
  return text(path(name).string(), ": ",
              std::strerror(error));  // NOLINT(concurrency-mt-unsafe): glibc's is safe
}

Result<std::unique_ptr<Log>> Log::open(FileSystem& files, Options options, std::int64_t now_ms,
                                       EventSink events) {
  if (auto valid = options.validate(); !valid) return std::unexpected(valid.error());
  const auto directory = options.directory.string();
  if (const auto made = files.make_directories(options.directory); !made) {
    return fail(Errc::io_error, text("spool directory ", directory, " cannot be made: ",
                                     std::strerror(made.error())));  // NOLINT(concurrency-mt-unsafe)
  }
  auto lock = files.lock(options.directory / "lock");
  if (!lock) {
    const auto& refused = lock.error();
    if (refused.error == EWOULDBLOCK) {
      return fail(Errc::io_error,
                  text("spool directory ", directory, " is in use by ",
                       refused.held_by.empty() ? "another process" : "process " + refused.held_by,
                       ": stop it, or use another directory"));
    }
    return fail(Errc::io_error, text("spool directory ", directory, " cannot be locked: ",
                                     std::strerror(refused.error)));  // NOLINT(concurrency-mt-unsafe)
  }
  std::unique_ptr<Log> log(new Log(files, std::move(options), std::move(events), std::move(*lock)));
  if (auto started = log->start(now_ms); !started) {
    log->failing_ = true;  // leave everything as it is
    return std::unexpected(started.error());
  }
  return log;
}

Log::~Log() {
  if (failing_) return;
  if (active_) std::ignore = push_tail();
  std::ignore = write_cursor(false);
}

Result<void> Log::start(std::int64_t now_ms) {
  if (const auto kind = files_.remote_kind(options_.directory)) {
    tell(Level::warning, text("spool directory ", options_.directory.string(), " is on ", *kind,
                              ", where a lock or a sync may not hold what it promises: use a local disk"));
  }
  auto found = survey();
  if (!found) return std::unexpected(found.error());
  adopt_segments(*found);
  adopt_cursor(*found);

  const auto last = find_end();
  if (!last) return std::unexpected(last.error());
  next_ = std::max({*last, acks_.highest(), found->cursor ? found->cursor->next - 1 : Sequence{0}}) + 1;
  lose(segments_.empty() ? "" : segments_.back().name, *last + 1, next_ - 1);
  written_ = synced_ = next_ - 1;
  if (found->cursor) adopt_mark(*found->cursor);
  position_ = position_of(acks_.low() + 1);
  wanted_ = acks_.low() + 1;

  if (const auto saved = save_cursor(true); !saved) tell(Level::error, saved.error().message);
  drop_aged(now_ms);
  if (spares_.empty() && !active_ && may_allocate(now_ms)) std::ignore = add_spare(now_ms);
  return {};
}

// Reads and changes nothing.
Result<Log::Found> Log::survey() {
  const auto items = files_.list(options_.directory);
  if (!items) return fail(Errc::io_error, "spool directory cannot be read: " + describe("", items.error()));
  Found found;
  for (const auto& item : *items) {
    if (const auto number = parse_segment_name(item.name)) {
      next_number_ = std::max(next_number_, *number + 1);
      if (auto seen = survey_segment(found, item); !seen) return std::unexpected(seen.error());
    } else if (const auto spare = parse_spare_name(item.name)) {
      next_spare_ = std::max(next_spare_, *spare + 1);
      found.spares.push_back(item);
    } else if (item.name == "cursor") {
      if (auto seen = survey_cursor(found); !seen) return std::unexpected(seen.error());
    } else if (item.name == "cursor.new") {
      found.cursor_half_written = true;
    }
  }
  return found;
}

namespace {

std::unexpected<Error> refuse_version(const std::string& path) {
  return fail(Errc::io_error,
              text(path, " is of another version of the spool's format than ", format_version,
                   ", and was left alone: use the program that wrote it, or another directory"));
}

}  // namespace

Result<void> Log::survey_segment(Found& found, const FileSystem::Item& item) {
  auto file = files_.open(path(item.name), FileSystem::Mode::read);
  if (!file) {
    if (is_passing(file.error()))
      return fail(Errc::io_error, "cannot open " + describe(item.name, file.error()));
    found.damaged.push_back(item);
    return {};
  }
  // The copy at the end counts when the one at the start does not.
  const std::uint64_t places[] = {0, item.size - std::min<std::uint64_t>(item.size, segment_header_bytes)};
  Segment segment;
  bool foreign = false;
  for (const auto place : places) {
    std::array<std::byte, segment_header_bytes> bytes{};
    const auto got = (*file)->read(place, bytes);
    if (!got) continue;
    const Soundness soundness = decode(Bytes(bytes).first(*got), segment.header);
    foreign |= soundness == Soundness::foreign;
    const auto size = segment.header.bytes;
    if (soundness != Soundness::sound || size < segment_bytes_min || size > segment_bytes_limit) continue;
    segment.name = item.name;
    segment.seed = record_seed(segment.header.epoch);
    segment.damaged = item.size != size;
    segment.end = std::min(item.size, size - segment_header_bytes) & ~std::uint64_t{record_alignment - 1};
    found.segments.push_back(std::move(segment));
    return {};
  }
  if (foreign) return refuse_version(path(item.name).string());
  found.damaged.push_back(item);
  return {};
}

Result<void> Log::survey_cursor(Found& found) {
  found.cursor_exists = true;
  auto file = files_.open(path("cursor"), FileSystem::Mode::read);
  if (!file) {
    if (is_passing(file.error()))
      return fail(Errc::io_error, "cannot open " + describe("cursor", file.error()));
    return {};
  }
  bool foreign = false;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    std::vector<std::byte> bytes(cursor_slot_bytes);
    const auto got = (*file)->read(slot * cursor_slot_bytes, bytes);
    if (!got) continue;
    Cursor cursor;
    const Soundness soundness = decode(Bytes(bytes).first(*got), cursor);
    foreign |= soundness == Soundness::foreign;
    if (soundness != Soundness::sound) continue;
    if (found.cursor && found.cursor->generation >= cursor.generation) continue;
    found.cursor = cursor;
    found.cursor_slot = slot;
  }
  if (!found.cursor && foreign) return refuse_version(path("cursor").string());
  return {};
}

void Log::adopt_segments(Found& found) {
  // Whose log is this? What most files say; the cursor decides a tie.
  std::map<std::uint64_t, std::size_t> votes;
  for (const auto& segment : found.segments) ++votes[segment.header.identity];
  identity_ = found.cursor ? found.cursor->identity : files_.random();
  std::size_t most = votes.contains(identity_) ? votes[identity_] : 0;
  for (const auto& [identity, count] : votes) {
    if (count <= most) continue;
    most = count;
    identity_ = identity;
  }
  if (found.cursor && found.cursor->identity != identity_) found.cursor.reset();
  if (found.cursor_exists && !found.cursor) {
    tell(Level::error,
         text(path("cursor").string(),
              " is damaged or of another spool: entries that were acknowledged are sent again"));
    quarantine("cursor", cursor_file_bytes);
  }
  if (found.cursor_half_written) std::ignore = files_.remove(path("cursor.new"));

  for (const auto& item : found.damaged) {
    tell(Level::error, text(path(item.name).string(), " has no sound header: its entries are lost"));
    quarantine(item.name, item.size);
  }
  std::ranges::sort(found.segments, {},
                    [](const Segment& segment) { return std::pair(segment.header.number, segment.name); });
  for (auto& segment : found.segments) {
    next_number_ = std::max(next_number_, segment.header.number + 1);
    const auto* before = segments_.empty() ? nullptr : &segments_.back().header;
    if (segment.header.identity != identity_ ||
        (before && (before->number == segment.header.number || before->first > segment.header.first))) {
      tell(Level::error, text(path(segment.name).string(), " belongs to another spool or another time"));
      quarantine(segment.name, segment.header.bytes);
      continue;
    }
    segments_.push_back(std::move(segment));
  }
  std::ranges::sort(found.spares, {}, &FileSystem::Item::name);
  for (auto& spare : found.spares) {
    if (spare.size == segment_bytes_ && spares_.size() < 2) {
      spares_.push_back({spare.name, spare.size});
    } else {
      std::ignore = files_.remove(path(spare.name));
    }
  }
}

void Log::adopt_cursor(const Found& found) {
  if (found.cursor) {
    if (auto file = files_.open(path("cursor"), FileSystem::Mode::read_write))
      cursor_file_ = std::move(*file);
    acks_ = Acknowledgements(*found.cursor);
    cursor_slot_ = found.cursor_slot;
    generation_ = found.cursor->generation;
    next_number_ = std::max(next_number_, found.cursor->segment);
  }
  if (segments_.empty()) return;
  // A segment below the oldest that is missing was given back, unless a damaged one was just set aside.
  const auto gone = acks_.skip(acks_.low() + 1, segments_.front().header.first - 1);
  if (!found.damaged.empty()) stats_.lost += gone;
}

// The cursor's place saves looking for the oldest entry from the start of its segment. It is believed only when the very
// entry it was made for is there: entries that were not synced may have made way for others since.
void Log::adopt_mark(const Cursor& cursor) {
  for (std::size_t index = 0; index < segments_.size(); ++index) {
    const auto& header = segments_[index].header;
    if (header.number != cursor.segment || cursor.after < header.first - 1 || cursor.after > cursor.low)
      continue;
    if (cursor.offset < segment_header_bytes || cursor.offset % record_alignment != 0) continue;
    if (cursor.offset > limit(index) - std::min<std::uint64_t>(limit(index), record_header_bytes)) continue;
    std::array<std::byte, record_header_bytes> record{};
    if (fill(index, cursor.offset, record) && sequence_of(record) == cursor.after + 1) {
      marks_.push_back({cursor.segment, cursor.offset, cursor.after});
    }
  }
}

// Scans the last segment, and goes on appending to it where its records end. Returns the last sequence there is.
Result<Sequence> Log::find_end() {
  if (segments_.empty()) return Sequence{0};
  Segment& segment = segments_.back();
  auto file = files_.open(path(segment.name), FileSystem::Mode::read_write);
  const bool writable = file.has_value();
  if (!file) file = files_.open(path(segment.name), FileSystem::Mode::read);
  if (!file) return fail(Errc::io_error, "cannot open " + describe(segment.name, file.error()));

  RecordScanner scanner(segment.seed, segment.header.first - 1, ~Sequence{0}, segment.header.bytes);
  std::vector<std::byte> buffer(scan_bytes);
  std::uint64_t offset = segment_header_bytes, end = offset;
  bool readable = true;
  for (auto found = RecordScanner::Found::more; found != RecordScanner::Found::end;) {
    const auto left = segment.end - std::min(offset, segment.end);
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left));
    const auto filled = fill_from_file(**file, segment.name, offset, {buffer.data(), count});
    if (!filled) return fail(Errc::io_error, "cannot read " + describe(segment.name, filled.error()));
    readable = readable && *filled;
    std::size_t at = 0;
    Record record;
    do {
      found = scanner.next({buffer.data(), count}, at, count == left, record);
      if (found == RecordScanner::Found::record) end = offset + at;
    } while (found == RecordScanner::Found::record);
    offset += at;
    if (scanner.wanted() > buffer.size()) buffer.resize(scanner.wanted());
  }
  // Not where something is wrong with the file or the disk, nor in a segment of another size than is used now.
  const bool usable = writable && readable && !segment.damaged && segment.header.bytes == segment_bytes_;
  if (usable && (*file)->sync_data()) {  // what is there may be in the kernel only
    active_ = std::move(*file);
    tail_at_ = end;
    segment_is_new_ = true;
  } else {
    segment.end = end;
    segment.poisoned = true;
  }
  return scanner.last();
}

}  // namespace fulmar::spool
