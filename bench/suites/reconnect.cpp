// How long a client needs after the server is back: it goes away, the client publishes a message, and between 5 and 55 ms
// later the server listens again.
//
//   reconnect_ms  from the moment at which the server accepts the client's connection until it has acknowledged the
//                 first PUBLISH: what the client needs, its back-off excluded
//   outage_ms     from the moment before the server calls listen() to the same: the back-off included, each library at
//                 the shortest that its user can ask for
//
// 21 repeats, or as many as 15 s allow. Both are taken by the server's clock alone, so that every library is measured alike.

#include <fmt/format.h>

#include <random>
#include <thread>

#include "columns.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

template <typename Condition>
bool wait_until(Condition&& condition, std::chrono::seconds limit) {
  for (const auto deadline = steady_clock::now() + limit; steady_clock::now() < deadline;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return condition();
}

Result<ChildReport> scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto found = sink_of(parameters);
  if (!found) return std::unexpected(found.error());
  SinkPage& sink = **found;

  const auto driver = library->make();
  const DriverOptions options{
      .port = parameters.number<std::uint16_t>("port"), .window = 100, .offline = true};
  if (auto connected = driver->connect(options); !connected) return std::unexpected(connected.error());
  const std::string payload(parameters.number<unsigned>("payload"), 'x');
  std::mt19937 random(20'26);
  std::uniform_int_distribution<int> away_ms(5, 55);

  ChildReport result;
  const auto end = steady_clock::now() + std::chrono::duration<double>(parameters.number<double>("seconds"));
  for (unsigned i = 0; i < parameters.number<unsigned>("repeats"); ++i) {
    if (i != 0 && steady_clock::now() > end) break;
    if (!sink.become(SinkBehaviour::down)) return fail(Errc::timeout, "the sink did not go away");
    if (!wait_until([&] { return !driver->connected(); }, std::chrono::seconds(5))) {
      return fail(Errc::timeout, "it did not notice within 5 s that the connection was closed");
    }
    if (!driver->publish(publish_topic, payload, 1)) {
      return fail(Errc::outbox_full, "it takes no message while it is disconnected");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(away_ms(random)));
    sink.acknowledged_ns.store(0);
    if (!sink.become(SinkBehaviour::acknowledge)) return fail(Errc::timeout, "the sink did not come back");
    if (!wait_until([&] { return sink.acknowledged_ns.load() != 0; }, std::chrono::seconds(10))) {
      return fail(Errc::timeout,
                  fmt::format("nothing was published within 10 s after return {} of the server", i + 1));
    }
    const auto ms = [&](std::int64_t since) {
      return static_cast<double>(sink.acknowledged_ns.load() - since) * 1e-6;
    };
    result.samples["reconnect_ms"].push_back(ms(sink.accepted_ns.load()));
    result.samples["outage_ms"].push_back(ms(sink.listening_ns.load()));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the acknowledgement is on its way
  }
  return result;
}

void run(Bench& bench, Results& results) {
  std::vector<Row> rows;
  for (const auto& library : bench.libraries) {
    auto& row = rows.emplace_back(bench.row(library, {}));
    Parameters parameters;
    parameters.set("scenario", "reconnect")
        .set("payload", bench.options.payload_bytes)
        .set("repeats", bench.options.repetitions_or(21, 3))
        .set("seconds", bench.options.seconds_or(15, 2));
    if (bench.run(row, library, parameters, std::chrono::seconds(90))) {
      row.figures["repeats"] = {static_cast<double>(row.figures["reconnect_ms"].size())};
    }
  }
  show("reconnect: the first PUBLISH acknowledged after the server is back", rows, reconnect_columns());
  std::ranges::move(rows, std::back_inserter(results.rows));
}

}  // namespace

Suite reconnect_suite() {
  return {.name = "reconnect",
          .summary = "time until the first message is acknowledged after the server is back",
          .run = run,
          .scenarios = {{"reconnect", scenario}}};
}

}  // namespace fulmar::bench
