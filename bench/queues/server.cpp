#include "server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

const passwd* server_user() {
  if (::geteuid() != 0) return nullptr;
  const auto* user = ::getpwnam("postgres");
  return user != nullptr ? user : ::getpwnam("nobody");
}

std::string last_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string last;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) last = std::move(line);
  }
  return last.empty() ? "it wrote nothing" : last;
}

pid_t spawn(const Server::Command& command) {
  std::vector<char*> words;
  for (const auto& word : command.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const auto* user = server_user();
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int nowhere = ::open("/dev/null", O_RDONLY);
  const int output = ::open(command.output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(nowhere, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  if (user != nullptr &&
      (::setgroups(0, nullptr) != 0 || ::setgid(user->pw_gid) != 0 || ::setuid(user->pw_uid) != 0)) {
    ::_exit(126);
  }
  // Only now: another user's process loses this.
  ::prctl(PR_SET_PDEATHSIG, command.end_signal);
  if (::getppid() != parent || ::chdir(command.directory.c_str()) != 0) ::_exit(126);
  ::execv(words.front(), words.data());
  ::_exit(127);
}

}  // namespace

Result<fs::path> make_socket_directory() {
  std::string name = "/tmp/fulmar-bench.XXXXXX";
  if (::mkdtemp(name.data()) == nullptr)
    return fail(Errc::io_error, fmt::format("{}: {}", name, std::strerror(errno)));
  if (auto given = give_to_server_user(name); !given) return std::unexpected(given.error());
  return fs::path(name);
}

Result<void> give_to_server_user(const fs::path& directory) {
  const auto* user = server_user();
  if (user == nullptr || ::chown(directory.c_str(), user->pw_uid, user->pw_gid) == 0) return {};
  return fail(Errc::io_error, fmt::format("{}: cannot be given to user {}: {}", directory.string(),
                                          user->pw_name, std::strerror(errno)));
}

Result<void> run_program(const Server::Command& command) {
  if (auto given = give_to_server_user(command.directory); !given) return given;
  const pid_t pid = spawn(command);
  int status = -1;
  if (pid > 0) ::waitpid(pid, &status, 0);
  if (status == 0) return {};
  return fail(Errc::io_error, fmt::format("{}: {}", command.words.front(), last_line(command.output)));
}

Result<Server> Server::start(const Command& command, std::string address, fs::path socket_directory,
                             const std::function<bool()>& answers) {
  Server server(std::move(address));
  server.socket_directory_ = std::move(socket_directory);
  server.end_signal_ = command.end_signal;
  if (auto given = give_to_server_user(command.directory); !given) return std::unexpected(given.error());
  server.pid_ = spawn(command);
  const auto until = steady_clock::now() + 20s;
  while (server.pid_ > 0 && steady_clock::now() < until) {
    if (answers()) return server;
    if (::waitpid(server.pid_, nullptr, WNOHANG) != 0) {
      server.pid_ = -1;
      break;
    }
    std::this_thread::sleep_for(5ms);
  }
  return fail(Errc::io_error,
              fmt::format("{} does not start: {}", command.words.front(), last_line(command.output)));
}

Server::Server(Server&& other) noexcept
    : address_(std::move(other.address_)),
      pid_(std::exchange(other.pid_, -1)),
      end_signal_(other.end_signal_),
      socket_directory_(std::exchange(other.socket_directory_, {})) {}

Server::~Server() {
  if (pid_ > 0) {
    ::kill(pid_, end_signal_);
    const auto until = steady_clock::now() + 10s;
    while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
      if (steady_clock::now() > until) ::kill(pid_, SIGKILL);
      std::this_thread::sleep_for(2ms);
    }
  }
  std::error_code ignored;
  if (!socket_directory_.empty()) fs::remove_all(socket_directory_, ignored);
}

bool accepts_connections(const fs::path& socket) {
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
  const bool connected = ::connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(probe);
  return connected;
}

std::string first_program(std::initializer_list<const char*> paths) {
  for (const auto* path : paths) {
    if (::access(path, X_OK) == 0) return path;
  }
  return {};
}

std::string first_line_of(const std::string& program, const std::string& argument) {
  std::string text;
  if (auto* pipe = ::popen(fmt::format("'{}' {} 2>/dev/null", program, argument).c_str(), "re")) {
    std::array<char, 300> line{};
    if (std::fgets(line.data(), line.size(), pipe)) text = line.data();
    while (std::fgets(line.data(), line.size(), pipe)) {
    }
    ::pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace fulmar::bench
