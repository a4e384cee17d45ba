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

constexpr auto connect_timeout = seconds(5);

}  // namespace

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
  plan_.write_ahead = r.pick<unsigned>({0, 0, 1'000});
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

  // It may have been done by a process that died before it could say so.
  disk_loses_ = config_.overflow == Overflow::drop_oldest;
  exactly_once_ = config_.durability == Durability::write_ahead && !config_.clean_start &&
                  (config_.protocol == ProtocolVersion::v3_1_1 || config_.session_expiry > seconds(0)) &&
                  habits.lose_session == 0 && config_.overflow == Overflow::reject;
  server_ = std::make_unique<DurableServer>(
      journal_, random_, config_.protocol, habits,
      DurableServer::Application{
          .came = [this](std::uint64_t number, const mqtt::PublishView& packet) { came(number, packet); },
          .delivered = [this](std::uint64_t number) { delivered(number); },
          .delivered_late =
              [this](std::uint64_t number) {
                if (!messages_[number].plain)
                  journal_.fail("message " + std::to_string(number) + " is ended as if its process had gone");
                ++messages_[number].deliveries;
                ++totals_.delivered;
              },
          .refused =
              [this](std::uint64_t number) {
                if (number < messages_.size()) messages_[number].refused = true;
              },
          .orphaned =
              [this](std::uint64_t number, std::uint16_t id) {
                return messages_[number].life != life_ && (id < 0x8000 || !positions_hold_);
              }});
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
  disk_takes_ = false;
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
    disk_takes_ &= !full;
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
    if (turns == 20'000) return journal_.fail("it does not drain: " + what_waits());
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
