#include "tests/install/compiler.hpp"

#include <sys/resource.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
namespace fs = std::filesystem;

milliseconds cpu_of_children() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  const auto ms = [](const timeval& time) { return time.tv_sec * 1000 + time.tv_usec / 1000; };
  return milliseconds(ms(usage.ru_utime) + ms(usage.ru_stime));
}

fs::path install() {
  // Of this process alone: ctest runs several at a time.
  static const TempDir nothing_of_the_source;
  const fs::path prefix = nothing_of_the_source / "prefix";
  for (const std::string component : {"library", "programs"}) {
    const auto ran = run_program(
        {FULMAR_CMAKE, "--install", FULMAR_BUILD, "--prefix", prefix.string(), "--component", component});
    if (ran.exit_code != 0) throw std::runtime_error("cmake --install failed:\n" + ran.output);
  }
  return prefix;
}

}  // namespace

Ran run_program(std::vector<std::string> argv) {
  const TempDir directory;
  const auto cpu_before = cpu_of_children();
  const auto began = std::chrono::steady_clock::now();
  Ran ran;
  ran.exit_code = run({.argv = std::move(argv), .output = directory / "output"}, 120s);
  ran.elapsed = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - began);
  ran.cpu = cpu_of_children() - cpu_before;
  std::ifstream file(directory / "output", std::ios::binary);
  ran.output.assign(std::istreambuf_iterator<char>(file), {});
  return ran;
}

const fs::path& installed() {
  static const fs::path prefix = install();
  return prefix;
}

fs::path find_installed(const std::string& name) {
  for (const auto& entry : fs::recursive_directory_iterator(installed())) {
    if (entry.path().filename() == name) return entry.path();
  }
  return {};
}

std::vector<std::string> compile_command(std::vector<std::string> more) {
  std::vector<std::string> command{FULMAR_CXX,
                                   "-std=c++23",
                                   "-Wall",
                                   "-Wextra",
                                   "-Wpedantic",
                                   "-Wshadow",
                                   "-Wconversion",
                                   "-Wnon-virtual-dtor",
                                   "-Werror",
                                   "-I",
                                   (installed() / "include").string()};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

}  // namespace fulmar::test
