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
#include <sstream>
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

// Bound to 127.0.0.1:`port` (0: a free one), not listening; -1 with errno.
int loopback_socket(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  if (fd < 0 || ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return -1;
  }
  return fd;
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
      counts.connected = true;
      if (level_ == 5)
        append(replies, {0x20, 3, 0, 0, 0});
      else
        append(replies, {0x20, 2, 0, 0});
      return;
    }
    case 4:  // PUBACK
      ++counts.acknowledgements;
      return;
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
        const std::size_t length = read_u16(body.data() + at);
        if (subscribe && codes.empty() && at + 2 + length <= body.size()) {
          counts.filter.assign(reinterpret_cast<const char*>(body.data()) + at + 2, length);
        }
        at += 2u + length + (subscribe ? 1 : 0);
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

constexpr std::uint64_t flood_in_flight_max = 1'000;  // QoS 1
constexpr std::size_t flood_send_bytes = 64 * 1024;

std::int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Messages for one subscriber, laid out once; a packet identifier is all that changes in them.
class Flood {
 public:
  Flood(std::string_view topic, std::uint8_t level, unsigned qos, std::size_t payload) : qos_(qos) {
    const std::size_t length = 2 + topic.size() + (qos != 0 ? 2 : 0) + (level == 5 ? 1 : 0) + payload;
    std::vector<std::uint8_t> packet{static_cast<std::uint8_t>(0x30 | qos << 1)};
    for (auto left = length;; left >>= 7) {
      packet.push_back(static_cast<std::uint8_t>((left & 0x7f) | (left > 0x7f ? 0x80 : 0)));
      if (left <= 0x7f) break;
    }
    append(packet, {static_cast<std::uint8_t>(topic.size() >> 8), static_cast<std::uint8_t>(topic.size())});
    packet.insert(packet.end(), topic.begin(), topic.end());
    id_at_ = packet.size();
    if (qos != 0) append(packet, {0, 0});
    if (level == 5) packet.push_back(0);
    packet.insert(packet.end(), payload, 'x');
    packet_bytes_ = packet.size();
    const std::size_t count = std::max<std::size_t>(1, flood_send_bytes / packet.size());
    for (std::size_t i = 0; i < count; ++i) block_.insert(block_.end(), packet.begin(), packet.end());
  }

  // Sends until the socket is full, the window is, or the time is over; -1 when the connection is gone.
  int send(int fd, SinkPage& page) {
    for (;;) {
      if (at_ == end_) {
        if (over_) return 0;
        if (now_ns() >= page.flood_until_ns.load(std::memory_order_relaxed)) {
          over_ = true;
          return 0;
        }
        const std::uint64_t room = qos_ == 0 ? UINT64_MAX : flood_in_flight_max - in_flight_;
        const auto count = std::min<std::uint64_t>(room, block_.size() / packet_bytes_);
        if (count == 0) return 0;
        if (qos_ != 0) number(count);
        at_ = 0;
        end_ = count * packet_bytes_;
        if (page.flood_began_ns.load(std::memory_order_relaxed) == 0) page.flood_began_ns.store(now_ns());
        page.flooded.fetch_add(count, std::memory_order_relaxed);
      }
      const auto sent = ::send(fd, block_.data() + at_, end_ - at_, MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
      at_ += static_cast<std::size_t>(sent);
    }
  }

  void acknowledged(std::uint64_t count) { in_flight_ -= std::min(count, in_flight_); }
  bool finished() const { return over_ && at_ == end_; }
  // An answer must wait until the packet is whole.
  bool within_packet() const { return at_ % packet_bytes_ != 0; }
  // Nothing to send before an acknowledgement comes.
  bool waits() const { return at_ == end_ && (over_ || (qos_ != 0 && in_flight_ >= flood_in_flight_max)); }

 private:
  void number(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      packet_id_ = packet_id_ == 65'535 ? std::uint16_t{1} : static_cast<std::uint16_t>(packet_id_ + 1);
      block_[i * packet_bytes_ + id_at_] = static_cast<std::uint8_t>(packet_id_ >> 8);
      block_[i * packet_bytes_ + id_at_ + 1] = static_cast<std::uint8_t>(packet_id_);
    }
    in_flight_ += count;
  }

  const unsigned qos_;
  std::vector<std::uint8_t> block_;
  std::size_t packet_bytes_ = 0;
  std::size_t id_at_ = 0;
  std::size_t at_ = 0;
  std::size_t end_ = 0;
  std::uint16_t packet_id_ = 0;
  std::uint64_t in_flight_ = 0;
  bool over_ = false;
};

struct Connection {
  SinkProtocol protocol;
  // Not initialised: ten thousand idle connections touch none of it.
  std::unique_ptr<std::uint8_t[]> input = std::make_unique_for_overwrite<std::uint8_t[]>(read_bytes);
  std::size_t filled = 0;
  std::vector<std::uint8_t> unsent;
  std::uint32_t interest = EPOLLIN;
  bool connected = false;
  std::string filter;
  std::unique_ptr<Flood> flood;
};

class Server {
 public:
  Server(int listener, std::uint16_t port, SinkPage& page)
      : listener_(listener), port_(port), page_(page), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
  }

  [[noreturn]] void run() {
    epoll_event events[64];
    for (;;) {
      apply(page_.behaviour.load(std::memory_order_relaxed));
      if (behaviour_ == SinkBehaviour::stall) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      if (page_.flooding() && !flooding_) begin_flood();
      const int ready = ::epoll_wait(epoll_, events, 64, 5);  // the time-out is for what the page asks for
      for (int i = 0; i < ready; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_)
          accept();
        else if (const auto found = connections_.find(fd); found != connections_.end()) {
          if (!serve(fd, *found->second, events[i].events)) close(fd);
        }
      }
      if (flooding_) end_flood();
    }
  }

 private:
  void watch(int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(epoll_, operation, fd, &event);
  }

  void apply(SinkBehaviour wanted) {
    if (wanted == behaviour_) return;
    const bool away = behaviour_ == SinkBehaviour::down || behaviour_ == SinkBehaviour::silent;
    if (away || wanted == SinkBehaviour::down || wanted == SinkBehaviour::silent) {
      while (!connections_.empty()) close(connections_.begin()->first);
    }
    behaviour_ = wanted;
    if (wanted == SinkBehaviour::down) {
      // Bound and not listening: refuses connections, and nobody else gets the port.
      ::close(listener_);
      listener_ = loopback_socket(port_);
    } else if (away) {
      page_.accepted_ns.store(0);
      page_.acknowledged_ns.store(0);
      page_.listening_ns.store(now_ns());
      ::listen(listener_, SOMAXCONN);  // once more does no harm
      watch(EPOLL_CTL_DEL, listener_, 0);
      watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
    }
    page_.applied.store(wanted, std::memory_order_release);
  }

  void accept() {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    page_.accepted_ns.store(now_ns());
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections_[fd] = std::make_unique<Connection>();
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
  }

  void close(int fd) {
    if (connections_.at(fd)->connected) page_.connections.fetch_sub(1);
    connections_.erase(fd);
    ::close(fd);
  }

  // False when the connection is over.
  bool serve(int fd, Connection& connection, std::uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !send(fd, connection)) return false;
    if (connection.unsent.size() > unsent_bytes_max || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0)
      return true;

    const auto got =
        ::recv(fd, connection.input.get() + connection.filled, read_bytes - connection.filled, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    if (behaviour_ == SinkBehaviour::silent) return true;
    connection.filled += static_cast<std::size_t>(got);

    SinkProtocol::Counts counts;
    const bool acknowledge = behaviour_ == SinkBehaviour::acknowledge;
    const auto taken = connection.protocol.consume({connection.input.get(), connection.filled},
                                                   connection.unsent, counts, acknowledge);
    connection.filled -= taken;
    std::memmove(connection.input.get(), connection.input.get() + taken, connection.filled);
    count(counts, static_cast<std::size_t>(got));
    if (counts.connected && !connection.connected) {
      connection.connected = true;
      page_.connections.fetch_add(1);
    }
    if (!counts.filter.empty()) connection.filter = counts.filter;
    if (connection.flood) connection.flood->acknowledged(counts.acknowledgements);
    if (counts.malformed || counts.disconnected) return false;
    if (!send(fd, connection)) return false;
    if (acknowledge && counts.publishes[0] + counts.publishes[1] + counts.publishes[2] != 0 &&
        page_.acknowledged_ns.load(std::memory_order_relaxed) == 0) {
      page_.acknowledged_ns.store(now_ns());
    }
    return true;
  }

  void count(const SinkProtocol::Counts& counts, std::size_t bytes) {
    // One writer, so plain stores suffice. release: pairs with publishes_total()'s acquire.
    const auto add = [](std::atomic<std::uint64_t>& counter, std::uint64_t n) {
      if (n != 0) counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
    };
    if (counts.publishes[0] + counts.publishes[1] + counts.publishes[2] != 0) {
      page_.last_publish_ns.store(now_ns(), std::memory_order_relaxed);
    }
    add(page_.bytes, bytes);
    add(page_.reads, 1);
    add(page_.violations, counts.malformed ? 1 : 0);
    for (std::size_t qos = 0; qos < 3; ++qos) add(page_.publishes[qos], counts.publishes[qos]);
  }

  void begin_flood() {
    flooding_ = true;
    for (auto& [fd, connection] : connections_) {
      if (connection->filter.empty()) continue;
      connection->flood = std::make_unique<Flood>(connection->filter, connection->protocol.level(),
                                                  page_.flood_qos.load(), page_.flood_payload.load());
      set_interest(fd, *connection);
    }
  }

  void end_flood() {
    for (auto& [fd, connection] : connections_) {
      if (!connection->flood) continue;
      // A window that stays full ends the flood too, when its time is over.
      if (connection->flood->waits()) connection->flood->send(fd, page_);
      if (!connection->flood->finished()) return;
    }
    for (auto& [fd, connection] : connections_) {
      connection->flood.reset();
      set_interest(fd, *connection);
    }
    flooding_ = false;
    page_.flood_until_ns.store(0, std::memory_order_release);  // pairs with flooding(): `flooded` is final
  }

  bool send(int fd, Connection& connection) {
    auto& unsent = connection.unsent;
    if (!unsent.empty() && !(connection.flood && connection.flood->within_packet())) {
      const auto sent = ::send(fd, unsent.data(), unsent.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
      if (sent > 0) unsent.erase(unsent.begin(), unsent.begin() + sent);
    }
    if (connection.flood && connection.flood->send(fd, page_) < 0) return false;
    set_interest(fd, connection);
    return true;
  }

  void set_interest(int fd, Connection& connection) {
    const bool wants_out = !connection.unsent.empty() || (connection.flood && !connection.flood->waits());
    const std::uint32_t interest =
        (connection.unsent.size() > unsent_bytes_max ? 0u : std::uint32_t{EPOLLIN}) |
        (wants_out ? std::uint32_t{EPOLLOUT} : 0u);
    if (interest != connection.interest) watch(EPOLL_CTL_MOD, fd, connection.interest = interest);
  }

  int listener_;
  const std::uint16_t port_;
  SinkPage& page_;
  int epoll_;
  SinkBehaviour behaviour_ = SinkBehaviour::acknowledge;
  bool flooding_ = false;
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

void SinkPage::flood(unsigned qos, unsigned payload_bytes, std::chrono::nanoseconds time) {
  flood_qos.store(qos);
  flood_payload.store(payload_bytes);
  flooded.store(0);
  flood_began_ns.store(0);
  flood_until_ns.store(now_ns() + time.count());
}

bool SinkPage::become(SinkBehaviour wanted) {
  behaviour.store(wanted);
  for (int i = 0; i < 10'000; ++i) {
    if (applied.load(std::memory_order_acquire) == wanted) return true;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return false;
}

std::optional<SinkBehaviour> sink_behaviour(std::string_view name) {
  constexpr std::pair<std::string_view, SinkBehaviour> all[]{{"acknowledge", SinkBehaviour::acknowledge},
                                                             {"mute", SinkBehaviour::mute},
                                                             {"stall", SinkBehaviour::stall},
                                                             {"silent", SinkBehaviour::silent},
                                                             {"down", SinkBehaviour::down}};
  for (const auto& [known, behaviour] : all) {
    if (known == name) return behaviour;
  }
  return {};
}

std::string sink_control(SinkPage& page, std::string_view command) {
  std::istringstream words{std::string(command)};
  std::string verb;
  words >> verb;
  if (verb == "become") {
    std::string name;
    words >> name;
    const auto behaviour = sink_behaviour(name);
    return behaviour && page.become(*behaviour) ? "ok" : "error";
  }
  if (verb == "flood") {
    unsigned qos = 0;
    unsigned bytes = 0;
    std::int64_t milliseconds = 0;
    words >> qos >> bytes >> milliseconds;
    if (!words) return "error";
    page.flood(qos, bytes, std::chrono::milliseconds(milliseconds));
    return "ok";
  }
  if (verb == "reconnect") {
    return fmt::format("{} {} {}", page.listening_ns.load(), page.accepted_ns.load(),
                       page.acknowledged_ns.load());
  }
  if (verb == "arrived") return std::to_string(page.publishes_total());
  if (verb == "violations") return std::to_string(page.violations.load());
  if (verb == "last_publish_ns") return std::to_string(page.last_publish_ns.load());
  if (verb == "connections") return std::to_string(page.connections.load());
  if (verb == "flooding") return page.flooding() ? "1" : "0";
  if (verb == "flooded") return std::to_string(page.flooded.load());
  if (verb == "flood_began_ns") return std::to_string(page.flood_began_ns.load());
  return "error";
}

Result<Sink> Sink::start() {
  const int listener = loopback_socket(0);
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (listener < 0 || ::listen(listener, SOMAXCONN) != 0 ||
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
    Server(listener, ntohs(address.sin_port), **page).run();
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
