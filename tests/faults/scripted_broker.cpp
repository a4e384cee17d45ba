#include "tests/faults/scripted_broker.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "tests/support/port.hpp"

namespace fulmar::test {

using mqtt::PacketType;
using mqtt::ReasonCode;
using namespace std::chrono_literals;

namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

constexpr std::size_t output_max = std::size_t{1} << 20;  // a client that does not read is not heard further

}  // namespace

PacketType type_of(const mqtt::PacketView& packet) {
  return std::visit(Overloaded{[](const mqtt::ConnectView&) { return PacketType::connect; },
                               [](const mqtt::ConnackView&) { return PacketType::connack; },
                               [](const mqtt::PublishView&) { return PacketType::publish; },
                               [](const mqtt::AckView& ack) { return ack.type; },
                               [](const mqtt::SubscribeView&) { return PacketType::subscribe; },
                               [](const mqtt::SubackView& ack) { return ack.type; },
                               [](const mqtt::UnsubscribeView&) { return PacketType::unsubscribe; },
                               [](const mqtt::PingreqView&) { return PacketType::pingreq; },
                               [](const mqtt::PingrespView&) { return PacketType::pingresp; },
                               [](const mqtt::DisconnectView&) { return PacketType::disconnect; },
                               [](const mqtt::AuthView&) { return PacketType::auth; }},
                    packet);
}

template <typename Value>
Properties& Properties::append(mqtt::PropertyId id, Value value) {
  std::vector<std::byte> room(8 + 65'535);
  mqtt::PropertyWriter writer(room);
  writer.add(id, value);
  const auto added = writer.encoded();
  encoded_.insert(encoded_.end(), added.begin(), added.end());
  return *this;
}
Properties& Properties::add(mqtt::PropertyId id, std::uint32_t number) { return append(id, number); }
Properties& Properties::add(mqtt::PropertyId id, std::string_view text) { return append(id, text); }

// --- Link ------------------------------------------------------------------------------------------------------------

void ScriptedBroker::Link::send(const mqtt::PacketView& packet) {
  const std::size_t size = mqtt::encoded_size(packet, version);
  const std::size_t before = output_.size();
  output_.resize(before + size);
  mqtt::encode(std::span(output_).subspan(before), packet, version);
}

void ScriptedBroker::Link::send_bytes(BytesView bytes) {
  output_.insert(output_.end(), bytes.begin(), bytes.end());
}

void ScriptedBroker::Link::send_bytes(std::vector<std::byte>&& bytes) {
  if (output_.empty()) {
    output_ = std::move(bytes);
  } else {
    send_bytes(BytesView(bytes));
  }
}

void ScriptedBroker::Link::acknowledge(PacketType type, std::uint16_t packet_id, ReasonCode reason) {
  send(mqtt::AckView{type, packet_id, reason, {}});
}

void ScriptedBroker::Link::publish(std::string_view topic, std::string_view payload, QoS qos,
                                   std::uint16_t packet_id, bool dup) {
  send(mqtt::PublishView{topic, as_bytes(payload), {}, packet_id, qos, false, dup});
}

void ScriptedBroker::Link::disconnect(ReasonCode reason, mqtt::PropertiesView properties) {
  send(mqtt::DisconnectView{reason, properties});
}

void ScriptedBroker::Link::end(Ending ending) { ending_ = ending; }

// --- any thread ------------------------------------------------------------------------------------------------------

ScriptedBroker::ScriptedBroker() : port_(free_port()) {
  listener_ = listen_on_loopback(port_);
  thread_ = std::thread([this] { serve(); });
}

ScriptedBroker::~ScriptedBroker() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.ring();
  thread_.join();
}

void ScriptedBroker::on(PacketType type, Script script) {
  const std::lock_guard lock(mutex_);
  scripts_[static_cast<std::size_t>(type)] = std::move(script);
}

void ScriptedBroker::set_connack(Properties properties) {
  const std::lock_guard lock(mutex_);
  connack_ = std::move(properties);
}

void ScriptedBroker::keep_sessions(bool keep) {
  const std::lock_guard lock(mutex_);
  keep_sessions_ = keep;
}

void ScriptedBroker::forget_sessions() {
  const std::lock_guard lock(mutex_);
  for (auto& [id, session] : sessions_) session = {};  // links point to them
  std::erase_if(sessions_, [this](const auto& one) {
    return std::ranges::none_of(links_, [&](const Link& link) { return link.session == &one.second; });
  });
}

bool ScriptedBroker::with_link(const std::function<void(Link&)>& action) {
  const std::lock_guard lock(mutex_);
  for (auto link = links_.rbegin(); link != links_.rend(); ++link) {
    if (link->over_ || link->ending_ || !link->session) continue;
    action(*link);
    wake_.ring();
    return true;
  }
  return false;
}

bool ScriptedBroker::when_connected(const std::function<void(Link&)>& action,
                                    std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!with_link(action)) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

std::size_t ScriptedBroker::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}
std::size_t ScriptedBroker::open_connections() const {
  const std::lock_guard lock(mutex_);
  return links_.size();
}
std::size_t ScriptedBroker::packets(PacketType type) const {
  const std::lock_guard lock(mutex_);
  return packets_[static_cast<std::size_t>(type)];
}
std::size_t ScriptedBroker::malformed() const {
  const std::lock_guard lock(mutex_);
  return malformed_;
}

// --- the broker's thread ---------------------------------------------------------------------------------------------

void ScriptedBroker::serve() {
  std::vector<pollfd> fds;
  std::unique_lock lock(mutex_);
  while (!done_) {
    fds.assign({{wake_.fd(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}});
    for (const auto& link : links_) {
      const int events = (link.waiting() < output_max ? POLLIN : 0) | (link.waiting() == 0 ? 0 : POLLOUT);
      fds.push_back({link.socket_.fd(), static_cast<short>(events), 0});
    }
    lock.unlock();
    ::poll(fds.data(), fds.size(), -1);
    wake_.clear();
    lock.lock();
    while (auto socket = accept_from(listener_)) {
      auto& link = links_.emplace_back();
      link.socket_ = std::move(socket);
      link.number = ++connections_;
    }
    for (auto& link : links_) {
      if (link.waiting() < output_max) read(link);
      write(link);
    }
    links_.remove_if([](const Link& link) { return link.over_; });
  }
}

void ScriptedBroker::read(Link& link) {
  std::byte buffer[65'536];
  while (!link.over_ && !link.ending_) {
    const auto got = ::recv(link.socket_.fd(), buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (got <= 0) {
      link.over_ = true;
      break;
    }
    link.input_.insert(link.input_.end(), buffer, buffer + got);
    std::size_t taken = 0;
    while (!link.ending_) {
      mqtt::Frame frame;
      mqtt::PacketView packet;
      auto wrong =
          mqtt::next_frame(BytesView(link.input_).subspan(taken), link.version, mqtt::no_packet_limit, frame);
      if (wrong == mqtt::DecodeError::none && frame.size == 0) {
        if (frame.expected > 0) link.input_.reserve(taken + frame.expected + sizeof buffer);
        break;
      }
      if (wrong == mqtt::DecodeError::none)
        wrong = mqtt::decode(frame, link.version, mqtt::Sender::client, packet);
      if (wrong != mqtt::DecodeError::none) {
        ++malformed_;
        link.end(Ending::rst);
        break;
      }
      taken += frame.size;
      take(link, packet);
    }
    link.input_.erase(link.input_.begin(), link.input_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (static_cast<std::size_t>(got) < sizeof buffer) break;
  }
}

void ScriptedBroker::take(Link& link, const mqtt::PacketView& packet) {
  const auto type = static_cast<std::size_t>(type_of(packet));
  ++packets_[type];
  if (const auto* connect = std::get_if<mqtt::ConnectView>(&packet)) link.version = connect->version;
  const auto script = scripts_[type];
  if (script && script(link, packet)) return;
  answer(link, packet);
}

void ScriptedBroker::write(Link& link) {
  while (!link.over_ && link.waiting() > 0) {
    const auto sent =
        ::send(link.socket_.fd(), link.output_.data() + link.sent_, link.waiting(), MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) {
      link.over_ = true;
      return;
    }
    link.sent_ += static_cast<std::size_t>(sent);
  }
  link.output_.clear();
  link.sent_ = 0;
  if (!link.ending_ || link.over_) return;
  if (*link.ending_ == Ending::rst) {
    link.socket_.reset();
  } else {
    ::shutdown(link.socket_.fd(), SHUT_WR);
    std::byte rest[4'096];  // closing with bytes unread would send RST
    while (::recv(link.socket_.fd(), rest, sizeof rest, 0) > 0) {
    }
  }
  link.over_ = true;
}

// --- the server's own answers ----------------------------------------------------------------------------------------

void ScriptedBroker::answer(Link& link, const mqtt::PacketView& packet) {
  std::visit([&](const auto& view) { reply(link, view); }, packet);
}

void ScriptedBroker::reply(Link& link, const mqtt::ConnectView& packet) {
  link.client_id = packet.client_id;
  for (auto& other : links_) {
    if (&other != &link && other.client_id == link.client_id && !other.ending_) {  // [MQTT-3.1.4-3]
      if (other.version == ProtocolVersion::v5) other.disconnect(ReasonCode::session_taken_over);
      other.end();
    }
  }
  const bool known = sessions_.contains(link.client_id);
  link.session_present = known && keep_sessions_ && !packet.clean_start;
  link.session = &sessions_[link.client_id];
  if (!link.session_present) *link.session = {};
  link.send(
      mqtt::ConnackView{link.session_present, 0,
                        link.version == ProtocolVersion::v5 ? connack_.view() : mqtt::PropertiesView()});
}

void ScriptedBroker::reply(Link& link, const mqtt::PublishView& packet) {
  if (packet.qos != QoS::exactly_once || link.session->received.insert(packet.packet_id).second) {
    ledger_.arrived(as_text(packet.payload));
  }
  if (packet.qos == QoS::at_least_once) link.acknowledge(PacketType::puback, packet.packet_id);
  if (packet.qos == QoS::exactly_once) link.acknowledge(PacketType::pubrec, packet.packet_id);
}

void ScriptedBroker::reply(Link& link, const mqtt::AckView& packet) {
  if (packet.type == PacketType::pubrel) {
    const bool known = link.session->received.erase(packet.packet_id) > 0;
    const bool say_so = !known && link.version == ProtocolVersion::v5;
    link.acknowledge(PacketType::pubcomp, packet.packet_id,
                     say_so ? ReasonCode::packet_identifier_not_found : ReasonCode::success);
  } else if (packet.type == PacketType::pubrec && static_cast<std::uint8_t>(packet.reason) < 0x80) {
    link.acknowledge(PacketType::pubrel, packet.packet_id);
  }
}

void ScriptedBroker::reply(Link& link, const mqtt::SubscribeView& packet) {
  std::vector<std::byte> codes;
  ++link.session->subscribes;
  for (const auto& request : packet.filters) {
    codes.push_back(static_cast<std::byte>(request.qos));
    auto& filters = link.session->filters;
    std::erase(filters, request.filter);
    filters.emplace_back(request.filter);
  }
  link.send(mqtt::SubackView{PacketType::suback, packet.packet_id, {}, codes});
}

void ScriptedBroker::reply(Link& link, const mqtt::UnsubscribeView& packet) {
  std::vector<std::byte> codes;
  for (const auto filter : packet.filters) {
    const bool had = std::erase(link.session->filters, filter) > 0;
    codes.push_back(static_cast<std::byte>(had ? ReasonCode::success : ReasonCode::no_subscription_existed));
  }
  if (link.version == ProtocolVersion::v3_1_1) codes.clear();
  link.send(mqtt::SubackView{PacketType::unsuback, packet.packet_id, {}, codes});
}

void ScriptedBroker::reply(Link& link, mqtt::PingreqView) { link.send(mqtt::PingrespView{}); }

void ScriptedBroker::reply(Link& link, const mqtt::DisconnectView&) { link.end(); }

}  // namespace fulmar::test
