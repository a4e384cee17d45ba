// What outlives a connection, a client or the server: wills, sessions and accepted messages.
#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "tests/interop/relay.hpp"
#include "tests/interop/world.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;

ClientConfig persistent(ClientConfig config) {
  config.clean_start = false;
  config.session_expiry = 1h;
  return config;
}

std::set<std::string> texts_of(const Inbox& inbox) {
  std::set<std::string> texts;
  for (const auto& letter : inbox.items()) texts.insert(letter.text);
  return texts;
}

// Waits until there are so many different texts: at-least-once may repeat any.
bool wait_for_texts(const Inbox& inbox, std::size_t count, std::chrono::seconds timeout = 20s) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (std::size_t seen = inbox.size(); texts_of(inbox).size() < count; seen = inbox.size()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left <= 0ms) return false;
    (void)inbox.wait_for(seen + 1, std::min(left, 100ms));
  }
  return true;
}

class Life : public EachVersion {};

TEST_P(Life, that_ends_without_goodbye_leaves_a_will) {
  const std::string topic = unique("will");
  Client heir(config());
  Inbox inbox;
  const auto subscription =
      *heir.subscribe(topic, inbox.handler(), {.qos = QoS::at_least_once}, inbox.granted());
  ASSERT_TRUE(heir.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(1));

  Relay relay(server().port());
  auto mortal_config = config();
  mortal_config.urls = {relay.url()};
  mortal_config.will = WillMessage{topic, "gone", QoS::at_least_once, false};
  {
    Client mortal(mortal_config);
    ASSERT_TRUE(mortal.connect(20s));
    relay.cut();
    ASSERT_TRUE(inbox.wait_for(1));
    EXPECT_EQ(inbox.items()[0].text, "gone");
    EXPECT_EQ(inbox.items()[0].qos, QoS::at_least_once);
    relay.mend();
    ASSERT_TRUE(mortal.wait_for(ConnectionState::connected, 20s));
  }
  // A goodbye takes the will back.
  ASSERT_TRUE(heir.publish(topic, "behind it", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(inbox.wait_for(2));
  EXPECT_EQ(inbox.items()[1].text, "behind it");
}

TEST_P(Life, of_a_session_goes_on_with_what_was_not_acknowledged_and_what_came_meanwhile) {
  const std::string root = unique("resume");
  Relay relay(server().port());
  auto reader_config = persistent(config());
  reader_config.urls = {relay.url()};
  Inbox inbox;
  std::atomic<bool> busy{true};
  Client writer(config());
  Client reader(reader_config);
  const auto greetings = greetings_of(reader);
  const auto subscription = *reader.subscribe(
      root + "/+",
      [&busy, collect = inbox.handler()](const Message& message) {
        collect(message);
        while (busy) std::this_thread::sleep_for(1ms);  // acknowledged when the handler has returned
      },
      {.qos = QoS::at_least_once}, inbox.granted());
  ASSERT_TRUE(reader.connect(20s));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  ASSERT_TRUE(writer.connect(20s));
  const auto write = [&](int first, int last) {
    for (int i = first; i <= last; ++i) {
      EXPECT_TRUE(
          writer.publish(root + "/" + std::to_string(i), std::to_string(i), {.qos = QoS::at_least_once}));
    }
    return writer.flush(20s);
  };
  const bool first = write(1, 5);
  const bool arrived = inbox.wait_for(1);
  relay.cut();
  const bool noticed = reader.wait_for(ConnectionState::reconnecting, 20s);
  const bool second = write(6, 8);
  busy = false;
  ASSERT_TRUE(first && arrived && noticed && second);
  relay.mend();
  ASSERT_TRUE(greetings.wait_for(2));
  EXPECT_TRUE(greetings.items()[1].contains("session resumed")) << greetings.items()[1];
  EXPECT_TRUE(wait_for_texts(inbox, 8)) << texts_of(inbox).size() << " arrived";
}

INSTANTIATE_TEST_SUITE_P(Interop, Life, each_kind_and_version(), each_version_name);

// Once for each server: their recoveries take seconds.
class Crash : public World, public testing::WithParamInterface<Server::Kind> {
 protected:
  Kind kind() const override { return GetParam(); }
  ClientConfig config(const std::string& id = unique("client")) const {
    return World::config(traits(kind()).version, id);
  }
};

TEST_P(Crash, takes_no_session_no_retained_and_no_acknowledged_message_and_none_that_was_accepted) {
  const std::string root = unique("crash");
  Client writer(config());
  ASSERT_TRUE(writer.connect(20s));
  ASSERT_TRUE(writer.publish(root + "/kept", "kept", {.qos = QoS::at_least_once, .retain = true}));

  const auto reader_config = persistent(config());
  Inbox inbox;
  {
    Client reader(reader_config);
    auto subscription =
        *reader.subscribe(root + "/n/+", inbox.handler(), {.qos = QoS::at_least_once}, inbox.granted());
    ASSERT_TRUE(reader.connect(20s));
    ASSERT_TRUE(inbox.grants().wait_for(1));
    subscription.detach();
  }
  Inbox live;
  const auto still =
      *writer.subscribe(root + "/live", live.handler(), {.qos = QoS::at_least_once}, live.granted());
  ASSERT_TRUE(live.grants().wait_for(1));
  Outcomes outcomes;
  const std::string numbered = root + "/n/";
  const auto write = [&](int first, int last) {
    for (int i = first; i <= last; ++i) {
      const std::string text = std::to_string(i);
      EXPECT_TRUE(
          writer.publish(numbered + text, as_bytes(text), {.qos = QoS::at_least_once}, outcomes.handler()));
    }
  };
  write(1, 100);
  ASSERT_TRUE(outcomes.wait_for(100));
  ASSERT_EQ(outcomes.count(Delivery::Outcome::acknowledged), 100u);
  server().settle(root + "/kept");

  server().kill();
  ASSERT_TRUE(writer.wait_for(ConnectionState::reconnecting, 20s));
  write(101, 200);
  server().start();
  ASSERT_TRUE(outcomes.wait_for(200, 60s)) << outcomes.size() << "; " << writer.last_change().reason;
  EXPECT_EQ(outcomes.count(Delivery::Outcome::acknowledged), 200u);
  EXPECT_EQ(outcomes.size(), 200u);

  ASSERT_TRUE(live.grants().wait_for(2)) << "subscribed again: the session was a clean one";
  ASSERT_TRUE(writer.publish(root + "/live", "again", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(live.wait_for(1));

  Client reader(reader_config);
  const auto greetings = greetings_of(reader);
  const auto subscription = *reader.subscribe(root + "/n/+", inbox.handler(), {.qos = QoS::at_least_once});
  const auto connected = reader.connect(20s);
  ASSERT_TRUE(connected) << connected.error().message;
  ASSERT_TRUE(greetings.wait_for(1));
  EXPECT_TRUE(greetings.items()[0].contains("session resumed")) << greetings.items()[0];
  EXPECT_TRUE(wait_for_texts(inbox, 200)) << texts_of(inbox).size() << " arrived";

  Inbox retained;
  const auto kept = *reader.subscribe(root + "/kept", retained.handler(), {.qos = QoS::at_least_once});
  ASSERT_TRUE(retained.wait_for(1));
  EXPECT_EQ(retained.items()[0].text, "kept");
}

INSTANTIATE_TEST_SUITE_P(Interop, Crash, each_kind(),
                         [](const auto& test) { return std::string(to_string(test.param)); });

}  // namespace
}  // namespace fulmar::test
