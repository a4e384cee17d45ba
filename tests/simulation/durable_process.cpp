#include <algorithm>
#include <cstring>

#include "durable_world.hpp"

namespace fulmar::simulation {

using mqtt::DecodeError;
using mqtt::RecordParts;
using mqtt::RecordView;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::uint64_t token_base = 1'000;  // tokens below are the client's own

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

}  // namespace

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

DurableWorld::Process::Process(const ClientConfig& config)
    : outbox(config.outbox_bytes, config.outbox_messages),
      session(session_config(config)),
      outflow(config, outbox, session) {}

DurableWorld::Process::~Process() {
  for (auto block = outbox.front(); !block.empty(); block = outbox.front()) {
    if (auto* shared = RecordView(block.data()).shared_payload()) shared->release();
    outbox.pop();
  }
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
    if (text.starts_with("the spool takes no more")) disk_takes_ = false;
    // Notes and entries of a killed process that were in the kernel only stay there: the power may still take them.
    if (text.starts_with("cannot save what was acknowledged")) exactly_once_ = positions_hold_ = false;
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
    if (files_.powered_off()) return die(random_.chance(7'000));
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

  // Its own level, or that of the client.
  message.write_ahead = config_.durability == Durability::write_ahead ||
                        (config_.durability == Durability::spill && random_.chance(plan_.write_ahead));
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
  parts.write_ahead = message.write_ahead;
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
      if (message.qos == QoS::at_most_once || (message.deliveries == 0 && !server_->has_forgotten(number)))
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
    if (process.session_is_new && backlog && !backlog->failing() &&
        now() < process.up_since + milliseconds(900))
      return journal_.fail("it sends in a new session, and the notes of the lost one are still on disk");
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
      if (message.write_ahead && disk_takes_ && message.outcome != Outcome::stored && message.life == life_)
        journal_.fail("message " + std::to_string(number) + " is sent before it is stored");
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
    process.up_since = now();
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

std::string DurableWorld::what_waits() const {
  const auto& process = *process_;
  const auto counts = process.session.counts();
  auto text = std::to_string(process.outbox.depth()) + " in the outbox, " + std::to_string(counts.queued) +
              " + " + std::to_string(counts.in_flight) + " in the session";
  if (const auto* backlog = process.outflow.backlog()) {
    text += ", " + std::to_string(backlog->stats().entries) + " on disk, backlog " +
            (backlog->drained() ? "" : "not ") + "drained";
  }
  return text;
}

bool DurableWorld::drained() const {
  const auto& process = *process_;
  const auto counts = process.session.counts();
  if (process.outbox.depth() > 0 || counts.queued > 0 || counts.in_flight > 0) return false;
  const auto* backlog = process.outflow.backlog();
  if (!backlog) return true;
  return backlog->drained() && (backlog->failing() || backlog->stats().entries == 0);
}

}  // namespace fulmar::simulation
