// fulmar pub and sub beside mosquitto_pub and mosquitto_sub, against a real broker: the same bytes on stdout,
// the same exit codes. Every wait ends with an event or after `patience`.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <regex>
#include <sstream>
#include <thread>

#include "cli/command_rig.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using test::Broker;
using test::Process;
using testing::HasSubstr;
enum class Maker { fulmar, mosquitto };

Words program(Maker maker, const std::string& command) {
  if (maker == Maker::fulmar) return {FULMAR_PROGRAM, command};
  return {"mosquitto_" + command};
}

class Interop : public testing::Test {
 protected:
  static Broker::Options with_user() {
    Broker::Options options;
    options.users = {{"user", "secret"}};
    return options;
  }

  // The words behind -h and -p, and an identifier of its own, by which the broker's log can be asked.
  Words at(const Broker& broker) { return {"-h", "127.0.0.1", "-p", std::to_string(broker.port())}; }

  Running start(Maker maker, const std::string& command, const Words& broker, const Words& words,
                const std::filesystem::path& input = "/dev/null") {
    Words argv = program(maker, command);
    argv.insert(argv.end(), broker.begin(), broker.end());
    argv.insert(argv.end(), words.begin(), words.end());
    return {directory_, "run" + std::to_string(++runs_), argv, input};
  }
  Ran run(Maker maker, const std::string& command, const Words& broker, const Words& words,
          const std::filesystem::path& input = "/dev/null") {
    return start(maker, command, broker, words, input).finish();
  }
  Running subscribed(Maker maker, Broker& broker, const std::string& id, Words words) {
    words.insert(words.end(), {"-i", id});
    auto running = start(maker, "sub", at(broker), words);
    EXPECT_TRUE(broker.log_contains("Sending SUBACK to " + id));
    return running;
  }
  std::filesystem::path file(const std::string& name, const std::string& content) {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  test::TempDir directory_;
  int runs_ = 0;
};

std::string pattern_bytes(std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((i * 131 + i / 251) & 0xff);
  return bytes;
}

// --- all four combinations ---------------------------------------------------------------------------------

struct Combination {
  Maker pub;
  Maker sub;
  std::string version;
};

class EveryCombination : public Interop, public testing::WithParamInterface<Combination> {};

TEST_P(EveryCombination, carries_every_payload_byte_for_byte) {
  const auto& [pub, sub, version] = GetParam();
  Broker broker;
  const std::string topic = "mé/ü/温度";
  const std::vector<std::string> payloads = {"", "x", pattern_bytes(1'000'000), "a\0b\n\r\n\xff\xfe\n"s,
                                             "last"};
  const auto count = std::to_string(payloads.size() * 3);
  auto subscriber =
      subscribed(sub, broker, "subscriber", {"-t", "mé/#", "-q", "2", "-v", "-C", count, "-V", version});

  std::string expected;
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    const auto path = file("payload" + std::to_string(i), payloads[i]);
    for (const std::string qos : {"0", "1", "2"}) {
      const auto ran = run(pub, "pub", at(broker), {"-t", topic, "-q", qos, "-f", path, "-V", version});
      EXPECT_EQ(ran.code, 0) << ran.err;
      EXPECT_EQ(ran.out, "");
      expected += payloads[i].empty() ? topic + " (null)\n" : topic + " " + payloads[i] + "\n";
    }
    if (i + 1 == payloads.size()) break;
    // mosquitto_sub shows a QoS 2 message at its PUBREL, which the next QoS 0 message could overtake.
    const auto identifier = std::to_string(2 * (i + 1));  // the subscriber's: one for QoS 1, one for QoS 2
    EXPECT_TRUE(broker.log_contains("Received PUBCOMP from subscriber (Mid: " + identifier + ","));
  }
  const auto ran = subscriber.finish();
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_TRUE(ran.out == expected) << ran.out.size() << " bytes instead of " << expected.size();
}

TEST_P(EveryCombination, sends_lines_whole_input_null_repeated_and_retained_messages) {
  const auto& [pub, sub, version] = GetParam();
  Broker broker;
  auto subscriber =
      subscribed(sub, broker, "subscriber", {"-t", "t/#", "-q", "1", "-v", "-C", "11", "-V", version});
  const auto send = [&](Words words, const std::string& input = "") {
    words.insert(words.end(), {"-q", "1", "-V", version});
    const auto ran = run(pub, "pub", at(broker), words, file("input", input));
    EXPECT_EQ(ran.code, 0) << ran.err;
    EXPECT_EQ(ran.out, "");
  };
  send({"-t", "t/lines", "-l"}, "one\n\ntwo\r\nlast");
  send({"-t", "t/whole", "-s"}, "one\ntwo\n");
  send({"-t", "t/null", "-n"});
  send({"-t", "t/twice", "-m", "again", "--repeat", "2", "--repeat-delay", "0.01"});
  send({"-t", "t/kept", "-m", "kept", "-r"});
  send({"-t", "t/kept", "-m", "really", "-r"});
  send({"-L", "mqtt://127.0.0.1:" + std::to_string(broker.port()) + "/t/url", "-m", "url"});
  const auto ran = subscriber.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out,
            "t/lines one\nt/lines (null)\nt/lines two\r\nt/lines last\nt/whole one\ntwo\n\nt/null (null)\n"
            "t/twice again\nt/twice again\nt/kept kept\nt/kept really\nt/url url\n");

  const auto kept = run(sub, "sub", at(broker), {"-t", "t/#", "-C", "1", "-F", "%r %t %p", "-V", version});
  EXPECT_EQ(kept.out, "1 t/kept really\n");
}

INSTANTIATE_TEST_SUITE_P(, EveryCombination,
                         testing::Values(Combination{Maker::fulmar, Maker::fulmar, "mqttv311"},
                                         Combination{Maker::fulmar, Maker::mosquitto, "mqttv311"},
                                         Combination{Maker::mosquitto, Maker::fulmar, "mqttv311"},
                                         Combination{Maker::mosquitto, Maker::mosquitto, "mqttv311"},
                                         Combination{Maker::fulmar, Maker::fulmar, "mqttv5"},
                                         Combination{Maker::fulmar, Maker::mosquitto, "mqttv5"},
                                         Combination{Maker::mosquitto, Maker::fulmar, "mqttv5"},
                                         Combination{Maker::mosquitto, Maker::mosquitto, "mqttv5"}),
                         [](const auto& instance) {
                           const auto name = [](Maker maker) {
                             return maker == Maker::fulmar ? "fulmar"s : "mosquitto"s;
                           };
                           return name(instance.param.pub) + "_to_" + name(instance.param.sub) + "_" +
                                  instance.param.version;
                         });

// --- the same command line, twice --------------------------------------------------------------------------

class SameAsTheOriginal : public Interop {
 protected:
  // stdout and the exit code are equal; where one complains, the other does.
  Ran expect_same(const std::string& command, const Words& broker, const Words& words, int code) {
    const auto ours = run(Maker::fulmar, command, broker, words);
    const auto theirs = run(Maker::mosquitto, command, broker, words);
    std::string line;
    for (const auto& word : words) line += " '" + word + "'";
    EXPECT_EQ(theirs.code, code) << command << line << ": " << theirs.err;
    EXPECT_EQ(ours.code, code) << command << line << ": " << ours.err;
    EXPECT_EQ(ours.err.empty(), theirs.err.empty())
        << command << line << ": " << ours.err << " / " << theirs.err;
    // For some mistakes the original prints its help on stdout.
    if (!theirs.out.starts_with("mosquitto_")) {
      EXPECT_EQ(ours.out, theirs.out) << command << line;
    }
    return ours;
  }
};

TEST_F(SameAsTheOriginal, when_no_broker_listens) {
  const Words nobody{"-h", "127.0.0.1", "-p", std::to_string(test::free_port())};
  const auto ran = expect_same("pub", nobody, {"-t", "a", "-m", "x"}, 1);
  EXPECT_THAT(ran.err, HasSubstr("is a broker listening there?"));
  EXPECT_THAT(ran.err, HasSubstr("Connection refused"));
  EXPECT_THAT(ran.err, HasSubstr(nobody[3]));
  expect_same("pub", nobody, {"-t", "a", "-q", "1", "-l"}, 1);
  expect_same("sub", nobody, {"-t", "a"}, 1);
  expect_same("sub", nobody, {"-t", "a", "-V", "5"}, 1);
  expect_same("pub", nobody, {"-t", "a", "-m", "x", "--quiet"}, 1);
  expect_same("pub", {"-h", "nosuch.invalid"}, {"-t", "a", "-m", "x"}, 1);
}

TEST_F(SameAsTheOriginal, when_the_broker_refuses_the_password) {
  Broker broker(with_user());
  const auto ran = expect_same("pub", at(broker), {"-t", "a", "-m", "x", "-u", "user", "-P", "wrong"}, 5);
  EXPECT_THAT(ran.err, testing::Not(HasSubstr("wrong")));
  expect_same("pub", at(broker), {"-t", "a", "-m", "x", "-u", "user", "-P", "wrong", "-V", "5"}, 135);
  expect_same("pub", at(broker), {"-t", "a", "-m", "x"}, 5);
  expect_same("sub", at(broker), {"-t", "a", "-u", "user", "-P", "wrong"}, 5);
  expect_same("sub", at(broker), {"-t", "a", "-u", "user", "-P", "wrong", "-V", "5"}, 135);
  expect_same("sub", at(broker), {"-t", "a", "-V", "5", "--quiet"}, 135);
  expect_same("pub", at(broker), {"-t", "a", "-m", "x", "-u", "user", "-P", "secret", "-q", "1"}, 0);
  const std::string host = "127.0.0.1:" + std::to_string(broker.port());
  expect_same("pub", {}, {"-L", "mqtt://user:secret@" + host + "/a", "-m", "x", "-q", "2"}, 0);
  expect_same("pub", {}, {"-L", "mqtt://user:wrong@" + host + "/a", "-m", "x", "-q", "2"}, 5);
}

TEST_F(SameAsTheOriginal, when_the_time_is_over_or_the_count_reached) {
  Broker broker;
  run(Maker::mosquitto, "pub", at(broker), {"-t", "r/1", "-m", "one", "-r"});
  run(Maker::mosquitto, "pub", at(broker), {"-t", "r/2", "-m", "two", "-r"});
  expect_same("sub", at(broker), {"-t", "r/#", "-W", "1"}, 27);
  expect_same("sub", at(broker), {"-t", "r/#", "-W", "1", "-V", "5", "-v"}, 27);
  expect_same("sub", at(broker), {"-t", "r/#", "-W", "1", "-R"}, 27);
  expect_same("sub", at(broker), {"-t", "r/#", "-W", "1", "--quiet", "--retained-only"}, 27);
  expect_same("sub", at(broker), {"-t", "r/#", "-C", "1"}, 0);
  expect_same("sub", at(broker), {"-t", "r/#", "-C", "2", "-v"}, 0);
  expect_same("sub", at(broker), {"-t", "r/#", "-C", "2", "-N"}, 0);
  expect_same("sub", at(broker), {"-t", "r/#", "-C", "1", "-T", "r/1"}, 0);
  expect_same("sub", at(broker), {"-t", "r/#", "-t", "r/1", "-C", "3", "-q", "1"}, 0);
  expect_same("sub", at(broker), {"-t", "r/#", "-t", "r/1", "-C", "3", "-V", "5"}, 0);
  expect_same("sub", at(broker), {"-t", "$share/g/x", "-t", "r/2", "-C", "1", "-V", "5"}, 0);
  expect_same("sub", at(broker), {"-t", "r/1", "-E"}, 0);
}

TEST_F(SameAsTheOriginal, for_mistakes_on_the_command_line) {
  Broker broker;
  const std::vector<std::pair<std::string, Words>> mistakes = {
      {"pub", {}},
      {"pub", {"-m", "x"}},
      {"pub", {"-t", "a"}},
      {"pub", {"-t"}},
      {"pub", {"-t", "a", "-m"}},
      {"pub", {"-t", "a", "-m", "x", "-n"}},
      {"pub", {"-t", "a/#", "-m", "x"}},
      {"pub", {"-t", "\xff", "-m", "x"}},
      {"pub", {"-t", "a", "-m", "x", "-q", "3"}},
      {"pub", {"-t", "a", "-m", "x", "-q", "3", "--quiet"}},
      {"pub", {"-t", "a", "-m", "x", "-p", "70000"}},
      {"pub", {"-t", "a", "-m", "x", "-k", "1"}},
      {"pub", {"-t", "a", "-m", "x", "-V", "7"}},
      {"pub", {"-t", "a", "-m", "x", "--nonsense"}},
      {"pub", {"-t", "a", "-m", "x", "-z"}},
      {"pub", {"-t", "a", "-m", "x", "word"}},
      {"pub", {"-t", "a", "-m", "x", "-C", "1"}},
      {"pub", {"-t", "a", "-m", "x", "-c"}},
      {"pub", {"-t", "a", "-m", "x", "-i", ""}},
      {"pub", {"-t", "a", "-m", "x", "-i", "a", "-I", "b"}},
      {"pub", {"-t", "a", "-m", "x", "-P", "secret"}},
      {"pub", {"-t", "a", "-m", "x", "--will-payload", "x"}},
      {"pub", {"-t", "a", "-m", "x", "--repeat", "0"}},
      {"pub", {"-t", "a", "-f", "/nonexistent"}},
      {"pub", {"-t", "a", "-f", "/"}},
      {"pub", {"-t", "a", "-s"}},
      {"pub", {"-L", "http://127.0.0.1/a", "-m", "x"}},
      {"pub", {"-L", "mqtt://127.0.0.1", "-m", "x"}},
      {"sub", {}},
      {"sub", {"-t", "a/#b"}},
      {"sub", {"-t", "a", "-C", "0"}},
      {"sub", {"-t", "a", "-W", "0"}},
      {"sub", {"-t", "a", "-F", "%z"}},
      {"sub", {"-t", "a", "-F"}},
      {"sub", {"-t", "a", "-R", "--retained-only"}},
      {"sub", {"-t", "a", "-m", "x"}},
  };
  for (const auto& [command, words] : mistakes) {
    const auto ran = expect_same(command, at(broker), words, 1);
    EXPECT_TRUE(ran.err.starts_with("Error: ")) << ran.err;
    EXPECT_EQ(ran.out, "");
  }
}

TEST_F(SameAsTheOriginal, for_output_formats) {
  Broker broker;
  run(Maker::mosquitto, "pub", at(broker), {"-t", "r/1", "-m", "one", "-r"});
  const auto binary = file("binary", "a\0b\"\\\n\t\x01\x7f\xffz"s);
  run(Maker::mosquitto, "pub", at(broker), {"-t", "r/b", "-f", binary, "-r"});
  const std::string json = R"({"a": [1,2, {"b":null}, []],"s":"\u00e9\/x","f":27.50,"e":1e5,"o":{}})";
  run(Maker::mosquitto, "pub", at(broker), {"-t", "r/j", "-m", json, "-r"});
  for (const std::string format :
       {"%t %p %q %r %l %x %X %%",
        "%10t|%-10t|%010l|%2.2t|%-5l|%5q|%10x|%10p|%-10p|%1.2x|%.0t|%3p|%20x|%-20X",
        R"(\\|\a|\n|\r|\t|\v|\e|\0|@@)", "", "plain"}) {
    for (const std::string topic : {"r/1", "r/b"}) {
      expect_same("sub", at(broker), {"-t", topic, "-C", "1", "-F", format}, 0);
    }
    expect_same("sub", at(broker), {"-t", "r/1", "-C", "1", "-F", format, "-N", "-V", "5"}, 0);
  }
  // The time differs, the rest does not.
  const std::regex stamp("\"tst\":\\s*\"[-0-9T:.Z+]*\"");
  for (const auto& words : {Words{"-F", "%j"}, Words{"-F", "%J"}, Words{"-F", "%J", "--pretty"}}) {
    Words all{"-t", "r/j", "-C", "1"};
    all.insert(all.end(), words.begin(), words.end());
    const auto ours = run(Maker::fulmar, "sub", at(broker), all);
    const auto theirs = run(Maker::mosquitto, "sub", at(broker), all);
    EXPECT_EQ(std::regex_replace(ours.out, stamp, "T"), std::regex_replace(theirs.out, stamp, "T"));
    EXPECT_TRUE(std::regex_search(ours.out, stamp)) << ours.out;
  }
  EXPECT_EQ(expect_same("sub", at(broker), {"-t", "r/1", "-C", "1", "-F", "%J"}, 0).out, "\n");
}

TEST_F(SameAsTheOriginal, when_the_connection_is_lost_before_the_acknowledgement) {
  for (const auto maker : {Maker::fulmar, Maker::mosquitto}) {
    Broker broker;
    // 100 MB take a broker a while: it is killed before it has read them all.
    std::string content;
    content.resize(100'000'000, 'x');
    const auto large = file("large", content);
    auto publisher = start(maker, "pub", at(broker), {"-t", "a", "-f", large, "-q", "1", "-i", "publisher"});
    ASSERT_TRUE(broker.log_contains("Sending CONNACK to publisher"));
    broker.kill();
    // The original says 14 when the operating system calls it a reset.
    const auto code = publisher.finish().code;
    EXPECT_TRUE(code == 7 || (maker == Maker::mosquitto && code == 14)) << code;
  }
}

// --- what the original cannot be asked ---------------------------------------------------------------------

class FulmarCommand : public Interop {};

TEST_F(FulmarCommand, sub_prints_a_lone_message_at_once) {
  Broker broker;
  auto subscriber = subscribed(Maker::fulmar, broker, "subscriber", {"-t", "a"});
  for (const std::string text : {"one", "two"}) {
    run(Maker::fulmar, "pub", at(broker), {"-t", "a", "-m", text});
    EXPECT_TRUE(eventually([&] { return subscriber.out().ends_with(text + "\n"); }));
  }
  EXPECT_TRUE(subscriber.running());
}

TEST_F(FulmarCommand, sub_says_goodbye_and_exits_with_0_on_a_signal) {
  for (const int number : {SIGINT, SIGTERM}) {
    Broker broker;
    auto subscriber = subscribed(Maker::fulmar, broker, "subscriber", {"-t", "a"});
    subscriber.signal(number);
    EXPECT_EQ(subscriber.finish().code, 0);
    EXPECT_TRUE(broker.log_contains("Received DISCONNECT from subscriber"));
  }
}

TEST_F(FulmarCommand, pub_says_goodbye_and_ends_by_the_signal) {
  Broker broker;
  Fifo fifo(directory_ / "fifo");
  auto publisher = start(Maker::fulmar, "pub", at(broker), {"-t", "a", "-l", "-i", "publisher"}, fifo.path());
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to publisher"));
  publisher.signal(SIGINT);
  EXPECT_EQ(publisher.finish().code, 128 + SIGINT);
  EXPECT_TRUE(broker.log_contains("Received DISCONNECT from publisher"));
}

TEST_F(FulmarCommand, a_signal_ends_the_wait_for_a_broker_that_says_nothing) {
  test::SilentPort silent;
  const Words there{"-h", "127.0.0.1", "-p", std::to_string(silent.port())};
  auto timed = start(Maker::fulmar, "sub", there, {"-t", "a", "-W", "1"});
  EXPECT_EQ(timed.finish().code, 27);
}

TEST_F(FulmarCommand, sub_ends_quietly_when_its_reader_has_gone) {
  Broker broker;
  run(Maker::fulmar, "pub", at(broker), {"-t", "r/1", "-m", "one", "-r"});
  const std::string line = std::string(FULMAR_PROGRAM) + " sub -h 127.0.0.1 -p " +
                           std::to_string(broker.port()) +
                           " -t '#' -i subscriber | head -1; exit ${PIPESTATUS[0]}";
  Running pipeline(directory_, "pipeline", {"bash", "-c", line});
  ASSERT_TRUE(eventually([&] { return pipeline.out() == "one\n"; })) << pipeline.out();
  // head has gone, or is about to: the write that finds out ends it.
  ASSERT_TRUE(eventually([&] {
    run(Maker::fulmar, "pub", at(broker), {"-t", "a", "-m", "more"});
    return !pipeline.running();
  }));
  const auto ran = pipeline.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, "one\n");
  EXPECT_EQ(ran.err, "");
}

TEST_F(FulmarCommand, sub_comes_back_after_a_broken_connection) {
  Broker broker;
  auto subscriber = subscribed(Maker::fulmar, broker, "subscriber", {"-t", "a", "-q", "1", "-C", "1"});
  broker.kill();
  broker.start();
  ASSERT_TRUE(eventually([&] {
    const auto log = broker.log();
    const auto first = log.find("Sending SUBACK to subscriber");
    return first != std::string::npos &&
           log.find("Sending SUBACK to subscriber", first + 1) != std::string::npos;
  }));
  run(Maker::fulmar, "pub", at(broker), {"-t", "a", "-m", "back", "-q", "1"});
  const auto ran = subscriber.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, "back\n");
}

TEST_F(FulmarCommand, pub_by_lines_delivers_what_it_read_while_the_broker_was_away) {
  Broker broker;
  Fifo fifo(directory_ / "fifo");
  auto publisher =
      start(Maker::fulmar, "pub", at(broker), {"-t", "a", "-l", "-q", "1", "-i", "publisher"}, fifo.path());
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to publisher"));
  broker.kill();
  for (int i = 0; i < 100; ++i) fifo.write("line " + std::to_string(i) + "\n");
  broker.start();
  auto subscriber = subscribed(Maker::mosquitto, broker, "subscriber", {"-t", "a", "-q", "1", "-C", "1"});
  fifo.close();
  EXPECT_EQ(publisher.finish().code, 0);
  const auto log = broker.log();
  EXPECT_THAT(log, HasSubstr("Received PUBLISH from publisher (d0, q1, r0, m1,"));
  std::size_t acknowledged = 0;
  for (auto at = log.find("Sending PUBACK to publisher"); at != std::string::npos;
       at = log.find("Sending PUBACK to publisher", at + 1)) {
    ++acknowledged;
  }
  EXPECT_EQ(acknowledged, 100u);
}

TEST_F(FulmarCommand, sub_takes_no_more_from_a_session_than_it_prints) {
  for (const std::string version : {"mqttv311", "mqttv5"}) {
    Broker broker;
    const Words session{"-t", "jobs", "-q", "1", "-c", "-i", "worker", "-V", version};
    Words words = session;
    words.push_back("-E");
    ASSERT_EQ(run(Maker::fulmar, "sub", at(broker), words).code, 0);
    std::string lines;
    for (int i = 0; i < 100; ++i) lines += std::to_string(i) + "\n";
    ASSERT_EQ(
        run(Maker::fulmar, "pub", at(broker), {"-t", "jobs", "-q", "1", "-l"}, file("jobs", lines)).code, 0);
    words = session;
    words.insert(words.end(), {"-C", "1", "-W", "10"});
    // A job may come twice, because an acknowledgement can be lost with its connection [MQTT-4.3.2]; none is
    // skipped.
    int next = 0;
    for (int runs = 0; next < 50; ++runs) {
      ASSERT_LT(runs, 100) << "more repetitions than jobs";
      const auto printed = run(Maker::fulmar, "sub", at(broker), words).out;
      if (next > 0 && printed == std::to_string(next - 1) + "\n") continue;
      ASSERT_EQ(printed, std::to_string(next) + "\n");
      ++next;
    }
  }
}

TEST_F(FulmarCommand, sub_prints_a_burst_of_messages_completely_and_in_order) {
  Broker broker;
  std::string lines;
  constexpr int count = 20'000;
  for (int i = 0; i < count; ++i) lines += "message " + std::to_string(i) + "\n";
  auto subscriber =
      subscribed(Maker::fulmar, broker, "subscriber", {"-t", "a", "-q", "2", "-C", std::to_string(count)});
  EXPECT_EQ(run(Maker::fulmar, "pub", at(broker), {"-t", "a", "-l", "-q", "2"}, file("lines", lines)).code,
            0);
  const auto ran = subscriber.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_TRUE(ran.out == lines) << ran.out.size() << " bytes instead of " << lines.size();
}

TEST_F(FulmarCommand, removes_retained_messages) {
  Broker broker;
  run(Maker::fulmar, "pub", at(broker), {"-t", "r/1", "-m", "one", "-r"});
  run(Maker::fulmar, "pub", at(broker), {"-t", "r/2", "-m", "two", "-r"});
  EXPECT_EQ(
      run(Maker::fulmar, "sub", at(broker), {"-t", "r/#", "-T", "r/2", "-C", "1", "--remove-retained"}).out,
      "one\n");
  EXPECT_EQ(run(Maker::fulmar, "sub", at(broker), {"-t", "r/#", "-C", "1"}).out, "two\n");
}

TEST_F(FulmarCommand, the_broker_publishes_the_will_when_pub_vanishes) {
  Broker broker;
  auto subscriber = subscribed(Maker::mosquitto, broker, "subscriber", {"-t", "wills", "-C", "1"});
  Fifo fifo(directory_ / "fifo");
  auto publisher = start(
      Maker::fulmar, "pub", at(broker),
      {"-t", "a", "-l", "-i", "publisher", "--will-topic", "wills", "--will-payload", "gone"}, fifo.path());
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to publisher"));
  publisher.signal(SIGKILL);
  EXPECT_EQ(subscriber.finish().out, "gone\n");
}

TEST_F(FulmarCommand, finds_the_broker_by_mqtt_url) {
  Broker broker(with_user());
  setenv("MQTT_URL", broker.url_with("user", "secret").c_str(), 1);
  EXPECT_EQ(run(Maker::fulmar, "pub", {}, {"-t", "r", "-m", "here", "-q", "1", "-r"}).code, 0);
  const auto ran = run(Maker::fulmar, "sub", {}, {"-t", "r", "-C", "1"});
  unsetenv("MQTT_URL");
  EXPECT_EQ(ran.out, "here\n");
}

TEST_F(FulmarCommand, explains_itself) {
  const auto fulmar = [&](Words words) {
    words.insert(words.begin(), FULMAR_PROGRAM);
    return Running(directory_, "run" + std::to_string(++runs_), words).finish();
  };
  EXPECT_EQ(fulmar({"--help"}).code, 0);
  EXPECT_EQ(fulmar({"help", "pub"}).out, fulmar({"pub", "--help"}).out);
  EXPECT_THAT(fulmar({"help", "sub"}).out, HasSubstr("fulmar sub -t"));
  EXPECT_TRUE(std::regex_match(fulmar({"--version"}).out, std::regex("fulmar [0-9]+\\.[0-9]+\\.[0-9]+\n")));
  const auto near = fulmar({"sbu"});
  EXPECT_EQ(near.code, 1);
  EXPECT_THAT(near.err, HasSubstr("did you mean 'sub'?"));
  EXPECT_EQ(fulmar({}).code, 1);
  EXPECT_EQ(fulmar({"help", "nonsense"}).code, 1);
}

}  // namespace
}  // namespace fulmar::cli
