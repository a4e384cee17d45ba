#include "cli/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>

namespace fulmar::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Words = std::initializer_list<std::string_view>;

std::optional<std::string> no_environment(std::string_view) { return std::nullopt; }

Parsed<PubOptions> pub(Words words, const Environment& environment = no_environment) {
  return parse_pub(std::vector<std::string_view>(words), environment);
}
Parsed<SubOptions> sub(Words words, const Environment& environment = no_environment) {
  return parse_sub(std::vector<std::string_view>(words), environment);
}

Parsed<TelemetryOptions> telemetry_of(Words words, bool terminal = false) {
  return parse_telemetry(std::vector<std::string_view>(words), no_environment, terminal);
}

// Exactly one of the three outcomes; the error is one line.
void expect_refused(const std::string& error, bool parsed, std::string_view why) {
  EXPECT_FALSE(parsed);
  EXPECT_THAT(error, HasSubstr(std::string(why)));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}
#define EXPECT_REFUSED(result, why)                                  \
  do {                                                               \
    const auto refused = (result);                                   \
    expect_refused(refused.error, refused.options.has_value(), why); \
  } while (false)

TEST(Options, pub_has_mosquitto_pubs_defaults) {
  const auto parsed = pub({"-t", "a/b", "-m", "hello"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto& options = *parsed.options;
  EXPECT_THAT(options.common.urls, ElementsAre("mqtt://localhost:1883"));
  EXPECT_EQ(options.topic, "a/b");
  EXPECT_EQ(options.source, PubOptions::Source::message);
  EXPECT_EQ(options.text, "hello");
  EXPECT_EQ(options.repeat, 1u);
  EXPECT_EQ(options.common.qos, QoS::at_most_once);
  EXPECT_EQ(options.common.protocol, ProtocolVersion::v3_1_1);
  EXPECT_EQ(options.common.keepalive.count(), 60);
  EXPECT_TRUE(options.common.clean_start);
  EXPECT_FALSE(options.retain);
  EXPECT_FALSE(options.common.client_id);
}

TEST(Options, long_names_mean_the_same_as_short_ones) {
  const auto parsed = pub({"--host",    "h",
                           "--port",    "2",
                           "--topic",   "t",
                           "--message", "m",
                           "--qos",     "2",
                           "--retain",  "--id",
                           "me",        "--username",
                           "u",         "--pw",
                           "p",         "--keepalive",
                           "10",        "--protocol-version",
                           "mqttv5",    "--disable-clean-session",
                           "--debug",   "--quiet"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto& common = parsed.options->common;
  EXPECT_THAT(common.urls, ElementsAre("mqtt://h:2"));
  EXPECT_EQ(common.qos, QoS::exactly_once);
  EXPECT_EQ(common.client_id, "me");
  EXPECT_EQ(common.username, "u");
  EXPECT_EQ(common.password, "p");
  EXPECT_EQ(common.keepalive.count(), 10);
  EXPECT_EQ(common.protocol, ProtocolVersion::v5);
  EXPECT_FALSE(common.clean_start);
  EXPECT_TRUE(common.debug);
  EXPECT_TRUE(common.quiet);
  EXPECT_TRUE(parsed.options->retain);
}

TEST(Options, a_value_may_look_like_an_option) {
  const auto parsed = pub({"-t", "a", "-m", "-q"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_EQ(parsed.options->text, "-q");
}

TEST(Options, the_last_of_repeated_options_counts) {
  EXPECT_EQ(pub({"-t", "a", "-t", "b", "-m", "x"}).options->topic, "b");
  EXPECT_THAT(pub({"-h", "a", "-h", "b", "-t", "t", "-n"}).options->common.urls,
              ElementsAre("mqtt://b:1883"));
}

TEST(Options, sub_collects_filters_without_repetitions) {
  const auto parsed = sub({"-t", "a/#", "-t", "+/b", "-t", "a/#", "-T", "a/x"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_THAT(parsed.options->filters, ElementsAre("a/#", "+/b"));
  EXPECT_THAT(parsed.options->filter_outs, ElementsAre("a/x"));
}

TEST(Options, a_url_names_broker_and_topic) {
  const auto parsed = pub({"-L", "mqtt://me:secret@broker:99/a/b?c%20d", "-n"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  EXPECT_THAT(parsed.options->common.urls, ElementsAre("mqtt://me:secret@broker:99"));
  EXPECT_EQ(parsed.options->topic, "a/b?c%20d");
  EXPECT_THAT(sub({"-L", "mqtt://h/a", "-t", "b"}).options->filters, ElementsAre("a", "b"));
}

TEST(Options, a_port_after_a_url_replaces_its_port) {
  EXPECT_THAT(pub({"-L", "mqtt://u:p@h:1/t", "-p", "2", "-n"}).options->common.urls,
              ElementsAre("mqtt://u:p@h:2"));
  EXPECT_THAT(pub({"-L", "mqtt://[::1]/t", "-p", "2", "-n"}).options->common.urls,
              ElementsAre("mqtt://[::1]:2"));
}

TEST(Options, an_ipv6_host_is_put_in_brackets) {
  EXPECT_THAT(pub({"-h", "::1", "-t", "t", "-n"}).options->common.urls, ElementsAre("mqtt://[::1]:1883"));
}

TEST(Options, mqtt_url_is_used_when_no_broker_is_named) {
  const auto environment = [](std::string_view name) -> std::optional<std::string> {
    return name == "MQTT_URL" ? std::optional<std::string>("mqtt://a,mqtt://b:2") : std::nullopt;
  };
  EXPECT_THAT(pub({"-t", "t", "-n"}, environment).options->common.urls,
              ElementsAre("mqtt://a", "mqtt://b:2"));
  EXPECT_THAT(pub({"-h", "h", "-t", "t", "-n"}, environment).options->common.urls,
              ElementsAre("mqtt://h:1883"));
  EXPECT_THAT(pub({"-p", "7", "-t", "t", "-n"}, environment).options->common.urls,
              ElementsAre("mqtt://localhost:7"));
  EXPECT_THAT(pub({"-L", "mqtt://h/t", "-n"}, environment).options->common.urls, ElementsAre("mqtt://h"));
}

TEST(Options, a_will_needs_a_topic) {
  const auto parsed = pub(
      {"-t", "a", "-n", "--will-topic", "w", "--will-payload", "gone", "--will-qos", "1", "--will-retain"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  ASSERT_TRUE(parsed.options->common.will);
  EXPECT_EQ(parsed.options->common.will->topic, "w");
  EXPECT_EQ(parsed.options->common.will->payload, "gone");
  EXPECT_EQ(parsed.options->common.will->qos, QoS::at_least_once);
  EXPECT_TRUE(parsed.options->common.will->retain);
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--will-payload", "x"}), "--will-topic");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--will-retain"}), "--will-topic");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--will-topic", "w/#"}), "w/#");
}

TEST(Options, session_expiry_follows_c_and_x_in_5_0_only) {
  const auto expiry = [](Words words) { return pub(words).options->common.session_expiry.count(); };
  EXPECT_EQ(expiry({"-t", "a", "-n", "-V", "5"}), 0);
  EXPECT_EQ(expiry({"-t", "a", "-n", "-V", "5", "-x", "10"}), 10);
  EXPECT_EQ(expiry({"-t", "a", "-n", "-V", "5", "-c", "-i", "me"}), 4'294'967'295);
  EXPECT_EQ(expiry({"-t", "a", "-n", "-V", "5", "-c", "-i", "me", "-x", "10"}), 10);
  EXPECT_EQ(expiry({"-t", "a", "-n", "-V", "5", "-i", "me", "-x", "-1"}), 4'294'967'295);
  EXPECT_EQ(expiry({"-t", "a", "-n", "-x", "10"}), 0);
}

TEST(Options, mistakes_are_refused_with_their_name_and_value) {
  EXPECT_REFUSED(pub({"-m", "x"}), "-t topic");
  EXPECT_REFUSED(pub({"-t", "a"}), "-m text");
  EXPECT_REFUSED(pub({"-t", "a", "-m", "x", "-n"}), "only one of");
  EXPECT_REFUSED(pub({"-t", "a", "-m", "x", "-m", "y"}), "only one of");
  EXPECT_REFUSED(pub({"-t", "a/#", "-n"}), "'a/#'");
  EXPECT_REFUSED(pub({"-t", "", "-n"}), "invalid topic");
  EXPECT_REFUSED(pub({"-t", "\xff", "-n"}), "UTF-8");
  EXPECT_REFUSED(pub({"-t"}), "-t needs a value");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-q", "3"}), "'3'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-q", "x"}), "'x'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-p", "0"}), "'0'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-p", "70000"}), "'70000'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-k", "4"}), "'4'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-h", "mqtt://h"}), "-L");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-h", ""}), "invalid host");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-V", "4"}), "'4'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-V", "31"}), "3.1");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-x", "-2", "-V", "5"}), "'-2'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-x", "-1", "-V", "5"}), "-i");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-c"}), "-i");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-i", ""}), "-i");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-i", "x", "-I", "y"}), "together");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "-P", "x"}), "-u");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--repeat", "0"}), "'0'");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--repeat-delay", "-1"}), "'-1'");
  EXPECT_REFUSED(pub({"-L", "http://h/t", "-n"}), "scheme");
  EXPECT_REFUSED(pub({"-L", "mqtt://h", "-n"}), "topic");
  EXPECT_REFUSED(pub({"-L", "mqtts://h/t", "-n"}), "TLS");
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--cafile", "x"}), "not supported");
  EXPECT_REFUSED(sub({}), "-t filter");
  EXPECT_REFUSED(sub({"-t", "a/#b"}), "'a/#b'");
  EXPECT_REFUSED(sub({"-t", "a", "-T", "#b"}), "'#b'");
  EXPECT_REFUSED(sub({"-t", "a", "-C", "0"}), "'0'");
  EXPECT_REFUSED(sub({"-t", "a", "-C", "-1"}), "'-1'");
  EXPECT_REFUSED(sub({"-t", "a", "-W", "x"}), "'x'");
  EXPECT_REFUSED(sub({"-t", "a", "-F", "%z"}), "'z'");
  EXPECT_REFUSED(sub({"-t", "a", "-R", "--retained-only"}), "--retained-only");
}

TEST(Options, an_unknown_option_gets_a_hint) {
  EXPECT_REFUSED(pub({"--retian"}), "did you mean '--retain'?");
  EXPECT_REFUSED(pub({"-z"}), "unknown option '-z'");
  EXPECT_REFUSED(pub({"topic"}), "every value follows an option");
  EXPECT_REFUSED(pub({"-C", "1"}), "belongs to fulmar sub");
  EXPECT_REFUSED(sub({"-m", "x"}), "belongs to fulmar pub");
  EXPECT_REFUSED(pub({"-rn"}), "unknown option '-rn'");
  EXPECT_REFUSED(pub({""}), "unknown option ''");
}

TEST(Options, telemetry_needs_no_option_at_all) {
  const auto parsed = telemetry_of({});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto& options = *parsed.options;
  EXPECT_EQ(options.source, "-");
  EXPECT_EQ(telemetry_of({}, true).options->source, "host") << "nobody types records";
  EXPECT_EQ(options.config.topic, "v1/devices/me/telemetry");
  EXPECT_EQ(options.config.qos, QoS::at_least_once);
  EXPECT_EQ(options.config.queue_capacity, 16'384u);
  EXPECT_FALSE(options.config.wrapper_sequence);
  EXPECT_THAT(options.common.urls, ElementsAre("mqtt://localhost:1883"));
  EXPECT_TRUE(options.config.problems().empty());
}

TEST(Options, telemetry_takes_all_of_its_own) {
  const auto parsed = telemetry_of({"--source",
                                    "in",
                                    "--format",
                                    "csv",
                                    "--rate",
                                    "0.5",
                                    "-t",
                                    "a/b",
                                    "-q",
                                    "0",
                                    "--batch-size",
                                    "7",
                                    "--batch-bytes",
                                    "2000",
                                    "--batch-interval",
                                    "0.25",
                                    "--batch-wrapper",
                                    "--queue",
                                    "9",
                                    "--fields",
                                    "a,b",
                                    "--fields",
                                    "c",
                                    "--attributes",
                                    "k=v=w",
                                    "--attributes",
                                    "n=",
                                    "--attributes-topic",
                                    "x",
                                    "--duration",
                                    "1.5",
                                    "--count",
                                    "4",
                                    "-W",
                                    "2",
                                    "-u",
                                    "me",
                                    "-V",
                                    "5"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto& options = *parsed.options;
  EXPECT_EQ(options.source, "in");
  EXPECT_EQ(options.format, telemetry::RecordFormat::csv);
  EXPECT_EQ(options.rate_hz, 0.5);
  EXPECT_EQ(options.config.topic, "a/b");
  EXPECT_EQ(options.config.qos, QoS::at_most_once);
  EXPECT_EQ(options.config.batch_size, 7u);
  EXPECT_EQ(options.config.batch_bytes, 2'000u);
  EXPECT_EQ(options.config.batch_interval.count(), 250);
  EXPECT_TRUE(options.config.batch_wrapper && options.config.wrapper_sequence);
  EXPECT_EQ(options.config.queue_capacity, 9u);
  EXPECT_THAT(options.config.fields, ElementsAre("a", "b", "c"));
  EXPECT_THAT(options.attributes, ElementsAre(testing::Pair(std::string("k"), std::string("v=w")),
                                              testing::Pair(std::string("n"), std::string())));
  EXPECT_EQ(options.config.attributes_topic, "x");
  EXPECT_EQ(options.duration, std::chrono::milliseconds(1'500));
  EXPECT_EQ(options.count, 4u);
  EXPECT_EQ(options.patience, std::chrono::seconds(2));
  EXPECT_EQ(options.common.username, "me");
  EXPECT_EQ(options.common.protocol, ProtocolVersion::v5);
}

TEST(Options, telemetry_takes_a_spool) {
  const auto none = telemetry_of({}).options;
  EXPECT_EQ(none->spool_dir, "");
  const auto spill = telemetry_of({"--spool", "/s"}).options;
  EXPECT_EQ(spill->spool_dir, "/s");
  EXPECT_EQ(spill->spool_bytes, std::size_t{1} << 30);
  EXPECT_EQ(spill->durability, Durability::spill);
  const auto ahead =
      telemetry_of({"--spool", "/s", "--spool-bytes", "2097152", "--durability", "write_ahead"}).options;
  EXPECT_EQ(ahead->spool_bytes, 2'097'152u);
  EXPECT_EQ(ahead->durability, Durability::write_ahead);
}

TEST(Options, the_url_of_telemetry_may_have_a_topic) {
  EXPECT_EQ(telemetry_of({"-L", "mqtt://h:2/a/b"}).options->config.topic, "a/b");
  for (const std::string_view url : {"mqtt://h:2", "mqtt://h:2/"}) {
    const auto parsed = telemetry_of({"-L", url});
    ASSERT_TRUE(parsed.options) << parsed.error;
    EXPECT_EQ(parsed.options->config.topic, "v1/devices/me/telemetry");
    EXPECT_THAT(parsed.options->common.urls, ElementsAre("mqtt://h:2"));
  }
  EXPECT_REFUSED(telemetry_of({"-L", "mqtt://h/a/#"}), "invalid topic 'a/#'");
}

TEST(Options, telemetry_refuses_what_it_cannot_do) {
  const std::vector<std::pair<std::vector<std::string_view>, std::string_view>> mistakes{
      {{"-q", "2"}, "telemetry is sent with 0 or 1"},
      {{"-t", "a/+"}, "invalid topic"},
      {{"--format", "xml"}, "expected auto, json or csv"},
      {{"--rate", "0"}, "expected records per second"},
      {{"--rate", "nan"}, "expected records per second"},
      {{"--batch-size", "0"}, "expected 1 to 10000"},
      {{"--batch-size", "10001"}, "expected 1 to 10000"},
      {{"--batch-bytes", "999"}, "expected 1000 to 16777216"},
      {{"--batch-interval", "0.001"}, "expected 0.01 to 3600 seconds"},
      {{"--queue", "1"}, "expected 2 to 16777216"},
      {{"--spool", ""}, "--spool is empty"},
      {{"--spool", "d", "--spool-bytes", "1000"}, "expected 1048576 to 1099511627776"},
      {{"--spool", "d", "--durability", "memory"}, "expected spill or write_ahead"},
      {{"--durability", "write_ahead"}, "add --spool folder"},
      {{"--fields", ","}, "--fields names nothing"},
      {{"--attributes", "x"}, "expected name=value"},
      {{"--attributes", "=x"}, "expected name=value"},
      {{"--duration", "0"}, "more than 0"},
      {{"--count", "0"}, "expected 1 or more"},
      {{"-W", "-1"}, "more than 0"},
      {{"--source", ""}, "--source is empty"},
      {{"--source", "host", "--rate", "5000"}, "0.1 to 1000"},
      {{"--source", "host", "--format", "csv"}, "not with --source host"},
      {{"-m", "x"}, "it belongs to fulmar pub"},
      {{"-C", "1"}, "it belongs to fulmar sub"},
      {{"data.csv"}, "e.g. --source data.csv"},
  };
  for (const auto& [words, why] : mistakes) {
    SCOPED_TRACE(testing::PrintToString(words));
    EXPECT_REFUSED(parse_telemetry(words, no_environment, false), why);
  }
  EXPECT_REFUSED(pub({"-t", "a", "-n", "--rate", "1"}), "it belongs to fulmar telemetry");
}

TEST(Options, help_wins_over_what_is_missing) {
  EXPECT_TRUE(pub({"--help"}).help);
  EXPECT_TRUE(sub({"-t", "a", "--help"}).help);
}

TEST(Options, client_config_carries_everything) {
  auto parsed =
      pub({"-h", "h", "-t", "a", "-n", "-I", "pre-", "-u", "u", "-P", "p", "-k", "7", "-M", "3", "-V", "5"});
  ASSERT_TRUE(parsed.options) << parsed.error;
  const auto config = client_config(parsed.options->common, "random", 42);
  EXPECT_EQ(config.client_id, "pre-42");
  EXPECT_EQ(config.username, "u");
  EXPECT_EQ(config.password, "p");
  EXPECT_EQ(config.keepalive.count(), 7);
  EXPECT_EQ(config.max_inflight, 3);
  EXPECT_EQ(config.protocol, ProtocolVersion::v5);
  EXPECT_EQ(client_config({}, "random", 42).client_id, "random");
}

}  // namespace
}  // namespace fulmar::cli
