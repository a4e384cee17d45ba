// fulmar telemetry against a real broker: what arrives, what it says, and how it ends. Every wait ends with an event or
// after `patience`.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <regex>

#include "cli/command_rig.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"

namespace fulmar::cli {
namespace {

using test::Broker;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

class TelemetryCommand : public testing::Test {
 protected:
  Running start(std::uint16_t port, const Words& words, const std::filesystem::path& input = "/dev/null") {
    Words argv{FULMAR_PROGRAM, "telemetry", "-h", "127.0.0.1", "-p", std::to_string(port)};
    argv.insert(argv.end(), words.begin(), words.end());
    return {directory_, "telemetry" + std::to_string(++runs_), argv, input};
  }
  Ran run(const Broker& broker, const Words& words, const std::filesystem::path& input = "/dev/null") {
    return start(broker.port(), words, input).finish();
  }
  // Its session is kept, so that it misses nothing while the broker is away.
  Running subscribed(Broker& broker, const Words& words = {}) {
    Words argv{
        FULMAR_PROGRAM, "sub", "-h", "127.0.0.1", "-p", std::to_string(broker.port()), "-i", "subscriber",
        "-t",           "#",   "-q", "1",         "-v"};
    argv.insert(argv.end(), words.begin(), words.end());
    Running subscriber{directory_, "subscriber" + std::to_string(++runs_), argv};
    EXPECT_TRUE(broker.log_contains("Sending SUBACK to subscriber"));
    return subscriber;
  }
  std::filesystem::path file(const std::string& name, const std::string& content) {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  static std::string numbered_lines(int count) {
    std::string text;
    for (int i = 1; i <= count; ++i)
      text += "{\"ts\":" + std::to_string(i) + ",\"a\":" + std::to_string(i) + "}\n";
    return text;
  }
  // The timestamps in the order of arrival.
  static std::vector<int> timestamps(const std::string& text) {
    std::vector<int> all;
    const std::regex ts("\\{\"ts\":(\\d+)");
    for (std::sregex_iterator at(text.begin(), text.end(), ts), end; at != end; ++at)
      all.push_back(std::stoi((*at)[1]));
    return all;
  }
  static std::vector<int> up_to(int count) {
    std::vector<int> all;
    for (int i = 1; i <= count; ++i) all.push_back(i);
    return all;
  }

  test::TempDir directory_;
  int runs_ = 0;
};

TEST_F(TelemetryCommand, sends_a_file_of_json_lines_in_batches_and_says_so) {
  Broker broker;
  auto subscriber = subscribed(broker);
  const auto ran = run(broker, {"--source", file("data", numbered_lines(250)), "-t", "rig/7"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, MatchesRegex("250 records: 250 acknowledged; 3 batches; [0-9.]+ s\n"));
  EXPECT_EQ(ran.err, "");
  ASSERT_TRUE(eventually([&] { return timestamps(subscriber.out()).size() >= 250; })) << subscriber.out();
  EXPECT_EQ(timestamps(subscriber.out()), up_to(250));
  EXPECT_THAT(subscriber.out(), StartsWith("rig/7 [{\"ts\":1,\"values\":{\"a\":1}},"));
}

TEST_F(TelemetryCommand, reads_csv_from_stdin_and_publishes_attributes_once) {
  Broker broker;
  auto subscriber = subscribed(broker);
  const auto ran =
      run(broker, {"--attributes", "model=X1", "--attributes", "cores=4", "--fields", "b,time", "-q", "0"},
          file("data.csv", "ts,a,b\r\n1,x,2.5\r\n2,y,\"3\"\r\n"));
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("2 records: 2 sent; 1 batch; "));
  EXPECT_THAT(ran.err, HasSubstr("Warning: the field filter names values that no record has: time"));
  ASSERT_TRUE(eventually([&] { return subscriber.out().contains("/telemetry"); }));
  EXPECT_EQ(subscriber.out(),
            "v1/devices/me/attributes {\"model\":\"X1\",\"cores\":4}\n"
            "v1/devices/me/telemetry [{\"ts\":1,\"values\":{\"b\":2.5}},{\"ts\":2,\"values\":{\"b\":3}}]\n");
}

TEST_F(TelemetryCommand, a_bad_line_is_told_and_skipped_and_shows_in_the_exit_code) {
  Broker broker;
  std::string text = "{\"ts\":1,\"a\":1}\n{\"a\":\n" + numbered_lines(1) + "7\n";
  const auto ran = run(broker, {}, file("data", text));
  EXPECT_EQ(ran.code, 65);
  EXPECT_EQ(ran.err,
            "Warning: line 2: not JSON: incomplete JSON at column 6\n"
            "Warning: line 4: expected an object: {\"name\":value,...}\n");
  EXPECT_THAT(ran.out, StartsWith("2 records: 2 acknowledged; 1 batch; 2 bad lines skipped; "));

  for (int i = 0; i < 30; ++i) text += "bad\n";
  const auto many = run(broker, {}, file("many", text));
  EXPECT_EQ(many.code, 65);
  EXPECT_EQ(std::ranges::count(many.err, '\n'), 21);
  EXPECT_THAT(many.err, EndsWith("Warning: 12 more lines were no records\n"));
}

TEST_F(TelemetryCommand, an_input_that_cannot_be_read_is_a_failure) {
  Broker broker;
  const auto missing = run(broker, {"--source", "/nonexistent"});
  EXPECT_EQ(missing.code, 1);
  EXPECT_EQ(missing.err, "Error: cannot read records from '/nonexistent': No such file or directory\n");
  const auto header = run(broker, {"--format", "csv"}, file("data.csv", "a,,c\n1,2,3\n"));
  EXPECT_EQ(header.code, 1);
  EXPECT_EQ(header.err, "Error: standard input line 1: the header gives column 2 no name\n");
  EXPECT_THAT(header.out, StartsWith("0 records: 0 acknowledged"));
}

TEST_F(TelemetryCommand, waits_for_a_broker_that_comes_later) {
  Broker broker;
  broker.stop();
  auto sender = start(broker.port(), {"--source", file("data", numbered_lines(1'000)), "-i", "sender"});
  ASSERT_TRUE(eventually([&] { return sender.err().contains("records wait until it is there"); }))
      << sender.err();
  EXPECT_THAT(sender.err(), HasSubstr("is a broker listening there?"));
  broker.start();
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("1000 records: 1000 acknowledged"));
  EXPECT_THAT(ran.err, HasSubstr("Connected.\n"));
}

TEST_F(TelemetryCommand, loses_nothing_when_the_broker_is_killed_in_between) {
  Broker broker;
  broker.stop();
  broker.start();
  Fifo fifo(directory_ / "fifo");
  auto sender = start(broker.port(), {"--batch-interval", "0.01", "-i", "sender", "--source", fifo.path()});
  fifo.write(numbered_lines(10));
  ASSERT_TRUE(broker.log_contains("Received PUBLISH from sender"));
  broker.kill();
  fifo.write("{\"ts\":11,\"a\":1}\n");
  ASSERT_TRUE(eventually([&] { return sender.err().contains("records wait until it is back"); }))
      << sender.err();
  fifo.write("{\"ts\":12,\"a\":1}\n");
  broker.start();
  auto subscriber = subscribed(broker);
  fifo.write("{\"ts\":13,\"a\":1}\n");
  ASSERT_TRUE(eventually([&] { return sender.err().contains("Connected."); })) << sender.err();
  fifo.close();
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("13 records: 13 acknowledged"));
}

TEST_F(TelemetryCommand, gives_up_after_the_time_of_W) {
  Broker broker;
  broker.stop();
  const auto ran = start(broker.port(), {"-W", "0.2"}, file("data", numbered_lines(3))).finish();
  EXPECT_EQ(ran.code, 27);
  EXPECT_THAT(ran.out,
              StartsWith("3 records: 0 acknowledged, 3 lost (not delivered before the end 3); 0 batches"));
}

TEST_F(TelemetryCommand, ends_with_the_brokers_code_when_that_refuses_it) {
  Broker::Options options;
  options.users = {{"user", "secret"}};
  Broker broker(options);
  const auto input = file("data", numbered_lines(3));
  const auto ran = run(broker, {"-u", "user", "-P", "wrong"}, input);
  EXPECT_EQ(ran.code, 5);
  EXPECT_THAT(ran.err, HasSubstr("not authorized"));
  EXPECT_EQ(run(broker, {"-u", "user", "-P", "wrong", "-V", "5"}, input).code, 135);
}

TEST_F(TelemetryCommand, a_signal_sends_what_waits_and_ends_it) {
  Broker broker;
  auto subscriber = subscribed(broker);
  Fifo fifo(directory_ / "fifo");
  auto sender = start(broker.port(), {"--batch-interval", "3600", "--source", fifo.path(), "-i", "sender"});
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to sender"));
  fifo.write(numbered_lines(5));
  // One record alone would still wait for its batch.
  ASSERT_TRUE(eventually([&] { return fifo.taken(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  sender.signal(SIGINT);
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 128 + SIGINT) << "its input had not come to its end";
  EXPECT_THAT(ran.out, StartsWith("5 records: 5 acknowledged"));
  EXPECT_TRUE(broker.log_contains("Received DISCONNECT from sender"));
  ASSERT_TRUE(eventually([&] { return timestamps(subscriber.out()).size() == 5; }));
}

TEST_F(TelemetryCommand, this_machine_is_a_source_and_a_signal_its_proper_end) {
  Broker broker;
  auto subscriber = subscribed(broker);
  auto sender = start(broker.port(), {"--source", "host", "--rate", "50", "--batch-interval", "0.05"});
  ASSERT_TRUE(eventually([&] { return subscriber.out().contains("mem_total_bytes"); }));
  sender.signal(SIGTERM);
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 0) << ran.err;
  const auto counted = run(broker, {"--source", "host", "--rate", "100", "--count", "7"});
  EXPECT_EQ(counted.code, 0);
  EXPECT_THAT(counted.out, StartsWith("7 records: 7 acknowledged"));
}

TEST_F(TelemetryCommand, the_second_signal_ends_it_at_once) {
  Broker broker;
  Fifo fifo(directory_ / "fifo");
  auto sender = start(broker.port(), {"--source", fifo.path(), "-i", "sender"});
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to sender"));
  broker.freeze();  // connected, and nothing is acknowledged
  fifo.write(numbered_lines(5));
  ASSERT_TRUE(eventually([&] { return fifo.taken(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  sender.signal(SIGINT);
  ASSERT_TRUE(eventually([&] { return sender.err().contains("5 records wait for the broker"); }))
      << sender.err();
  sender.signal(SIGINT);
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 128 + SIGINT);
  EXPECT_EQ(ran.out, "") << "no time for a summary";
  broker.thaw();
}

TEST_F(TelemetryCommand, leaves_in_its_spool_what_the_broker_does_not_have_and_sends_it_in_the_next_run) {
  Broker broker;
  broker.stop();
  const auto spool = (directory_ / "spool").string();
  const auto first = run(broker, {"--spool", spool}, file("data", numbered_lines(250)));
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, StartsWith("250 records: 0 acknowledged, 250 stored for later; 0 batches; "));
  EXPECT_THAT(first.err, HasSubstr("3 messages wait in " + spool + " for the next run"));
  broker.start();
  auto subscriber = subscribed(broker);
  const auto second = run(broker, {"--spool", spool}, file("more", "{\"ts\":251,\"a\":251}\n"));
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(second.err, "");
  EXPECT_THAT(second.out, StartsWith("1 record: 1 acknowledged; 1 batch; "));
  ASSERT_TRUE(eventually([&] { return timestamps(subscriber.out()).size() >= 251; })) << subscriber.out();
  EXPECT_EQ(timestamps(subscriber.out()), up_to(251));
}

TEST_F(TelemetryCommand, sends_what_former_runs_have_left_without_any_input_of_its_own) {
  Broker broker;
  broker.stop();
  const auto spool = (directory_ / "spool").string();
  run(broker, {"--spool", spool}, file("data", numbered_lines(250)));
  broker.start();
  auto subscriber = subscribed(broker);
  const auto ran = run(broker, {"--spool", spool});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  ASSERT_TRUE(eventually([&] { return timestamps(subscriber.out()).size() >= 250; })) << subscriber.out();
  EXPECT_EQ(timestamps(subscriber.out()), up_to(250));
}

TEST_F(TelemetryCommand, survives_kill_9_with_write_ahead_whatever_the_broker_does) {
  Broker broker;
  auto subscriber = subscribed(broker);
  const auto spool = (directory_ / "spool").string();
  const Words words{"--spool", spool, "--durability", "write_ahead", "--batch-interval", "0.01"};
  const auto waiting = [&] {
    return Running(directory_, "inspect" + std::to_string(++runs_),
                   {FULMAR_PROGRAM, "spool", "export", spool})
        .finish();
  };
  {
    Fifo fifo(directory_ / "fifo");
    Words all = words;
    for (const std::string word : {"--source", fifo.path().c_str(), "-i", "sender"}) all.push_back(word);
    auto sender = start(broker.port(), all);
    ASSERT_TRUE(broker.log_contains("Sending CONNACK to sender"));
    broker.freeze();  // connected, and nothing is acknowledged
    fifo.write(numbered_lines(50));
    ASSERT_TRUE(eventually([&] { return waiting().out.contains("\\\"ts\\\":50,"); })) << waiting().out;
    sender.signal(SIGKILL);
    sender.finish();
  }
  broker.thaw();
  const auto ran = run(broker, words);
  EXPECT_EQ(ran.code, 0) << ran.err;
  ASSERT_TRUE(eventually([&] { return timestamps(subscriber.out()).size() >= 50; })) << subscriber.out();
  auto arrived = timestamps(subscriber.out());  // some of it twice: it was in flight
  std::ranges::sort(arrived);
  arrived.erase(std::ranges::unique(arrived).begin(), arrived.end());
  EXPECT_EQ(arrived, up_to(50));
}

TEST_F(TelemetryCommand, counts_as_acknowledged_what_went_through_the_spool) {
  Broker broker;
  const auto ran = run(broker, {"--spool", (directory_ / "spool").string(), "--durability", "write_ahead"},
                       file("data", numbered_lines(250)));
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("250 records: 250 acknowledged; 3 batches; "));
  EXPECT_EQ(ran.err, "");
}

TEST_F(TelemetryCommand, a_signal_leaves_what_waits_in_the_spool) {
  Broker broker;
  broker.stop();
  const auto spool = (directory_ / "spool").string();
  Fifo fifo(directory_ / "fifo");
  auto sender = start(broker.port(), {"--spool", spool, "--source", fifo.path()});
  fifo.write(numbered_lines(250));
  // The last 50 wait for more.
  ASSERT_TRUE(eventually([&] { return fifo.taken(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  sender.signal(SIGINT);
  const auto ran = sender.finish();
  EXPECT_EQ(ran.code, 128 + SIGINT) << "its input had not come to its end";
  EXPECT_THAT(ran.out, StartsWith("250 records: 0 acknowledged, 250 stored for later; "));
}

TEST_F(TelemetryCommand, says_why_a_spool_cannot_be_used) {
  Broker broker;
  const auto nowhere = run(broker, {"--spool", "/dev/null/spool"});
  EXPECT_EQ(nowhere.code, 1);
  EXPECT_EQ(nowhere.err, "Error: spool directory /dev/null/spool cannot be made: Not a directory\n");

  const auto spool = (directory_ / "spool").string();
  Fifo fifo(directory_ / "fifo");
  auto sender = start(broker.port(), {"--spool", spool, "--source", fifo.path(), "-i", "sender"});
  ASSERT_TRUE(broker.log_contains("Sending CONNACK to sender"));
  const auto second = run(broker, {"--spool", spool});
  EXPECT_EQ(second.code, 1);
  EXPECT_THAT(second.err, MatchesRegex("Error: spool directory " + spool +
                                       " is in use by process [0-9]+: stop it, or use another directory\n"));
  sender.signal(SIGINT);
  sender.finish();
}

TEST_F(TelemetryCommand, each_batch_says_its_run_and_number) {
  Broker broker;
  auto subscriber = subscribed(broker);
  const auto ran = run(broker, {"--batch-wrapper", "--batch-size", "2"}, file("data", numbered_lines(3)));
  EXPECT_EQ(ran.code, 0) << ran.err;
  ASSERT_TRUE(eventually([&] { return std::ranges::count(subscriber.out(), '\n') == 2; }));
  std::smatch match;
  const std::string text = subscriber.out();
  const std::regex both(
      "\"count\":2,\"run\":\"([0-9A-Z]{26})\",\"batch\":1\\}\n.*\"count\":1,\"run\":\"([0-9A-Z]{26})\","
      "\"batch\":2\\}\n");
  ASSERT_TRUE(std::regex_search(text, match, both)) << text;
  EXPECT_EQ(match[1], match[2]);
}

TEST_F(TelemetryCommand, each_batch_carries_its_sequence_as_a_property_where_the_protocol_has_them) {
  Broker broker;
  Running subscriber{directory_,
                     "subscriber",
                     {"mosquitto_sub", "-h", "127.0.0.1", "-p", std::to_string(broker.port()), "-i",
                      "subscriber", "-V", "5", "-t", "#", "-q", "1", "-F", "%P"}};
  ASSERT_TRUE(broker.log_contains("Sending SUBACK to subscriber"));
  const auto input = file("data", numbered_lines(3));
  EXPECT_EQ(run(broker, {"--batch-size", "2", "-V", "5"}, input).code, 0);
  EXPECT_EQ(run(broker, {"-V", "311"}, input).code, 0) << "goes without it";
  ASSERT_TRUE(eventually([&] { return std::ranges::count(subscriber.out(), '\n') >= 3; }))
      << subscriber.out();
  EXPECT_THAT(subscriber.out(),
              testing::ContainsRegex("^fulmar-batch:([0-9A-Z]+)/1\nfulmar-batch:([0-9A-Z]+)/2\n\n$"));
}

TEST_F(TelemetryCommand, paces_a_replay) {
  Broker broker;
  const auto begin = std::chrono::steady_clock::now();
  const auto ran = run(broker, {"--rate", "100"}, file("data", numbered_lines(51)));
  EXPECT_EQ(ran.code, 0);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
}

TEST_F(TelemetryCommand, quiet_says_nothing) {
  Broker broker;
  const auto ran = run(broker, {"--quiet"}, file("data", numbered_lines(1) + "bad\n"));
  EXPECT_EQ(ran.code, 65);
  EXPECT_EQ(ran.out + ran.err, "");
}

}  // namespace
}  // namespace fulmar::cli
