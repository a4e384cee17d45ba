#pragma once
// The command that `fulmar queue work` runs for an item: in a process group of its own, with the payload on stdin.
//
// Invariants
//   1. No command outlives its worker: when the worker dies, by whatever, the Guard kills the groups of its commands.
//      An item that comes back is not worked on by two commands at the same time.
//   2. kill_group() reaches the command and what it has started, and never anybody else: the process id is taken back
//      only after it was said to the guard and to the other threads that it is over.
//
// Thread-safety: Guard::descriptor() from any thread; a ChildProcess is run by one thread, kill_group() is for any.

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::cli {

// A process beside the worker that waits for its end. Made before there are threads and files that it should not hold.
class ProcessGuard {
 public:
  static Result<ProcessGuard> start();
  ~ProcessGuard();  // kills the groups that are still registered
  ProcessGuard(ProcessGuard&& other) noexcept;
  ProcessGuard& operator=(ProcessGuard&&) = delete;

  int descriptor() const { return fd_; }  // where process ids are written: n = begun, -n = over

 private:
  explicit ProcessGuard(int fd, pid_t pid) : fd_(fd), pid_(pid) {}
  int fd_ = -1;
  pid_t pid_ = -1;
};

// The file that a command's name stands for, by PATH. Errc::not_found, Errc::invalid_config.
Result<std::string> find_program(const std::string& name);

struct ChildSpec {
  std::string path;
  const std::vector<std::string>& words;  // the first is its name
  std::vector<std::string> environment;   // NAME=value; what is the worker's own comes first
  std::string_view input;                 // stdin
  std::size_t output_bytes_max = 0;       // of stdout that is kept; 0 = it goes where the worker's goes
  std::size_t error_bytes_max = 2'000;    // of the end of stderr that is kept; all of it goes to `on_stderr`
  std::optional<std::chrono::nanoseconds> time_limit{};
  std::function<void(std::string_view)> on_stderr{};
};

struct ChildEnd {
  int code = 0;              // the exit code, when no signal ended it
  int signal = 0;            // else the signal
  bool out_of_time = false;  // it was killed for that
  std::string output;        // of stdout
  bool output_cut = false;   // it wrote more
  std::string error_end;     // of stderr, from the beginning of a line
};

class ChildProcess {
 public:
  explicit ChildProcess(const ProcessGuard& guard) : guard_(guard) {}

  // Runs it to its end. Errc::io_error: it was not started.
  Result<ChildEnd> run(const ChildSpec& spec);
  // Once it runs. SIGTERM is followed by SIGKILL when that does not help within `grace`.
  void kill_group(int signal);

  static constexpr std::chrono::seconds grace{5};

 private:
  struct Pipes;
  Result<pid_t> start(const ChildSpec& spec, Pipes& pipes);
  void watch(const ChildSpec& spec, int process, Pipes& pipes, ChildEnd& end);

  const ProcessGuard& guard_;
  std::mutex mutex_;
  pid_t pid_ = 0;           // 0 = does not run
  int pending_signal_ = 0;  // came before it ran
  std::optional<std::chrono::steady_clock::time_point> terminated_at_;
};

}  // namespace fulmar::cli
