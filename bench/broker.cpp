#include "broker.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

namespace fulmar::bench {
namespace {

constexpr const char* program = "/usr/sbin/mosquitto";
constexpr int attempts = 5;  // somebody else may take the port in between

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

std::uint16_t free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto address = loopback(0);
  socklen_t size = sizeof address;
  ::bind(probe, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(probe);
  return ntohs(address.sin_port);
}

bool listens(std::uint16_t port) {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto address = loopback(port);
  const bool connected = ::connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(probe);
  return connected;
}

}  // namespace

Result<Broker> Broker::start(const std::filesystem::path& folder) {
  if (::access(program, X_OK) != 0) {
    return fail(Errc::io_error, fmt::format("{} is not there: apt-get install mosquitto", program));
  }
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const auto port = free_port();
    const auto configuration = folder / "mosquitto.conf";
    std::ofstream(configuration) << fmt::format(
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n", port);
    const pid_t pid = ::fork();
    if (pid < 0) return fail(Errc::io_error, fmt::format("mosquitto: fork: {}", std::strerror(errno)));
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int nowhere = ::open("/dev/null", O_RDWR);
      for (const int fd : {0, 1, 2}) ::dup2(nowhere, fd);
      ::execl(program, "mosquitto", "-c", configuration.c_str(), nullptr);
      ::_exit(127);
    }
    Broker broker(pid, port);
    for (int i = 0; i < 1'000 && ::waitpid(pid, nullptr, WNOHANG) == 0; ++i) {
      if (listens(port)) return broker;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  return fail(Errc::io_error, "mosquitto does not start: try it by hand");
}

Broker::Broker(Broker&& other) noexcept : pid_(std::exchange(other.pid_, -1)), port_(other.port_) {}

Broker::~Broker() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGTERM);
  ::waitpid(pid_, nullptr, 0);
}

std::string Broker::version() {
  std::string version;
  if (auto* pipe = ::popen(fmt::format("{} -h 2>/dev/null", program).c_str(), "re")) {
    std::array<char, 200> line{};
    const std::string_view prefix = "mosquitto version ";
    if (std::fgets(line.data(), line.size(), pipe) && std::string_view(line.data()).starts_with(prefix)) {
      version = line.data() + prefix.size();
      while (!version.empty() && version.back() == '\n') version.pop_back();
    }
    while (std::fgets(line.data(), line.size(), pipe)) {
    }
    ::pclose(pipe);
  }
  return version;
}

}  // namespace fulmar::bench
