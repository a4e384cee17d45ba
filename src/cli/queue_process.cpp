#include "cli/queue_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fulmar::cli {
namespace {

using Clock = std::chrono::steady_clock;

Error system_error(const std::string& what, int error) {
  return {Errc::io_error, what + ": " + std::strerror(error), {}};
}

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    reset();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

struct Pipe {
  Descriptor read;
  Descriptor write;
};

std::optional<Pipe> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// --- the guard --------------------------------------------------------------------------------------------------------

// A table of fixed size: nothing is allocated in a process that has been forked.
struct Groups {
  std::array<pid_t, 4096> ids{};
  std::size_t count = 0;

  void take(std::int32_t word) {
    if (word > 0) {
      if (count < ids.size()) ids[count++] = word;
      return;
    }
    for (std::size_t i = 0; i < count; ++i)
      if (ids[i] == -word) ids[i] = ids[--count];
  }
};

[[noreturn]] void guard(int fd) {
  setpgid(0, 0);  // a Ctrl-C of the terminal is not for it
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) std::signal(number, SIG_IGN);
  // Nothing of the terminal or of pipes is held open by it.
  dup2(fd, STDIN_FILENO);
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  close_range(3, UINT_MAX, 0);
  static Groups groups;
  for (;;) {
    std::int32_t word = 0;  // written as a whole, so read as a whole
    const auto got = read(STDIN_FILENO, &word, sizeof word);
    if (got == sizeof word) {
      groups.take(word);
    } else if (got >= 0 || errno != EINTR) {
      break;
    }
  }
  for (std::size_t i = 0; i < groups.count; ++i) kill(-groups.ids[i], SIGKILL);
  _exit(0);
}

void tell_guard(int fd, std::int32_t word) {
  while (write(fd, &word, sizeof word) < 0 && errno == EINTR) {
  }
}

// --- text -------------------------------------------------------------------------------------------------------------

// Keeps the end of what is written, cut at the beginning of a line.
class Tail {
 public:
  explicit Tail(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  void add(std::string_view text) {
    text_ += text;
    if (text_.size() > 4 * bytes_max_) text_.erase(0, text_.size() - 2 * bytes_max_);
  }
  std::string end() const {
    std::string_view text = text_;
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
      text.remove_suffix(1);
    if (text.size() > bytes_max_) {
      text.remove_prefix(text.size() - bytes_max_);
      if (const auto line = text.find('\n'); line != std::string_view::npos) text.remove_prefix(line + 1);
    }
    return std::string(text);
  }

 private:
  std::size_t bytes_max_;
  std::string text_;
};

// What the child does between fork and exec: async-signal-safe calls only.
struct Launch {
  const char* path;
  char* const* words;
  char* const* environment;
  int input, output, error, guard, failure;  // output -1 = the worker's
};

[[noreturn]] void launch(const Launch& l) {
  setpgid(0, 0);
  tell_guard(l.guard, getpid());
  sigset_t none;
  sigemptyset(&none);
  std::signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (dup2(l.input, STDIN_FILENO) >= 0 && (l.output < 0 || dup2(l.output, STDOUT_FILENO) >= 0) &&
      dup2(l.error, STDERR_FILENO) >= 0)
    execve(l.path, l.words, l.environment);
  const int error = errno;
  [[maybe_unused]] const auto written = write(l.failure, &error, sizeof error);
  _exit(127);
}

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const auto& one : strings) pointers.push_back(const_cast<char*>(one.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> merged_environment(const std::vector<std::string>& own) {
  std::vector<std::string> all = own;
  for (char** one = environ; *one; ++one) {
    const std::string_view variable = *one;
    const auto name = variable.substr(0, variable.find('=') + 1);
    if (std::ranges::none_of(own, [&](const std::string& other) { return other.starts_with(name); }))
      all.emplace_back(variable);
  }
  return all;
}

// A file in memory: a command may read it at its own pace, or not at all, and nobody has to feed a pipe.
Result<Descriptor> file_with(std::string_view content) {
  Descriptor file(memfd_create("fulmar-payload", MFD_CLOEXEC));
  if (!file) return std::unexpected(system_error("cannot make a file for the payload", errno));
  for (auto rest = content; !rest.empty();) {
    const auto written = write(file.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return std::unexpected(system_error("cannot write the payload", errno));
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  if (lseek(file.get(), 0, SEEK_SET) != 0)
    return std::unexpected(system_error("cannot write the payload", errno));
  return file;
}

}  // namespace

Result<ProcessGuard> ProcessGuard::start() {
  auto pipe = make_pipe();
  if (!pipe) return std::unexpected(system_error("cannot make a pipe", errno));
  const pid_t pid = fork();
  if (pid < 0) return std::unexpected(system_error("cannot start a process", errno));
  if (pid == 0) {
    pipe->write.reset();
    guard(pipe->read.get());
  }
  return ProcessGuard(fcntl(pipe->write.get(), F_DUPFD_CLOEXEC, 3), pid);
}

ProcessGuard::ProcessGuard(ProcessGuard&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), pid_(std::exchange(other.pid_, -1)) {}

ProcessGuard::~ProcessGuard() {
  if (fd_ >= 0) close(fd_);
  while (pid_ > 0 && waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<std::string> find_program(const std::string& name) {
  const auto runnable = [](const std::string& path) {
    struct stat status{};
    return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    if (runnable(name)) return name;
    return fail(Errc::invalid_config,
                access(name.c_str(), F_OK) == 0
                    ? "cannot run '" + name + "': it is not an executable file; chmod +x makes it one"
                    : "cannot run '" + name + "': there is no such file");
  }
  const char* variable = std::getenv("PATH");
  std::string_view folders = variable ? variable : "/usr/local/bin:/usr/bin:/bin";
  while (!name.empty() && !folders.empty()) {
    const auto colon = std::min(folders.find(':'), folders.size());
    std::string path = (colon == 0 ? "." : std::string(folders.substr(0, colon))) + "/" + name;
    if (runnable(path)) return path;
    folders.remove_prefix(std::min(colon + 1, folders.size()));
  }
  return fail(Errc::invalid_config, "cannot run '" + name + "': there is no such command in PATH");
}

struct ChildProcess::Pipes {
  Pipe error;
  Pipe output;
};

Result<pid_t> ChildProcess::start(const ChildSpec& spec, Pipes& pipes) {
  auto input = file_with(spec.input);
  if (!input) return std::unexpected(std::move(input.error()));
  auto failure = make_pipe();
  auto error = make_pipe();
  auto output = make_pipe();
  if (!failure || !error || !output) return std::unexpected(system_error("cannot make a pipe", errno));
  pipes.error = std::move(*error);
  pipes.output = std::move(*output);
  const auto environment = merged_environment(spec.environment);
  const auto words = pointers_to(spec.words);
  const auto variables = pointers_to(environment);
  const Launch how{.path = spec.path.c_str(),
                   .words = words.data(),
                   .environment = variables.data(),
                   .input = input->get(),
                   .output = spec.output_bytes_max ? pipes.output.write.get() : -1,
                   .error = pipes.error.write.get(),
                   .guard = guard_.descriptor(),
                   .failure = failure->write.get()};
  const pid_t pid = fork();
  if (pid < 0) return std::unexpected(system_error("cannot start a process", errno));
  if (pid == 0) launch(how);
  setpgid(pid, pid);  // whoever is first; after this it can be killed as a group
  failure->write.reset();
  pipes.error.write.reset();
  pipes.output.write.reset();
  int code = 0;
  ssize_t got = -1;
  do {
    got = read(failure->read.get(), &code, sizeof code);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return pid;  // closed by exec: it runs
  tell_guard(guard_.descriptor(), -pid);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return std::unexpected(
      system_error("cannot run '" + spec.path + "'" +
                       (code == ENOEXEC ? " (a script begins with a line like #!/bin/sh)" : ""),
                   code));
}

void ChildProcess::watch(const ChildSpec& spec, int process, Pipes& pipes, ChildEnd& end) {
  Tail tail(spec.error_bytes_max);
  const auto limit = spec.time_limit ? std::optional(Clock::now() + *spec.time_limit) : std::nullopt;
  std::array<char, 16'384> buffer;
  // False when there is nothing any more.
  const auto take = [&](Descriptor& from, bool is_error) {
    const auto got = read(from.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return errno == EINTR;
    if (got <= 0) return from.reset(), false;
    const std::string_view text(buffer.data(), static_cast<std::size_t>(got));
    if (is_error) {
      tail.add(text);
      if (spec.on_stderr) spec.on_stderr(text);
    } else {
      const auto room = spec.output_bytes_max - end.output.size();
      end.output_cut = end.output_cut || text.size() > room;
      end.output += text.substr(0, room);
    }
    return true;
  };
  for (const auto* one : {&pipes.error.read, &pipes.output.read}) fcntl(one->get(), F_SETFL, O_NONBLOCK);
  for (;;) {
    auto until = end.out_of_time ? std::nullopt : limit;
    {
      const std::lock_guard lock(mutex_);
      if (terminated_at_) until = std::min(until.value_or(Clock::time_point::max()), *terminated_at_ + grace);
    }
    // Woken once a second besides: kill_group() of another thread may have set a term.
    auto wait = std::chrono::milliseconds(1'000);
    if (until)
      wait = std::clamp(std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now()),
                        std::chrono::milliseconds(0), wait);
    pollfd files[] = {
        {process, POLLIN, 0}, {pipes.error.read.get(), POLLIN, 0}, {pipes.output.read.get(), POLLIN, 0}};
    const int ready = poll(files, 3, static_cast<int>(wait.count()));
    if (ready > 0 && files[1].revents) take(pipes.error.read, true);
    if (ready > 0 && files[2].revents) take(pipes.output.read, false);
    if (ready > 0 && files[0].revents) break;
    const auto now = Clock::now();
    if (limit && !end.out_of_time && now >= *limit) {
      end.out_of_time = true;
      kill_group(SIGTERM);
    }
    bool kill_now = false;
    {
      const std::lock_guard lock(mutex_);
      kill_now = terminated_at_ && now >= *terminated_at_ + grace;
    }
    if (kill_now) kill_group(SIGKILL);
  }
  // What it wrote last. Processes that it left behind may hold the pipes open: they are not waited for.
  while (pipes.error.read && take(pipes.error.read, true)) {
  }
  while (pipes.output.read && take(pipes.output.read, false)) {
  }
  end.error_end = tail.end();
}

Result<ChildEnd> ChildProcess::run(const ChildSpec& spec) {
  Pipes pipes;
  const auto pid = start(spec, pipes);
  if (!pid) return std::unexpected(pid.error());
  // By its number: the header of glibc 2.36 declares pidfd_open() for C only.
  const Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, *pid, 0)));
  int early = 0;
  {
    const std::lock_guard lock(mutex_);
    pid_ = *pid;
    early = std::exchange(pending_signal_, 0);
  }
  if (early) kill_group(early);
  ChildEnd end;
  if (process) watch(spec, process.get(), pipes, end);
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(*pid), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  {
    const std::lock_guard lock(mutex_);
    // Its leader is gone, but what it had started may not be.
    if (terminated_at_) kill(-pid_, SIGKILL);
    pid_ = 0;
    terminated_at_.reset();
  }
  tell_guard(guard_.descriptor(), -*pid);
  int status = 0;
  while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    end.signal = WTERMSIG(status);
  else
    end.code = WEXITSTATUS(status);
  return end;
}

void ChildProcess::kill_group(int signal) {
  const std::lock_guard lock(mutex_);
  if (pid_ <= 0) {
    pending_signal_ = signal;
    return;
  }
  if (!terminated_at_) terminated_at_ = Clock::now();
  kill(-pid_, signal);
  kill(-pid_, SIGCONT);  // one that is stopped ends, too
}

}  // namespace fulmar::cli
