#pragma once
// BrokerChild: Debian's mosquitto as a supervised child on a free loopback port, for a daemon that was given no broker.
//
// It lives in a private temporary directory (configuration, log, sessions), which is removed in the end. When it dies it
// is started again on the same port after a back-off of 0.1 s that doubles to 2 s, and starts over once the broker has
// lived for 5 s. Its sessions survive even a SIGKILL, so that a subscriber of its own loses nothing by it. It cannot
// outlive this process, and a Ctrl-C in the terminal does not reach it.
//
// Not thread-safe. The kernel kills the child when the THREAD that started it ends: start() and supervise() belong to the
// main thread.

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "fulmar/result.hpp"

namespace fulmar::daemon {

class BrokerChild {
 public:
  using Clock = std::chrono::steady_clock;

  BrokerChild() = default;
  ~BrokerChild();  // stop()
  BrokerChild(const BrokerChild&) = delete;
  BrokerChild& operator=(const BrokerChild&) = delete;

  // Returns when the broker accepts connections, or says why it does not (within 5 s). Errors: io_error, timeout.
  Result<void> start();
  // Reaps the broker when it has died and starts it again when it is time. A text for people when something happened.
  // Call it a few times a second.
  std::optional<std::string> supervise(Clock::time_point now);
  void stop();  // SIGTERM, SIGKILL after 0.3 s, reaped; the directory removed. Idempotent

  pid_t pid() const { return pid_; }  // -1 while it is down; from any thread
  std::uint16_t port() const { return port_; }
  std::string url() const;
  const std::filesystem::path& directory() const { return directory_; }  // empty when it is stopped
  std::uint64_t restarts() const { return restarts_; }

 private:
  Result<void> prepare();  // directory, and the program's path
  Result<void> write_config() const;
  Result<void> spawn();
  bool accepts() const;
  bool reap(int flags);
  std::string last_log_lines() const;
  void remove_directory();

  std::filesystem::path program_, directory_;
  std::uint16_t port_ = 0;
  std::atomic<pid_t> pid_{-1};
  int exit_status_ = 0;
  std::uint64_t restarts_ = 0;
  Clock::time_point started_{};
  Clock::time_point restart_due_{};
  std::chrono::milliseconds backoff_{0};
};

// The program's path: in PATH, or in the folders of system programs; nothing when it is not installed.
std::optional<std::filesystem::path> find_program(std::string_view name);

}  // namespace fulmar::daemon
