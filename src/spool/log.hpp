#pragma once
// Log: an ordered, bounded, crash-safe log of opaque entries in segment files, with one reader and acknowledgements out
// of order. The files are described in docs/spool-format.md.
//
// Not thread-safe: one owner thread. Every function may wait for the disk; Spool (spool.hpp) gives it a thread.
//
// What survives
//   append()  nothing: the entry is in this process's memory.
//   write()   the end of the process, kill -9 included: the entry is in the kernel.
//   sync()    power loss: the entry is on the medium, as far as the medium tells the truth.
// An acknowledgement survives the same way with save_cursor(); one that was not saved is forgotten and its entry is
// read again: at least once.
//
// Invariants
//   1. Sequences are 1, 2, 3, ... and never used again for another entry that was synced, also when the log was empty.
//   2. What is read comes in ascending order and byte for byte as it was appended, or not at all.
//   3. synced() only counts what a sync that did not fail has covered. A sync that failed is never repeated on the same
//      file: what it should have covered is written once more, into another file.
//   4. Segments and spares take at most bytes_max; memory does not depend on how much is stored.
//   5. A file is reused or removed only after a cursor that says so is on the medium.
//   6. Opening reads the cursor, the headers of the segments and the last segment, and no more. Damage does not make it fail.
// Errors: io_error with the path and what to do. A damaged file is renamed to *.bad (at most 8 of them, and an eighth of
// bytes_max on top of it).

#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"
#include "spool/acknowledgements.hpp"
#include "spool/file_system.hpp"
#include "spool/format.hpp"

namespace fulmar::spool {

enum class Overflow : std::uint8_t {
  drop_oldest,  // a whole segment of the oldest entries, at most a sixteenth of the bound
  reject,       // append says full
};

struct Options {
  std::filesystem::path directory{};
  std::uint64_t bytes_max = std::uint64_t{1} << 30;  // at least 1 MiB
  // Power of two from 64 KiB to 1 GiB, at most bytes_max / 16. An entry fits into one segment: entry_bytes_max().
  // 0: 4 MiB, less where bytes_max is below 64 MiB and more where it is above 1 GiB.
  std::uint64_t segment_bytes = 0;
  std::optional<std::chrono::milliseconds> age_max{};  // older entries are dropped
  Overflow overflow = Overflow::drop_oldest;
  // Memory for what is not synced yet; when it is full append() syncs by itself.
  std::size_t unsynced_bytes_max = 4 << 20;

  Result<void> validate() const;
  std::uint64_t effective_segment_bytes() const;
};

enum class Level : std::uint8_t { info, warning, error };
// Told what a person who runs this should know: damage, quarantine, a disk that fails. Called within Log's functions and
// must not call back.
using EventSink = std::function<void(Level, std::string_view)>;

enum class Refusal : std::uint8_t {
  full,       // the bound or the disk; goes away as entries are acknowledged
  too_large,  // does not fit into a segment
  failing,    // the disk does not take what it is given; see recover() and last_error()
};
std::string_view to_string(Refusal refusal);

struct NewEntry {
  std::int64_t stored_ms{};   // now, wall clock
  std::int64_t expires_ms{};  // wall clock; 0: never. Kept, not acted upon
  std::span<const Bytes> parts{};
};

struct Entry {
  Sequence sequence{};
  std::int64_t stored_ms{};
  std::int64_t expires_ms{};
  bool released{};
  Bytes bytes{};
};

// Entries read, and the buffer they point into: valid until the batch is read into again or destroyed.
class ReadBatch {
 public:
  // Reads about as many bytes at a time; an entry larger than that comes alone.
  explicit ReadBatch(std::size_t bytes = 256 << 10) : target_bytes_(bytes) {}

  std::span<const Entry> entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }

 private:
  friend class Log;
  std::size_t target_bytes_;
  std::vector<std::byte> buffer_;
  std::vector<Entry> entries_;
};

struct Stats {
  std::uint64_t entries{};  // appended and not acknowledged, dropped or known to be lost
  std::uint64_t bytes{};    // of all segments and spares
  std::uint64_t segments{};
  std::uint64_t spares{};
  std::int64_t oldest_ms{};  // when the oldest segment was begun; 0 when there is no entry
  // Since it was opened:
  std::uint64_t appended{};
  std::uint64_t acknowledged{};
  std::uint64_t dropped_overflow{};
  std::uint64_t dropped_age{};
  std::uint64_t lost{};         // to damage, or not synced before a crash
  std::uint64_t quarantined{};  // files
  std::uint64_t failed_syncs{};
  std::uint64_t syncs{};
};

class Log {
 public:
  // `now_ms`: wall clock. Fails when another process has the directory, when a file in it is of another version of the
  // format (nothing is touched then), and when the directory cannot be used at all.
  static Result<std::unique_ptr<Log>> open(FileSystem& files, Options options, std::int64_t now_ms,
                                           EventSink events = {});
  ~Log();  // writes and saves the cursor, without a sync
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // --- appending
  // Costs a copy and a checksum; the disk is touched when a segment or the unsynced memory is full.
  std::expected<Sequence, Refusal> append(const NewEntry& entry);
  Result<void> write();
  Result<void> sync();
  Sequence appended() const { return next_ - 1; }
  Sequence written() const { return failing_ ? synced_ : written_; }
  Sequence synced() const { return synced_; }
  std::size_t unwritten_bytes() const { return tail_.size() - tail_written_; }
  std::size_t unsynced_bytes() const { return tail_.size(); }
  std::uint64_t entry_bytes_max() const;

  // After a failure that could not be helped by turning to another file; what was synced is still read, and what was not
  // is kept in memory, and read from there. recover() tries again, with yet another file.
  bool failing() const { return failing_; }
  Result<void> recover();
  const Error& last_error() const { return last_error_; }

  // --- reading
  // The next entries, in order, without those that are acknowledged or too old. Empty at the end, and when the entries
  // read are 8192 ahead of the oldest that is not acknowledged.
  Result<void> read(ReadBatch& batch, std::int64_t now_ms);
  void rewind();                         // to the oldest entry that is not acknowledged
  void skip_through(Sequence sequence);  // what is at or below it is not read until rewind()
  bool read_to_end() const;              // nothing was appended that read() has not passed

  // --- acknowledging; sequences of entries that were appended
  Acknowledgements::Outcome acknowledge(Sequence sequence);
  Acknowledgements::Outcome release(Sequence sequence);
  void forget_releases();  // of all: what they said about the other side holds no more
  bool is_acknowledged(Sequence sequence) const { return acks_.is_acknowledged(sequence); }
  bool is_released(Sequence sequence) const { return acks_.is_released(sequence); }
  Sequence acknowledged_low() const { return acks_.low(); }
  // Writes down what is acknowledged; with `synced`, or when there are segments to give back, to the medium. Segments that
  // are done with are given back four at a time, and at once when one is needed, when nothing waits, and with `synced`.
  Result<void> save_cursor(bool synced);

  // Everything is done with, as if it was acknowledged. Returns how many entries were not.
  Result<std::uint64_t> purge();

  // Drops whole segments that are older than age_max. Cheap; call it now and then.
  void drop_aged(std::int64_t now_ms);

  Stats stats() const;
  const Options& options() const { return options_; }

 private:
  struct Segment {
    SegmentHeader header;
    std::string name;
    std::uint32_t seed{};
    std::uint64_t end{};    // where its records end at the latest
    bool damaged = false;   // to be quarantined
    bool poisoned = false;  // a write or sync failed: not to be used again
  };
  struct Spare {
    std::string name;
    std::uint64_t bytes{};
  };
  struct Position {
    std::uint64_t segment{};
    std::uint64_t offset{};
    Sequence after{};  // records from there on are above it
  };
  struct Found;  // what start-up finds in the directory

  Log(FileSystem& files, Options options, EventSink events, std::unique_ptr<FileSystem::Lock> lock);

  // log_open.cpp
  Result<void> start(std::int64_t now_ms);
  Result<Found> survey();
  Result<void> survey_segment(Found& found, const FileSystem::Item& item);
  Result<void> survey_cursor(Found& found);
  void adopt_segments(Found& found);
  void adopt_cursor(const Found& found);
  void adopt_mark(const Cursor& cursor);
  Result<Sequence> find_end();

  // log_append.cpp
  std::optional<Refusal> rotate(std::int64_t now_ms);
  std::expected<Spare, Refusal> take_spare(std::int64_t now_ms);
  Io<void> add_spare(std::int64_t now_ms);
  bool may_allocate(std::int64_t now_ms) const;
  std::uint64_t bytes_used() const;
  Io<void> begin_segment(Spare spare, Sequence first, std::int64_t now_ms);
  Io<void> push_tail();
  Result<void> repair(std::string_view action, int error);
  void fail_with(std::string message);

  // log_read.cpp
  enum class Progress : std::uint8_t { on, blocked };
  bool is_active(std::size_t index) const { return active_ && index + 1 == segments_.size(); }
  Sequence below(std::size_t index) const;       // the sequences of segment `index` lie below this
  std::uint64_t limit(std::size_t index) const;  // its records end here at the latest
  Io<void> fill(std::size_t index, std::uint64_t offset, std::span<std::byte> into);
  // False when a part could not be read and is zeros instead.
  Io<bool> fill_from_file(File& file, const std::string& name, std::uint64_t offset,
                          std::span<std::byte> into);
  Result<void> read_segments(ReadBatch& batch, std::int64_t now_ms);
  Io<Progress> read_segment(ReadBatch& batch, std::size_t index, std::int64_t now_ms);
  void read_tail(ReadBatch& batch, std::int64_t now_ms);
  bool passed_segments() const;
  void take(ReadBatch& batch, const Record& record, std::int64_t now_ms);
  std::uint64_t lose(const std::string& where, Sequence from, Sequence to);
  Position position_of(Sequence sequence) const;

  // log_cursor.cpp
  Io<void> write_cursor(bool synced);
  Io<void> renew_cursor_file(std::span<const std::byte> slot);
  bool front_is_consumed(Sequence low) const;
  bool is_time_to_reclaim() const;
  void reclaim(Sequence low);
  void retire(Segment segment);
  bool drop_front(std::uint64_t& counter, std::string_view why);
  void quarantine(const std::string& name, std::uint64_t bytes);

  FileSystem::Path path(std::string_view name) const { return options_.directory / name; }
  std::string describe(std::string_view name, int error) const;
  void tell(Level level, const std::string& text) const {
    if (events_) events_(level, text);
  }

  FileSystem& files_;
  const Options options_;
  const std::uint64_t segment_bytes_;
  const std::size_t tail_max_;
  EventSink events_;
  std::unique_ptr<FileSystem::Lock> lock_;
  std::uint64_t identity_ = 0;
  Stats stats_{};
  Error last_error_{};
  std::string broken_by_{};  // what the last repair was for

  std::deque<Segment> segments_;  // ascending by number and by first sequence
  std::vector<Spare> spares_;     // allocated, of segment_bytes_
  std::uint64_t next_number_ = 1;
  std::uint64_t next_spare_ = 1;
  std::optional<std::int64_t> no_space_ms_;  // when there was no room for another spare

  // The segment being appended to is segments_.back() when active_ is set. Its bytes from tail_at_ on are in tail_:
  // everything that is not synced, and how much of that is written.
  std::unique_ptr<File> active_;
  std::vector<std::byte> tail_;
  std::uint64_t tail_at_ = 0;
  std::size_t tail_written_ = 0;
  bool segment_is_new_ = false;  // its header and its name are not synced
  bool failing_ = false;
  Sequence next_ = 1;
  Sequence written_ = 0;
  Sequence synced_ = 0;

  Position position_{};
  Sequence wanted_ = 1;            // entries below were handed out
  std::unique_ptr<File> reading_;  // the file of segment reading_number_
  std::uint64_t reading_number_ = 0;
  // Places of entries read, every 64th, from the low-water mark on; `after` is the entry's sequence less one.
  std::deque<Position> marks_;

  Acknowledgements acks_;
  std::unique_ptr<File> cursor_file_;
  std::uint64_t generation_ = 0;
  std::size_t cursor_slot_ = 0;  // where the last cursor that is surely on the medium lies
  Sequence cursor_low_ = 0;      // the low-water mark on the medium
  bool cursor_dirty_ = true;     // there is news since the last save
  bool cursor_unsynced_ = true;  // since the last synced one
};

}  // namespace fulmar::spool
