#include "world.hpp"

#include <algorithm>

#include "allocation_meter.hpp"

namespace fulmar::simulation {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

World::World(std::uint64_t seed, bool kind) : seed_(seed), random_(seed) {
  journal_.now = Instant(std::chrono::hours(1));
  make_plan();
  if (kind) make_kind();
  {
    const Metered metered;
    session_ = std::make_unique<Session>(config_);
  }
  rules_ = std::make_unique<ClientRules>(journal_, messages_, config_);
  server_ = std::make_unique<ServerModel>(journal_, random_, messages_, *rules_, config_.version);
  server_->habits = plan_.habits;
}

void World::make_plan() {
  auto& r = random_;
  config_.version = seed_ % 2 == 0 ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1;
  config_.client_id = "simulated";
  config_.clean_start = r.chance(3'000);
  config_.session_expiry_s = r.chance(8'500) ? 3'600 : 0;
  config_.keepalive_s = r.pick<std::uint16_t>({0, 1, 5, 30, 60});
  config_.receive_maximum = r.pick<std::uint16_t>({1, 2, 10, 100, 65'535});
  config_.max_inflight = r.pick<std::uint16_t>({1, 2, 5, 20, 100, 1'000});
  config_.maximum_packet_size = r.pick<std::uint32_t>({400'000, 256u << 20});
  config_.topic_alias_maximum = r.pick<std::uint16_t>({0, 1, 10});

  plan_.publish = r.between<unsigned>(200, 3'000);
  plan_.server_publish = r.between<unsigned>(0, 5'000);
  plan_.acknowledge = r.pick<unsigned>({100, 2'000, 4'000});
  plan_.request = r.pick<unsigned>({0, 20, 300});
  plan_.hold = r.pick<unsigned>({0, 0, 50, 500});
  plan_.block = r.pick<unsigned>({0, 20, 500, 3'000});
  plan_.fault = r.pick<unsigned>({2, 20, 60, 300});
  plan_.big = r.pick<unsigned>({0, 20, 300});
  plan_.shared_topic = r.pick<unsigned>({0, 5'000, 9'500});
  plan_.expiry = r.pick<unsigned>({0, 300, 5'000});
  plan_.long_pause = r.pick<unsigned>({0, 5, 50});
  plan_.acknowledge_at_once = r.pick<unsigned>({0, 5'000, 10'000});
  plan_.acknowledge_error = r.pick<unsigned>({0, 0, 500});
  plan_.qos = {r.between<unsigned>(0, 3), r.between<unsigned>(1, 5), r.between<unsigned>(0, 5)};
  plan_.queue_max = r.pick<std::size_t>({5, 50, 1'000});

  auto& h = plan_.habits;
  h.out_of_order = r.pick<unsigned>({0, 0, 500, 10'000});
  h.answer_error = r.pick<unsigned>({0, 0, 300});
  h.answer_twice = r.pick<unsigned>({0, 0, 300, 3'000});
  h.answer_never = r.pick<unsigned>({0, 0, 20, 500});
  h.answer_unknown = r.pick<unsigned>({0, 0, 30, 500});
  h.answer_wrong_kind = r.pick<unsigned>({0, 0, 300});
  h.break_rules = r.pick<unsigned>({0, 0, 1, 30});
  h.repeat_publish = r.pick<unsigned>({0, 0, 100});
  // Wrong in 5.0 [MQTT-4.4.0-1]; after a PUBREC that refuses it would begin an exchange that never ends.
  if (plan_.acknowledge_error != 0) h.repeat_publish = 0;
  h.exceed_receive_maximum = r.pick<unsigned>({0, 0, 0, 20});
  h.refuse = r.pick<unsigned>({0, 300, 3'000});
  h.lose_session = r.pick<unsigned>({0, 0, 1'000, 5'000});
  h.forget_at_end = r.pick<unsigned>({0, 0, 0, 1'000});
  h.shrink = r.pick<unsigned>({0, 0, 1'000, 4'000});
  h.silent_connect = r.pick<unsigned>({0, 0, 500});
  h.answers_ping = r.chance(9'000);
  h.latency_us = r.pick<std::uint64_t>({0, 200, 2'000, 50'000});
  h.window_max = r.pick<std::uint16_t>({1, 3, 20, 1'000});
}

void World::make_kind() {
  plan_.fault = plan_.hold = plan_.block = plan_.big = plan_.long_pause = plan_.request = 0;
  plan_.habits = Habits{.latency_us = 200};
  config_.keepalive_s = 60;
  config_.max_inflight = config_.receive_maximum = 50;
}

// --- time -----------------------------------------------------------------------------------------------------------

// Lets time pass; whatever is due on the way happens when it is due.
void World::pass(microseconds time) {
  const auto until = journal_.now + time;
  while (!journal_.failed()) {
    auto next = until;
    const bool was_blocked = blocked();
    if (was_blocked) next = std::min(next, blocked_until_);
    const auto timeout = session_->next_timeout();
    if (timeout) next = std::min(next, *timeout);
    if (connection_ == nullptr) next = std::min(next, reopens_);
    if (connection_ != nullptr && !rules_->connected()) next = std::min(next, gives_up_);
    if (connection_ != nullptr && connection_->cut) next = std::min(next, connection_->client_sees);
    next = std::max(next, journal_.now);
    if (was_blocked) rules_->blocked_for(next - journal_.now);
    journal_.now = next;

    bool busy = was_blocked && !blocked();
    if (timeout && *timeout <= next) {
      {
        const Metered metered;
        session_->on_timeout(next);
      }
      rules_->timed_out(next);
      journal_.note("timeout");
      service();
      busy = true;
      if (const auto again = session_->next_timeout(); again && *again <= next) {
        return journal_.fail("next_timeout() does not move on");
      }
    } else if (busy) {
      service();
    }
    if (connection_ == nullptr && reopens_ <= next) {
      open();
      busy = true;
    } else if (connection_ != nullptr && ((connection_->cut && connection_->client_sees <= next) ||
                                          (!rules_->connected() && gives_up_ <= next))) {
      close();
      busy = true;
    }
    if (next >= until && !busy) return;
  }
}

void World::check_connections() {
  for (auto& connection : connections_) {
    if (connection->server_end && connection->cut && connection->server_sees <= journal_.now) {
      server_->read(*connection, SIZE_MAX);
      if (connection->up.drained() || connection->up.stalled || connection->up.arrived(journal_.now) == 0) {
        connection->server_end = false;
        server_->lost(*connection);
      }
    }
  }
  if (connection_ != nullptr && !connection_->server_end && !connection_->down.stalled &&
      connection_->down.drained() && !held_) {
    close();  // the end of the stream
  }
  std::erase_if(connections_,
                [](const auto& connection) { return !connection->client_end && !connection->server_end; });
}

// --- steps ----------------------------------------------------------------------------------------------------------

void World::step() {
  auto& r = random_;
  const auto roll = r.below<unsigned>(100);
  auto time = microseconds(r.below(roll < 80 ? 200 : 3'000));
  if (r.chance(20)) time = milliseconds(r.below(100));
  const bool dead =
      connection_ == nullptr || connection_->cut || connection_->up.stalled || connection_->down.stalled;
  if (dead && r.chance(2'000))
    time = milliseconds(r.below(r.chance(1'000) ? 20'000 : 500));  // do not dwell on outages
  if (r.chance(plan_.long_pause)) time = milliseconds(r.below(r.chance(1'000) ? 100'000 : 4'000));
  pass(time);
  if (journal_.failed()) return;

  if (r.chance(plan_.fault)) fault();
  if (r.chance(plan_.publish)) publish();
  if (r.chance(plan_.server_publish)) server_->publish(content());
  if (r.chance(plan_.request)) request();
  if (held_ && r.chance(1'000)) {
    hold(false);
    service();
  }
  if (!unacknowledged_.empty() && r.chance(plan_.acknowledge)) {
    for (auto count = r.between(1, std::min<std::size_t>(unacknowledged_.size(), 20)); count > 0; --count) {
      acknowledge(r.below(unacknowledged_.size()));
    }
    service();
  }
  if (r.chance(4'000) && (!held_ || r.chance(500)))
    read(r.pick<std::size_t>({1, 3, 40, 2'000, 65'536, 1u << 20}));
  if (r.chance(4'000)) {
    for (auto& connection : connections_)
      server_->read(*connection, r.pick<std::size_t>({1, 7, 300, 65'536, 1u << 20}));
  }
  if (r.chance(4'000)) {
    for (auto count = r.between(1, 20); count > 0; --count) server_->act();
  }
  server_->check_time();
  check_connections();
  rules_->at_any_time(*session_, held_, journal_.now);
}

void World::fault() {
  auto& r = random_;
  switch (r.below(12)) {
    case 0:
    case 1:
    case 2:
    case 3:  // the connection breaks, with bytes under way; each end learns of it in its own time
      if (connection_ == nullptr || connection_->cut) return;
      journal_.note("the connection breaks");
      connection_->up.cut_after(r.below(connection_->up.under_way() + 1));
      connection_->down.cut_after(r.below(connection_->down.under_way() + 1));
      connection_->cut = true;
      connection_->client_sees = journal_.now + microseconds(r.pick({0, 3'000, 100'000, 40'000'000}));
      connection_->server_sees = journal_.now + microseconds(r.pick({0, 3'000, 100'000, 40'000'000}));
      return;
    case 4:  // nothing arrives any more, and nobody is told
      if (connection_ == nullptr) return;
      journal_.note("the connection falls silent");
      connection_->up.stalled = r.chance(7'000);
      connection_->down.stalled = !connection_->up.stalled || r.chance(7'000);
      return;
    case 5:
      return server_->disconnect(r.pick({ReasonCode::server_shutting_down, ReasonCode::server_busy,
                                         ReasonCode::success, ReasonCode::administrative_action}));
    case 6: return server_->take_over(r.chance(3'000));
    case 7:
      journal_.note("the caller disconnects");
      {
        const Metered metered;
        session_->disconnect(ReasonCode::success);
      }
      rules_->disconnect_asked();
      return service();
    case 8:
      if (!r.chance(3'000)) return;
      journal_.note("the caller forgets the session");
      session_->forget_session();
      rules_->forget_asked();
      if (r.chance(5'000)) close();
      return;
    case 9:  // the caller gives the connection up
      return close();
    case 10: {  // other limits of our own from the next connection
      auto& config = session_->config();
      config.max_inflight = r.pick<std::uint16_t>({1, 3, 50, 1'000});
      config.receive_maximum = r.pick<std::uint16_t>({1, 5, 200, 65'535});
      return;
    }
    default:  // a new connection while the server still has the old one
      if (connection_ == nullptr) return;
      journal_.note("the client comes again before the server has noticed");
      connection_->cut = true;
      connection_->server_sees = journal_.now + seconds(30);
      close();
      reopens_ = journal_.now;
  }
}

// --- calm -----------------------------------------------------------------------------------------------------------

bool World::quiet() const {
  return rules_->connected() && rules_->quiet() && server_->connected() && server_->quiet() &&
         session_->counts().unacknowledged == 0 && !session_->wants_transmit() &&
         connection_->up.under_way() == 0 && connection_->down.under_way() == 0;
}

void World::calm_step() {
  pass(microseconds(200));
  hold(false);
  service();
  while (!unacknowledged_.empty()) acknowledge(0);
  read(SIZE_MAX);
  for (auto& connection : connections_) server_->read(*connection, SIZE_MAX);
  for (int i = 0; i < 400 && !server_->quiet(); ++i) server_->act();
  check_connections();
  rules_->at_any_time(*session_, held_, journal_.now);
}

// From here on nothing goes wrong: whatever is left must come to its end.
void World::calm() {
  journal_.note("calm");
  calm_ = true;
  Habits kind;
  kind.latency_us = 100;
  kind.window_min = kind.window_max = std::max<std::uint16_t>(plan_.habits.window_max, 20);
  server_->habits = kind;
  close();  // what the server never answered comes again
  reopens_ = journal_.now;
  for (int i = 0; !journal_.failed() && !quiet(); ++i) {
    if (i == 20'000) {
      const auto counts = session_->counts();
      return journal_.fail(
          "the world does not come to rest: " + std::to_string(counts.queued) + " queued, " +
          std::to_string(counts.in_flight) + " in flight, " + std::to_string(counts.unacknowledged) +
          " unacknowledged; the server: " + server_->state() + ";" + rules_->inbound_state());
    }
    // A CONNACK that told of a lost session was lost itself: the two ends mean different sessions. Nothing can mend that
    // but a new one.
    const bool same_session = rules_->epoch() == server_->epoch();
    server_->habits.lose_session = same_session ? 0 : 10'000;
    if (!same_session && rules_->connected()) close();
    calm_step();
  }
  if (journal_.failed()) return;
  rules_->at_the_end(*session_);
  check_memory();
}

// A while without messages gives back what a burst has left.
void World::check_memory() {
  if (rules_->limits().keepalive_s != 0) {
    for (int i = 0; i < 3 && !journal_.failed(); ++i) {
      pass(seconds(rules_->limits().keepalive_s));
      for (int k = 0; k < 20; ++k) calm_step();
    }
    const auto held = AllocationMeter::bytes_held();
    if (held > 256u << 10) journal_.fail("the session holds " + std::to_string(held) + " bytes at rest");
    memory_after_calm_ = std::max(memory_after_calm_, held);
  }
  if (shared_bytes_ != 0)
    journal_.fail("shared payloads leaked: " + std::to_string(shared_bytes_.load()) + " bytes");
}

// No identifier may be lost: all 65,535 can be in flight at once.
void World::use_every_identifier() {
  server_->drop_session();  // and with it the identifiers of messages that were given up
  session_->config().max_inflight = 65'535;
  server_->habits.window_min = server_->habits.window_max = 65'535;
  close();
  reopens_ = journal_.now;
  for (int i = 0; i < 1'000 && !quiet() && !journal_.failed(); ++i) calm_step();
  server_->habits.answer_never = 10'000;
  for (int i = 0; i < 66'000 && !journal_.failed(); ++i) {
    publish({.qos = QoS::at_least_once, .payload_size = 1}, false, mqtt::no_expiry);
    if (i % 100 == 0) calm_step();
  }
  for (int i = 0; i < 20; ++i) calm_step();
  if (rules_->flying() != 65'535) {
    journal_.fail(std::to_string(rules_->flying()) + " of 65535 identifiers can be used");
  }
  server_->habits.answer_never = 0;
  calm();
}

// Instead of calm: the caller takes back whatever is not completed.
void World::hand_out() {
  journal_.note("take_all");
  std::size_t count = 0;
  session_->take_all([&](mqtt::RecordView record) {
    ++count;
    const auto sequence = record.header().sequence;
    rules_->taken(sequence);
    const auto& content = messages_.out[sequence].content;
    if (record.topic() != topic_of(Way::out, sequence, content) || !payload_is(sequence, record.payload()) ||
        record.header().token != sequence * 3 + 1) {
      journal_.fail("take_all() hands out another message than was published");
    }
  });
  rules_->all_taken();
  journal_.note("took {}", count);
  service();
  rules_->at_the_end(*session_);
  if (shared_bytes_ != 0)
    journal_.fail("shared payloads leaked: " + std::to_string(shared_bytes_.load()) + " bytes");
}

bool World::run(std::uint64_t steps) {
  const auto before = AllocationMeter::bytes_held();
  while (steps_ < steps && !journal_.failed()) {
    calm_ = false;
    server_->habits = plan_.habits;
    const auto end = std::min(steps, steps_ + steps_per_round);
    for (; steps_ < end && !journal_.failed(); ++steps_) step();
    if (journal_.failed()) break;
    if (random_.chance(1'500) || (steps_ == steps && seed_ % 3 == 0)) {
      hand_out();
    } else {
      calm();
    }
  }
  if (!journal_.failed() && calm_ && seed_ % 20 < 2) use_every_identifier();
  if (journal_.failed()) return false;
  close();
  session_.reset();
  if (const auto after = AllocationMeter::bytes_held(); after > before) {
    journal_.fail("the session leaked " + std::to_string(after - before) + " bytes");
  }
  return !journal_.failed();
}

std::uint64_t World::allocations_in(std::uint64_t steps) {
  const auto before = AllocationMeter::allocations();
  for (const auto end = steps_ + steps; steps_ < end && !journal_.failed(); ++steps_) step();
  return AllocationMeter::allocations() - before;
}

World::Totals World::totals() const {
  Totals totals;
  totals.published = messages_.out.size() - 1;
  totals.delivered = server_->delivered();
  totals.received = received_;
  totals.connections = connections_made_;
  totals.packets = rules_->packets_checked();
  return totals;
}

std::string World::report() const {
  return "seed=" + std::to_string(seed_) + " steps=" + std::to_string(steps_) +
         " version=" + (config_.version == ProtocolVersion::v5 ? "5.0" : "3.1.1") + ": " +
         journal_.failure() + "\nreplay: FULMAR_SIM_SEED=" + std::to_string(seed_) +
         " FULMAR_SIM_STEPS=" + std::to_string(steps_) +
         " simulation_test --gtest_filter=Simulation.replays_one_seed\nwhat happened last:\n" +
         journal_.text();
}

}  // namespace fulmar::simulation
