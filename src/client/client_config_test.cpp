#include "fulmar/client_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

ClientConfig good() {
  ClientConfig config;
  config.urls = {"mqtt://localhost"};
  config.client_id = "test";
  return config;
}

Result<ClientConfig> from(std::vector<const char*> environment, ClientConfig base = {}) {
  environment.push_back(nullptr);
  return ClientConfig::from_env(std::move(base), environment.data());
}

TEST(ClientConfig, is_valid_with_a_url_and_a_client_id) { EXPECT_THAT(good().problems(), IsEmpty()); }

TEST(ClientConfig, names_every_problem_at_once_with_field_variable_and_value) {
  ClientConfig config;
  config.urls = {"http://x"};
  config.keepalive = 4000s;
  config.reconnect_min_delay = 2s;
  config.reconnect_max_delay = 1s;
  config.max_inflight = 0;
  EXPECT_THAT(config.problems(),
              ElementsAre(HasSubstr("urls (MQTT_URL): invalid URL \"http://x\""),
                          HasSubstr("client_id (MQTT_CLIENT_ID) is empty"),
                          HasSubstr("keepalive (MQTT_KEEPALIVE) is 4000; expected 1 to 3600 s"),
                          HasSubstr("reconnect_max_delay (MQTT_RECONNECT_MAX_DELAY) is 1000 ms"),
                          HasSubstr("max_inflight is 0; expected 1 to 65535")));
}

TEST(ClientConfig, refuses_a_password_without_a_user_in_3_1_1_only_MQTT_3_1_2_22) {
  auto config = good();
  config.password = "secret";
  EXPECT_THAT(config.problems(), IsEmpty());
  config.protocol = ProtocolVersion::v3_1_1;
  ASSERT_EQ(config.problems().size(), 1u);
  EXPECT_THAT(config.problems().front(), Not(HasSubstr("secret")));
  config.urls = {"mqtt://user@localhost"};
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ClientConfig, reads_every_variable) {
  const auto config =
      from({"MQTT_URL=mqtt://a:1,mqtt://b:2", "MQTT_CLIENT_ID=me", "MQTT_USERNAME=u", "MQTT_PASSWORD=p=q",
            "MQTT_PROTOCOL=3.1.1", "MQTT_KEEPALIVE=30", "MQTT_CLEAN_START=No", "MQTT_SESSION_EXPIRY=3600",
            "MQTT_CONNECT_TIMEOUT=2.5", "MQTT_RECONNECT_MIN_DELAY=0.1", "MQTT_RECONNECT_MAX_DELAY=120",
            "MQTT_OUTBOX_BYTES=1048576", "MQTT_INBOUND_BYTES=524288", "MQTT_OVERFLOW=reject",
            "MQTT_WAKEUP=lazy:5", "PATH=/bin"});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->urls, ElementsAre("mqtt://a:1", "mqtt://b:2"));
  EXPECT_EQ(config->client_id, "me");
  EXPECT_EQ(config->username, "u");
  EXPECT_EQ(config->password, "p=q");
  EXPECT_EQ(config->protocol, ProtocolVersion::v3_1_1);
  EXPECT_EQ(config->keepalive, 30s);
  EXPECT_FALSE(config->clean_start);
  EXPECT_EQ(config->session_expiry, 3600s);
  EXPECT_EQ(config->connect_timeout, 2500ms);
  EXPECT_EQ(config->reconnect_min_delay, 100ms);
  EXPECT_EQ(config->reconnect_max_delay, 120s);
  EXPECT_EQ(config->outbox_bytes, 1'048'576u);
  EXPECT_EQ(config->inbound_bytes, 524'288u);
  EXPECT_EQ(config->overflow, Overflow::reject);
  EXPECT_EQ(config->wakeup.lazy_interval, 5ms);
  EXPECT_THAT(config->problems(), IsEmpty());
}

TEST(ClientConfig, reports_every_bad_variable_and_a_near_miss_for_unknown_ones) {
  const auto config =
      from({"MQTT_KEEP_ALIVE=3", "MQTT_SOMETHING_ELSE=1", "MQTT_PROTOCOL=4", "MQTT_CLEAN_START=maybe",
            "MQTT_KEEPALIVE=1.5", "MQTT_OUTBOX_BYTES=8M", "MQTT_WAKEUP=lazy", "MQTT_CONNECT_TIMEOUT=nan"});
  ASSERT_FALSE(config);
  const auto& text = config.error().message;
  EXPECT_THAT(text, HasSubstr("MQTT_KEEP_ALIVE is not known; did you mean MQTT_KEEPALIVE?"));
  EXPECT_THAT(text, HasSubstr("MQTT_SOMETHING_ELSE is not known; remove it"));
  EXPECT_THAT(text, HasSubstr("MQTT_PROTOCOL is \"4\"; expected 5 or 3.1.1"));
  EXPECT_THAT(text, HasSubstr("MQTT_CLEAN_START is \"maybe\"; expected true or false"));
  EXPECT_THAT(text, HasSubstr("MQTT_KEEPALIVE is \"1.5\"; expected whole seconds"));
  EXPECT_THAT(text, HasSubstr("MQTT_OUTBOX_BYTES is \"8M\"; expected a number of bytes"));
  EXPECT_THAT(text, HasSubstr("MQTT_WAKEUP is \"lazy\"; expected eager, or lazy:MS"));
  EXPECT_THAT(text, HasSubstr("MQTT_CONNECT_TIMEOUT is \"nan\"; expected a number of seconds"));
}

TEST(ClientConfig, reads_the_password_from_a_file_without_its_line_end) {
  const std::string path = testing::TempDir() + "fulmar-password";
  std::ofstream(path) << "s3cret \n";
  const std::string variable = "MQTT_PASSWORD_FILE=" + path;
  EXPECT_EQ(from({variable.c_str()})->password, "s3cret ");
  EXPECT_THAT(from({variable.c_str(), "MQTT_PASSWORD=x"}).error().message, HasSubstr("both set"));
  std::remove(path.c_str());
  EXPECT_THAT(from({variable.c_str()}).error().message, HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace fulmar
