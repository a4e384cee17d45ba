#include "cli/output.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

namespace fulmar::cli {
namespace {

struct Pipe {
  Pipe() { EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0); }
  ~Pipe() {
    close_reader();
    close(ends[1]);
  }
  void close_reader() {
    if (ends[0] >= 0) close(ends[0]);
    ends[0] = -1;
  }
  std::string read_some() {
    std::string bytes(1 << 16, '\0');
    const auto size = read(ends[0], bytes.data(), bytes.size());
    bytes.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return bytes;
  }
  std::array<int, 2> ends{-1, -1};
};

TEST(Output, delivers_every_byte_in_order_to_a_slow_reader_within_its_bound) {
  Events events;
  Pipe pipe;
  Output output(pipe.ends[1], events);
  constexpr int messages = 200'000;
  std::string expected;
  for (int i = 0; i < messages; ++i) expected += "message " + std::to_string(i) + "\n";
  ASSERT_GT(expected.size(), std::size_t{1} << 21);

  std::string read;
  std::jthread reader([&] {
    while (read.size() < expected.size()) read += pipe.read_some();
  });
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    for (int i = 0; i < messages; ++i) output.append("message " + std::to_string(i) + "\n");
    done = true;
    events.ring();
  });
  while (!done) {
    ASSERT_EQ(output.write_all(), Output::Result::written);
    if (!done) events.wait();
  }
  ASSERT_EQ(output.write_all(), Output::Result::written);
  reader.join();
  EXPECT_EQ(read, expected);
}

TEST(Output, a_full_backlog_holds_the_writer_until_closed) {
  Events events;
  Pipe pipe;
  Output output(pipe.ends[1], events);
  output.append(std::string(Output::bytes_max, 'x'));
  std::atomic<bool> returned{false};
  std::jthread writer([&] {
    output.append("y");
    returned = true;
  });
  EXPECT_FALSE(returned);
  output.close();
  writer.join();
  EXPECT_TRUE(returned);
}

TEST(Output, says_when_the_reader_has_gone) {
  Events events;
  Pipe pipe;
  Output output(pipe.ends[1], events);
  pipe.close_reader();
  output.append("x");
  EXPECT_EQ(output.write_all(), Output::Result::closed_by_reader);
}

TEST(Output, a_signal_ends_the_waiting_for_a_reader_that_does_not_read) {
  Events events;
  Pipe pipe;
  Output output(pipe.ends[1], events);
  output.append(std::string(std::size_t{1} << 20, 'x'));  // more than a pipe holds
  kill(getpid(), SIGTERM);
  EXPECT_EQ(output.write_all(), Output::Result::signal);
  EXPECT_EQ(events.signal(), SIGTERM);
}

}  // namespace
}  // namespace fulmar::cli
