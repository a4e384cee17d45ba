#pragma once
// LineSource: records from standard input, a file or a FIFO, read by a thread of its own and handed on one by one.
//
// A source that can wait does so while the queue is full: nothing is lost, and a pipe holds up its writer. One that cannot
// is a pipe or a FIFO with a rate: its records have their time, and what finds the queue full then is dropped and counted.
//
// The rate is an absolute schedule: record n is due n/rate after the first one, so that nothing drifts; a file that fell
// behind catches up. After a pause in the input of a pipe the schedule starts anew.
//
// Thread-safety: all functions from any thread; the handlers are called on the source's thread, one at a time.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "fulmar/telemetry.hpp"
#include "telemetry/record_reader.hpp"

namespace fulmar::telemetry {

class LineSource {
 public:
  static constexpr double rate_hz_max = 10e6;
  static constexpr std::uint64_t bad_lines_told_max = 20;

  struct Config {
    std::string path = "-";  // "-" = standard input
    RecordFormat format = RecordFormat::automatic;
    double rate_hz = 0;             // records per second, up to rate_hz_max; 0 = as fast as they are taken
    std::uint64_t records_max = 0;  // 0 = all
    bool fifo_stays_open = false;   // a FIFO does not end with its writer: the next one may come
    std::size_t line_bytes_max = RecordReader::line_bytes_default;
  };
  struct Handlers {
    std::function<Telemetry::Offer(const Measurement&)> offer;  // when the source can wait
    std::function<void(const Measurement&)> record;             // when it cannot
    std::function<void(const BadLine&)> bad_line{};             // the first bad_lines_told_max of them
    std::function<void()> ended{};                              // once, when nothing more will come
  };
  struct Stats {
    std::uint64_t records = 0;  // handed on
    std::uint64_t lines = 0;
    std::uint64_t bad_lines = 0;
    std::uint64_t bytes = 0;        // of the input, as far as its records have been handed on
    std::uint64_t bytes_total = 0;  // of a regular file; 0 = not known
    bool ended = false;
    std::optional<Error> failure{};  // why it ended before its end
  };

  // Opens the file, which does not wait for a FIFO's writer. Errc::io_error with the path, the reason and what to do.
  static Result<std::unique_ptr<LineSource>> open(Config config, Handlers handlers);
  ~LineSource();  // stop()
  LineSource(const LineSource&) = delete;
  LineSource& operator=(const LineSource&) = delete;

  void start();  // once
  void stop();   // returns as soon as the handler that runs has; idempotent
  bool can_wait() const { return can_wait_; }
  Stats stats() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct File {
    int fd = -1;
    bool ours = false;  // to close
    bool regular = false;
    std::uint64_t bytes_total = 0;
  };
  LineSource(Config config, Handlers handlers, File file);

  void run();
  bool read_more();  // false: it was stopped, or failed
  bool hand_on(const Measurement& record);
  void tell(const BadLine& bad);
  bool wait_until(std::optional<Clock::time_point> until, int fd = -1) const;  // false: it was stopped
  bool wait_for_turn();

  const Config config_;
  const Handlers handlers_;
  const File file_;
  const bool can_wait_;
  const int stop_event_;
  RecordReader reader_;
  std::string chunk_;
  std::uint64_t fed_ = 0;  // bytes
  Clock::time_point schedule_begin_{};
  std::uint64_t scheduled_ = 0;  // records since then

  std::atomic<bool> stopping_{false}, ended_{false};
  std::atomic<std::uint64_t> records_{0}, lines_{0}, bad_lines_{0}, bytes_{0};
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
  std::thread thread_;
};

}  // namespace fulmar::telemetry
