#include "telemetry/line_source.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t chunk_bytes = std::size_t{64} << 10;
// While the queue is full: record() must not wake anybody, so the source looks again by itself.
constexpr std::chrono::nanoseconds retry_first = 200us, retry_last = 20ms;

std::string name_of(const std::string& path) { return path == "-" ? "standard input" : "'" + path + "'"; }

int make_event() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  return fd;
}

}  // namespace

Result<std::unique_ptr<LineSource>> LineSource::open(Config config, Handlers handlers) {
  File file;
  struct stat status{};
  if (config.path == "-") {
    file.fd = STDIN_FILENO;
  } else {
    // O_NONBLOCK: a FIFO without a writer would hold up open(). O_RDWR: it has one then, and never ends.
    const bool stays =
        config.fifo_stays_open && stat(config.path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode);
    file.fd = ::open(config.path.c_str(), (stays ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
    file.ours = true;
  }
  const auto failed = [&](const std::string& why) {
    if (file.ours && file.fd >= 0) close(file.fd);
    return fail(Errc::io_error, "cannot read records from " + name_of(config.path) + ": " + why);
  };
  if (file.fd < 0 || fstat(file.fd, &status) != 0) return failed(std::strerror(errno));
  if (S_ISDIR(status.st_mode))
    return failed("it is a directory; give a file, a FIFO or - for standard input");
  if (S_ISREG(status.st_mode)) {
    const off_t at = std::max<off_t>(lseek(file.fd, 0, SEEK_CUR), 0);  // standard input may be half read
    file.regular = true;
    file.bytes_total = static_cast<std::uint64_t>(std::max<off_t>(status.st_size - at, 0));
  }
  return std::unique_ptr<LineSource>(new LineSource(std::move(config), std::move(handlers), file));
}

LineSource::LineSource(Config config, Handlers handlers, File file)
    : config_(std::move(config)),
      handlers_(std::move(handlers)),
      file_(file),
      can_wait_(config_.rate_hz <= 0 || file.regular),
      stop_event_(make_event()),
      reader_(config_.format, config_.line_bytes_max),
      chunk_(chunk_bytes, '\0') {}

LineSource::~LineSource() {
  stop();
  close(stop_event_);
  if (file_.ours) close(file_.fd);
}

void LineSource::start() {
  thread_ = std::thread([this] { run(); });
}

void LineSource::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(stop_event_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

LineSource::Stats LineSource::stats() const {
  Stats s;
  s.ended = ended_.load(std::memory_order_acquire);  // before the counters: they are final then
  s.records = records_.load(std::memory_order_relaxed);
  s.lines = lines_.load(std::memory_order_relaxed);
  s.bad_lines = bad_lines_.load(std::memory_order_relaxed);
  s.bytes = bytes_.load(std::memory_order_relaxed);
  s.bytes_total = file_.bytes_total;
  const std::lock_guard lock(mutex_);
  s.failure = failure_;
  return s;
}

void LineSource::run() {
  pthread_setname_np(pthread_self(), "fulmar-lines");
  schedule_begin_ = Clock::now();
  Measurement record;
  BadLine bad;
  using Found = RecordReader::Found;
  for (bool more = true; more && !stopping_.load(std::memory_order_relaxed);) {
    bytes_.store(fed_ - reader_.buffered(), std::memory_order_relaxed);
    const Found found = reader_.next(record, bad);
    lines_.store(reader_.lines(), std::memory_order_relaxed);
    switch (found) {
      case Found::record: more = wait_for_turn() && hand_on(record); break;
      case Found::bad_line: tell(bad); break;
      case Found::more: more = read_more(); break;
      case Found::nothing: more = false; break;
      case Found::unusable: {
        const std::lock_guard lock(mutex_);
        failure_ =
            Error{.code = Errc::io_error,
                  .message = name_of(config_.path) + " line " + std::to_string(bad.line) + ": " + bad.what};
        more = false;
      }
    }
    more =
        more && (config_.records_max == 0 || records_.load(std::memory_order_relaxed) < config_.records_max);
  }
  bytes_.store(fed_ - reader_.buffered(), std::memory_order_relaxed);
  ended_.store(true, std::memory_order_release);
  if (handlers_.ended) handlers_.ended();
}

bool LineSource::read_more() {
  const auto before = Clock::now();
  for (;;) {
    if (!wait_until(std::nullopt, file_.fd)) return false;
    const auto got = ::read(file_.fd, chunk_.data(), chunk_.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) {
      const std::lock_guard lock(mutex_);
      failure_ = Error{.code = Errc::io_error,
                       .message = "cannot read " + name_of(config_.path) + ": " + std::strerror(errno)};
      return false;
    }
    if (got == 0) reader_.end();
    reader_.feed({chunk_.data(), static_cast<std::size_t>(got)});
    fed_ += static_cast<std::uint64_t>(got);
    break;
  }
  // There was nothing to send in the meantime, so the schedule owes nothing.
  if (!can_wait_ && Clock::now() - before > 1ms) {
    schedule_begin_ = Clock::now();
    scheduled_ = 0;
  }
  return true;
}

bool LineSource::wait_for_turn() {
  if (config_.rate_hz <= 0) return true;
  const double seconds = static_cast<double>(scheduled_++) / config_.rate_hz;
  const auto due =
      schedule_begin_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  while (Clock::now() < due)
    if (!wait_until(due)) return false;
  return true;
}

bool LineSource::hand_on(const Measurement& record) {
  if (!can_wait_) {
    handlers_.record(record);
    records_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  for (auto pause = retry_first;; pause = std::min(2 * pause, retry_last)) {
    switch (handlers_.offer(record)) {
      case Telemetry::Offer::taken: records_.fetch_add(1, std::memory_order_relaxed); return true;
      case Telemetry::Offer::stopped: return false;
      case Telemetry::Offer::too_large:
        tell({.line = reader_.lines(),
              .what = "a record of " + std::to_string(record.encoded().size()) +
                      " bytes is larger than the queue takes (half of its bytes)"});
        return true;
      case Telemetry::Offer::queue_full: break;
    }
    if (!wait_until(Clock::now() + pause)) return false;
  }
}

void LineSource::tell(const BadLine& bad) {
  const auto told = bad_lines_.fetch_add(1, std::memory_order_relaxed);
  if (told < bad_lines_told_max && handlers_.bad_line) handlers_.bad_line(bad);
}

bool LineSource::wait_until(std::optional<Clock::time_point> until, int fd) const {
  std::array<pollfd, 2> files{pollfd{stop_event_, POLLIN, 0}, pollfd{fd, POLLIN, 0}};
  timespec left{};
  if (until) {
    const auto ns = std::max<std::chrono::nanoseconds>(*until - Clock::now(), 0ns).count();
    left = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  }
  ppoll(files.data(), files.size(), until ? &left : nullptr, nullptr);
  return !stopping_.load(std::memory_order_relaxed);
}

}  // namespace fulmar::telemetry
