// fulmar spool on spools that a client has made: what it prints, and how it ends.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <algorithm>

#include <boost/json.hpp>

#include "cli/command_rig.hpp"
#include "fulmar/client.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/port.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;
namespace json = boost::json;

class SpoolCommand : public testing::Test {
 protected:
  // Nobody listens: everything waits.
  ClientConfig config() {
    ClientConfig config;
    config.urls = {"mqtt://127.0.0.1:" + std::to_string(test::free_port())};
    config.client_id = "spooler";
    config.protocol = ProtocolVersion::v5;
    config.clean_start = false;
    config.session_expiry = 600s;
    config.spool_dir = spool_;
    config.spool_bytes = std::uint64_t{1} << 20;  // so that a segment has 64 KiB
    return config;
  }
  void fill(int count) {
    Client client(config());
    client.start();
    for (int i = 0; i < count; ++i) {
      const auto text = "message " + std::to_string(i) + " " + std::string(500, 'x');
      ASSERT_TRUE(client.publish("rig/7", text, {.qos = QoS::at_least_once}));
    }
    EXPECT_EQ(client.shutdown(patience).spooled, static_cast<std::uint64_t>(count));
  }
  Ran run(const Words& words) {
    Words argv{FULMAR_PROGRAM, "spool"};
    argv.insert(argv.end(), words.begin(), words.end());
    return Running(directory_, "spool" + std::to_string(++runs_), argv).finish();
  }
  fs::path segment(int number) { return spool_ / ("000000000000000" + std::to_string(number) + ".seg"); }
  static void flip(const fs::path& path, std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    char byte = 0;
    file.seekg(at).get(byte);
    file.seekp(at).put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good());
  }
  static void zero(const fs::path& path) {
    const auto size = fs::file_size(path);
    fs::resize_file(path, 0);
    fs::resize_file(path, size);
  }
  std::string everything() const {
    std::vector<fs::path> paths(fs::directory_iterator(spool_), fs::directory_iterator{});
    std::ranges::sort(paths);
    std::string all;
    for (const auto& path : paths) all += path.string() + content_of(path);
    return all;
  }

  test::TempDir directory_;
  fs::path spool_ = directory_ / "spool";
  int runs_ = 0;
};

std::vector<json::object> objects_of(const std::string& lines) {
  std::vector<json::object> all;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) all.push_back(json::parse(line).as_object());
  return all;
}

TEST_F(SpoolCommand, inspect_tells_what_waits_and_touches_nothing) {
  fill(300);
  const auto before = everything();
  const auto table = run({"inspect", spool_});
  EXPECT_EQ(table.code, 0);
  EXPECT_EQ(table.err, "");
  EXPECT_THAT(table.out, StartsWith("spool " + spool_.string() +
                                    "\n  waiting  300 messages, 158.4 KiB; the oldest for "));
  EXPECT_THAT(table.out, HasSubstr("\n  cursor   acknowledged up to 0; the next message gets 301\n"));
  EXPECT_THAT(table.out, ContainsRegex("\n0000000000000001\\.seg +waiting +[0-9]+ +[0-9]+ +64\\.0 KiB  20"));
  EXPECT_THAT(table.out, Not(HasSubstr("damaged")));

  const auto object = json::parse(run({"inspect", spool_, "--json"}).out).as_object();
  EXPECT_EQ(object.at("waiting"), 300);
  EXPECT_EQ(object.at("messages"), 300);
  EXPECT_EQ(object.at("missing"), 0);
  EXPECT_EQ(object.at("in_use_by"), nullptr);
  EXPECT_EQ(object.at("set_aside"), 0);
  EXPECT_EQ(object.at("cursor").at("next"), 301);
  EXPECT_GE(object.at("oldest_age_ms").as_int64(), 0);
  std::int64_t waiting = 0;
  for (const auto& file : object.at("files").as_array())
    if (const auto* of_file = file.as_object().if_contains("waiting")) waiting += of_file->as_int64();
  EXPECT_EQ(waiting, 300);
  EXPECT_GE(object.at("segments").as_int64(), 3);
  EXPECT_EQ(everything(), before);
}

TEST_F(SpoolCommand, verify_finds_a_sound_spool_sound) {
  fill(300);
  const auto ran = run({"verify", spool_});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(ran.out,
              ContainsRegex("^sound: 300 messages in [0-9]+ segments, 300 waiting; .* read in .* s\n$"));
}

TEST_F(SpoolCommand, verify_names_the_file_and_the_message_of_a_flipped_byte) {
  fill(300);
  flip(segment(2), 5'000);
  const auto ran = run({"verify", spool_});
  EXPECT_EQ(ran.code, 65);
  EXPECT_THAT(ran.out, ContainsRegex(
                           "^0000000000000002\\.seg: message [0-9]+, which was waiting, is missing: damaged, "
                           "or never synced\ndamaged: 1 finding, 1 waiting message lost; 299 messages in "
                           "[0-9]+ segments are sound, 299 waiting\n$"));
  EXPECT_THAT(run({"inspect", spool_}).out,
              HasSubstr("\n  damaged  1 finding, 1 waiting message lost: see 'fulmar spool verify "));
}

TEST_F(SpoolCommand, verify_sees_a_flip_in_every_message_also_in_the_last_one) {
  fill(3);
  for (const int at : {64 + 40, 64 + 600, 64 + 1'200}) {
    flip(segment(1), at);
    EXPECT_EQ(run({"verify", spool_}).code, 65) << at;
    flip(segment(1), at);
  }
  EXPECT_EQ(run({"verify", spool_}).code, 0);
}

TEST_F(SpoolCommand, verify_sees_a_flip_in_what_is_acknowledged_and_says_that_nothing_is_lost) {
  fill(3);
  ASSERT_EQ(run({"purge", spool_, "--yes"}).code, 0);
  flip(segment(1), 64 + 600);
  const auto ran = run({"verify", spool_});
  EXPECT_EQ(ran.code, 65);
  EXPECT_EQ(
      ran.out,
      "0000000000000001.seg: bytes between two messages are none: damaged; no message that waits is lost\n"
      "damaged: 1 finding, 0 waiting messages lost; 2 messages in 1 segment are sound, 0 waiting\n");
}

TEST_F(SpoolCommand, verify_counts_what_a_lost_file_in_front_held) {
  fill(300);
  const auto held =
      objects_of(run({"inspect", spool_, "--json"}).out).at(0).at("files").at(0).at("messages").as_int64();
  zero(segment(1));
  EXPECT_THAT(run({"verify", spool_}).out,
              AllOf(HasSubstr("0000000000000001.seg: messages 1 to " + std::to_string(held) +
                              ", which were waiting, are missing"),
                    HasSubstr(", " + std::to_string(held) + " waiting messages lost; ")));
}

// Files are given back and used again while they are read: nothing of that is damage. The reader of the export waits until
// the client has delivered everything.
TEST_F(SpoolCommand, export_finds_no_damage_when_a_client_empties_the_spool_meanwhile) {
  constexpr int count = 10'000;
  test::Broker broker;
  auto emptying = config();
  emptying.urls = {broker.url()};
  emptying.spool_bytes = std::uint64_t{16} << 20;
  emptying.outbox_bytes = std::uint64_t{16} << 20;
  {
    auto filling = emptying;
    filling.urls = config().urls;
    Client client(filling);
    client.start();
    for (int i = 0; i < count; ++i)
      ASSERT_TRUE(client.publish("rig/7", std::string(500, 'x'), {.qos = QoS::at_least_once}));
    ASSERT_EQ(client.shutdown(patience).spooled, static_cast<std::uint64_t>(count));
  }
  Fifo go(directory_ / "go");
  const auto begun = directory_ / "begun";
  Running exporting(directory_, "export",
                    {"bash", "-o", "pipefail", "-c",
                     "\"$0\" spool export \"$1\" | { head -c 1 >\"$2\"; read -r <\"$3\"; cat; }",
                     FULMAR_PROGRAM, spool_, begun, go.path()});
  ASSERT_TRUE(eventually([&] { return fs::exists(begun) && fs::file_size(begun) == 1; }));
  Client client(emptying);
  client.start();
  ASSERT_TRUE(eventually([&] {
    const auto metrics = client.metrics();
    return metrics.acknowledged == count && metrics.spool_messages == 0 && !fs::exists(segment(2));
  }));
  go.write("go\n");
  const auto ran = exporting.finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  const auto lines = std::ranges::count(ran.out, '\n');
  EXPECT_GT(lines, 0);
  EXPECT_LT(lines, count) << "it was too late for some";
  EXPECT_EQ(run({"verify", spool_}).code, 0);
  client.shutdown(patience);
}

TEST_F(SpoolCommand, verify_tells_a_file_without_a_header_and_a_cursor_without_a_sound_copy) {
  fill(300);
  zero(segment(1));
  zero(spool_ / "cursor");
  const auto ran = run({"verify", spool_});
  EXPECT_EQ(ran.code, 65);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("cursor: no sound copy: "),
                             HasSubstr("0000000000000001.seg: neither copy of the header is sound; its "
                                       "messages cannot be read\n")));
}

TEST_F(SpoolCommand, export_prints_each_waiting_message_as_a_line_of_json) {
  {
    Client client(config());
    client.start();
    const std::array properties{UserProperty{"a", "1"}, UserProperty{"a", "2"}};
    PublishOptions options{.qos = QoS::exactly_once, .retain = true};
    options.content_type = "text/plain";
    options.user_properties = properties;
    options.message_expiry = 3'600s;
    ASSERT_TRUE(client.publish("rig/7", "21 °C \"warm\"", options));
    ASSERT_TRUE(client.publish("rig/8", std::string("\xff\x00\x01", 3), {.qos = QoS::at_least_once}));
    ASSERT_TRUE(client.publish("rig/9", "", {.qos = QoS::at_least_once}));
    client.shutdown(patience);
  }
  const auto ran = run({"export", spool_});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  auto lines = objects_of(ran.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(std::string(lines[0].at("tst").as_string()),
              ContainsRegex("^20..-..-..T..:..:..\\.[0-9]{6}Z[+-][0-9]{4}$"));
  EXPECT_EQ(lines[0].at("topic"), "rig/7");
  EXPECT_EQ(lines[0].at("qos"), 2);
  EXPECT_EQ(lines[0].at("retain"), 1);
  EXPECT_EQ(lines[0].at("payloadlen"), 13);
  EXPECT_EQ(lines[0].at("payload"), "21 °C \"warm\"");
  EXPECT_EQ(
      json::serialize(lines[0].at("properties")),
      R"({"content-type":"text/plain","user-properties":[{"name":"a","value":"1"},{"name":"a","value":"2"}]})");
  EXPECT_GT(std::string(lines[0].at("expires").as_string()), std::string(lines[0].at("tst").as_string()));
  EXPECT_EQ(lines[0].at("sequence"), 1);
  EXPECT_EQ(lines[0].at("acknowledged"), false);
  EXPECT_FALSE(lines[1].contains("payload"));
  EXPECT_EQ(lines[1].at("payload_base64"), "/wAB");
  EXPECT_FALSE(lines[1].contains("properties"));
  EXPECT_FALSE(lines[1].contains("expires"));
  EXPECT_EQ(lines[2].at("payload"), nullptr);
}

TEST_F(SpoolCommand, export_gives_what_is_readable_of_a_damaged_spool_and_says_so) {
  fill(300);
  flip(segment(2), 5'000);
  const auto ran = run({"export", spool_});
  EXPECT_EQ(ran.code, 65);
  EXPECT_EQ(objects_of(ran.out).size(), 299u);
  EXPECT_EQ(ran.err, "Warning: the spool is damaged, 1 waiting message missing: 'fulmar spool verify " +
                         spool_.string() + "' names the files\n");
}

TEST_F(SpoolCommand, purge_does_nothing_without_yes_and_then_takes_all_that_waits) {
  fill(300);
  const auto before = everything();
  const auto refused = run({"purge", spool_});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.err,
            "Error: nothing done: this would remove 300 waiting messages; add --yes to do it: fulmar "
            "spool purge " +
                spool_.string() + " --yes\n");
  EXPECT_EQ(everything(), before);

  const auto ran = run({"purge", spool_, "--yes"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(
      ran.out,
      ContainsRegex("^purged 300 waiting messages; [0-9.]+ KiB freed, [0-9.]+ KiB kept for what comes\n$"));
  EXPECT_EQ(run({"verify", spool_}).code, 0);
  EXPECT_EQ(run({"export", spool_}).out, "");
  for (const auto& line : objects_of(run({"export", spool_, "--all"}).out))
    EXPECT_EQ(line.at("acknowledged"), true);
  fill(1);
  EXPECT_EQ(objects_of(run({"export", spool_}).out).at(0).at("sequence"), 301);
}

TEST_F(SpoolCommand, purge_bad_removes_the_files_set_aside_and_no_message) {
  fill(300);
  zero(segment(1));
  {
    Client client(config());  // sets it aside
    client.start();
    ASSERT_TRUE(eventually([&] { return fs::exists(segment(1).string() + ".bad"); }));
    client.shutdown(patience);
  }
  const auto waiting = run({"export", spool_}).out;
  EXPECT_THAT(run({"verify", spool_}).out,
              HasSubstr("0000000000000001.seg.bad: was set aside as damaged before"));
  EXPECT_EQ(run({"purge", spool_, "--bad"}).code, 1);
  const auto ran = run({"purge", spool_, "--bad", "--yes"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, "removed 0000000000000001.seg.bad\nremoved 1 file set aside; 64.0 KiB freed\n");
  EXPECT_FALSE(fs::exists(segment(1).string() + ".bad"));
  EXPECT_EQ(run({"export", spool_}).out, waiting);
  EXPECT_EQ(run({"purge", spool_, "--bad", "--yes"}).out, "no file is set aside: nothing to remove\n");
}

TEST_F(SpoolCommand, purge_refuses_while_a_process_has_the_spool_and_the_others_look_on) {
  Client client(config());
  client.start();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(client.publish("rig/7", "x", {.qos = QoS::at_least_once}));
  ASSERT_TRUE(client.flush(patience));
  const auto me = std::to_string(getpid());
  const auto ran = run({"purge", spool_, "--yes"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.err, "Error: spool directory " + spool_.string() + " is in use by process " + me +
                         ": stop it, or use another directory\n");
  const auto table = run({"inspect", spool_});
  EXPECT_EQ(table.code, 0);
  EXPECT_THAT(table.out, StartsWith("spool " + spool_.string() + ", in use by process " + me + "\n"));
  EXPECT_EQ(run({"verify", spool_}).code, 0);
  EXPECT_EQ(objects_of(run({"export", spool_}).out).size(), 100u);
  EXPECT_EQ(client.metrics().spool_messages, 100u);
  client.shutdown(patience);
}

TEST_F(SpoolCommand, purge_bad_needs_the_lock_as_well) {
  fill(1);
  std::ofstream(spool_ / "0000000000000009.seg.bad") << "x";
  const int lock = open((spool_ / "lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
  const auto ran = run({"purge", spool_, "--bad", "--yes"});
  close(lock);
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, AllOf(HasSubstr(" is in use by process "), HasSubstr(": stop it first\n")));
  EXPECT_TRUE(fs::exists(spool_ / "0000000000000009.seg.bad"));
}

TEST_F(SpoolCommand, what_is_no_spool_is_refused_by_every_command_and_left_alone) {
  fs::create_directory(spool_);
  std::ofstream(directory_ / "file") << "x";
  for (const std::string command : {"inspect", "verify", "export", "purge"}) {
    const auto empty = run({command, spool_});
    EXPECT_EQ(empty.code, 1) << command;
    EXPECT_EQ(empty.err, "Error: " + spool_.string() +
                             " is no spool: there is neither a segment (*.seg) nor a cursor in it\n");
    const auto missing = run({command, directory_ / "none"});
    EXPECT_EQ(missing.code, 1) << command;
    EXPECT_THAT(missing.err, StartsWith("Error: no such folder: "));
    EXPECT_FALSE(fs::exists(directory_ / "none"));
    EXPECT_THAT(run({command, directory_ / "file"}).err, HasSubstr("/file is no folder: "));
  }
  EXPECT_EQ(run({"purge", spool_, "--yes"}).code, 1);
  EXPECT_TRUE(fs::is_empty(spool_));
}

TEST_F(SpoolCommand, another_version_of_the_format_is_refused_and_left_alone) {
  fill(300);
  for (const auto at : {std::streamoff{8}, std::streamoff{10}}) {  // version and its complement: 1 becomes 0
    flip(segment(2), at);
    flip(segment(2), static_cast<std::streamoff>(fs::file_size(segment(2))) - 64 + at);
  }
  const auto before = everything();
  for (const std::string command : {"inspect", "verify", "export", "purge"}) {
    Words words{command, spool_};
    if (command == "purge") words.emplace_back("--yes");
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 1) << command;
    EXPECT_EQ(ran.err,
              "Error: " + segment(2).string() +
                  " is of another version of the spool's format than 1: use the fulmar of the program that "
                  "wrote it\n");
  }
  EXPECT_EQ(everything(), before);
}

TEST_F(SpoolCommand, a_folder_that_may_not_be_read_is_told) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  fill(1);
  fs::permissions(spool_, fs::perms::none);
  const auto ran = run({"inspect", spool_});
  fs::permissions(spool_, fs::perms::owner_all);
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.err, "Error: spool directory " + spool_.string() + " cannot be read: Permission denied\n");
}

TEST_F(SpoolCommand, a_reader_that_has_gone_is_no_failure) {
  fill(1'500);
  const auto ran = Running(directory_, "head",
                           {"bash", "-o", "pipefail", "-c", "\"$0\" spool export \"$1\" | head -1",
                            FULMAR_PROGRAM, spool_})
                       .finish();
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  EXPECT_EQ(objects_of(ran.out).size(), 1u);
}

TEST_F(SpoolCommand, mistakes_say_where_to_read_on) {
  const auto ran = run({"inspekt"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(
      ran.err,
      "Error: unknown command 'inspekt', did you mean 'inspect'?\nUse 'fulmar spool --help' to see usage.\n");
  EXPECT_THAT(run({"inspect"}).err, HasSubstr("Use 'fulmar spool inspect --help' to see usage.\n"));
  EXPECT_THAT(run({"export", "--help"}).out, StartsWith("fulmar spool export: "));
}

}  // namespace
}  // namespace fulmar::cli
