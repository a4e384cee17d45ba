#pragma once
// Server: a rival's server of this run alone: its files in a scratch folder, a Unix socket in a private directory instead of
// a port. It ends with its object, and with the process that started it, whatever becomes of that.
//
// Not thread-safe: of the parent, which has one thread.

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

class Server {
 public:
  struct Command {
    std::vector<std::string> words;   // the program's path first
    std::filesystem::path output;     // stdout and stderr
    std::filesystem::path directory;  // to run in; becomes the server's own
    int end_signal = 15;
  };
  // Nothing runs; there is only an address.
  explicit Server(std::string address) : address_(std::move(address)) {}
  // `answers`: whether it can be used by now; asked for up to 20 s. Errors: it ended or did not answer, with the last line
  // that it wrote.
  static Result<Server> start(const Command& command, std::string address,
                              std::filesystem::path socket_directory, const std::function<bool()>& answers);
  ~Server();
  Server(Server&& other) noexcept;
  Server& operator=(Server&&) = delete;

  const std::string& address() const { return address_; }

 private:
  std::string address_;
  pid_t pid_ = -1;
  int end_signal_ = 15;
  std::filesystem::path socket_directory_;
};

// A new directory with a short name, as sockets need it, that `Server` removes.
Result<std::filesystem::path> make_socket_directory();
// Runs it to its end, as the server's owner. Errors: its exit code and the last line that it wrote.
Result<void> run_program(const Server::Command& command);

// PostgreSQL refuses to be root: as root, servers get the directory for a user of their own.
Result<void> give_to_server_user(const std::filesystem::path& directory);

bool accepts_connections(const std::filesystem::path& socket);
// The first of them that can be executed, or empty.
std::string first_program(std::initializer_list<const char*> paths);
// The first line that `program argument` prints; empty when there is none.
std::string first_line_of(const std::string& program, const std::string& argument);

}  // namespace fulmar::bench
