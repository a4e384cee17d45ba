// Events, health, heartbeat and de-duplication against a real broker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "fulmar/envelope.hpp"
#include "tests/faults/fault_proxy.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;

std::string name_of(ProtocolVersion version) { return version == ProtocolVersion::v5 ? "v5" : "v3_1_1"; }

// "ready", "lost", ... of a health message; "?" when it is none.
std::string event_of(const Letter& letter) {
  const auto envelope = Envelope::parse(letter.text);
  if (!envelope || envelope->type != "health.status") return "?";
  for (const auto* event : {"ready", "reconnected", "shutdown", "lost"})
    if (envelope->data.contains("\"event\":\"" + std::string(event) + "\"")) return event;
  return "?";
}

std::vector<std::string> events_of(const Inbox& inbox) {
  std::vector<std::string> events;
  for (const auto& letter : inbox.items()) events.push_back(event_of(letter));
  return events;
}

// What somebody who comes now is told about a client's health.
std::string health_now(const Broker& broker, const std::string& client_id) {
  Client late(config_for(broker.url(), "latecomer"));
  Inbox inbox;
  const auto subscription =
      late.subscribe("system/health/" + client_id, inbox.handler(), {.qos = QoS::at_least_once});
  if (!late.connect(10s) || !inbox.wait_for(1)) return "nothing";
  const auto letter = inbox.items()[0];
  return letter.retain ? event_of(letter) : "not retained";
}

class Events : public testing::TestWithParam<ProtocolVersion> {
 protected:
  ClientConfig config(const std::string& url, const std::string& client_id) {
    return config_for(url, client_id, GetParam());
  }
  void watch(const std::string& filter) {
    watching_ = *watcher_.subscribe(filter, seen_.handler(), {.qos = QoS::at_least_once}, seen_.granted());
    ASSERT_TRUE(watcher_.connect(10s));
    ASSERT_TRUE(seen_.grants().wait_for(1));
  }

  Broker broker_;
  Inbox seen_;
  Client watcher_{config_for(broker_.url(), "watcher", GetParam())};
  Subscription watching_;
};

TEST_P(Events, health_is_retained_across_reconnects_and_the_will_speaks_in_between) {
  FaultProxy proxy(broker_.port());
  ASSERT_NO_FATAL_FAILURE(watch("system/health/#"));
  auto of_client = config(proxy.url(), "patient");
  of_client.enable_health = true;
  Client client(of_client);
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(seen_.wait_for(1));
  EXPECT_EQ(health_now(broker_, "patient"), "ready");

  proxy.cut(Ending::rst);
  ASSERT_TRUE(seen_.wait_for(3));
  EXPECT_EQ(health_now(broker_, "patient"), "reconnected");

  client.shutdown(5s);
  ASSERT_TRUE(seen_.wait_for(4));
  EXPECT_THAT(events_of(seen_), ElementsAre("ready", "lost", "reconnected", "shutdown"));
  EXPECT_EQ(health_now(broker_, "patient"), "shutdown");
  for (const auto& letter : seen_.items()) {
    EXPECT_EQ(letter.topic, "system/health/patient");
    EXPECT_EQ(letter.qos, QoS::at_least_once);
    EXPECT_EQ(Envelope::parse(letter.text)->source, "patient");
  }
}

TEST_P(Events, a_killed_client_leaves_word_that_it_is_lost) {
  auto of_client = config(broker_.url(), "victim");
  of_client.enable_health = true;
  const pid_t child = fork();  // before this process has threads
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Client client(of_client);
    client.start();
    for (;;) pause();
  }
  ASSERT_GT(child, 0);
  ASSERT_NO_FATAL_FAILURE(watch("system/health/victim"));
  EXPECT_TRUE(seen_.wait_for(1));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_TRUE(seen_.wait_for(2));
  EXPECT_THAT(events_of(seen_), ElementsAre("ready", "lost"));
  EXPECT_EQ(health_now(broker_, "victim"), "lost");
}

TEST_P(Events, publish_health_needs_a_reason_and_does_nothing_when_it_is_not_enabled) {
  ASSERT_NO_FATAL_FAILURE(watch("system/health/#"));
  Client without(config(broker_.url(), "without"));
  ASSERT_TRUE(without.connect(10s));
  EXPECT_EQ(without.publish_health(true, "fine"), MessageId{0});
  auto of_client = config(broker_.url(), "with");
  of_client.enable_health = true;
  of_client.source_name = "cellar";
  Client with(of_client);
  ASSERT_TRUE(with.connect(10s));
  EXPECT_EQ(with.publish_health(false, "").error().code, Errc::invalid_envelope);
  ASSERT_TRUE(with.publish_health(false, "", "no disk"));
  ASSERT_TRUE(seen_.wait_for(2));
  const auto envelope = Envelope::parse(seen_.items()[1].text);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->source, "cellar");
  EXPECT_THAT(envelope->data, HasSubstr(R"("ok":false,"err":"no disk")"));
  EXPECT_EQ(seen_.items()[0].topic, "system/health/with") << "and nothing of the other";
}

TEST_P(Events, the_heartbeat_comes_at_once_and_then_at_its_interval) {
  Collected<Clock::time_point> times;
  Inbox beats;
  auto handler = beats.handler();
  watching_ = *watcher_.subscribe(
      "system/keepalive/+",
      [times, handler](const Message& message) {
        times.add(Clock::now());
        handler(message);
      },
      {}, seen_.granted());
  ASSERT_TRUE(watcher_.connect(10s));
  ASSERT_TRUE(seen_.grants().wait_for(1));
  auto of_client = config(broker_.url(), "heart");
  of_client.enable_heartbeat = true;
  of_client.heartbeat_interval = 1s;
  Client client(of_client);
  const auto begin = Clock::now();
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(beats.wait_for(4));
  const auto at = times.items();
  const auto tolerance = sanitized ? 900ms : 300ms;
  EXPECT_LT(at[0] - begin, tolerance);
  for (std::size_t i = 1; i < 4; ++i) {
    EXPECT_GT(at[i] - at[i - 1], 1s - tolerance);
    EXPECT_LT(at[i] - at[i - 1], 1s + tolerance);
  }
  const auto beat = beats.items()[0];
  EXPECT_EQ(beat.topic, "system/keepalive/heart");
  EXPECT_EQ(beat.qos, QoS::at_most_once);
  EXPECT_FALSE(beat.retain);
  EXPECT_THAT(beat.text, testing::StartsWith(R"({"ok":true,"event":"heartbeat","timestamp":)"));
}

TEST_P(Events, a_link_that_takes_no_heartbeat_for_three_intervals_is_made_anew) {
  FaultProxy proxy(broker_.port(), {.receive_buffer = 4'096});
  auto of_client = config(proxy.url(), "stuck");
  of_client.enable_heartbeat = true;
  of_client.heartbeat_interval = 1s;
  of_client.keepalive = 3'600s;  // not what notices it
  of_client.outbox_bytes = std::size_t{64} << 20;
  Client client(of_client);
  Collected<StateChange> changes;
  client.on_state_change([changes](const StateChange& change) {
    if (change.state == ConnectionState::reconnecting) changes.add(change);
  });
  ASSERT_TRUE(client.connect(10s));
  proxy.set_flow(Direction::up, FaultProxy::Flow::stall);
  const std::string large(32'768, 'x');
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(client.publish("fill", large));  // more than sockets hold
  const auto begin = Clock::now();
  ASSERT_TRUE(changes.wait_for(1, 10s));
  EXPECT_GT(Clock::now() - begin, 1'500ms) << "three intervals after the last success";
  EXPECT_THAT(changes.items()[0].reason, HasSubstr("heartbeat"));
  EXPECT_EQ(client.metrics().disconnects_by_timeout, 1u);
  proxy.set_flow(Direction::up, FaultProxy::Flow::pass);
  EXPECT_TRUE(client.wait_for(ConnectionState::connected, 20s));
}

TEST_P(Events, an_event_is_an_envelope_with_the_id_that_is_returned) {
  ASSERT_NO_FATAL_FAILURE(watch("doors/#"));
  auto of_client = config(broker_.url(), "door");
  of_client.source_name = "hall";
  Client client(of_client);
  ASSERT_TRUE(client.connect(10s));
  const auto before = std::chrono::system_clock::now();
  const auto plain = client.publish_event("doors/1", "door.opened", R"({"who": "Ada"})");
  const auto answer = client.publish_event(
      "doors/1", "door.closed", "{}", {.correlation_id = "c-1", .qos = QoS::at_least_once, .retain = true});
  ASSERT_TRUE(plain && answer);
  ASSERT_TRUE(seen_.wait_for(2));
  const auto first = *Envelope::parse(seen_.items()[0].text),
             second = *Envelope::parse(seen_.items()[1].text);
  EXPECT_EQ(first.id, *plain);
  EXPECT_EQ(first.type, "door.opened");
  EXPECT_EQ(first.source, "hall");
  EXPECT_EQ(first.data, R"({"who":"Ada"})");
  EXPECT_EQ(first.correlate, "");
  EXPECT_NEAR(first.ts, std::chrono::duration<double>(before.time_since_epoch()).count(), 10.0);
  EXPECT_EQ(seen_.items()[0].qos, QoS::at_most_once);
  EXPECT_EQ(second.id, *answer);
  EXPECT_EQ(second.correlate, "c-1");
  EXPECT_EQ(seen_.items()[1].qos, QoS::at_least_once);
  EXPECT_LT(first.id, second.id) << "identifiers sort by time";
  EXPECT_EQ(client.publish_event("doors/1", "t", "[1]").error().code, Errc::invalid_envelope);
  EXPECT_EQ(client.publish_event("doors/#", "t", "{}").error().code, Errc::invalid_topic);
}

TEST_P(Events, an_envelope_that_comes_again_is_handled_once_by_each_handler_that_succeeded) {
  auto of_client = config(broker_.url(), "reader");
  of_client.dedupe_ttl = 30s;
  of_client.dedupe_max_entries = 2'048;
  Client reader(of_client);
  Inbox all, last;
  Collected<std::string> failing;
  const auto handler = all.handler();
  const auto first = *reader.subscribe("in", handler, {.qos = QoS::at_least_once});
  const auto second = *reader.subscribe(
      "+",
      [failing](const Message& message) {
        failing.add(std::string(message.text()));
        if (failing.size() == 1) throw std::runtime_error("not yet");
      },
      {.qos = QoS::at_least_once}, all.granted());
  const auto marker =
      *reader.subscribe("end/of/it", last.handler(), {.qos = QoS::at_least_once}, last.granted());
  ASSERT_TRUE(reader.connect(10s));
  ASSERT_TRUE(all.grants().wait_for(1));
  ASSERT_TRUE(last.grants().wait_for(1));
  ASSERT_TRUE(watcher_.connect(10s));
  const std::string one = R"({"id":"1","type":"t","ts":1,"source":"s","data":{"a":1,"b":2}})";
  const std::string same = R"({"data":{"b":2.0,"a":1},"ts":2,"type":"t","id":"1"})";
  const std::string other = R"({"id":"1","type":"t","ts":1,"data":{"a":1,"b":3}})";
  for (const auto& text : {one, same, one, other, std::string("plain"), std::string("plain")})
    ASSERT_TRUE(watcher_.publish("in", text, {.qos = QoS::at_least_once}));
  ASSERT_TRUE(watcher_.publish("end/of/it", "", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(last.wait_for(1));
  std::vector<std::string> got;
  for (const auto& letter : all.items()) got.push_back(letter.text);
  // A broker may send a message once for each overlapping subscription; mosquitto sends it once.
  EXPECT_THAT(got, ElementsAre(one, other, "plain", "plain"));
  EXPECT_THAT(failing.items(), ElementsAre(one, same, other, "plain", "plain")) << "the first time it failed";
  EXPECT_EQ(reader.metrics().duplicates, 3u);
}

INSTANTIATE_TEST_SUITE_P(, Events, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace fulmar::test
