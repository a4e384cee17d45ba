#include "tests/support/process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace fulmar::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::system_error error(int code, const std::string& what) { return {code, std::generic_category(), what}; }

// Debian keeps brokers in /usr/sbin, which is not in everybody's PATH.
std::string find_program(const std::string& name) {
  if (name.contains('/')) return name;
  const char* from_environment = std::getenv("PATH");
  const std::string path =
      std::string(from_environment ? from_environment : "") + ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const std::string candidate = path.substr(begin, end - begin) + "/" + name;
    if (end > begin && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    begin = end + 1;
  }
  throw error(ENOENT, name + " is not installed (./dev setup installs what the tests need)");
}

}  // namespace

Process::Process(const Options& options) {
  const std::string program = find_program(options.argv.at(0));
  std::vector<char*> argv;
  for (const auto& argument : options.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  const int in = ::open(options.input.c_str(), O_RDONLY | O_CLOEXEC);
  if (in < 0) throw error(errno, "cannot open " + options.input.string());
  const auto& output = options.output.empty() ? std::filesystem::path("/dev/null") : options.output;
  const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) {
    const int code = errno;
    ::close(in);
    throw error(code, "cannot open " + output.string());
  }
  // Closed by a successful exec; else it carries errno.
  int report[2] = {-1, -1};
  if (::pipe2(report, O_CLOEXEC) != 0) {
    const int code = errno;
    ::close(in);
    ::close(out);
    throw error(code, "cannot make a pipe");
  }

  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {  // only async-signal-safe calls from here: the parent may have threads
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(in, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::execv(program.c_str(), argv.data());
    const int code = errno;
    [[maybe_unused]] const auto written = ::write(report[1], &code, sizeof code);
    ::_exit(127);
  }
  int code = pid_ < 0 ? errno : 0;
  ::close(in);
  ::close(out);
  ::close(report[1]);
  if (pid_ > 0 && ::read(report[0], &code, sizeof code) == sizeof code) reap(0);
  ::close(report[0]);
  if (code != 0) throw error(code, "cannot start " + program);
}

Process::~Process() { kill(); }

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), exit_code_(std::exchange(other.exit_code_, std::nullopt)) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    kill();
    pid_ = std::exchange(other.pid_, -1);
    exit_code_ = std::exchange(other.exit_code_, std::nullopt);
  }
  return *this;
}

bool Process::reap(int flags) {
  if (pid_ < 0 || exit_code_) return true;
  int status = 0;
  pid_t found = 0;
  do {
    found = ::waitpid(pid_, &status, flags);
  } while (found < 0 && errno == EINTR);
  if (found == 0) return false;
  exit_code_ = found < 0 ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

bool Process::running() { return pid_ > 0 && !reap(WNOHANG); }

void Process::send_signal(int signal) {
  if (running()) ::kill(pid_, signal);
}

std::optional<int> Process::wait(milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  while (!reap(WNOHANG)) {
    if (steady_clock::now() >= deadline) return std::nullopt;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return exit_code_;
}

void Process::kill() {
  if (!running()) return;
  ::kill(pid_, SIGKILL);
  reap(0);
}

int run(const Process::Options& options, milliseconds timeout) {
  Process process(options);
  if (const auto code = process.wait(timeout)) return *code;
  throw std::runtime_error(options.argv.at(0) + " did not end within " + std::to_string(timeout.count()) +
                           " ms");
}

}  // namespace fulmar::test
