#pragma once
// The compiler and CMake that built this, run against a freshly installed Fulmar.
//
// Not thread-safe.

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace fulmar::test {

struct Ran {
  int exit_code = -1;
  std::string output;                // stdout and stderr
  std::chrono::milliseconds cpu{0};  // user and system time, the children's included
  std::chrono::milliseconds elapsed{0};
};

// Runs a program to its end; throws std::runtime_error when that takes more than two minutes.
Ran run_program(std::vector<std::string> argv);

// The prefix of an installation of both components, made anew by the first call in this process, in the build tree. Throws
// std::runtime_error when `cmake --install` fails.
const std::filesystem::path& installed();

// The first file of that name below the prefix; empty when there is none.
std::filesystem::path find_installed(const std::string& name);

// g++ -std=c++23 with warnings as errors, the installed headers, and no others but the system's.
std::vector<std::string> compile_command(std::vector<std::string> more);

}  // namespace fulmar::test
