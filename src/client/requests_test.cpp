#include "client/requests.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <thread>

#include "fulmar/mqtt/topic.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using testing::StartsWith;

using mqtt::PropertyId;

// A client without a network, in virtual time: what is published lies there to be looked at.
class RequestsTest : public testing::Test {
 protected:
  struct Sent {
    std::string topic, payload, response_topic, content_type;
    std::optional<std::string> correlation;
    QoS qos = QoS::at_most_once;
    std::optional<std::chrono::seconds> expiry;
    DeliveryHandler told;
  };
  struct Wanted {
    MessageHandler handler;
    SubscribeOptions options;
    Client::GrantedHandler granted;
  };
  using Answer = Result<OwnedMessage>;

  RequestsTest() { make("asker"); }

  void make(std::string_view client_id) {
    requests_ = std::make_shared<Requests>(
        client_id, "me",
        Requests::Host{
            .publish =
                [this](auto topic, auto payload, const auto& options, DeliveryHandler told) {
                  return publish(topic, payload, options, std::move(told));
                },
            .subscribe = [this](auto filter, MessageHandler handler, const SubscribeOptions& options,
                                Client::GrantedHandler granted) -> Result<Subscription> {
              if (subscribe_error_) return std::unexpected(*subscribe_error_);
              steps_.push_back("subscribe " + std::string(filter));
              wanted_[std::string(filter)] = {std::move(handler), options, std::move(granted)};
              return Subscription();
            },
            .call_later = [this](std::chrono::milliseconds delay,
                                 auto function) { timers_.emplace(now_ + delay, std::move(function)); },
            .protocol = [this] { return protocol_; },
            .on_dispatch_thread = [this] { return on_dispatch_thread_; },
            .log = [this](LogLevel, const std::string& text) { log_.push_back(text); },
            .now = [this] { return now_; },
            .wall_now = [] { return WallTime(1'700'000'000s); },
        });
  }

  Result<MessageId> publish(std::string_view topic, BytesView payload, const PublishOptions& options,
                            DeliveryHandler told) {
    if (before_publish_) std::exchange(before_publish_, nullptr)();
    if (publish_error_) return std::unexpected(*publish_error_);
    steps_.push_back("publish " + std::string(topic));
    Sent sent;
    sent.topic = topic;
    sent.payload = as_text(payload);
    sent.response_topic = options.response_topic;
    sent.content_type = options.content_type;
    if (options.correlation_data) sent.correlation = as_text(*options.correlation_data);
    sent.qos = options.qos;
    sent.expiry = options.message_expiry;
    sent.told = std::move(told);
    sent_.push_back(std::move(sent));
    return sent_.size();
  }

  Result<RequestId> ask(std::string_view topic = "q", std::chrono::milliseconds timeout = 1s,
                        std::string_view payload = "?", const RequestOptions& options = {}) {
    return requests_->request(topic, as_bytes(payload), timeout, options,
                              [this](Answer answer) { answers_.push_back(std::move(answer)); });
  }

  void pass(std::chrono::milliseconds time) {
    const auto until = now_ + time;
    while (!timers_.empty() && timers_.begin()->first <= until) {
      now_ = std::max(now_, timers_.begin()->first);
      auto function = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      function();
    }
    now_ = until;
  }

  // A message that comes in on `filter`.
  void deliver(const std::string& filter, std::string_view topic, std::string_view payload,
               std::string_view response_topic = {}, std::optional<std::string_view> correlation = {},
               QoS qos = QoS::at_most_once) {
    std::array<std::byte, 512> buffer{};
    mqtt::PropertyWriter writer(buffer);
    if (!response_topic.empty()) writer.add(PropertyId::response_topic, response_topic);
    if (correlation) writer.add(PropertyId::correlation_data, *correlation);
    Message message;
    message.topic = topic;
    message.payload = as_bytes(payload);
    message.qos = qos;
    message.properties = writer.view();
    wanted_.at(filter).handler(message);
  }
  void answer(std::string_view payload, std::optional<std::string_view> correlation = {}) {
    deliver(requests_->response_topic(), requests_->response_topic(), payload, {}, correlation);
  }

  std::vector<std::string> texts() const {
    std::vector<std::string> texts;
    for (const auto& each : answers_)
      texts.push_back(each ? std::string((*each)->text())
                           : "error: " + std::string(to_string(each.error().code)));
    return texts;
  }

  Requests::Instant now_{1h};
  ProtocolVersion protocol_ = ProtocolVersion::v5;
  bool on_dispatch_thread_ = false;
  std::optional<Error> publish_error_, subscribe_error_;
  std::function<void()> before_publish_;
  std::multimap<Requests::Instant, std::move_only_function<void()>> timers_;
  std::vector<Sent> sent_;
  std::map<std::string, Wanted> wanted_;
  std::vector<std::string> steps_, log_;
  std::vector<Answer> answers_;
  std::shared_ptr<Requests> requests_;
};

constexpr std::string_view question =
    R"({"id":"q1","type":"ask","ts":1.0,"source":"me","data":{"n":1.50},"extra":[1]})";

// --- asking ----------------------------------------------------------------------------------------------------------

TEST_F(RequestsTest, answers_come_by_correlation_data_in_any_order) {
  ASSERT_TRUE(ask());
  ASSERT_TRUE(ask());
  answer("second", sent_[1].correlation);
  answer("first", sent_[0].correlation);
  EXPECT_THAT(texts(), ElementsAre("second", "first"));
  EXPECT_EQ(requests_->waiting(), 0u);
  pass(1h);
  EXPECT_EQ(answers_.size(), 2u) << "each once";
  EXPECT_EQ(requests_->counts().requests, 2u);
  EXPECT_EQ(requests_->counts().timed_out, 0u);
}

TEST_F(RequestsTest, a_request_says_where_the_answer_goes_and_is_not_sent_after_its_time) {
  ASSERT_TRUE(ask("q", 1'500ms, "?", {.qos = QoS::exactly_once, .content_type = "text/plain"}));
  EXPECT_EQ(sent_[0].topic, "q");
  EXPECT_EQ(sent_[0].payload, "?");
  EXPECT_EQ(sent_[0].response_topic, requests_->response_topic());
  EXPECT_THAT(sent_[0].response_topic, StartsWith("fulmar/response/asker/"));
  EXPECT_EQ(sent_[0].correlation->size(), 8u);
  EXPECT_EQ(sent_[0].content_type, "text/plain");
  EXPECT_EQ(sent_[0].qos, QoS::exactly_once);
  EXPECT_EQ(sent_[0].expiry, 2s);
}

TEST_F(RequestsTest, all_share_one_subscription_that_goes_first) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ask());
  EXPECT_THAT(steps_,
              ElementsAre("subscribe " + requests_->response_topic(), "publish q", "publish q", "publish q"));
}

TEST_F(RequestsTest, the_subscription_follows_the_highest_quality_asked_for) {
  ASSERT_TRUE(ask("q", 1s, "?", {.qos = QoS::at_most_once}));
  EXPECT_EQ(wanted_.at(requests_->response_topic()).options.qos, QoS::at_most_once);
  ASSERT_TRUE(ask("q", 1s, "?", {.qos = QoS::at_least_once}));
  EXPECT_EQ(wanted_.at(requests_->response_topic()).options.qos, QoS::at_least_once);
  ASSERT_TRUE(ask("q", 1s, "?", {.qos = QoS::at_most_once}));
  EXPECT_EQ(std::ranges::count_if(steps_, [](const auto& step) { return step.starts_with("subscribe"); }), 2);
}

TEST_F(RequestsTest, the_response_topic_is_a_topic_name_whatever_the_client_is_called) {
  std::string euros = "x";  // so that the cut falls within one
  for (int i = 0; i < 1'000; ++i) euros += "\u20ac";
  for (const auto& id : {std::string("a+b/#c"), std::string(65'000, 'x'), euros}) {
    make(id);
    EXPECT_EQ(mqtt::check_topic_name(requests_->response_topic()), mqtt::TopicError::none);
    EXPECT_LT(requests_->response_topic().size(), 1'100u);
  }
  make("same");
  const auto one = requests_->response_topic();
  make("same");
  EXPECT_NE(requests_->response_topic(), one);
}

TEST_F(RequestsTest, without_an_answer_a_request_times_out_once_and_leaves_nothing) {
  ASSERT_TRUE(ask("q", 1s));
  ASSERT_TRUE(ask("q", 500ms));
  pass(499ms);
  EXPECT_THAT(answers_, IsEmpty());
  pass(1ms);
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].error().message, "no answer to the request to \"q\" within 500 ms");
  pass(500ms);
  EXPECT_THAT(texts(), ElementsAre("error: timeout", "error: timeout"));
  EXPECT_EQ(requests_->waiting(), 0u);
  EXPECT_THAT(timers_, IsEmpty());
  EXPECT_EQ(requests_->counts().timed_out, 2u);
}

TEST_F(RequestsTest, many_requests_share_a_timer) {
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_TRUE(ask("q", 10s));
    answer("!", sent_.back().correlation);
    pass(1ms);
  }
  EXPECT_EQ(timers_.size(), 1u);
}

TEST_F(RequestsTest, a_late_answer_is_dropped_and_counted) {
  ASSERT_TRUE(ask());
  pass(1s);
  for (int i = 0; i < 9; ++i) answer("late", sent_[0].correlation);
  answer("to nobody");
  answer("to nobody", "12345678");
  answer("too short", "1");
  EXPECT_THAT(texts(), ElementsAre("error: timeout"));
  EXPECT_EQ(requests_->counts().late, 12u);
  EXPECT_EQ(log_.size(), 4u) << "at the 1st, 2nd, 4th and 8th time";
}

TEST_F(RequestsTest, a_second_answer_is_late) {
  ASSERT_TRUE(ask());
  answer("one", sent_[0].correlation);
  answer("two", sent_[0].correlation);
  EXPECT_THAT(texts(), ElementsAre("one"));
  EXPECT_EQ(requests_->counts().late, 1u);
}

TEST_F(RequestsTest, a_cancelled_request_is_told_on_the_dispatch_thread_and_once) {
  const auto id = ask();
  ASSERT_TRUE(id);
  EXPECT_TRUE(requests_->cancel(*id));
  EXPECT_FALSE(requests_->cancel(*id));
  EXPECT_FALSE(requests_->cancel(*id + 1));
  EXPECT_THAT(answers_, IsEmpty()) << "not on the thread that cancels";
  answer("late", sent_[0].correlation);
  pass(0ms);
  EXPECT_THAT(texts(), ElementsAre("error: cancelled"));
  EXPECT_EQ(requests_->waiting(), 0u);
}

TEST_F(RequestsTest, the_end_tells_everything_that_waits_the_cancelled_too) {
  const auto cancelled = ask("c");
  ASSERT_TRUE(ask("w"));
  requests_->cancel(*cancelled);
  requests_->end();
  EXPECT_THAT(texts(), ElementsAre("error: cancelled", "error: shutting down"));
  requests_->end();
  pass(1h);
  EXPECT_EQ(answers_.size(), 2u);
}

TEST_F(RequestsTest, what_cannot_be_published_is_an_error_and_the_handler_is_not_called) {
  publish_error_ = Error{Errc::outbox_full, "full", {}};
  const auto id = ask();
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code, Errc::outbox_full);
  EXPECT_EQ(requests_->waiting(), 0u);
  pass(1h);
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_EQ(requests_->counts().requests, 0u);
}

TEST_F(RequestsTest, has_one_outcome_when_the_end_comes_between_waiting_and_publishing) {
  publish_error_ = Error{Errc::shutting_down, "the client was shut down", {}};
  before_publish_ = [this] { requests_->end(); };
  EXPECT_TRUE(ask()) << "the handler was told, so there is no error besides";
  EXPECT_THAT(texts(), ElementsAre("error: shutting down"));
}

TEST_F(RequestsTest, no_subscription_no_request) {
  subscribe_error_ = Error{Errc::outbox_full, "1000 subscriptions", {}};
  EXPECT_EQ(ask().error().message, "1000 subscriptions");
  EXPECT_THAT(sent_, IsEmpty());
  subscribe_error_.reset();
  EXPECT_TRUE(ask());
}

TEST_F(RequestsTest, a_refused_subscription_tells_all_that_wait_and_is_tried_again_by_the_next) {
  ASSERT_TRUE(ask());
  ASSERT_TRUE(ask());
  const auto granted = wanted_.at(requests_->response_topic()).granted;
  granted(0x01);
  EXPECT_THAT(answers_, IsEmpty());
  granted(0x87);
  EXPECT_THAT(texts(), ElementsAre("error: refused by the server", "error: refused by the server"));
  EXPECT_EQ(answers_[0].error().reason_code, 0x87);
  EXPECT_THAT(answers_[0].error().message, HasSubstr("fulmar/response/asker/"));
  steps_.clear();
  ASSERT_TRUE(ask());
  EXPECT_THAT(steps_, ElementsAre(StartsWith("subscribe"), "publish q"));
  granted(0x87);
  EXPECT_EQ(answers_.size(), 2u) << "the answer to the subscription before is none to this one";
}

TEST_F(RequestsTest, a_request_that_does_not_arrive_is_told_at_once_with_the_reason) {
  const auto told = [this](Delivery::Outcome outcome, std::uint8_t reason) {
    answers_.clear();
    EXPECT_TRUE(ask());
    sent_.back().told({.id = 1, .outcome = outcome, .reason_code = reason});
    return answers_.empty() ? Error{} : answers_[0].error();
  };
  using enum Delivery::Outcome;
  EXPECT_EQ(told(refused, 0x87).code, Errc::refused);
  EXPECT_EQ(told(refused, 0x87).reason_code, 0x87);
  EXPECT_THAT(told(refused, 0x87).message, HasSubstr("not authorized"));
  EXPECT_THAT(told(refused, 0).message, HasSubstr("this server cannot take it"));
  EXPECT_EQ(told(expired, 0).code, Errc::timeout);
  EXPECT_EQ(told(dropped, 0).code, Errc::outbox_full);
  requests_->closing(true);
  EXPECT_EQ(told(dropped, 0).code, Errc::shutting_down);
  requests_->closing(false);
  EXPECT_EQ(told(dropped, 0).code, Errc::outbox_full);
  EXPECT_EQ(told(acknowledged, 0x10).code, Errc::refused) << "nobody has subscribed: nobody can answer";
  EXPECT_EQ(told(acknowledged, 0).message, "") << "this one waits for its answer";
  EXPECT_EQ(told(sent, 0).message, "");
  EXPECT_EQ(requests_->waiting(), 2u);
}

TEST_F(RequestsTest, an_answer_before_the_acknowledgement_is_the_answer) {
  ASSERT_TRUE(ask());
  answer("!", sent_[0].correlation);
  sent_[0].told({.id = 1, .outcome = Delivery::Outcome::refused, .reason_code = 0x97});
  EXPECT_THAT(texts(), ElementsAre("!"));
}

TEST_F(RequestsTest, are_bounded_with_a_clear_error) {
  for (std::size_t i = 0; i < Requests::pending_max; ++i) ASSERT_TRUE(ask());
  const auto more = ask();
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, Errc::outbox_full);
  EXPECT_THAT(more.error().message, HasSubstr("65536 requests wait"));
  answer("!", sent_[7].correlation);
  EXPECT_TRUE(ask());
}

TEST_F(RequestsTest, need_a_handler_and_a_timeout_within_reason) {
  EXPECT_EQ(ask("q", 0ms).error().code, Errc::invalid_config);
  EXPECT_EQ(ask("q", -1ms).error().code, Errc::invalid_config);
  EXPECT_THAT(ask("q", 25h).error().message, HasSubstr("expected 1 ms to 24 h"));
  EXPECT_EQ(requests_->request("q", {}, 1s, {}, ResponseHandler()).error().code, Errc::invalid_config);
}

TEST_F(RequestsTest, a_throwing_response_handler_is_counted_and_harms_nobody) {
  ASSERT_TRUE(requests_->request("q", {}, 1s, {}, [](Answer) { throw std::runtime_error("oops"); }));
  ASSERT_TRUE(ask());
  pass(1s);
  EXPECT_THAT(texts(), ElementsAre("error: timeout"));
  EXPECT_EQ(requests_->counts().handler_errors, 1u);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("threw: oops")));
}

TEST_F(RequestsTest, may_be_made_and_cancelled_by_response_handlers) {
  const auto other = ask("other");
  ASSERT_TRUE(requests_->request("q", {}, 500ms, {}, [&](Answer) {
    EXPECT_TRUE(requests_->cancel(*other));
    EXPECT_TRUE(ask("next"));
  }));
  pass(500ms);
  EXPECT_THAT(texts(), ElementsAre("error: cancelled"));
  answer("!", sent_.back().correlation);
  EXPECT_THAT(texts(), ElementsAre("error: cancelled", "!"));
}

TEST_F(RequestsTest, outlived_by_its_callbacks_does_no_harm) {
  ASSERT_TRUE(ask());
  const auto topic = requests_->response_topic();
  requests_.reset();
  deliver(topic, topic, "late");
  sent_[0].told({});
  wanted_.at(topic).granted(0x87);
  pass(1h);
  EXPECT_THAT(answers_, IsEmpty());
}

// --- asking by MQTT 3.1.1 --------------------------------------------------------------------------------------------

TEST_F(RequestsTest, in_3_1_1_the_envelope_carries_the_topic_and_the_answer_its_id) {
  protocol_ = ProtocolVersion::v3_1_1;
  ASSERT_TRUE(ask("q", 1s, question));
  EXPECT_EQ(sent_[0].payload,
            "{\"reply_to\":\"" + requests_->response_topic() + "\"," + std::string(question.substr(1)))
      << "and everything else is as it was";
  EXPECT_EQ(sent_[0].response_topic, "");
  EXPECT_EQ(sent_[0].correlation, std::nullopt);
  const std::string other = R"({"id":"a0","type":"x","ts":1,"data":{},"correlate":"q0"})";
  const std::string right = R"({"id":"a1","type":"x","ts":1,"data":{},"correlate":"q1"})";
  answer(other);
  answer("not an envelope");
  EXPECT_THAT(answers_, IsEmpty());
  answer(right);
  EXPECT_THAT(texts(), ElementsAre(right));
  EXPECT_EQ(requests_->counts().late, 2u);
}

TEST_F(RequestsTest, in_3_1_1_a_number_in_the_correlation_data_of_a_stranger_is_nothing) {
  protocol_ = ProtocolVersion::v3_1_1;
  ASSERT_TRUE(ask("q", 1s, question));
  answer("?", std::string_view("\0\0\0\0\0\0\0\1", 8));
  EXPECT_THAT(answers_, IsEmpty());
}

TEST_F(RequestsTest, in_3_1_1_a_request_has_to_be_an_envelope_without_reply_to_and_with_an_id_of_its_own) {
  protocol_ = ProtocolVersion::v3_1_1;
  EXPECT_EQ(ask("q", 1s, "plain").error().code, Errc::invalid_envelope);
  EXPECT_THAT(ask("q", 1s, "plain").error().message,
              HasSubstr("a request by MQTT 3.1.1 has to be an envelope"));
  EXPECT_THAT(ask("q", 1s, R"({"id":"1","type":"t","ts":1,"data":{},"reply_to":null})").error().message,
              HasSubstr("`reply_to`"));
  ASSERT_TRUE(ask("q", 1s, question));
  EXPECT_THAT(ask("q", 1s, question).error().message, HasSubstr("\"q1\" waits for its answer already"));
  pass(1s);
  EXPECT_TRUE(ask("q", 1s, question)) << "the id is free again";
}

// --- waiting ---------------------------------------------------------------------------------------------------------

TEST_F(RequestsTest, waiting_is_refused_on_the_dispatch_thread) {
  on_dispatch_thread_ = true;
  const auto answer = requests_->request("q", {}, 1h, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::cancelled);
  EXPECT_THAT(answer.error().message, HasSubstr("use the form with a handler"));
  EXPECT_THAT(sent_, IsEmpty());
}

TEST_F(RequestsTest, waiting_keeps_its_time_without_a_dispatch_thread) {
  const auto nothing = requests_->request("q", {}, 20ms, {});
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code, Errc::timeout);
  EXPECT_EQ(requests_->waiting(), 0u);
  EXPECT_EQ(requests_->counts().timed_out, 1u);
}

// --- answering -------------------------------------------------------------------------------------------------------

TEST_F(RequestsTest, a_responder_answers_to_the_response_topic_with_the_correlation_data) {
  ASSERT_TRUE(requests_->respond("q/+", [](const Message& m) { return "re: " + std::string(m.text()); }, {}));
  deliver("q/+", "q/1", "hi", "answers", "\x01\x02", QoS::exactly_once);
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].topic, "answers");
  EXPECT_EQ(sent_[0].payload, "re: hi");
  EXPECT_EQ(sent_[0].correlation, "\x01\x02");
  EXPECT_EQ(sent_[0].qos, QoS::exactly_once);
  EXPECT_EQ(sent_[0].response_topic, "");
  deliver("q/+", "q/1", "hi", "answers");
  EXPECT_EQ(sent_[1].correlation, std::nullopt) << "none came";
  EXPECT_EQ(sent_[1].qos, QoS::at_most_once);
}

TEST_F(RequestsTest, a_responder_answers_an_envelope_by_an_envelope) {
  std::string reply = R"({"sum": 3})";
  ASSERT_TRUE(requests_->respond("q", [&](const Message&) { return reply; }, {}));
  const auto asked = with_member(question, "reply_to", "answers");
  deliver("q", "q", asked, {}, {}, QoS::at_least_once);
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].topic, "answers");
  EXPECT_EQ(sent_[0].qos, QoS::at_least_once);
  const auto answered = Envelope::parse(sent_[0].payload);
  ASSERT_TRUE(answered) << sent_[0].payload;
  EXPECT_EQ(answered->correlate, "q1");
  EXPECT_EQ(answered->type, "ask.response");
  EXPECT_EQ(answered->source, "me");
  EXPECT_EQ(answered->ts, 1'700'000'000.0);
  EXPECT_EQ(answered->data, R"({"sum":3})");

  reply = R"({"id":"a","type":"own","ts":1,"data":{},"more":1})";
  deliver("q", "q", asked);
  EXPECT_EQ(sent_[1].payload, R"({"correlate":"q1","id":"a","type":"own","ts":1,"data":{},"more":1})");
  reply = R"({"id":"a","type":"own","ts":1,"data":{},"correlate":"q1"})";
  deliver("q", "q", asked);
  EXPECT_EQ(sent_[2].payload, reply);
}

TEST_F(RequestsTest, a_failed_responder_answers_nothing_and_passes_its_error_on) {
  bool throws = false;
  ASSERT_TRUE(requests_->respond("q",
                                 [&](const Message&) -> Result<std::string> {
                                   if (throws) throw std::logic_error("thrown");
                                   return fail(Errc::io_error, "no disk");
                                 },
                                 {}));
  const auto what = [&](std::string_view payload, std::string_view response_topic) {
    try {
      deliver("q", "q", payload, response_topic);
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_EQ(what("?", "answers"), "the responder for \"q\" failed: no disk");
  EXPECT_EQ(what(with_member(question, "reply_to", "answers"), ""),
            "the responder for \"q\" failed: no disk");
  throws = true;
  EXPECT_EQ(what("?", "answers"), "thrown");
  EXPECT_THAT(sent_, IsEmpty());
}

TEST_F(RequestsTest, an_answer_that_does_not_fit_an_envelope_is_an_error_of_the_responder) {
  std::string reply;
  ASSERT_TRUE(requests_->respond("q", [&](const Message&) { return reply; }, {}));
  for (const auto* wrong : {"text", "[1]", R"({"id":"a","type":"own","ts":1,"data":{},"correlate":"else"})",
                            R"({"id":"a","type":"own","ts":1,"data":{},"correlate":null})"}) {
    reply = wrong;
    EXPECT_THROW(deliver("q", "q", with_member(question, "reply_to", "answers")), std::runtime_error)
        << wrong;
  }
  EXPECT_THAT(sent_, IsEmpty());
}

TEST_F(RequestsTest, what_cannot_be_answered_is_counted_and_its_responder_not_asked) {
  int asked = 0;
  ASSERT_TRUE(requests_->respond("q", [&](const Message&) { return ++asked, "x"; }, {}));
  deliver("q", "q", "no response topic");
  deliver("q", "q", question);
  deliver("q", "q", "?", "not/#/a/name");
  deliver("q", "q", with_member(question, "reply_to", "+"));
  deliver("q", "q", with_member(question, "reply_to", std::string_view("a\0b", 3)));
  EXPECT_EQ(asked, 0);
  EXPECT_THAT(sent_, IsEmpty());
  EXPECT_EQ(requests_->counts().unanswerable, 5u);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("neither a response topic nor"), HasSubstr("(2 times so far)"),
                                HasSubstr("`reply_to` is invalid")));
}

TEST_F(RequestsTest, a_lost_answer_is_counted) {
  ASSERT_TRUE(requests_->respond("q", [](const Message&) { return "x"; }, {}));
  deliver("q", "q", "?", "answers");
  sent_[0].told({.id = 1, .outcome = Delivery::Outcome::acknowledged, .reason_code = 0});
  EXPECT_EQ(requests_->counts().answers_lost, 0u);
  deliver("q", "q", "?", "answers");
  sent_[1].told({.id = 1, .outcome = Delivery::Outcome::refused, .reason_code = 0x87});
  publish_error_ = Error{Errc::outbox_full, "full", {}};
  deliver("q", "q", "?", "answers");
  EXPECT_EQ(requests_->counts().answers_lost, 2u);
  EXPECT_EQ(requests_->respond("q", Responder(), {}).error().code, Errc::invalid_config);
}

// --- threads ---------------------------------------------------------------------------------------------------------

// A dispatch thread that works off what is due, and a server that answers most of what it is asked.
class Loop {
 public:
  using Clock = std::chrono::steady_clock;

  void post(Clock::time_point due, std::move_only_function<void()> function) {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      due_.emplace(due, std::move(function));
    }
    changed_.notify_one();
  }
  void run() {
    std::unique_lock lock(mutex_);
    while (!ended_) {
      if (due_.empty()) {
        changed_.wait(lock);
      } else if (const auto next = due_.begin()->first; next > Clock::now()) {
        changed_.wait_until(lock, next);
      } else {
        auto function = std::move(due_.begin()->second);
        due_.erase(due_.begin());
        lock.unlock();
        function();
        lock.lock();
      }
    }
  }
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<Clock::time_point, std::move_only_function<void()>> due_;
  bool ended_ = false;
};

TEST(RequestsThreads, sixteen_asking_and_cancelling_are_each_told_once) {
  constexpr std::size_t askers = 16, each = 200;
  Loop loop;
  std::thread dispatch([&] { loop.run(); });
  const auto dispatch_id = dispatch.get_id();
  std::mutex mutex;
  MessageHandler on_answer;
  std::atomic<std::uint64_t> published{0};
  const auto requests = std::make_shared<Requests>(
      "many", "many",
      Requests::Host{
          .publish = [&](std::string_view, BytesView, const PublishOptions& options,
                         DeliveryHandler told) -> Result<MessageId> {
            const auto number = published.fetch_add(1);
            if (number % 7 == 0) return fail(Errc::outbox_full, "full");
            loop.post(Loop::Clock::now(), [&, number, told = std::move(told),
                                           correlation =
                                               std::string(as_text(*options.correlation_data))]() mutable {
              if (number % 5 == 0)
                return told({.id = number, .outcome = Delivery::Outcome::refused, .reason_code = 0x97});
              if (number % 3 == 0) return;
              std::array<std::byte, 32> buffer{};
              mqtt::PropertyWriter writer(buffer);
              writer.add(PropertyId::correlation_data, correlation);
              Message message;
              message.properties = writer.view();
              MessageHandler handler;
              {
                const std::lock_guard lock(mutex);
                handler = on_answer;
              }
              handler(message);
            });
            return number;
          },
          .subscribe = [&](std::string_view, MessageHandler handler, const SubscribeOptions&,
                           Client::GrantedHandler granted) -> Result<Subscription> {
            loop.post(Loop::Clock::now(), [granted = std::move(granted)] { granted(0x01); });
            const std::lock_guard lock(mutex);
            on_answer = std::move(handler);
            return Subscription();
          },
          .call_later = [&](std::chrono::milliseconds delay,
                            auto function) { loop.post(Loop::Clock::now() + delay, std::move(function)); },
          .protocol = [] { return ProtocolVersion::v5; },
          .on_dispatch_thread = [&] { return std::this_thread::get_id() == dispatch_id; },
          .log = [](LogLevel, const std::string&) {},
          .now = [] { return Loop::Clock::now(); },
          .wall_now = [] { return std::chrono::system_clock::now(); },
      });

  std::atomic<std::uint64_t> accepted{0}, refused{0}, wrong_thread{0};
  std::vector<std::atomic<int>> told(askers * each);
  std::vector<std::thread> threads;
  for (std::size_t asker = 0; asker < askers; ++asker) {
    threads.emplace_back([&, asker] {
      for (std::size_t i = 0; i < each; ++i) {
        if (i % 50 == 49) {  // the waiting form, in between
          const auto answer = requests->request("q", {}, 5ms, {});
          EXPECT_TRUE(answer || answer.error().code != Errc::cancelled);
          continue;
        }
        auto& mine = told[asker * each + i];
        const auto id =
            requests->request("q", {}, std::chrono::milliseconds(1 + i % 20), {}, [&](Result<OwnedMessage>) {
              wrong_thread += std::this_thread::get_id() != dispatch_id;
              ++mine;
            });
        if (!id) {
          ++refused;
          mine = 1;
          continue;
        }
        ++accepted;
        if (i % 4 == 0) requests->cancel(*id);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  loop.post(Loop::Clock::now(), [&] {
    requests->end();
    loop.end();
  });
  dispatch.join();
  for (std::size_t i = 0; i < told.size(); ++i) {
    if (i % each % 50 != 49) {
      ASSERT_EQ(told[i].load(), 1) << i;
    }
  }
  EXPECT_EQ(wrong_thread.load(), 0u);
  EXPECT_GT(refused.load(), 0u);
  EXPECT_EQ(requests->waiting(), 0u);
  EXPECT_GE(requests->counts().requests, accepted.load());
}

}  // namespace
}  // namespace fulmar
