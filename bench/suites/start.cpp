// What it costs to start a client whose server is down (nothing listens), silent (accepts and never answers) or
// unresolvable (no such host): the call that begins to connect in the background. Making the client is timed apart, and
// ending it is not timed. Libraries in this process only: a script's start is its interpreter's.

#include <fmt/format.h>

#include "columns.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

void add(Figures& figures, std::string_view name, const Histogram& histogram, const CallClock& clock) {
  const auto us = [&](std::uint64_t ticks) { return clock.ns(static_cast<double>(ticks)) * 1e-3; };
  figures[fmt::format("{}_us_p50", name)] = us(histogram.percentile(0.5));
  figures[fmt::format("{}_us_p99", name)] = us(histogram.percentile(0.99));
  figures[fmt::format("{}_us_max", name)] = us(histogram.max());
}

Result<ChildReport> scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const auto state = parameters.text("state");
  DriverOptions options{.port = parameters.number<std::uint16_t>("port"), .window = 20, .offline = true};
  if (state == "unresolvable") options.host = "no-such-host.invalid";
  if (state == "down") (*sink)->become(SinkBehaviour::down);
  if (state == "silent") (*sink)->become(SinkBehaviour::silent);

  const CallClock clock;
  Histogram constructed;
  Histogram started;
  const auto wanted = parameters.number<unsigned>("starts");
  const auto deadline =
      steady_clock::now() + std::chrono::duration<double>(parameters.number<double>("seconds"));
  ChildReport result;
  for (unsigned i = 0; i < wanted; ++i) {
    if (i != 0 && steady_clock::now() > deadline) {
      result.note = fmt::format("cut off after {} of {} starts", i, wanted);
      break;
    }
    options.number = i;
    const auto driver = library->make();
    const auto begin = CallClock::now();
    if (auto prepared = driver->prepare(options); !prepared) return std::unexpected(prepared.error());
    const auto made = CallClock::now();
    const auto start = driver->start();
    const auto end = CallClock::now();
    if (!start) result.note = start.error().message;
    constructed.add(made - begin);
    started.add(end - made);
    driver->disconnect();
  }
  add(result.figures, "construct", constructed, clock);
  add(result.figures, "start", started, clock);
  result.figures["starts"] = static_cast<double>(started.count());
  result.distributions["caller"] = started.distribution(clock.ns(1));
  return result;
}

void run(Bench& bench, Results& results) {
  for (const std::string state : {"down", "silent", "unresolvable"}) {
    std::vector<Row> rows;
    for (const auto& library : bench.libraries) {
      if (library.make == nullptr) continue;
      auto& row = rows.emplace_back(bench.row(library, {{"state", state}}));
      Parameters parameters;
      parameters.set("scenario", "start")
          .set("state", state)
          .set("starts", library.name != ours  ? 100
                         : bench.options.quick ? 200
                                               : 1'000)
          .set("seconds",
               library.name == ours ? bench.options.seconds_or(20, 3) : bench.options.seconds_or(3, 0.5));
      bench.run(row, library, parameters, std::chrono::seconds(60));
    }
    show(fmt::format("start, server {}", state), rows, start_columns());
    std::ranges::move(rows, std::back_inserter(results.rows));
  }
}

}  // namespace

Suite start_suite() {
  return {.name = "start",
          .summary = "what starting costs when the server is not there",
          .run = run,
          .scenarios = {{"start", scenario}}};
}

}  // namespace fulmar::bench
