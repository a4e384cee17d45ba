#include "harness.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace fulmar::bench {
namespace {

constexpr char report_fd_variable[] = "FULMAR_BENCH_REPORT_FD";
constexpr std::string_view failure_mark = "failure ";

int report_fd() {
  const char* text = std::getenv(report_fd_variable);
  return text != nullptr ? std::atoi(text) : STDOUT_FILENO;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Everything that comes out of `fd` until its end; false at the deadline.
bool read_until(int fd, std::chrono::steady_clock::time_point deadline, std::string& text) {
  char buffer[4096];
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{fd, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(left)) <= 0) continue;
    const auto got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

Result<Figures> parse_figures(std::string_view text) {
  Figures figures;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with(failure_mark))
      return fail(Errc::io_error, std::string(line.substr(failure_mark.size())));
    const auto space = line.find(' ');
    double value = 0;
    if (space == line.npos) continue;
    const auto number = line.substr(space + 1);
    if (std::from_chars(number.data(), number.data() + number.size(), value).ec == std::errc{}) {
      figures.emplace(line.substr(0, space), value);
    }
  }
  return figures;
}

}  // namespace

CallClock::CallClock() {
  using std::chrono::steady_clock;
  const auto begin = steady_clock::now();
  const auto begin_ticks = now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto end_ticks = now();
  const std::chrono::duration<double, std::nano> elapsed = steady_clock::now() - begin;
  ns_per_tick_ = elapsed.count() / static_cast<double>(end_ticks - begin_ticks);

  std::array<std::uint64_t, 1001> stamps;
  for (auto& stamp : stamps) stamp = now();
  for (std::size_t i = 0; i + 1 < stamps.size(); ++i) stamps[i] = stamps[i + 1] - stamps[i];
  std::nth_element(stamps.begin(), stamps.begin() + 500, stamps.end() - 1);
  overhead_ticks_ = stamps[500];
}

std::size_t Histogram::bucket(std::uint64_t value) {
  if (value < (1u << sub_bits)) return value;
  const auto shift = static_cast<unsigned>(std::bit_width(value)) - sub_bits - 1;
  return ((shift + 1) << sub_bits) + (value >> shift) - (1u << sub_bits);
}

std::uint64_t Histogram::bucket_top(std::size_t index) {
  if (index < (1u << sub_bits)) return index;
  const auto shift = (index >> sub_bits) - 1;
  const std::uint64_t mantissa = (index & ((1u << sub_bits) - 1)) + (1u << sub_bits);
  return (mantissa << shift) + ((std::uint64_t{1} << shift) - 1);
}

void Histogram::add(std::uint64_t value) {
  ++counts_[bucket(value)];
  ++count_;
  max_ = std::max(max_, value);
}

std::uint64_t Histogram::percentile(double fraction) const {
  if (count_ == 0) return 0;
  const auto rank = std::max(1.0, fraction * static_cast<double>(count_));
  double seen = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    seen += static_cast<double>(counts_[i]);
    if (seen >= rank) return std::min(bucket_top(i), max_);
  }
  return max_;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const auto half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Result<Figures> run_child(std::span<const std::string> arguments, std::chrono::seconds time_limit) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0)
    return fail(Errc::io_error, fmt::format("pipe: {}", std::strerror(errno)));
  std::string program = "/proc/self/exe";
  std::vector<char*> argv{program.data()};
  std::vector<std::string> copies(arguments.begin(), arguments.end());
  for (auto& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int fd = ::dup(pipe[1]);  // without close-on-exec
    ::setenv(report_fd_variable, std::to_string(fd).c_str(), 1);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  ::close(pipe[1]);
  std::string text;
  const bool ended = pid > 0 && read_until(pipe[0], std::chrono::steady_clock::now() + time_limit, text);
  ::close(pipe[0]);
  if (pid < 0) return fail(Errc::io_error, fmt::format("fork: {}", std::strerror(errno)));
  if (!ended) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended) {
    return fail(Errc::timeout, fmt::format("not finished after {} s; killed", time_limit.count()));
  }
  auto figures = parse_figures(text);
  if (figures && status != 0) {
    return fail(Errc::io_error, WIFSIGNALED(status) ? fmt::format("killed by signal {}", WTERMSIG(status))
                                                    : fmt::format("exit code {}", WEXITSTATUS(status)));
  }
  return figures;
}

void report_figures(const Figures& figures) {
  std::string text;
  for (const auto& [name, value] : figures) text += fmt::format("{} {}\n", name, value);
  write_all(report_fd(), text);
}

void report_failure(std::string_view reason) {
  write_all(report_fd(), fmt::format("{}{}\n", failure_mark, reason));
}

std::string machine() {
  std::string model = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (const auto colon = line.find(": "); line.starts_with("model name") && colon != line.npos) {
      model = line.substr(colon + 2);
      break;
    }
  }
  utsname system{};
  ::uname(&system);
  return fmt::format("{}, {} cores, {} {}, compiler {}", model, std::thread::hardware_concurrency(),
                     system.sysname, system.release,
#if defined(__clang__)
                     "clang " __clang_version__
#else
                     "g++ " __VERSION__
#endif
  );
}

}  // namespace fulmar::bench
