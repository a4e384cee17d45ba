// Faults P11, P14, P15: large messages, many filters, many lives, many clients.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <thread>

#include "tests/faults/fixture.hpp"
#include "tests/faults/scripted_broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using mqtt::PacketType;
using mqtt::PropertyId;
using mqtt::ReasonCode;
using Link = ScriptedBroker::Link;

// --- P11 -------------------------------------------------------------------------------------------------------------

constexpr std::size_t large_size = std::size_t{sanitized ? 20 : 100} << 20;

std::string large_payload() {
  std::string payload(large_size, '\0');
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i * 2'654'435'761u >> 24);
  return payload;
}

TEST(Faults, P11_a_hundred_megabytes_travel_both_ways_while_pings_go_on) {
  ScriptedBroker broker;
  const auto payload = large_payload();
  std::atomic<bool> same{false};
  broker.on(PacketType::publish, [&](Link& link, const mqtt::PacketView& received) {
    const auto& publish = std::get<mqtt::PublishView>(received);
    same = as_text(publish.payload) == payload;
    link.acknowledge(PacketType::puback, publish.packet_id);
    return true;
  });
  auto config = persistent_config(broker.url(), "heavy");
  config.keepalive = 1s;
  config.outbox_bytes = config.inbound_bytes = std::size_t{256} << 20;
  std::atomic<int> down_same{-1};
  Outcomes outcomes;
  Client client(config);
  const auto subscription =
      client.subscribe("down", [&](const Message& message) { down_same = message.text() == payload; },
                       {.qos = QoS::at_least_once});
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(client.publish("up", as_bytes(payload), {.qos = QoS::at_least_once}, outcomes.handler()));
  ASSERT_TRUE(outcomes.wait_for(1, 60s));
  EXPECT_EQ(outcomes.items()[0].outcome, Delivery::Outcome::acknowledged);
  EXPECT_TRUE(same);
  // Made on this thread: the broker's is there to answer in time.
  const mqtt::PublishView publish{"down", as_bytes(payload), {}, 1, QoS::at_least_once, false, false};
  std::vector<std::byte> packet(mqtt::encoded_size(publish, ProtocolVersion::v5));
  mqtt::encode(packet, publish, ProtocolVersion::v5);
  broker.with_link([&](Link& link) { link.send_bytes(std::move(packet)); });
  ASSERT_TRUE(eventually([&] { return down_same >= 0; }, 60s));
  EXPECT_EQ(down_same, 1);
  EXPECT_TRUE(eventually([&] { return broker.packets(PacketType::puback) == 1; }));
  EXPECT_EQ(client.metrics().disconnects, 0u) << client.last_change().reason;
}

TEST(Faults, P11_a_packet_over_our_maximum_is_refused_at_its_header) {
  ScriptedBroker broker;
  std::atomic<int> reason{-1};
  broker.on(PacketType::disconnect, [&](Link&, const mqtt::PacketView& packet) {
    reason = static_cast<int>(std::get<mqtt::DisconnectView>(packet).reason);
    return false;
  });
  auto config = config_for(broker.url(), "narrow");
  config.maximum_packet_size = 1 << 20;
  Client client(config);
  ASSERT_TRUE(client.connect(patience));
  const auto memory_before = resident_bytes();
  broker.with_link([](Link& link) {
    const auto header = {std::byte{0x30}, std::byte{0x80}, std::byte{0x80}, std::byte{0x80}, std::byte{0x32}};
    link.send_bytes(BytesView(header.begin(), header.size()));  // PUBLISH of 100 MiB, the body never comes
  });
  ASSERT_TRUE(eventually([&] { return reason >= 0; }));
  EXPECT_EQ(static_cast<ReasonCode>(reason.load()), ReasonCode::packet_too_large);
  if (!sanitized) {
    EXPECT_LE(resident_bytes(), memory_before + (std::size_t{2} << 20));
  }
  EXPECT_TRUE(eventually([&] { return client.metrics().connects == 2; })) << "and connects again";
}

TEST(Faults, P11_memory_grows_with_the_bytes_that_come_not_with_the_length_that_is_announced) {
  ScriptedBroker broker;
  Client client(config_for(broker.url(), "wide"));  // 256 MiB allowed
  ASSERT_TRUE(client.connect(patience));
  const auto memory_before = resident_bytes();
  const auto received = client.metrics().bytes_in;
  broker.with_link([](Link& link) {
    const auto header = {std::byte{0x30}, std::byte{0x80}, std::byte{0x80}, std::byte{0x80}, std::byte{0x32}};
    link.send_bytes(BytesView(header.begin(), header.size()));
    link.send_bytes(std::vector<std::byte>(100'000));
  });
  ASSERT_TRUE(eventually([&] { return client.metrics().bytes_in >= received + 100'005; }));
  if (!sanitized) {
    EXPECT_LE(resident_bytes(), memory_before + (std::size_t{4} << 20));
  }
  EXPECT_TRUE(client.connected());
}

TEST(Faults, P11_a_message_over_the_outbox_is_refused_at_once) {
  ScriptedBroker broker;
  Client client(config_for(broker.url(), "narrow"));  // 8 MiB
  const std::vector<std::byte> payload(large_size);
  const auto refused = client.publish("t", payload, {.qos = QoS::at_least_once});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::payload_too_large);
  EXPECT_TRUE(refused.error().message.contains("outbox_bytes")) << refused.error().message;
}

// --- P14 -------------------------------------------------------------------------------------------------------------

class ManyFilters : public testing::TestWithParam<std::size_t> {};

TEST_P(ManyFilters, P14_go_out_in_packets_under_the_maximum_and_each_matching_handler_runs_once) {
  const std::size_t filters = GetParam();
  constexpr std::uint32_t packet_max = 4'096;
  ScriptedBroker broker;
  broker.set_connack(Properties().add(PropertyId::maximum_packet_size, packet_max));
  std::atomic<std::size_t> requested{0}, largest{0};
  broker.on(PacketType::subscribe, [&](Link&, const mqtt::PacketView& packet) {
    requested += std::get<mqtt::SubscribeView>(packet).filters.size();
    largest = std::max(largest.load(), mqtt::encoded_size(packet, ProtocolVersion::v5));
    return false;
  });
  auto config = config_for(broker.url(), "many");
  config.max_subscriptions = filters + 10;
  Client client(config);
  Inbox grants;
  std::vector<std::atomic<std::uint32_t>> calls(filters);
  std::atomic<std::uint32_t> wide{0}, parent{0}, one_level{0}, other{0};
  std::vector<Subscription> subscriptions;
  const auto subscribe = [&](const std::string& filter, std::atomic<std::uint32_t>& counter) {
    subscriptions.push_back(
        *client.subscribe(filter, [&counter](const Message&) { ++counter; }, {}, grants.granted()));
  };
  const auto name = [](std::size_t i) {
    return "site/" + std::to_string(i % 97) + "/sensor/" + std::to_string(i);
  };
  for (std::size_t i = 0; i < filters; ++i) subscribe(name(i), calls[i]);
  subscribe("#", wide);
  subscribe("site/#", parent);
  subscribe("site/+/sensor/+", one_level);
  subscribe("site/+/actor/+", other);
  ASSERT_TRUE(client.connect(patience));
  ASSERT_TRUE(grants.grants().wait_for(filters + 4, 60s)) << grants.grants().size();
  EXPECT_EQ(requested, filters + 4);
  EXPECT_LE(largest, packet_max);
  EXPECT_LE(broker.packets(PacketType::subscribe), filters / 50 + 2) << "many in each";

  const std::size_t messages = filters;
  for (std::size_t i = 0; i < messages; ++i) {
    broker.with_link([&](Link& link) { link.publish(name(i % filters), "x"); });
  }
  ASSERT_TRUE(eventually([&] { return client.metrics().handled == messages; })) << client.metrics().handled;
  EXPECT_TRUE(std::ranges::all_of(calls, [](const auto& called) { return called == 1; }));
  EXPECT_EQ(wide, messages);
  EXPECT_EQ(parent, messages);
  EXPECT_EQ(one_level, messages);
  EXPECT_EQ(other, 0u);
}

INSTANTIATE_TEST_SUITE_P(, ManyFilters, testing::Values(1'000, 10'000), testing::PrintToStringParamName());

TEST(Faults, P14_ten_thousand_filters_do_not_slow_routing_down) {
  constexpr int messages = 20'000;
  // Of this process: how long it waits for its turn on a busy machine is not what routing costs.
  const auto cpu_time = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  const auto time_for = [&](std::size_t filters) {
    ScriptedBroker broker;
    std::atomic<std::size_t> requested{0};
    broker.on(PacketType::subscribe, [&](Link&, const mqtt::PacketView& packet) {
      requested += std::get<mqtt::SubscribeView>(packet).filters.size();
      return false;
    });
    auto config = config_for(broker.url(), "many");
    config.max_subscriptions = filters;
    Client client(config);
    std::vector<Subscription> subscriptions;
    for (std::size_t i = 0; i < filters; ++i) {
      subscriptions.push_back(*client.subscribe("site/" + std::to_string(i) + "/+", [](const Message&) {}));
    }
    EXPECT_TRUE(client.connect(patience));
    EXPECT_TRUE(eventually([&] { return requested == filters; }));
    const auto begin = cpu_time();
    broker.with_link([&](Link& link) {
      for (std::size_t i = 0; i < messages; ++i)
        link.publish("site/" + std::to_string(i % filters) + "/x", "x");
    });
    EXPECT_TRUE(eventually([&] { return client.metrics().handled == messages; }));
    return (cpu_time() - begin) / messages;
  };
  const auto few = time_for(10);
  const auto many = time_for(10'000);
  EXPECT_LT(many - few, sanitized ? 100us : 4us)
      << "few: " << few.count() << " ns, many: " << many.count() << " ns each";
}

// --- P15 -------------------------------------------------------------------------------------------------------------

TEST(Faults, P15_lives_leave_nothing_behind) {
  const std::size_t cycles = times("FULMAR_LIVES", sanitized ? 100 : 300);
  ScriptedBroker broker;
  const auto live = [&](std::size_t i) {
    Client client(config_for(broker.url(), "life-" + std::to_string(i % 10)));
    const auto subscription = client.subscribe("t/#", [](const Message&) {});
    ASSERT_TRUE(client.connect(patience));
    publish_next(client, broker.ledger(), QoS::exactly_once);
    EXPECT_EQ(client.shutdown(5s).lost, 0u);
  };
  for (std::size_t i = 0; i < 50; ++i) ASSERT_NO_FATAL_FAILURE(live(i));  // what is allocated once
  ASSERT_TRUE(eventually([&] { return broker.open_connections() == 0; }));
  const auto descriptors = open_descriptors(), running = threads(), memory = resident_bytes();
  for (std::size_t i = 0; i < cycles; ++i) ASSERT_NO_FATAL_FAILURE(live(i));
  ASSERT_TRUE(eventually([&] { return broker.open_connections() == 0; }));
  EXPECT_TRUE(eventually([&] { return open_descriptors() <= descriptors && threads() <= running; }, 5s))
      << open_descriptors() << " descriptors, " << descriptors << " before; " << threads() << " threads, "
      << running << " before";
  if (!sanitized) {
    EXPECT_LE(resident_bytes(), memory + (std::size_t{1} << 20)) << cycles << " lives";
  }
  EXPECT_EQ(broker.ledger().balance(), all_well);
}

TEST(Faults, P15_a_thousand_clients_share_a_few_threads) {
  const std::size_t count = times("FULMAR_CLIENTS", sanitized ? 100 : 1'000);
  ScriptedBroker broker;
  const auto running = threads(), descriptors = open_descriptors(), memory = resident_bytes();
  {
    Runtime runtime({.io_threads = 2, .dispatch_threads = 2});
    std::vector<std::unique_ptr<Client>> clients;
    for (std::size_t i = 0; i < count; ++i) {
      clients.push_back(
          std::make_unique<Client>(config_for(broker.url(), "client-" + std::to_string(i)), runtime));
      clients.back()->start();
    }
    for (auto& client : clients) ASSERT_TRUE(client->wait_for(ConnectionState::connected, patience));
    EXPECT_LE(threads(), running + 4);
    for (auto& client : clients) publish_next(*client, broker.ledger(), QoS::exactly_once);
    for (auto& client : clients) ASSERT_TRUE(client->flush(patience));
    auto balance = broker.ledger().balance();
    balance.overtaken = 0;  // they are different clients
    EXPECT_EQ(balance, all_well);
    const std::size_t each = (resident_bytes() - std::min(memory, resident_bytes())) / count;
    RecordProperty("bytes_each", static_cast<int>(each));
    if (!sanitized) {
      EXPECT_LE(each, 64u << 10) << "both sides of its connection";
    }
  }
  ASSERT_TRUE(eventually([&] { return broker.open_connections() == 0; }));
  EXPECT_TRUE(eventually([&] { return threads() <= running && open_descriptors() <= descriptors; }, 10s))
      << threads() << " threads, " << running << " before; " << open_descriptors() << " descriptors, "
      << descriptors << " before";
}

TEST(Faults, P15_links_leave_nothing_behind) {
  const std::size_t cycles = times("FULMAR_LINKS", 30);
  ScriptedBroker broker;
  Client client(persistent_config(broker.url(), "relinked"));
  ASSERT_TRUE(client.connect(patience));
  const auto descriptors = open_descriptors(), running = threads();
  for (std::size_t i = 1; i <= cycles; ++i) {
    ASSERT_TRUE(broker.when_connected([&](Link& link) { link.end(i % 2 ? Ending::fin : Ending::rst); }));
    ASSERT_TRUE(eventually([&] { return client.metrics().connects == i + 1; }));
  }
  EXPECT_TRUE(eventually([&] { return open_descriptors() <= descriptors && threads() <= running; }, 5s))
      << open_descriptors() << " descriptors, " << descriptors << " before";
}

}  // namespace
}  // namespace fulmar::test
