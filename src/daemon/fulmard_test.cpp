// The daemon as its users see it: the program, a real broker, signals, standard output and exit codes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::daemon {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool eventually(auto condition, std::chrono::milliseconds patience = 10s) {
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;
       std::this_thread::sleep_for(10ms))
    if (condition()) return true;
  return condition();
}

struct Totals {
  std::uint64_t recorded = 0, acknowledged = 0, stored = 0, waiting = 0, dropped = 0;
};

class Fulmard : public testing::Test {
 protected:
  Fulmard() {
    for (const auto name : {"MQTT_URL", "MQTT_CLIENT_ID", "MQTT_USERNAME", "MQTT_PASSWORD", "MQTT_SPOOL_DIR",
                            "MQTT_DURABILITY", "FULMAR_CONFIG"})
      ::unsetenv(name);
  }
  void start(std::vector<std::string> flags) {
    flags.insert(flags.begin(), FULMARD_PATH);
    process_ = test::Process({.argv = std::move(flags), .output = output_});
  }
  std::string output() const { return read(output_); }
  bool said(const std::string& text, std::chrono::milliseconds patience = 10s) {
    return eventually([&] { return output().find(text) != std::string::npos; }, patience);
  }
  // The first group of the expression in the output so far.
  std::string found(const std::string& expression) const {
    std::smatch match;
    const std::string text = output();
    return std::regex_search(text, match, std::regex(expression)) ? match[1].str() : std::string();
  }
  // Sends the signal: the exit code and how long it took.
  std::pair<std::optional<int>, Clock::duration> stop(int signal = SIGINT) {
    const auto begin = Clock::now();
    process_.send_signal(signal);
    const auto code = process_.wait(10s);
    return {code, Clock::now() - begin};
  }
  Totals totals() const {
    std::smatch m;
    const std::string text = output();
    Totals t;
    if (!std::regex_search(
            text, m,
            std::regex("recorded (\\d+) = acknowledged (\\d+) \\+ stored (\\d+) \\+ waiting (\\d+) \\+ "
                       "dropped (\\d+)"))) {
      ADD_FAILURE() << "no totals in: " << text;
      return t;
    }
    return {std::stoull(m[1]), std::stoull(m[2]), std::stoull(m[3]), std::stoull(m[4]), std::stoull(m[5])};
  }
  // Runs to the end by itself.
  int run(std::vector<std::string> flags) {
    start(std::move(flags));
    return process_.wait(10s).value_or(-1);
  }

  test::TempDir folder_;
  std::filesystem::path output_ = folder_ / "output";
  test::Process process_;
};

std::set<std::string> timestamps_in(const std::filesystem::path& path) {
  std::set<std::string> all;
  const std::string text = read(path);
  const std::regex ts("\\{\"ts\":(\\d+)");
  for (std::sregex_iterator at(text.begin(), text.end(), ts), end; at != end; ++at) all.insert((*at)[1]);
  return all;
}

TEST_F(Fulmard, sends_every_record_through_a_broker_that_is_killed_in_between_and_the_totals_add_up) {
  start({"--live", "--rate-hz", "50", "--set", "telemetry.batch_interval_s=0.2"});
  ASSERT_TRUE(said("connected")) << output();
  const std::string port = found("mqtt://127.0.0.1:(\\d+)");
  ASSERT_FALSE(port.empty()) << output();

  const auto received = folder_ / "received";
  test::Process subscriber({.argv = {"mosquitto_sub", "-p", port, "-t", "v1/devices/me/telemetry", "-q", "1",
                                     "-c", "-i", "test-subscriber", "-V", "mqttv5", "-x", "3600"},
                            .output = received});
  ASSERT_TRUE(eventually([&] { return !timestamps_in(received).empty(); }));

  const std::string broker_pid = found("mosquitto \\(pid (\\d+)\\)");
  ASSERT_FALSE(broker_pid.empty()) << output();
  ASSERT_EQ(::kill(static_cast<pid_t>(std::stol(broker_pid)), SIGKILL), 0);
  ASSERT_TRUE(said("killed by signal 9")) << output();
  ASSERT_TRUE(said("was restarted")) << output();
  const auto before = timestamps_in(received).size();
  ASSERT_TRUE(eventually([&] { return timestamps_in(received).size() > before + 50; })) << output();

  const auto [code, time] = stop();
  EXPECT_EQ(code, 0) << output();
  EXPECT_LT(time, 2s);
  const Totals t = totals();
  EXPECT_GT(t.recorded, 50u);
  EXPECT_EQ(t.recorded, t.acknowledged + t.waiting + t.dropped);
  EXPECT_EQ(t.recorded, t.acknowledged);
}

TEST_F(Fulmard, every_record_arrives_at_a_subscriber_across_an_outage_of_the_broker) {
  test::Broker broker(
      {.config = {"persistence true", "persistence_location " + folder_.path().string() + "/",
                  "autosave_on_changes true", "autosave_interval 1", "max_queued_messages 0"}});
  const auto received = folder_ / "received";
  const std::vector<std::string> subscribe{"mosquitto_sub",
                                           "-p",
                                           std::to_string(broker.port()),
                                           "-t",
                                           "v1/devices/me/telemetry",
                                           "-q",
                                           "1",
                                           "-c",
                                           "-i",
                                           "test-subscriber",
                                           "-V",
                                           "mqttv5",
                                           "-x",
                                           "3600"};
  test::Process subscriber({.argv = subscribe, .output = received});
  ASSERT_TRUE(broker.log_contains("SUBACK"));
  start({"--live", "--url", broker.url(), "--rate-hz", "50", "--set", "telemetry.batch_interval_s=0.2"});
  ASSERT_TRUE(eventually([&] { return timestamps_in(received).size() > 20; })) << output();
  broker.stop();
  ASSERT_TRUE(said("next attempt in")) << output();
  std::this_thread::sleep_for(2s);
  broker.start();
  const auto before = timestamps_in(received).size();
  ASSERT_TRUE(eventually([&] { return timestamps_in(received).size() > before + 150; }, 15s)) << output();
  const auto [code, time] = stop(SIGTERM);
  EXPECT_EQ(code, 0) << output();
  EXPECT_LT(time, 2s);
  const Totals t = totals();
  EXPECT_EQ(t.recorded, t.acknowledged);
  EXPECT_TRUE(eventually([&] { return timestamps_in(received).size() >= t.recorded; }));
  EXPECT_EQ(timestamps_in(received).size(), t.recorded);
}

// The records of a file, {"ts":1,..}, {"ts":2,..} ..., so that those stored are the first so many of them.
class FulmardWithSpool : public Fulmard, public testing::WithParamInterface<const char*> {
 protected:
  FulmardWithSpool() {
    std::ofstream records(records_);
    for (int i = 1; i <= 100'000; ++i) records << "{\"ts\":" << i << ",\"v\":1}\n";
    std::ofstream(nothing_) << "";
    subscribe();
  }
  void subscribe() {
    subscriber_ = test::Process(
        {.argv = {"mosquitto_sub", "-p", std::to_string(broker_.port()), "-t", "v1/devices/me/telemetry",
                  "-q", "1", "-c", "-i", "test-subscriber", "-V", "mqttv5", "-x", "3600"},
         .output = received_});
    if (!broker_.log_contains("SUBACK")) throw std::runtime_error("no subscription");
  }
  void start_with(const std::filesystem::path& source) {
    begin_ = output().size();
    start({"--live", "--url", broker_.url(), "--set", "mqtt.spool_dir=" + spool_.string(), "--set",
           std::string("mqtt.durability=") + GetParam(), "--set", "mqtt.reconnect_max_delay_s=0.5", "--set",
           "telemetry.source=" + source.string(), "--set", "telemetry.lines.format=json", "--set",
           "telemetry.lines.rate_hz=2000", "--set", "telemetry.batch_size=50", "--set",
           "telemetry.queue_capacity=100000"});
  }
  // By the process started last.
  bool said_now(const std::string& text) {
    return eventually([&] { return output().find(text, begin_) != std::string::npos; });
  }
  // Acknowledged and stored, as the last status line has it.
  std::pair<std::uint64_t, std::uint64_t> settled() const {
    const std::string text = output();
    const std::regex line("acknowledged (\\d+), stored (\\d+),");
    std::pair<std::uint64_t, std::uint64_t> last{};
    for (std::sregex_iterator at(text.begin(), text.end(), line), end; at != end; ++at)
      last = {std::stoull((*at)[1]), std::stoull((*at)[2])};
    return last;
  }
  std::vector<std::uint64_t> missing_up_to(std::uint64_t last) const {
    const auto all = timestamps_in(received_);
    std::vector<std::uint64_t> missing;
    for (std::uint64_t i = 1; i <= last; ++i)
      if (!all.contains(std::to_string(i))) missing.push_back(i);
    return missing;
  }
  // Whether the records came in their order, repetitions left out.
  bool in_order() const {
    const std::string text = read(received_);
    const std::regex ts("\\{\"ts\":(\\d+)");
    std::set<std::uint64_t> seen;
    for (std::sregex_iterator at(text.begin(), text.end(), ts), end; at != end; ++at) {
      const std::uint64_t one = std::stoull((*at)[1]);
      if (!seen.contains(one) && !seen.empty() && one < *seen.rbegin()) return false;
      seen.insert(one);
    }
    return true;
  }

  const std::filesystem::path records_ = folder_ / "records", nothing_ = folder_ / "nothing",
                              spool_ = folder_ / "spool", received_ = folder_ / "received";
  test::Broker broker_{
      {.config = {"persistence true", "persistence_location " + folder_.path().string() + "/",
                  "autosave_on_changes true", "autosave_interval 1", "max_queued_messages 0"}}};
  test::Process subscriber_;
  std::size_t begin_ = 0;  // of the output of the process started last
};

TEST_P(FulmardWithSpool, loses_nothing_stored_when_it_is_killed_while_the_broker_is_away) {
  start_with(records_);
  ASSERT_TRUE(eventually([&] { return timestamps_in(received_).size() > 500; })) << output();
  broker_.stop();
  ASSERT_TRUE(said("next attempt in")) << output();
  ASSERT_TRUE(eventually([&] { return settled().second > 5'000; }, 15s)) << output();
  EXPECT_THAT(found("on disk ([1-9]\\d*) messages"), Not("")) << output();
  process_.send_signal(SIGKILL);
  ASSERT_TRUE(process_.wait(5s)) << output();
  const auto [acknowledged, stored] = settled();

  broker_.start();
  start_with(nothing_);
  ASSERT_TRUE(eventually([&] { return missing_up_to(acknowledged + stored).empty(); }, 20s))
      << output() << testing::PrintToString(missing_up_to(acknowledged + stored));
  ASSERT_TRUE(said_now("connected; ") && said_now("on disk 0 messages")) << output();
  EXPECT_TRUE(in_order());
  const auto [code, time] = stop();
  EXPECT_EQ(code, 0) << output();
  EXPECT_LT(time, 2s);
  EXPECT_EQ(totals().recorded, 0u);
}

TEST_P(FulmardWithSpool, loses_nothing_settled_when_it_is_killed_while_it_sends) {
  start_with(records_);
  ASSERT_TRUE(eventually([&] { return settled().first + settled().second > 3'000; }, 15s)) << output();
  process_.send_signal(SIGKILL);
  ASSERT_TRUE(process_.wait(5s)) << output();
  const auto [acknowledged, stored] = settled();
  EXPECT_EQ(acknowledged == 0, GetParam() == std::string("write_ahead"));
  start_with(nothing_);
  ASSERT_TRUE(eventually([&] { return missing_up_to(acknowledged + stored).empty(); }, 20s))
      << output() << testing::PrintToString(missing_up_to(acknowledged + stored));
  ASSERT_TRUE(said_now("connected; ") && said_now("on disk 0 messages")) << output();
  EXPECT_TRUE(in_order());
  EXPECT_EQ(stop().first, 0) << output();
}

TEST_P(FulmardWithSpool, stops_cleanly_while_the_broker_is_away_and_sends_the_rest_at_the_next_start) {
  broker_.stop();
  start_with(records_);
  ASSERT_TRUE(eventually([&] { return settled().second > 2'000; }, 15s)) << output();
  const auto [code, time] = stop(SIGTERM);
  EXPECT_EQ(code, 3) << "the broker was never reached\n" << output();
  EXPECT_LT(time, 2s);
  const Totals t = totals();
  EXPECT_EQ(t.recorded, t.stored) << output();
  EXPECT_THAT(output(), HasSubstr("messages wait in " + spool_.string() + " for the next start"));

  broker_.start();
  start_with(nothing_);
  ASSERT_TRUE(eventually([&] { return missing_up_to(t.recorded).empty(); }, 20s)) << output();
  EXPECT_TRUE(in_order());
  EXPECT_EQ(timestamps_in(received_).size(), t.recorded);
  ASSERT_TRUE(said_now("on disk 0 messages")) << output();
  EXPECT_EQ(stop().first, 0) << output();
}

INSTANTIATE_TEST_SUITE_P(Durability, FulmardWithSpool, testing::Values("spill", "write_ahead"),
                         [](const auto& level) { return std::string(level.param); });

TEST_F(Fulmard, goes_on_in_memory_and_says_so_when_its_spool_cannot_be_used) {
  test::Broker broker;
  std::ofstream(folder_ / "file") << "no folder";
  start({"--live", "--url", broker.url(), "--set", "mqtt.spool_dir=" + (folder_ / "file").string(), "--set",
         "telemetry.batch_interval_s=0.1"});
  ASSERT_TRUE(said("the spool cannot be used")) << output();
  ASSERT_TRUE(said("FAILING: new messages wait in memory")) << output();
  ASSERT_TRUE(eventually([&] { return !found("acknowledged ([1-9])").empty(); })) << output();
  EXPECT_EQ(stop().first, 0) << output();
}

TEST_F(Fulmard, stops_at_once_while_the_broker_says_nothing) {
  const test::SilentPort silent;
  start({"--live", "--url", "mqtt://127.0.0.1:" + std::to_string(silent.port())});
  ASSERT_TRUE(said("connecting to 127.0.0.1")) << output();
  ASSERT_TRUE(eventually([&] { return !found("recorded ([1-9])").empty(); }));
  const auto [code, time] = stop();
  EXPECT_EQ(code, 3) << output();
  EXPECT_LT(time, 2s);
  const Totals t = totals();
  EXPECT_EQ(t.acknowledged, 0u);
  EXPECT_GT(t.dropped, 0u);
  EXPECT_EQ(t.recorded, t.acknowledged + t.waiting + t.dropped);
  EXPECT_THAT(output(), HasSubstr("records were lost with this process"));
}

TEST_F(Fulmard, goes_on_sampling_and_says_why_while_a_host_name_cannot_be_resolved) {
  start({"--live", "--url", "mqtt://no-such-host.invalid"});
  ASSERT_TRUE(said("cannot resolve host \"no-such-host.invalid\"")) << output();
  ASSERT_TRUE(said("next attempt in")) << output();
  const auto [code, time] = stop();
  EXPECT_EQ(code, 3);
  EXPECT_LT(time, 2s);
}

TEST_F(Fulmard, says_when_the_broker_refuses_the_password_and_never_shows_it) {
  test::Broker broker({.users = {{"user", "right"}}});
  start({"--live", "--url", broker.url_with("user", "hunter2")});
  ASSERT_TRUE(said("not authorized")) << output();
  EXPECT_TRUE(said("check the user name and the password")) << output();
  const auto [code, time] = stop();
  EXPECT_EQ(code, 3);
  EXPECT_LT(time, 2s);
  EXPECT_THAT(output(), Not(HasSubstr("hunter2")));
}

TEST_F(Fulmard, refuses_a_bad_configuration_in_one_line_and_with_code_2) {
  std::ofstream(folder_ / "bad.toml") << "[telemetry]\nbatch_sise = 1\n";
  EXPECT_EQ(run({"--live", "--config", folder_ / "bad.toml"}), 2);
  EXPECT_THAT(output(), MatchesRegex("fulmard: unknown key telemetry.batch_sise in [^\n]*/bad.toml:2:1; "
                                     "did you mean batch_size.\n"));
}

TEST_F(Fulmard, refuses_a_malformed_url) {
  EXPECT_EQ(run({"--live", "--url", "mqtt:/nonsense"}), 2);
  EXPECT_THAT(output(), MatchesRegex("fulmard: [^\n]*mqtt:/nonsense[^\n]*\n"));
}

TEST_F(Fulmard, refuses_an_unknown_flag_with_code_2) {
  EXPECT_EQ(run({"--lvie"}), 2);
  EXPECT_THAT(output(), MatchesRegex("fulmard: [^\n]*--lvie[^\n]*\n"));
}

TEST_F(Fulmard, refuses_a_log_file_that_cannot_be_opened) {
  EXPECT_NE(run({"--live", "--url", "mqtt://127.0.0.1:1", "--set", "log.file=/proc/no/such"}), 0);
  EXPECT_THAT(output(), MatchesRegex("fulmard: [^\n]*/proc/no/such[^\n]*\n"));
}

TEST_F(Fulmard, shows_its_effective_configuration) {
  EXPECT_EQ(run({"--check-config", "--live", "--url", "mqtt://u:hunter2@h"}), 0);
  EXPECT_THAT(output(),
              AllOf(HasSubstr("[telemetry]"), HasSubstr("mqtt://u:***@h"), Not(HasSubstr("hunter2"))));
}

TEST_F(Fulmard, a_signal_to_the_process_and_to_its_group_at_once_is_one) {
  start({"--live"});
  ASSERT_TRUE(said("connected")) << output();
  process_.send_signal(SIGINT);
  process_.send_signal(SIGHUP);
  process_.send_signal(SIGTERM);
  EXPECT_EQ(process_.wait(5s), 0) << output();
  EXPECT_THAT(output(), HasSubstr("recorded"));
}

TEST_F(Fulmard, a_second_signal_ends_it_at_once_and_leaves_no_directory) {
  ::setenv("TMPDIR", folder_.path().c_str(), 1);
  start({"--live", "--rate-hz", "1000"});
  ASSERT_TRUE(said("connected")) << output();
  ASSERT_EQ(std::ranges::distance(std::filesystem::directory_iterator(folder_.path())),
            2);  // its broker's, and the output
  const std::string broker_pid = found("mosquitto \\(pid (\\d+)\\)");
  ::kill(static_cast<pid_t>(std::stol(broker_pid)), SIGSTOP);  // so that a clean stop has to wait
  process_.send_signal(SIGINT);
  std::this_thread::sleep_for(400ms);
  process_.send_signal(SIGINT);
  EXPECT_EQ(process_.wait(5s), 130);
  EXPECT_TRUE(eventually([&] { return ::kill(static_cast<pid_t>(std::stol(broker_pid)), 0) != 0; }));
  ::unsetenv("TMPDIR");
  EXPECT_EQ(std::ranges::distance(std::filesystem::directory_iterator(folder_.path())), 1);
}

TEST_F(Fulmard, sends_what_programs_write_into_a_fifo_and_stays_when_they_go) {
  test::Broker broker;
  const auto fifo = folder_ / "in";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  start({"--live", "--url", broker.url(), "--set", "telemetry.source=" + fifo.string(), "--set",
         "telemetry.lines.format=json", "--set", "telemetry.batch_interval_s=0.05"});
  ASSERT_TRUE(said("sends the records of " + fifo.string())) << output();
  std::ofstream(fifo) << "{\"ts\":1,\"a\":1}\nnonsense\n";
  ASSERT_TRUE(said("line 2: not JSON")) << output();
  std::ofstream(fifo) << "{\"ts\":2,\"a\":1}\n";
  ASSERT_TRUE(said("recorded 2, acknowledged 2,")) << output();
  EXPECT_EQ(stop().first, 0) << output();
  EXPECT_EQ(totals().recorded, 2u);
  EXPECT_EQ(totals().acknowledged, 2u);
}

TEST_F(Fulmard, cannot_run_without_the_input_it_was_given) {
  EXPECT_EQ(run({"--url", "mqtt://127.0.0.1:1", "--set", "telemetry.enabled=true", "--set",
                 "telemetry.source=/nonexistent"}),
            1);
  EXPECT_EQ(output(), "fulmard: cannot read records from '/nonexistent': No such file or directory\n");
}

}  // namespace
}  // namespace fulmar::daemon
