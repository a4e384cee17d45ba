// Redis as a reliable queue: a list of what waits, and for each worker a list of what it has (LMOVE, LREM), as its makers
// describe it. Synced: appendfsync always; else everysec. In one go: one RPUSH, one script, LREMs sent together. It knows
// no leases: what a dead worker had stays in that worker's list.

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

#include "text_socket.hpp"
#include "work_queue.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view waiting = "waiting";
constexpr std::string_view take_script =
    "local taken = redis.call('LPOP', KEYS[1], ARGV[1]) "
    "if taken then redis.call('RPUSH', KEYS[2], unpack(taken)) end "
    "return taken";

class Redis final : public WorkQueue {
 public:
  explicit Redis(TextSocket socket)
      : socket_(std::move(socket)), mine_(fmt::format("taken:{}", ::getpid())) {}

  Result<void> prepare() {
    command({"SCRIPT", "LOAD", take_script});
    if (auto sent = exchange(); !sent) return sent;
    const auto hash = bulk();
    if (!hash) return std::unexpected(hash.error());
    script_ = *hash;
    return {};
  }

  Result<void> put(std::span<const std::string> items) override {
    fmt::format_to(std::back_inserter(commands_), "*{}\r\n", items.size() + 2);
    word("RPUSH"), word(waiting);
    for (const auto& item : items) word(item);
    if (auto sent = exchange(); !sent) return sent;
    return integer();
  }

  Result<void> put_for_tomorrow(std::span<const std::string>) override {
    return fail(Errc::invalid_config, "a list has no schedule");
  }

  Result<void> claim(std::size_t items_max) override {
    items_.clear();
    if (items_max == 1) {
      command({"LMOVE", waiting, mine_, "LEFT", "RIGHT"});
      if (auto sent = exchange(); !sent) return sent;
      return take_bulk();
    }
    command({"EVALSHA", script_, "2", waiting, mine_, std::to_string(items_max)});
    if (auto sent = exchange(); !sent) return sent;
    const auto count = number_after('*');
    if (!count) return std::unexpected(count.error());
    for (long i = 0; i < *count; ++i) {
      if (auto taken = take_bulk(); !taken) return taken;
    }
    return {};
  }

  Result<void> wait_claim(std::chrono::milliseconds at_most) override {
    items_.clear();
    command({"BLMOVE", waiting, mine_, "LEFT", "RIGHT",
             fmt::format("{:.3f}", static_cast<double>(at_most.count()) / 1e3)});
    if (auto sent = exchange(); !sent) return sent;
    return take_bulk();
  }

  Result<void> complete() override {
    for (const auto& item : items_) command({"LREM", mine_, "1", item});
    if (auto sent = exchange(); !sent) return sent;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const auto removed = number_after(':');
      if (!removed) return std::unexpected(removed.error());
      if (*removed != 1) return fail(Errc::io_error, "an item is not in its worker's list");
    }
    return {};
  }

 private:
  void word(std::string_view text) {
    fmt::format_to(std::back_inserter(commands_), "${}\r\n{}\r\n", text.size(), text);
  }
  void command(std::initializer_list<std::string_view> words) {
    fmt::format_to(std::back_inserter(commands_), "*{}\r\n", words.size());
    for (const auto one : words) word(one);
  }
  Result<void> exchange() {
    auto sent = socket_.send(commands_);
    commands_.clear();
    return sent;
  }

  // The line `kind` NUMBER, or a null of any kind as -1.
  Result<long> number_after(char kind) {
    const auto line = socket_.line();
    if (!line) return std::unexpected(line.error());
    long number = 0;
    if (line->empty() || (line->front() != kind && !line->ends_with("-1")) ||
        std::from_chars(line->data() + 1, line->data() + line->size(), number).ec != std::errc{}) {
      return fail(Errc::io_error, fmt::format("Redis answers {}", *line));
    }
    return number;
  }
  Result<void> integer() {
    const auto number = number_after(':');
    return number ? Result<void>{} : std::unexpected(number.error());
  }
  Result<std::string_view> bulk() {
    const auto size = number_after('$');
    if (!size) return std::unexpected(size.error());
    if (*size < 0) return std::string_view();  // null
    return socket_.body(static_cast<std::size_t>(*size));
  }
  Result<void> take_bulk() {
    const auto item = bulk();
    if (!item) return std::unexpected(item.error());
    if (!item->empty()) items_.emplace_back(*item);
    return {};
  }

  TextSocket socket_;
  std::string mine_;
  std::string script_;
  std::string commands_;
};

std::string program() { return first_program({"/usr/bin/redis-server", "/usr/local/bin/redis-server"}); }

Result<Server> start(const fs::path& folder, Safety safety) {
  auto sockets = make_socket_directory();
  if (!sockets) return std::unexpected(sockets.error());
  const auto socket = *sockets / "socket";
  return Server::start({.words = {program(), "--port", "0", "--unixsocket", socket.string(), "--dir",
                                  folder.string(), "--save", "", "--appendonly", "yes", "--appendfsync",
                                  safety == Safety::synced ? "always" : "everysec"},
                        .output = folder / "output",
                        .directory = folder},
                       socket.string(), *sockets, [&] { return accepts_connections(socket); });
}

Result<std::unique_ptr<WorkQueue>> connect(const std::string& address, Safety, bool) {
  auto socket = TextSocket::connect(address);
  if (!socket) return std::unexpected(socket.error());
  auto queue = std::make_unique<Redis>(std::move(*socket));
  if (auto prepared = queue->prepare(); !prepared) return std::unexpected(prepared.error());
  return queue;
}

std::string version() {
  const auto line = first_line_of(program(), "--version");  // Redis server v=7.0.15 sha=...
  const auto at = line.find("v=");
  return at == line.npos ? line : line.substr(at + 2, line.find(' ', at) - at - 2);
}

}  // namespace

QueueKind redis_queue() {
  return {.library = "Redis",
          .missing = program().empty() ? "not installed: apt-get install redis-server" : "",
          .version = version,
          .start = start,
          .connect = connect,
          .schedules = false,
          .note = "lists: no priorities, schedules, retries or leases"};
}

}  // namespace fulmar::bench
