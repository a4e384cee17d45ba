#pragma once
// What the tests of the built program share: running it with files for its output, a stdin that is written when a test
// wants to, and waiting.
// Thread-safety: none; on the test's own thread.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::cli {

using Words = std::vector<std::string>;

inline constexpr std::chrono::seconds patience{20};

inline std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

inline bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// A stdin that a test writes when it wants to.
class Fifo {
 public:
  explicit Fifo(const std::filesystem::path& path) : path_(path) {
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);  // does not wait for the other end
  }
  ~Fifo() { close(); }
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& text) {
    EXPECT_EQ(::write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // The reader has got all; it may still have to look at it.
  bool taken() const {
    int left = 0;
    return ::ioctl(fd_, FIONREAD, &left) == 0 && left == 0;
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

struct Ran {
  int code = -1;
  std::string out;
  std::string err;
};

// A command whose stdout and stderr go to files of their own.
class Running {
 public:
  Running(const test::TempDir& directory, const std::string& name, const Words& words,
          const std::filesystem::path& input = "/dev/null")
      : out_(directory / (name + ".out")), err_(directory / (name + ".err")) {
    Words argv{"sh", "-c", "out=$1 err=$2; shift 2; exec \"$@\" >\"$out\" 2>\"$err\"", "sh", out_, err_};
    argv.insert(argv.end(), words.begin(), words.end());
    process_ = test::Process({.argv = argv, .output = {}, .input = input});
  }
  std::string out() const { return content_of(out_); }
  std::string err() const { return content_of(err_); }
  void signal(int number) { process_.send_signal(number); }
  bool running() { return process_.running(); }
  Ran finish() {
    const auto code = process_.wait(patience);
    EXPECT_TRUE(code) << "did not end; stderr: " << err();
    return {code.value_or(-1), out(), err()};
  }

 private:
  std::filesystem::path out_;
  std::filesystem::path err_;
  test::Process process_;
};

}  // namespace fulmar::cli
