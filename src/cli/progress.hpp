#pragma once
// The progress of a long command: one line on a terminal that is written over, and what it says.
// Thread-safety: ProgressLine from any thread; the rest is pure.

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "fulmar/telemetry.hpp"

namespace fulmar::cli {

struct Progress {
  std::optional<double> share{};             // of the input, 0..1, where its size is known
  std::chrono::duration<double> elapsed{0};  // since the beginning; an estimate of the rest follows from both
  std::uint64_t records = 0;
  double per_s = 0;
  std::uint64_t batches = 0;  // acknowledged
  std::uint64_t waiting = 0;
  std::uint64_t stored = 0;  // on disk, delivered later
  std::uint64_t lost = 0;
  std::uint64_t bad_lines = 0;
  std::string connection{};
};

// " 42%  [####......]  1200 records  400/s  12 batches  100 waiting  connected  ETA 00:03". Where there is little
// room the least important goes first: batches, bar, connection; the percentage and the records stay.
std::string render_progress(const Progress& progress, std::size_t columns);

// Of reading files whose size is known.
struct ReadProgress {
  std::uint64_t done_bytes = 0;
  std::uint64_t all_bytes = 0;
  std::uint64_t messages = 0;
  std::chrono::duration<double> elapsed{0};
};

// " 42%  [####......]  1200 messages  310 MB/s  ETA 00:03", shortened in the same way.
std::string render_progress(const ReadProgress& progress, std::size_t columns);

// Of things that are counted.
struct CountProgress {
  std::uint64_t done = 0;
  std::optional<std::uint64_t> all{};  // where it is known
  std::optional<double> share{};       // of the input, 0..1, where only its size is known
  std::string_view one = "item";
  std::string_view many = "items";
  std::chrono::duration<double> elapsed{0};
};

// " 42%  [####......]  504 of 1200 items  400/s  ETA 00:03", or without the number of all, or without
// the share; shortened in the same way.
std::string render_progress(const CountProgress& progress, std::size_t columns);

// "1200 records: 1198 acknowledged, 2 lost (queue full 2); 12 batches; 3 bad lines skipped; 1.2 s"; `sent` says what
// became of those that arrived. Exact: records = sent + stored + waiting + empty + lost; what is 0 is not mentioned. The
// batches are those that were acknowledged.
std::string render_summary(const TelemetryStats& stats, std::string_view sent, std::uint64_t bad_lines,
                           std::chrono::duration<double> elapsed);

class ProgressLine {
 public:
  // Draws nothing when `fd` is none (-1).
  explicit ProgressLine(int fd) : fd_(fd) {}
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool enabled() const { return fd_ >= 0; }
  void show(const Progress& progress);
  void show(const ReadProgress& progress);
  void show(const CountProgress& progress);
  void clear();
  // Something else writes to the terminal: on a line of its own.
  void interrupt(const std::function<void()>& write);

 private:
  template <typename P>
  void draw(const P& progress);
  void clear_locked();

  const int fd_;
  std::mutex mutex_;
  bool drawn_ = false;
};

}  // namespace fulmar::cli
