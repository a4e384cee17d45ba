#include "daemon/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace fulmar::daemon {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;
namespace fs = std::filesystem;

class Config : public testing::Test {
 public:
  Config() {
    std::string pattern = (fs::temp_directory_path() / "fulmar-config-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~Config() override {
    std::error_code error;
    fs::remove_all(folder_, error);
  }

 protected:
  fs::path write(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  ConfigSources file(std::string_view text) {
    ConfigSources sources;
    sources.file = write("fulmar.toml", text);
    return sources;
  }
  // The effective configuration of a file that is in order.
  DaemonConfig good(const ConfigSources& sources) {
    auto loaded = load_config(sources);
    EXPECT_TRUE(loaded) << testing::PrintToString(loaded ? std::vector<std::string>() : loaded.error());
    return loaded ? loaded->config : DaemonConfig();
  }
  std::vector<std::string> problems(const ConfigSources& sources) {
    auto loaded = load_config(sources);
    return loaded ? std::vector<std::string>() : loaded.error();
  }
  fs::path folder_;
};

constexpr std::string_view minimal = "[mqtt]\nurl = \"mqtt://h\"\n[telemetry]\nenabled = true\n";

TEST_F(Config, reads_every_section_of_a_file) {
  const auto c = good(file(R"(
[mqtt]
url = ["mqtt://a:1", "mqtt://b:2"]
client_id = "me"
username = "u"
password = "p"
protocol = "3.1.1"
keepalive_s = 30
clean_start = false
reconnect_max_delay_s = 120
outbox_bytes = 1048576
spool_dir = "/var/spool/f"
spool_bytes = 4194304
spool_max_age_s = 3600
durability = "write_ahead"
overflow = "drop_oldest"
[telemetry]
enabled = true
topic = "t/x"
qos = 0
queue_capacity = 5000
batch_size = 200
batch_bytes = 2000
batch_interval_s = 0.25
telemetry_fields = ["cpu_pct", "load_1m"]
batch_wrapper = true
wrapper_sequence = true
batch_property = "seq"
source = "${PIPE:/run/in}"
[telemetry.host]
rate_hz = 50
[telemetry.lines]
format = "csv"
rate_hz = 1000
[log]
level = "debug"
file = "/tmp/x.log"
)"));
  EXPECT_THAT(c.mqtt.urls, ElementsAre("mqtt://a:1", "mqtt://b:2"));
  EXPECT_EQ(c.mqtt.client_id, "me");
  EXPECT_EQ(c.mqtt.username, "u");
  EXPECT_EQ(c.mqtt.password, "p");
  EXPECT_EQ(c.mqtt.protocol, ProtocolVersion::v3_1_1);
  EXPECT_EQ(c.mqtt.keepalive.count(), 30);
  EXPECT_FALSE(c.mqtt.clean_start);
  EXPECT_EQ(c.mqtt.reconnect_max_delay.count(), 120'000);
  EXPECT_EQ(c.mqtt.outbox_bytes, 1'048'576u);
  EXPECT_TRUE(c.telemetry_enabled);
  EXPECT_EQ(c.telemetry.topic, "t/x");
  EXPECT_EQ(c.telemetry.qos, QoS::at_most_once);
  EXPECT_EQ(c.telemetry.queue_capacity, 5000u);
  EXPECT_EQ(c.telemetry.batch_size, 200u);
  EXPECT_EQ(c.telemetry.batch_bytes, 2000u);
  EXPECT_EQ(c.telemetry.batch_interval.count(), 250);
  EXPECT_THAT(c.telemetry.fields, ElementsAre("cpu_pct", "load_1m"));
  EXPECT_TRUE(c.telemetry.batch_wrapper);
  EXPECT_TRUE(c.telemetry.wrapper_sequence);
  EXPECT_EQ(c.telemetry.batch_property, "seq");
  EXPECT_EQ(c.mqtt.spool_dir, "/var/spool/f");
  EXPECT_EQ(c.mqtt.spool_bytes, 4'194'304u);
  EXPECT_EQ(c.mqtt.spool_max_age, std::chrono::hours(1));
  EXPECT_EQ(c.mqtt.durability, Durability::write_ahead);
  EXPECT_EQ(c.mqtt.overflow, Overflow::drop_oldest);
  EXPECT_EQ(c.source, "/run/in");
  EXPECT_EQ(c.lines.format, telemetry::RecordFormat::csv);
  EXPECT_EQ(c.lines.rate_hz, 1000);
  EXPECT_EQ(c.host.rate_hz, 50);
  EXPECT_EQ(c.log_level, "debug");
  EXPECT_EQ(c.log_file, "/tmp/x.log");
}

TEST_F(Config, never_loses_a_batch_by_the_overflow_policy_and_keeps_a_large_outbox) {
  const auto c = good(file(minimal));
  EXPECT_EQ(c.mqtt.overflow, Overflow::reject);
  EXPECT_EQ(c.mqtt.outbox_bytes, std::size_t{64} << 20);
  for (const std::string policy : {"drop_newest", "spool", "block"})
    EXPECT_THAT(problems(file("[mqtt]\noverflow = \"" + policy + "\"\n")),
                Contains(HasSubstr("mqtt.overflow = ")));
}

TEST_F(Config, has_no_spool_unless_asked_and_takes_the_librarys_variables_for_one) {
  const auto c = good(file(minimal));
  EXPECT_EQ(c.mqtt.spool_dir, "");
  EXPECT_EQ(c.mqtt.durability, Durability::spill);
  EXPECT_EQ(c.mqtt.spool_max_age, std::nullopt);

  auto sources = file(minimal);
  sources.environment = {{"MQTT_SPOOL_DIR", "/s"},
                         {"MQTT_SPOOL_BYTES", "2097152"},
                         {"MQTT_SPOOL_MAX_AGE", "60"},
                         {"MQTT_DURABILITY", "write_ahead"}};
  const auto e = good(sources);
  EXPECT_EQ(e.mqtt.spool_dir, "/s");
  EXPECT_EQ(e.mqtt.spool_bytes, 2'097'152u);
  EXPECT_EQ(e.mqtt.spool_max_age, std::chrono::seconds(60));
  EXPECT_EQ(e.mqtt.durability, Durability::write_ahead);
}

TEST_F(Config, says_what_is_wrong_with_a_spool) {
  auto sources = file(minimal);
  sources.flags = {
      {"mqtt.spool_bytes", "1000"}, {"mqtt.spool_max_age_s", "0.5"}, {"mqtt.durability", "always"}};
  EXPECT_THAT(
      problems(sources),
      ElementsAre("mqtt.spool_bytes = \"1000\" (flag): expected an integer from 1048576 to 1099511627776",
                  HasSubstr("mqtt.spool_max_age_s = \"0.5\" (flag): expected a number of seconds from 1"),
                  HasSubstr("mqtt.durability = \"always\" (flag): expected \"memory\"")));
  sources.flags = {{"mqtt.durability", "write_ahead"}};
  EXPECT_THAT(problems(sources), ElementsAre(HasSubstr("write_ahead without spool_dir")));
}

TEST_F(Config, flags_win_over_the_environment_over_the_file_over_the_defaults) {
  auto sources = file(std::string(minimal) + "batch_size = 1\nbatch_bytes = 1001\nqueue_capacity = 3\n");
  sources.environment = {{"FULMAR_TELEMETRY_BATCH_SIZE", "2"}, {"FULMAR_TELEMETRY_BATCH_BYTES", "1002"}};
  sources.flags = {{"telemetry.batch_size", "4"}};
  const auto c = good(sources);
  EXPECT_EQ(c.telemetry.batch_size, 4u);
  EXPECT_EQ(c.telemetry.batch_bytes, 1002u);
  EXPECT_EQ(c.telemetry.queue_capacity, 3u);
  EXPECT_EQ(c.telemetry.qos, QoS::at_least_once);
}

TEST_F(Config, takes_the_librarys_own_variables_and_treats_an_empty_one_as_not_set) {
  auto sources = file(minimal);
  sources.environment = {{"MQTT_URL", "mqtt://x,mqtt://y"}, {"MQTT_KEEPALIVE", "7"}, {"MQTT_CLIENT_ID", ""}};
  const auto c = good(sources);
  EXPECT_THAT(c.mqtt.urls, ElementsAre("mqtt://x", "mqtt://y"));
  EXPECT_EQ(c.mqtt.keepalive.count(), 7);
  EXPECT_THAT(c.mqtt.client_id, HasSubstr("fulmard-"));
}

TEST_F(Config, an_unknown_key_is_an_error_with_its_place_and_a_hint) {
  const auto sources = file(std::string(minimal) + "batch_sise = 5\n");
  EXPECT_THAT(problems(sources), ElementsAre("unknown key telemetry.batch_sise in " + sources.file->string() +
                                             ":5:1; did you mean batch_size?"));
}

TEST_F(Config, an_unknown_section_is_an_error_with_a_hint) {
  EXPECT_THAT(
      problems(file(std::string(minimal) + "[telemtry]\nx = 1\n")),
      ElementsAre(AllOf(HasSubstr("unknown section telemtry in "), HasSubstr("did you mean telemetry?"))));
}

TEST_F(Config, a_word_like_no_other_gets_no_hint) {
  EXPECT_THAT(problems(file(std::string(minimal) + "zzzzzzzz = 5\n")),
              ElementsAre(Not(HasSubstr("did you mean"))));
}

TEST_F(Config, a_wrong_type_names_the_key_the_line_the_value_and_what_was_expected) {
  const auto sources = file(std::string(minimal) + "batch_size = \"many\"\n");
  EXPECT_THAT(problems(sources), ElementsAre("telemetry.batch_size = \"many\" (" + sources.file->string() +
                                             ":5:1): expected an integer from 1 to 10000"));
}

TEST_F(Config, tells_all_problems_at_once) {
  auto sources = file(
      "[mqtt]\nkeepalive_s = 0\nurll = 1\n[telemetry]\nbatch_size = 0\nqos = 2\ntopic = \"a/#\"\nenabled = "
      "1\n");
  sources.environment = {{"MQTT_CLEAN_START", "maybe"}, {"MQTT_CLIENTID", "x"}};
  sources.flags = {{"telemetry.batch_size", "0x10"}, {"telemetry.queue_capasity", "1"}};
  const auto found = problems(sources);
  for (const auto text :
       {"mqtt.keepalive_s = 0", "unknown key mqtt.urll", "telemetry.batch_size = 0 ", "telemetry.qos = 2",
        "telemetry.topic = \"a/#\"", "telemetry.enabled = 1", "MQTT_CLEAN_START",
        "did you mean MQTT_CLIENT_ID?", "telemetry.batch_size = \"0x10\" (flag)",
        "did you mean telemetry.queue_capacity?", "mqtt.url is not set"})
    EXPECT_THAT(found, testing::Contains(HasSubstr(text))) << text;
}

TEST_F(Config, substitutes_variables_in_strings) {
  auto sources = file(
      "[mqtt]\nurl = \"mqtt://${HOST}:${PORT:1883}\"\nclient_id = \"$${HOST}\"\n"
      "[telemetry]\nenabled = \"${ON:true}\"\nbatch_size = \"${SIZE}\"\n");
  sources.environment = {{"HOST", "broker"}, {"SIZE", "9"}};
  const auto c = good(sources);
  EXPECT_THAT(c.mqtt.urls, ElementsAre("mqtt://broker:1883"));
  EXPECT_EQ(c.mqtt.client_id, "${HOST}");
  EXPECT_TRUE(c.telemetry_enabled);
  EXPECT_EQ(c.telemetry.batch_size, 9u);
}

TEST_F(Config, a_variable_that_is_not_set_and_has_no_default_is_an_error) {
  const auto sources = file(std::string(minimal) + "topic = \"a/${SITE}\"\n");
  EXPECT_THAT(problems(sources), ElementsAre(AllOf(HasSubstr("telemetry.topic"), HasSubstr(":5:1"),
                                                   HasSubstr("SITE is not set"))));
}

TEST_F(Config, a_text_is_not_a_number_unless_it_comes_from_a_variable) {
  EXPECT_THAT(problems(file(std::string(minimal) + "batch_size = \"9\"\n")),
              ElementsAre(HasSubstr("expected an integer")));
}

TEST_F(Config, broken_toml_names_the_line) {
  EXPECT_THAT(problems(file("[mqtt]\nurl = \n")),
              ElementsAre(AllOf(HasSubstr("fulmar.toml:2:"), HasSubstr("not TOML"))));
}

TEST_F(Config, a_file_that_cannot_be_read_is_named) {
  ConfigSources sources;
  sources.live = sources.broker = true;
  sources.file = folder_ / "absent.toml";
  EXPECT_THAT(problems(sources), ElementsAre(AllOf(HasSubstr("absent.toml"), HasSubstr("No such file"))));
  sources.file = folder_;
  EXPECT_THAT(problems(sources), ElementsAre(HasSubstr("it is a directory")));
}

TEST_F(Config, reads_the_password_from_a_file_without_its_line_end) {
  const auto secret = write("secret", "s3cret\n");
  auto sources = file(minimal);
  sources.flags = {{"mqtt.password_file", secret.string()}};
  EXPECT_EQ(good(sources).mqtt.password, "s3cret");
  sources.flags = {{"mqtt.password_file", (folder_ / "absent").string()}};
  EXPECT_THAT(problems(sources),
              ElementsAre(AllOf(HasSubstr("mqtt.password_file"), HasSubstr("No such file"))));
}

TEST_F(Config, a_password_of_a_stronger_source_wins_over_a_file_of_a_weaker_one) {
  auto sources = file(minimal);
  sources.environment = {{"MQTT_PASSWORD_FILE", write("secret", "weak").string()}};
  sources.flags = {{"mqtt.password", "strong"}};
  EXPECT_EQ(good(sources).mqtt.password, "strong");
}

TEST_F(Config, without_a_url_it_needs_a_broker_of_its_own_or_says_what_to_do) {
  ConfigSources sources;
  sources.live = sources.broker = true;
  const auto loaded = load_config(sources);
  ASSERT_TRUE(loaded);
  EXPECT_TRUE(loaded->needs_broker);
  EXPECT_TRUE(loaded->config.telemetry_enabled);
  sources.environment = {{"MQTT_URL", "mqtt://h"}};
  EXPECT_FALSE(load_config(sources)->needs_broker);
  EXPECT_THAT(problems({}), testing::Contains(AllOf(HasSubstr("mqtt.url is not set"), HasSubstr("--live"))));
}

TEST_F(Config, refuses_what_the_line_source_cannot_do) {
  EXPECT_THAT(problems(file(std::string(minimal) + "source = \"\"\n[telemetry.lines]\nformat = \"xml\"\n"
                                                   "rate_hz = -1\n")),
              UnorderedElementsAre(HasSubstr("telemetry.source = \"\""),
                                   HasSubstr("expected \"auto\", \"json\" or \"csv\""),
                                   HasSubstr("telemetry.lines.rate_hz = -1")));
  EXPECT_THAT(problems(file(std::string(minimal) + "wrapper_sequence = true\n")),
              ElementsAre(HasSubstr("wrapper_sequence needs batch_wrapper")));
}

TEST_F(Config, substitutes_variables_in_every_text_and_list) {
  auto sources = file(
      "[mqtt]\nurl = [\"mqtt://${H}\", \"mqtt://${H2:spare}\"]\nclient_id = \"${H}-x\"\nusername = \"${H}\"\n"
      "password = \"${H}\"\nprotocol = \"${V:5}\"\n[telemetry]\nenabled = true\ntopic = \"${H}/t\"\n"
      "attributes_topic = \"${H}/a\"\nbatch_property = \"${H}\"\nsource = \"${H}\"\n"
      "telemetry_fields = [\"${H}\", \"b\"]\n[telemetry.lines]\nformat = \"${F:json}\"\n[log]\nfile = "
      "\"/${H}\"\n");
  sources.environment = {{"H", "one"}};
  const auto c = good(sources);
  EXPECT_THAT(c.mqtt.urls, ElementsAre("mqtt://one", "mqtt://spare"));
  EXPECT_EQ(c.mqtt.client_id, "one-x");
  EXPECT_EQ(c.mqtt.username, "one");
  EXPECT_EQ(c.mqtt.password, "one");
  EXPECT_EQ(c.telemetry.topic, "one/t");
  EXPECT_EQ(c.telemetry.attributes_topic, "one/a");
  EXPECT_EQ(c.telemetry.batch_property, "one");
  EXPECT_EQ(c.source, "one");
  EXPECT_THAT(c.telemetry.fields, ElementsAre("one", "b"));
  EXPECT_EQ(c.lines.format, telemetry::RecordFormat::json);
  EXPECT_EQ(c.log_file, "/one");
}

TEST_F(Config, has_nothing_to_do_without_telemetry_and_a_queue) {
  EXPECT_THAT(problems(file("[mqtt]\nurl = \"mqtt://h\"\n[queue]\nurl = \"sqlite:q.db\"\n")), IsEmpty());
  EXPECT_THAT(problems(file("[mqtt]\nurl = \"mqtt://h\"\n")),
              ElementsAre(HasSubstr("set telemetry.enabled = true")));
  EXPECT_THAT(problems(file(std::string(minimal) + "[telemetry.host]\nenabled = false\n")),
              ElementsAre(HasSubstr("no source")));
}

TEST_F(Config, the_effective_configuration_is_toml_with_origins_and_without_secrets) {
  auto sources = file(std::string(minimal) + "batch_size = 7\n");
  sources.environment = {{"MQTT_URL", "mqtt://user:hunter2@host"}, {"MQTT_PASSWORD", "hunter3"}};
  sources.flags = {{"telemetry.host.rate_hz", "20"}};
  const auto loaded = load_config(sources);
  ASSERT_TRUE(loaded);
  const std::string& text = loaded->effective;
  EXPECT_THAT(text, HasSubstr("[telemetry.host]\n"));
  EXPECT_THAT(text, testing::ContainsRegex("batch_size = 7 +# .*fulmar.toml:5:1\n"));
  EXPECT_THAT(text, testing::ContainsRegex("rate_hz = 20.0 +# flag\n"));
  EXPECT_THAT(text, HasSubstr("url = [\"mqtt://user:***@host\"]"));
  EXPECT_THAT(text, HasSubstr("password = \"***\""));
  EXPECT_THAT(text, testing::ContainsRegex("qos = 1 +# default\n"));
  EXPECT_THAT(text, Not(HasSubstr("hunter")));

  sources.file = write("again.toml", text);  // it reads back
  EXPECT_EQ(good(sources).telemetry.batch_size, 7u);
}

TEST_F(Config, a_secret_is_never_part_of_a_problem) {
  auto sources = file("[mqtt]\nurl = \"mqtt://h\"\npassword = 12345678\n[telemetry]\nenabled = true\n");
  EXPECT_THAT(problems(sources), ElementsAre(Not(HasSubstr("12345678"))));
}

TEST(RedactedUrl, hides_the_password_however_it_is_written) {
  EXPECT_EQ(redacted_url("mqtt://h:1883"), "mqtt://h:1883");
  EXPECT_EQ(redacted_url("mqtt://u@h"), "mqtt://u@h");
  EXPECT_EQ(redacted_url("mqtt://u:p@h:1"), "mqtt://u:***@h:1");
  EXPECT_EQ(redacted_url("mqtt://u:p/q@r@h"), "mqtt://u:***@h");
  EXPECT_EQ(redacted_url("nonsense"), "nonsense");
}

TEST(Substitute, knows_names_defaults_escapes_and_mistakes) {
  const Lookup lookup = [](std::string_view name) {
    return name == "A"   ? std::optional<std::string>("1")
           : name == "E" ? std::optional<std::string>("")
                         : std::nullopt;
  };
  EXPECT_EQ(substitute("x${A}y${A}", lookup), "x1y1");
  EXPECT_EQ(substitute("${B:2}", lookup), "2");
  EXPECT_EQ(substitute("${B:}", lookup), "");
  EXPECT_EQ(substitute("${B:a:b}", lookup), "a:b");
  EXPECT_EQ(substitute("${E:2}", lookup), "");
  EXPECT_EQ(substitute("$${A} $ $A 100%", lookup), "${A} $ $A 100%");
  EXPECT_FALSE(substitute("${B}", lookup));
  EXPECT_FALSE(substitute("${A", lookup));
  EXPECT_FALSE(substitute("${}", lookup));
}

}  // namespace
}  // namespace fulmar::daemon
