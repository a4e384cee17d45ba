// Fault N1 with a broker that keeps its state: mosquitto is restarted at random moments in mid publish, and a subscriber
// with a session and a connection of its own says what arrived.
//
// FULMAR_RESTARTS says how often (1,000 by hand), FULMAR_SEED when.
//
// Mosquitto 2.0 forgets over a restart that it has sent PUBREL, and publishes the message again, which it must not
// [MQTT-4.3.3-6]. To a subscriber that has had the PUBREL this is a new message. So what is judged stands on the wire: a
// message may arrive once more for each time that the broker began its exchange anew, and the publisher never begins one
// anew.
#include <gtest/gtest.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "tests/faults/fault_proxy.hpp"
#include "tests/faults/fixture.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;

// Follows the QoS 2 exchanges of one sender, whose packets it sees on their way: PUBLISH with the number of the message,
// then PUBREL [MQTT5 4.3.3].
class Exchanges {
 public:
  Exchanges(FaultProxy& proxy, Direction direction, ProtocolVersion version) {
    proxy.observe([this, direction, version](Direction of, const mqtt::Frame& packet) {
      if (of == direction)
        see(packet, direction == Direction::up ? mqtt::Sender::client : mqtt::Sender::server, version);
    });
  }
  // How often the message was published again after its PUBREL, or under another identifier.
  std::size_t begun_anew(std::size_t number) const {
    const std::lock_guard lock(mutex_);
    const auto found = messages_.find(number);
    return found == messages_.end() ? 0 : found->second.begun_anew;
  }
  std::size_t begun_anew() const {
    const std::lock_guard lock(mutex_);
    std::size_t all = 0;
    for (const auto& [number, message] : messages_) all += message.begun_anew;
    return all;
  }

 private:
  struct Message {
    std::uint16_t id = 0;
    bool released = false;
    std::size_t begun_anew = 0;
  };

  void see(const mqtt::Frame& packet, mqtt::Sender sender, ProtocolVersion version) {
    if (packet.type != PacketType::publish && packet.type != PacketType::pubrel) return;
    mqtt::PacketView view;
    ASSERT_EQ(mqtt::decode(packet, version, sender, view), mqtt::DecodeError::none);
    const std::lock_guard lock(mutex_);
    if (const auto* release = std::get_if<mqtt::AckView>(&view)) {
      const auto number = by_id_.find(release->packet_id);
      if (number != by_id_.end()) messages_[number->second].released = true;
      return;
    }
    const auto& publish = std::get<mqtt::PublishView>(view);
    if (publish.qos != QoS::exactly_once) return;
    std::size_t number = 0;
    const auto text = as_text(publish.payload);
    std::from_chars(text.data(), text.data() + text.size(), number);
    auto& message = messages_[number];
    message.begun_anew += message.released || (message.id != 0 && message.id != publish.packet_id);
    message.id = publish.packet_id;
    message.released = false;
    by_id_[publish.packet_id] = number;
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, Message> messages_;
  std::map<std::uint16_t, std::size_t> by_id_;
};

class Restarts : public testing::TestWithParam<std::tuple<ProtocolVersion, Durability>> {};

TEST_P(Restarts, N1_lose_nothing_and_double_only_what_the_standard_allows) {
  const std::size_t restarts = times("FULMAR_RESTARTS", 10);
  constexpr std::uint16_t in_flight = 50;
  std::mt19937 random(static_cast<unsigned>(times("FULMAR_SEED", 1)));
  const auto [protocol, durability] = GetParam();
  const TempDir state;
  const TempDir spool;
  // The log is for the start only: it would be long.
  Broker broker({.config = {"log_type none", "log_type information", "persistence true",
                            "persistence_location " + state.path().string() + "/", "autosave_interval 0",
                            "max_inflight_messages 1000"}});
  FaultProxy to_subscriber(broker.port()), to_publisher(broker.port());
  const Exchanges brokers(to_subscriber, Direction::down, protocol);
  const Exchanges publishers(to_publisher, Direction::up, protocol);

  Ledger once, exactly;
  std::atomic<std::size_t> resumed{0}, anew{0};
  const auto count_sessions = [&](Client& client) {
    client.on_state_change([&](const StateChange& change) {
      if (change.state == ConnectionState::connected) ++(change.reason.contains("resumed") ? resumed : anew);
    });
  };
  Client subscriber(persistent_config(to_subscriber.url(), "subscriber", protocol));
  count_sessions(subscriber);
  Inbox grants;
  const auto at_least_once = *subscriber.subscribe(
      "once", [&](const Message& message) { once.arrived(message.text()); }, {.qos = QoS::at_least_once},
      grants.granted());
  const auto exactly_once = *subscriber.subscribe(
      "exactly", [&](const Message& message) { exactly.arrived(message.text()); }, {.qos = QoS::exactly_once},
      grants.granted());
  ASSERT_TRUE(subscriber.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(2));

  auto config = persistent_config(to_publisher.url(), "publisher", protocol);
  config.max_inflight = in_flight;
  config.durability = durability;
  if (durability == Durability::write_ahead) config.spool_dir = (spool / "spool").string();
  Client publisher(config);
  count_sessions(publisher);
  ASSERT_TRUE(publisher.connect(patience));
  std::atomic<bool> done{false};
  std::thread publishing([&] {
    while (!done) {
      if (publisher.metrics().waiting < 200) {
        publish_next(publisher, once, QoS::at_least_once, "once");
        publish_next(publisher, exactly, QoS::exactly_once, "exactly");
      }
      std::this_thread::sleep_for(100us);
    }
  });

  const auto begin = Clock::now();
  for (std::size_t i = 1; i <= restarts; ++i) {
    // Often before everybody is back, sometimes long after.
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % (i % 8 ? 120 : 400)));
    broker.stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
    broker.start();
  }
  const auto took = since(begin);
  done = true;
  publishing.join();
  ASSERT_TRUE(publisher.flush(patience)) << publisher.last_change().reason;
  EXPECT_TRUE(once.wait_for_all(patience));
  EXPECT_TRUE(exactly.wait_for_all(patience));

  auto once_balance = once.balance(), exactly_balance = exactly.balance();
  std::printf("%zu restarts in %.1f s; sessions: %zu resumed, %zu new\n", restarts,
              static_cast<double>(took.count()) / 1'000, resumed.load(), anew.load());
  std::printf("%zu messages of QoS 1: %zu lost, %zu doubled; sent again by the client: %zu, of both QoS\n",
              once.accepted_count(), once_balance.lost, once_balance.duplicates,
              static_cast<std::size_t>(publisher.metrics().resent));
  std::printf(
      "%zu messages of QoS 2: %zu lost, %zu doubled; published anew: %zu by the broker, %zu by the client\n",
      exactly.accepted_count(), exactly_balance.lost, exactly_balance.duplicates, brokers.begun_anew(),
      publishers.begun_anew());
  // Each connection, one that came to nothing included, sends again what was in flight: no more than that.
  EXPECT_LE(publisher.metrics().resent, publisher.metrics().connects * in_flight);
  EXPECT_EQ(publishers.begun_anew(), 0u);
  for (std::size_t number = 0; number < exactly.accepted_count(); ++number) {
    ASSERT_LE(exactly.arrivals_of(number), 1 + brokers.begun_anew(number)) << "message " << number;
  }
  once_balance.duplicates = once_balance.overtaken = 0;
  exactly_balance.duplicates = exactly_balance.overtaken = 0;  // just looked at
  EXPECT_EQ(once_balance, all_well);
  EXPECT_EQ(exactly_balance, all_well);
  EXPECT_EQ(anew, 2u) << "the first of each; the broker kept the others";
}

INSTANTIATE_TEST_SUITE_P(, Restarts,
                         testing::Combine(testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                                          testing::Values(Durability::memory, Durability::write_ahead)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param) == ProtocolVersion::v5 ? "v5"
                                                                                             : "v3_1_1") +
                                  (std::get<1>(test.param) == Durability::write_ahead ? "_write_ahead"
                                                                                      : "_memory");
                         });

}  // namespace
}  // namespace fulmar::test
