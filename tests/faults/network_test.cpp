// Faults N1 to N4: the broker dies, the connection is cut, the other side is silent.
#include <gtest/gtest.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;

std::string name_of(ProtocolVersion protocol) { return protocol == ProtocolVersion::v5 ? "v5" : "v3_1_1"; }
std::string name_of(QoS qos) { return "qos" + std::to_string(static_cast<int>(qos)); }

using Exchange = std::tuple<ProtocolVersion, QoS>;
std::string exchange_name(const testing::TestParamInfo<Exchange>& test) {
  return name_of(std::get<0>(test.param)) + "_" + name_of(std::get<1>(test.param));
}

class Exchanges : public testing::TestWithParam<Exchange> {
 protected:
  static ProtocolVersion protocol() { return std::get<0>(GetParam()); }
  static QoS qos() { return std::get<1>(GetParam()); }
};

// --- N1 --------------------------------------------------------------------------------------------------------------

// The numbers of the topics n/NNN that the broker received, one list for each of its lives.
std::vector<std::vector<std::size_t>> received_by(const Broker& broker) {
  std::vector<std::vector<std::size_t>> lives;
  const std::string log = broker.log();
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const auto line = std::string_view(log).substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with(" starting")) lives.emplace_back();
    const std::size_t at = line.find("'n/");
    if (at == std::string_view::npos || !line.contains("Received PUBLISH from ")) continue;
    std::size_t number = 0;
    std::from_chars(line.data() + at + 3, line.data() + line.size(), number);
    lives.back().push_back(number);
  }
  return lives;
}

using Kill = std::tuple<ProtocolVersion, QoS, Durability>;

std::string kill_name(const testing::TestParamInfo<Kill>& test) {
  const auto [protocol, qos, durability] = test.param;
  return name_of(protocol) + "_" + name_of(qos) +
         (durability == Durability::write_ahead ? "_write_ahead" : "_memory");
}

class BrokerKill : public testing::TestWithParam<Kill> {};

// The broker keeps nothing over a kill, so every cycle begins with session present = 0, and what was in flight is sent as
// new messages: the duplicates that are allowed stand in two lives, never in one.
TEST_P(BrokerKill, N1_in_mid_publish_loses_nothing) {
  const std::size_t cycles = times("FULMAR_BROKER_KILLS", 10);
  constexpr std::uint16_t in_flight = 20;
  constexpr std::size_t burst = 100;
  const auto [protocol, qos, durability] = GetParam();
  const bool ahead = durability == Durability::write_ahead;
  const TempDir directory;
  Broker broker;
  auto config = config_for(broker.url(), "publisher", protocol);
  config.max_inflight = in_flight;
  config.durability = durability;
  if (ahead) config.spool_dir = (directory / "spool").string();
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  std::atomic<std::size_t> kept{0};  // outcomes that say so
  const auto outcome = [&kept](const Delivery& delivery) {
    kept +=
        delivery.outcome == Delivery::Outcome::acknowledged || delivery.outcome == Delivery::Outcome::stored;
  };
  std::size_t accepted = 0;
  for (std::size_t cycle = 0; cycle < cycles; ++cycle) {
    for (const std::size_t until = accepted + burst; accepted < until; ++accepted) {
      ASSERT_TRUE(client.publish("n/" + std::to_string(accepted), as_bytes("x"), {.qos = qos}, outcome));
    }
    const auto kill_at = std::min<std::uint64_t>(client.metrics().acknowledged + cycle % burst / 2, accepted);
    eventually([&] { return client.metrics().acknowledged >= kill_at; }, 5s);
    broker.kill();
    broker.start();
    ASSERT_TRUE(eventually([&] { return client.metrics().connects == cycle + 2; }))
        << client.last_change().reason;
  }
  ASSERT_TRUE(client.flush(patience));
  // For write_ahead a message on the medium is flushed: the rest of its way is waited for here.
  EXPECT_TRUE(eventually([&] { return client.metrics().waiting == 0; }));
  EXPECT_EQ(client.metrics().acknowledged, accepted);
  EXPECT_EQ(client.metrics().replayed, ahead ? accepted : 0u);
  EXPECT_TRUE(eventually([&] { return kept == accepted; })) << kept << " of " << accepted;

  std::vector<std::size_t> seen(accepted);
  std::size_t repeated_in_one_life = 0, repeated = 0;
  for (const auto& life : received_by(broker)) {
    std::vector<bool> in_this_life(accepted);
    for (const auto number : life) {
      repeated_in_one_life += in_this_life[number];
      in_this_life[number] = true;
      repeated += seen[number]++ > 0;
    }
  }
  EXPECT_EQ(std::ranges::count(seen, 0u), 0) << "lost";
  EXPECT_EQ(repeated_in_one_life, 0u);
  EXPECT_LE(repeated, cycles * in_flight);
  std::printf(
      "%zu kills, all of them with session present = 0; %zu messages, %zu lost, %zu repeated as new ones\n",
      cycles, accepted, static_cast<std::size_t>(std::ranges::count(seen, 0u)), repeated);
}

INSTANTIATE_TEST_SUITE_P(, BrokerKill,
                         testing::Combine(testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                                          testing::Values(QoS::at_least_once, QoS::exactly_once),
                                          testing::Values(Durability::memory, Durability::write_ahead)),
                         kill_name);

// --- N2 --------------------------------------------------------------------------------------------------------------

// A client that hears what it says through a real broker, over a connection that is cut once.
class Trial {
 public:
  Trial(std::uint16_t broker_port, ProtocolVersion protocol, QoS qos, const Rule& rule, std::size_t number)
      : qos_(qos),
        topic_("trial/" + std::to_string(number)),
        rule_(rule),
        proxy_(broker_port),
        client_(persistent_config(proxy_.url(), "trial-" + std::to_string(number), protocol)) {
    proxy_.add(rule);
    subscription_ = *client_.subscribe(
        topic_, [this](const Message& message) { ledger_.arrived(message.text()); }, {.qos = qos},
        grants_.granted());
    client_.start();
  }

  std::string name() const {
    return std::string(to_string(*rule_.type)) + (rule_.direction == Direction::up ? " up" : " down") + ", " +
           (rule_.act == Rule::Act::cut_before   ? "before"
            : rule_.act == Rule::Act::cut_within ? "within"
                                                 : "after") +
           (rule_.ending == Ending::fin ? ", FIN" : ", RST");
  }

  void publish(std::size_t messages) {
    for (std::size_t i = 0; i < messages; ++i) publish_next(client_, ledger_, qos_, topic_);
  }
  // Messages of QoS 0 that were under way may be gone, so what shows that all is well again is one that comes later.
  void check() {
    SCOPED_TRACE(name());
    ASSERT_TRUE(eventually([&] { return proxy_.rules_left() == 0; })) << "it was never cut";
    if (qos_ == QoS::at_most_once) {
      ASSERT_TRUE(eventually([&] {
        const auto before = ledger_.arrived_count();
        publish(1);
        return eventually([&] { return ledger_.arrived_count() > before; }, 200ms);
      }));
      EXPECT_EQ(ledger_.balance().duplicates, 0u);
      EXPECT_EQ(ledger_.balance().overtaken, 0u);
      return;
    }
    ASSERT_TRUE(ledger_.wait_for_all(patience)) << ledger_.balance();
    ASSERT_TRUE(client_.flush(patience));
    auto balance = ledger_.balance();
    if (qos_ == QoS::at_least_once) balance.duplicates = 0;  // QoS 1 may come twice
    EXPECT_EQ(balance, all_well);
    EXPECT_GE(client_.metrics().connects, 1u);
  }

 private:
  const QoS qos_;
  const std::string topic_;
  const Rule rule_;
  Ledger ledger_;
  Inbox grants_;
  FaultProxy proxy_;
  Client client_;
  Subscription subscription_;
};

std::vector<Rule> cuts_of(QoS qos) {
  using enum PacketType;
  std::vector<Rule> cuts = {{.direction = Direction::up, .type = connect},
                            {.direction = Direction::down, .type = connack},
                            {.direction = Direction::up, .type = subscribe},
                            {.direction = Direction::down, .type = suback},
                            {.direction = Direction::up, .type = publish, .nth = 3},
                            {.direction = Direction::down, .type = publish, .nth = 3}};
  if (qos == QoS::at_least_once) {
    cuts.push_back({.direction = Direction::up, .type = puback, .nth = 3});
    cuts.push_back({.direction = Direction::down, .type = puback, .nth = 3});
  }
  if (qos == QoS::exactly_once) {
    for (const auto type : {pubrec, pubrel, pubcomp}) {
      cuts.push_back({.direction = Direction::up, .type = type, .nth = 3});
      cuts.push_back({.direction = Direction::down, .type = type, .nth = 3});
    }
  }
  return cuts;
}

using Cut = Exchanges;

TEST_P(Cut, N2_before_within_and_after_each_packet_loses_nothing) {
  const std::size_t descriptors = open_descriptors();
  {
    Broker broker;
    std::size_t number = 0;
    for (const auto act : {Rule::Act::cut_before, Rule::Act::cut_within, Rule::Act::cut_after}) {
      std::vector<std::unique_ptr<Trial>> trials;  // side by side: each waits for its back-off
      for (const auto ending : {Ending::fin, Ending::rst}) {
        for (auto rule : cuts_of(qos())) {
          rule.act = act;
          rule.ending = ending;
          trials.push_back(std::make_unique<Trial>(broker.port(), protocol(), qos(), rule, ++number));
        }
      }
      for (auto& trial : trials) trial->publish(20);
      for (auto& trial : trials) trial->check();
    }
  }
  EXPECT_TRUE(eventually([&] { return open_descriptors() <= descriptors; }, 5s))
      << open_descriptors() << " descriptors, " << descriptors << " before";
}

INSTANTIATE_TEST_SUITE_P(, Cut,
                         testing::Combine(testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                                          testing::Values(QoS::at_most_once, QoS::at_least_once,
                                                          QoS::exactly_once)),
                         exchange_name);

TEST(Faults, N2_a_cut_at_the_keep_alive_heals) {
  for (const auto direction : {Direction::up, Direction::down}) {
    for (const auto ending : {Ending::fin, Ending::rst}) {
      ScriptedBroker broker;
      FaultProxy proxy(broker.port());
      auto config = persistent_config(proxy.url(), "idle");
      config.keepalive = 1s;
      Client client(config);
      proxy.add({.direction = direction,
                 .type = direction == Direction::up ? PacketType::pingreq : PacketType::pingresp,
                 .ending = ending});
      ASSERT_TRUE(client.connect(patience));
      ASSERT_TRUE(eventually([&] { return client.metrics().connects == 2; })) << client.last_change().reason;
      publish_next(client, broker.ledger(), QoS::exactly_once);
      ASSERT_TRUE(broker.ledger().wait_for_all(patience));
    }
  }
}

TEST(Faults, N2_a_cut_at_the_goodbye_ends_the_shutdown_all_the_same) {
  for (const auto act : {Rule::Act::cut_before, Rule::Act::cut_within, Rule::Act::cut_after}) {
    for (const auto ending : {Ending::fin, Ending::rst}) {
      ScriptedBroker broker;
      FaultProxy proxy(broker.port());
      Client client(config_for(proxy.url(), "leaver"));
      ASSERT_TRUE(client.connect(patience));
      publish_next(client, broker.ledger(), QoS::at_least_once);
      proxy.add({.type = PacketType::disconnect, .act = act, .ending = ending});
      const auto begin = Clock::now();
      const auto report = client.shutdown(5s);
      EXPECT_LT(since(begin), 1s + slack);
      EXPECT_EQ(report.acknowledged, 1u);
      EXPECT_EQ(report.lost, 0u);
    }
  }
}

TEST(Faults, N2_a_cut_at_any_byte_loses_nothing) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  Client client(persistent_config(proxy.url(), "byte"));
  ASSERT_TRUE(client.connect(patience));
  std::mt19937 random(20'260'101);
  for (int round = 0; round < 8; ++round) {
    const auto direction = round % 2 ? Direction::up : Direction::down;
    const auto connects = client.metrics().connects;
    proxy.cut_at_byte(direction, 1 + random() % 300, round % 4 < 2 ? Ending::fin : Ending::rst);
    for (int i = 0; i < 100; ++i) {
      publish_next(client, broker.ledger(), i % 2 ? QoS::exactly_once : QoS::at_least_once);
    }
    ASSERT_TRUE(eventually([&] { return client.metrics().connects > connects; })) << "round " << round;
  }
  ASSERT_TRUE(client.flush(patience));
  auto balance = broker.ledger().balance();
  balance.duplicates = balance.overtaken = 0;  // QoS 1
  EXPECT_EQ(balance, all_well);
  EXPECT_EQ(broker.malformed(), 0u);
}

// --- N3, N4 ----------------------------------------------------------------------------------------------------------

TEST(Faults, N3_half_open_while_idle_is_noticed_within_1_5_keep_alives) {
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = config_for(proxy.url(), "idle");
  config.keepalive = 2s;
  Client client(config);
  const auto changes = watch_states(client);
  ASSERT_TRUE(client.connect(patience));
  proxy.half_open();
  const auto begin = Clock::now();
  ASSERT_TRUE(eventually([&] { return client.state() == ConnectionState::reconnecting; }));
  EXPECT_LE(since(begin), 3s + slack);
  EXPECT_GE(since(begin), 1s) << "not before a PINGREQ had its time";
  ASSERT_TRUE(changes.wait_for(3)) << "connecting, connected, reconnecting";
  const auto reason = changes.items()[2].change.reason;
  EXPECT_TRUE(reason.contains("keep-alive")) << reason;
  EXPECT_TRUE(client.wait_for(ConnectionState::connected, patience)) << "the next connection is a good one";
}

TEST(Faults, N3_the_servers_keep_alive_counts) {
  ScriptedBroker broker;
  broker.set_connack(Properties().add(mqtt::PropertyId::server_keep_alive, 1));
  FaultProxy proxy(broker.port());
  Client client(config_for(proxy.url(), "idle"));  // 60 s
  ASSERT_TRUE(client.connect(patience));
  proxy.half_open();
  const auto begin = Clock::now();
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, patience));
  EXPECT_LE(since(begin), 1'500ms + slack);
}

class HalfOpenPublishing : public testing::TestWithParam<bool> {};

TEST_P(HalfOpenPublishing, N4_the_caller_sees_the_depth_grow_and_never_waits) {
  const bool window_closes = GetParam();
  ScriptedBroker broker;
  FaultProxy proxy(broker.port());
  auto config = persistent_config(proxy.url(), "busy");
  config.keepalive = 1s;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  publish_next(client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client.flush(patience));
  if (window_closes) {
    proxy.half_open();
  } else {
    proxy.set_flow(Direction::up, FaultProxy::Flow::swallow);
  }
  constexpr std::size_t messages = sanitized ? 5'000 : 20'000;
  std::vector<Clock::duration> took;
  std::uint64_t depth = 0;
  for (std::size_t i = 0; i < messages; ++i) {
    const auto payload = broker.ledger().next();
    const auto begin = Clock::now();
    const auto accepted = client.publish("ledger", payload, {.qos = QoS::exactly_once});
    took.push_back(Clock::now() - begin);
    ASSERT_TRUE(accepted) << accepted.error().message;
    broker.ledger().accepted();
    if (i % 1'000 == 0) {
      const auto now = client.metrics().waiting;
      EXPECT_GE(now, depth);
      depth = now;
    }
  }
  EXPECT_EQ(client.metrics().waiting, messages);
  std::ranges::sort(took);
  EXPECT_LT(took[messages * 99 / 100], sanitized ? 5ms : 100us);
  ASSERT_TRUE(client.wait_for(ConnectionState::reconnecting, 1'500ms + slack));
  proxy.set_flow(Direction::up, FaultProxy::Flow::pass);
  ASSERT_TRUE(broker.ledger().wait_for_all(patience)) << broker.ledger().balance();
  EXPECT_EQ(broker.ledger().balance(), all_well);
}

INSTANTIATE_TEST_SUITE_P(, HalfOpenPublishing, testing::Bool(),
                         [](const auto& test) { return test.param ? "window_closes" : "bytes_vanish"; });

}  // namespace
}  // namespace fulmar::test
