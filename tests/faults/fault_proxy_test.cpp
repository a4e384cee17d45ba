// The tools of the fault tests: that they fail as they were told, and notice what they are there for.
#include "tests/faults/fault_proxy.hpp"

#include <gtest/gtest.h>

#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;

TEST(Ledger, counts_what_is_lost_doubled_strange_and_overtaken) {
  Ledger ledger;
  for (int i = 0; i < 5; ++i) ledger.accepted();
  for (const auto* payload : {"0", "2", "1", "2", "9", "x"}) ledger.arrived(payload);
  const auto balance = ledger.balance();
  EXPECT_EQ(balance.lost, 2u);
  EXPECT_EQ(balance.first_lost, "3");
  EXPECT_EQ(balance.duplicates, 1u);
  EXPECT_EQ(balance.strangers, 2u);
  EXPECT_EQ(balance.overtaken, 1u);
  EXPECT_FALSE(ledger.wait_for_all(1ms));
  EXPECT_NE(balance, all_well);
}

class Tools : public testing::Test {
 protected:
  ScriptedBroker broker_;
  FaultProxy proxy_{broker_.port()};
  Client client_{persistent_config(proxy_.url(), "tool")};
};

TEST_F(Tools, a_dropped_packet_is_missed) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.add({.type = PacketType::publish, .act = Rule::Act::drop, .nth = 2});
  for (int i = 0; i < 3; ++i) publish_next(client_, broker_.ledger(), QoS::at_most_once);
  ASSERT_TRUE(eventually([&] { return broker_.ledger().arrived_count() == 2; }));
  EXPECT_EQ(broker_.ledger().balance().first_lost, "1");
  EXPECT_EQ(proxy_.packets(Direction::up, PacketType::publish), 3u);
}

TEST_F(Tools, a_doubled_packet_is_seen_twice) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.add({.type = PacketType::publish, .act = Rule::Act::duplicate});
  publish_next(client_, broker_.ledger(), QoS::at_most_once);
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::publish) == 2; }));
  EXPECT_EQ(broker_.ledger().balance().duplicates, 1u);
}

TEST_F(Tools, a_doubled_qos_2_message_is_delivered_once_by_the_server) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.add({.type = PacketType::publish, .act = Rule::Act::duplicate});
  publish_next(client_, broker_.ledger(), QoS::exactly_once);
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::publish) == 2; }));
  ASSERT_TRUE(client_.flush(patience));
  EXPECT_EQ(broker_.ledger().balance(), all_well);
}

TEST_F(Tools, a_delayed_packet_holds_up_those_behind_it) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.add({.type = PacketType::publish, .act = Rule::Act::delay, .delay = 200ms});
  const auto begin = Clock::now();
  for (int i = 0; i < 2; ++i) publish_next(client_, broker_.ledger(), QoS::at_most_once);
  ASSERT_TRUE(broker_.ledger().wait_for_all(patience));
  EXPECT_GE(since(begin), 200ms);
  EXPECT_EQ(broker_.ledger().balance(), all_well);
}

TEST_F(Tools, a_throttle_holds_its_rate) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.set_shape(Direction::up, {.bytes_per_s = 20'000});
  const auto begin = Clock::now();
  ASSERT_TRUE(client_.publish("t", as_bytes(std::string(10'000, 'x')), {.qos = QoS::at_least_once}));
  ASSERT_TRUE(client_.flush(patience));
  EXPECT_GE(since(begin), 400ms);
  EXPECT_LE(since(begin), 600ms + slack);
}

TEST_F(Tools, a_cut_ends_both_sides_and_the_door_decides_about_the_next) {
  ASSERT_TRUE(client_.connect(patience));
  proxy_.set_door(FaultProxy::Door::refused);
  proxy_.cut(Ending::rst);
  ASSERT_TRUE(eventually([&] { return broker_.open_connections() == 0 && proxy_.connections() == 0; }));
  EXPECT_TRUE(client_.wait_for(ConnectionState::reconnecting, patience));
  const auto accepted = proxy_.accepted();
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(proxy_.accepted(), accepted);
  proxy_.set_door(FaultProxy::Door::open);
  EXPECT_TRUE(client_.wait_for(ConnectionState::connected, patience));
}

TEST_F(Tools, an_endless_packet_is_not_waited_for_by_bytes_that_are_not_mqtt) {
  auto socket = connect_to_loopback(proxy_.port());
  // Reserved type 0: passed on as it is, so that the server can judge it.
  ASSERT_TRUE(send_text(socket, std::string(2, '\0')));
  EXPECT_TRUE(eventually([&] { return broker_.malformed() == 1; }));
}

TEST(DeafPort, answers_no_syn) {
  const DeafPort deaf;
  const auto socket = connect_to_loopback(deaf.port());
  std::this_thread::sleep_for(200ms);
  EXPECT_FALSE(send_text(socket, "x")) << "not connected";
}

}  // namespace
}  // namespace fulmar::test
