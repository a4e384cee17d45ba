#include "cli/queue_process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/temp_dir.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

// A process that is a zombie has ended, too.
bool is_alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto name_end = text.rfind(')');
  return name_end != std::string::npos && text.size() > name_end + 2 && text[name_end + 2] != 'Z';
}

pid_t number_in(const std::filesystem::path& path) {
  pid_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

class ChildProcessTest : public testing::Test {
 protected:
  Result<ChildEnd> run(const std::string& script, std::string_view input = "{}",
                       const std::function<void(ChildSpec&)>& change = {}) {
    const std::vector<std::string> words{"sh", "-c", script};
    ChildSpec spec{.path = "/bin/sh",
                   .words = words,
                   .environment = {"FOLDER=" + directory_.path().string()},
                   .input = input};
    if (change) change(spec);
    return process_.run(spec);
  }

  test::TempDir directory_;
  ProcessGuard guard_ = *ProcessGuard::start();
  ChildProcess process_{guard_};
};

TEST_F(ChildProcessTest, has_its_input_on_stdin_and_its_exit_code_decides) {
  const auto end = run("cat; exit 7", "{\"a\":1}", [](ChildSpec& spec) { spec.output_bytes_max = 100; });
  ASSERT_TRUE(end) << end.error().message;
  EXPECT_EQ(end->output, "{\"a\":1}");
  EXPECT_EQ(end->code, 7);
  EXPECT_EQ(end->signal, 0);
}

TEST_F(ChildProcessTest, that_does_not_read_a_large_input_is_not_held_up) {
  const std::string large(1 << 20, 'x');
  const auto end = run("exit 0", large);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 0);
}

TEST_F(ChildProcessTest, leaves_the_last_whole_lines_of_stderr) {
  std::string seen;
  const auto end = run("for i in $(seq 2000); do echo line $i >&2; done", "{}", [&](ChildSpec& spec) {
    spec.error_bytes_max = 25;
    spec.on_stderr = [&](std::string_view text) { seen += text; };
  });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->error_end, "line 1999\nline 2000");
  EXPECT_EQ(std::ranges::count(seen, '\n'), 2000);
}

TEST_F(ChildProcessTest, is_killed_with_all_it_started_when_its_time_is_over) {
  const auto end =
      run("sleep 600 & echo $! >$FOLDER/pid; wait", "{}", [](ChildSpec& spec) { spec.time_limit = 200ms; });
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->out_of_time);
  EXPECT_EQ(end->signal, SIGTERM);
  const auto grandchild = number_in(directory_ / "pid");
  ASSERT_GT(grandchild, 0);
  EXPECT_TRUE(eventually([&] { return !is_alive(grandchild); }));
}

TEST_F(ChildProcessTest, that_has_ended_is_not_waited_for_because_of_what_it_left_behind) {
  const auto begin = std::chrono::steady_clock::now();
  const auto end = run("sleep 600 & echo $! >$FOLDER/pid");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 0);
  const auto left = number_in(directory_ / "pid");
  ASSERT_GT(left, 0);
  EXPECT_TRUE(is_alive(left));
  kill(left, SIGKILL);
}

TEST_F(ChildProcessTest, can_be_killed_from_another_thread_also_before_it_runs) {
  process_.kill_group(SIGKILL);
  const auto end = run("sleep 600");
  ASSERT_TRUE(end);
  EXPECT_EQ(end->signal, SIGKILL);
}

TEST_F(ChildProcessTest, that_cannot_be_run_is_an_error) {
  const auto path = (directory_ / "script").string();
  std::ofstream(path) << "echo no first line\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  const auto end = run("", "{}", [&](ChildSpec& spec) { spec.path = path; });
  ASSERT_FALSE(end);
  EXPECT_THAT(end.error().message, HasSubstr("a script begins with a line like #!/bin/sh"));
}

// The worker itself is a child here, so that it can be killed as nobody should be.
TEST_F(ChildProcessTest, does_not_outlive_a_worker_that_is_killed) {
  const pid_t worker = fork();
  ASSERT_GE(worker, 0);
  if (worker == 0) {
    auto guard = ProcessGuard::start();
    ChildProcess process(*guard);
    const std::vector<std::string> words{
        "sh", "-c",
        "sleep 600 & echo $! >$FOLDER/two; echo $$ >$FOLDER/one.tmp; mv $FOLDER/one.tmp $FOLDER/one; wait"};
    const ChildSpec spec{.path = "/bin/sh",
                         .words = words,
                         .environment = {"FOLDER=" + directory_.path().string()},
                         .input = "{}"};
    (void)process.run(spec);
    _exit(0);
  }
  const auto one = directory_ / "one";
  const bool begun = eventually([&] { return std::filesystem::exists(one); });
  kill(worker, SIGKILL);
  waitpid(worker, nullptr, 0);
  ASSERT_TRUE(begun);
  const auto command = number_in(one);
  const auto grandchild = number_in(directory_ / "two");
  ASSERT_GT(command, 0);
  ASSERT_GT(grandchild, 0);
  EXPECT_TRUE(eventually([&] { return !is_alive(command) && !is_alive(grandchild); }));
}

TEST(FindProgram, looks_through_the_path_and_says_what_is_wrong) {
  EXPECT_EQ(find_program("sh").value_or("").substr(0, 1), "/");
  EXPECT_THAT(find_program("no-such-command-of-mine").error().message,
              HasSubstr("there is no such command in PATH"));
  const test::TempDir directory;
  std::ofstream(directory / "plain") << "text\n";
  const auto plain = find_program(directory / "plain");
  ASSERT_FALSE(plain);
  EXPECT_THAT(plain.error().message, HasSubstr("not an executable file"));
  EXPECT_THAT(find_program("./no-such-file").error().message, HasSubstr("there is no such file"));
}

}  // namespace
}  // namespace fulmar::cli
