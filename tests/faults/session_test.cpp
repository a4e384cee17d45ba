// Faults N13 to N20: what the server remembers, allows and acknowledges.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <random>

#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;
using mqtt::PropertyId;
using mqtt::ReasonCode;
using Link = ScriptedBroker::Link;

// --- N13, N14 --------------------------------------------------------------------------------------------------------

class LostSession : public testing::TestWithParam<ProtocolVersion> {};

TEST_P(LostSession, N13_is_made_again_and_what_was_in_flight_is_sent_as_new) {
  ScriptedBroker broker;
  std::atomic<bool> mute{true};
  std::atomic<std::size_t> dups{0}, firsts{0};
  broker.on(PacketType::publish, [&](Link& link, const mqtt::PacketView& packet) {
    dups += std::get<mqtt::PublishView>(packet).dup;
    firsts += link.number == 1;
    return mute.load();  // unanswered, and not delivered
  });
  Client client(persistent_config(broker.url(), "forgotten", GetParam()));
  std::vector<Subscription> subscriptions;
  for (int i = 0; i < 50; ++i) {
    subscriptions.push_back(
        *client.subscribe("filter/" + std::to_string(i), [](const Message&) {}, {.qos = QoS::exactly_once}));
  }
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 20; ++i) {
    publish_next(client, broker.ledger(), i % 2 ? QoS::at_least_once : QoS::exactly_once);
  }
  ASSERT_TRUE(eventually([&] { return firsts == 20; }));
  mute = false;
  broker.forget_sessions();
  ASSERT_TRUE(broker.with_link([&](Link& link) {
    broker.keep_sessions(false);
    link.end(Ending::rst);
  }));
  ASSERT_TRUE(broker.ledger().wait_for_all(patience)) << broker.ledger().balance();
  ASSERT_TRUE(client.flush(patience)) << "no livelock";
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(dups, 0u) << "to this server they are new [MQTT-3.3.1-2]";
  EXPECT_EQ(broker.connections(), 2u);
  ASSERT_TRUE(broker.with_link([&](Link& link) {
    EXPECT_FALSE(link.session_present);
    EXPECT_EQ(link.session->filters.size(), 50u);
    EXPECT_EQ(link.session->subscribes, 1u) << "in one packet";
  }));
}

TEST_P(LostSession, N13_a_kept_session_is_resumed_instead) {
  ScriptedBroker broker;
  std::atomic<std::size_t> dups{0}, came{0};
  broker.on(PacketType::publish, [&](Link& link, const mqtt::PacketView& packet) {
    dups += std::get<mqtt::PublishView>(packet).dup;
    ++came;
    return link.number == 1;
  });
  Client client(persistent_config(broker.url(), "remembered", GetParam()));
  const auto subscription = client.subscribe("filter", [](const Message&) {});
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 20; ++i) publish_next(client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(eventually([&] { return came == 20; }));
  broker.with_link([](Link& link) { link.end(Ending::rst); });
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(dups, 20u) << "[MQTT-3.3.1-1]";
  EXPECT_EQ(broker.packets(PacketType::subscribe), 1u);
}

TEST_P(LostSession, N14_a_session_that_we_did_not_ask_for_is_refused_and_a_clean_one_asked_for) {
  ScriptedBroker broker;
  std::atomic<int> clean_starts{0};
  broker.on(PacketType::connect, [&](Link& link, const mqtt::PacketView& packet) {
    clean_starts += std::get<mqtt::ConnectView>(packet).clean_start;
    if (link.number > 1) return false;
    link.client_id = "stranger";
    link.send(mqtt::ConnackView{true, 0, {}});
    return true;
  });
  Client client(config_for(broker.url(), "stranger", GetParam()));  // clean_start
  ASSERT_TRUE(client.connect(patience));
  EXPECT_EQ(broker.connections(), 2u);
  EXPECT_EQ(clean_starts, 2);
  publish_next(client, broker.ledger(), QoS::exactly_once);
  EXPECT_TRUE(broker.ledger().wait_for_all(patience));
  EXPECT_EQ(client.metrics().connects, 1u) << "the first was none";
}

// A process that takes up its predecessor's session has no state of its own, and that is what it asked for.
TEST_P(LostSession, N14_a_predecessors_session_is_taken_over) {
  ScriptedBroker broker;
  {
    Client predecessor(persistent_config(broker.url(), "heir", GetParam()));
    ASSERT_TRUE(predecessor.connect(patience));
  }
  broker.on(PacketType::connect, [&](Link& link, const mqtt::PacketView& packet) {
    broker.answer(link, packet);
    // What the predecessor had received and not released.
    link.session->received = {1, 2, 3};
    link.publish("filter", "for the heir", QoS::exactly_once, 7, true);
    link.acknowledge(PacketType::pubrel, 8);
    return true;
  });
  Inbox inbox;
  Client client(persistent_config(broker.url(), "heir", GetParam()));
  const auto subscription = client.subscribe("filter", inbox.handler(), {.qos = QoS::exactly_once});
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(inbox.wait_for(1));
  EXPECT_TRUE(eventually([&] { return broker.packets(PacketType::pubcomp) == 2; }));
  EXPECT_EQ(broker.connections(), 2u);
}

INSTANTIATE_TEST_SUITE_P(, LostSession, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) {
                           return test.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

// --- N15 -------------------------------------------------------------------------------------------------------------

// Acknowledges QoS 1 messages only when as many are unacknowledged as it allows, one at a time.
class Window {
 public:
  // Lives as long as the broker.
  Window(ScriptedBroker& broker, std::size_t allowed) : broker_(broker), allowed_(allowed) {
    broker.on(PacketType::publish, [this](Link& link, const mqtt::PacketView& packet) {
      if (link.number != link_) pending_.clear();
      link_ = link.number;
      const auto& publish = std::get<mqtt::PublishView>(packet);
      broker_.ledger().arrived(as_text(publish.payload));
      pending_.push_back(publish.packet_id);
      most_ = std::max(most_, pending_.size());
      if (pending_.size() >= allowed_) acknowledge_one(link);
      return true;
    });
  }
  void acknowledge_all() {
    ASSERT_TRUE(broker_.when_connected([this](Link& link) {
      while (!pending_.empty()) acknowledge_one(link);
      allowed_ = 1;
    }));
  }
  // The connection ends, and the next one has another window.
  void shrink(std::size_t allowed) {
    ASSERT_TRUE(broker_.with_link([&](Link& link) {
      broker_.set_connack(Properties().add(PropertyId::receive_maximum, static_cast<std::uint32_t>(allowed)));
      link.end(Ending::rst);
      allowed_ = allowed;
      pending_.clear();
      most_ = 0;
    }));
  }
  std::size_t most() {
    std::size_t most = 0;
    broker_.with_link([&](Link&) { most = most_; });
    return most;
  }
  std::size_t pending() {
    std::size_t pending = 0;
    broker_.with_link([&](Link&) { pending = pending_.size(); });
    return pending;
  }

 private:
  void acknowledge_one(Link& link) {
    link.acknowledge(PacketType::puback, pending_.front());
    pending_.pop_front();
  }

  ScriptedBroker& broker_;  // the rest lives on its thread
  std::size_t allowed_;
  std::deque<std::uint16_t> pending_;
  std::size_t most_ = 0;
  std::size_t link_ = 0;
};

class ReceiveMaximum : public testing::TestWithParam<std::uint16_t> {};

TEST_P(ReceiveMaximum, N15_is_used_up_and_never_exceeded) {
  const std::size_t maximum = GetParam();
  ScriptedBroker broker;
  broker.set_connack(Properties().add(PropertyId::receive_maximum, GetParam()));
  Window window(broker, maximum);
  auto config = persistent_config(broker.url(), "window");
  config.max_inflight = 65'535;
  config.outbox_bytes = std::size_t{64} << 20;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  const std::size_t messages = maximum + 200;
  for (std::size_t i = 0; i < messages; ++i) publish_next(client, broker.ledger(), QoS::at_least_once);
  ASSERT_TRUE(broker.ledger().wait_for_all(patience)) << broker.ledger().balance();
  EXPECT_EQ(window.most(), maximum);
  window.acknowledge_all();
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(broker.connections(), 1u);
}

INSTANTIATE_TEST_SUITE_P(, ReceiveMaximum, testing::Values(1, 2, 20, 65'535),
                         testing::PrintToStringParamName());

TEST(Faults, N15_a_receive_maximum_that_shrinks_over_a_reconnect_holds_for_what_is_sent_again) {
  ScriptedBroker broker;
  broker.set_connack(Properties().add(PropertyId::receive_maximum, 100));
  Window window(broker, 101);  // never answers
  Client client(persistent_config(broker.url(), "shrink"));
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 300; ++i) publish_next(client, broker.ledger(), QoS::at_least_once);
  ASSERT_TRUE(eventually([&] { return window.pending() == 100; }));
  window.shrink(10);
  ASSERT_TRUE(broker.ledger().wait_for_all(patience)) << broker.ledger().balance();
  EXPECT_EQ(window.most(), 10u);
  window.acknowledge_all();
  ASSERT_TRUE(client.flush(patience));
  auto balance = broker.ledger().balance();
  EXPECT_EQ(balance.duplicates, 100u) << "sent again, as they were never acknowledged";
  balance.duplicates = 0;
  EXPECT_EQ(balance, all_well);
}

// --- N16, N17 --------------------------------------------------------------------------------------------------------

TEST(Faults, N16_messages_over_the_servers_packet_maximum_are_refused_and_the_rest_goes_on_in_order) {
  ScriptedBroker broker;
  broker.set_connack(Properties().add(PropertyId::maximum_packet_size, 500));
  Client client(persistent_config(broker.url(), "mixed"));
  Outcomes small, large;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client.publish("ledger", as_bytes(broker.ledger().next()), {.qos = QoS::exactly_once},
                               small.handler()));
    broker.ledger().accepted();
    if (i % 10 == 0) {
      ASSERT_TRUE(client.publish("ledger", as_bytes(std::string(600, 'L')),
                                 {.qos = static_cast<QoS>(i / 10 % 3)}, large.handler()));
    }
  }
  client.start();
  ASSERT_TRUE(small.wait_for(100));
  ASSERT_TRUE(large.wait_for(10));
  EXPECT_EQ(large.count(Delivery::Outcome::refused), 10u);
  EXPECT_EQ(static_cast<ReasonCode>(large.items()[0].reason_code), ReasonCode::packet_too_large);
  EXPECT_EQ(small.count(Delivery::Outcome::acknowledged), 100u);
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(broker.connections(), 1u);
  const auto at_once = client.publish("ledger", as_bytes(std::string(600, 'L')));
  ASSERT_FALSE(at_once);
  EXPECT_EQ(at_once.error().code, Errc::payload_too_large);
}

TEST(Faults, N16_a_maximum_that_shrinks_over_a_reconnect_refuses_what_is_in_flight) {
  ScriptedBroker broker;
  broker.on(PacketType::publish, [](Link& link, const mqtt::PacketView&) { return link.number == 1; });
  Client client(persistent_config(broker.url(), "shrink"));
  ASSERT_TRUE(client.connect(patience));
  Outcomes large;
  ASSERT_TRUE(
      client.publish("ledger", as_bytes(std::string(600, 'L')), {.qos = QoS::exactly_once}, large.handler()));
  publish_next(client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(eventually([&] { return broker.packets(PacketType::publish) == 2; }));
  broker.set_connack(Properties().add(PropertyId::maximum_packet_size, 500));
  broker.with_link([](Link& link) { link.end(Ending::rst); });
  ASSERT_TRUE(large.wait_for(1));
  EXPECT_EQ(large.items()[0].outcome, Delivery::Outcome::refused);
  ASSERT_TRUE(broker.ledger().wait_for_all(patience));
  EXPECT_EQ(broker.connections(), 2u);
}

// Fails on an alias that it did not allow or was not told on this connection, and counts those in use.
class AliasTable {
 public:
  AliasTable(ScriptedBroker& broker, std::uint32_t maximum) : broker_(broker), maximum_(maximum) {
    if (maximum > 0) broker.set_connack(Properties().add(PropertyId::topic_alias_maximum, maximum));
    broker.on(PacketType::publish, [this](Link& link, const mqtt::PacketView& packet) {
      if (link.number != link_) topics_.clear();
      link_ = link.number;
      const auto& publish = std::get<mqtt::PublishView>(packet);
      const auto alias = publish.properties.number(PropertyId::topic_alias, 0);
      EXPECT_LE(alias, maximum_);
      auto topic = std::string(publish.topic);
      if (topic.empty()) {
        EXPECT_TRUE(topics_.contains(alias)) << "alias " << alias << " was never mapped on this connection";
        topic = topics_[alias];
        ++used_;
      } else if (alias) {
        topics_[alias] = topic;
      }
      const auto number = std::stoul(std::string(as_text(publish.payload)));
      EXPECT_EQ(topic, topic_of(number)) << "message " << number;
      return false;
    });
  }
  static std::string topic_of(std::size_t number) {
    return "a/rather/long/topic/" + std::to_string(number % 3);
  }
  void lower(std::uint32_t maximum) {
    ASSERT_TRUE(broker_.with_link([&](Link& link) {
      maximum_ = maximum;
      broker_.set_connack(maximum ? Properties().add(PropertyId::topic_alias_maximum, maximum)
                                  : Properties());
      link.end(Ending::rst);
    }));
  }
  std::size_t used() {
    std::size_t used = 0;
    broker_.with_link([&](Link&) { used = used_; });
    return used;
  }

 private:
  ScriptedBroker& broker_;  // the rest lives on its thread
  std::uint32_t maximum_;
  std::map<std::uint32_t, std::string> topics_;
  std::size_t link_ = 0;
  std::size_t used_ = 0;
};

TEST(Faults, N17_topic_aliases_stay_below_the_maximum_and_within_a_connection) {
  for (const auto maximum : {0u, 1u, 2u, 10u}) {
    SCOPED_TRACE(maximum);
    ScriptedBroker broker;
    AliasTable aliases(broker, maximum);
    Client client(persistent_config(broker.url(), "alias"));
    ASSERT_TRUE(client.connect(patience));
    const auto publish = [&](std::size_t messages) {
      for (std::size_t i = 0; i < messages; ++i) {
        const auto number = broker.ledger().accepted_count();
        publish_next(client, broker.ledger(), static_cast<QoS>(1 + i % 2), AliasTable::topic_of(number));
      }
      ASSERT_TRUE(client.flush(patience));
    };
    publish(100);
    if (maximum == 0) {
      EXPECT_EQ(aliases.used(), 0u);
    }
    aliases.lower(maximum / 2);
    publish(100);
    auto balance = broker.ledger().balance();
    balance.duplicates = 0;
    EXPECT_EQ(balance, all_well);
    EXPECT_EQ(broker.connections(), 2u);
  }
}

// --- N18 -------------------------------------------------------------------------------------------------------------

class Acknowledgements : public testing::TestWithParam<ProtocolVersion> {
 protected:
  ScriptedBroker broker_;
};

TEST_P(Acknowledgements, N18_twice_unknown_and_of_the_wrong_kind_complete_nothing_twice) {
  const std::size_t messages = times("FULMAR_ACKNOWLEDGEMENTS", sanitized ? 2'000 : 20'000);
  std::mt19937 random(18);
  broker_.on(PacketType::publish, [&](Link& link, const mqtt::PacketView& packet) {
    const auto& publish = std::get<mqtt::PublishView>(packet);
    const auto id = publish.packet_id;
    const auto other = static_cast<std::uint16_t>(id ^ 0x8000);
    switch (random() % 8) {
      case 0: link.acknowledge(PacketType::puback, other); break;
      case 1: link.acknowledge(PacketType::pubcomp, id); break;  // too early, or of the wrong kind
      case 2: link.acknowledge(PacketType::pubcomp, other); break;
      case 3: link.acknowledge(PacketType::pubrec, other); break;
      case 4: link.acknowledge(PacketType::pubrel, id); break;  // of nothing that we sent
      case 5:
        if (publish.qos == QoS::exactly_once) link.acknowledge(PacketType::puback, id);
        break;
      default: break;
    }
    broker_.answer(link, packet);
    if (random() % 4 == 0) {
      link.acknowledge(publish.qos == QoS::at_least_once ? PacketType::puback : PacketType::pubrec, id);
    }
    return true;
  });
  Outcomes outcomes;
  auto config = persistent_config(broker_.url(), "receiver", GetParam());
  config.outbox_bytes = std::size_t{256} << 20;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  for (std::size_t i = 0; i < messages; ++i) {
    ASSERT_TRUE(client.publish("ledger", as_bytes(broker_.ledger().next()),
                               {.qos = i % 2 ? QoS::at_least_once : QoS::exactly_once}, outcomes.handler()));
    broker_.ledger().accepted();
  }
  ASSERT_TRUE(outcomes.wait_for(messages, 120s)) << outcomes.size();
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(outcomes.size(), messages) << "one outcome each";
  EXPECT_EQ(outcomes.count(Delivery::Outcome::acknowledged), messages);
  std::vector<MessageId> ids;
  for (const auto& delivery : outcomes.items()) ids.push_back(delivery.id);
  std::ranges::sort(ids);
  EXPECT_TRUE(std::ranges::adjacent_find(ids) == ids.end());
  const auto metrics = client.metrics();
  EXPECT_EQ(metrics.acknowledged, messages);
  EXPECT_EQ(metrics.in_flight, 0u) << "identifiers in use";
  EXPECT_EQ(metrics.waiting, 0u);
  EXPECT_EQ(metrics.connects, 1u);
  EXPECT_EQ(broker_.ledger().balance().lost, 0u);
}

TEST_P(Acknowledgements, N18_that_are_ignored_are_counted) {
  Client client(persistent_config(broker_.url(), "receiver", GetParam()));
  ASSERT_TRUE(client.connect(patience));
  publish_next(client, broker_.ledger(), QoS::at_least_once);
  ASSERT_TRUE(client.flush(patience));
  broker_.with_link([](Link& link) {
    for (const auto type : {PacketType::puback, PacketType::pubrec, PacketType::pubcomp})
      link.acknowledge(type, 9);
  });
  EXPECT_TRUE(eventually([&] { return client.metrics().answers_ignored == 4; }))
      << client.metrics().answers_ignored;
  // The fourth is the PUBCOMP to our answer to that PUBREC.
  EXPECT_EQ(client.metrics().acknowledged, 1u);
}

TEST_P(Acknowledgements, N18_in_any_order_complete_all) {
  std::vector<std::uint16_t> pending;
  std::atomic<std::size_t> came{0};
  broker_.on(PacketType::publish, [&](Link&, const mqtt::PacketView& packet) {
    pending.push_back(std::get<mqtt::PublishView>(packet).packet_id);
    ++came;
    return true;
  });
  Client client(persistent_config(broker_.url(), "receiver", GetParam()));
  ASSERT_TRUE(client.connect(patience));
  std::mt19937 random(19);
  for (std::size_t round = 1; round <= 20; ++round) {
    for (int i = 0; i < 1'000; ++i)
      ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}));
    ASSERT_TRUE(eventually([&] { return came == round * 1'000; }));
    broker_.with_link([&](Link& link) {
      std::ranges::shuffle(pending, random);
      for (const auto id : pending) link.acknowledge(PacketType::puback, id);
      pending.clear();
    });
    ASSERT_TRUE(client.flush(patience));
  }
  EXPECT_EQ(client.metrics().acknowledged, 20'000u);
  EXPECT_EQ(client.metrics().in_flight, 0u);
}

TEST_P(Acknowledgements, N18_of_nothing_are_answered_as_the_version_wants_it) {
  std::vector<mqtt::AckView> answers;
  const auto keep = [&](Link&, const mqtt::PacketView& packet) {
    auto ack = std::get<mqtt::AckView>(packet);
    ack.properties = {};
    answers.push_back(ack);
    return true;
  };
  broker_.on(PacketType::pubrel, keep);
  broker_.on(PacketType::pubcomp, keep);
  Client client(persistent_config(broker_.url(), "receiver", GetParam()));
  ASSERT_TRUE(client.connect(patience));
  broker_.with_link([](Link& link) {
    link.acknowledge(PacketType::pubrec, 1'000);
    link.acknowledge(PacketType::pubrel, 2'000);
  });
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::pubcomp) == 1; }));
  ASSERT_TRUE(eventually([&] { return broker_.packets(PacketType::pubrel) == 1; }));
  broker_.with_link([&](Link&) {
    ASSERT_EQ(answers.size(), 2u);
    for (const auto& answer : answers) {
      EXPECT_EQ(answer.packet_id, answer.type == PacketType::pubrel ? 1'000 : 2'000);
      EXPECT_EQ(answer.reason, GetParam() == ProtocolVersion::v5 ? ReasonCode::packet_identifier_not_found
                                                                 : ReasonCode::success);
    }
  });
  EXPECT_TRUE(client.connected());
}

INSTANTIATE_TEST_SUITE_P(, Acknowledgements, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) {
                           return test.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

// --- N19 -------------------------------------------------------------------------------------------------------------

TEST(Faults, N19_a_message_without_acknowledgement_is_not_sent_again_on_the_same_connection) {
  ScriptedBroker broker;
  broker.on(PacketType::publish, [](Link&, const mqtt::PacketView&) { return true; });
  auto config = persistent_config(broker.url(), "waiting");
  config.keepalive = 1s;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  for (const auto qos : {QoS::at_least_once, QoS::exactly_once}) {
    ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = qos}));
  }
  std::this_thread::sleep_for(3s);  // three keep-alives
  EXPECT_EQ(broker.packets(PacketType::publish), 2u) << "[MQTT-4.4.0-1]";
  EXPECT_EQ(broker.connections(), 1u);
  EXPECT_EQ(client.metrics().in_flight, 2u) << "visible";
  EXPECT_EQ(client.metrics().waiting, 2u);
}

TEST(Faults, N19_the_acknowledgement_timeout_makes_the_link_anew_and_loses_nothing) {
  ScriptedBroker broker;
  broker.on(PacketType::publish, [](Link& link, const mqtt::PacketView&) { return link.number <= 2; });
  broker.on(PacketType::pubrel, [](Link& link, const mqtt::PacketView&) { return link.number == 3; });
  auto config = persistent_config(broker.url(), "waiting");
  config.ack_timeout = 500ms;
  Client client(config);
  const auto changes = watch_states(client);
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 50; ++i) publish_next(client, broker.ledger(), QoS::exactly_once);
  ASSERT_TRUE(client.flush(patience)) << client.last_change().reason;
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(broker.connections(), 4u) << "PUBREC withheld twice, PUBCOMP once";
  EXPECT_EQ(client.metrics().disconnects_by_timeout, 3u);
  EXPECT_GE(changes.items()[2].at - changes.items()[1].at, 450ms)
      << "both are told with a delay of their own";
}

TEST(Faults, N19_the_acknowledgement_timeout_lets_a_slow_server_be) {
  ScriptedBroker broker;
  auto config = persistent_config(broker.url(), "waiting");
  config.ack_timeout = 1s;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 20; ++i) {
    publish_next(client, broker.ledger(), QoS::exactly_once);
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_TRUE(client.flush(patience));
  EXPECT_EQ(broker.connections(), 1u) << "each was answered in time";
}

// --- P1 --------------------------------------------------------------------------------------------------------------

TEST(Faults, P1_what_a_former_process_left_at_the_server_swallows_no_qos_2_message) {
  ScriptedBroker broker;
  std::atomic<bool> deaf{true};
  broker.on(PacketType::pubrel, [&](Link&, const mqtt::PacketView&) { return deaf.load(); });
  {
    Client former(persistent_config(broker.url(), "heir"));
    ASSERT_TRUE(former.connect(patience));
    for (int i = 0; i < 50; ++i) publish_next(former, broker.ledger(), QoS::exactly_once);
    ASSERT_TRUE(eventually([&] { return broker.packets(PacketType::pubrel) == 50; }));
    former.shutdown(0ms);
  }
  deaf = false;  // it holds 50 identifiers
  Client client(persistent_config(broker.url(), "heir"));
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 50; ++i) publish_next(client, broker.ledger(), QoS::exactly_once);
  EXPECT_TRUE(client.flush(patience));
  EXPECT_EQ(client.metrics().acknowledged, 50u);
  EXPECT_EQ(broker.ledger().balance(), all_well);
}

// --- N20 -------------------------------------------------------------------------------------------------------------

TEST(Faults, N20_with_every_identifier_in_flight_messages_queue_and_publishing_stays_fast) {
  ScriptedBroker broker;
  std::atomic<std::size_t> came{0};
  std::deque<std::uint16_t> pending;
  broker.on(PacketType::publish, [&](Link& link, const mqtt::PacketView& packet) {
    if (came < 65'535) pending.push_back(std::get<mqtt::PublishView>(packet).packet_id);
    return ++came <= 65'535 && link.number == 1;
  });
  auto config = persistent_config(broker.url(), "full");
  config.max_inflight = 65'535;
  config.outbox_bytes = std::size_t{64} << 20;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  for (int i = 0; i < 65'535; ++i)
    ASSERT_TRUE(client.publish("t", as_bytes("x"), {.qos = QoS::at_least_once}));
  ASSERT_TRUE(eventually([&] { return came == 65'535; })) << came;
  EXPECT_EQ(std::set(pending.begin(), pending.end()).size(), 65'535u) << "each identifier once";

  constexpr std::size_t more = sanitized ? 5'000 : 70'000;  // once around
  std::vector<Clock::duration> took;
  for (std::size_t i = 0; i < more; ++i) {
    const auto payload = broker.ledger().next();
    const auto begin = Clock::now();
    ASSERT_TRUE(client.publish("t", payload, {.qos = QoS::at_least_once}));
    took.push_back(Clock::now() - begin);
    broker.ledger().accepted();
  }
  std::ranges::sort(took);
  EXPECT_LT(took[more * 99 / 100], sanitized ? 5ms : 50us);
  EXPECT_EQ(client.metrics().in_flight, 65'535u);
  EXPECT_EQ(came, 65'535u) << "nothing more is sent";
  broker.with_link([&](Link& link) {
    for (const auto id : pending) link.acknowledge(PacketType::puback, id);
  });
  ASSERT_TRUE(client.flush(patience));
  EXPECT_EQ(broker.ledger().balance(), all_well);
  EXPECT_EQ(client.metrics().acknowledged, 65'535 + more);
  EXPECT_EQ(client.metrics().in_flight, 0u);
}

}  // namespace
}  // namespace fulmar::test
