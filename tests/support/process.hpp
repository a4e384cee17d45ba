#pragma once
// Process: a child process that cannot outlive its test.
// It is killed and reaped by the destructor, and by the kernel when the test program itself dies.
//
// Not thread-safe. The kernel kills the child when the THREAD that started it ends: start it from the test's own thread.

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fulmar::test {

class Process {
 public:
  struct Options {
    std::vector<std::string> argv;  // argv[0] is looked up in PATH and the sbin folders
    std::filesystem::path output;   // stdout and stderr are appended here; empty = /dev/null
    std::filesystem::path input = "/dev/null";
  };

  Process() = default;
  // Throws std::system_error when the program cannot be started.
  explicit Process(const Options& options);
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;

  pid_t pid() const { return pid_; }
  bool running();
  void send_signal(int signal);
  // The exit code once it has ended (128 + number when a signal ended it); nothing when the time was not enough.
  std::optional<int> wait(std::chrono::milliseconds timeout);
  void kill();  // SIGKILL, and reaped

 private:
  bool reap(int flags);

  pid_t pid_ = -1;
  std::optional<int> exit_code_;
};

// Runs a program to its end: its exit code. Throws std::runtime_error when it does not end in time.
int run(const Process::Options& options, std::chrono::milliseconds timeout);

}  // namespace fulmar::test
