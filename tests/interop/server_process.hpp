#pragma once
// ServerProcess: a server program with a log that says when it is ready.
//
// Not thread-safe.

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/process.hpp"

namespace fulmar::test {

class ServerProcess {
 public:
  ServerProcess(std::filesystem::path log, std::string ready, std::chrono::seconds patience)
      : log_file_(std::move(log)), ready_(std::move(ready)), patience_(patience) {}

  // False when the program ended or did not say `ready` in time; it does not run then.
  bool start(const std::vector<std::string>& argv);
  void kill() { process_.kill(); }
  std::string log() const;
  std::string end_of_log() const;

 private:
  std::filesystem::path log_file_;
  std::string ready_;
  std::chrono::seconds patience_;
  Process process_;
};

}  // namespace fulmar::test
