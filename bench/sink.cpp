#include "sink.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <unordered_map>
#include <utility>

namespace fulmar::bench {
namespace {

constexpr std::size_t read_bytes = 256 * 1024;
constexpr std::size_t control_packet_bytes_max = 64 * 1024;
constexpr std::size_t unsent_bytes_max = 1024 * 1024;  // a client that does not read is not read either

std::uint16_t read_u16(const std::uint8_t* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }

struct RemainingLength {
  std::uint32_t value = 0;
  std::size_t size = 0;  // bytes it took; 0 = more input needed
  bool malformed = false;
};

RemainingLength read_remaining_length(std::span<const std::uint8_t> input) {
  RemainingLength result;
  for (std::size_t i = 0; i < 4; ++i) {
    if (i == input.size()) return result;
    result.value |= std::uint32_t{input[i] & 0x7fu} << (7 * i);
    if ((input[i] & 0x80) == 0) {
      result.size = i + 1;
      return result;
    }
  }
  result.malformed = true;
  return result;
}

void append(std::vector<std::uint8_t>& to, std::initializer_list<std::uint8_t> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

std::uint64_t SinkPage::publishes_total() const {
  // acquire: pairs with the sink's release, so that last_publish_ns is at least as new as the counts.
  return publishes[0].load(std::memory_order_acquire) + publishes[1].load(std::memory_order_acquire) +
         publishes[2].load(std::memory_order_acquire);
}

void SinkProtocol::published(std::uint8_t qos, std::uint16_t packet_id, std::vector<std::uint8_t>& replies,
                             Counts& counts, bool acknowledge) {
  ++counts.publishes[qos];
  if (qos == 0 || !acknowledge) return;
  append(replies, {static_cast<std::uint8_t>(qos == 1 ? 0x40 : 0x50), 2,
                   static_cast<std::uint8_t>(packet_id >> 8), static_cast<std::uint8_t>(packet_id)});
}

void SinkProtocol::control(std::uint8_t first, std::span<const std::uint8_t> body,
                           std::vector<std::uint8_t>& replies, Counts& counts) {
  const bool v5 = level_ == 5;
  switch (first >> 4) {
    case 1: {  // CONNECT: protocol name, then the level
      const std::size_t level_at = body.size() >= 2 ? 2u + read_u16(body.data()) : body.size();
      if (level_at >= body.size()) break;
      level_ = body[level_at];
      if (level_ == 5)
        append(replies, {0x20, 3, 0, 0, 0});
      else
        append(replies, {0x20, 2, 0, 0});
      return;
    }
    case 6:  // PUBREL
      if (body.size() < 2) break;
      append(replies, {0x70, 2, body[0], body[1]});
      return;
    case 8:     // SUBSCRIBE
    case 10: {  // UNSUBSCRIBE
      if (body.size() < 2) break;
      std::size_t at = 2;
      if (v5) {
        const auto properties = read_remaining_length(body.subspan(at));
        if (properties.malformed || properties.size == 0) break;
        at += properties.size + properties.value;
      }
      const bool subscribe = first >> 4 == 8;
      std::vector<std::uint8_t> codes;
      while (at + 2 <= body.size()) {
        at += 2u + read_u16(body.data() + at) + (subscribe ? 1 : 0);
        if (at > body.size()) break;
        const auto granted = subscribe ? std::min<std::uint8_t>(body[at - 1] & 3, 2) : std::uint8_t{0};
        if (subscribe || v5) codes.push_back(granted);
      }
      if (at != body.size() || 3 + codes.size() > 127) break;
      append(replies, {static_cast<std::uint8_t>(subscribe ? 0x90 : 0xb0),
                       static_cast<std::uint8_t>(2 + (v5 ? 1 : 0) + codes.size()), body[0], body[1]});
      if (v5) replies.push_back(0);
      replies.insert(replies.end(), codes.begin(), codes.end());
      return;
    }
    case 12:  // PINGREQ
      append(replies, {0xd0, 0});
      return;
    case 14:  // DISCONNECT
      counts.disconnected = true;
      return;
    default: break;
  }
  counts.malformed = true;
}

std::size_t SinkProtocol::consume(std::span<const std::uint8_t> input, std::vector<std::uint8_t>& replies,
                                  Counts& counts, bool acknowledge) {
  std::size_t at = 0;
  if (skip_ != 0) {
    at = std::min(skip_, input.size());
    skip_ -= at;
    if (skip_ != 0) return at;
    published(skip_qos_, skip_packet_id_, replies, counts, acknowledge);
  }
  while (input.size() - at >= 2) {
    const std::uint8_t first = input[at];
    const auto length = read_remaining_length(input.subspan(at + 1));
    if (length.malformed) {
      counts.malformed = true;
      return at;
    }
    if (length.size == 0) return at;
    const std::size_t available = input.size() - at;
    const std::size_t head = 1 + length.size;
    const std::size_t total = head + length.value;

    if (first >> 4 == 3) {
      const std::uint8_t qos = (first >> 1) & 3;
      if (available < head + 2) return at;
      const std::size_t topic_end = head + 2 + read_u16(&input[at + head]);
      const std::size_t need = topic_end + (qos != 0 ? 2 : 0);
      if (qos == 3 || need > total) {
        counts.malformed = true;
        return at;
      }
      if (available < need) return at;
      const std::uint16_t packet_id = qos != 0 ? read_u16(&input[at + topic_end]) : std::uint16_t{0};
      if (available < total) {
        skip_ = total - available;
        skip_qos_ = qos;
        skip_packet_id_ = packet_id;
        return input.size();
      }
      published(qos, packet_id, replies, counts, acknowledge);
      at += total;
      continue;
    }

    if (total > control_packet_bytes_max) counts.malformed = true;
    if (counts.malformed || available < total) return at;
    control(first, input.subspan(at + head, length.value), replies, counts);
    if (counts.malformed || counts.disconnected) return at;
    at += total;
  }
  return at;
}

namespace {

struct Connection {
  SinkProtocol protocol;
  std::vector<std::uint8_t> input = std::vector<std::uint8_t>(read_bytes);
  std::size_t filled = 0;
  std::vector<std::uint8_t> unsent;
  std::uint32_t interest = EPOLLIN;
};

class Server {
 public:
  Server(int listener, SinkPage& page)
      : listener_(listener), page_(page), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  [[noreturn]] void run() {
    epoll_event events[64];
    for (;;) {
      if (page_.behaviour.load(std::memory_order_relaxed) == SinkBehaviour::stall) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      const int ready = ::epoll_wait(epoll_, events, 64, 100);  // the time-out is for a change of behaviour
      for (int i = 0; i < ready; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_)
          accept();
        else if (!serve(fd, *connections_.at(fd), events[i].events))
          close(fd);
      }
    }
  }

 private:
  void watch(int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(epoll_, operation, fd, &event);
  }

  void accept() {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections_[fd] = std::make_unique<Connection>();
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
  }

  void close(int fd) {
    connections_.erase(fd);
    ::close(fd);
  }

  // False when the connection is over.
  bool serve(int fd, Connection& connection, std::uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !send(fd, connection)) return false;
    if (connection.unsent.size() > unsent_bytes_max || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0)
      return true;

    const auto got =
        ::recv(fd, connection.input.data() + connection.filled, read_bytes - connection.filled, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    connection.filled += static_cast<std::size_t>(got);

    SinkProtocol::Counts counts;
    const bool acknowledge = page_.behaviour.load(std::memory_order_relaxed) == SinkBehaviour::acknowledge;
    const auto taken = connection.protocol.consume({connection.input.data(), connection.filled},
                                                   connection.unsent, counts, acknowledge);
    connection.filled -= taken;
    std::memmove(connection.input.data(), connection.input.data() + taken, connection.filled);
    count(counts, static_cast<std::size_t>(got));
    if (counts.malformed || counts.disconnected) return false;
    return send(fd, connection);
  }

  void count(const SinkProtocol::Counts& counts, std::size_t bytes) {
    // One writer, so plain stores suffice. release: pairs with publishes_total()'s acquire.
    const auto add = [](std::atomic<std::uint64_t>& counter, std::uint64_t n) {
      if (n != 0) counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
    };
    if (counts.publishes[0] + counts.publishes[1] + counts.publishes[2] != 0) {
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      page_.last_publish_ns.store(std::chrono::nanoseconds(now).count(), std::memory_order_relaxed);
    }
    add(page_.bytes, bytes);
    add(page_.reads, 1);
    add(page_.violations, counts.malformed ? 1 : 0);
    for (std::size_t qos = 0; qos < 3; ++qos) add(page_.publishes[qos], counts.publishes[qos]);
  }

  bool send(int fd, Connection& connection) {
    auto& unsent = connection.unsent;
    if (!unsent.empty()) {
      const auto sent = ::send(fd, unsent.data(), unsent.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
      if (sent > 0) unsent.erase(unsent.begin(), unsent.begin() + sent);
    }
    const std::uint32_t interest = (unsent.size() > unsent_bytes_max ? 0u : std::uint32_t{EPOLLIN}) |
                                   (unsent.empty() ? 0u : std::uint32_t{EPOLLOUT});
    if (interest != connection.interest) watch(EPOLL_CTL_MOD, fd, connection.interest = interest);
    return true;
  }

  int listener_;
  SinkPage& page_;
  int epoll_;
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;
};

Error system_error(std::string_view what) {
  return {Errc::io_error, fmt::format("sink: {}: {}", what, std::strerror(errno)), std::nullopt};
}

}  // namespace

Result<SinkPage*> Sink::map_page(int fd) {
  void* memory = ::mmap(nullptr, sizeof(SinkPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return std::unexpected(system_error("mmap of the shared page"));
  return static_cast<SinkPage*>(memory);
}

Result<Sink> Sink::start() {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (listener < 0 || ::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener, SOMAXCONN) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return std::unexpected(system_error("listening on 127.0.0.1"));
  }
  const int page_fd = ::memfd_create("fulmar-bench-sink", 0);
  if (page_fd < 0 || ::ftruncate(page_fd, sizeof(SinkPage)) != 0) {
    return std::unexpected(system_error("memfd_create"));
  }
  auto page = map_page(page_fd);
  if (!page) return std::unexpected(page.error());
  new (*page) SinkPage;

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return std::unexpected(system_error("fork"));
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0);
    ::prctl(PR_SET_NAME, "bench_sink");
    ::signal(SIGINT, SIG_IGN);  // the parent ends it
    Server(listener, **page).run();
  }
  ::close(listener);
  return Sink(pid, ntohs(address.sin_port), page_fd, *page);
}

Sink::Sink(Sink&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      port_(other.port_),
      page_fd_(std::exchange(other.page_fd_, -1)),
      page_(std::exchange(other.page_, nullptr)) {}

Sink::~Sink() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::munmap(page_, sizeof(SinkPage));
  ::close(page_fd_);
}

double Sink::cpu_seconds() const {
  clockid_t clock{};
  timespec spent{};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &spent) != 0) return 0;
  return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) * 1e-9;
}

}  // namespace fulmar::bench
