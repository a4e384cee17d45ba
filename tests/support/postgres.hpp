#pragma once
// Postgres: a PostgreSQL server of a test's own: a fresh cluster in a temporary directory, on a free loopback port and on
// a Unix socket in that directory, with its log at hand. It ends with the object, and with the test program whatever
// happens to that. A server refuses to run as root: then it runs as user `postgres`, or `nobody`.
//
// Everything waits at most `patience`. Failures throw std::runtime_error with the end of the server's log in the text.
// Not thread-safe; construct, restart and destroy it on one thread (see Process).

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {

class Postgres {
 public:
  struct Options {
    bool fsync = false;                 // true: what was committed survives kill(), and power loss
    std::vector<std::string> config{};  // "name=value", of postgresql.conf
  };
  static constexpr std::chrono::seconds patience{60};

  // Why there can be none, for GTEST_SKIP(); nothing when the server is installed.
  static std::optional<std::string> missing();

  // Returns when the server accepts connections. It has the superuser `fulmar` (no password asked) and a database
  // `fulmar`, in UTF-8.
  Postgres();
  explicit Postgres(Options options);
  ~Postgres();

  std::uint16_t port() const { return port_; }
  // `parameters`: "name=value&name=value", percent-encoded.
  std::string url(std::string_view parameters = {}) const;      // over the Unix socket
  std::string tcp_url(std::string_view parameters = {}) const;  // over 127.0.0.1
  // In a schema of its own, made here: as empty as a new database.
  std::string fresh_url();

  // What psql prints for it, unaligned and without headers. Throws when it fails.
  std::string sql(const std::string& statement) const;

  void kill();   // SIGKILL to the server's first process; the others end by themselves, and are waited for
  void crash();  // an immediate shutdown: nothing is written any more
  void stop();   // an orderly end; sessions are closed
  void start();  // on the same port; after kill() and crash() it recovers from its log
  bool running() { return process_.running(); }
  // Stops, and lets go on, the server processes of all sessions: they keep their sockets and do not answer.
  void freeze_sessions();
  void thaw_sessions();

  std::string log() const;

 private:
  std::vector<std::string> as_owner(std::vector<std::string> argv) const;
  bool try_start();
  bool processes_left() const;
  [[noreturn]] void give_up(const std::string& what) const;

  Options options_;
  TempDir directory_;
  std::uint16_t port_ = 0;
  int schemas_ = 0;
  std::vector<pid_t> frozen_;
  Process process_;
};

}  // namespace fulmar::test
