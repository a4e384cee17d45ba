#include "queue/postgres_watch.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace fulmar::queue::postgres {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds retry_min{50};
constexpr milliseconds retry_max{2'000};
constexpr milliseconds look_without_listening{1'000};
constexpr std::chrono::hours forever{24 * 365};

void drain(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto ignored = ::read(fd, &count, sizeof count);
}

}  // namespace

// An empty transaction would not be written. This one leaves a record in the log and nothing else.
const Statement flush_statement{"SELECT pg_logical_emit_message(true, 'fulmar', '')"};

std::string channel_name(std::int64_t schema_oid) { return "fulmar_queue_" + std::to_string(schema_oid); }

Watch::Watch(ConnectionSettings settings, std::int64_t schema_oid)
    : settings_(std::move(settings)),
      channel_(channel_name(schema_oid)),
      nudge_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Watch::~Watch() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
    if (!flush_at_) stop_connecting_ = true;
  }
  nudge();
  if (thread_.joinable()) thread_.join();
  ::close(nudge_fd_);
}

void Watch::abandon() {
  if (thread_.joinable()) thread_.detach();
}

Watch::Entry& Watch::entry(std::string_view queue) {
  const auto found = entries_.find(queue);
  return found != entries_.end() ? found->second : entries_[std::string(queue)];
}

void Watch::start() {
  if (!thread_.joinable() && !stop_) thread_ = std::thread([this] { run(); });
}

void Watch::nudge() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(nudge_fd_, &one, sizeof one);
}

std::uint32_t Watch::word(std::string_view queue) {
  const std::scoped_lock lock(mutex_);
  start();
  return entry(queue).word;
}

void Watch::wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) {
  std::unique_lock lock(mutex_);
  start();
  auto& e = entry(queue);
  const auto until = Clock::now() + std::min<std::chrono::nanoseconds>(at_most, forever);
  while (e.word == seen) {
    const bool alone = !listening_;
    const auto end = alone ? std::min(until, Clock::now() + look_without_listening) : until;
    if (e.changed.wait_until(lock, end) == std::cv_status::timeout) return;
  }
}

void Watch::wake(std::string_view queue) {
  const std::scoped_lock lock(mutex_);
  const auto found = entries_.find(queue);
  if (found == entries_.end()) return;  // nobody here has asked
  ++found->second.word;
  found->second.changed.notify_all();
}

void Watch::wake_all() {
  const std::scoped_lock lock(mutex_);
  for (auto& [queue, e] : entries_) {
    ++e.word;
    e.changed.notify_all();
  }
}

void Watch::flush_within(std::chrono::microseconds time) {
  const auto at = Clock::now() + std::min<std::chrono::microseconds>(time, forever);
  {
    const std::scoped_lock lock(mutex_);
    if (flush_at_ && *flush_at_ <= at) return;
    flush_at_ = at;
    start();
  }
  nudge();
}

bool Watch::stopping() {
  const std::scoped_lock lock(mutex_);
  return stop_;
}

void Watch::run() {
  auto delay = retry_min;
  while (!stop_connecting_) {
    if (const auto connection = connect()) {
      delay = retry_min;
      {
        const std::scoped_lock lock(mutex_);
        listening_ = true;
      }
      wake_all();
      serve(*connection);
      {
        const std::scoped_lock lock(mutex_);
        listening_ = false;
      }
      wake_all();
    }
    // A flush that the end of this object waits for has got one connection.
    if (stopping()) return;
    pollfd fd{nudge_fd_, POLLIN, 0};
    const auto until = Clock::now() + delay;
    for (auto left = delay; left.count() > 0 && !stopping();
         left = std::chrono::duration_cast<milliseconds>(until - Clock::now())) {
      if (::poll(&fd, 1, static_cast<int>(left.count())) > 0) drain(nudge_fd_);
    }
    delay = std::min(delay * 2, retry_max);
  }
}

std::unique_ptr<Connection> Watch::connect() {
  auto opened = Connection::open(settings_);
  if (!opened) return nullptr;
  // The name is ours: letters, digits and '_'.
  const std::string sql = "LISTEN " + channel_;
  const Statement statement{sql.c_str(), false};
  std::vector<Call> calls;
  calls.push_back({&statement, {}});
  if (!(*opened)->execute(std::move(calls))) return nullptr;
  return std::move(*opened);
}

void Watch::serve(Connection& connection) {
  for (;;) {
    std::optional<Clock::time_point> flush_at;
    bool stop = false;
    {
      const std::scoped_lock lock(mutex_);
      flush_at = flush_at_;
      stop = stop_;
    }
    if (flush_at && (stop || *flush_at <= Clock::now())) {
      {
        // Before it is asked for: what is changed meanwhile asks again.
        const std::scoped_lock lock(mutex_);
        flush_at_.reset();
      }
      std::vector<Call> calls;
      calls.push_back({&flush_statement, {}});
      if (!connection.execute(std::move(calls)) && connection.broken()) return;
      continue;
    }
    if (stop) return;
    int timeout = -1;
    if (flush_at) {
      timeout = static_cast<int>(std::clamp<std::int64_t>(
          std::chrono::ceil<milliseconds>(*flush_at - Clock::now()).count(), 0, 60'000));
    }
    pollfd fds[2] = {{connection.socket(), POLLIN, 0}, {nudge_fd_, POLLIN, 0}};
    if (::poll(fds, 2, timeout) < 0) continue;
    if (fds[1].revents != 0) drain(nudge_fd_);
    // Also without news of the socket: an answer to a flush may have brought some along.
    const auto queues = connection.notifications();
    if (!queues) return;
    for (const auto& queue : *queues) wake(queue);
  }
}

}  // namespace fulmar::queue::postgres
