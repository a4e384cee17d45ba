// A process that starts with messages that former ones left on disk: how soon the first of them is sent, how much memory it
// takes, and how long until the server has acknowledged all. A million messages of 100 bytes (--messages: another number),
// against the sink, which costs next to nothing, and against mosquitto as it comes, with its 20 messages in flight.
//
//   waiting   what publish() left. Beside ours Paho C with its files, a hundredth as many: it opens each when it starts
//   day       24 hours of 10 Hz telemetry with 50 fields a record, 864,000 records in batches of up to 60,000 bytes
//
// Filling and starting again are two processes. Times begin before the client is constructed; memory is the process's peak.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "broker.hpp"
#include "columns.hpp"
#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"
#include "scratch_folder.hpp"
#include "stores/store.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr std::uint64_t day_records = 24ULL * 60 * 60 * 10;
constexpr unsigned day_fields = 50;

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

// --- the child's half

ClientConfig config_of(const Parameters& parameters) {
  return {.urls = {fmt::format("mqtt://127.0.0.1:{}", parameters.number<std::uint16_t>("server_port"))},
          .client_id = "bench-restart",
          .clean_start = false,
          .session_expiry = 600s,
          .reconnect_min_delay = 100ms,
          .reconnect_max_delay = 100ms,
          .spool_dir = std::string(parameters.text("folder")),
          .spool_bytes = std::uint64_t{4} << 30,
          .overflow = Overflow::reject};
}

double disk_bytes(const std::filesystem::path& folder) {
  double bytes = 0;
  for (const auto& item : std::filesystem::recursive_directory_iterator(folder)) {
    if (item.is_regular_file()) bytes += static_cast<double>(item.file_size());
  }
  return bytes;
}

// The peak of this program alone: getrusage() remembers what forked it.
double peak_rss() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) * 1024;
  }
  return not_measured;
}

Result<ChildReport> end_fill(Client& client, std::uint64_t messages, std::uint64_t wanted,
                             steady_clock::time_point begin, const Parameters& parameters) {
  const auto ended = client.shutdown(120s);
  const double seconds = seconds_since(begin);
  if (ended.spooled != wanted || ended.lost != 0) {
    return fail(Errc::io_error, fmt::format("{} messages of {} are in the spool, {} lost", ended.spooled,
                                            wanted, ended.lost));
  }
  return ChildReport{.figures = {{"fill_per_s", static_cast<double>(messages) / seconds},
                                 {"spooled", static_cast<double>(ended.spooled)},
                                 {"disk_bytes", disk_bytes(parameters.text("folder"))}}};
}

Result<ChildReport> fill_scenario(const Parameters& parameters) {
  const auto count = parameters.number<std::uint64_t>("messages");
  const PublishOptions options{.qos = static_cast<QoS>(parameters.number<int>("qos"))};
  const std::string payload(100, 'x');
  Client client(config_of(parameters));
  client.start();
  const auto begin = steady_clock::now();
  for (std::uint64_t i = 0; i < count;) {
    if (client.publish(publish_topic, payload, options))
      ++i;
    else
      std::this_thread::sleep_for(100us);
  }
  return end_fill(client, count, count, begin, parameters);
}

Result<ChildReport> day_scenario(const Parameters& parameters) {
  const auto count = parameters.number<std::uint64_t>("records");
  Client client(config_of(parameters));
  client.start();
  Telemetry telemetry(client, {.queue_capacity = 10'000, .queue_bytes = std::size_t{32} << 20});
  telemetry.start();
  std::vector<std::string> names;
  for (unsigned i = 0; i < day_fields; ++i) names.push_back(fmt::format("axis_{}_load", i));
  const auto begin = steady_clock::now();
  Measurement m;
  for (std::uint64_t i = 0; i < count; ++i) {
    m.clear(1'700'000'000'000 + static_cast<std::int64_t>(i) * 100);
    for (unsigned f = 0; f < day_fields; ++f)
      m.add(names[f], static_cast<double>((i * 31 + f * 977) % 100'000) / 100);
    while (telemetry.offer(m) != Telemetry::Offer::taken) std::this_thread::sleep_for(100us);
  }
  const auto stats = telemetry.stop(120s);
  if (stats.offline_stored != count) {
    return fail(Errc::io_error, fmt::format("{} records of {} are stored", stats.offline_stored, count));
  }
  return end_fill(client, count, stats.batches_queued, begin, parameters);
}

// Starts on what is there, until all of it is acknowledged.
Result<ChildReport> restart_scenario(const Parameters& parameters) {
  const auto wanted = parameters.number<std::uint64_t>("spooled");
  const auto begin = steady_clock::now();
  Client client(config_of(parameters));
  client.start();
  double first_s = 0;
  auto metrics = client.metrics();
  for (; metrics.acknowledged < wanted; metrics = client.metrics()) {
    if (first_s == 0 && metrics.sent != 0) first_s = seconds_since(begin);
    if (seconds_since(begin) > 200) {
      return fail(Errc::timeout, fmt::format("{} of {} acknowledged in 200 s", metrics.acknowledged, wanted));
    }
    std::this_thread::sleep_for(first_s == 0 ? 100us : 2ms);
  }
  const double all_s = seconds_since(begin);
  if (first_s == 0) first_s = all_s;
  // What was acknowledged leaves the disk a moment later.
  for (int i = 0; i < 2'000 && client.metrics().spool_messages != 0; ++i) std::this_thread::sleep_for(1ms);
  if (metrics = client.metrics(); metrics.recovered != wanted || metrics.spool_messages != 0) {
    return fail(Errc::io_error, fmt::format("{} messages of {} were there, {} still are", metrics.recovered,
                                            wanted, metrics.spool_messages));
  }
  const auto units = parameters.number<double>("units");
  ChildReport result{.figures = {{"first_publish_ms", first_s * 1e3},
                                 {"acknowledged_s", all_s},
                                 {"messages_per_s", units / all_s},
                                 {"peak_rss_bytes", peak_rss()}}};
  client.shutdown(5s);
  return result;
}

const StoreKind* replaying_kind(const std::vector<StoreKind>& kinds, std::string_view library) {
  const auto kind = std::ranges::find(kinds, library, &StoreKind::library);
  return kind == kinds.end() || kind->replay == nullptr ? nullptr : &*kind;
}

Result<ChildReport> rival_fill_scenario(const Parameters& parameters) {
  const auto kinds = store_kinds();
  const auto* kind = replaying_kind(kinds, parameters.text("library"));
  if (kind == nullptr) return fail(Errc::invalid_config, "not in this build");
  const auto count = parameters.number<std::uint64_t>("messages");
  const auto store = kind->make();
  if (auto opened = store->open(parameters.text("folder")); !opened) return std::unexpected(opened.error());
  const auto begin = steady_clock::now();
  if (auto done = store->append(count, Store::Reach::written); !done) return std::unexpected(done.error());
  return ChildReport{.figures = {{"fill_per_s", static_cast<double>(count) / seconds_since(begin)},
                                 {"spooled", static_cast<double>(count)},
                                 {"disk_bytes", disk_bytes(parameters.text("folder"))}}};
}

Result<ChildReport> rival_restart_scenario(const Parameters& parameters) {
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const auto kinds = store_kinds();
  const auto* kind = replaying_kind(kinds, parameters.text("library"));
  if (kind == nullptr) return fail(Errc::invalid_config, "not in this build");
  const auto done = kind->replay(parameters.text("folder"), parameters.number<std::uint16_t>("server_port"),
                                 **sink, parameters.number<std::uint64_t>("spooled"));
  if (!done) return std::unexpected(done.error());
  return ChildReport{.figures = {{"first_publish_ms", done->first_s * 1e3},
                                 {"acknowledged_s", done->all_s},
                                 {"messages_per_s", parameters.number<double>("units") / done->all_s},
                                 {"peak_rss_bytes", peak_rss()}}};
}

// --- the parent's half

struct Contestant {
  std::string library;
  std::string version;
  std::string fill, restart;  // scenarios
};

// One filling and one restart; the server is at `port`, and comes after the filling.
bool once(Bench& bench, Row& row, const Contestant& who, Parameters parameters, std::uint16_t port,
          std::uint64_t units) {
  const ScratchFolder folder(bench.options.output);
  parameters.set("folder", folder.path().string()).set("messages", units).set("records", units);
  // Nothing listens at port 1, so everything goes to the disk.
  Row filled = row;
  filled.figures.clear();
  if (!bench.run(filled, {.name = who.library},
                 Parameters(parameters).set("scenario", who.fill).set("server_port", 1), 200s)) {
    row.add_note(filled.note);
    return false;
  }
  for (const char* figure : {"fill_per_s", "disk_bytes"})
    row.figures[figure].push_back(filled.median(figure));
  parameters.set("scenario", who.restart)
      .set("server_port", port)
      .set("units", units)
      .set("spooled", static_cast<std::uint64_t>(filled.median("spooled")));
  return bench.run(row, {.name = who.library}, parameters, 250s);
}

void run(Bench& bench, Results& results) {
  const auto& options = bench.options;
  const auto messages = options.messages != 0 ? options.messages : options.quick ? 100'000 : 1'000'000;
  const auto repetitions = options.repetitions_or(3, 1);
  const ScratchFolder folder(options.output);
  auto broker = Broker::start(folder.path());
  if (!broker) {
    results.skipped.emplace_back("mosquitto", broker.error().message);
    std::puts(broker.error().message.c_str());
  }
  const auto library = std::ranges::find(bench.libraries, ours, &Library::name);
  const auto measure = [&](std::string title, std::vector<Row> rows, const std::vector<Contestant>& who,
                           const std::vector<std::uint16_t>& ports, const std::vector<std::uint64_t>& units) {
    for (unsigned repetition = 0; repetition < repetitions; ++repetition) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        Parameters parameters;
        parameters.set("qos", rows[i].label("qos"));
        once(bench, rows[i], who[i], parameters, ports[i], units[i]);
      }
    }
    show(title, rows, restart_columns());
    std::ranges::move(rows, std::back_inserter(results.rows));
  };
  const std::string server = broker ? "mosquitto " + Broker::version() : "";

  std::vector<Row> rows;
  std::vector<Contestant> who;
  std::vector<std::uint16_t> ports;
  std::vector<std::uint64_t> units;
  const auto add = [&](Contestant one, std::string on, std::uint16_t port, std::uint64_t count,
                       const char* qos) {
    rows.push_back({.library = one.library,
                    .version = one.version,
                    .labels = {{"what", "waiting"},
                               {"server", std::move(on)},
                               {"qos", qos},
                               {"messages", std::to_string(count)}},
                    .figures = {}});
    who.push_back(std::move(one)), ports.push_back(port), units.push_back(count);
  };
  if (library != bench.libraries.end()) {
    const Contestant mine{library->name, library->version, "restart_fill", "restart"};
    add(mine, "sink", bench.sink.port(), messages, "1");
    add(mine, "sink, QoS 2", bench.sink.port(), messages, "2");
    if (broker) add(mine, server, broker->port(), messages, "1");
  }
  for (const auto& kind : store_kinds()) {
    if (kind.replay == nullptr) continue;
    add({kind.library, kind.version, "restart_rival_fill", "restart_rival"}, "sink", bench.sink.port(),
        messages / 100, "1");
    rows.back().add_note("a hundredth as many messages");
  }
  measure("restart with messages that wait", std::move(rows), who, ports, units);
  if (library == bench.libraries.end()) return;

  rows.clear(), who.clear(), ports.clear(), units.clear();
  const auto records = options.quick ? day_records / 24 : day_records;
  for (const bool real : {false, true}) {
    if (real && !broker) continue;
    add({library->name, library->version, "restart_day", "restart"}, real ? server : "sink",
        real ? broker->port() : bench.sink.port(), records, "1");
    rows.back().labels.front().second = "day";
  }
  measure(fmt::format("{} records of {} fields", records, day_fields), std::move(rows), who, ports, units);
}

}  // namespace

Suite restart_suite() {
  return {.name = "restart",
          .summary = "starting with what former processes left on disk",
          .run = run,
          .scenarios = {{"restart_fill", fill_scenario},
                        {"restart_day", day_scenario},
                        {"restart", restart_scenario},
                        {"restart_rival_fill", rival_fill_scenario},
                        {"restart_rival", rival_restart_scenario}}};
}

}  // namespace fulmar::bench
