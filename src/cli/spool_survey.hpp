#pragma once
// SpoolSurvey: what `fulmar spool inspect`, `verify` and `export` know of a spool: one walk over all its files that counts
// and names what is wrong. Writes nothing and takes no lock.
//
// Beside a process at work it sees the past. What was acknowledged and given back while it read is not told as missing,
// nor are messages that the process has not written yet.
//
// Not thread-safe. Memory: bounded by the number of files, and `findings_max` findings.
// Errors: io_error: no such folder, not a spool, of another version of the format, not readable.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "spool/inspector.hpp"

namespace fulmar::cli {

class SpoolSurvey {
 public:
  static constexpr std::size_t findings_max = 1'000;

  struct File {
    spool::Inspector::Segment segment;
    std::uint64_t messages = 0;  // sound ones
    std::uint64_t waiting = 0;   // of these
  };
  struct Finding {
    std::string file;
    std::string what;
  };
  struct Totals {
    std::uint64_t messages = 0;  // sound ones
    std::uint64_t waiting = 0;   // of these
    std::uint64_t waiting_bytes = 0;
    std::optional<std::int64_t> oldest_ms;  // of those that wait
    std::uint64_t missing = 0;              // waited, and are not there
    std::uint64_t findings = 0;             // also those beyond findings_max
    std::uint64_t bytes = 0;                // of all files but the cursor
    std::uint64_t segments = 0, spares = 0, set_aside = 0;
    bool stopped = false;  // by the visitor
  };
  // False: stop.
  using Visitor = std::function<bool(const spool::Entry& entry, bool acknowledged)>;
  using Progress = std::function<void(std::uint64_t done, std::uint64_t all, std::uint64_t messages)>;

  // Reads the headers.
  static Result<SpoolSurvey> open(const std::filesystem::path& directory);
  // Reads all the rest, oldest message first. Call once.
  Result<void> read(const Visitor& visit, const Progress& progress);

  const std::filesystem::path& directory() const { return directory_; }
  const std::vector<File>& files() const { return files_; }
  const std::optional<spool::Cursor>& cursor() const { return inspector_.cursor(); }
  const std::vector<Finding>& findings() const { return findings_; }
  const Totals& totals() const { return totals_; }
  // The process that has the spool, where the machine tells (/proc/locks).
  std::optional<long> user() const { return user_; }

 private:
  struct Gap {
    std::size_t file;  // index
    spool::Sequence from, to;
    bool tail;  // after the last message of all
  };

  SpoolSurvey(std::filesystem::path directory, spool::Inspector inspector)
      : directory_(std::move(directory)), inspector_(std::move(inspector)) {}
  void add(std::string file, std::string what);
  Result<void> judge(const std::vector<Gap>& gaps, const spool::Inspector::Findings& found);

  std::filesystem::path directory_;
  spool::Inspector inspector_;
  std::vector<File> files_;
  std::size_t in_order_ = 0;  // of files_: the segments whose messages are read, by number
  std::vector<Finding> findings_;
  Totals totals_;
  std::optional<long> user_;
  bool cursor_unsound_ = false;
};

}  // namespace fulmar::cli
