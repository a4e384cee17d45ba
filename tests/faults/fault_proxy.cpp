#include "tests/faults/fault_proxy.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "tests/support/port.hpp"

namespace fulmar::test {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

namespace {

constexpr std::array directions = {Direction::up, Direction::down};
constexpr std::uint64_t writes_per_s = 50;  // of a throttled direction

}  // namespace

// A fixed port below the range of outgoing connections, so that the door can be closed and opened again.
FaultProxy::FaultProxy(std::uint16_t server_port, Options options)
    : server_port_(server_port), options_(options), port_(free_port()), listener_(listen()) {
  thread_ = std::thread([this] { serve(); });
}

Socket FaultProxy::listen() const {
  auto listener = listen_on_loopback(port_);
  if (options_.receive_buffer > 0)
    set_receive_buffer(listener, options_.receive_buffer);  // accepted ones inherit it
  return listener;
}

FaultProxy::~FaultProxy() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.ring();
  thread_.join();
}

void FaultProxy::changed() { wake_.ring(); }

void FaultProxy::add(Rule rule) {
  const std::lock_guard lock(mutex_);
  rules_.push_back(rule);
}

std::size_t FaultProxy::rules_left() const {
  const std::lock_guard lock(mutex_);
  return rules_.size();
}

void FaultProxy::cut_at_byte(Direction direction, std::uint64_t byte, Ending ending) {
  const std::lock_guard lock(mutex_);
  lane(direction).cut_at = lane(direction).bytes + byte;
  lane(direction).cut_ending = ending;
}

void FaultProxy::set_door(Door door) {
  const std::lock_guard lock(mutex_);
  if (door == Door::refused) {
    listener_.close();
  } else if (!listener_) {
    listener_ = listen();
  }
  door_ = door;
  changed();
}

void FaultProxy::set_flow(Direction direction, Flow flow) {
  const std::lock_guard lock(mutex_);
  lane(direction).flow = flow;
  changed();
}

void FaultProxy::set_shape(Direction direction, Shape shape) {
  const std::lock_guard lock(mutex_);
  lane(direction).shape = shape;
  changed();
}

void FaultProxy::seed(std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  random_.seed(seed);
}

void FaultProxy::observe(Observer observer) {
  const std::lock_guard lock(mutex_);
  observer_ = std::move(observer);
}

void FaultProxy::cut(Ending ending) {
  const std::lock_guard lock(mutex_);
  for (auto& link : links_) end(link, ending);
  changed();
}

void FaultProxy::half_open() {
  const std::lock_guard lock(mutex_);
  for (auto& link : links_) link.frozen = true;
  changed();
}

std::size_t FaultProxy::accepted() const {
  const std::lock_guard lock(mutex_);
  return accepted_;
}

std::size_t FaultProxy::connections() const {
  const std::lock_guard lock(mutex_);
  return links_.size();
}

std::size_t FaultProxy::packets(Direction direction, mqtt::PacketType type) const {
  const std::lock_guard lock(mutex_);
  return lane(direction).packets[static_cast<std::size_t>(type)];
}

std::uint64_t FaultProxy::bytes(Direction direction) const {
  const std::lock_guard lock(mutex_);
  return lane(direction).bytes;
}

// --- the proxy's thread ----------------------------------------------------------------------------------------------

void FaultProxy::serve() {
  std::vector<pollfd> fds;
  std::unique_lock lock(mutex_);
  while (!done_) {
    fds.clear();
    const auto due = watch(fds);
    lock.unlock();
    int timeout = -1;
    if (due) {
      const auto left = std::chrono::ceil<milliseconds>(*due - Clock::now());
      timeout = static_cast<int>(std::max<milliseconds::rep>(left.count(), 0));
    }
    ::poll(fds.data(), fds.size(), timeout);
    wake_.clear();
    lock.lock();
    work(Clock::now());
  }
}

// What to wait for: descriptors, and the time at which the next waiting bytes may go. Sockets that nothing is wanted from
// are left out: poll() would report their end over and over.
std::optional<FaultProxy::Clock::time_point> FaultProxy::watch(std::vector<pollfd>& fds) {
  std::optional<Clock::time_point> earliest;
  fds.push_back({wake_.fd(), POLLIN, 0});
  if (listener_) fds.push_back({listener_.fd(), POLLIN, 0});
  const auto now = Clock::now();
  for (auto& link : links_) {
    if (link.frozen) continue;
    for (const auto direction : directions) {
      auto& pipe = link.pipes[static_cast<std::size_t>(direction)];
      if (!pipe.ended && lane(direction).flow != Flow::stall && pipe.queued < queue_max) {
        fds.push_back({pipe.from, POLLIN, 0});
      }
      if (pipe.output.empty()) continue;
      const auto due = std::max(pipe.output.front().due, pipe.next_write);
      if (due <= now) {
        fds.push_back({pipe.to, POLLOUT, 0});
      } else if (!earliest || due < *earliest) {
        earliest = due;
      }
    }
  }
  return earliest;
}

void FaultProxy::work(Clock::time_point now) {
  if (listener_) accept();
  for (auto& link : links_) {
    if (link.frozen) continue;
    for (const auto direction : directions) {
      if (!link.over) read(link, direction, now);
      if (!link.over) write(link, direction, now);
    }
  }
  links_.remove_if([](const Link& link) { return link.over; });
}

void FaultProxy::accept() {
  while (auto client = accept_from(listener_)) {
    ++accepted_;
    if (door_ == Door::reset) {
      client.reset();
      continue;
    }
    Link link;
    link.client = std::move(client);
    if (door_ == Door::silent) {
      link.frozen = true;
    } else {
      link.server = connect_to_loopback(server_port_);
      if (!link.server) {
        link.client.reset();
        continue;
      }
      if (options_.receive_buffer > 0) set_receive_buffer(link.server, options_.receive_buffer);
      link.pipes[0].from = link.pipes[1].to = link.client.fd();
      link.pipes[0].to = link.pipes[1].from = link.server.fd();
    }
    links_.push_back(std::move(link));
  }
}

void FaultProxy::read(Link& link, Direction direction, Clock::time_point now) {
  auto& pipe = link.pipes[static_cast<std::size_t>(direction)];
  const auto flow = lane(direction).flow;
  std::byte buffer[65'536];
  while (!link.over && !pipe.ended && flow != Flow::stall && pipe.queued < queue_max) {
    const auto got = ::recv(pipe.from, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) return end(link, Ending::rst);
    if (got == 0) {
      pipe.ended = true;
      return;
    }
    if (link.ending || flow == Flow::swallow) continue;
    pipe.input.insert(pipe.input.end(), buffer, buffer + got);
    take_packets(link, direction, now);
  }
}

void FaultProxy::take_packets(Link& link, Direction direction, Clock::time_point now) {
  auto& pipe = link.pipes[static_cast<std::size_t>(direction)];
  std::size_t taken = 0;
  while (taken < pipe.input.size() && !link.ending && !link.over) {
    const auto rest = BytesView(pipe.input).subspan(taken);
    mqtt::Frame frame;
    if (pipe.packets &&
        next_frame(rest, ProtocolVersion::v5, mqtt::no_packet_limit, frame) != mqtt::DecodeError::none) {
      pipe.packets = false;
    }
    const std::size_t size = pipe.packets ? frame.size : rest.size();
    if (size == 0) break;
    taken += size;
    std::vector<std::byte> packet(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
    if (!pipe.packets) {
      pass(link, direction, std::move(packet), now, {});
      continue;
    }
    ++lane(direction).packets[static_cast<std::size_t>(frame.type)];
    if (observer_) observer_(direction, frame);
    const auto rule = rule_for(direction, frame.type);
    if (!rule) {
      pass(link, direction, std::move(packet), now, {});
      continue;
    }
    switch (rule->act) {
      case Rule::Act::cut_before: link.ending = rule->ending; break;
      case Rule::Act::cut_within:
        packet.resize(std::min(packet.size(), rule->bytes));
        pass(link, direction, std::move(packet), now, {});
        link.ending = rule->ending;
        break;
      case Rule::Act::cut_after:
        pass(link, direction, std::move(packet), now, {});
        link.ending = rule->ending;
        break;
      case Rule::Act::drop: break;
      case Rule::Act::duplicate:
        pass(link, direction, packet, now, {});
        pass(link, direction, std::move(packet), now, {});
        break;
      case Rule::Act::delay: pass(link, direction, std::move(packet), now, rule->delay); break;
    }
  }
  pipe.input.erase(pipe.input.begin(), pipe.input.begin() + static_cast<std::ptrdiff_t>(taken));
  if (link.ending) pipe.input.clear();
}

std::optional<Rule> FaultProxy::rule_for(Direction direction, mqtt::PacketType type) {
  std::optional<Rule> due;
  for (auto rule = rules_.begin(); rule != rules_.end();) {
    if (rule->direction != direction || (rule->type && *rule->type != type)) {
      ++rule;
    } else if (rule->nth > 1) {
      --rule->nth;
      ++rule;
    } else if (!due) {
      due = *rule;
      rule = rules_.erase(rule);
    } else {
      ++rule;  // one thing at a time: the next packet is its
    }
  }
  return due;
}

void FaultProxy::pass(Link& link, Direction direction, std::vector<std::byte> bytes, Clock::time_point now,
                      milliseconds delay) {
  auto& pipe = link.pipes[static_cast<std::size_t>(direction)];
  auto& way = lane(direction);
  if (way.cut_at && way.bytes + bytes.size() >= *way.cut_at) {
    bytes.resize(static_cast<std::size_t>(*way.cut_at - way.bytes));
    way.cut_at.reset();
    link.ending = way.cut_ending;
  }
  way.bytes += bytes.size();
  auto latency = way.shape.latency + delay;
  if (way.shape.jitter.count() > 0) {
    latency +=
        milliseconds(std::uniform_int_distribution<milliseconds::rep>(0, way.shape.jitter.count())(random_));
  }
  pipe.last_due = std::max(pipe.last_due, now + latency);
  pipe.queued += bytes.size();
  pipe.output.push_back({std::move(bytes), 0, pipe.last_due});
}

void FaultProxy::write(Link& link, Direction direction, Clock::time_point now) {
  auto& pipe = link.pipes[static_cast<std::size_t>(direction)];
  const auto rate = lane(direction).shape.bytes_per_s;
  while (!pipe.output.empty() && std::max(pipe.output.front().due, pipe.next_write) <= now) {
    auto& parcel = pipe.output.front();
    std::size_t size = parcel.bytes.size() - parcel.sent;
    if (rate > 0)
      size = std::min(size, static_cast<std::size_t>(std::max<std::uint64_t>(rate / writes_per_s, 1)));
    const auto sent = size == 0 ? 0 : ::send(pipe.to, parcel.bytes.data() + parcel.sent, size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) return end(link, link.ending.value_or(Ending::rst));
    parcel.sent += static_cast<std::size_t>(sent);
    pipe.queued -= static_cast<std::size_t>(sent);
    if (parcel.sent == parcel.bytes.size()) pipe.output.pop_front();
    if (rate > 0) {
      pipe.next_write = std::max(pipe.next_write, now - nanoseconds(std::chrono::milliseconds(20))) +
                        nanoseconds(1'000'000'000 * static_cast<std::uint64_t>(sent) / rate);
    }
  }
  if (link.ending) {
    if (link.pipes[0].output.empty() && link.pipes[1].output.empty()) end(link, *link.ending);
    return;
  }
  if (pipe.ended && pipe.output.empty() && !pipe.closed) {
    pipe.closed = true;
    ::shutdown(pipe.to, SHUT_WR);
  }
  link.over = link.pipes[0].closed && link.pipes[1].closed;
}

void FaultProxy::end(Link& link, Ending ending) {
  link.over = true;
  for (auto* side : {&link.client, &link.server}) {
    if (ending == Ending::rst) {
      side->reset();
      continue;
    }
    // Closing with bytes unread would send RST.
    std::byte rest[4'096];
    if (*side) {
      ::shutdown(side->fd(), SHUT_WR);
      while (::recv(side->fd(), rest, sizeof rest, 0) > 0) {
      }
    }
    side->close();
  }
}

// --- DeafPort --------------------------------------------------------------------------------------------------------

DeafPort::DeafPort() : listener_(listen_on_loopback(free_port(), 0)), port_(port_of(listener_)) {
  // A backlog of 0 has room for one; the others' SYNs are dropped already.
  for (int i = 0; i < 3; ++i) queue_.push_back(connect_to_loopback(port_));
}

}  // namespace fulmar::test
