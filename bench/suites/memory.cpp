// What clients keep in memory:
//
//   clients  one client, a thousand, and a thousand and ten thousand on shared threads (ours), connected and idle: what the process has
//            more than before the first one, divided by the clients
//   waiting  messages of 100 bytes that wait for a server that is away: what the process has more than before the first
//            one, divided by the messages. A million, or as many as the library takes in the time.
//
// RSS is what is in memory; PSS counts a page that n processes share as 1/n. The server's side and the kernel's buffers
// are not counted.

#include <fmt/format.h>
#include <sys/resource.h>

#include <thread>

#include "columns.hpp"
#include "probes.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

Result<ChildReport> clients_scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  // Two descriptors a client (ours: socket and wake-up), and some for the process.
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  const auto wanted = parameters.number<unsigned>("clients");
  const auto count = static_cast<unsigned>(std::min<rlim_t>(wanted, (descriptors.rlim_cur - 200) / 2));

  const auto before = memory_now();
  const auto connections_before = (*sink)->connections.load();
  std::vector<std::unique_ptr<Driver>> drivers;
  drivers.reserve(count);
  const auto deadline =
      steady_clock::now() + std::chrono::duration<double>(parameters.number<double>("seconds"));
  const auto connections = [&] { return (*sink)->connections.load() - connections_before; };
  for (unsigned i = 0; i < count; ++i) {
    DriverOptions options{.port = parameters.number<std::uint16_t>("port"), .window = 20, .number = i};
    options.shared_threads = parameters.number<int>("shared_threads") != 0;
    auto& driver = *drivers.emplace_back(library->make());
    if (auto prepared = driver.prepare(options); !prepared) return std::unexpected(prepared.error());
    if (auto started = driver.start(); !started) return std::unexpected(started.error());
    // No more at a time than the server's backlog holds.
    while (connections() + 100 < i + 1 && steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (steady_clock::now() > deadline) break;
  }
  while (connections() < count) {
    if (steady_clock::now() > deadline) {
      return ChildReport{
          .note = fmt::format("only {} of {} clients were connected in time", connections(), count)};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto after = memory_now();
  return ChildReport{
      .figures = {{"rss_bytes_per_client", (after.rss_bytes - before.rss_bytes) / count},
                  {"pss_bytes_per_client", (after.pss_bytes - before.pss_bytes) / count}},
      .note = count == wanted ? "" : fmt::format("{} clients: ulimit -n allows no more", count)};
}

Result<ChildReport> waiting_scenario(const Parameters& parameters) {
  const auto library = library_of(parameters);
  if (!library) return std::unexpected(library.error());
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const auto wanted = parameters.number<std::uint64_t>("messages");

  const auto driver = library->make();
  const DriverOptions options{.port = parameters.number<std::uint16_t>("port"),
                              .window = 1'000,
                              .offline = true,
                              .queue_messages = wanted + 1'000};
  if (auto connected = driver->connect(options); !connected) return std::unexpected(connected.error());
  (*sink)->become(SinkBehaviour::down);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));

  const std::string payload(parameters.number<unsigned>("payload"), 'x');
  const auto before = memory_now();
  const auto begin = steady_clock::now();
  const auto deadline = begin + std::chrono::duration<double>(parameters.number<double>("seconds"));
  std::uint64_t count = 0;
  std::string note;
  for (; count < wanted; ++count) {
    if (count % 64 == 0 && steady_clock::now() > deadline) {
      note =
          fmt::format("cut off after {} messages in {:.0f} s", count, parameters.number<double>("seconds"));
      break;
    }
    if (!driver->publish(publish_topic, payload, 1)) {
      note = fmt::format("refuses more than {} messages", count);
      break;
    }
  }
  if (count == 0) return fail(Errc::outbox_full, "it takes no message while it is disconnected");
  const std::chrono::duration<double, std::nano> elapsed = steady_clock::now() - begin;
  const auto after = memory_now();
  const auto messages = static_cast<double>(count);
  return ChildReport{.figures = {{"bytes_per_message", (after.pss_bytes - before.pss_bytes) / messages},
                                 {"messages", messages},
                                 {"ns_per_message", elapsed.count() / messages}},
                     .note = note};
}

// --- the parent's half

std::vector<Row> clients(Bench& bench, unsigned count, bool shared_threads) {
  std::vector<Row> rows;
  for (const auto& library : bench.libraries) {
    if (shared_threads && library.name != ours) continue;
    auto& row = rows.emplace_back(bench.row(library, {{"clients", std::to_string(count)}}));
    if (shared_threads) row.labels.emplace_back("threads", "shared threads");
    Parameters parameters;
    parameters.set("scenario", "clients")
        .set("clients", count)
        .set("shared_threads", shared_threads ? 1 : 0)
        .set("seconds", bench.options.seconds_or(20, 20));
    bench.run(row, library, parameters, std::chrono::seconds(60));
  }
  return rows;
}

void run(Bench& bench, Results& results) {
  const auto keep = [&](std::vector<Row> rows) { std::ranges::move(rows, std::back_inserter(results.rows)); };
  for (const unsigned count : {1u, 1'000u}) {
    if (bench.options.quick && count != 1) continue;
    auto rows = clients(bench, count, false);
    show(count == 1 ? "one idle client" : "a thousand idle clients", rows, clients_columns());
    keep(std::move(rows));
  }
#if FULMAR_BENCH_RUNTIME
  for (const unsigned count : {1'000u, 10'000u}) {
    if (bench.options.quick) continue;
    auto rows = clients(bench, count, true);
    show(fmt::format("{} idle clients on shared threads", count), rows, clients_columns());
    keep(std::move(rows));
  }
#endif
  std::vector<Row> rows;
  for (const auto& library : bench.libraries) {
    auto& row = rows.emplace_back(
        bench.row(library, {{"payload_bytes", std::to_string(bench.options.payload_bytes)}}));
    Parameters parameters;
    parameters.set("scenario", "waiting")
        .set("messages", bench.options.quick ? 100'000 : 1'000'000)
        .set("payload", bench.options.payload_bytes)
        .set("seconds", bench.options.seconds_or(5, 1));
    bench.run(row, library, parameters, std::chrono::seconds(60));
  }
  show("messages that wait for a server that is away", rows, waiting_columns());
  keep(std::move(rows));
}

}  // namespace

Suite memory_suite() {
  return {.name = "memory",
          .summary = "memory of idle clients and of messages that wait",
          .run = run,
          .scenarios = {{"clients", clients_scenario}, {"waiting", waiting_scenario}}};
}

}  // namespace fulmar::bench
