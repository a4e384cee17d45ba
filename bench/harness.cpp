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
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include <boost/json.hpp>

namespace fulmar::bench {

namespace json = boost::json;

namespace {

constexpr char report_fd_variable[] = "FULMAR_BENCH_REPORT_FD";
constexpr std::string_view question_mark = "? ";

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

// What a child says, line by line; false at the deadline.
template <typename TakeLine>
bool read_lines(int fd, std::chrono::steady_clock::time_point deadline, TakeLine&& take_line) {
  char buffer[4096];
  std::string text;
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
    for (auto end = text.find('\n'); end != text.npos; end = text.find('\n')) {
      take_line(std::string_view(text).substr(0, end));
      text.erase(0, end + 1);
    }
  }
}

Result<ChildReport> parse_report(std::string_view line) {
  const auto malformed = [&](std::string_view why) {
    return fail(Errc::io_error, fmt::format("the child's report is not what harness.hpp asks for ({}): {}",
                                            why, line.substr(0, 200)));
  };
  boost::system::error_code error;
  const auto value = json::parse({line.data(), line.size()}, error);
  if (error) return malformed(error.message());
  const auto* object = value.if_object();
  if (object == nullptr) return malformed("no object");
  if (const auto* failure = object->if_contains("failure"); failure != nullptr && failure->is_string()) {
    return fail(Errc::io_error, std::string(failure->get_string()));
  }
  ChildReport report;
  try {
    if (const auto* figures = object->if_contains("figures")) {
      for (const auto& [name, figure] : figures->as_object()) {
        report.figures.emplace(name, figure.to_number<double>());
      }
    }
    if (const auto* samples = object->if_contains("samples")) {
      for (const auto& [name, values] : samples->as_object()) {
        for (const auto& one : values.as_array()) report.samples[name].push_back(one.to_number<double>());
      }
    }
    if (const auto* distributions = object->if_contains("distributions")) {
      for (const auto& [name, buckets] : distributions->as_object()) {
        auto& distribution = report.distributions[name];
        for (const auto& bucket : buckets.as_array()) {
          distribution.emplace_back(bucket.at(0).to_number<double>(),
                                    bucket.at(1).to_number<std::uint64_t>());
        }
      }
    }
    if (const auto* note = object->if_contains("note")) report.note = note->as_string();
  } catch (const std::exception& problem) {
    return malformed(problem.what());
  }
  return report;
}

// The first report wins: a watchdog may come between.
bool report_once() {
  static std::atomic<bool> reported{false};
  return !reported.exchange(true);
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

Distribution Histogram::distribution(double unit) const {
  constexpr std::size_t together = std::size_t{1} << (sub_bits - 4);
  Distribution result;
  for (std::size_t i = 0; i < counts_.size(); i += together) {
    std::uint64_t count = 0;
    for (std::size_t j = i; j < i + together; ++j) count += counts_[j];
    if (count != 0) result.emplace_back(static_cast<double>(bucket_top(i + together - 1)) * unit, count);
  }
  return result;
}

void merge(Distribution& into, const Distribution& other) {
  Distribution both;
  std::ranges::merge(into, other, std::back_inserter(both), {}, &Distribution::value_type::first,
                     &Distribution::value_type::first);
  into.clear();
  for (const auto& bucket : both) {
    if (!into.empty() && into.back().first == bucket.first)
      into.back().second += bucket.second;
    else
      into.push_back(bucket);
  }
}

Parameters Parameters::parse(std::span<const std::string> arguments) {
  Parameters parameters;
  for (const auto& argument : arguments) {
    const auto equals = argument.find('=');
    if (equals != argument.npos)
      parameters.set(argument.substr(0, equals), std::string_view(argument).substr(equals + 1));
  }
  return parameters;
}

Parameters& Parameters::set(std::string key, std::string_view value) {
  values_.insert_or_assign(std::move(key), std::string(value));
  return *this;
}

std::string_view Parameters::text(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::string_view() : found->second;
}

std::vector<std::string> Parameters::arguments() const {
  std::vector<std::string> result;
  for (const auto& [key, value] : values_) result.push_back(fmt::format("{}={}", key, value));
  return result;
}

Result<ChildReport> run_child(std::span<const std::string> command, std::span<const std::string> arguments,
                              std::chrono::seconds time_limit, const Control& control) {
  int reports[2];
  int answers[2];
  if (::pipe2(reports, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0)
    return fail(Errc::io_error, fmt::format("pipe: {}", std::strerror(errno)));
  std::vector<std::string> words(command.begin(), command.end());
  if (words.empty()) words = {"/proc/self/exe", "--child"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int fd = ::dup(reports[1]);  // without close-on-exec
    ::dup2(answers[0], STDIN_FILENO);
    ::setenv(report_fd_variable, std::to_string(fd).c_str(), 1);
    ::execvp(argv.front(), argv.data());
    ::_exit(127);
  }
  ::close(reports[1]);
  ::close(answers[0]);
  std::string last_line;
  const bool ended =
      pid > 0 &&
      read_lines(reports[0], std::chrono::steady_clock::now() + time_limit, [&](std::string_view line) {
        if (line.starts_with(question_mark) && control) {
          write_all(answers[1], control(line.substr(question_mark.size())) + '\n');
        } else {
          last_line = line;
        }
      });
  ::close(reports[0]);
  ::close(answers[1]);
  if (pid < 0) return fail(Errc::io_error, fmt::format("fork: {}", std::strerror(errno)));
  if (!ended) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended) {
    return fail(Errc::timeout, fmt::format("not finished after {} s; killed", time_limit.count()));
  }
  if (last_line.empty()) {
    return fail(Errc::io_error, WIFSIGNALED(status)
                                    ? fmt::format("killed by signal {}", WTERMSIG(status))
                                    : fmt::format("exit code {} and no report", WEXITSTATUS(status)));
  }
  return parse_report(last_line);
}

void report(const ChildReport& result) {
  if (!report_once()) return;
  json::object figures;
  for (const auto& [name, value] : result.figures) figures[name] = value;
  json::object samples;
  for (const auto& [name, values] : result.samples) samples[name] = json::array(values.begin(), values.end());
  json::object distributions;
  for (const auto& [name, distribution] : result.distributions) {
    json::array buckets;
    for (const auto& [bound, count] : distribution) buckets.push_back(json::array{bound, count});
    distributions[name] = std::move(buckets);
  }
  const json::object all{
      {"figures", figures}, {"samples", samples}, {"distributions", distributions}, {"note", result.note}};
  write_all(report_fd(), json::serialize(all) + '\n');
}

void report_failure(std::string_view reason) {
  if (report_once()) write_all(report_fd(), json::serialize(json::object{{"failure", reason}}) + '\n');
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
