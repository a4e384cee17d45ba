#include "spool/inspector.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "spool/acknowledgements.hpp"
#include "spool/text.hpp"

namespace fulmar::spool {
namespace {

constexpr std::size_t window_bytes = 256 << 10;

std::string reason(int error) {
  return std::strerror(error);
}  // NOLINT(concurrency-mt-unsafe): glibc's is safe

}  // namespace

Result<Inspector> Inspector::open(FileSystem& files, std::filesystem::path directory) {
  Inspector inspector(files, std::move(directory));
  if (auto surveyed = inspector.survey(); !surveyed) return std::unexpected(surveyed.error());
  return inspector;
}

Result<void> Inspector::survey() {
  const auto items = files_->list(directory_);
  if (!items) {
    return fail(Errc::io_error,
                text("spool directory ", directory_.string(), " cannot be read: ", reason(items.error())));
  }
  struct Sound {
    Segment segment;
    SegmentHeader header;
  };
  std::vector<Sound> sound;
  std::vector<Segment> others;
  for (const auto& item : *items) {
    Segment segment{item.name, State::spare, item.size, 0, 0, 0, 0};
    if (item.name.ends_with(".bad")) {
      segment.state = State::set_aside;
      others.push_back(segment);
      continue;
    }
    if (parse_spare_name(item.name)) {
      others.push_back(segment);
      continue;
    }
    const bool is_cursor = item.name == "cursor";
    if (!is_cursor && !parse_segment_name(item.name)) continue;
    const auto file = files_->open(directory_ / item.name, FileSystem::Mode::read);
    if (!file) {
      if (file.error() == ENOENT) continue;  // given back since
      return fail(Errc::io_error,
                  text("cannot open ", (directory_ / item.name).string(), ": ", reason(file.error())));
    }
    if (is_cursor) {
      for (std::size_t slot = 0; slot < 2; ++slot) {
        std::vector<std::byte> bytes(cursor_slot_bytes);
        const auto got = (*file)->read(slot * cursor_slot_bytes, bytes);
        Cursor cursor;
        if (!got || decode(Bytes(bytes).first(*got), cursor) != Soundness::sound) continue;
        if (!cursor_ || cursor.generation > cursor_->generation) cursor_ = cursor;
      }
      continue;
    }
    segment.state = State::damaged;
    for (const std::uint64_t place :
         {std::uint64_t{0}, item.size - std::min<std::uint64_t>(item.size, segment_header_bytes)}) {
      std::array<std::byte, segment_header_bytes> bytes{};
      SegmentHeader header;
      const auto got = (*file)->read(place, bytes);
      if (!got) continue;
      const auto soundness = decode(Bytes(bytes).first(*got), header);
      if (soundness == Soundness::foreign) segment.state = State::foreign;
      if (soundness != Soundness::sound) continue;
      segment.state = State::waiting;
      segment.number = header.number;
      segment.first = header.first;
      segment.created_ms = header.created_ms;
      sound.push_back({segment, header});
      break;
    }
    if (segment.state != State::waiting) others.push_back(segment);
  }
  std::ranges::sort(sound, {}, [](const Sound& one) { return one.header.number; });
  for (std::size_t i = 0; i < sound.size(); ++i) {
    auto& [segment, header] = sound[i];
    segment.last = i + 1 < sound.size() ? sound[i + 1].header.first - 1
                                        : std::max(cursor_ ? cursor_->next - 1 : 0, header.first - 1);
    if (cursor_ && i + 1 < sound.size() && segment.last <= cursor_->low) segment.state = State::acknowledged;
    if (cursor_ && header.identity != cursor_->identity) segment.state = State::foreign;
    if (segment.state != State::foreign) headers_.push_back(header);
    (segment.state == State::foreign ? others : segments_).push_back(segment);
  }
  std::ranges::sort(others, {}, &Segment::file);
  segments_.insert(segments_.end(), others.begin(), others.end());
  return {};
}

Result<Inspector::Findings> Inspector::walk(const Visitor& visit, bool with_acknowledged,
                                            const Progress& progress) const {
  Findings findings;
  const Acknowledgements acks = cursor_ ? Acknowledgements(*cursor_) : Acknowledgements();
  std::uint64_t all = 0, done = 0;
  for (const auto& header : headers_) all += header.bytes;
  Sequence expected = 0;  // 0: whatever comes first
  const auto miss = [&](Sequence to) {
    for (; expected && expected < to; ++expected) findings.missing += !acks.is_acknowledged(expected);
  };
  for (const auto& segment : segments_) {
    if (segment.state == State::damaged) findings.damaged.push_back(segment.file);
  }
  std::vector<std::byte> buffer(window_bytes);
  for (std::size_t i = 0; i < headers_.size() && !findings.stopped; ++i) {
    const SegmentHeader& header = headers_[i];
    const bool is_last = i + 1 == headers_.size();
    const auto file = files_->open(directory_ / segments_[i].file, FileSystem::Mode::read);
    if (!file) {
      if (file.error() == ENOENT) continue;  // given back since
      return fail(Errc::io_error, text("cannot open ", (directory_ / segments_[i].file).string(), ": ",
                                       reason(file.error())));
    }
    if (expected == 0) expected = cursor_ ? std::max(cursor_->low + 1, header.first) : header.first;
    const auto missing_before = findings.missing;
    const std::uint64_t end =
        std::min(segments_[i].bytes, header.bytes - segment_header_bytes) & ~std::uint64_t{7};
    RecordScanner scanner(record_seed(header.epoch), header.first - 1,
                          is_last ? ~Sequence{0} : headers_[i + 1].first, header.bytes);
    std::uint64_t offset = segment_header_bytes;
    for (auto found = RecordScanner::Found::more; found != RecordScanner::Found::end && !findings.stopped;) {
      const auto left = end - std::min(end, offset);
      const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left));
      const auto got = (*file)->read(offset, {buffer.data(), count});
      std::ranges::fill(std::span(buffer).first(count).subspan(got.value_or(0)), std::byte{});
      if (!got && (findings.damaged.empty() || findings.damaged.back() != segments_[i].file)) {
        findings.damaged.push_back(segments_[i].file);
      }
      std::size_t at = 0;
      Record record;
      while ((found = scanner.next({buffer.data(), count}, at, count == left, record)) ==
             RecordScanner::Found::record) {
        const bool acknowledged = acks.is_acknowledged(record.sequence);
        if (scanner.skipped() && (findings.broken.empty() || findings.broken.back() != segments_[i].file))
          findings.broken.push_back(segments_[i].file);
        if (record.sequence >= expected) miss(record.sequence);
        expected = std::max(expected, record.sequence + 1);
        ++findings.entries;
        if (!acknowledged) {
          ++findings.waiting;
          findings.entry_bytes += record.bytes.size();
          if (findings.waiting == 1) findings.oldest_ms = record.stored_ms;
        }
        if (!visit || (acknowledged && !with_acknowledged)) continue;
        const Entry entry{record.sequence, record.stored_ms, record.expires_ms,
                          acks.is_released(record.sequence), record.bytes};
        if (!visit(entry, acknowledged)) {
          findings.stopped = true;
          break;
        }
      }
      offset += at;
      if (scanner.wanted() > buffer.size()) buffer.resize(scanner.wanted());
      if (progress) progress(done + std::min(offset, header.bytes), all);
    }
    if (!findings.stopped && !is_last) miss(headers_[i + 1].first);
    if (findings.missing != missing_before &&
        (findings.damaged.empty() || findings.damaged.back() != segments_[i].file)) {
      findings.damaged.push_back(segments_[i].file);
    }
    done += header.bytes;
  }
  return findings;
}

}  // namespace fulmar::spool
