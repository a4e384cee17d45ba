#include "daemon/broker_child.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto start_patience = 5s;
constexpr auto stop_patience = 300ms;
constexpr auto backoff_min = 100ms;
constexpr std::chrono::milliseconds backoff_max = 2s;
constexpr auto stable_after = 5s;
constexpr int ports_to_try = 50;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

class Socket {
 public:
  Socket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() { ::close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  bool bind(std::uint16_t port) {
    const sockaddr_in address = loopback(port);
    return ::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  bool connect(std::uint16_t port) {
    const sockaddr_in address = loopback(port);
    return ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

 private:
  int fd_;
};

// Below the range that the kernel gives to outgoing connections: while the broker is down, a client that keeps trying a
// port of that range would in the end connect to itself, and keep the broker from coming back.
std::uint16_t free_port() {
  std::random_device seed;
  std::minstd_rand random(seed());
  std::uniform_int_distribution<int> ports(20'000, 31'999);
  for (int i = 0; i < ports_to_try; ++i) {
    const auto port = static_cast<std::uint16_t>(ports(random));
    if (Socket().bind(port)) return port;
  }
  return 0;
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exit code {}", WEXITSTATUS(status));
}

std::string os_error(int error) { return std::strerror(error); }

}  // namespace

std::optional<fs::path> find_program(std::string_view name) {
  const char* path = std::getenv("PATH");
  std::string folders =
      std::string(path ? path : "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin";
  std::istringstream all(folders);
  for (std::string folder; std::getline(all, folder, ':');) {
    if (folder.empty()) continue;
    fs::path candidate = fs::path(folder) / name;
    if (::access(candidate.c_str(), X_OK) == 0 && !fs::is_directory(candidate)) return candidate;
  }
  return std::nullopt;
}

BrokerChild::~BrokerChild() { stop(); }

std::string BrokerChild::url() const { return fmt::format("mqtt://127.0.0.1:{}", port_); }

Result<void> BrokerChild::prepare() {
  const auto program = find_program("mosquitto");
  if (!program)
    return fail(Errc::io_error,
                "mosquitto is not installed: install it (apt-get install mosquitto), or name a broker with "
                "--url or MQTT_URL");
  program_ = *program;
  std::error_code error;
  fs::path base = fs::temp_directory_path(error);
  if (error) base = "/tmp";
  std::string pattern = (base / "fulmard-XXXXXX").string();
  if (!mkdtemp(pattern.data()))
    return fail(Errc::io_error,
                fmt::format("cannot create a directory in {}: {}", base.string(), os_error(errno)));
  directory_ = pattern;
  return {};
}

Result<void> BrokerChild::write_config() const {
  std::ofstream out(directory_ / "mosquitto.conf", std::ios::trunc);
  out << "listener " << port_ << " 127.0.0.1\n"
      << "allow_anonymous true\n"
      << "log_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n"
      << "max_queued_messages 100000\n"
      // Sessions and what waits for them are saved with every change: they survive a kill.
      << "persistence true\npersistence_location " << directory_.string() << "/\n"
      << "autosave_on_changes true\nautosave_interval 1\n";
  if (::geteuid() == 0) out << "user root\n";  // otherwise it would drop to a user that cannot write here
  out.flush();
  if (!out) return fail(Errc::io_error, fmt::format("cannot write {}/mosquitto.conf", directory_.string()));
  return {};
}

Result<void> BrokerChild::spawn() {
  const std::string config = (directory_ / "mosquitto.conf").string();
  const std::string log = (directory_ / "mosquitto.log").string();
  const std::array<const char*, 4> argv{program_.c_str(), "-c", config.c_str(), nullptr};
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0)
    return fail(Errc::io_error, fmt::format("cannot start {}: {}", program_.string(), os_error(errno)));
  if (pid == 0) {
    // Only async-signal-safe calls from here on: other threads may have held any lock at the fork.
    ::setpgid(0, 0);  // out of the terminal's foreground group, so that Ctrl-C is ours alone
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    const int null = ::open("/dev/null", O_RDONLY);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (null >= 0) ::dup2(null, 0);
    if (out >= 0) {
      ::dup2(out, 1);
      ::dup2(out, 2);
    }
    ::execv(argv[0], const_cast<char* const*>(argv.data()));
    ::_exit(127);
  }
  pid_ = pid;
  started_ = Clock::now();
  return {};
}

bool BrokerChild::accepts() const { return Socket().connect(port_); }

bool BrokerChild::reap(int flags) {
  if (pid_ < 0) return true;
  if (::waitpid(pid_, &exit_status_, flags) != pid_) return false;
  pid_ = -1;
  return true;
}

std::string BrokerChild::last_log_lines() const {
  constexpr std::size_t shown = 2;
  std::ifstream in(directory_ / "mosquitto.log");
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    // Lines begin with the time in seconds since the epoch: "1700000000: Error: ...".
    const std::size_t digits = line.find_first_not_of("0123456789");
    if (digits != std::string::npos && digits > 0 && line.compare(digits, 2, ": ") == 0)
      line.erase(0, digits + 2);
    lines.push_back(std::move(line));
    if (lines.size() > shown) lines.erase(lines.begin());
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : " | ") + line;
  return text.empty() ? "its log is empty" : "its log ends with: " + text;
}

Result<void> BrokerChild::start() {
  if (auto ready = prepare(); !ready) return ready;
  const auto deadline = Clock::now() + start_patience;
  // Somebody may take the port between the look and the broker's own bind: then another one is tried.
  while (Clock::now() < deadline) {
    port_ = free_port();
    if (port_ == 0) return fail(Errc::io_error, "no free loopback port between 20000 and 31999");
    if (auto written = write_config(); !written) return written;
    if (auto spawned = spawn(); !spawned) return spawned;
    while (!reap(WNOHANG) && Clock::now() < deadline) {
      if (accepts()) return {};
      std::this_thread::sleep_for(5ms);
    }
    if (pid_ < 0 && last_log_lines().find("Address already in use") == std::string::npos)
      return fail(Errc::io_error, fmt::format("{} does not start ({}); {}", program_.string(),
                                              how_it_ended(exit_status_), last_log_lines()));
  }
  return fail(Errc::timeout, fmt::format("{} does not accept connections on 127.0.0.1:{}; {}",
                                         program_.string(), port_, last_log_lines()));
}

std::optional<std::string> BrokerChild::supervise(Clock::time_point now) {
  if (directory_.empty()) return std::nullopt;
  if (pid_ >= 0) {
    const pid_t was = pid_;
    if (!reap(WNOHANG)) return std::nullopt;
    if (now - started_ >= stable_after) backoff_ = 0ms;
    backoff_ = std::clamp<std::chrono::milliseconds>(backoff_ * 2, backoff_min, backoff_max);
    restart_due_ = now + backoff_;
    return fmt::format("our own mosquitto (pid {}) ended, {}; restarting it on port {} in {:.1f} s; {}", was,
                       how_it_ended(exit_status_), port_, std::chrono::duration<double>(backoff_).count(),
                       last_log_lines());
  }
  if (now < restart_due_) return std::nullopt;
  ++restarts_;
  if (auto spawned = spawn(); !spawned) {
    restart_due_ = now + backoff_max;
    return spawned.error().message;
  }
  return fmt::format("our own mosquitto was restarted (pid {}) on port {}", pid(), port_);
}

void BrokerChild::stop() {
  if (pid_ >= 0) {
    ::kill(pid_, SIGTERM);
    const auto deadline = Clock::now() + stop_patience;
    while (!reap(WNOHANG) && Clock::now() < deadline) std::this_thread::sleep_for(2ms);
    if (pid_ >= 0) {
      ::kill(pid_, SIGKILL);
      reap(0);
    }
  }
  remove_directory();
}

void BrokerChild::remove_directory() {
  if (directory_.empty()) return;
  std::error_code error;
  fs::remove_all(directory_, error);
  directory_.clear();
}

}  // namespace fulmar::daemon
