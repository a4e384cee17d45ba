#include "telemetry/line_source.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using Offer = Telemetry::Offer;

constexpr auto patience = 20s;

// What a source hands on, and how it is received.
class Receiver {
 public:
  LineSource::Handlers handlers() {
    return {.offer = [this](const Measurement& m) { return offered(m); },
            .record = [this](const Measurement& m) { recorded(m); },
            .bad_line =
                [this](const BadLine& bad) {
                  const std::lock_guard lock(mutex_);
                  bad_.push_back(bad);
                },
            .ended =
                [this] {
                  const std::lock_guard lock(mutex_);
                  ended_ = true;
                  changed_.notify_all();
                }};
  }
  void answer(Offer answer) {
    const std::lock_guard lock(mutex_);
    answer_ = answer;
  }
  bool wait_for_end() {
    return wait([this] { return ended_; });
  }
  bool wait_for_records(std::size_t count) {
    return wait([this, count] { return times_.size() >= count; });
  }
  bool wait_for_offers(std::size_t count) {
    return wait([this, count] { return offers_ >= count; });
  }
  std::vector<std::int64_t> timestamps() {
    const std::lock_guard lock(mutex_);
    return timestamps_;
  }
  std::vector<Clock::time_point> times() {
    const std::lock_guard lock(mutex_);
    return times_;
  }
  std::vector<BadLine> bad() {
    const std::lock_guard lock(mutex_);
    return bad_;
  }
  std::size_t recorded_without_waiting() {
    const std::lock_guard lock(mutex_);
    return without_waiting_;
  }

 private:
  bool wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, condition);
  }
  Offer offered(const Measurement& m) {
    const std::lock_guard lock(mutex_);
    ++offers_;
    changed_.notify_all();
    if (answer_ == Offer::taken) take(m);
    return answer_;
  }
  void recorded(const Measurement& m) {
    const std::lock_guard lock(mutex_);
    ++without_waiting_;
    take(m);
  }
  void take(const Measurement& m) {
    timestamps_.push_back(m.ts_ms());
    times_.push_back(Clock::now());
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Offer answer_ = Offer::taken;
  std::size_t offers_ = 0, without_waiting_ = 0;
  std::vector<std::int64_t> timestamps_;
  std::vector<Clock::time_point> times_;
  std::vector<BadLine> bad_;
  bool ended_ = false;
};

class LineSourceTest : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& content) {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  std::unique_ptr<LineSource> start(LineSource::Config config) {
    auto source = LineSource::open(std::move(config), receiver_.handlers());
    EXPECT_TRUE(source) << source.error().message;
    (*source)->start();
    return std::move(*source);
  }
  static std::string lines(int count) {
    std::string text;
    for (int i = 1; i <= count; ++i) text += "{\"ts\":" + std::to_string(i) + ",\"a\":1}\n";
    return text;
  }

  test::TempDir directory_;
  Receiver receiver_;
};

TEST_F(LineSourceTest, reads_a_file_to_its_end_and_says_how_far_it_is) {
  const auto text = lines(5'000) + "nonsense\n";
  const auto source = start({.path = file("data", text)});
  ASSERT_TRUE(receiver_.wait_for_end());
  const auto s = source->stats();
  EXPECT_TRUE(s.ended);
  EXPECT_FALSE(s.failure);
  EXPECT_EQ(s.records, 5'000u);
  EXPECT_EQ(s.lines, 5'001u);
  EXPECT_EQ(s.bytes, text.size());
  EXPECT_EQ(s.bytes_total, text.size());
  EXPECT_EQ(s.bad_lines, 1u);
  ASSERT_EQ(receiver_.bad().size(), 1u);
  EXPECT_EQ(receiver_.bad()[0].line, 5'001u);
  EXPECT_EQ(receiver_.timestamps().size(), 5'000u);
  EXPECT_EQ(receiver_.timestamps().back(), 5'000);
}

TEST_F(LineSourceTest, waits_while_the_queue_is_full_and_loses_nothing) {
  receiver_.answer(Offer::queue_full);
  const auto source = start({.path = file("data", lines(3))});
  ASSERT_TRUE(receiver_.wait_for_offers(3));
  EXPECT_EQ(source->stats().records, 0u);
  receiver_.answer(Offer::taken);
  ASSERT_TRUE(receiver_.wait_for_end());
  EXPECT_THAT(receiver_.timestamps(), ElementsAre(1, 2, 3));
}

TEST_F(LineSourceTest, stop_ends_every_wait) {
  receiver_.answer(Offer::queue_full);
  const auto full = start({.path = file("data", lines(3))});
  ASSERT_TRUE(receiver_.wait_for_offers(1));
  full->stop();
  receiver_.answer(Offer::taken);
  const auto slow = start({.path = file("data", lines(3)), .rate_hz = 0.001});
  ASSERT_TRUE(receiver_.wait_for_records(1));
  slow->stop();
  EXPECT_EQ(slow->stats().records, 1u);
  const auto fifo = directory_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto silent = start({.path = fifo});
  silent->stop();
  EXPECT_EQ(silent->stats().records, 0u);
}

TEST_F(LineSourceTest, paces_by_an_absolute_schedule) {
  constexpr int count = 200;
  const auto source = start({.path = file("data", lines(count)), .rate_hz = 1'000});
  ASSERT_TRUE(receiver_.wait_for_end());
  const auto times = receiver_.times();
  ASSERT_EQ(times.size(), std::size_t{count});
  for (int i = 0; i < count; ++i)  // never early; each by its own due time, not by the one before
    EXPECT_GE(times[static_cast<std::size_t>(i)] - times[0] + 1ms, i * 1ms) << i;
  EXPECT_LT(times.back() - times[0], count * 1ms + 2s);
  EXPECT_TRUE(source->can_wait()) << "a file with a rate can wait";
}

TEST_F(LineSourceTest, a_fifo_ends_with_its_writer_unless_it_is_to_stay_open) {
  const auto fifo = directory_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto write_lines = [&](const std::string& text) {
    const int fd = open(fifo.c_str(), O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    close(fd);
  };
  {
    const auto ends = start({.path = fifo});
    write_lines("{\"ts\":1,\"a\":1}\n{\"ts\":2,\"a\":1}");
    ASSERT_TRUE(receiver_.wait_for_end());
    EXPECT_THAT(receiver_.timestamps(), ElementsAre(1, 2)) << "the last line without its end too";
    EXPECT_EQ(ends->stats().bytes_total, 0u);
  }
  const auto stays = start({.path = fifo, .fifo_stays_open = true});
  write_lines("{\"ts\":3,\"a\":1}\n");
  ASSERT_TRUE(receiver_.wait_for_records(3));
  write_lines("{\"ts\":4,\"a\":1}\n");
  ASSERT_TRUE(receiver_.wait_for_records(4));
  EXPECT_FALSE(stays->stats().ended);
}

TEST_F(LineSourceTest, a_fifo_with_a_rate_does_not_wait_for_the_queue) {
  const auto fifo = directory_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto source = start({.path = fifo, .rate_hz = 10'000});
  EXPECT_FALSE(source->can_wait());
  std::ofstream(fifo) << lines(3);
  ASSERT_TRUE(receiver_.wait_for_end());
  EXPECT_EQ(receiver_.recorded_without_waiting(), 3u);
}

TEST_F(LineSourceTest, ends_after_the_number_of_records_asked_for) {
  const auto source = start({.path = file("data", lines(10)), .records_max = 4});
  ASSERT_TRUE(receiver_.wait_for_end());
  EXPECT_THAT(receiver_.timestamps(), ElementsAre(1, 2, 3, 4));
}

TEST_F(LineSourceTest, tells_the_first_bad_lines_and_counts_the_others) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "bad\n";
  const auto source = start({.path = file("data", text + lines(1)), .format = RecordFormat::json});
  ASSERT_TRUE(receiver_.wait_for_end());
  EXPECT_EQ(receiver_.bad().size(), LineSource::bad_lines_told_max);
  EXPECT_EQ(source->stats().bad_lines, 50u);
  EXPECT_EQ(source->stats().records, 1u);
}

TEST_F(LineSourceTest, a_record_that_never_fits_is_a_bad_line) {
  receiver_.answer(Offer::too_large);
  const auto source = start({.path = file("data", "\n" + lines(1))});
  ASSERT_TRUE(receiver_.wait_for_end());
  ASSERT_EQ(receiver_.bad().size(), 1u);
  EXPECT_EQ(receiver_.bad()[0].line, 2u);
  EXPECT_EQ(source->stats().records, 0u);
}

TEST_F(LineSourceTest, says_what_cannot_be_read_and_why) {
  const auto missing = LineSource::open({.path = "/nonexistent/data"}, receiver_.handlers());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::io_error);
  EXPECT_EQ(missing.error().message,
            "cannot read records from '/nonexistent/data': No such file or directory");
  const auto folder = LineSource::open({.path = "/"}, receiver_.handlers());
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().message, HasSubstr("it is a directory"));
}

TEST_F(LineSourceTest, a_header_that_makes_no_sense_is_a_failure) {
  const auto path = file("data", "a,,b\n1,2,3\n");
  const auto source = start({.path = path});
  ASSERT_TRUE(receiver_.wait_for_end());
  ASSERT_TRUE(source->stats().failure);
  EXPECT_EQ(source->stats().failure->message, "'" + path + "' line 1: the header gives column 2 no name");
}

}  // namespace
}  // namespace fulmar::telemetry
