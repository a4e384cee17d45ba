#pragma once
// Broker: a real one, mosquitto as it comes, on a free loopback port, without persistence. Gone when it goes out of scope.
// Not thread-safe: of the parent, which has one thread.

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "fulmar/result.hpp"

namespace fulmar::bench {

class Broker {
 public:
  // `folder`: for its configuration and log. Errors: it is not installed, or does not listen within 5 s.
  static Result<Broker> start(const std::filesystem::path& folder);
  ~Broker();
  Broker(Broker&& other) noexcept;
  Broker& operator=(Broker&&) = delete;

  std::uint16_t port() const { return port_; }
  static std::string version();  // empty: not installed

 private:
  Broker(pid_t pid, std::uint16_t port) : pid_(pid), port_(port) {}

  pid_t pid_;
  std::uint16_t port_;
};

}  // namespace fulmar::bench
