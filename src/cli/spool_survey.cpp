#include "cli/spool_survey.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>

#include "client/stored_message.hpp"
#include "spool/acknowledgements.hpp"

namespace fulmar::cli {
namespace {

using spool::Inspector;
using spool::Sequence;

constexpr std::size_t gaps_max = 100'000;

std::unexpected<Error> refuse_version(const std::filesystem::path& path) {
  return fail(Errc::io_error, path.string() + " is of another version of the spool's format than " +
                                  std::to_string(spool::format_version) +
                                  ": use the fulmar of the program that wrote it");
}

// A segment of another version has no number that this one knows; one of another spool has.
bool is_other_version(const Inspector::Segment& segment) {
  return segment.state == Inspector::State::foreign && segment.number == 0;
}

struct CursorState {
  bool exists = false, sound = false, other_version = false;
};

CursorState look_at_cursor(const std::filesystem::path& path) {
  CursorState state;
  const auto file = spool::posix_file_system().open(path, spool::FileSystem::Mode::read);
  if (!file) {
    state.exists = file.error() != ENOENT;
    return state;
  }
  state.exists = true;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    std::array<std::byte, spool::cursor_slot_bytes> bytes{};
    spool::Cursor cursor;
    const auto got = (*file)->read(slot * spool::cursor_slot_bytes, bytes);
    if (!got) continue;
    const auto soundness = spool::decode(spool::Bytes(bytes).first(*got), cursor);
    state.sound = state.sound || soundness == spool::Soundness::sound;
    state.other_version = state.other_version || soundness == spool::Soundness::foreign;
  }
  state.other_version = state.other_version && !state.sound;
  return state;
}

// Asking with flock() could get in the way of a process that starts just now; the kernel's own list does not. The process
// id in the lock file alone proves nothing: it stays when the process has gone.
std::optional<long> holder_of(const std::filesystem::path& lock) {
  struct stat status{};
  long process = 0;
  if (stat(lock.c_str(), &status) != 0 || !(std::ifstream(lock) >> process)) return std::nullopt;
  // 1: FLOCK  ADVISORY  WRITE 4711 08:01:393217 0 EOF
  std::ifstream locks("/proc/locks");
  const auto place = ":" + std::to_string(status.st_ino);
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, mode, access, file;
    long holder = 0;
    if (words >> number >> kind >> mode >> access >> holder >> file && kind == "FLOCK" && holder == process &&
        file.ends_with(place)) {
      return holder;
    }
  }
  return std::nullopt;
}

std::string message_range(Sequence from, Sequence to) {
  return from == to ? "message " + std::to_string(from)
                    : "messages " + std::to_string(from) + " to " + std::to_string(to);
}

}  // namespace

Result<SpoolSurvey> SpoolSurvey::open(const std::filesystem::path& directory) {
  std::error_code error;
  const auto status = std::filesystem::status(directory, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return fail(Errc::io_error,
                "no such folder: " + directory.string() + " (give the spool_dir of the client)");
  }
  if (!error && status.type() != std::filesystem::file_type::directory) {
    return fail(Errc::io_error,
                directory.string() + " is no folder: give the one that the spool's files are in");
  }
  auto inspector = Inspector::open(spool::posix_file_system(), directory);
  if (!inspector) return std::unexpected(inspector.error());
  const auto cursor = look_at_cursor(directory / "cursor");
  if (cursor.other_version) return refuse_version(directory / "cursor");
  const auto& segments = inspector->segments();
  if (const auto other = std::ranges::find_if(segments, is_other_version); other != segments.end())
    return refuse_version(directory / other->file);
  if (segments.empty() && !cursor.exists) {
    return fail(Errc::io_error,
                directory.string() + " is no spool: there is neither a segment (*.seg) nor a cursor in it");
  }

  SpoolSurvey survey(directory, std::move(*inspector));
  survey.cursor_unsound_ = cursor.exists && !cursor.sound;
  survey.user_ = holder_of(directory / "lock");
  for (const auto& segment : survey.inspector_.segments()) {
    using State = Inspector::State;
    auto& totals = survey.totals_;
    totals.bytes += segment.bytes;
    if (segment.state == State::spare) {
      ++totals.spares;
    } else if (segment.state == State::set_aside) {
      ++totals.set_aside;
    } else {
      ++totals.segments;
    }
    // The inspector lists those in use first.
    if (segment.state == State::waiting || segment.state == State::acknowledged)
      survey.in_order_ = survey.files_.size() + 1;
    survey.files_.push_back({segment});
  }
  return survey;
}

void SpoolSurvey::add(std::string file, std::string what) {
  ++totals_.findings;
  if (findings_.size() < findings_max) findings_.push_back({std::move(file), std::move(what)});
}

Result<void> SpoolSurvey::read(const Visitor& visit, const Progress& progress) {
  // Acknowledged messages may be missing for good reasons (they were never synced before a crash and then given up).
  const auto acks = cursor() ? spool::Acknowledgements(*cursor()) : spool::Acknowledgements();
  std::vector<Gap> gaps;
  std::uint64_t missing_beyond = 0;
  std::size_t at = 0;
  // What is below the first file was given back, unless a file is there that nobody can read.
  const bool unreadable = std::ranges::any_of(
      files_, [](const File& file) { return file.segment.state == Inspector::State::damaged; });
  Sequence expected = in_order_ && !(unreadable && cursor()) ? files_[0].segment.first : 1;
  const auto miss = [&](Sequence to, bool tail) {
    for (expected = std::max(expected, acks.low() + 1); expected < to; ++expected) {
      if (acks.is_acknowledged(expected)) continue;
      if (!gaps.empty() && gaps.back().file == at && gaps.back().to + 1 == expected) {
        gaps.back().to = expected;
      } else if (gaps.size() == gaps_max) {
        ++missing_beyond;
      } else {
        gaps.push_back({at, expected, expected, tail});
      }
    }
  };
  const auto pass_to = [&](Sequence sequence) {
    while (at + 1 < in_order_ && sequence >= files_[at + 1].segment.first) {
      miss(files_[at + 1].segment.first, false);
      ++at;
    }
  };
  const auto found = inspector_.walk(
      [&](const spool::Entry& entry, bool acknowledged) {
        pass_to(entry.sequence);
        miss(entry.sequence, false);
        expected = std::max(expected, entry.sequence + 1);
        ++files_[at].messages;
        ++totals_.messages;
        if (!acknowledged) {
          ++files_[at].waiting;
          ++totals_.waiting;
          totals_.waiting_bytes += entry.bytes.size();
          if (!totals_.oldest_ms) totals_.oldest_ms = entry.stored_ms;
          if (!read_stored_message(entry.bytes, {}, {})) {
            add(files_[at].segment.file, message_range(entry.sequence, entry.sequence) +
                                             " is of a kind that this version does not know");
          }
        }
        return !visit || visit(entry, acknowledged);
      },
      true,
      [&](std::uint64_t done, std::uint64_t all) {
        if (progress) progress(done, all, totals_.messages);
      });
  if (!found) return std::unexpected(found.error());
  totals_.stopped = found->stopped;
  if (found->stopped) return {};
  pass_to(~Sequence{0});
  if (cursor()) miss(cursor()->next, true);
  if (missing_beyond) {
    totals_.missing += missing_beyond;
    add("and", std::to_string(missing_beyond) + " more messages that were waiting are missing");
  }
  return judge(gaps, *found);
}

Result<void> SpoolSurvey::judge(const std::vector<Gap>& gaps, const Inspector::Findings& found) {
  // As it is now: a process may have acknowledged messages and given files back meanwhile.
  const auto now = Inspector::open(spool::posix_file_system(), directory_);
  if (!now) return std::unexpected(now.error());
  const auto acks = now->cursor() ? spool::Acknowledgements(*now->cursor()) : spool::Acknowledgements();
  std::set<std::string, std::less<>> there;
  for (const auto& segment : now->segments()) there.insert(segment.file);

  if (cursor_unsound_)
    add("cursor", "no sound copy: what is acknowledged is not known, and all messages count as waiting");
  std::set<std::string, std::less<>> explained;
  for (const auto& file : files_) {
    const auto state = file.segment.state;
    const bool of_other = state == Inspector::State::foreign;
    if (!of_other && state != Inspector::State::damaged) continue;
    explained.insert(file.segment.file);
    if (!there.contains(file.segment.file)) continue;
    add(file.segment.file, of_other ? "belongs to another spool; its messages are not read"
                                    : "neither copy of the header is sound; its messages cannot be read");
  }
  for (const auto& gap : gaps) {
    if (gap.tail && user_) continue;  // not written yet
    std::uint64_t missing = 0;
    for (Sequence sequence = gap.from; sequence <= gap.to; ++sequence)
      missing += !acks.is_acknowledged(sequence);
    if (missing == 0) continue;
    totals_.missing += missing;
    // In front of all files: they were in the one that nobody can read.
    const auto unreadable = std::ranges::find(files_, Inspector::State::damaged,
                                              [](const File& one) { return one.segment.state; });
    const bool in_front = unreadable != files_.end() && (in_order_ == 0 || gap.to < files_[0].segment.first);
    const std::string file = in_front         ? unreadable->segment.file
                             : in_order_ == 0 ? "cursor"
                                              : files_[gap.file].segment.file;
    explained.insert(file);
    add(file, message_range(gap.from, gap.to) +
                  (gap.from == gap.to ? ", which was waiting, is" : ", which were waiting, are") +
                  " missing: damaged, or never synced");
  }
  for (const auto& file : found.broken) {
    if (explained.contains(file) || !there.contains(file)) continue;
    explained.insert(file);
    add(file, "bytes between two messages are none: damaged; no message that waits is lost");
  }
  // With gaps these files are those of the gaps, told above or acknowledged by now; without, the disk has refused to read.
  for (const auto& file : found.damaged) {
    if (!gaps.empty() || explained.contains(file) || !there.contains(file)) continue;
    explained.insert(file);
    add(file, "a part of it cannot be read: see the kernel's log for the disk");
  }
  return {};
}

}  // namespace fulmar::cli
