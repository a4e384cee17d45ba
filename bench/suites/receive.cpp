// What receiving costs: the sink floods one subscriber, whose handler does nothing, as fast as the socket takes it (QoS 1:
// with at most 1,000 unacknowledged). From the first message that leaves the sink to the last one handled.

#include <fmt/format.h>

#include <optional>
#include <thread>

#include "columns.hpp"
#include "probes.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view topic = "bench/receive/topic1";
constexpr auto stuck_time_limit = std::chrono::seconds(30);

struct Flooded {
  std::uint64_t messages = 0;
  std::int64_t began_ns = 0;
  std::int64_t finished_ns = 0;
};

// Asks for a flood and waits until every message of it was handled.
Result<Flooded> flood(Driver& driver, SinkPage& sink, const Parameters& parameters, double seconds) {
  const auto before = driver.received();
  sink.flood(parameters.number<unsigned>("qos"), parameters.number<unsigned>("payload"),
             std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9)));
  const auto deadline = steady_clock::now() + stuck_time_limit;
  while (sink.flooding() || driver.received() - before < sink.flooded.load()) {
    if (steady_clock::now() > deadline) {
      return fail(Errc::timeout,
                  fmt::format("stuck for {} s: {} messages sent, {} handled", stuck_time_limit.count(),
                              sink.flooded.load(), driver.received() - before));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Flooded result{sink.flooded.load(), sink.flood_began_ns.load(), steady_ns()};
  if (result.messages == 0) return fail(Errc::io_error, "the sink knows of no subscription");
  if (driver.received() - before != result.messages) {
    return fail(Errc::protocol_violation,
                fmt::format("{} messages sent, {} handled", result.messages, driver.received() - before));
  }
  return result;
}

Result<ChildReport> scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const bool counts = parameters.text("scenario") == "receive_counts";
  const auto seconds = parameters.number<double>("seconds");

  std::optional<SyscallCounter> syscalls;  // before the library has threads
  if (counts) {
    if (auto opened = SyscallCounter::open()) syscalls.emplace(std::move(*opened));
  }
  const auto driver = library->make();
  const DriverOptions options{.port = parameters.number<std::uint16_t>("port"), .window = 1'000};
  if (auto connected = driver->connect(options); !connected) return std::unexpected(connected.error());
  if (auto subscribed = driver->subscribe(topic, parameters.number<unsigned>("qos")); !subscribed) {
    return std::unexpected(subscribed.error());
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // SUBACK
  if (const auto warm = flood(*driver, **sink, parameters, seconds / 4); !warm)
    return std::unexpected(warm.error());

  ChildReport result;
  const auto allocations_before = AllocationCounter::count();
  const auto syscalls_before = syscalls ? syscalls->count() : 0;
  const double cpu_before = cpu_seconds();
  AllocationCounter::enable(counts);
  const auto flooded = flood(*driver, **sink, parameters, seconds);
  AllocationCounter::enable(false);
  if (!flooded) return std::unexpected(flooded.error());
  const auto messages = static_cast<double>(flooded->messages);
  if (counts) {
    if (syscalls) {
      result.figures["syscalls_per_message"] =
          static_cast<double>(syscalls->count() - syscalls_before) / messages;
    }
    if (AllocationCounter::available()) {
      result.figures["allocations_per_message"] =
          static_cast<double>(AllocationCounter::count() - allocations_before) / messages;
    }
  } else {
    result.figures["messages_per_s"] =
        messages / (static_cast<double>(flooded->finished_ns - flooded->began_ns) * 1e-9);
    result.figures["cpu_s_per_million"] = (cpu_seconds() - cpu_before) / messages * 1e6;
  }
  driver->disconnect();
  return result;
}

void run(Bench& bench, Results& results) {
  const auto& options = bench.options;
  const auto repetitions = options.repetitions_or(5, 1);
  const double seconds = options.seconds_or(0.4, 0.15);
  for (const unsigned qos : options.qos.empty() ? std::vector<unsigned>{0, 1} : options.qos) {
    if (qos > 1) continue;
    std::vector<Row> rows;
    for (const auto& library : bench.libraries) {
      rows.push_back(bench.row(
          library, {{"qos", std::to_string(qos)}, {"payload_bytes", std::to_string(options.payload_bytes)}}));
    }
    for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        Parameters parameters;
        parameters.set("qos", qos).set("payload", options.payload_bytes).set("seconds", seconds);
        parameters.set("scenario", "receive");
        bench.run(rows[i], bench.libraries[i], parameters, std::chrono::seconds(60));
        if (repetition != 0) continue;
        parameters.set("scenario", "receive_counts").set("seconds", seconds / 2);
        bench.run(rows[i], bench.libraries[i], parameters, std::chrono::seconds(60));
      }
    }
    show(fmt::format("receive, QoS {}, {} B payload", qos, options.payload_bytes), rows, receive_columns());
    std::ranges::move(rows, std::back_inserter(results.rows));
  }
}

}  // namespace

Suite receive_suite() {
  return {.name = "receive",
          .summary = "throughput, processor time, allocations and system calls of receiving",
          .run = run,
          .scenarios = {{"receive", scenario}, {"receive_counts", scenario}}};
}

}  // namespace fulmar::bench
