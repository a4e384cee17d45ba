#include "queue_scenarios.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <new>
#include <thread>

#include "queues/work_queue.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t fill_batch = 1'000;
constexpr std::uint64_t scheduled_from = 900'000'000'000;  // their numbers

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

// The same clock in all processes.
std::int64_t now_ns() { return steady_clock::now().time_since_epoch() / 1ns; }

struct Case {
  explicit Case(const Parameters& parameters)
      : address(parameters.text("address")),
        safety(parameters.text("safety") == "synced" ? Safety::synced : Safety::not_synced),
        bytes(parameters.number<std::size_t>("payload_bytes")),
        depth(parameters.number<std::uint64_t>("depth")),
        scheduled(parameters.number<std::uint64_t>("scheduled")),
        batch(std::max<std::size_t>(1, parameters.number<std::size_t>("batch"))),
        processes(parameters.number<unsigned>("processes")),
        rounds(parameters.number<unsigned>("rounds")),
        seconds(parameters.number<double>("seconds")) {
    auto kinds = queue_kinds();
    kinds.push_back(own_yaml_queue());
    const bool is_yaml = address.starts_with("yaml:");
    for (auto& one : kinds) {
      if (one.library == parameters.text("library") && (!is_yaml || &one == &kinds.back()))
        kind = std::move(one);
    }
  }

  Result<std::unique_ptr<WorkQueue>> connect(Safety how, bool woken = false) const {
    if (kind.connect == nullptr) return fail(Errc::invalid_config, "no such queue in this build");
    return kind.connect(address, how, woken);
  }
  std::vector<std::string> items(std::uint64_t from, std::size_t count) const {
    std::vector<std::string> all;
    all.reserve(count);
    for (std::size_t i = 0; i < count; ++i) all.push_back(numbered_item(from + i, bytes));
    return all;
  }
  // As many as `depth` that can be claimed, behind as many as `scheduled` that cannot. Filling need not be safe.
  Result<void> fill() const {
    auto queue = connect(Safety::not_synced);
    if (!queue) return std::unexpected(queue.error());
    for (std::uint64_t i = 0; i < scheduled; i += fill_batch) {
      if (auto done = (*queue)->put_for_tomorrow(
              items(scheduled_from + i, std::min<std::uint64_t>(fill_batch, scheduled - i)));
          !done) {
        return done;
      }
    }
    for (std::uint64_t i = 0; i < depth; i += fill_batch) {
      if (auto done = (*queue)->put(items(i, std::min<std::uint64_t>(fill_batch, depth - i))); !done)
        return done;
    }
    return {};
  }

  std::string address;
  Safety safety;
  std::size_t bytes;
  std::uint64_t depth, scheduled;
  std::size_t batch;
  unsigned processes, rounds;
  double seconds;
  QueueKind kind;
};

// What went in and what came out: equal when nothing was lost, doubled or changed.
struct Tally {
  std::uint64_t count = 0, sum = 0, squares = 0;

  void add(std::uint64_t number) {
    ++count;
    sum += number;
    squares += number * number;  // modulo 2^64, as good as any
  }
  Result<void> add(const WorkQueue& queue, std::size_t bytes) {
    for (const auto& item : queue.items()) {
      const auto number = number_of_item(item, bytes);
      if (!number) return std::unexpected(number.error());
      add(*number);
    }
    return {};
  }
  void add(const Tally& other) {
    count += other.count;
    sum += other.sum;
    squares += other.squares;
  }
  bool operator==(const Tally&) const = default;
};

Tally tally_of_fill(const Case& one) {
  Tally all;
  for (std::uint64_t i = 0; i < one.depth; ++i) all.add(i);
  return all;
}

// Repeats `step`, which does `batch` items, for `seconds`; the first quarter on top is not counted. An empty value of `step`
// ends it: there was nothing left to do.
struct Rate {
  double per_s = 0;
  Histogram calls{};  // ticks
};
template <typename Step>
Result<Rate> rate_of(double seconds, Step&& step) {
  Rate rate;
  std::uint64_t counted = 0;
  bool counting = false;
  auto begin = steady_clock::now();
  for (;;) {
    const auto from = CallClock::now();
    const Result<std::size_t> done = step();
    const auto ticks = CallClock::now() - from;
    if (!done) return std::unexpected(done.error());
    const double elapsed = seconds_since(begin);
    if (counting) {
      rate.calls.add(ticks);
      counted += *done;
      if (elapsed >= seconds || *done == 0) {
        rate.per_s = static_cast<double>(counted) / elapsed;
        return rate;
      }
    } else if (*done == 0) {
      return fail(Errc::io_error, "the queue was empty too soon");
    } else if (elapsed >= seconds / 4) {
      counting = true;
      begin = steady_clock::now();
    }
  }
}

Result<std::size_t> claim_and_complete(WorkQueue& queue, const Case& one, Tally& out) {
  if (auto claimed = queue.claim(one.batch); !claimed) return std::unexpected(claimed.error());
  if (queue.items().empty()) return 0;
  if (auto sound = out.add(queue, one.bytes); !sound) return std::unexpected(sound.error());
  if (auto completed = queue.complete(); !completed) return std::unexpected(completed.error());
  return queue.items().size();
}

// What is new is slow: a log that goes round is still being made longer, and each sync writes the file system's own notes
// too. So that the usual state is measured, some thousand items go through first, for half a second at most. The
// connection is to be kept: who closes a queue last may take such files away.
Result<std::unique_ptr<WorkQueue>> settle(const Case& one, Tally& in, Tally& out) {
  constexpr std::uint64_t cycles = 2'000;
  constexpr std::uint64_t from = 800'000'000'000;  // their numbers
  auto queue = one.connect(Safety::not_synced);
  if (!queue) return queue;
  const auto begin = steady_clock::now();
  for (std::uint64_t i = 0; i < cycles && seconds_since(begin) < 0.5; ++i) {
    if (auto put = (*queue)->put(one.items(from + i, 1)); !put) return std::unexpected(put.error());
    in.add(from + i);
    if (auto claimed = (*queue)->claim(1); !claimed) return std::unexpected(claimed.error());
    if (auto sound = out.add(**queue, one.bytes); !sound) return std::unexpected(sound.error());
    if (auto completed = (*queue)->complete(); !completed) return std::unexpected(completed.error());
  }
  return queue;
}

// Claims what is left; then all must have come out that went in.
Result<void> drain_and_compare(const Case& one, const Tally& in, Tally out) {
  auto queue = one.connect(Safety::not_synced);
  if (!queue) return std::unexpected(queue.error());
  for (;;) {
    if (auto claimed = (*queue)->claim(fill_batch); !claimed) return claimed;
    if ((*queue)->items().empty()) break;
    if (auto sound = out.add(**queue, one.bytes); !sound) return sound;
    if (auto completed = (*queue)->complete(); !completed) return completed;
  }
  if (in == out) return {};
  return fail(Errc::io_error,
              fmt::format("{} items went in and {} came out, or others than those", in.count, out.count));
}

// Memory that further processes share with this one.
template <typename Page>
Page* shared_page() {
  void* memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Page;
}

struct Failure {
  std::atomic<bool> failed = false;
  std::array<char, 300> text{};

  void tell(std::string_view reason) {
    const auto size = std::min(reason.size(), text.size() - 1);
    std::memcpy(text.data(), reason.data(), size);
    failed = true;
  }
};

// Runs `body` in a further process, which ends with this one; what it returns is told to `failure`.
template <typename Body>
pid_t fork_process(Failure& failure, Body&& body) {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  const Result<void> done = body();
  if (!done) failure.tell(done.error().message);
  ::_exit(done ? 0 : 1);
}

// Looks every 20 µs; false when it took longer than 20 s or somebody failed.
template <typename Condition>
bool wait_until(const Failure& failure, Condition&& condition) {
  const auto until = steady_clock::now() + 20s;
  while (!condition()) {
    if (failure.failed || steady_clock::now() > until) return false;
    std::this_thread::sleep_for(20us);
  }
  return true;
}

std::unexpected<Error> failure_of(const Failure& failure, const char* otherwise) {
  return fail(Errc::io_error, failure.failed ? failure.text.data() : otherwise);
}

ChildReport report_of_ns(std::string_view prefix, std::vector<std::int64_t> values) {
  std::ranges::sort(values);
  const auto at = [&](double fraction) {
    const auto index = static_cast<std::size_t>(fraction * static_cast<double>(values.size()));
    return static_cast<double>(values[std::min(index, values.size() - 1)]);
  };
  Histogram histogram;
  for (const auto value : values) histogram.add(static_cast<std::uint64_t>(std::max<std::int64_t>(value, 0)));
  return {.figures = {{fmt::format("{}_us_p50", prefix), at(0.5) / 1e3},
                      {fmt::format("{}_us_p99", prefix), at(0.99) / 1e3},
                      {fmt::format("{}_us_max", prefix), at(1) / 1e3},
                      {"rounds", static_cast<double>(values.size())}},
          .distributions = {{"caller", histogram.distribution(1)}}};
}

}  // namespace

Result<ChildReport> queue_one(const Parameters& parameters) {
  const Case one(parameters);
  if (auto filled = one.fill(); !filled) return std::unexpected(filled.error());
  Tally in = tally_of_fill(one);
  Tally out;
  const auto settled = settle(one, in, out);
  if (!settled) return std::unexpected(settled.error());
  auto queue = one.connect(one.safety);
  if (!queue) return std::unexpected(queue.error());
  const CallClock clock;
  std::uint64_t next = one.depth;
  const auto enqueue = rate_of(one.seconds, [&]() -> Result<std::size_t> {
    const auto items = one.items(next, one.batch);
    if (auto put = (*queue)->put(items); !put) return std::unexpected(put.error());
    for (std::size_t i = 0; i < one.batch; ++i) in.add(next++);
    return one.batch;
  });
  if (!enqueue) return std::unexpected(enqueue.error());
  const auto finish = rate_of(one.seconds, [&] { return claim_and_complete(**queue, one, out); });
  if (!finish) return std::unexpected(finish.error());
  ChildReport result{.figures = {{"enqueue_per_s", enqueue->per_s}, {"finish_per_s", finish->per_s}}};
  for (const auto& [prefix, rate] : {std::pair{"enqueue", &*enqueue}, {"finish", &*finish}}) {
    for (const auto& [name, fraction] : {std::pair{"p50", 0.5}, {"p99", 0.99}}) {
      result.figures[fmt::format("{}_us_{}", prefix, name)] =
          clock.ns(static_cast<double>(rate->calls.percentile(fraction))) / 1e3;
    }
  }
  if (one.depth <= 10'000) {  // else it takes longer than the measurement
    if (auto equal = drain_and_compare(one, in, out); !equal) return std::unexpected(equal.error());
  }
  return result;
}

Result<ChildReport> queue_many(const Parameters& parameters) {
  constexpr std::size_t processes_max = 64;
  struct Process {
    double per_s = 0;
    Histogram cycles{};
    Tally in, out;
  };
  struct Page {
    std::atomic<unsigned> ready = 0, ended = 0;
    std::atomic<bool> go = false;
    Failure failure;
    std::array<Process, processes_max> processes{};
  };
  const Case one(parameters);
  auto* page = shared_page<Page>();
  if (page == nullptr || one.processes > processes_max)
    return fail(Errc::io_error, "no memory for the processes");
  // Forked before anything is open.
  for (unsigned p = 0; p < one.processes; ++p) {
    fork_process(page->failure, [&, p]() -> Result<void> {
      auto& mine = page->processes[p];
      // The store is made by the one that fills it.
      if (!wait_until(page->failure, [&] { return page->ready > 0; }))
        return fail(Errc::timeout, "not filled");
      auto queue = one.connect(one.safety);
      if (!queue) return std::unexpected(queue.error());
      std::uint64_t next = (p + 1) * std::uint64_t{1'000'000'000};
      ++page->ready;
      if (!wait_until(page->failure, [&] { return page->go.load(); })) return fail(Errc::timeout, "no start");
      auto rate = rate_of(one.seconds, [&]() -> Result<std::size_t> {
        if (auto put = (*queue)->put(one.items(next, one.batch)); !put) return std::unexpected(put.error());
        for (std::size_t i = 0; i < one.batch; ++i) mine.in.add(next++);
        return claim_and_complete(**queue, one, mine.out);
      });
      if (!rate) return std::unexpected(rate.error());
      mine.per_s = rate->per_s;
      mine.cycles = rate->calls;
      ++page->ended;
      return {};
    });
  }
  if (auto filled = one.fill(); !filled) return std::unexpected(filled.error());
  Tally in = tally_of_fill(one);
  Tally out;
  const auto settled = settle(one, in, out);
  if (!settled) return std::unexpected(settled.error());
  page->ready = 1;
  if (!wait_until(page->failure, [&] { return page->ready == one.processes + 1; }))
    return failure_of(page->failure, "the processes do not start");
  page->go = true;
  const auto until = steady_clock::now() + 60s;
  for (unsigned left = one.processes; left > 0;) {
    while (left > 0 && ::waitpid(-1, nullptr, WNOHANG) > 0) --left;
    if (page->failure.failed || steady_clock::now() > until)
      return failure_of(page->failure, "a process does not end");
    std::this_thread::sleep_for(5ms);
  }
  if (page->ended != one.processes) return failure_of(page->failure, "a process died");

  const CallClock clock;
  double total = 0;
  double slowest = std::numeric_limits<double>::max();
  double worst_p99 = 0;
  double worst = 0;
  Distribution all;
  for (unsigned p = 0; p < one.processes; ++p) {
    const auto& process = page->processes[p];
    total += process.per_s;
    slowest = std::min(slowest, process.per_s);
    worst_p99 = std::max(worst_p99, clock.ns(static_cast<double>(process.cycles.percentile(0.99))));
    worst = std::max(worst, clock.ns(static_cast<double>(process.cycles.max())));
    merge(all, process.cycles.distribution(clock.ns(1)));
    in.add(process.in);
    out.add(process.out);
  }
  if (auto equal = drain_and_compare(one, in, out); !equal) return std::unexpected(equal.error());
  return ChildReport{.figures = {{"cycles_per_s", total},
                                 {"slowest_per_s", slowest},
                                 {"slowest_share", slowest * one.processes / total},
                                 {"cycle_ms_p99", worst_p99 / 1e6},
                                 {"cycle_ms_max", worst / 1e6}},
                     .distributions = {{"caller", std::move(all)}}};
}

Result<ChildReport> queue_wake(const Parameters& parameters) {
  struct Page {
    std::atomic<bool> filled = false, ready = false;
    std::atomic<unsigned> done = 0;
    std::atomic<std::int64_t> handled_ns = 0;
    Failure failure;
  };
  const Case one(parameters);
  auto* page = shared_page<Page>();
  if (page == nullptr) return fail(Errc::io_error, "no memory for the processes");
  fork_process(page->failure, [&]() -> Result<void> {
    if (!wait_until(page->failure, [&] { return page->filled.load(); }))
      return fail(Errc::timeout, "not filled");
    auto queue = one.connect(one.safety, true);
    if (!queue) return std::unexpected(queue.error());
    page->ready = true;
    for (unsigned round = 0; round < one.rounds; ++round) {
      if (auto claimed = (*queue)->wait_claim(15s); !claimed) return claimed;
      page->handled_ns = now_ns();
      const auto& items = (*queue)->items();
      if (items.size() != 1 || number_of_item(items.front(), one.bytes) != round)
        return fail(Errc::io_error, fmt::format("{} items instead of number {}", items.size(), round));
      if (auto completed = (*queue)->complete(); !completed) return completed;
      page->done = round + 1;
    }
    return {};
  });
  auto queue = one.connect(one.safety, true);
  if (!queue) return std::unexpected(queue.error());
  page->filled = true;
  if (!wait_until(page->failure, [&] { return page->ready.load(); }))
    return failure_of(page->failure, "the consumer does not start");
  std::vector<std::int64_t> whole, after;
  for (unsigned round = 0; round < one.rounds; ++round) {
    // Time for the consumer to fall asleep, never the same.
    std::this_thread::sleep_for(2ms + std::chrono::microseconds(round * 37 % 1'000));
    const auto items = one.items(round, 1);
    const auto begin = now_ns();
    if (auto put = (*queue)->put(items); !put) return std::unexpected(put.error());
    const auto end = now_ns();
    if (!wait_until(page->failure, [&] { return page->done == round + 1; }))
      return failure_of(page->failure, "the consumer does not wake up");
    if (round < one.rounds / 10) continue;  // caches and files settle
    whole.push_back(page->handled_ns - begin);
    after.push_back(std::max<std::int64_t>(0, page->handled_ns - end));
  }
  auto result = report_of_ns("wake", std::move(whole));
  result.figures.merge(report_of_ns("after_put", std::move(after)).figures);
  return result;
}

Result<ChildReport> queue_death(const Parameters& parameters) {
  struct Page {
    std::atomic<unsigned> wanted = 0, claimed = 0, killed = 0;
    std::atomic<std::int64_t> killed_ns = 0;
    Failure failure;
  };
  const Case one(parameters);
  auto* page = shared_page<Page>();
  if (page == nullptr) return fail(Errc::io_error, "no memory for the processes");
  // Starts and kills the workers; it has nothing open that they would inherit.
  fork_process(page->failure, [&]() -> Result<void> {
    for (unsigned round = 1; round <= one.rounds; ++round) {
      if (!wait_until(page->failure, [&] { return page->wanted == round; })) return {};
      const pid_t worker = fork_process(page->failure, [&]() -> Result<void> {
        auto queue = one.connect(one.safety, true);
        if (!queue) return std::unexpected(queue.error());
        if (auto claimed = (*queue)->wait_claim(5s); !claimed) return claimed;
        if ((*queue)->items().size() != 1) return fail(Errc::io_error, "the worker got nothing");
        page->claimed = round;
        for (;;) ::pause();
      });
      if (!wait_until(page->failure, [&] { return page->claimed == round; })) return {};
      // The other one falls asleep; and never the same time after whatever somebody does now and then.
      std::this_thread::sleep_for(10ms + std::chrono::milliseconds(round * 37 % 100));
      page->killed_ns = now_ns();
      ::kill(worker, SIGKILL);
      ::waitpid(worker, nullptr, 0);
      page->killed = round;
    }
    return {};
  });
  auto queue = one.connect(one.safety, true);
  if (!queue) return std::unexpected(queue.error());
  std::vector<std::int64_t> times;
  for (unsigned round = 1; round <= one.rounds; ++round) {
    if (auto put = (*queue)->put(one.items(round, 1)); !put) return std::unexpected(put.error());
    page->wanted = round;
    if (!wait_until(page->failure, [&] { return page->claimed == round; }))
      return failure_of(page->failure, "the worker does not start");
    if (auto claimed = (*queue)->wait_claim(15s); !claimed) return std::unexpected(claimed.error());
    const auto got = now_ns();
    if ((*queue)->items().size() != 1 || number_of_item((*queue)->items().front(), one.bytes) != round)
      return fail(Errc::io_error, "the dead worker's item does not come back within 15 s");
    if (!wait_until(page->failure, [&] { return page->killed == round; }))
      return failure_of(page->failure, "the worker cannot be killed");
    times.push_back(got - page->killed_ns);
    if (auto completed = (*queue)->complete(); !completed) return std::unexpected(completed.error());
  }
  return report_of_ns("death", std::move(times));
}

Result<ChildReport> queue_wall(const Parameters& parameters) {
  constexpr std::size_t page_bytes = 4096;
  constexpr std::size_t pages = 1024;
  const auto path = std::string(parameters.text("folder")) + "/bare";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return fail(Errc::io_error, fmt::format("{}: {}", path, std::strerror(errno)));
  const std::string page(page_bytes, 'x');
  // Written once before, as any log is that goes round.
  for (std::size_t i = 0; i < pages; ++i) {
    if (::pwrite(file, page.data(), page.size(), static_cast<off_t>(i * page_bytes)) < 0)
      return fail(Errc::io_error, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  ::fsync(file);
  std::size_t at = 0;
  const CallClock clock;
  auto rate = rate_of(parameters.number<double>("seconds"), [&]() -> Result<std::size_t> {
    const auto offset = static_cast<off_t>(at++ % pages * page_bytes);
    if (::pwrite(file, page.data(), page.size(), offset) < 0 || ::fdatasync(file) != 0)
      return fail(Errc::io_error, fmt::format("{}: {}", path, std::strerror(errno)));
    return 1;
  });
  ::close(file);
  if (!rate) return std::unexpected(rate.error());
  return ChildReport{
      // A flush for each put, and one for each completion: nobody who syncs gets beyond it.
      .figures = {{"enqueue_per_s", rate->per_s},
                  {"finish_per_s", rate->per_s},
                  {"enqueue_us_p50", clock.ns(static_cast<double>(rate->calls.percentile(0.5))) / 1e3},
                  {"enqueue_us_p99", clock.ns(static_cast<double>(rate->calls.percentile(0.99))) / 1e3}}};
}

}  // namespace fulmar::bench
