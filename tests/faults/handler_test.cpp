// Faults P12 and P13: handlers that take their time, never return, throw, or do things to their own client.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>

#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;
using Link = ScriptedBroker::Link;

// Handlers wait in it until it is opened. Copies share it.
class Gate {
 public:
  void wait() const { opened_.wait(); }
  void open() const { promise_->set_value(); }

 private:
  std::shared_ptr<std::promise<void>> promise_ = std::make_shared<std::promise<void>>();
  std::shared_future<void> opened_ = promise_->get_future().share();
};

// --- P12 -------------------------------------------------------------------------------------------------------------

class BlockedHandler : public testing::Test {
 protected:
  BlockedHandler() {
    config_ = persistent_config(broker_.url(), "blocked");
    config_.keepalive = 1s;
    config_.inbound_bytes = 256 << 10;
  }

  ScriptedBroker broker_;
  ClientConfig config_;
  Gate gate_;
};

TEST_F(BlockedHandler, P12_does_not_hold_up_keep_alive_and_publishing_and_bounds_what_comes_in) {
  std::atomic<std::size_t> handled{0};
  Client client(config_);
  const auto subscription = client.subscribe("flood",
                                             [&, gate = gate_](const Message&) {
                                               gate.wait();
                                               ++handled;
                                             },
                                             {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::subscribe) == 1; }));

  // Ten times the bound, as much as the server may send without an acknowledgement.
  constexpr std::size_t messages = 2'600;
  const std::size_t memory_before = resident_bytes();
  const std::string payload(1'000, 'x');
  broker_.with_link([&](Link& link) {
    for (std::size_t id = 1; id <= messages; ++id) {
      link.publish("flood", payload, QoS::at_least_once, static_cast<std::uint16_t>(id));
    }
  });
  const auto begin = Clock::now();
  while (since(begin) < 2'500ms) {
    publish_next(client, broker_.ledger(), QoS::exactly_once);
    std::this_thread::sleep_for(50ms);
  }
  EXPECT_TRUE(client.connected());
  EXPECT_EQ(client.metrics().disconnects, 0u) << client.last_change().reason;
  EXPECT_EQ(handled, 0u);
  // The bound, and one buffer of what was read and not yet taken apart.
  const std::size_t packet = payload.size() + 11;
  EXPECT_LE(client.metrics().received * packet, config_.inbound_bytes + (192u << 10));
  if (!sanitized) {
    EXPECT_LE(resident_bytes() - std::min(memory_before, resident_bytes()), std::size_t{8} << 20)
        << "broker's included";
  }
  EXPECT_EQ(broker_.packets(PacketType::puback), 0u) << "what was not handled is not acknowledged";

  gate_.open();
  ASSERT_TRUE(eventually([&] { return handled == messages; })) << handled;
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::puback) == messages; }));
  ASSERT_TRUE(broker_.ledger().wait_for_all(patience));
  EXPECT_EQ(broker_.ledger().balance(), all_well);
}

TEST_F(BlockedHandler, P12_pings_go_on_while_it_sleeps) {
  Client client(config_);
  const auto subscription = client.subscribe("slow", [](const Message&) { std::this_thread::sleep_for(3s); });
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::subscribe) == 1; }));
  broker_.with_link([](Link& link) { link.publish("slow", "x"); });
  std::this_thread::sleep_for(3s);
  EXPECT_TRUE(client.connected());
  EXPECT_GE(broker_.packets(PacketType::pingreq), 2u);
  EXPECT_EQ(broker_.connections(), 1u);
}

TEST_F(BlockedHandler, P12_that_never_returns_does_not_hold_up_the_shutdown) {
  for (const bool destroyed : {false, true}) {
    std::atomic<bool> entered{false};
    auto client = std::make_unique<Client>(config_);
    auto subscription = client->subscribe("stuck",
                                          [&, gate = gate_](const Message&) {
                                            entered = true;
                                            gate.wait();
                                          },
                                          {.qos = QoS::at_least_once});
    ASSERT_TRUE(client->connect(patience));
    ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::subscribe) == 1u + destroyed; }));
    broker_.when_connected([](Link& link) { link.publish("stuck", "x", QoS::at_least_once, 1); });
    ASSERT_TRUE(eventually([&] { return entered.load(); }));
    publish_next(*client, broker_.ledger(), QoS::exactly_once);
    const auto begin = Clock::now();
    if (!destroyed) {
      const auto report = client->shutdown(500ms);
      EXPECT_EQ(report.lost, 0u);
      EXPECT_LE(since(begin), 500ms + slack);
    } else {
      client.reset();
      EXPECT_LE(since(begin), 1s + slack);
    }
    EXPECT_EQ(broker_.packets(PacketType::puback), 0u) << "it stays unacknowledged";
  }
  EXPECT_EQ(broker_.ledger().balance(), all_well);
  gate_.open();
}

// --- P13 -------------------------------------------------------------------------------------------------------------

enum class Where : std::uint8_t { message, delivery, granted, state };
enum class What : std::uint8_t {
  throws_exception,
  throws_number,
  publishes,
  subscribes,
  unsubscribes,
  stops,
  destroys
};

using Deed = std::tuple<Where, What>;

std::string deed_name(const testing::TestParamInfo<Deed>& test) {
  constexpr std::array<const char*, 4> where = {"message", "delivery", "granted", "state"};
  constexpr std::array<const char*, 7> what = {"throws_exception", "throws_number", "publishes", "subscribes",
                                               "unsubscribes",     "stops",         "destroys"};
  return std::string(where[static_cast<std::size_t>(std::get<0>(test.param))]) + "_handler_" +
         what[static_cast<std::size_t>(std::get<1>(test.param))];
}

class Misbehaviour : public testing::TestWithParam<Deed> {
 protected:
  static Where where() { return std::get<0>(GetParam()); }
  static What what() { return std::get<1>(GetParam()); }

  // In the handler, once.
  void act() {
    if (acted_.exchange(true)) return;
    switch (what()) {
      case What::throws_exception: done_ = true; throw std::runtime_error("from a handler");
      case What::throws_number: done_ = true; throw 42;
      case What::publishes: publish_next(*client_, broker_.ledger(), QoS::exactly_once); break;
      case What::subscribes: made_ = *client_->subscribe("made/within", [](const Message&) {}); break;
      case What::unsubscribes: subscription_.unsubscribe(); break;
      case What::stops: client_->shutdown(1s); break;
      case What::destroys: client_.reset(); break;
    }
    done_ = true;
  }

  ScriptedBroker broker_;
  Subscription subscription_, made_;
  std::unique_ptr<Client> client_;
  std::atomic<bool> acted_{false}, done_{false};
};

TEST_P(Misbehaviour, P13_neither_terminates_nor_locks_up) {
  broker_.on(PacketType::subscribe, [&](Link& link, const mqtt::PacketView& packet) {
    broker_.answer(link, packet);
    link.publish("news", "x", QoS::at_least_once, 1);
    return true;
  });
  const auto running = threads();
  client_ = std::make_unique<Client>(persistent_config(broker_.url(), "acrobat"));
  auto& client = *client_;
  if (where() == Where::state) {
    client.on_state_change([this](const StateChange& change) {
      if (change.state == ConnectionState::connected) act();
    });
  }
  subscription_ = *client.subscribe(
      "news",
      [this](const Message&) {
        if (where() == Where::message) act();
      },
      {.qos = QoS::at_least_once},
      [this](std::uint8_t) {
        if (where() == Where::granted) act();
      });
  ASSERT_TRUE(client.publish("ledger", as_bytes(broker_.ledger().next()), {.qos = QoS::at_least_once},
                             [this](const Delivery&) {
                               if (where() == Where::delivery) act();
                             }));
  broker_.ledger().accepted();
  client.start();
  ASSERT_TRUE(eventually([&] { return done_.load(); })) << "locked up";
  ASSERT_TRUE(broker_.ledger().wait_for_all(patience)) << broker_.ledger().balance();
  if (what() == What::stops || what() == What::destroys) {
    EXPECT_TRUE(eventually([&] { return broker_.open_connections() == 0; }));
    if (what() == What::stops) {
      EXPECT_TRUE(client_->wait_for(ConnectionState::disconnected, patience));
    }
    client_.reset();
    // The thread that the handler ran on could not be waited for from within it.
    EXPECT_TRUE(eventually([&] { return threads() <= running; }));
    return;
  }
  // Everything goes on.
  publish_next(*client_, broker_.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client_->flush(patience));
  EXPECT_EQ(broker_.ledger().balance(), all_well);
  const bool threw = what() == What::throws_exception || what() == What::throws_number;
  EXPECT_EQ(client_->metrics().handler_errors, threw ? 1u : 0u);
  if (what() != What::unsubscribes) {  // else the message may wait for a handler of this persistent session
    EXPECT_TRUE(eventually([&] { return broker_.packets(PacketType::puback) >= 1; }))
        << "an error is no refusal";
  }
  if (what() == What::subscribes) {
    EXPECT_TRUE(eventually([&] { return broker_.packets(PacketType::subscribe) == 2; }));
  }
  if (what() == What::unsubscribes) {
    EXPECT_TRUE(eventually([&] { return broker_.packets(PacketType::unsubscribe) == 1; }));
  }
  client_.reset();
}

INSTANTIATE_TEST_SUITE_P(
    , Misbehaviour,
    testing::Combine(testing::Values(Where::message, Where::delivery, Where::granted, Where::state),
                     testing::Values(What::throws_exception, What::throws_number, What::publishes,
                                     What::subscribes, What::unsubscribes, What::stops, What::destroys)),
    deed_name);

}  // namespace
}  // namespace fulmar::test
