// A work queue behind a real broker: items handed in by messages, and announcements that there is work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <thread>

#include "fulmar/queue_mqtt.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class QueueOverMqtt : public testing::TestWithParam<ProtocolVersion> {
 protected:
  ClientConfig config(const std::string& id) const {
    auto config = config_for(broker_.url(), id, GetParam());
    config.clean_start = false;
    config.session_expiry = 1h;
    return config;
  }
  Queue open(const std::optional<queue::Settings>& settings = {}) const {
    QueueOptions options;
    options.name = "jobs";
    options.settings = settings;
    auto queue = Queue::open("sqlite:" + (directory_ / "jobs.db").string(), options);
    if (!queue) throw std::runtime_error(queue.error().message);
    return std::move(*queue);
  }
  // The gateway's own connection, subscribed.
  void connect(Client& client) {
    ASSERT_TRUE(client.connect(10s));
    ASSERT_TRUE(broker_.log_contains("fulmar/queue/jobs/submit (QoS 1)"));
  }
  static std::uint64_t pending(Queue& queue) { return queue.stats()->counts.pending; }

  Broker broker_;
  TempDir directory_;
};

TEST_P(QueueOverMqtt, makes_items_of_messages) {
  auto queue = open();
  Client client(config("gateway"));
  QueueGateway gateway(client, queue);
  ASSERT_TRUE(gateway.start());
  connect(client);
  Client device(config("device"));
  ASSERT_TRUE(device.connect(10s));
  ASSERT_TRUE(
      device.publish("fulmar/queue/jobs/submit",
                     R"({"type":"resize","payload":{"image":17},"priority":"high","unique_key":"17"})",
                     {.qos = QoS::at_least_once}));
  ASSERT_TRUE(device.publish("fulmar/queue/jobs/submit",
                             R"([{"type":"a"}, {"type":"b","payload":{"x":[1,"]"]}}])",
                             {.qos = QoS::exactly_once}));
  ASSERT_TRUE(eventually([&] { return pending(queue) == 3; }));
  const auto items = queue.peek(3);
  ASSERT_TRUE(items);
  EXPECT_EQ((*items)[0].type, "resize");
  EXPECT_EQ((*items)[0].payload, R"({"image":17})");
  EXPECT_EQ((*items)[0].priority, 75);
  EXPECT_EQ((*items)[2].payload, R"({"x":[1,"]"]})");
  EXPECT_TRUE(eventually([&] { return gateway.stats().items == 3 && gateway.stats().waiting == 0; }));
}

TEST_P(QueueOverMqtt, refuses_what_is_no_item_and_goes_on) {
  auto queue = open();
  Client client(config("gateway"));
  QueueGateway gateway(client, queue);
  ASSERT_TRUE(gateway.start());
  connect(client);
  Client device(config("device"));
  ASSERT_TRUE(device.connect(10s));
  const std::string too_large =
      R"({"payload":{"x":")" + std::string(queue::Limits::payload_bytes, 'x') + R"("}})";
  for (const std::string_view wrong :
       {std::string_view(""), std::string_view("resize"), std::string_view("[{}"), std::string_view("[{},7]"),
        std::string_view(R"({"colour":1})"), std::string_view(R"({"depends_on":["nobody"]})"),
        std::string_view(too_large)}) {
    ASSERT_TRUE(device.publish("fulmar/queue/jobs/submit", wrong, {.qos = QoS::at_least_once}));
  }
  ASSERT_TRUE(device.publish("fulmar/queue/jobs/submit", R"({"type":"good"})", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(eventually([&] { return pending(queue) == 1; }));
  EXPECT_TRUE(eventually([&] { return gateway.stats().refused == 7; })) << gateway.stats().refused;
  EXPECT_EQ(queue.peek(1)->front().type, "good") << "of the list with an error nothing was taken";
}

TEST_P(QueueOverMqtt, acknowledges_only_after_the_commit) {
  auto queue = open(), other = open();
  Client client(config("gateway"));
  QueueGateway gateway(client, queue);
  ASSERT_TRUE(gateway.start());
  connect(client);
  Client device(config("device"));
  ASSERT_TRUE(device.connect(10s));
  std::latch holds(1), may_end(1);
  std::thread holder([&] {
    EXPECT_TRUE(other.with_transaction([&](Queue&) -> Result<void> {
      holds.count_down();
      may_end.wait();
      return {};
    }));
  });
  holds.wait();
  Outcomes outcomes;
  ASSERT_TRUE(device.publish("fulmar/queue/jobs/submit", as_bytes(R"({"type":"x"})"),
                             {.qos = QoS::at_least_once}, outcomes.handler()));
  EXPECT_TRUE(outcomes.wait_for(1)) << "the broker has it";
  EXPECT_TRUE(eventually([&] { return gateway.stats().messages == 1; }));
  EXPECT_FALSE(broker_.log_contains("Received PUBACK from gateway", 0ms));
  may_end.count_down();
  holder.join();
  EXPECT_TRUE(broker_.log_contains("Received PUBACK from gateway"));
  EXPECT_EQ(pending(queue), 1u);
}

TEST_P(QueueOverMqtt, what_had_no_commit_comes_again_after_a_restart) {
  auto queue = open({{.max_size = 1}});
  ASSERT_TRUE(queue.submit("first", "{}"));
  {
    Client client(config("gateway"));
    QueueGateway gateway(client, queue);
    ASSERT_TRUE(gateway.start());
    connect(client);
    Client device(config("device"));
    ASSERT_TRUE(device.connect(10s));
    ASSERT_TRUE(
        device.publish("fulmar/queue/jobs/submit", R"({"type":"second"})", {.qos = QoS::at_least_once}));
    EXPECT_TRUE(eventually([&] { return gateway.stats().retries > 0; })) << "the queue is full";
    EXPECT_EQ(gateway.stats().waiting, 1u);
  }
  ASSERT_TRUE(queue.cancel(queue.peek(1)->front().id));
  EXPECT_EQ(pending(queue), 0u);
  Client client(config("gateway"));
  QueueGateway gateway(client, queue);
  ASSERT_TRUE(gateway.start());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(eventually([&] { return pending(queue) == 1; }));
  EXPECT_EQ(queue.peek(1)->front().type, "second");
}

TEST_P(QueueOverMqtt, waits_for_room_in_a_full_queue) {
  auto queue = open({{.max_size = 2}});
  Client client(config("gateway"));
  QueueGateway gateway(client, queue);
  ASSERT_TRUE(gateway.start());
  connect(client);
  Client device(config("device"));
  ASSERT_TRUE(device.connect(10s));
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(device.publish("fulmar/queue/jobs/submit", "{}", {.qos = QoS::at_least_once}));
  for (int done = 0; done < 5; ++done) {
    const auto leases = queue.wait_claim({}, 20s);
    ASSERT_TRUE(leases && leases->size() == 1) << done;
    ASSERT_TRUE(queue.complete(leases->front().key()));
  }
  EXPECT_TRUE(eventually([&] { return gateway.stats().items == 5; }));
}

TEST_P(QueueOverMqtt, announces_work_whoever_brought_it) {
  auto queue = open(), other = open();
  Client client(config("gateway"));
  QueueGateway gateway(client, queue, {.accept = false, .announce_interval = 5ms});
  Client worker(config("worker"));
  Inbox inbox;
  const auto subscription = worker.subscribe("fulmar/queue/+/ready", inbox.handler(), {}, inbox.granted());
  ASSERT_TRUE(worker.connect(10s));
  ASSERT_TRUE(inbox.grants().wait_for(1));
  ASSERT_TRUE(gateway.start());
  ASSERT_TRUE(client.connect(10s));
  ASSERT_TRUE(other.submit("x", "{}"));
  ASSERT_TRUE(inbox.wait_for(1));
  EXPECT_EQ(inbox.items()[0].topic, "fulmar/queue/jobs/ready");
  EXPECT_THAT(inbox.items()[0].text, HasSubstr(R"({"queue":"jobs","pending":1,"scheduled":0,)"));

  const auto leases = other.claim({});
  ASSERT_TRUE(leases && leases->size() == 1);
  ASSERT_TRUE(other.complete(leases->front().key()));
  queue::NewItem later;
  later.scheduled_at = std::chrono::floor<queue::Duration>(std::chrono::system_clock::now()) + 300ms;
  const auto before = inbox.size();
  ASSERT_TRUE(other.submit(later));
  EXPECT_TRUE(inbox.wait_for(before + 1)) << "when its time has come";
}

INSTANTIATE_TEST_SUITE_P(, QueueOverMqtt, testing::Values(ProtocolVersion::v5, ProtocolVersion::v3_1_1),
                         [](const auto& which) {
                           return which.param == ProtocolVersion::v5 ? "v5" : "v3_1_1";
                         });

TEST(QueueGateways, answers_on_the_response_topic) {
  Broker broker;
  const TempDir directory;
  auto queue = Queue::open("sqlite:" + (directory / "jobs.db").string());
  ASSERT_TRUE(queue);
  Client client(config_for(broker.url(), "gateway"));
  QueueGateway gateway(client, *queue);
  ASSERT_TRUE(gateway.start());
  ASSERT_TRUE(client.connect(10s));
  Client device(config_for(broker.url(), "device"));
  ASSERT_TRUE(device.connect(10s));
  std::optional<Result<OwnedMessage>> answer;
  for (int tries = 0; tries < 20 && !(answer && *answer); ++tries)  // until the gateway is subscribed
    answer = device.request("fulmar/queue/default/submit", as_bytes(R"({"id":"one"})"), 1s);
  ASSERT_TRUE(*answer) << answer->error().message;
  EXPECT_THAT(std::string((**answer)->text()), HasSubstr(R"({"ok":true,"items":[{"id":"one","created":)"));
  answer = device.request("fulmar/queue/default/submit", as_bytes(R"({"id":"one"})"), 10s);
  ASSERT_TRUE(*answer);
  EXPECT_EQ((**answer)->text(), R"({"ok":true,"items":[{"id":"one","created":false}]})") << "came again";
  answer = device.request("fulmar/queue/default/submit", as_bytes(R"({"payload":7})"), 10s);
  ASSERT_TRUE(*answer);
  EXPECT_THAT(std::string((**answer)->text()),
              HasSubstr(R"({"ok":false,"error":"invalid item","message":")"));
}

TEST(QueueGateways, says_which_option_cannot_be) {
  const TempDir directory;
  auto queue = Queue::open("sqlite:" + (directory / "jobs.db").string());
  ASSERT_TRUE(queue);
  Client client(config_for("mqtt://127.0.0.1:1", "never"));
  EXPECT_EQ(QueueGateway(client, *queue, {.prefix = "a/+"}).start().error().code, Errc::invalid_topic);
  EXPECT_EQ(QueueGateway(client, *queue, {.announce_interval = 0ms}).start().error().code,
            Errc::invalid_config);
  EXPECT_EQ(QueueGateway(client, *queue, {.waiting_max = 0}).start().error().code, Errc::invalid_config);
}

}  // namespace
}  // namespace fulmar::test
