#include "durable_world.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fulmar::simulation {

using mqtt::DecodeError;
using mqtt::RecordParts;
using mqtt::RecordView;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::uint64_t token_base = 1'000;  // tokens below are the client's own
constexpr auto connect_timeout = seconds(5);

std::chrono::system_clock::time_point wall(Instant now) {
  return std::chrono::system_clock::time_point(std::chrono::hours(24 * 365 * 50)) + now.time_since_epoch();
}

mqtt::SessionConfig session_config(const ClientConfig& config) {
  mqtt::SessionConfig session;
  session.version = config.protocol;
  session.client_id = config.client_id;
  session.clean_start = config.clean_start;
  session.session_expiry_s = static_cast<std::uint32_t>(config.session_expiry.count());
  session.keepalive_s = static_cast<std::uint16_t>(config.keepalive.count());
  session.max_inflight = config.max_inflight;
  session.stored_ids = !config.spool_dir.empty();
  return session;
}

std::string_view name_of(Delivery::Outcome outcome) {
  switch (outcome) {
    case Delivery::Outcome::sent: return "sent";
    case Delivery::Outcome::acknowledged: return "acknowledged";
    case Delivery::Outcome::refused: return "refused";
    case Delivery::Outcome::expired: return "expired";
    case Delivery::Outcome::stored: return "stored";
    case Delivery::Outcome::dropped: break;
  }
  return "dropped";
}

}  // namespace

struct DurableWorld::Process {
  explicit Process(const ClientConfig& config)
      : outbox(config.outbox_bytes, config.outbox_messages),
        session(session_config(config)),
        outflow(config, outbox, session) {}

  outbox::Ring outbox;
  mqtt::Session session;
  Outflow outflow;
  Outflow::Situation situation;
  Connection* connection = nullptr;
  Instant gives_up{};
  std::vector<std::byte> inbox;
  std::vector<std::byte> sent;  // the beginning of a packet that is not complete
  Instant sent_since{};
  bool session_is_new = false;  // the server has said so, and nothing was sent since
  bool in_time = false;         // it stops, and everything has an outcome or is on disk
  std::uint64_t accepted = 0, recovered = 0, ended = 0;
};

DurableWorld::DurableWorld(std::uint64_t seed, bool aloud) : seed_(seed), random_(seed), files_(seed) {
  journal_.aloud = aloud;
  journal_.now = Instant(std::chrono::hours(1));
  make_plan();
  messages_.emplace_back();  // there is no message 0
  last_arrival_.resize(plan_.topics);
  begin_life();
}

DurableWorld::~DurableWorld() {
  if (process_) die(true);
}

void DurableWorld::make_plan() {
  auto& r = random_;
  config_.client_id = "simulated";
  config_.durability = r.pick({Durability::memory, Durability::spill, Durability::spill,
                               Durability::write_ahead, Durability::write_ahead, Durability::write_ahead});
  if (config_.durability != Durability::memory) config_.spool_dir = "/spool";
  config_.spool_bytes = r.pick<std::uint64_t>({1u << 20, 1u << 20, 2u << 20});
  config_.overflow = r.pick({Overflow::reject, Overflow::reject, Overflow::reject, Overflow::drop_oldest});
  config_.protocol = r.chance(7'000) ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1;
  config_.clean_start = r.chance(2'000);
  config_.session_expiry = seconds(r.chance(8'500) ? 36'000 : 0);
  config_.keepalive = seconds(r.pick({10, 60}));
  config_.max_inflight = r.pick<std::uint16_t>({1, 2, 5, 20, 100, 1'024});
  config_.outbox_bytes = r.pick<std::size_t>({64u << 10, 256u << 10});
  config_.outbox_messages = r.pick<std::size_t>({10, 100, 10'000});

  plan_.accept = r.pick<unsigned>({500, 1'500, 4'000});
  plan_.turn = r.pick<unsigned>({1'000, 2'500});
  plan_.disk = config_.spool_dir.empty() ? 0 : r.pick<unsigned>({300, 2'000});
  plan_.server = r.pick<unsigned>({500, 2'000});
  plan_.time = r.pick<unsigned>({500, 1'500});
  plan_.cut = r.pick<unsigned>({0, 30, 150});
  plan_.kill = r.pick<unsigned>({0, 10, 40});
  plan_.power = r.pick<unsigned>({0, 10, 40});
  plan_.stop = r.pick<unsigned>({0, 5, 20});
  plan_.disk_fault = config_.spool_dir.empty() ? 0 : r.pick<unsigned>({0, 0, 20, 60});
  plan_.disk_full = config_.spool_dir.empty() ? 0 : r.pick<unsigned>({0, 0, 20});
  plan_.expiry = r.pick<unsigned>({0, 0, 3'000});
  plan_.large = r.pick<unsigned>({0, 100, 2'000});
  plan_.qos = {r.between<unsigned>(0, 2), r.between<unsigned>(0, 4), r.between<unsigned>(1, 4)};
  plan_.topics = r.pick<unsigned>({1, 1, 3});
  plan_.messages_max = r.pick<std::size_t>({20, 100, 400});
  plan_.steps = r.pick<std::size_t>({500, 1'500, 3'000});

  DurableServer::Habits habits;
  habits.delivers_at_pubrel = r.chance(5'000);
  habits.lose_session = r.pick<unsigned>({0, 0, 0, 1'500});
  habits.refuse_connection = r.pick<unsigned>({0, 1'000});
  habits.refuse_message = r.pick<unsigned>({0, 0, 200});
  habits.receive_maximum = r.pick<std::uint16_t>({1, 3, 20, 65'535});
  habits.latency_us = r.pick<std::uint64_t>({0, 2'000, 100'000});
  files_.set_short_writes(r.chance(2'000));

  exactly_once_ = config_.durability == Durability::write_ahead && !config_.clean_start &&
                  (config_.protocol == ProtocolVersion::v3_1_1 || config_.session_expiry > seconds(0)) &&
                  habits.lose_session == 0 && config_.overflow == Overflow::reject;
  server_ = std::make_unique<DurableServer>(
      journal_, random_, config_.protocol, habits,
      DurableServer::Application{
          .came = [this](std::uint64_t number, const mqtt::PublishView& packet) { came(number, packet); },
          .delivered = [this](std::uint64_t number) { delivered(number); },
          .refused =
              [this](std::uint64_t number) {
                if (number < messages_.size()) messages_[number].refused = true;
              },
          .orphaned = [this](std::uint64_t number) { return messages_[number].life != life_; }});
}

// --- the process -----------------------------------------------------------------------------------------------------

void DurableWorld::begin_life() {
  ++life_;
  if (disk_loses_) order_holds_ = once_holds_ = false;  // what was given up may come again
  journal_.note("process {} begins", life_);
  process_ = std::make_unique<Process>(config_);
  reopens_ = now();
  if (config_.spool_dir.empty()) return;
  Backlog::Host host;
  host.wake = [] {};
  host.log = [this](LogLevel, const std::string& text) {
    journal_.say(text);
    // Notes of a killed process that were in the kernel only stay there: the power may still take them.
    if (text.starts_with("cannot save what was acknowledged")) exactly_once_ = false;
  };
  host.stored = [this](std::uint64_t sequence, std::uint64_t token) {
    told(sequence, token, Outcome::stored);
  };
  host.dropped = [this](std::uint64_t count) {
    journal_.note("the spool drops {}", count);
    disk_loses_ = true;
    process_->ended += count;
  };
  host.not_dropped = [this](std::uint64_t count) {
    journal_.note("{} of them had their outcome", count);
    process_->ended -= count;
  };
  host.recovered = [this](std::uint64_t count) {
    journal_.note("{} messages recovered", count);
    process_->recovered += count;
    totals_.recovered += count;
  };
  process_->outflow.open(std::make_unique<Backlog>(
      config_, std::move(host), 0,
      Backlog::Surroundings{files_, [this] { return now(); }, [this] { return wall(now()); }}));
}

// In the midst of whatever it does: by a signal, or with the machine.
void DurableWorld::die(bool power) {
  journal_.note(power ? "the power fails" : "the process is killed");
  ++totals_.deaths;
  cut();
  files_.power_off_at(0);
  process_.reset();
  if (power) {
    files_.crash();
  } else {
    files_.kill();
  }
}

// In order, but not with all the time in the world [Client::shutdown()].
void DurableWorld::stop() {
  auto& process = *process_;
  journal_.note("the process stops");
  ++totals_.stops;
  process.outbox.close();
  process.situation.store_asked = true;
  const auto pushed = process.outbox.pushed();
  for (auto turns = calm_ ? 200 : random_.below(100); turns > 0 && !journal_.failed(); --turns) {
    turn();
    process.in_time = process.outflow.settled_below() >= pushed;
    if (process.in_time) break;
    if (auto* backlog = process.outflow.backlog()) backlog->step();
    pass(milliseconds(1));
  }
  journal_.note("in time: {}", process.in_time);
  if (process.situation.up) {
    process.situation.leaving = true;
    process.session.disconnect();
    turn();
  }
  if (process.connection != nullptr) close();
  process.session.take_all([this](RecordView record) {
    settle(record.header().sequence, record.header().token, Outcome::dropped);
  });
  drain_events();
  const auto drop = [this](std::uint64_t sequence, std::uint64_t token) {
    ++process_->ended;
    told(sequence, token, Outcome::dropped);
  };
  for (auto block = process.outbox.front(); !block.empty(); block = process.outbox.front()) {
    const RecordView record(block.data());
    drop(record.header().sequence, record.header().token);
    if (auto* shared = record.shared_payload()) shared->release();
    process.outbox.pop();
  }
  if (auto* backlog = process.outflow.backlog()) {
    backlog->stop(milliseconds(0), [&](Backlog::Unsettled message) {
      if (!message.maybe_stored) ++process.ended;
      if (message.token) told(message.sequence, message.token, Outcome::dropped);
    });
  }
  for (std::uint64_t number = 1; number < messages_.size(); ++number) {
    const auto& message = messages_[number];
    if (message.life == life_ && !message.outcome) {
      journal_.fail("message " + std::to_string(number) + " has no outcome at the end of its process");
    }
  }
  process_.reset();
  if (files_.powered_off()) files_.crash();
}

void DurableWorld::accept() {
  auto& process = *process_;
  const auto number = messages_.size();
  Message message;
  const auto roll = random_.below<unsigned>(plan_.qos[0] + plan_.qos[1] + plan_.qos[2]);
  message.qos = roll < plan_.qos[0]                  ? QoS::at_most_once
                : roll < plan_.qos[0] + plan_.qos[1] ? QoS::at_least_once
                                                     : QoS::exactly_once;
  message.topic = random_.below<unsigned>(plan_.topics);
  message.life = life_;
  message.accepted = now();
  if (random_.chance(plan_.expiry)) message.expiry_s = random_.between<std::uint32_t>(1, 20);

  const bool large = random_.chance(plan_.large);
  std::vector<std::byte> payload(large ? random_.between(5'000, config_.spool_bytes / 20)
                                       : random_.between(8, 400));
  std::memcpy(payload.data(), &number, sizeof number);
  RecordParts parts;
  const std::string topic = "topic/" + std::to_string(message.topic);
  parts.topic = topic;
  parts.payload = payload;
  parts.qos = message.qos;
  parts.expiry_s = message.expiry_s;
  parts.accepted_ns = now().time_since_epoch().count();
  parts.token = token_base + number;
  if (large) {
    parts.shared = new mqtt::SharedPayload;
    parts.shared->bytes = std::make_unique<std::byte[]>(payload.size());
    parts.shared->size = payload.size();
    std::memcpy(parts.shared->bytes.get(), payload.data(), payload.size());
  }
  const auto size = RecordView::size_for(parts);
  auto* block = process.outbox.try_reserve(size, &parts.sequence);
  if (block == nullptr) {
    if (parts.shared) parts.shared->release();
    return;
  }
  mqtt::write_record(block, parts);
  process.outbox.commit(block, size);
  journal_.note("accepts {}, QoS {}, {} bytes", number, static_cast<std::uint64_t>(message.qos),
                payload.size());
  messages_.push_back(message);
  ++process.accepted;
  ++totals_.accepted;
}

void DurableWorld::told(std::uint64_t sequence, std::uint64_t token, Outcome outcome) {
  if (Outflow::is_own(token) || token == 0) return;
  const auto number = token - token_base;
  if (number >= messages_.size() || messages_[number].life != life_) {
    return journal_.fail("an outcome of nothing: token " + std::to_string(token));
  }
  auto& message = messages_[number];
  journal_.note(
      outcome == Outcome::stored ? "{} is stored, sequence {}" : "{} has its outcome, sequence {}, {}",
      number, sequence & ~Backlog::from_disk, static_cast<std::uint64_t>(outcome));
  const auto what = "message " + std::to_string(number) + " is " + std::string(name_of(outcome));
  if (message.outcome) journal_.fail(what + ", after it was " + std::string(name_of(*message.outcome)));
  message.outcome = outcome;
  switch (outcome) {
    case Outcome::sent:
      if (message.qos != QoS::at_most_once) journal_.fail(what);
      break;
    case Outcome::acknowledged:
      if (message.qos == QoS::at_most_once || message.deliveries == 0)
        journal_.fail(what + ", and did not arrive");
      break;
    case Outcome::refused:
      if (!message.refused) journal_.fail(what + ", but not by the server");
      break;
    case Outcome::expired:
      if (now() + milliseconds(2) < message.accepted + seconds(message.expiry_s))
        journal_.fail(what + " too early");
      break;
    case Outcome::stored: ++totals_.stored; break;
    case Outcome::dropped:
      if (process_->in_time && !disk_loses_) journal_.fail(what + ", though everything was stored in time");
      if (!process_->situation.store_asked) journal_.fail(what + " by a client that does not stop");
      break;
  }
}

void DurableWorld::settle(std::uint64_t sequence, std::uint64_t token, Outcome outcome) {
  if (Outflow::is_own(token)) return;
  switch (process_->outflow.settle(sequence, outcome == Outcome::dropped)) {
    case Outflow::Rest::settled: break;
    case Outflow::Rest::on_disk: return;
    case Outflow::Rest::stored: return told(sequence, token, Outcome::stored);
  }
  ++process_->ended;
  told(sequence, token, outcome);
}

// As Connection::turn() does.
void DurableWorld::turn() {
  auto& process = *process_;
  process.situation.until = process.outbox.pushed();
  drain_events();
  auto* backlog = process.outflow.backlog();
  if (backlog) {
    const bool opening = backlog->opening();
    process.outflow.look(process.situation, now());
    // What it cannot open it does not wait for.
    if (opening && !backlog->opening() && backlog->failing()) order_holds_ = false;
  }
  transmit();
  drain_events();
  if (process.connection != nullptr && process.session.should_close() && !process.session.wants_transmit())
    close();
  if (backlog) backlog->submit();
}

void DurableWorld::transmit() {
  auto& process = *process_;
  if (process.connection == nullptr) return;
  std::vector<std::byte> buffer(random_.pick<std::size_t>({random_.between(16, 100), 1'000, 65'536}));
  for (int writes = 0; writes < 200 && !journal_.failed(); ++writes) {
    if (!process.outflow.may_transmit(now())) return;
    const auto* backlog = process.outflow.backlog();
    if (process.session_is_new && !(backlog && backlog->forgetting())) {
      process.session_is_new = false;
      server_->client_knows();
    }
    process.outflow.feed(process.situation, now(), [](const mqtt::RecordHeader&) {});
    const auto size = process.session.transmit(buffer, now());
    if (size == 0) return;
    const auto bytes = BytesView(buffer).first(size);
    check_sent(bytes);
    process.connection->up.write(bytes, now() + microseconds(random_.below(server_->habits.latency_us + 1)));
    if (!calm_ && random_.chance(200)) return;
  }
}

// No message begins its way after its expiry, and what is left of it is right.
void DurableWorld::check_sent(BytesView bytes) {
  auto& process = *process_;
  if (process.sent.empty()) process.sent_since = now();
  process.sent.insert(process.sent.end(), bytes.begin(), bytes.end());
  std::size_t at = 0;
  for (;;) {
    mqtt::Frame frame;
    const auto rest = BytesView(process.sent).subspan(at);
    if (next_frame(rest, config_.protocol, mqtt::no_packet_limit, frame) != DecodeError::none)
      return journal_.fail("the client sends a broken header");
    if (frame.size == 0) break;
    mqtt::PacketView view;
    if (decode(frame, config_.protocol, mqtt::Sender::client, view) != DecodeError::none)
      return journal_.fail("the client sends a broken packet");
    if (const auto* publish = std::get_if<mqtt::PublishView>(&view)) {
      const auto number = number_in(publish->payload);
      if (number == 0 || number >= messages_.size())
        return journal_.fail("the client sends a message that nobody published");
      journal_.note("sends {} id {}, QoS and 10 * DUP {}", number, publish->packet_id,
                    static_cast<std::uint64_t>(publish->qos) + 10u * publish->dup);
      auto& message = messages_[number];
      // While the disk does not take it, it is on its way without a position.
      message.plain |= publish->qos == QoS::exactly_once && publish->packet_id < 0x8000;
      const auto before = std::exchange(message.sent_by, life_);
      message.sent_before |= before != 0 && before != life_;
      if (before == life_ && message.qos == QoS::at_most_once && once_holds_)
        journal_.fail("message " + std::to_string(number) + " of QoS 0 is sent twice");
      if (message.expiry_s != mqtt::no_expiry) check_expiry(number, *publish);
    }
    at += frame.size;
    process.sent_since = now();
  }
  process.sent.erase(process.sent.begin(), process.sent.begin() + static_cast<std::ptrdiff_t>(at));
}

void DurableWorld::check_expiry(std::uint64_t number, const mqtt::PublishView& packet) {
  const auto& message = messages_[number];
  // On disk the time of acceptance is in milliseconds.
  const auto left_at = [&](Instant at) {
    const auto age = std::chrono::duration_cast<seconds>(at - message.accepted).count();
    return std::int64_t{message.expiry_s} - age;
  };
  const auto most = left_at(process_->sent_since - milliseconds(2));
  const auto least = left_at(process_->sent_since + milliseconds(2));
  const auto what = "message " + std::to_string(number);
  if (most <= 0 && !packet.dup) return journal_.fail(what + " is sent when it has expired");
  if (config_.protocol != ProtocolVersion::v5) return;
  const auto said = packet.properties.number(mqtt::PropertyId::message_expiry_interval, 0);
  if (said < std::max<std::int64_t>(1, least) || said > std::max<std::int64_t>(1, most))
    journal_.fail(what + " says that it expires in " + std::to_string(said) + " s, and not in " +
                  std::to_string(least));
}

void DurableWorld::drain_events() {
  mqtt::Event event;
  while (!journal_.failed() && process_->session.next_event(event)) handle(event);
}

void DurableWorld::handle(const mqtt::Event& event) {
  auto& process = *process_;
  if (const auto* connected = std::get_if<mqtt::Connected>(&event)) {
    journal_.note("connected, session present {}", connected->session_present);
    process.situation.up = true;
    process.session_is_new = !connected->session_present;
    ++totals_.connections;
    auto* backlog = process.outflow.backlog();
    if (backlog && !connected->session_present) backlog->session_lost(now());
  } else if (const auto* completed = std::get_if<mqtt::Completed>(&event)) {
    auto outcome = Outcome::sent;
    switch (completed->outcome) {
      case mqtt::Outcome::sent: outcome = Outcome::sent; break;
      case mqtt::Outcome::acknowledged: outcome = Outcome::acknowledged; break;
      case mqtt::Outcome::refused: outcome = Outcome::refused; break;
      case mqtt::Outcome::expired: outcome = Outcome::expired; break;
    }
    journal_.note("completed: sequence {}, from disk {}", completed->sequence & ~Backlog::from_disk,
                  Backlog::is_from_disk(completed->sequence));
    settle(completed->sequence, completed->token, outcome);
  } else if (const auto* pubrec = std::get_if<mqtt::PubrecReceived>(&event)) {
    journal_.note("PUBREC of position {}", pubrec->position);
    process.outflow.backlog()->received(pubrec->position);
  } else if (const auto* closing = std::get_if<mqtt::Closing>(&event)) {
    if (closing->by == mqtt::Closing::By::protocol_violation)
      journal_.fail("the session finds fault with the server: " + std::string(closing->text));
  }
}

bool DurableWorld::drained() const {
  const auto& process = *process_;
  const auto counts = process.session.counts();
  if (process.outbox.depth() > 0 || counts.queued > 0 || counts.in_flight > 0) return false;
  const auto* backlog = process.outflow.backlog();
  if (!backlog) return true;
  return backlog->drained() && (backlog->failing() || backlog->stats().entries == 0);
}

// --- the network -----------------------------------------------------------------------------------------------------

void DurableWorld::open() {
  auto& process = *process_;
  auto& connection = *connections_.emplace_back(std::make_unique<Connection>());
  connection.number = lives_.size();
  lives_.push_back(life_);
  journal_.note("connection {}", connection.number);
  process.connection = &connection;
  process.gives_up = now() + connect_timeout;
  process.session.connection_opened(now());
}

void DurableWorld::close() {
  auto& process = *process_;
  drain_events();
  journal_.note("the client closes connection {}", process.connection->number);
  process.session.connection_closed(now());
  cut();
  process.situation.up = false;
  process.inbox.clear();
  process.sent.clear();
  reopens_ = now() + (calm_ ? milliseconds(1) : milliseconds(random_.pick({0, 1, 60, 500, 3'000})));
  drain_events();
}

// The client's end is gone. The server reads what was under way, or some of it.
void DurableWorld::cut() {
  if (!process_ || process_->connection == nullptr) return;
  auto& connection = *std::exchange(process_->connection, nullptr);
  connection.client_end = false;
  if (connection.cut) return;
  connection.cut = true;
  connection.server_sees = now() + microseconds(random_.below(server_->habits.latency_us * 2 + 1));
  if (!calm_ && random_.chance(7'000)) connection.up.cut_after(random_.below(connection.up.under_way() + 1));
}

void DurableWorld::read(std::size_t most) {
  auto& process = *process_;
  if (process.connection == nullptr || process.session.should_close()) return;
  if (process.connection->down.read(now(), most, process.inbox) == 0) return;
  process.session.receive(process.inbox, now());
  drain_events();
  const auto unread = process.session.unread();
  process.inbox.erase(process.inbox.begin(), process.inbox.end() - static_cast<std::ptrdiff_t>(std::min(
                                                                       unread, process.inbox.size())));
}

void DurableWorld::look_at_connections() {
  for (auto& connection : connections_) {
    if (!connection->server_end || !connection->cut || connection->server_sees > now()) continue;
    server_->read(*connection, SIZE_MAX);
    if (connection->up.drained() || connection->up.stalled || connection->up.arrived(now()) == 0) {
      connection->server_end = false;
      server_->lost(*connection);
    }
  }
  if (process_) {
    const auto* connection = process_->connection;
    const bool lost = connection != nullptr &&
                      ((connection->cut && connection->client_sees <= now() && connection->down.drained()) ||
                       (!connection->server_end && !connection->down.stalled && connection->down.drained()) ||
                       (!process_->situation.up && process_->gives_up <= now()));
    if (lost) close();
  }
  std::erase_if(connections_,
                [](const auto& connection) { return !connection->client_end && !connection->server_end; });
}

void DurableWorld::pass(microseconds time) {
  const auto until = now() + time;
  while (!journal_.failed()) {
    const auto timeout = process_->session.next_timeout();
    if (!timeout || *timeout > until) break;
    journal_.now = std::max(now(), *timeout);
    process_->session.on_timeout(now());
    turn();
  }
  journal_.now = until;
  look_at_connections();
  if (process_->connection == nullptr && now() >= reopens_) open();
}

// --- the server's application ----------------------------------------------------------------------------------------

void DurableWorld::came(std::uint64_t number, const mqtt::PublishView& packet) {
  if (number == 0 || number >= messages_.size()) return journal_.fail("a message that nobody published");
  auto& message = messages_[number];
  if (packet.qos != message.qos || packet.topic != "topic/" + std::to_string(message.topic))
    return journal_.fail("message " + std::to_string(number) + " is not as it was published");
  if (std::exchange(message.arrived, true)) return;
  auto& last = last_arrival_[message.topic];
  // Of QoS 0, the one in its turn may have been lost, and come again when its process has died.
  if (number < last && message.qos == QoS::at_most_once && message.sent_before) return;
  // What has expired in a process that dies is repeated by the next one, which cannot know [MQTT-4.3.3-7].
  if (number < last && message.expiry_s != mqtt::no_expiry && packet.dup) return;
  if (number < last && order_holds_)
    journal_.fail("message " + std::to_string(number) + " comes after message " + std::to_string(last));
  last = number;
}

void DurableWorld::delivered(std::uint64_t number) {
  if (number == 0 || number >= messages_.size()) return;
  auto& message = messages_[number];
  ++message.deliveries;
  ++totals_.delivered;
  const auto by = lives_[server_->connection()], to = server_->sessions();
  const bool same = message.delivered_by == by && message.delivered_to == to;
  message.deliveries_there = same ? message.deliveries_there + 1 : 1;
  message.delivered_by = by;
  message.delivered_to = to;
  const auto what = "message " + std::to_string(number) + " of QoS " +
                    std::to_string(static_cast<int>(message.qos)) + " is delivered twice";
  if (message.qos == QoS::at_least_once) return;
  if (message.deliveries_there > 1 && once_holds_) journal_.fail(what + " by one process to one session");
  if (message.qos == QoS::exactly_once && exactly_once_ && !message.plain && message.deliveries > 1)
    journal_.fail(what);
}

// --- steps -----------------------------------------------------------------------------------------------------------

void DurableWorld::step_disk() {
  auto* backlog = process_->outflow.backlog();
  if (!backlog) return;
  backlog->step();
  if (!files_.powered_off()) return;
  die(random_.chance(7'000));
  begin_life();
}

void DurableWorld::fault_disk() {
  ++totals_.faults;
  struct Fault {
    Operation kind;
    int error;
  };
  const auto fault = random_.pick<Fault>({{Operation::write, EIO},
                                          {Operation::write, ENOSPC},
                                          {Operation::sync_data, EIO},
                                          {Operation::sync_data, EIO},
                                          {Operation::allocate, ENOSPC},
                                          {Operation::rename, EROFS},
                                          {Operation::remove, EROFS},
                                          {Operation::sync_directory, EIO},
                                          {Operation::open, EMFILE}});
  const auto nth = random_.between<std::uint64_t>(1, 4);
  const bool for_good = random_.chance(4'000);
  journal_.note("disk: operation {} of kind {} fails, for good {}", nth,
                static_cast<std::uint64_t>(fault.kind), for_good);
  files_.fail_at(fault.kind, nth, fault.error, for_good);
}

void DurableWorld::step() {
  auto& r = random_;
  auto roll =
      r.below<unsigned>(plan_.accept + plan_.turn + plan_.disk + plan_.server + plan_.time + plan_.cut +
                        plan_.kill + plan_.power + plan_.stop + plan_.disk_fault + plan_.disk_full);
  const auto is = [&](unsigned weight) {
    if (roll < weight) return true;
    roll -= weight;
    return false;
  };
  if (is(plan_.accept)) {
    for (auto burst = r.chance(500) ? r.between(2, 40) : 1; burst > 0; --burst) {
      if (messages_.size() <= plan_.messages_max) accept();
    }
  } else if (is(plan_.turn)) {
    read(r.pick<std::size_t>({1, r.between(1, 100), 100'000}));
    turn();
  } else if (is(plan_.disk)) {
    step_disk();
  } else if (is(plan_.server)) {
    for (auto& connection : connections_)
      server_->read(*connection, r.pick<std::size_t>({r.between(1, 200), 100'000}));
    server_->answer(r.pick<std::size_t>({0, 1, 3, 1'000}));
  } else if (is(plan_.time)) {
    const auto time = r.chance(9'000)   ? r.between(100, 50'000)
                      : r.chance(9'500) ? r.between(50'000, 3'000'000)
                                        : r.between(3'000'000, 40'000'000);
    pass(microseconds(time));
  } else if (is(plan_.cut)) {
    if (process_->connection == nullptr) return;
    auto& connection = *process_->connection;
    if (connection.cut) return;
    if (r.chance(2'000)) {
      journal_.note("connection {} falls silent", connection.number);
      connection.up.stalled = connection.down.stalled = true;
      return;
    }
    journal_.note("connection {} is cut", connection.number);
    connection.cut = true;
    connection.up.cut_after(r.below(connection.up.under_way() + 1));
    connection.down.cut_after(r.below(connection.down.under_way() + 1));
    connection.client_sees = now() + microseconds(r.below(200'000));
    connection.server_sees = now() + microseconds(r.below(200'000));
  } else if (is(plan_.kill)) {
    die(false);
    begin_life();
  } else if (is(plan_.power)) {
    if (!config_.spool_dir.empty() && r.chance(7'000)) {
      files_.power_off_at(r.between<std::uint64_t>(1, 30));  // noticed by step_disk()
      journal_.note("the power is about to fail");
    } else {
      die(true);
      begin_life();
    }
  } else if (is(plan_.stop)) {
    stop();
    if (!journal_.failed()) begin_life();
  } else if (is(plan_.disk_fault)) {
    r.chance(5'000) ? fault_disk() : files_.heal();
  } else if (is(plan_.disk_full)) {
    const bool full = r.chance(5'000);
    journal_.note("the disk is full: {}", full);
    files_.set_space(full ? files_.bytes_used() + r.below(100'000) : ~std::uint64_t{0});
  }
  if (!journal_.failed() && files_.powered_off()) {
    die(r.chance(7'000));
    begin_life();
  }
}

// Nothing fails any more: everything drains.
void DurableWorld::calm() {
  journal_.note("the faults end");
  calm_ = true;
  files_.heal();
  files_.set_space(~std::uint64_t{0});
  files_.power_off_at(std::uint64_t{1} << 60);
  server_->habits.lose_session = server_->habits.refuse_connection = 0;
  server_->habits.latency_us = std::min<std::uint64_t>(server_->habits.latency_us, 2'000);
  for (auto& connection : connections_) {
    if (connection->up.stalled) connection->cut = true;
  }
  // Twice: a spool that could not be opened is with the next process.
  for (int round = 0; round < 2 && !journal_.failed(); ++round) {
    int turns = 0;
    for (; turns < 20'000 && !journal_.failed(); ++turns) {
      for (auto& connection : connections_) server_->read(*connection, SIZE_MAX);
      server_->answer(SIZE_MAX);
      read(SIZE_MAX);
      turn();
      if (auto* backlog = process_->outflow.backlog()) backlog->step();
      pass(milliseconds(turns % 100 == 99 ? 1'000 : 2));
      if (turns > 10 && drained()) break;
    }
    if (journal_.failed()) return;
    if (turns == 20'000) return journal_.fail("it does not drain");
    const bool could_open = !process_->outflow.backlog() || !process_->outflow.backlog()->failing();
    if (process_->accepted + process_->recovered != process_->ended && could_open) {
      return journal_.fail("accepted " + std::to_string(process_->accepted) + " and recovered " +
                           std::to_string(process_->recovered) + ", but ended " +
                           std::to_string(process_->ended));
    }
    stop();
    if (journal_.failed()) return;
    begin_life();
  }
}

void DurableWorld::verify() {
  for (std::uint64_t number = 1; number < messages_.size() && !journal_.failed(); ++number) {
    const auto& message = messages_[number];
    if (message.qos == QoS::at_most_once || !message.outcome || message.deliveries > 0) continue;
    if (*message.outcome != Outcome::stored && *message.outcome != Outcome::acknowledged) continue;
    if (server_->has_forgotten(number)) continue;
    if (message.refused || message.expiry_s != mqtt::no_expiry || disk_loses_) continue;
    journal_.fail("message " + std::to_string(number) + " was " + std::string(name_of(*message.outcome)) +
                  ", and did not arrive");
  }
}

bool DurableWorld::run() {
  for (std::size_t i = 0; i < plan_.steps && !journal_.failed(); ++i) step();
  if (!journal_.failed()) calm();
  if (!journal_.failed()) verify();
  return !journal_.failed();
}

std::string DurableWorld::report() const {
  return "seed " + std::to_string(seed_) + ": " + journal_.failure() + "\n" + journal_.text();
}

}  // namespace fulmar::simulation
