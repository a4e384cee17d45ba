// bench_record: what Telemetry::record() costs its caller while the broker is up, black-holed (it accepts and never
// answers), down, and while the queue is full; and how many records a second one producer gets acknowledged.
//
// Each state is a client, a telemetry and, where it is needed, a sink of its own. Calls come in bursts that fit into the
// queue, with a pause in between in which the sender may catch up; each call is timed by itself, less the cost of the time
// stamps. A burst is preceded by some calls that are not counted: the caches are then as in a loop.

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

#include <CLI/CLI.hpp>

#include "fulmar/telemetry.hpp"
#include "harness.hpp"
#include "probes.hpp"
#include "sink.hpp"

namespace fulmar::bench {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t burst = 10'000;
constexpr std::size_t warm_up = 100;
constexpr std::size_t queue_bytes = std::size_t{4} << 20;

enum class State : std::uint8_t { up, black_hole, down, queue_full };
constexpr std::array states{State::up, State::black_hole, State::down, State::queue_full};

std::string_view to_string(State state) {
  switch (state) {
    case State::up: return "broker up";
    case State::black_hole: return "broker silent";
    case State::down: return "broker down";
    case State::queue_full: return "queue full";
  }
  return "";
}

struct Rig {
  Rig(const Sink& sink, std::size_t queue_capacity)
      : client({.urls = {fmt::format("mqtt://127.0.0.1:{}", sink.port())},
                .client_id = fmt::format("bench-record-{}", getpid()),
                .outbox_bytes = std::size_t{256} << 20,
                .overflow = Overflow::reject}),
        telemetry(client,
                  {.queue_capacity = queue_capacity, .queue_bytes = queue_bytes, .batch_size = 1'000}) {}

  Client client;
  Telemetry telemetry;
};

// 128 bytes in the queue.
Measurement sample(std::int64_t ts_ms) {
  Measurement m(ts_ms);
  m.add("temperature", 21.5).add("pressure", 1013.25).add("spindle_rpm", 12'000).add("door_open", false);
  return m;
}

struct Cost {
  double p50 = 0, p99 = 0, p999 = 0, max = 0;
  std::uint64_t refused = 0;
};

Cost measure(Telemetry& telemetry, std::int64_t ts_ms, std::uint64_t calls) {
  const CallClock clock;
  const Measurement m = sample(ts_ms);
  Histogram histogram;
  // Once around the queue: the kernel gives its memory page by page at the first touch, 1.5 us each.
  for (std::size_t i = 0; i < 4 * queue_bytes / 128; ++i) {
    telemetry.record(m);
    if (i % burst == 0) std::this_thread::sleep_for(5ms);
  }
  const auto refused_before = telemetry.stats().dropped.queue_full;
  while (histogram.count() < calls) {
    for (std::size_t i = 0; i < warm_up; ++i) telemetry.record(m);
    for (std::size_t i = 0; i < burst; ++i) {
      const auto begin = CallClock::now();
      telemetry.record(m);
      const auto ticks = CallClock::now() - begin;
      histogram.add(ticks - std::min(ticks, clock.overhead_ticks()));
    }
    std::this_thread::sleep_for(5ms);
  }
  const auto ns = [&](double share) { return clock.ns(static_cast<double>(histogram.percentile(share))); };
  return {.p50 = ns(0.5),
          .p99 = ns(0.99),
          .p999 = ns(0.999),
          .max = clock.ns(static_cast<double>(histogram.max())),
          .refused = telemetry.stats().dropped.queue_full - refused_before};
}

int complain(std::string_view what) {
  fmt::print(stderr, "bench_record: {}\n", what);
  return 1;
}

int measure_state(State state, std::uint64_t calls) {
  auto sink = Sink::start();
  if (!sink) return complain(sink.error().message);
  if (state == State::black_hole && !sink->page().become(SinkBehaviour::silent))
    return complain("the sink hangs");
  if (state == State::down && !sink->page().become(SinkBehaviour::down)) return complain("the sink hangs");
  Rig rig(*sink, state == State::queue_full ? 1'000 : std::size_t{1} << 21);
  rig.client.start();
  if (state == State::up && !rig.client.wait_for(ConnectionState::connected, 5s))
    return complain("no connection");
  if (state != State::queue_full) rig.telemetry.start();
  for (const std::int64_t ts_ms : {std::int64_t{1}, std::int64_t{0}}) {
    const Cost cost = measure(rig.telemetry, ts_ms, calls);
    fmt::print("{:<14} {:<10} {:>8.0f} {:>8.0f} {:>8.0f} {:>10.0f}   {}\n", to_string(state),
               ts_ms ? "given" : "filled in", cost.p50, cost.p99, cost.p999, cost.max,
               cost.refused ? fmt::format("{} refused", cost.refused) : "");
  }
  return 0;
}

int measure_rate(std::uint64_t records) {
  auto sink = Sink::start();
  if (!sink) return complain(sink.error().message);
  Rig rig(*sink, 100'000);
  rig.client.start();
  if (!rig.client.wait_for(ConnectionState::connected, 5s)) return complain("no connection");
  rig.telemetry.start();
  const Measurement m = sample(1);
  const auto begin = Clock::now();
  for (std::uint64_t i = 0; i < records;) {
    if (rig.telemetry.offer(m) == Telemetry::Offer::taken)
      ++i;
    else
      std::this_thread::yield();
  }
  if (!rig.telemetry.flush(60s)) return complain("records were not acknowledged within a minute");
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto stats = rig.telemetry.stats();
  if (stats.messages_sent != records) return complain("records were lost");
  fmt::print("\none producer, batches of {:.0f} records: {:.2f} million records/s acknowledged\n",
             static_cast<double>(stats.messages_sent) / static_cast<double>(stats.batches_sent),
             static_cast<double>(records) / seconds / 1e6);
  return 0;
}

int run(std::uint64_t calls) {
  fmt::print(
      "{}\nrecords of 4 values, bursts of {}, {} calls a row; ns a call\n\n{:<14} {:<10} {:>8} {:>8} {:>8} "
      "{:>10}\n",
      machine(), burst, calls, "state", "time", "p50", "p99", "p99.9", "max");
  for (const State state : states)
    if (const int failed = measure_state(state, calls)) return failed;
  return measure_rate(calls * 4);
}

}  // namespace
}  // namespace fulmar::bench

int main(int argc, char** argv) {
  std::uint64_t calls = 1'000'000;
  bool quick = false;
  CLI::App app{"bench_record: what Telemetry::record() costs its caller"};
  app.add_option("--calls", calls, "timed calls a row")
      ->check(CLI::Range(10'000, 1'000'000'000))
      ->capture_default_str();
  app.add_flag("--quick", quick, "a tenth of the calls: a look, not a result");
  CLI11_PARSE(app, argc, argv);
  return fulmar::bench::run(quick ? calls / 10 : calls);
}
