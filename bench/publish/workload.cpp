#include "workload.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <thread>

#include "probes.hpp"
#include "sink.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view topic = "bench/publish/topic1";
static_assert(topic.size() == 20);
constexpr auto pause_time = std::chrono::microseconds(50);
constexpr auto stuck_time_limit = std::chrono::seconds(30);
constexpr auto quiet_time = std::chrono::milliseconds(2);
constexpr std::uint64_t burst_warm_up_messages =
    100'000;  // more than a queue of 8 MiB holds: every page is touched
constexpr std::uint64_t bursts_min = 3;
constexpr std::uint64_t burst_messages_max = 400'000;

std::int64_t now_ns() { return std::chrono::nanoseconds(steady_clock::now().time_since_epoch()).count(); }

// One connected library, what was published through it and what the sink saw of it.
class Run {
 public:
  Run(Driver& driver, SinkPage& sink, const Case& which, std::uint64_t outstanding_max,
      std::uint64_t burst_max)
      : driver_(driver),
        sink_(sink),
        payload_(which.payload_bytes, 'x'),
        qos_(which.qos),
        burst_(std::min(which.burst, burst_max)),
        outstanding_max_(outstanding_max),
        sink_before_(sink.publishes_total()),
        violations_before_(sink.violations.load()) {}

  // Publishes until `count` messages or `seconds` are over, with back-pressure.
  Result<void> publish(std::uint64_t count, double seconds) {
    const auto deadline = steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                                    std::chrono::duration<double>(std::min(seconds, 1e6)));
    std::uint64_t credit = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (credit == 0 || i % 256 == 0) {
        if (steady_clock::now() >= deadline) break;
        if (auto room = wait_for_room(credit); !room) return room;
      }
      if (!driver_.publish(topic, payload_)) return refused();
      --credit;
      ++published_;
    }
    return {};
  }

  // Waits until all is completed and in the sink.
  Result<void> drain() {
    const auto deadline = steady_clock::now() + stuck_time_limit;
    while (driver_.completed() < published_ || arrived() < published_) {
      if (steady_clock::now() > deadline) return stuck();
      std::this_thread::sleep_for(pause_time);
    }
    if (arrived() != published_ || sink_.violations.load() != violations_before_) {
      return fail(Errc::protocol_violation,
                  fmt::format("the sink received {} messages of {} and {} malformed packets", arrived(),
                              published_, sink_.violations.load() - violations_before_));
    }
    return {};
  }

  // Times every call of one burst.
  Result<void> burst(const CallClock& clock, Histogram* histogram) {
    stamps_.resize(burst_ + 1);
    for (std::uint64_t i = 0; i < burst_; ++i) {
      stamps_[i] = CallClock::now();
      if (!driver_.publish(topic, payload_)) return refused();
    }
    stamps_[burst_] = CallClock::now();
    published_ += burst_;
    for (std::uint64_t i = 0; histogram != nullptr && i < burst_; ++i) {
      const auto ticks = stamps_[i + 1] - stamps_[i];
      histogram->add(ticks - std::min(ticks, clock.overhead_ticks()));
    }
    return {};
  }

  // After drain(): how many messages a library sends that gets no acknowledgement. The last thing that a run
  // can do.
  Result<std::uint64_t> in_flight_at_most(std::uint64_t window) {
    sink_.behaviour.store(SinkBehaviour::mute);
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(window + 100, burst_); ++i) {
      if (!driver_.publish(topic, payload_)) return refused();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return arrived() - published_;
  }

  std::uint64_t published() const { return published_; }
  // When the last message had come through; call it after drain().
  std::int64_t finished_ns(std::int64_t drained_ns) const {
    return qos_ == 0 ? sink_.last_publish_ns.load(std::memory_order_relaxed) : drained_ns;
  }

 private:
  static std::unexpected<Error> refused() { return fail(Errc::outbox_full, "the library refused a message"); }
  std::unexpected<Error> stuck() const {
    return fail(Errc::timeout,
                fmt::format("stuck for {} s: {} published, {} completed, {} arrived at the sink",
                            stuck_time_limit.count(), published_, driver_.completed(), arrived()));
  }

  Result<void> wait_for_room(std::uint64_t& room) const {
    room = outstanding_max_ - (published_ - driver_.completed());
    for (const auto deadline = steady_clock::now() + stuck_time_limit; room == 0;) {
      if (steady_clock::now() > deadline) return stuck();
      std::this_thread::sleep_for(pause_time);
      room = outstanding_max_ - (published_ - driver_.completed());
    }
    return {};
  }

  std::uint64_t arrived() const { return sink_.publishes_total() - sink_before_; }

  Driver& driver_;
  SinkPage& sink_;
  const std::string payload_;
  const unsigned qos_;
  const std::uint64_t burst_;
  const std::uint64_t outstanding_max_;
  const std::uint64_t sink_before_;
  const std::uint64_t violations_before_;
  std::uint64_t published_ = 0;
  std::vector<std::uint64_t> stamps_;
};

Result<void> measure_bursts(Run& run, const Case& which, Figures& figures) {
  const CallClock clock;
  Histogram histogram;
  const auto begin = steady_clock::now();
  for (std::uint64_t recorded = 0; recorded < bursts_min || histogram.count() < burst_messages_max;) {
    const std::chrono::duration<double> elapsed = steady_clock::now() - begin;
    if (recorded >= bursts_min && elapsed.count() > which.seconds) break;
    const bool warm = run.published() >= burst_warm_up_messages || elapsed.count() > which.seconds / 2;
    recorded += warm ? 1 : 0;
    if (auto published = run.burst(clock, warm ? &histogram : nullptr); !published) return published;
    if (auto drained = run.drain(); !drained) return drained;
    std::this_thread::sleep_for(quiet_time);
  }
  const auto percentile = [&](double fraction) {
    return clock.ns(static_cast<double>(histogram.percentile(fraction)));
  };
  figures["caller_ns_p50"] = percentile(0.5);
  figures["caller_ns_p99"] = percentile(0.99);
  figures["caller_ns_p999"] = percentile(0.999);
  figures["caller_ns_max"] = clock.ns(static_cast<double>(histogram.max()));
  return {};
}

// Brings buffers to their steady size and tells how many messages take `which.seconds`.
Result<std::uint64_t> warm_up(Run& run, const Case& which) {
  const auto before = run.published();
  const auto begin = steady_clock::now();
  auto published =
      which.messages != 0 ? run.publish(which.messages / 4, 1e9) : run.publish(UINT64_MAX, which.seconds / 4);
  if (!published) return std::unexpected(published.error());
  if (auto drained = run.drain(); !drained) return std::unexpected(drained.error());
  if (which.messages != 0) return which.messages;
  const std::chrono::duration<double> elapsed = steady_clock::now() - begin;
  const double rate = static_cast<double>(run.published() - before) / elapsed.count();
  return std::max<std::uint64_t>(1'000, static_cast<std::uint64_t>(rate * which.seconds));
}

Result<void> measure_sustained(Run& run, const Case& which, Figures& figures) {
  const auto count = warm_up(run, which);
  if (!count) return std::unexpected(count.error());
  const double cpu_before = cpu_seconds();
  const auto begin_ns = now_ns();
  if (auto published = run.publish(*count, 1e9); !published) return published;
  if (auto drained = run.drain(); !drained) return drained;
  const double elapsed = static_cast<double>(run.finished_ns(now_ns()) - begin_ns) * 1e-9;
  const auto messages = static_cast<double>(*count);
  figures["messages_per_s"] = messages / elapsed;
  figures["cpu_s_per_million"] = (cpu_seconds() - cpu_before) / messages * 1e6;
  return {};
}

Result<void> measure_counts(Run& run, const Case& which, const SyscallCounter* syscalls, Figures& figures) {
  const auto count = warm_up(run, which);
  if (!count) return std::unexpected(count.error());
  const auto allocations_before = AllocationCounter::count();
  const auto syscalls_before = syscalls != nullptr ? syscalls->count() : 0;
  AllocationCounter::enable(true);
  if (auto published = run.publish(*count, 1e9); !published) return published;
  if (auto drained = run.drain(); !drained) return drained;
  AllocationCounter::enable(false);
  const auto messages = static_cast<double>(*count);
  if (syscalls != nullptr) {
    figures["syscalls_per_message"] = static_cast<double>(syscalls->count() - syscalls_before) / messages;
  }
  if (AllocationCounter::available()) {
    figures["allocations_per_message"] =
        static_cast<double>(AllocationCounter::count() - allocations_before) / messages;
  }
  if (which.qos == 0) return {};
  const auto in_flight = run.in_flight_at_most(which.window);
  if (!in_flight) return std::unexpected(in_flight.error());
  if (*in_flight > which.window) {
    return fail(Errc::protocol_violation,
                fmt::format("{} messages were in flight, more than the window", *in_flight));
  }
  figures["in_flight"] = static_cast<double>(*in_flight);
  return {};
}

}  // namespace

std::vector<std::string> Case::to_arguments() const {
  return {"--child",
          library,
          std::to_string(qos),
          std::to_string(window),
          std::to_string(payload_bytes),
          std::to_string(burst),
          std::to_string(messages),
          std::to_string(seconds),
          std::to_string(outstanding),
          std::to_string(counts ? 1 : 0),
          std::to_string(sink_port),
          std::to_string(sink_page_fd)};
}

Result<Case> Case::from_arguments(const std::vector<std::string>& arguments) {
  Case which;
  std::string text;
  for (const auto& argument : arguments) text += argument + ' ';
  std::istringstream in(text);
  std::string child;
  in >> child >> which.library >> which.qos >> which.window >> which.payload_bytes >> which.burst >>
      which.messages >> which.seconds >> which.outstanding >> which.counts >> which.sink_port >>
      which.sink_page_fd;
  if (!in || child != "--child") return fail(Errc::invalid_config, "--child is for the program itself");
  return which;
}

std::vector<Library> libraries() { return {fulmar_library(), mosquitto_library(), paho_library()}; }

Result<Figures> run_case(const Case& which) {
  ::prctl(PR_SET_NAME, "bench_caller");
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // so that a caller who waits wakes up in time, whatever the library
  const auto all = libraries();
  const auto library = std::ranges::find(all, which.library, &Library::name);
  if (library == all.end() || library->make == nullptr) {
    return fail(Errc::invalid_config, fmt::format("{}: no such library in this build", which.library));
  }
  const auto sink = Sink::map_page(which.sink_page_fd);
  if (!sink) return std::unexpected(sink.error());

  std::optional<SyscallCounter> syscalls;  // before the library has threads
  if (which.counts) {
    if (auto opened = SyscallCounter::open()) syscalls.emplace(std::move(*opened));
  }
  const auto driver = library->make();
  if (auto connected = driver->connect({which.sink_port, which.qos, which.window}); !connected) {
    return std::unexpected(connected.error());
  }
  Run run(*driver, **sink, which,
          which.outstanding != 0 ? which.outstanding : library->outstanding_max(which.qos, which.window),
          library->burst_max(which.qos, which.window));
  Figures figures;
  Result<void> measured;
  if (which.counts) {
    measured = measure_counts(run, which, syscalls ? &*syscalls : nullptr, figures);
  } else {
    measured = measure_bursts(run, which, figures);
    if (measured) measured = measure_sustained(run, which, figures);
    figures["peak_rss_bytes"] = peak_rss_bytes();
  }
  if (!measured) return std::unexpected(measured.error());
  sink.value()->behaviour.store(SinkBehaviour::acknowledge);
  driver->disconnect();
  return figures;
}

}  // namespace fulmar::bench
