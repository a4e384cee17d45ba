// beanstalkd with its binlog. Synced: -f0, an fsync for each put and delete; else as it comes, one every 50 ms at most. In
// one go: commands sent together, answered one by one.

#include <fmt/format.h>

#include "text_socket.hpp"
#include "work_queue.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;

constexpr unsigned run_time_s = 600;  // a lease
constexpr unsigned tomorrow_s = 86'400;

class Beanstalkd final : public WorkQueue {
 public:
  explicit Beanstalkd(TextSocket socket) : socket_(std::move(socket)) {}

  Result<void> put(std::span<const std::string> items) override { return put(items, 0); }
  Result<void> put_for_tomorrow(std::span<const std::string> items) override {
    return put(items, tomorrow_s);
  }

  Result<void> claim(std::size_t items_max) override {
    commands_.clear();
    for (std::size_t i = 0; i < items_max; ++i) commands_ += "reserve-with-timeout 0\r\n";
    return reserve(items_max);
  }

  Result<void> wait_claim(std::chrono::milliseconds at_most) override {
    commands_ = fmt::format("reserve-with-timeout {}\r\n", (at_most.count() + 999) / 1000);
    return reserve(1);
  }

  Result<void> complete() override {
    commands_.clear();
    for (const auto& id : ids_) fmt::format_to(std::back_inserter(commands_), "delete {}\r\n", id);
    if (auto sent = socket_.send(commands_); !sent) return sent;
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      const auto answer = socket_.line();
      if (!answer) return std::unexpected(answer.error());
      if (*answer != "DELETED") return unexpected_answer("delete", *answer);
    }
    return {};
  }

 private:
  static Result<void> unexpected_answer(std::string_view command, std::string_view answer) {
    return fail(Errc::io_error, fmt::format("beanstalkd answers {} with {}", command, answer));
  }

  Result<void> put(std::span<const std::string> items, unsigned delay_s) {
    // It reads no further while its answers are not taken: no more at a time than the socket holds.
    constexpr std::size_t bytes_enough = std::size_t{64} << 10;
    while (!items.empty()) {
      commands_.clear();
      std::size_t together = 0;
      for (; together < items.size() && commands_.size() < bytes_enough; ++together) {
        const auto& item = items[together];
        fmt::format_to(std::back_inserter(commands_), "put 100 {} {} {}\r\n{}\r\n", delay_s, run_time_s,
                       item.size(), item);
      }
      if (auto sent = socket_.send(commands_); !sent) return sent;
      for (std::size_t i = 0; i < together; ++i) {
        const auto answer = socket_.line();
        if (!answer) return std::unexpected(answer.error());
        if (!answer->starts_with("INSERTED ")) return unexpected_answer("put", *answer);
      }
      items = items.subspan(together);
    }
    return {};
  }

  Result<void> reserve(std::size_t commands) {
    items_.clear();
    ids_.clear();
    if (auto sent = socket_.send(commands_); !sent) return sent;
    for (std::size_t i = 0; i < commands; ++i) {
      const auto answer = socket_.line();  // RESERVED <id> <bytes>
      if (!answer) return std::unexpected(answer.error());
      if (*answer == "TIMED_OUT") continue;
      const auto space = answer->rfind(' ');
      constexpr std::string_view reserved = "RESERVED ";
      if (!answer->starts_with(reserved) || space <= reserved.size())
        return unexpected_answer("reserve", *answer);
      ids_.emplace_back(answer->substr(reserved.size(), space - reserved.size()));
      const auto body = socket_.body(std::stoul(std::string(answer->substr(space + 1))));
      if (!body) return std::unexpected(body.error());
      items_.emplace_back(*body);
    }
    return {};
  }

  TextSocket socket_;
  std::string commands_;
  std::vector<std::string> ids_;
};

std::string program() { return first_program({"/usr/bin/beanstalkd", "/usr/local/bin/beanstalkd"}); }

Result<Server> start(const fs::path& folder, Safety safety) {
  auto sockets = make_socket_directory();
  if (!sockets) return std::unexpected(sockets.error());
  const auto socket = *sockets / "socket";
  std::vector<std::string> words{program(), "-b", folder.string(), "-l", "unix:" + socket.string()};
  if (safety == Safety::synced) words.emplace_back("-f0");
  return Server::start({.words = std::move(words), .output = folder / "output", .directory = folder},
                       socket.string(), *sockets, [&] { return accepts_connections(socket); });
}

Result<std::unique_ptr<WorkQueue>> connect(const std::string& address, Safety, bool) {
  auto socket = TextSocket::connect(address);
  if (!socket) return std::unexpected(socket.error());
  return std::make_unique<Beanstalkd>(std::move(*socket));
}

std::string version() {
  return first_line_of(program(), "-v").substr(std::string_view("beanstalkd ").size());
}

}  // namespace

QueueKind beanstalkd_queue() {
  return {.library = "beanstalkd",
          .missing = program().empty() ? "not installed: apt-get install beanstalkd" : "",
          .version = version,
          .start = start,
          .connect = connect,
          .notices_death = true};
}

}  // namespace fulmar::bench
