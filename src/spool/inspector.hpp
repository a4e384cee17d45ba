#pragma once
// Inspector: looks at a spool without touching it, also while a process is using it. For people: what is in it, is it
// sound, give me the entries.
//
// Not thread-safe. Takes no lock and writes nothing. Beside a process at work it sees the past: entries may be given back
// while it looks, and those not written yet are not seen.
// Errors: io_error when the directory cannot be read; damage is what it reports, and no error.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fulmar/result.hpp"
#include "spool/file_system.hpp"
#include "spool/format.hpp"
#include "spool/log.hpp"

namespace fulmar::spool {

class Inspector {
 public:
  enum class State : std::uint8_t {
    acknowledged,  // every entry is done with; waits to be given back
    waiting,       // holds entries that are not
    spare,
    set_aside,  // *.bad
    damaged,    // no sound header
    foreign,    // of another version of the format, or of another log
  };
  struct Segment {
    std::string file;
    State state{};
    std::uint64_t bytes{};
    std::uint64_t number{};
    Sequence
        first{};  // the lowest and the highest sequence it can hold; the last segment's is what the cursor knows of
    Sequence last{};
    std::int64_t created_ms{};
  };
  struct Findings {
    std::uint64_t entries{};             // sound ones
    std::uint64_t waiting{};             // of these, not acknowledged
    std::uint64_t missing{};             // not acknowledged and not there: lost to damage, or never synced
    std::uint64_t entry_bytes{};         // of those that wait
    std::int64_t oldest_ms{};            // of those that wait
    std::vector<std::string> damaged{};  // files
    std::vector<std::string> broken{};   // files with bytes between two records that are none
    bool stopped = false;                // by the visitor
  };
  // Return false to stop. The entry's bytes are valid during the call. `acknowledged` ones come only when asked for.
  using Visitor = std::function<bool(const Entry& entry, bool acknowledged)>;
  // Bytes read so far, and in all.
  using Progress = std::function<void(std::uint64_t done, std::uint64_t all)>;

  static Result<Inspector> open(FileSystem& files, std::filesystem::path directory);

  const std::vector<Segment>& segments() const { return segments_; }  // by number, then the other files
  const std::optional<Cursor>& cursor() const { return cursor_; }     // none: no sound one is there
  // Reads every record of every segment, in order, and checks it.
  Result<Findings> walk(const Visitor& visit = {}, bool with_acknowledged = false,
                        const Progress& progress = {}) const;

 private:
  Inspector(FileSystem& files, std::filesystem::path directory)
      : files_(&files), directory_(std::move(directory)) {}
  Result<void> survey();

  FileSystem* files_;
  std::filesystem::path directory_;
  std::vector<Segment> segments_;
  std::vector<SegmentHeader> headers_;  // of those among segments_ that are in use, in the same order
  std::optional<Cursor> cursor_;
};

}  // namespace fulmar::spool
