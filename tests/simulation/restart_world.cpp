#include "restart_world.hpp"

#include <algorithm>
#include <charconv>

#include "fulmar/mqtt/record.hpp"

namespace fulmar::simulation {

using namespace mqtt;

namespace {

constexpr std::uint64_t window = 8'192;
constexpr std::size_t plain = SIZE_MAX;  // the number of what is in no log

}  // namespace

RestartWorld::RestartWorld(std::uint64_t seed) : seed_(seed), random_(seed) {
  auto& r = random_;
  journal_.now = Instant(std::chrono::hours(1));
  config_.version = seed % 2 == 0 ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1;
  config_.client_id = "restarted";
  config_.clean_start = false;
  config_.session_expiry_s = 3'600;
  config_.keepalive_s = 0;
  config_.max_inflight = r.pick<std::uint16_t>({1, 3, 20, 1'000});
  config_.stored_ids = true;
  messages_max_ = r.between(10, 60);
  gap_max_ = r.pick<std::uint64_t>({1, 3, 400, 4'000});
  delivers_at_pubrel_ = r.chance(5'000);
  may_lose_session_ = seed % 4 >= 2;
  receive_maximum_ = r.pick<std::uint16_t>({1, 2, 10, 65'535});
}

// --- the process ----------------------------------------------------------------------------------------------------

void RestartWorld::start_process() {
  journal_.note("a process starts: {} of {} acknowledged", acknowledged_.size(), messages_.size());
  session_ = std::make_unique<Session>(config_);
  notes_.clear();
  completed_ = acknowledged_;
  next_ = oldest_unacknowledged();
  handed_before_ = messages_.size();
  inbox_.clear();
}

void RestartWorld::kill() {
  journal_.note("kill, with {} notes under way", notes_.size());
  ++totals_.kills;
  cut();
  start_process();
}

void RestartWorld::connect() {
  if (connected_) return;
  journal_.note("connect");
  ++totals_.connections;
  connected_ = true;
  session_->connection_opened(journal_.now);
}

// The end of a connection: each side has got some of what was under way.
void RestartWorld::cut() {
  if (!connected_) return;
  journal_.note("the connection ends");
  server_reads(some(up_.size()));
  client_reads(some(down_.size()));
  session_->connection_closed(journal_.now);
  connected_ = false;
  up_.clear();
  down_.clear();
  inbox_.clear();
  server_inbox_.clear();
}

void RestartWorld::accept() {
  if (messages_.size() >= messages_max_) return;
  const auto last = messages_.empty() ? random_.below<std::uint64_t>(0x10000) : messages_.back().position;
  messages_.push_back({.position = last + random_.between<std::uint64_t>(1, gap_max_)});
}

// Gives the session what it takes, in the order of the log and within the window of positions.
void RestartWorld::hand_over() {
  for (; next_ < messages_.size(); ++next_) {
    if (completed_.contains(next_)) continue;
    const auto& message = messages_[next_];
    if (message.position - messages_[oldest_unacknowledged()].position >= window) return;
    auto how = next_ < handed_before_ ? Resumed::maybe_sent : Resumed::fresh;
    if (released_.contains(next_)) how = Resumed::released;
    RecordParts parts;
    const auto payload = std::to_string(next_);
    parts.topic = "t";
    parts.payload = as_bytes(payload);
    parts.qos = QoS::exactly_once;
    parts.sequence = parts.token = next_;
    std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
    write_record(reinterpret_cast<std::byte*>(block.data()), parts);
    const RecordView record(reinterpret_cast<const std::byte*>(block.data()));
    if (!session_->publish_stored(record, message.position, how)) return;
    if (how == Resumed::released) ++totals_.resumed_released;
    handed_before_ = std::max(handed_before_, next_ + 1);
  }
}

// An outage: the caller takes all back, and will give it again.
void RestartWorld::take_back() {
  cut();
  std::vector<std::size_t> shown;
  session_->for_each_pending([&](RecordView record, std::optional<std::uint64_t> position) {
    if (!position) return;
    shown.push_back(record.header().token);
    if (messages_[record.header().token].position != *position) journal_.fail("another position is shown");
  });
  std::vector<std::size_t> taken;
  session_->take_all([&](RecordView record) {
    if (record.header().token != plain) taken.push_back(record.header().token);
  });
  journal_.note("{} taken back", taken.size());
  totals_.taken_back += taken.size();
  if (taken != shown) journal_.fail("other records are taken than were shown");
  if (!std::ranges::is_sorted(taken)) journal_.fail("records are taken out of order");
  for (const auto message : taken) {
    if (completed_.contains(message)) journal_.fail("a completed record is taken");
  }
  if (!taken.empty()) next_ = taken.front();
}

// Messages that are in no log go with their process; they only stand in the way.
void RestartWorld::publish_plain() {
  RecordParts parts;
  parts.topic = "plain";
  parts.qos = random_.pick({QoS::at_most_once, QoS::at_least_once, QoS::exactly_once});
  parts.sequence = parts.token = plain;
  std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
  write_record(reinterpret_cast<std::byte*>(block.data()), parts);
  session_->publish(RecordView(reinterpret_cast<const std::byte*>(block.data())));
}

void RestartWorld::transmit() {
  if (!connected_) return;
  std::vector<std::byte> buffer(random_.between(16, 200));
  for (auto rounds = random_.between(1, 5); rounds > 0; --rounds) {
    const auto size = session_->transmit(buffer, journal_.now);
    if (size == 0) return;
    up_.insert(up_.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
  }
}

void RestartWorld::client_reads(std::size_t most) {
  if (!connected_) return;
  const auto count = static_cast<std::ptrdiff_t>(std::min(most, down_.size()));
  inbox_.insert(inbox_.end(), down_.begin(), down_.begin() + count);
  down_.erase(down_.begin(), down_.begin() + count);
  session_->receive(inbox_, journal_.now);
  Event event;
  while (session_->next_event(event)) handle(event);
  inbox_.erase(inbox_.begin(), inbox_.end() - static_cast<std::ptrdiff_t>(session_->unread()));
}

void RestartWorld::handle(const Event& event) {
  if (const auto* connected = std::get_if<Connected>(&event)) {
    if (connected->session_present) return;
    // The caller notes that before it transmits.
    journal_.note("a new session");
    loss_unseen_ = false;
    released_.clear();
    std::erase_if(notes_, [](const Note& note) { return note.what == Note::What::released; });
  } else if (const auto* pubrec = std::get_if<PubrecReceived>(&event)) {
    journal_.note("PUBREC of {}", pubrec->token);
    if (messages_[pubrec->token].position != pubrec->position) journal_.fail("PUBREC of another position");
    notes_.push_back({Note::What::released, pubrec->token});
  } else if (const auto* completed = std::get_if<Completed>(&event)) {
    if (completed->token == plain) return;
    journal_.note("{} is completed", completed->token);
    if (completed->outcome != Outcome::acknowledged) journal_.fail("a message was not acknowledged");
    if (!completed_.insert(completed->token).second) journal_.fail("a message was completed twice");
    notes_.push_back({Note::What::acknowledged, completed->token});
  } else if (std::holds_alternative<Closing>(event)) {
    journal_.fail("the session closes the connection");
  }
}

// --- the disk -------------------------------------------------------------------------------------------------------

void RestartWorld::commit(std::size_t count) {
  for (; count > 0 && !notes_.empty(); --count) {
    const auto note = notes_.front();
    notes_.pop_front();
    if (note.what == Note::What::acknowledged) {
      acknowledged_.insert(note.message);
    } else {
      released_.insert(note.message);
      session_->release(messages_[note.message].position);
    }
  }
}

std::size_t RestartWorld::oldest_unacknowledged() const {
  std::size_t message = 0;
  while (acknowledged_.contains(message)) ++message;
  return message;
}

// --- the server -----------------------------------------------------------------------------------------------------

template <typename Packet>
void RestartWorld::answer(const Packet& packet) {
  std::byte buffer[64];
  const auto size = encode(buffer, packet, config_.version);
  down_.insert(down_.end(), buffer, buffer + size);
}

void RestartWorld::server_reads(std::size_t most) {
  if (!connected_) return;
  const auto count = static_cast<std::ptrdiff_t>(std::min(most, up_.size()));
  server_inbox_.insert(server_inbox_.end(), up_.begin(), up_.begin() + count);
  up_.erase(up_.begin(), up_.begin() + count);
  BytesView input = server_inbox_;
  while (!journal_.failed()) {
    Frame frame;
    if (next_frame(input, config_.version, no_packet_limit, frame) != DecodeError::none) {
      return journal_.fail("a malformed packet was sent");
    }
    if (frame.size == 0) break;
    input = input.subspan(frame.size);
    serve(frame);
  }
  server_inbox_.erase(server_inbox_.begin(), server_inbox_.end() - static_cast<std::ptrdiff_t>(input.size()));
}

void RestartWorld::serve(const Frame& frame) {
  PacketView packet;
  if (decode(frame, config_.version, Sender::client, packet) != DecodeError::none) {
    return journal_.fail("a packet was sent that a server must refuse");
  }
  if (std::holds_alternative<ConnectView>(packet)) {
    // A loss of which the CONNACK was lost cannot be told from another session by anyone: it stays one until it is seen.
    if (may_lose_session_ && random_.chance(2'000)) loss_unseen_ = true;
    if (loss_unseen_) {
      if (server_session_++ != 0) ++totals_.sessions_lost;
      exchanges_.clear();
      journal_.note("server: a new session");
    }
    std::byte buffer[8];
    PropertyWriter properties(buffer);
    if (config_.version == ProtocolVersion::v5 && receive_maximum_ != 65'535) {
      properties.add(PropertyId::receive_maximum, receive_maximum_);
    }
    answer(ConnackView{!loss_unseen_, 0, properties.view()});
  } else if (const auto* publish = std::get_if<PublishView>(&packet)) {
    serve_publish(*publish);
  } else if (const auto* ack = std::get_if<AckView>(&packet)) {
    if (ack->type != PacketType::pubrel) return journal_.fail("an acknowledgement of nothing");
    const auto found = exchanges_.find(ack->packet_id);
    const bool known = found != exchanges_.end();
    journal_.note(known ? "server: PUBREL of {}" : "server: PUBREL of {}, unknown", ack->packet_id);
    if (known) {
      if (delivers_at_pubrel_) deliver(found->second);
      exchanges_.erase(found);
    }
    const bool tells = config_.version == ProtocolVersion::v5 && !known;
    answer(AckView{PacketType::pubcomp,
                   ack->packet_id,
                   tells ? ReasonCode::packet_identifier_not_found : ReasonCode::success,
                   {}});
  }
}

void RestartWorld::serve_publish(const PublishView& publish) {
  if (publish.qos == QoS::at_most_once) return;
  if (publish.qos == QoS::at_least_once) {
    return answer(AckView{PacketType::puback, publish.packet_id, ReasonCode::success, {}});
  }
  auto message = plain;
  if (publish.topic == "t") {
    const auto text = as_text(publish.payload);
    std::from_chars(text.data(), text.data() + text.size(), message);
    auto& sent = messages_[message].sent_in_session;
    if (sent == server_session_ && !publish.dup) journal_.fail("a PUBLISH is repeated without DUP");
    sent = server_session_;
    if (publish.packet_id != 0x8000 + messages_[message].position % 0x4000) {
      journal_.fail("another identifier than that of its position");
    }
  } else if (publish.packet_id >= 0x8000) {
    journal_.fail("a plain message has a reserved identifier");
  }
  const auto [exchange, is_new] = exchanges_.try_emplace(publish.packet_id, message);
  journal_.note(is_new ? "server: PUBLISH {} as {}" : "server: PUBLISH {} as {}, known", message,
                publish.packet_id);
  if (is_new && !delivers_at_pubrel_) deliver(message);
  if (!is_new && message != plain && exchange->second != message) {
    journal_.fail("a new message under an identifier of another one: it is lost");
  }
  answer(AckView{PacketType::pubrec, publish.packet_id, ReasonCode::success, {}});
}

void RestartWorld::deliver(std::size_t message) {
  if (message == plain) return;
  ++totals_.delivered;
  journal_.note("server: {} is delivered", message);
  auto& times = messages_[message].delivered;
  ++times;
  if (times > 1 && totals_.sessions_lost == 0) return journal_.fail("a message is delivered twice");
  if (times > totals_.sessions_lost + 1) {
    return journal_.fail("a message is delivered more often than sessions were lost");
  }
  if (times > 1) return;
  if (message + 1 < last_delivered_) journal_.fail("a message is delivered behind a later one");
  last_delivered_ = message + 1;
}

// --- the run --------------------------------------------------------------------------------------------------------

std::size_t RestartWorld::some(std::size_t bytes) {
  return random_.chance(2'000) ? bytes : random_.below(bytes + 1);
}

void RestartWorld::step() {
  auto& r = random_;
  journal_.now += std::chrono::milliseconds(1);
  switch (r.below(16)) {
    case 0:
    case 1: return accept();
    case 2:
    case 3: return hand_over();
    case 4:
    case 5: return connect();
    case 6:
    case 7: return transmit();
    case 8:
    case 9: return server_reads(some(up_.size()));
    case 10:
    case 11: return client_reads(some(down_.size()));
    case 12:
    case 13: return commit(r.between(1, 4));
    case 14:
      if (r.chance(2'000)) publish_plain();
      return;
    default:
      if (r.chance(1'500)) return kill();
      if (r.chance(1'500)) return cut();
      if (r.chance(500)) return take_back();
  }
}

// Nothing goes wrong any more: all that was accepted must come to its end.
void RestartWorld::calm() {
  journal_.note("calm");
  may_lose_session_ = false;
  for (int rounds = 0; acknowledged_.size() < messages_.size() && !journal_.failed(); ++rounds) {
    if (rounds == 5'000) return journal_.fail("the world does not come to rest");
    connect();
    hand_over();
    transmit();
    server_reads(SIZE_MAX);
    client_reads(SIZE_MAX);
    commit(SIZE_MAX);
  }
}

bool RestartWorld::run() {
  start_process();
  for (int i = 0; i < 1'500 && !journal_.failed(); ++i) step();
  if (!journal_.failed()) kill();
  if (!journal_.failed()) calm();
  for (std::size_t i = 0; i < messages_.size() && !journal_.failed(); ++i) {
    if (messages_[i].delivered == 0) journal_.fail("message " + std::to_string(i) + " was never delivered");
  }
  return !journal_.failed();
}

std::string RestartWorld::report() const {
  return "seed=" + std::to_string(seed_) +
         " version=" + (config_.version == ProtocolVersion::v5 ? "5.0" : "3.1.1") +
         (delivers_at_pubrel_ ? ", delivers at PUBREL" : ", delivers at PUBLISH") + ": " +
         journal_.failure() + "\nreplay: FULMAR_SIM_SEED=" + std::to_string(seed_) +
         " simulation_test --gtest_filter=Restart.replays_one_seed\nwhat happened last:\n" + journal_.text();
}

}  // namespace fulmar::simulation
