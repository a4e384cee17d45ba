#include "fulmar/client_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <functional>

namespace fulmar {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
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
  const auto config = from({"MQTT_URL=mqtt://a:1,mqtt://b:2",
                            "MQTT_CLIENT_ID=me",
                            "MQTT_USERNAME=u",
                            "MQTT_PASSWORD=p=q",
                            "MQTT_PROTOCOL=3.1.1",
                            "MQTT_KEEPALIVE=30",
                            "MQTT_CLEAN_START=No",
                            "MQTT_SESSION_EXPIRY=3600",
                            "MQTT_CONNECT_TIMEOUT=2.5",
                            "MQTT_RECONNECT_MIN_DELAY=0.1",
                            "MQTT_RECONNECT_MAX_DELAY=120",
                            "MQTT_OUTBOX_BYTES=1048576",
                            "MQTT_INBOUND_BYTES=524288",
                            "MQTT_OVERFLOW=reject",
                            "MQTT_WAKEUP=lazy:5",
                            "MQTT_SOURCE_NAME=hall",
                            "MQTT_ENABLE_HEALTH=TRUE",
                            "MQTT_ENABLE_HEARTBEAT=on",
                            "MQTT_HEARTBEAT_INTERVAL=1.5",
                            "MQTT_DEDUPE_TTL=30",
                            "MQTT_DEDUPE_MAX_ENTRIES=2048",
                            "MQTT_CA_FILE=/ca.pem",
                            "MQTT_CERT_FILE=/cert.pem",
                            "MQTT_KEY_FILE=/key.pem",
                            "MQTT_TLS_INSECURE=0",
                            "PATH=/bin"});
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
  EXPECT_EQ(config->source_name, "hall");
  EXPECT_TRUE(config->enable_health);
  EXPECT_TRUE(config->enable_heartbeat);
  EXPECT_EQ(config->heartbeat_interval, 1'500ms);
  EXPECT_EQ(config->dedupe_ttl, 30s);
  EXPECT_EQ(config->dedupe_max_entries, 2'048u);
  EXPECT_EQ(config->tls.ca_file, "/ca.pem");
  EXPECT_EQ(config->tls.cert_file, "/cert.pem");
  EXPECT_EQ(config->tls.key_file, "/key.pem");
  EXPECT_FALSE(config->tls.insecure);
  EXPECT_THAT(config->problems(), Contains(HasSubstr("nothing would be encrypted")))
      << "the whole is not from_env's";
}

TEST(ClientConfig, reads_every_overflow_policy_that_there_is) {
  EXPECT_EQ(from({"MQTT_OVERFLOW=drop_newest"})->overflow, Overflow::drop_newest);
  EXPECT_EQ(from({"MQTT_OVERFLOW=drop_oldest"})->overflow, Overflow::drop_oldest);
  EXPECT_EQ(from({"MQTT_OVERFLOW=reject"})->overflow, Overflow::reject);
  EXPECT_EQ(from({"MQTT_OVERFLOW=block"})->overflow, Overflow::block);
  EXPECT_EQ(from({"MQTT_OVERFLOW=spool"})->overflow, Overflow::spool);
  EXPECT_EQ(from({"MQTT_OVERFLOW=explode"}).error().message,
            "MQTT_OVERFLOW is \"explode\"; expected spool, drop_newest, drop_oldest, reject or block");
}

TEST(ClientConfig, reads_where_and_how_durably_messages_wait) {
  const auto config = from(
      {"MQTT_SPOOL_DIR=/var/spool/x", "MQTT_SPOOL_BYTES=4194304", "MQTT_DURABILITY=write_ahead"}, good());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->spool_dir, "/var/spool/x");
  EXPECT_EQ(config->spool_bytes, 4'194'304u);
  EXPECT_EQ(config->durability, Durability::write_ahead);
  EXPECT_THAT(config->problems(), IsEmpty());
  EXPECT_EQ(from({"MQTT_DURABILITY=memory"})->durability, Durability::memory);
  EXPECT_EQ(from({"MQTT_DURABILITY=spill"})->durability, Durability::spill);
}

TEST(ClientConfig, says_what_is_wrong_with_the_variables_of_the_spool) {
  const auto config = from({"MQTT_SPOOL_BYTES=1G", "MQTT_DURABILITY=forever"});
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message,
            "MQTT_SPOOL_BYTES is \"1G\"; expected a number of bytes\n"
            "MQTT_DURABILITY is \"forever\"; expected memory, spill or write_ahead");
}

TEST(ClientConfig, shows_a_strange_value_on_one_line) {
  const auto message = from({"MQTT_PROTOCOL=5\n\x1b[31m"}).error().message;
  EXPECT_EQ(message, "MQTT_PROTOCOL is \"5??[31m\"; expected 5 or 3.1.1");
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

// The problems of a good configuration after `change`; what the URL's scheme has to say is left out.
std::vector<std::string> after(const std::function<void(ClientConfig&)>& change) {
  auto config = good();
  change(config);
  auto found = config.problems();
  std::erase_if(found, [](const std::string& line) { return line.starts_with("urls (MQTT_URL): "); });
  return found;
}

TEST(ClientConfig, de_duplicates_with_entries_only) {
  EXPECT_THAT(after([](auto& c) { c.dedupe_ttl = 30s; }),
              ElementsAre(HasSubstr("dedupe_max_entries (MQTT_DEDUPE_MAX_ENTRIES) is 0; with dedupe_ttl "
                                    "(MQTT_DEDUPE_TTL) of 30000 ms")));
  EXPECT_THAT(after([](auto& c) { c.dedupe_ttl = 30s, c.dedupe_max_entries = 1; }), IsEmpty());
  EXPECT_THAT(after([](auto& c) { c.dedupe_ttl = -1ms; }),
              ElementsAre(HasSubstr("dedupe_ttl (MQTT_DEDUPE_TTL) is -1")));
}

TEST(ClientConfig, bounds_heartbeats_subscriptions_and_waiting) {
  EXPECT_THAT(after([](auto& c) { c.heartbeat_interval = 999ms; }),
              ElementsAre(HasSubstr("heartbeat_interval (MQTT_HEARTBEAT_INTERVAL) is 999; expected 1000")));
  EXPECT_THAT(after([](auto& c) { c.max_subscriptions = 0; }),
              ElementsAre(HasSubstr("max_subscriptions is 0")));
  EXPECT_THAT(after([](auto& c) { c.max_subscriptions = 1'000'001; }),
              ElementsAre(HasSubstr("max_subscriptions is 1000001; expected 1 to 1000000")));
  EXPECT_THAT(after([](auto& c) { c.ack_timeout = -1ms; }), ElementsAre(HasSubstr("ack_timeout is -1")));
  EXPECT_THAT(after([](auto& c) { c.block_timeout = 5s; }),
              ElementsAre(HasSubstr("block_timeout is 5000 ms")));
  EXPECT_THAT(after([](auto& c) { c.block_timeout = 5s, c.overflow = Overflow::block; }), IsEmpty());
  EXPECT_THAT(after([](auto& c) { c.block_timeout = 0s, c.overflow = Overflow::block; }),
              ElementsAre(HasSubstr("block_timeout is 0")));
}

TEST(ClientConfig, bounds_the_spool) {
  EXPECT_THAT(after([](auto& c) { c.spool_dir = "/s", c.spool_bytes = 1 << 20, c.spool_max_age = 1s; }),
              IsEmpty());
  EXPECT_THAT(after([](auto& c) { c.spool_bytes = (1 << 20) - 1; }),
              ElementsAre(HasSubstr("spool_bytes (MQTT_SPOOL_BYTES) is 1048575; expected 1048576 to")));
  EXPECT_THAT(after([](auto& c) { c.spool_bytes = (std::uint64_t{1} << 40) + 1; }),
              ElementsAre(HasSubstr("spool_bytes (MQTT_SPOOL_BYTES) is 1099511627777; expected")));
  EXPECT_THAT(after([](auto& c) { c.spool_max_age = 0s; }),
              ElementsAre(HasSubstr("spool_max_age is 0; expected 1")));
  EXPECT_THAT(after([](auto& c) { c.spool_dir = std::string("/a\0b", 4); }),
              ElementsAre(HasSubstr("spool_dir (MQTT_SPOOL_DIR) is not a path")));
  EXPECT_THAT(after([](auto& c) { c.spool_dir.assign(4'001, 'x'); }),
              ElementsAre(HasSubstr("spool_dir (MQTT_SPOOL_DIR) is not a path of at most 4000 bytes")));
}

TEST(ClientConfig, wants_a_folder_where_the_disk_is_asked_for_and_none_where_it_is_not) {
  EXPECT_THAT(after([](auto& c) { c.durability = Durability::write_ahead; }),
              ElementsAre(HasSubstr("durability (MQTT_DURABILITY) is write_ahead without spool_dir")));
  EXPECT_THAT(after([](auto& c) { c.overflow = Overflow::spool; }),
              ElementsAre(HasSubstr("overflow (MQTT_OVERFLOW) is spool without spool_dir")));
  EXPECT_THAT(
      after([](auto& c) { c.spool_dir = "/s", c.durability = Durability::memory; }),
      ElementsAre(HasSubstr("spool_dir (MQTT_SPOOL_DIR) is \"/s\", which durability (MQTT_DURABILITY) "
                            "memory does not use")));
  EXPECT_THAT(after([](auto& c) { c.durability = Durability::memory; }), IsEmpty());
  for (const auto durability : {Durability::spill, Durability::write_ahead}) {
    EXPECT_THAT(
        after([=](auto& c) { c.spool_dir = "/s", c.durability = durability, c.overflow = Overflow::spool; }),
        IsEmpty());
  }
}

TEST(ClientConfig, wants_its_names_in_UTF_8_and_fit_for_the_topics_they_are_part_of) {
  EXPECT_THAT(after([](auto& c) { c.source_name = "\xff"; }),
              ElementsAre(HasSubstr("source_name (MQTT_SOURCE_NAME) is not valid UTF-8")));
  EXPECT_THAT(after([](auto& c) { c.client_id = "a+b"; }), IsEmpty());
  for (const bool health : {true, false}) {
    EXPECT_THAT(
        after([=](auto& c) { c.client_id = "a+b", c.enable_health = health, c.enable_heartbeat = !health; }),
        ElementsAre(HasSubstr("client_id (MQTT_CLIENT_ID) is \"a+b\"; with enable_health")));
  }
}

TEST(ClientConfig, wants_certificate_and_key_together) {
  const auto tls = [](auto change) {
    return after([&](auto& c) {
      c.urls = {"mqtts://host"};
      change(c.tls);
    });
  };
  EXPECT_THAT(tls([](auto& t) { t.cert_file = "c", t.key_file = "k", t.ca_file = "a"; }), IsEmpty());
  EXPECT_THAT(
      tls([](auto& t) { t.cert_file = "c"; }),
      ElementsAre(HasSubstr("tls.cert_file (MQTT_CERT_FILE) is \"c\" without tls.key_file (MQTT_KEY_FILE)")));
  EXPECT_THAT(
      tls([](auto& t) { t.key_file = "k"; }),
      ElementsAre(HasSubstr("tls.key_file (MQTT_KEY_FILE) is \"k\" without tls.cert_file (MQTT_CERT_FILE)")));
  EXPECT_THAT(
      tls([](auto& t) { t.key_password = "hidden"; }),
      ElementsAre(testing::AllOf(HasSubstr("tls.key_password is set without"), Not(HasSubstr("hidden")))));
  EXPECT_THAT(tls([](auto& t) { t.insecure = true; }), IsEmpty());
  EXPECT_THAT(tls([](auto& t) { t.insecure = true, t.ca_file = "a"; }),
              ElementsAre(HasSubstr(
                  "tls.insecure (MQTT_TLS_INSECURE) is true, so tls.ca_file (MQTT_CA_FILE) is \"a\"")));
  EXPECT_THAT(tls([](auto& t) { t.psk = "hidden", t.psk_identity = "me"; }), IsEmpty());
  EXPECT_THAT(tls([](auto& t) { t.psk = "hidden"; }),
              ElementsAre(testing::AllOf(HasSubstr("tls.psk is set without"), Not(HasSubstr("hidden")))));
  EXPECT_THAT(tls([](auto& t) { t.psk_identity = "me"; }), ElementsAre(HasSubstr("without tls.psk")));
  EXPECT_THAT(tls([](auto& t) { t.psk = "hidden", t.psk_identity = "me", t.ca_file = "a"; }),
              ElementsAre(HasSubstr("together with files of certificates")));
  EXPECT_THAT(tls([](auto& t) { t.alpn = {"mqtt", ""}; }),
              ElementsAre(HasSubstr("tls.alpn has a name of 0 bytes")));
}

TEST(ClientConfig, does_not_take_keys_and_authorities_in_order_to_speak_in_the_clear) {
  constexpr auto in_the_clear = "nothing would be encrypted";
  EXPECT_THAT(after([](auto& c) { c.tls.ca_file = "a"; }), ElementsAre(HasSubstr(in_the_clear)));
  EXPECT_THAT(after([](auto& c) { c.tls.cert_file = "c", c.tls.key_file = "k"; }),
              ElementsAre(HasSubstr(in_the_clear)));
  EXPECT_THAT(after([](auto& c) { c.tls.psk = "p", c.tls.psk_identity = "i"; }),
              ElementsAre(HasSubstr(in_the_clear)));
  EXPECT_THAT(after([](auto& c) { c.tls.insecure = true; }), IsEmpty()) << "there is nothing to be checked";
  EXPECT_THAT(after([](auto& c) { c.tls.ca_file = "a", c.urls.emplace_back("WSS://host"); }), IsEmpty())
      << "one of several is enough";
}

TEST(ClientConfig, checks_every_part_of_the_will) {
  const auto will = [](auto change, ProtocolVersion protocol = ProtocolVersion::v5) {
    return after([&](auto& c) {
      c.protocol = protocol;
      c.will.emplace();
      c.will->topic = "gone";
      change(*c.will);
    });
  };
  EXPECT_THAT(will([](auto&) {}), IsEmpty());
  EXPECT_THAT(will([](auto&) {}, ProtocolVersion::v3_1_1), IsEmpty());
  EXPECT_THAT(will([](auto& w) { w.topic = "a/#"; }), ElementsAre(HasSubstr("will.topic is \"a/#\"")));
  EXPECT_THAT(will([](auto& w) { w.delay = -1s; }), ElementsAre(HasSubstr("will.delay is -1")));
  EXPECT_THAT(will([](auto& w) { w.content_type = "\xff"; }),
              ElementsAre(HasSubstr("will.content_type is not valid UTF-8")));
  EXPECT_THAT(will([](auto& w) { w.payload.resize(65'536); }),
              ElementsAre(HasSubstr("will.payload has 65536 bytes")));
  EXPECT_THAT(
      will(
          [](auto& w) {
            w.delay = 5s;
            w.message_expiry = 6s;
            w.content_type = "text/plain";
          },
          ProtocolVersion::v3_1_1),
      ElementsAre(HasSubstr("will.delay is 5 s, which MQTT 3.1.1 (MQTT_PROTOCOL) cannot say"),
                  HasSubstr("will.message_expiry is 6 s"), HasSubstr("will.content_type is \"text/plain\"")));
}

}  // namespace
}  // namespace fulmar
