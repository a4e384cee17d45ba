// What the standards ask of a client and the rooms above the session keep.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <semaphore>
#include <string>

#include "client/dispatcher.hpp"
#include "fulmar/client_config.hpp"

namespace fulmar {
namespace {

using namespace std::chrono_literals;

TEST(ClientClauses, the_texts_of_connect_are_utf8_without_null_MQTT_3_1_3_4_MQTT_3_1_3_11_MQTT_3_1_3_12) {
  ClientConfig good;
  good.urls = {"mqtt://localhost"};
  good.client_id = "c";
  good.username = "u";
  good.will.emplace().topic = "w";
  for (const auto version : {ProtocolVersion::v3_1_1, ProtocolVersion::v5}) {
    good.protocol = version;
    ASSERT_THAT(good.problems(), testing::IsEmpty());
    for (const std::string& bad : {std::string("\xff"), std::string("\xed\xa0\x80"), std::string("a\0", 2),
                                   std::string(65'536, 'x')}) {
      auto config = good;
      config.client_id = bad;
      EXPECT_THAT(config.problems(), testing::ElementsAre(testing::HasSubstr("client_id")));
      config = good;
      config.username = bad;
      EXPECT_THAT(config.problems(), testing::ElementsAre(testing::HasSubstr("username")));
      config = good;
      config.will->topic = bad;
      EXPECT_THAT(config.problems(), testing::ElementsAre(testing::HasSubstr("will.topic")));
    }
    for (const auto* topic : {"", "w/+", "#"}) {
      auto config = good;
      config.will->topic = topic;
      EXPECT_THAT(config.problems(), testing::ElementsAre(testing::HasSubstr("will.topic"))) << topic;
    }
    auto config = good;
    config.client_id = "";
    EXPECT_THAT(config.problems(), testing::ElementsAre(testing::HasSubstr("client_id")));
  }
}

TEST(ClientClauses, a_message_that_no_handler_wants_counts_as_handled_and_is_acknowledged_MQTT_4_5_0_2) {
  HandlerTable table;
  std::binary_semaphore told(0);
  DispatchPool pool(1);
  Dispatcher dispatcher(pool.assign(), 1 << 16, table, [&] { told.release(); });
  dispatcher.start(nullptr);
  mqtt::PublishView message;
  message.topic = "nobody/listens";
  message.qos = QoS::at_least_once;
  message.packet_id = 1;
  ASSERT_TRUE(dispatcher.deliver(message));
  EXPECT_TRUE(told.try_acquire_for(10s));
  EXPECT_EQ(dispatcher.handled(), 1u);
  EXPECT_TRUE(dispatcher.stop(std::chrono::steady_clock::now() + 10s));
}

}  // namespace
}  // namespace fulmar
