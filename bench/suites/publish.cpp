// What publishing costs when all is well, at QoS 0, 1 and 2 with windows of several sizes.
//
//   burst      messages published back to back that the library has room for, then everything drained and 2 ms of quiet,
//              so that each burst finds the network thread asleep; every call is timed. The first 100,000 messages only
//              touch the library's memory.
//   sustained  as many messages as go through, the caller waiting whenever the library holds `outstanding_max`; from the
//              first call to the last acknowledgement (QoS 1, 2) or the sink's last read (QoS 0).
//   counts     a shorter sustained run with the probes for allocations and system calls switched on; in a process of its
//              own, so that the probes do not slow what is timed. QoS 1, 2: at the end the sink goes mute, and no more
//              than the window may arrive.

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "columns.hpp"
#include "probes.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

constexpr auto quiet_time = std::chrono::milliseconds(2);
constexpr std::uint64_t burst_messages = 10'000;
constexpr std::uint64_t burst_warm_up_messages =
    100'000;  // more than a queue of 8 MiB holds: every page is touched
constexpr std::uint64_t bursts_min = 3;
constexpr std::uint64_t burst_messages_max = 400'000;

// --- the child's half

struct Case {
  unsigned qos;
  unsigned window;
  double seconds;
  std::uint64_t messages;  // 0 = as many as take `seconds`
};

Result<void> measure_bursts(Traffic& traffic, const Case& which, Figures& figures) {
  const CallClock clock;
  Histogram histogram;
  const auto begin = steady_clock::now();
  for (std::uint64_t recorded = 0; recorded < bursts_min || histogram.count() < burst_messages_max;) {
    const std::chrono::duration<double> elapsed = steady_clock::now() - begin;
    if (recorded >= bursts_min && elapsed.count() > which.seconds) break;
    const bool warm = traffic.published() >= burst_warm_up_messages || elapsed.count() > which.seconds / 2;
    recorded += warm ? 1 : 0;
    if (traffic.burst(clock, warm ? &histogram : nullptr) != 0) {
      return fail(Errc::outbox_full, "the library refused a message");
    }
    if (auto drained = traffic.drain(); !drained) return drained;
    std::this_thread::sleep_for(quiet_time);
  }
  add_percentiles(figures, "caller_ns_", histogram, clock);
  return {};
}

// Brings buffers to their steady size and tells how many messages take `which.seconds`.
Result<std::uint64_t> warm_up(Traffic& traffic, const Case& which) {
  const auto before = traffic.published();
  const auto begin = steady_clock::now();
  auto published = which.messages != 0 ? traffic.publish(which.messages / 4, 1e9)
                                       : traffic.publish(UINT64_MAX, which.seconds / 4);
  if (!published) return std::unexpected(published.error());
  if (auto drained = traffic.drain(); !drained) return std::unexpected(drained.error());
  if (which.messages != 0) return which.messages;
  const std::chrono::duration<double> elapsed = steady_clock::now() - begin;
  const double rate = static_cast<double>(traffic.published() - before) / elapsed.count();
  return std::max<std::uint64_t>(1'000, static_cast<std::uint64_t>(rate * which.seconds));
}

Result<void> measure_sustained(Traffic& traffic, const Case& which, Figures& figures) {
  const auto count = warm_up(traffic, which);
  if (!count) return std::unexpected(count.error());
  const double cpu_before = cpu_seconds();
  const auto begin_ns = steady_ns();
  if (auto published = traffic.publish(*count, 1e9); !published) return published;
  if (auto drained = traffic.drain(); !drained) return drained;
  const double elapsed = static_cast<double>(traffic.finished_ns(steady_ns()) - begin_ns) * 1e-9;
  const auto messages = static_cast<double>(*count);
  figures["messages_per_s"] = messages / elapsed;
  figures["cpu_s_per_million"] = (cpu_seconds() - cpu_before) / messages * 1e6;
  return {};
}

Result<void> measure_counts(Traffic& traffic, const Case& which, const SyscallCounter* syscalls,
                            Figures& figures) {
  const auto count = warm_up(traffic, which);
  if (!count) return std::unexpected(count.error());
  const auto allocations_before = AllocationCounter::count();
  const auto syscalls_before = syscalls != nullptr ? syscalls->count() : 0;
  AllocationCounter::enable(true);
  if (auto published = traffic.publish(*count, 1e9); !published) return published;
  if (auto drained = traffic.drain(); !drained) return drained;
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
  const auto in_flight = traffic.in_flight_at_most(which.window);
  if (!in_flight) return std::unexpected(in_flight.error());
  if (*in_flight > which.window) {
    return fail(Errc::protocol_violation,
                fmt::format("{} messages were in flight, more than the window", *in_flight));
  }
  figures["in_flight"] = static_cast<double>(*in_flight);
  return {};
}

Result<ChildReport> scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const Case which{.qos = parameters.number<unsigned>("qos"),
                   .window = parameters.number<unsigned>("window"),
                   .seconds = parameters.number<double>("seconds"),
                   .messages = parameters.number<std::uint64_t>("messages")};
  const bool counts = parameters.text("scenario") == "publish_counts";

  std::optional<SyscallCounter> syscalls;  // before the library has threads
  if (counts) {
    if (auto opened = SyscallCounter::open()) syscalls.emplace(std::move(*opened));
  }
  const auto driver = library->make();
  const DriverOptions options{.port = parameters.number<std::uint16_t>("port"), .window = which.window};
  if (auto connected = driver->connect(options); !connected) return std::unexpected(connected.error());
  const auto outstanding = parameters.number<std::uint64_t>("outstanding");
  Traffic traffic(
      *driver, **sink,
      {.qos = which.qos,
       .payload_bytes = parameters.number<unsigned>("payload"),
       .outstanding_max = outstanding != 0 ? outstanding : library->outstanding_max(which.qos, which.window),
       .burst = std::min(burst_messages, library->burst_max(which.qos, which.window))});
  ChildReport result;
  Result<void> measured;
  if (counts) {
    measured = measure_counts(traffic, which, syscalls ? &*syscalls : nullptr, result.figures);
  } else {
    measured = measure_bursts(traffic, which, result.figures);
    if (measured) measured = measure_sustained(traffic, which, result.figures);
  }
  driver->disconnect();
  if (!measured) return std::unexpected(measured.error());
  return result;
}

// --- the parent's half

std::vector<std::pair<unsigned, unsigned>> qos_and_windows(const Options& options) {
  const auto all_qos = options.qos.empty() ? std::vector<unsigned>{0, 1, 2} : options.qos;
  std::vector<std::pair<unsigned, unsigned>> all;
  for (const unsigned qos : all_qos) {
    auto windows = options.windows;
    if (windows.empty())
      windows = options.quick || qos == 0 ? std::vector{1000u} : std::vector{1000u, 100u, 20u};
    if (options.windows.empty() && qos == 2 && !options.quick) windows.pop_back();
    if (qos == 0) windows.resize(1);  // there is no window
    for (const unsigned window : windows) all.emplace_back(qos, window);
  }
  return all;
}

void run(Bench& bench, Results& results) {
  const auto& options = bench.options;
  const auto repetitions = options.repetitions_or(5, 1);
  const double seconds = options.seconds_or(0.4, 0.15);
  for (const auto& [qos, window] : qos_and_windows(options)) {
    std::vector<Row> rows;
    for (const auto& library : bench.libraries) {
      rows.push_back(bench.row(library, {{"qos", std::to_string(qos)},
                                         {"window", std::to_string(qos == 0 ? 0 : window)},
                                         {"payload_bytes", std::to_string(options.payload_bytes)}}));
    }
    for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        Parameters parameters;
        parameters.set("qos", qos)
            .set("window", window)
            .set("payload", options.payload_bytes)
            .set("seconds", seconds)
            .set("messages", options.messages)
            .set("outstanding", options.outstanding);
        parameters.set("scenario", "publish");
        bench.run(rows[i], bench.libraries[i], parameters, std::chrono::seconds(120));
        if (repetition != 0) continue;  // counts do not vary as times do
        parameters.set("scenario", "publish_counts").set("seconds", seconds / 2);
        bench.run(rows[i], bench.libraries[i], parameters, std::chrono::seconds(120));
      }
    }
    show(fmt::format("QoS {}{}, {} B payload", qos,
                     qos == 0 ? std::string() : fmt::format(", window {}", window), options.payload_bytes),
         rows, publish_columns());
    std::ranges::move(rows, std::back_inserter(results.rows));
  }
}

}  // namespace

Suite publish_suite() {
  return {.name = "publish",
          .summary = "throughput, caller's cost, processor time, allocations and system calls of publishing",
          .run = run,
          .scenarios = {{"publish", scenario}, {"publish_counts", scenario}}};
}

}  // namespace fulmar::bench
