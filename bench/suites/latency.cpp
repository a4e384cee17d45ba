// What one call of publish costs its caller, in five states of the server:
//
//   up           all is well
//   down         it was up, 100,000 messages (0.3 s) went through, and now nothing listens
//   silent       as down, but connections are accepted and never answered
//   zero_window  it is up and has stopped reading; the socket's buffers are full
//   full         down, and as many messages wait as the library's user allows (1,000): every further one is turned away
//
// and in three manners:
//
//   burst         10,000 calls back to back, each burst beginning with the network thread asleep (up: after everything has
//                 gone through; else four bursts, which the queue has room for)
//   paced         10,000 calls a second, the caller busy in between
//   paced_asleep  the same, the caller asleep in between: its caches are cold and the core has to wake up
//
// Ours does each with eager wake-up and with lazy. Beside it, for what the machine itself does to a caller: a bare loop that is
// woken by an eventfd (the eager one's), a call that does nothing, and a bare copy: two atomic operations and a copy of the
// message to where memory is mapped already, which is the least that hands it to another thread.
// QoS 1. A library that has not done its calls within the time is cut off and shown as such. Rivals are measured once, ours
// three times; nobody but ours and the bare loop is measured asleep.

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "columns.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

constexpr auto pace = std::chrono::microseconds(100);
constexpr auto quiet_time = std::chrono::milliseconds(2);
constexpr std::uint64_t burst_messages = 10'000;
constexpr unsigned bursts = 4;                        // in the states in which nothing goes through
constexpr std::uint64_t up_burst_messages = 200'000;  // at most, when all is well
constexpr std::uint64_t warm_up_messages = 100'000;
constexpr double warm_up_seconds = 0.3;
constexpr std::size_t full_messages = 1'000;
constexpr unsigned window = 1'000;

// --- the child's half

// What was measured, also when a call never returns: after the time the watchdog reports for it and ends the process.
class Recorder {
 public:
  explicit Recorder(double seconds)
      : deadline_(CallClock::now() +
                  clock_.ticks(std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9)))),
        watchdog_([this, seconds](const std::stop_token& stop) { watch(stop, seconds + 2); }) {}

  const CallClock& clock() const { return clock_; }
  std::uint64_t deadline() const { return deadline_; }
  Histogram& histogram() { return histogram_; }
  std::uint64_t refused = 0;

  ChildReport finish(std::uint64_t calls_wanted) {
    watchdog_.request_stop();
    watchdog_.join();
    auto result = so_far();
    if (histogram_.count() < calls_wanted && CallClock::now() >= deadline_) {
      result.note = fmt::format("cut off after {} of {} calls", histogram_.count(), calls_wanted);
    }
    return result;
  }

 private:
  ChildReport so_far() const {
    ChildReport result;
    add_percentiles(result.figures, "caller_ns_", histogram_, clock_);
    result.figures["calls"] = static_cast<double>(histogram_.count());
    result.figures["refused"] = static_cast<double>(refused);
    result.distributions["caller"] = histogram_.distribution(clock_.ns(1));
    return result;
  }

  // The caller is stuck within a call, so nothing else touches the histogram.
  void watch(const std::stop_token& stop, double seconds) {
    std::unique_lock lock(mutex_);
    if (condition_.wait_for(lock, stop, std::chrono::duration<double>(seconds), [] { return false; })) return;
    if (stop.stop_requested()) return;
    auto result = so_far();
    result.note = fmt::format("blocked: a call did not return within {:.0f} s; cut off after {} calls",
                              seconds, histogram_.count());
    report(result);
    std::_Exit(0);
  }

  CallClock clock_;
  Histogram histogram_;
  std::uint64_t deadline_;
  std::mutex mutex_;
  std::condition_variable_any condition_;
  std::jthread watchdog_;
};

// Calls at a steady pace. A call that takes longer than that moves the schedule: what was missed is not made up for.
template <typename Call>
void paced_calls(Recorder& recorder, std::uint64_t count, bool asleep, Call&& call) {
  const auto& clock = recorder.clock();
  const auto step = clock.ticks(pace);
  auto next = CallClock::now() + step;
  auto wake_ns = steady_ns() + std::chrono::nanoseconds(pace).count();
  for (std::uint64_t i = 0; i < count && CallClock::now() < recorder.deadline(); ++i) {
    if (asleep) {
      wake_ns = std::max(wake_ns, steady_ns());
      const timespec until{wake_ns / 1'000'000'000, wake_ns % 1'000'000'000};
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
      wake_ns += std::chrono::nanoseconds(pace).count();
    } else {
      while (CallClock::now() < next) {
      }
      next = std::max(next + step, CallClock::now());
    }
    const auto begin = CallClock::now();
    if (!call()) ++recorder.refused;
    const auto ticks = CallClock::now() - begin;
    recorder.histogram().add(ticks - std::min(ticks, clock.overhead_ticks()));
  }
}

std::uint64_t calls_in(double seconds) {
  return static_cast<std::uint64_t>(seconds / std::chrono::duration<double>(pace).count());
}

template <typename Condition>
bool wait_until(Condition&& condition, std::chrono::milliseconds limit) {
  for (const auto deadline = steady_clock::now() + limit; steady_clock::now() < deadline;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

// Large messages, one at a time, until one does not leave the process any more.
bool fill_socket(Driver& driver) {
  const std::string payload(16 * 1024, 'x');
  for (unsigned i = 0; i < 4'000; ++i) {
    const auto before = driver.completed();
    if (!driver.publish(publish_topic, payload, 0)) return false;
    if (!wait_until([&] { return driver.completed() > before; }, std::chrono::milliseconds(50))) return true;
  }
  return false;
}

// An empty text, or what did not go as the state wants.
std::string enter(std::string_view state, Driver& driver, SinkPage& sink, const std::string& payload) {
  if (state == "up") return {};
  if (state == "zero_window") {
    if (!sink.become(SinkBehaviour::stall)) return "the sink did not stop reading";
    return fill_socket(driver) ? "" : "the socket never filled up";
  }
  const bool silent = state == "silent";
  sink.accepted_ns.store(0);
  if (!sink.become(silent ? SinkBehaviour::silent : SinkBehaviour::down)) return "the sink did not go away";
  if (!wait_until([&] { return !driver.connected(); }, std::chrono::seconds(3))) {
    return "it did not notice within 3 s that the connection was closed";
  }
  if (silent && !wait_until([&] { return sink.accepted_ns.load() != 0; }, std::chrono::seconds(5))) {
    return "it did not try to connect again within 5 s";
  }
  if (state == "full") {
    for (std::size_t i = 0; i < full_messages + 100; ++i) driver.publish(publish_topic, payload, 1);
  }
  return {};
}

Result<ChildReport> scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const auto state = parameters.text("state");
  const auto manner = parameters.text("manner");
  const auto seconds = parameters.number<double>("seconds");

  const auto driver = library->make();
  const DriverOptions options{.port = parameters.number<std::uint16_t>("port"),
                              .window = window,
                              .offline = true,
                              .queue_messages = state == "full" ? full_messages : 0,
                              .drop_newest = parameters.text("overflow") == "drop_newest",
                              .lazy = parameters.text("wakeup") == "lazy"};
  if (auto connected = driver->connect(options); !connected) return std::unexpected(connected.error());
  const Traffic::Limits limits{
      .qos = 1,
      .payload_bytes = parameters.number<unsigned>("payload"),
      .outstanding_max =
          std::min(library->outstanding_max(1, window), state == "full" ? full_messages / 2 : UINT64_MAX),
      .burst = state == "up" ? std::min(burst_messages, library->burst_max(1, window)) : burst_messages};
  Traffic traffic(*driver, **sink, limits);
  if (auto warm = traffic.publish(warm_up_messages, warm_up_seconds); !warm)
    return std::unexpected(warm.error());
  if (auto drained = traffic.drain(); !drained) return std::unexpected(drained.error());
  if (const auto problem = enter(state, *driver, **sink, traffic.payload()); !problem.empty()) {
    return ChildReport{.note = problem};
  }
  std::this_thread::sleep_for(quiet_time);

  Recorder recorder(manner == "burst" ? seconds : 2 * seconds);
  std::uint64_t wanted = 0;
  if (manner == "burst") {
    wanted = state == "up" ? 0 : bursts * burst_messages;
    for (unsigned i = 0; state == "up" ? recorder.histogram().count() < up_burst_messages : i < bursts; ++i) {
      if (CallClock::now() >= recorder.deadline()) break;
      recorder.refused += traffic.burst(recorder.clock(), &recorder.histogram(), recorder.deadline());
      if (state == "up") {
        if (auto drained = traffic.drain(); !drained) return std::unexpected(drained.error());
      }
      std::this_thread::sleep_for(quiet_time);
    }
  } else {
    wanted = calls_in(seconds);
    paced_calls(recorder, wanted, manner == "paced_asleep",
                [&] { return driver->publish(publish_topic, traffic.payload(), 1); });
  }
  auto result = recorder.finish(wanted);
  if (state != "full" && recorder.refused != 0) {
    result.note =
        fmt::format("{}{} calls refused", result.note.empty() ? "" : result.note + ", ", recorder.refused);
  }
  return result;
}

// What a bare loop pays: a thread sleeps on an eventfd and a socket; the caller writes to the one, and the thread sends one
// PUBLISH for it by the other and reads the acknowledgements. The machine is as busy as with a client.
Result<ChildReport> eventfd_scenario(const Parameters& parameters) {
  const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(parameters.number<std::uint16_t>("port"));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  constexpr std::array<std::uint8_t, 15> connect{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'a'};
  std::array<char, 4096> buffer;
  const int on = 1;
  if (wake < 0 || ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
      ::send(socket, connect.data(), connect.size(), MSG_NOSIGNAL) != ssize_t{connect.size()} ||
      ::recv(socket, buffer.data(), 4, MSG_WAITALL) != 4) {
    return fail(Errc::connection_failed, "the bare loop cannot connect to the sink");
  }
  std::string packet{0x32, 124, 0, 20};  // QoS 1
  packet.append(publish_topic).append({0, 1}).append(100, 'x');

  std::jthread sleeper([&](const std::stop_token& stop) {
    const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : {wake, socket}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
    std::array<char, 4096> answers;
    while (!stop.stop_requested()) {
      epoll_event event{};
      if (::epoll_wait(epoll, &event, 1, 100) != 1) continue;
      if (event.data.fd == wake) {
        std::uint64_t count = 0;
        if (::read(wake, &count, sizeof count) == sizeof count) {
          ::send(socket, packet.data(), packet.size(), MSG_NOSIGNAL);
        }
      } else {
        ::recv(socket, answers.data(), answers.size(), 0);
      }
    }
    ::close(epoll);
  });
  std::this_thread::sleep_for(quiet_time);
  const auto calls = calls_in(parameters.number<double>("seconds"));
  Recorder recorder(parameters.number<double>("seconds") * 2);
  paced_calls(recorder, calls, parameters.text("manner") == "paced_asleep", [&] {
    const std::uint64_t one = 1;
    return ::write(wake, &one, sizeof one) == sizeof one;
  });
  return recorder.finish(calls);
}

// What the machine itself does to a caller at that pace, interrupts and all: a copy of the payload instead of a call.
Result<ChildReport> empty_scenario(const Parameters& parameters) {
  const std::string payload(100, 'x');
  std::string copy(100, 0);
  const auto calls = calls_in(parameters.number<double>("seconds"));
  Recorder recorder(parameters.number<double>("seconds") * 2);
  paced_calls(recorder, calls, parameters.text("manner") == "paced_asleep", [&] {
    std::memcpy(copy.data(), payload.data(), payload.size());
    asm volatile("" : : "r"(copy.data()) : "memory");
    return true;
  });
  return recorder.finish(calls);
}

// Two atomic operations and a copy, each to where nothing was written before: what no queue between threads can do without.
// Nobody takes anything out.
Result<ChildReport> copy_scenario(const Parameters& parameters) {
  constexpr std::size_t topic_bytes = publish_topic.size(), payload_bytes = 100, header_bytes = 16;
  constexpr std::size_t block = (header_bytes + topic_bytes + payload_bytes + 7) / 8 * 8;
  const auto manner = parameters.text("manner");
  const auto seconds = parameters.number<double>("seconds");
  const auto calls = manner == "burst" ? bursts * burst_messages : calls_in(seconds);
  const std::size_t bytes = calls * block;
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return fail(Errc::io_error, "no memory to copy to");
  auto* const blocks = static_cast<std::byte*>(memory);
  const std::string payload(payload_bytes, 'x');
  std::atomic<std::uint64_t> head = 0;
  const auto call = [&] {
    auto* const to = blocks + head.fetch_add(block, std::memory_order_acq_rel);
    std::memcpy(to + header_bytes, publish_topic.data(), topic_bytes);
    std::memcpy(to + header_bytes + topic_bytes, payload.data(), payload_bytes);
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(to)).exchange(block);
    return true;
  };
  Recorder recorder(2 * seconds);
  const auto& clock = recorder.clock();
  std::vector<std::uint64_t> stamps(burst_messages + 1);
  for (unsigned i = 0; manner == "burst" && i < bursts; ++i) {
    std::this_thread::sleep_for(quiet_time);
    for (std::uint64_t n = 0; n < burst_messages; ++n) {
      stamps[n] = CallClock::now();
      call();
    }
    stamps.back() = CallClock::now();
    for (std::uint64_t n = 0; n < burst_messages; ++n) {
      const auto ticks = stamps[n + 1] - stamps[n];
      recorder.histogram().add(ticks - std::min(ticks, clock.overhead_ticks()));
    }
  }
  if (manner != "burst") paced_calls(recorder, calls, manner == "paced_asleep", call);
  ::munmap(memory, bytes);
  return recorder.finish(calls);
}

// --- the parent's half

struct Variant {
  const Library* library;
  std::string wakeup;    // ours only
  std::string overflow;  // ours only, when full
};

std::vector<Variant> variants(const Bench& bench, std::string_view state, std::string_view manner) {
  std::vector<Variant> all;
  for (const auto& library : bench.libraries) {
    if (library.name != ours) {
      const bool asked = manner == "burst" || (manner == "paced" && !bench.options.quick);
      if (asked) all.push_back({&library, "", ""});
      continue;
    }
    for (const char* wakeup : {"eager", "lazy"}) {
      for (const char* overflow : {"reject", "drop_newest"}) {
        if (state == "full")
          all.push_back({&library, wakeup, overflow});
        else if (std::string_view(overflow) == "reject")
          all.push_back({&library, wakeup, ""});
      }
    }
  }
  return all;
}

void run(Bench& bench, Results& results) {
  const auto& options = bench.options;
  const auto repetitions = options.repetitions_or(3, 1);
  const double seconds = options.seconds_or(0.6, 0.2);
  for (const std::string state : {"up", "down", "silent", "zero_window", "full"}) {
    for (const std::string manner : {"burst", "paced", "paced_asleep"}) {
      if (options.quick && manner == "paced_asleep") continue;
      const auto contestants = variants(bench, state, manner);
      std::vector<Row> rows;
      for (const auto& contestant : contestants) {
        auto& row = rows.emplace_back(bench.row(*contestant.library, {{"state", state}, {"manner", manner}}));
        if (!contestant.wakeup.empty()) row.labels.emplace_back("wakeup", contestant.wakeup);
        if (!contestant.overflow.empty()) row.labels.emplace_back("overflow", contestant.overflow);
        if (state == "full" && !contestant.library->bounded_queue) {
          row.add_note("not possible: it has no bound for what waits");
        }
      }
      for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
        for (std::size_t i = 0; i < contestants.size(); ++i) {
          const auto& [library, wakeup, overflow] = contestants[i];
          if (state == "full" && !library->bounded_queue) continue;
          if (repetition != 0 && library->name != ours) continue;
          Parameters parameters;
          parameters.set("scenario", "latency")
              .set("state", state)
              .set("manner", manner)
              .set("wakeup", wakeup)
              .set("overflow", overflow)
              .set("payload", options.payload_bytes)
              .set("seconds", seconds);
          bench.run(rows[i], *library, parameters, std::chrono::seconds(60));
        }
      }
      for (const auto& [scenario_name, library] :
           {std::pair{"eventfd", "eventfd"}, {"empty", "empty call"}, {"copy", "bare copy"}}) {
        if (state != "up" || (manner == "burst" && scenario_name != std::string_view("copy"))) continue;
        auto& row = rows.emplace_back(Row{.library = library,
                                          .version = "",
                                          .labels = {{"state", state}, {"manner", manner}},
                                          .figures = {}});
        for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
          Parameters parameters;
          parameters.set("scenario", scenario_name).set("manner", manner).set("seconds", seconds);
          bench.run(row, Library{.name = library}, parameters, std::chrono::seconds(60));
        }
      }
      show(fmt::format("caller's latency, {}, {}", state, manner), rows, latency_columns());
      std::ranges::move(rows, std::back_inserter(results.rows));
    }
  }
}

}  // namespace

Suite latency_suite() {
  return {.name = "latency",
          .summary = "what a call of publish costs its caller, whatever the server does",
          .run = run,
          .scenarios = {{"latency", scenario},
                        {"eventfd", eventfd_scenario},
                        {"empty", empty_scenario},
                        {"copy", copy_scenario}}};
}

}  // namespace fulmar::bench
