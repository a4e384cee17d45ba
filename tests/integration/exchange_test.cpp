// Client against a real broker: what is published arrives, unchanged and in order.
#include <gtest/gtest.h>

#include <tuple>

#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

class Exchange : public testing::TestWithParam<std::tuple<ProtocolVersion, QoS>> {
 protected:
  static ProtocolVersion protocol() { return std::get<0>(GetParam()); }
  static QoS qos() { return std::get<1>(GetParam()); }

  // A client that is connected and whose subscription the broker has granted.
  void connect_and_subscribe(std::string_view filter) {
    subscription_ = *client_.subscribe(filter, inbox_.handler(), {.qos = qos()}, inbox_.granted());
    const auto connected = client_.connect(10s);
    ASSERT_TRUE(connected) << connected.error().message;
    ASSERT_TRUE(inbox_.grants().wait_for(1));
    ASSERT_EQ(inbox_.grants().items()[0], static_cast<std::uint8_t>(qos()));
  }

  Broker broker_;
  Inbox inbox_;
  Outcomes outcomes_;
  Subscription made_in_handler_;
  Client client_{config_for(broker_.url(), "exchange", protocol())};
  Subscription subscription_;
};

TEST_P(Exchange, carries_every_kind_of_payload_and_topic_unchanged) {
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  const std::vector<std::pair<std::string, std::string>> letters = {
      {"kinds/empty", ""},
      {"kinds/one", "x"},
      {"kinds/Füße/温度/🌡", every_byte},
      {"kinds//empty level", "a"},
      {"kinds/large", std::string(1'000'000, 'L')},
      {"kinds/" + std::string(60'000, 't'), "a long topic"},
  };
  ASSERT_NO_FATAL_FAILURE(connect_and_subscribe("kinds/#"));
  for (const auto& [topic, payload] : letters) {
    ASSERT_TRUE(client_.publish(topic, as_bytes(payload), {.qos = qos()}, outcomes_.handler()));
  }
  ASSERT_TRUE(inbox_.wait_for(letters.size()));
  const auto got = inbox_.items();
  ASSERT_EQ(got.size(), letters.size());
  for (std::size_t i = 0; i < letters.size(); ++i) {
    EXPECT_EQ(got[i].topic, letters[i].first);
    EXPECT_TRUE(got[i].text == letters[i].second)
        << letters[i].first << ": " << got[i].text.size() << " bytes";
    EXPECT_EQ(got[i].qos, qos());
    EXPECT_FALSE(got[i].retain);
    EXPECT_FALSE(got[i].dup);
  }
  ASSERT_TRUE(outcomes_.wait_for(letters.size()));
  EXPECT_EQ(
      outcomes_.count(qos() == QoS::at_most_once ? Delivery::Outcome::sent : Delivery::Outcome::acknowledged),
      letters.size());
}

TEST_P(Exchange, keeps_the_order_of_ten_thousand_messages) {
  constexpr std::size_t messages = 10'000;
  ASSERT_NO_FATAL_FAILURE(connect_and_subscribe("order"));
  for (std::size_t i = 0; i < messages; ++i) {
    ASSERT_TRUE(client_.publish("order", std::to_string(i), {.qos = qos()}));
  }
  ASSERT_TRUE(inbox_.wait_for(messages, 60s)) << inbox_.size() << " arrived";
  const auto got = inbox_.items();
  ASSERT_EQ(got.size(), messages);
  for (std::size_t i = 0; i < messages; ++i) ASSERT_EQ(got[i].text, std::to_string(i));
  ASSERT_TRUE(client_.flush(10s));
  const auto metrics = client_.metrics();
  EXPECT_EQ(metrics.accepted, messages);
  EXPECT_EQ(metrics.acknowledged, messages);
  EXPECT_EQ(metrics.received, messages);
  EXPECT_EQ(metrics.waiting, 0u);
}

TEST_P(Exchange, sends_what_was_published_before_the_first_connection) {
  subscription_ = *client_.subscribe("early/+", inbox_.handler(), {.qos = qos()});
  ASSERT_TRUE(client_.publish("early/bird", "worm", {.qos = qos()}));
  EXPECT_EQ(client_.state(), ConnectionState::created);
  client_.start();
  ASSERT_TRUE(inbox_.wait_for(1));
  EXPECT_EQ(inbox_.items()[0].text, "worm");
}

TEST_P(Exchange, hears_retained_messages_as_such) {
  ASSERT_TRUE(client_.publish("kept", "state", {.qos = qos(), .retain = true}));
  ASSERT_TRUE(client_.connect(10s));
  ASSERT_TRUE(client_.flush(10s));
  ASSERT_TRUE(broker_.log_contains("Received PUBLISH from exchange"));
  subscription_ = *client_.subscribe("kept", inbox_.handler(), {.qos = qos()});
  ASSERT_TRUE(inbox_.wait_for(1));
  EXPECT_TRUE(inbox_.items()[0].retain);
  EXPECT_EQ(inbox_.items()[0].text, "state");
}

TEST_P(Exchange, is_silent_after_unsubscribing) {
  ASSERT_NO_FATAL_FAILURE(connect_and_subscribe("news/sport"));
  Inbox others;
  const auto rest = *client_.subscribe("others", others.handler());
  ASSERT_TRUE(client_.publish("news/sport", "1", {.qos = qos()}));
  ASSERT_TRUE(inbox_.wait_for(1));
  subscription_.unsubscribe();
  ASSERT_TRUE(broker_.log_contains("Received UNSUBSCRIBE from exchange"));
  ASSERT_TRUE(client_.publish("news/sport", "2", {.qos = qos()}));
  ASSERT_TRUE(client_.publish("others", "after it", {.qos = qos()}));
  ASSERT_TRUE(others.wait_for(1));  // came behind the second one, on the same connection
  EXPECT_EQ(inbox_.size(), 1u);
}

TEST_P(Exchange, may_publish_and_subscribe_inside_a_handler) {
  Inbox answers;
  const auto asking = *client_.subscribe("question", [this, answers](const Message& message) mutable {
    made_in_handler_ = *client_.subscribe("answer", answers.handler(), {.qos = qos()});
    EXPECT_TRUE(client_.publish("answer", "re: " + std::string(message.text()), {.qos = qos()}));
  });
  ASSERT_TRUE(client_.connect(10s));
  ASSERT_TRUE(client_.publish("question", "why?", {.qos = qos()}));
  ASSERT_TRUE(answers.wait_for(1));
  EXPECT_EQ(answers.items()[0].text, "re: why?") << "the SUBSCRIBE went before the PUBLISH";
}

INSTANTIATE_TEST_SUITE_P(, Exchange,
                         testing::Combine(testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                                          testing::Values(QoS::at_most_once, QoS::at_least_once,
                                                          QoS::exactly_once)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param) == ProtocolVersion::v5 ? "v5"
                                                                                             : "v3_1_1") +
                                  "_qos" + std::to_string(static_cast<int>(std::get<1>(test.param)));
                         });

TEST(ExchangeV5, no_local_keeps_a_clients_own_messages_away) {
  Broker broker;
  Inbox own, other;
  Client client(config_for(broker.url(), "own"));
  const auto subscription =
      *client.subscribe("room", own.handler(), {.qos = QoS::at_least_once, .no_local = true}, own.granted());
  Client listener(config_for(broker.url(), "listener"));
  const auto listening = *listener.subscribe("room", other.handler(), {}, other.granted());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(listener.connect(10s));
  ASSERT_TRUE(own.grants().wait_for(1));
  ASSERT_TRUE(other.grants().wait_for(1));
  ASSERT_TRUE(client.publish("room", "from me", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(other.wait_for(1));
  ASSERT_TRUE(listener.publish("room", "from the other", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(own.wait_for(1));
  EXPECT_EQ(own.items()[0].text, "from the other");
}

}  // namespace
}  // namespace fulmar::test
