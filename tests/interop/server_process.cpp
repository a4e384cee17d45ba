#include "tests/interop/server_process.hpp"

#include <fstream>
#include <sstream>
#include <thread>

namespace fulmar::test {

bool ServerProcess::start(const std::vector<std::string>& argv) {
  const std::size_t logged_before = log().size();
  process_ = Process({.argv = argv, .output = log_file_});
  const auto deadline = std::chrono::steady_clock::now() + patience_;
  while (log().find(ready_, logged_before) == std::string::npos) {
    if (!process_.running()) return false;
    if (std::chrono::steady_clock::now() >= deadline) {
      process_.kill();
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::string ServerProcess::log() const {
  std::ifstream file(log_file_, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

std::string ServerProcess::end_of_log() const {
  constexpr std::size_t enough = 2'000;
  const std::string text = log();
  return text.size() <= enough ? text : "..." + text.substr(text.size() - enough);
}

}  // namespace fulmar::test
