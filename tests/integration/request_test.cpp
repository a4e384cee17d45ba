// Request and response against a real broker, by both versions of MQTT.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <tuple>

#include "fulmar/envelope.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

std::string envelope(std::string_view data) {
  return *Envelope{.id = new_ulid(),
                   .type = "ask",
                   .ts = 1,
                   .source = "test",
                   .data = std::string(data),
                   .correlate = "",
                   .reply_to = ""}
              .to_json();
}

// Who asks, who answers.
using Versions = std::tuple<ProtocolVersion, ProtocolVersion>;

class Requesting : public testing::TestWithParam<Versions> {
 protected:
  static bool by_envelope() { return std::get<0>(GetParam()) == ProtocolVersion::v3_1_1; }

  // A payload that this version can ask with, and the text of an answer to `echo`.
  static std::string question(std::string_view text) {
    return by_envelope() ? envelope(R"({"text":")" + std::string(text) + "\"}") : std::string(text);
  }
  static std::string text_of(const Message& message) {
    if (!by_envelope()) return std::string(message.text());
    const auto read = Envelope::parse(message.text());
    return read ? read->data : "not an envelope: " + std::string(message.text());
  }
  static std::string answer_to(std::string_view text) {
    return by_envelope() ? R"({"re":{"text":")" + std::string(text) + "\"}}" : "re: " + std::string(text);
  }
  static Result<std::string> echo(const Message& request) {
    if (!by_envelope()) return "re: " + std::string(request.text());
    return "{\"re\":" + Envelope::parse(request.text())->data + "}";
  }

  // A subscription that the broker has granted, so that a request finds it.
  Subscription granted(Result<Subscription> subscription) {
    EXPECT_TRUE(subscription);
    const auto grant = subscription->granted();
    EXPECT_EQ(grant.wait_for(20s), std::future_status::ready);
    EXPECT_TRUE(grant.get());
    return std::move(*subscription);
  }
  void connect() {
    ASSERT_TRUE(answerer_.connect(10s));
    ASSERT_TRUE(asker_.connect(10s));
  }

  Broker broker_;
  Client answerer_{config_for(broker_.url(), "answerer", std::get<1>(GetParam()))};
  Client asker_{config_for(broker_.url(), "asker", std::get<0>(GetParam()))};
};

TEST_P(Requesting, gets_its_answer) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto service = granted(answerer_.respond("service/+", echo, {.qos = QoS::exactly_once}));
  for (const auto qos : {QoS::at_most_once, QoS::at_least_once, QoS::exactly_once}) {
    const auto answer = asker_.request("service/1", as_bytes(question("hello")), 10s, {.qos = qos});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(text_of(**answer), answer_to("hello"));
    EXPECT_EQ((*answer)->qos, qos) << "the answer travels as the request did";
  }
  EXPECT_EQ(asker_.metrics().requests, 3u);
  EXPECT_EQ(asker_.metrics().subscriptions, 1u) << "one for all answers";
}

TEST_P(Requesting, may_begin_before_there_is_a_connection) {
  Collected<std::string> answers;
  const auto service = answerer_.respond("service", echo, {.qos = QoS::at_least_once});
  ASSERT_TRUE(service);
  ASSERT_TRUE(answerer_.connect(10s));
  ASSERT_TRUE(service->granted().get());
  ASSERT_TRUE(
      asker_.request("service", as_bytes(question("early")), 20s, {}, [answers](Result<OwnedMessage> answer) {
        answers.add(answer ? text_of(**answer) : answer.error().message);
      }));
  asker_.start();
  ASSERT_TRUE(answers.wait_for(1));
  EXPECT_EQ(answers.items()[0], answer_to("early")) << "SUBSCRIBE went before PUBLISH";
}

TEST_P(Requesting, from_many_threads_gives_each_its_own_answer) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto service = granted(answerer_.respond("service", echo, {.qos = QoS::at_least_once}));
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        const auto text = std::to_string(t) + "-" + std::to_string(i);
        const auto answer = asker_.request("service", as_bytes(question(text)), 20s);
        right += answer && text_of(**answer) == answer_to(text);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right.load(), 16 * 25);
  EXPECT_EQ(asker_.metrics().requests_timed_out, 0u);
}

TEST_P(Requesting, times_out_and_drops_the_late_answer) {
  ASSERT_NO_FATAL_FAILURE(connect());
  // Takes the question and answers when it is told to.
  Collected<std::pair<std::string, std::string>> asked;  // where to, and what
  const auto slow = granted(answerer_.subscribe(
      "slow",
      [asked](const Message& request) {
        if (by_envelope()) {
          const auto read = *Envelope::parse(request.text());
          asked.add(
              {read.reply_to, R"({"id":"a","type":"late","ts":1,"data":{},"correlate":")" + read.id + "\"}"});
        } else {
          asked.add(
              {std::string(request.response_topic()), std::string(as_text(request.correlation_data()))});
        }
      },
      {.qos = QoS::at_least_once}));
  const auto answer = asker_.request("slow", as_bytes(question("?")), 200ms);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::timeout);
  ASSERT_TRUE(asked.wait_for(1));
  const auto [topic, content] = asked.items()[0];
  PublishOptions late{.qos = QoS::at_least_once};
  if (!by_envelope()) late.correlation_data = as_bytes(content);
  ASSERT_TRUE(answerer_.publish(topic, content, late));
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (asker_.metrics().responses_late == 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(5ms);
  EXPECT_EQ(asker_.metrics().responses_late, 1u);
  EXPECT_EQ(asker_.metrics().requests_timed_out, 1u);
}

TEST_P(Requesting, is_told_once_when_it_is_cancelled_or_the_client_ends) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto silent =
      granted(answerer_.subscribe("silent", [](const Message&) {}, {.qos = QoS::at_least_once}));
  Collected<Errc> told;
  const auto remember = [told](Result<OwnedMessage> answer) {
    told.add(answer ? Errc::io_error : answer.error().code);
  };
  const auto first = asker_.request("silent", as_bytes(question("1")), 60s, {}, remember);
  const auto second = asker_.request("silent", as_bytes(question("2")), 60s, {}, remember);
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(asker_.cancel_request(*first));
  EXPECT_FALSE(asker_.cancel_request(*first));
  ASSERT_TRUE(told.wait_for(1));
  asker_.shutdown(5s);
  ASSERT_TRUE(told.wait_for(2));
  EXPECT_THAT(told.items(), testing::ElementsAre(Errc::cancelled, Errc::shutting_down));
  EXPECT_EQ(asker_.request("silent", as_bytes(question("3")), 1s).error().code, Errc::shutting_down);
}

TEST_P(Requesting, works_again_after_the_broker_was_killed) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto service = granted(answerer_.respond("service", echo, {.qos = QoS::at_least_once}));
  ASSERT_TRUE(asker_.request("service", as_bytes(question("1")), 10s));
  broker_.kill();
  ASSERT_TRUE(asker_.wait_for(ConnectionState::reconnecting, 10s));
  broker_.start();
  ASSERT_TRUE(asker_.wait_for(ConnectionState::connected, 10s));
  ASSERT_TRUE(answerer_.wait_for(ConnectionState::connected, 10s));
  // The responder's subscription may be a moment behind its connection.
  std::optional<Result<OwnedMessage>> answer;
  for (int attempt = 0; attempt < 20 && !(answer && *answer); ++attempt)
    answer.emplace(asker_.request("service", as_bytes(question("2")), 1s));
  ASSERT_TRUE(*answer) << answer->error().message;
  EXPECT_EQ(text_of(***answer), answer_to("2"));
}

TEST_P(Requesting, gets_nothing_from_a_responder_that_fails) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto service = granted(answerer_.respond(
      "broken", [](const Message&) -> Result<std::string> { return fail(Errc::io_error, "no disk"); },
      {.qos = QoS::at_least_once}));
  EXPECT_EQ(asker_.request("broken", as_bytes(question("?")), 500ms).error().code, Errc::timeout);
  EXPECT_EQ(answerer_.metrics().handler_errors, 1u);
}

TEST_P(Requesting, must_not_wait_within_a_handler_and_need_not) {
  ASSERT_NO_FATAL_FAILURE(connect());
  const auto service = granted(answerer_.respond("service", echo, {.qos = QoS::at_least_once}));
  Collected<std::string> said;
  const auto trigger = granted(asker_.subscribe("trigger", [this, said](const Message&) {
    const auto waited = asker_.request("service", as_bytes(question("w")), 10s);
    said.add(waited ? "answered" : std::string(to_string(waited.error().code)));
    EXPECT_TRUE(
        asker_.request("service", as_bytes(question("h")), 10s, {}, [said](Result<OwnedMessage> answer) {
          said.add(answer ? text_of(**answer) : answer.error().message);
        }));
  }));
  ASSERT_TRUE(asker_.publish("trigger", ""));
  ASSERT_TRUE(said.wait_for(2));
  EXPECT_THAT(said.items(), testing::ElementsAre("cancelled", answer_to("h")));
}

INSTANTIATE_TEST_SUITE_P(, Requesting,
                         testing::Values(Versions{ProtocolVersion::v5, ProtocolVersion::v5},
                                         Versions{ProtocolVersion::v3_1_1, ProtocolVersion::v3_1_1},
                                         Versions{ProtocolVersion::v3_1_1, ProtocolVersion::v5}),
                         [](const auto& test) {
                           const auto name = [](ProtocolVersion version) {
                             return std::string(version == ProtocolVersion::v5 ? "v5" : "v3_1_1");
                           };
                           return name(std::get<0>(test.param)) + "_asks_" + name(std::get<1>(test.param));
                         });

TEST(RequestV5, to_nobody_is_refused_at_once) {
  Broker broker;
  Client client(config_for(broker.url(), "lonely"));
  ASSERT_TRUE(client.connect(10s));
  const auto begin = std::chrono::steady_clock::now();
  const auto answer = client.request("nobody/there", as_bytes("?"), 60s);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::refused);
  EXPECT_EQ(answer.error().reason_code, 0x10);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
}

TEST(RequestV5, cannot_be_answered_without_a_response_topic) {
  Broker broker;
  Client client(config_for(broker.url(), "careful"));
  Collected<int> asked;
  Collected<std::string> log;
  client.set_log_sink(
      [log](LogLevel, std::string_view, std::string_view text) { log.add(std::string(text)); });
  const auto service = client.respond("service", [asked](const Message&) { return asked.add(1), "x"; });
  ASSERT_TRUE(service);
  Inbox after;
  const auto marker = client.subscribe("after", after.handler());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(client.publish("service", "no response topic"));
  ASSERT_TRUE(client.publish("after", "it"));
  ASSERT_TRUE(after.wait_for(1));
  EXPECT_EQ(asked.size(), 0u);
  client.shutdown(5s);
  EXPECT_THAT(log.items(), testing::Contains(HasSubstr("cannot be answered")));
}

TEST(Request3_1_1, has_to_be_an_envelope) {
  Broker broker;
  Client client(config_for(broker.url(), "plain", ProtocolVersion::v3_1_1));
  ASSERT_TRUE(client.connect(10s));
  const auto answer = client.request("service", as_bytes("plain text"), 1s);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::invalid_envelope);
}

}  // namespace
}  // namespace fulmar::test
