// What every server does alike: messages of each QoS that it knows arrive unchanged and in order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/interop/world.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

class Exchange : public EachVersion {};

TEST_P(Exchange, speaks_the_highest_version_that_both_know) {
  Client client(config());
  const auto greetings = greetings_of(client);
  const auto connected = client.connect(20s);
  ASSERT_TRUE(connected) << connected.error().message;
  ASSERT_TRUE(greetings.wait_for(1));
  const std::string reason = greetings.items()[0];
  EXPECT_TRUE(reason.contains(spoken() == ProtocolVersion::v5 ? "MQTT 5.0" : "MQTT 3.1.1")) << reason;
}

TEST_P(Exchange, grants_the_highest_qos_that_both_know) {
  Client client(config());
  Inbox inbox;
  std::vector<Subscription> subscriptions;
  const std::string topic = unique("grant");
  for (const auto qos : {QoS::at_most_once, QoS::at_least_once, QoS::exactly_once}) {
    const std::size_t before = subscriptions.size();
    subscriptions.push_back(*client.subscribe(topic + "/" + std::to_string(before), inbox.handler(),
                                              {.qos = qos}, inbox.granted()));
  }
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(3));
  EXPECT_THAT(inbox.grants().items(), ElementsAre(0, 1, static_cast<int>(server_traits().qos)));
}

TEST_P(Exchange, carries_every_kind_of_payload_and_topic_unchanged) {
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  const std::string root = unique("kinds");
  std::vector<std::pair<std::string, std::string>> letters = {
      {root + "/empty", ""},
      {root + "/Füße/温度/🌡", every_byte},
      {root + "//empty level", "a"},
      {root + "/ends with a level/", "b"},
      {root + "/large", std::string(1'000'000, 'L')},
      {root + "/" + std::string(60'000, 't'), "a long topic"},
  };
  if (server_traits().keeps_dots_and_spaces) letters.emplace_back(root + "/1.5 °C", "c");
  for (auto& [topic, payload] : letters) {
    if (!server_traits().keeps_dots_and_spaces) std::erase(topic, ' ');
  }
  for (auto qos = QoS::at_most_once; qos <= server_traits().qos;
       qos = static_cast<QoS>(static_cast<int>(qos) + 1)) {
    Client client(config());
    Inbox inbox;
    Outcomes outcomes;
    const auto subscription = *client.subscribe(root + "/#", inbox.handler(), {.qos = qos}, inbox.granted());
    ASSERT_TRUE(client.connect(20s));
    ASSERT_TRUE(inbox.grants().wait_for(1));
    for (const auto& [topic, payload] : letters) {
      ASSERT_TRUE(client.publish(topic, as_bytes(payload), {.qos = qos}, outcomes.handler()));
    }
    ASSERT_TRUE(inbox.wait_for(letters.size()))
        << inbox.size() << " arrived; " << client.last_change().reason;
    ASSERT_TRUE(outcomes.wait_for(letters.size()));
    EXPECT_EQ(
        outcomes.count(qos == QoS::at_most_once ? Delivery::Outcome::sent : Delivery::Outcome::acknowledged),
        letters.size());
    const auto got = inbox.items();
    ASSERT_EQ(got.size(), letters.size());
    for (std::size_t i = 0; i < letters.size(); ++i) {
      EXPECT_EQ(got[i].topic.substr(0, 64), letters[i].first.substr(0, 64));
      EXPECT_EQ(got[i].topic.size(), letters[i].first.size());
      EXPECT_TRUE(got[i].text == letters[i].second)
          << letters[i].first << ": " << got[i].text.size() << " bytes";
      EXPECT_EQ(got[i].qos, qos);
      EXPECT_FALSE(got[i].retain);
    }
    EXPECT_EQ(client.metrics().connects, 1u) << "the connection held";
  }
}

TEST_P(Exchange, keeps_the_order_of_messages_of_one_qos) {
  constexpr std::size_t messages = 2'000;
  for (auto qos = QoS::at_most_once; qos <= server_traits().qos;
       qos = static_cast<QoS>(static_cast<int>(qos) + 1)) {
    Client client(config());
    Inbox inbox;
    const std::string topic = unique("order");
    const auto subscription = *client.subscribe(topic, inbox.handler(), {.qos = qos}, inbox.granted());
    ASSERT_TRUE(client.connect(20s));
    ASSERT_TRUE(inbox.grants().wait_for(1));
    for (std::size_t i = 0; i < messages; ++i) {
      ASSERT_TRUE(client.publish(topic, std::to_string(i), {.qos = qos}));
    }
    ASSERT_TRUE(inbox.wait_for(messages, 30s)) << inbox.size() << " arrived";
    const auto got = inbox.items();
    ASSERT_EQ(got.size(), messages);
    for (std::size_t i = 0; i < messages; ++i) ASSERT_EQ(got[i].text, std::to_string(i));
    EXPECT_TRUE(client.flush(20s));
    EXPECT_EQ(client.metrics().acknowledged, messages);
  }
}

TEST_P(Exchange, of_retained_messages_ends_when_they_are_cleared) {
  const std::string root = unique("kept");
  Client client(config());
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(client.publish(root + "/state", "on", {.qos = QoS::at_least_once, .retain = true}));
  ASSERT_TRUE(client.flush(20s));

  Inbox exact, wild;
  const auto of_topic = *client.subscribe(root + "/state", exact.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(exact.wait_for(1));
  EXPECT_TRUE(exact.items()[0].retain);
  EXPECT_EQ(exact.items()[0].text, "on");

  Client other(config());
  const auto of_wildcard =
      *other.subscribe(root + "/+", wild.handler(), {.qos = QoS::at_least_once}, wild.granted());
  ASSERT_TRUE(other.connect(20s));
  ASSERT_TRUE(wild.grants().wait_for(1));
  if (server_traits().retained_for_wildcards) {
    ASSERT_TRUE(wild.wait_for(1));
    EXPECT_TRUE(wild.items()[0].retain);
  }
  // What is published while one is subscribed is no retained message to him.
  const std::size_t before = wild.size();
  ASSERT_TRUE(client.publish(root + "/state", "", {.qos = QoS::at_least_once, .retain = true}));
  ASSERT_TRUE(wild.wait_for(before + 1));
  EXPECT_EQ(wild.items()[before].text, "");
  EXPECT_FALSE(wild.items()[before].retain);
  EXPECT_EQ(before, server_traits().retained_for_wildcards ? 1u : 0u);

  // Cleared: a newcomer hears what comes now, and nothing before it.
  Client late(config());
  Inbox nothing;
  const auto newcomer =
      *late.subscribe(root + "/state", nothing.handler(), {.qos = QoS::at_least_once}, nothing.granted());
  ASSERT_TRUE(late.connect(20s));
  ASSERT_TRUE(nothing.grants().wait_for(1));
  ASSERT_TRUE(client.publish(root + "/state", "live", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(nothing.wait_for(1));
  EXPECT_EQ(nothing.items()[0].text, "live");
}

TEST_P(Exchange, reaches_whom_the_wildcards_name_and_nobody_after_unsubscribing) {
  const std::string root = unique("wild");
  Client client(config());
  Inbox one_level, all_levels, other;
  auto one = *client.subscribe(root + "/a/+/end", one_level.handler(), {.qos = QoS::at_least_once},
                               one_level.granted());
  const auto all = *client.subscribe(root + "/b/#", all_levels.handler(), {.qos = QoS::at_least_once},
                                     all_levels.granted());
  const auto rest =
      *client.subscribe(root + "/c", other.handler(), {.qos = QoS::at_least_once}, other.granted());
  ASSERT_TRUE(client.connect(20s));
  for (const Inbox* inbox : {&one_level, &all_levels, &other}) ASSERT_TRUE(inbox->grants().wait_for(1));
  for (const auto* topic : {"/a/x/end", "/a/x/y/end", "/a/end", "/b", "/b/x", "/b/x/y", "/bb", "/c"}) {
    ASSERT_TRUE(client.publish(root + topic, "m", {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(other.wait_for(1));
  ASSERT_TRUE(all_levels.wait_for(3));
  ASSERT_TRUE(one_level.wait_for(1));
  EXPECT_EQ(one_level.items()[0].topic, root + "/a/x/end");
  std::vector<std::string> heard;
  for (const auto& letter : all_levels.items()) heard.push_back(letter.topic);
  EXPECT_THAT(heard, UnorderedElementsAre(root + "/b", root + "/b/x", root + "/b/x/y"));

  one.unsubscribe();
  ASSERT_TRUE(client.publish(root + "/a/z/end", "m", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(client.publish(root + "/c", "behind it", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(other.wait_for(2));
  EXPECT_EQ(one_level.size(), 1u);
}

TEST_P(Exchange, does_not_show_topics_with_a_dollar_to_a_leading_wildcard) {
  const std::string name = unique("hidden");
  Client client(config());
  Inbox inbox;
  const auto subscription =
      *client.subscribe("#", inbox.handler(), {.qos = QoS::at_least_once}, inbox.granted());
  ASSERT_TRUE(client.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  ASSERT_TRUE(client.publish("$fulmar/" + name, "secret", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(client.publish(name, "open", {.qos = QoS::at_least_once}));
  const auto arrived = [&] {
    const auto letters = inbox.items();
    return std::ranges::any_of(letters, [&](const Letter& letter) { return letter.topic == name; });
  };
  for (std::size_t seen = 1; !arrived(); ++seen) ASSERT_TRUE(inbox.wait_for(seen));
  for (const auto& letter : inbox.items()) EXPECT_FALSE(letter.topic.starts_with('$')) << letter.topic;
}

INSTANTIATE_TEST_SUITE_P(Interop, Exchange, each_kind_and_version(), each_version_name);

}  // namespace
}  // namespace fulmar::test
