// What publish() and Telemetry::record() cost their caller with a spool below, whatever server and disk do:
//
//   up       all is well. write_ahead: everything goes to the disk before it is sent; spill: nothing does
//   down     nothing listens: everything goes to the disk
//   silent   connections are accepted and never answered: everything goes to the disk
//   stalled  the disk does not answer for 5 s (disk_stall.hpp), the server is there (write_ahead) or away (spill)
//   full     the server is away, the spool is full, and the outbox behind it: every further message meets `overflow`.
//            record(): its queue is full too
//
// Bursts of 10,000 calls. Between them what waits may leave, for 5 to 100 ms; while the disk is stalled there is a burst
// every 250 ms. The memory of all queues was touched before.
//
// Beside publish() while the server is away stand Paho C with its files, and an INSERT into SQLite's WAL, which is what one
// writes by hand: neither syncs, each writes before it returns.
//
// And the rates: records and messages a second of one producer until all are acknowledged, or stored.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

#include "columns.hpp"
#include "disk_stall.hpp"
#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"
#include "probes.hpp"
#include "scratch_folder.hpp"
#include "stores/store.hpp"
#include "suite.hpp"
#include "traffic.hpp"

namespace fulmar::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr std::size_t burst_calls = 10'000;
constexpr unsigned bursts = 20;
constexpr auto stall_time = 5s;
constexpr std::size_t outbox_bytes = std::size_t{64} << 20;
constexpr std::size_t queue_bytes = std::size_t{8} << 20;
constexpr std::size_t payload_bytes = 100;

// --- the child's half

// 128 bytes in the queue.
Measurement sample(std::int64_t ts_ms) {
  Measurement m(ts_ms);
  m.add("temperature", 21.5).add("pressure", 1013.25).add("spindle_rpm", 12'000).add("door_open", false);
  return m;
}

template <typename Condition>
bool wait_until(Condition&& condition, std::chrono::milliseconds limit) {
  for (const auto deadline = steady_clock::now() + limit; steady_clock::now() < deadline;) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return condition();
}

ClientConfig config_of(const Parameters& parameters) {
  ClientConfig config{.urls = {fmt::format("mqtt://127.0.0.1:{}", parameters.number<std::uint16_t>("port"))},
                      .client_id = "bench-record",
                      .reconnect_min_delay = 100ms,
                      .reconnect_max_delay = 100ms,
                      .outbox_bytes = outbox_bytes,
                      .spool_dir = std::string(parameters.text("folder")),
                      .spool_bytes = std::uint64_t{8} << 30,
                      .overflow = Overflow::reject};
  if (parameters.text("durability") == "write_ahead") config.durability = Durability::write_ahead;
  if (parameters.text("state") == "full") {
    config.outbox_bytes = std::size_t{1} << 20;
    config.spool_bytes = std::size_t{1} << 20;
    if (parameters.text("overflow") == "drop_newest") config.overflow = Overflow::drop_newest;
    if (parameters.text("overflow") == "drop_oldest") config.overflow = Overflow::drop_oldest;
  }
  return config;
}

TelemetryConfig telemetry_config() {
  return {.queue_capacity = std::size_t{1} << 17, .queue_bytes = queue_bytes, .batch_size = 1'000};
}

// The call that is measured.
class Caller {
 public:
  Caller(Client& client, Telemetry* telemetry, std::int64_t ts_ms)
      : client_(client), telemetry_(telemetry), sample_(sample(ts_ms)), payload_(payload_bytes, 'x') {}

  bool operator()() {
    if (telemetry_) return telemetry_->record(sample_);
    return client_.publish(publish_topic, payload_, options_).has_value();
  }

  // What waits gets the time to leave.
  void pause() const {
    std::this_thread::sleep_for(5ms);
    wait_until([&] { return waiting() == 0; }, 95ms);
  }

  // Once around every queue: the kernel gives memory page by page at the first touch, 1.5 us each.
  void warm_up() {
    const auto calls = telemetry_ ? 4 * queue_bytes / 128 : outbox_bytes / 128;
    for (std::size_t i = 0; i < calls; ++i) {
      (*this)();
      if (i % burst_calls == 0) pause();
    }
    wait_until([&] { return waiting() == 0; }, 10s);
  }

 private:
  std::uint64_t waiting() const {
    return client_.metrics().outbox_messages + (telemetry_ ? telemetry_->stats().queue_size : 0);
  }

  Client& client_;
  Telemetry* telemetry_;
  const Measurement sample_;
  const std::string payload_;
  const PublishOptions options_{.qos = QoS::at_least_once};
};

// An empty text, or what did not go as the state wants.
std::string enter(std::string_view state, Client& client, Caller& call, SinkPage& sink, bool write_ahead) {
  const bool away = state == "down" || state == "full" || (state == "stalled" && !write_ahead);
  if (away || state == "silent") {
    if (!sink.become(away ? SinkBehaviour::down : SinkBehaviour::silent)) return "the sink did not go away";
    if (!wait_until([&] { return !client.connected(); }, 3s))
      return "it did not notice that the connection was closed";
    const auto spooled = client.metrics().spooled;
    call();
    if (!wait_until([&] { return client.metrics().spooled > spooled || state == "full"; }, 5s)) {
      return "nothing goes to the disk";
    }
  }
  if (state == "full") {
    for (std::size_t i = 0; i < 20 * burst_calls; ++i) {
      call();
      if (i % 2'000 == 0) std::this_thread::sleep_for(5ms);
    }
    std::this_thread::sleep_for(200ms);
  }
  if (state == "stalled") DiskStall::hold_for(stall_time);
  return {};
}

Result<ChildReport> caller_scenario(const Parameters& parameters) {
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const auto state = parameters.text("state");
  const auto config = config_of(parameters);

  Client client(config);
  std::optional<Telemetry> telemetry;
  if (parameters.text("call") == "record()") telemetry.emplace(client, telemetry_config()).start();
  if (auto connected = client.connect(5s); !connected) return std::unexpected(connected.error());
  Caller call(client, telemetry ? &*telemetry : nullptr, parameters.text("time") == "filled in" ? 0 : 1);
  call.warm_up();
  if (const auto problem = enter(state, client, call, **sink, config.durability == Durability::write_ahead);
      !problem.empty()) {
    return fail(Errc::io_error, problem);
  }

  const CallClock clock;
  Histogram histogram;
  std::vector<std::uint64_t> stamps(burst_calls + 1);
  std::uint64_t refused = 0, calls_in_stall = 0;
  const auto began = steady_clock::now();
  const auto cpu_before = cpu_seconds();
  for (unsigned burst = 0; burst < bursts; ++burst) {
    if (state == "stalled") {
      std::this_thread::sleep_until(began + burst * stall_time / bursts);
    } else {
      call.pause();
    }
    for (std::size_t i = 0; i < burst_calls; ++i) {
      stamps[i] = CallClock::now();
      if (!call()) ++refused;
    }
    stamps[burst_calls] = CallClock::now();
    for (std::size_t i = 0; i < burst_calls; ++i) {
      const auto ticks = stamps[i + 1] - stamps[i];
      histogram.add(ticks - std::min(ticks, clock.overhead_ticks()));
    }
    if (DiskStall::lasts()) calls_in_stall += burst_calls;
  }
  const auto cores_busy =
      (cpu_seconds() - cpu_before) / std::chrono::duration<double>(steady_clock::now() - began).count();
  if (state == "stalled" &&
      (DiskStall::calls_held() == 0 || calls_in_stall < bursts * burst_calls * 9 / 10)) {
    return fail(Errc::io_error,
                fmt::format("the disk was not stalled meanwhile: {} of {} calls, {} of the disk's held",
                            calls_in_stall, histogram.count(), DiskStall::calls_held()));
  }
  ChildReport result;
  add_percentiles(result.figures, "caller_ns_", histogram, clock);
  result.figures["calls"] = static_cast<double>(histogram.count());
  result.figures["refused"] = static_cast<double>(refused);
  result.figures["cores_busy"] = cores_busy;
  result.distributions["caller"] = histogram.distribution(clock.ns(1));
  if (state != "full" && refused != 0) result.note = fmt::format("{} calls refused", refused);
  return result;
}

Result<ChildReport> rival_scenario(const Parameters& parameters) {
  const auto kinds = store_kinds();
  const auto kind = std::ranges::find(kinds, parameters.text("library"), &StoreKind::library);
  if (kind == kinds.end() || kind->make == nullptr) return fail(Errc::invalid_config, "not in this build");
  const auto store = kind->make();
  if (auto opened = store->open(parameters.text("folder")); !opened) return std::unexpected(opened.error());
  const auto calls = parameters.number<std::uint64_t>("calls");
  for (std::uint64_t i = 0; i < calls / 10; ++i) {
    if (auto done = store->append(1, Store::Reach::written); !done) return std::unexpected(done.error());
  }
  if (parameters.text("state") == "stalled") DiskStall::hold_for(stall_time);
  const CallClock clock;
  Histogram histogram;
  for (std::uint64_t i = 0; i < calls; ++i) {
    const auto begin = CallClock::now();
    auto done = store->append(1, Store::Reach::written);
    const auto ticks = CallClock::now() - begin;
    if (!done) return std::unexpected(done.error());
    histogram.add(ticks - std::min(ticks, clock.overhead_ticks()));
  }
  ChildReport result;
  add_percentiles(result.figures, "caller_ns_", histogram, clock);
  result.figures["calls"] = static_cast<double>(calls);
  result.distributions["caller"] = histogram.distribution(clock.ns(1));
  return result;
}

// One producer, until everything has an outcome.
Result<ChildReport> rate_scenario(const Parameters& parameters) {
  const auto sink = sink_of(parameters);
  if (!sink) return std::unexpected(sink.error());
  const bool down = parameters.text("state") == "down";
  if (down && !(*sink)->become(SinkBehaviour::down)) return fail(Errc::timeout, "the sink did not go away");
  Client client(config_of(parameters));
  std::optional<Telemetry> telemetry;
  client.start();
  if (!down && !client.wait_for(ConnectionState::connected, 5s)) return fail(Errc::timeout, "no connection");
  if (parameters.text("call") == "record()") telemetry.emplace(client, telemetry_config()).start();

  const auto count = parameters.number<std::uint64_t>("records");
  const Measurement m = sample(1);
  const std::string payload(payload_bytes, 'x');
  const PublishOptions options{.qos = QoS::at_least_once};
  const auto begin = steady_clock::now();
  for (std::uint64_t i = 0; i < count;) {
    const bool taken = telemetry ? telemetry->offer(m) == Telemetry::Offer::taken
                                 : client.publish(publish_topic, payload, options).has_value();
    if (taken)
      ++i;
    else
      std::this_thread::yield();
  }
  if (!(telemetry ? telemetry->flush(60s) : client.flush(60s))) {
    return fail(Errc::timeout, "there was no outcome within a minute");
  }
  const auto seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
  ChildReport result{.figures = {{"records_per_s", static_cast<double>(count) / seconds},
                                 {"records", static_cast<double>(count)}}};
  if (!telemetry) {
    const auto metrics = client.metrics();
    if (down && metrics.spool_messages != count) return fail(Errc::io_error, "messages are not in the spool");
    return result;
  }
  const auto stats = telemetry->stats();
  if ((down ? stats.offline_stored : stats.messages_sent) != count) {
    return fail(Errc::io_error, fmt::format("of {} records {} were sent and {} stored", count,
                                            stats.messages_sent, stats.offline_stored));
  }
  result.figures["records_per_batch"] =
      static_cast<double>(count) / static_cast<double>(stats.batches_queued);
  return result;
}

// --- the parent's half

struct Variant {
  std::string durability = "spill", overflow{}, time{};
};

std::vector<Variant> variants(std::string_view call, std::string_view state) {
  if (state == "full") {
    // record() finds its queue full and does not come so far as the client's policy.
    if (call == "record()") return {{.overflow = "reject"}};
    return {{.overflow = "reject"}, {.overflow = "drop_newest"}, {.overflow = "drop_oldest"}};
  }
  if (state == "silent") return {{}};
  std::vector<Variant> all{{.durability = "spill"}, {.durability = "write_ahead"}};
  if (call == "record()" && state == "up") all.push_back({.time = "filled in"});
  return all;
}

void callers(Bench& bench, Results& results, const Library& library) {
  const auto& options = bench.options;
  for (const std::string call : {"publish()", "record()"}) {
    for (const std::string state : {"up", "down", "silent", "stalled", "full"}) {
      const auto chosen = variants(call, state);
      std::vector<Row> rows;
      for (const auto& variant : chosen) {
        auto& row = rows.emplace_back(
            bench.row(library, {{"call", call}, {"state", state}, {"durability", variant.durability}}));
        if (!variant.overflow.empty()) row.labels.emplace_back("overflow", variant.overflow);
        if (!variant.time.empty()) row.labels.emplace_back("time", variant.time);
      }
      for (unsigned repetition = 0; repetition < options.repetitions_or(3, 1); ++repetition) {
        for (std::size_t i = 0; i < chosen.size(); ++i) {
          const ScratchFolder folder(options.output);
          Parameters parameters;
          parameters.set("scenario", "caller")
              .set("call", call)
              .set("state", state)
              .set("durability", chosen[i].durability)
              .set("overflow", chosen[i].overflow)
              .set("time", chosen[i].time)
              .set("folder", folder.path().string());
          bench.run(rows[i], library, parameters, 60s);
        }
      }
      if (call == "publish()" && (state == "down" || state == "stalled")) {
        for (const auto& kind : store_kinds()) {
          const bool files = kind.library.starts_with("paho");
          if (kind.make == nullptr || !(kind.library.starts_with("SQLite") || (files && state == "down")))
            continue;
          auto& row = rows.emplace_back(
              bench.row({.name = kind.library, .version = kind.version}, {{"call", call}, {"state", state}}));
          const ScratchFolder folder(options.output);
          Parameters parameters;
          parameters.set("scenario", "caller_rival")
              .set("state", state)
              .set("calls", files ? 5'000 : 50'000)
              .set("folder", folder.path().string());
          bench.run(row, {.name = kind.library}, parameters, 60s);
        }
      }
      show(fmt::format("{} with a spool, {}", call, state), rows, caller_columns());
      std::ranges::move(rows, std::back_inserter(results.rows));
    }
  }
}

void rates(Bench& bench, Results& results, const Library& library) {
  const auto& options = bench.options;
  const auto records = options.messages != 0 ? options.messages : options.quick ? 400'000 : 4'000'000;
  std::vector<Row> rows;
  for (const std::string call : {"publish()", "record()"}) {
    for (const std::string state : {"up", "down"}) {
      auto& row =
          rows.emplace_back(bench.row(library, {{"rate", call}, {"state", state}, {"durability", "spill"}}));
      for (unsigned repetition = 0; repetition < options.repetitions_or(3, 1); ++repetition) {
        const ScratchFolder folder(options.output);
        Parameters parameters;
        parameters.set("scenario", "record_rate")
            .set("call", call)
            .set("state", state)
            .set("records", records)
            .set("folder", folder.path().string());
        bench.run(row, library, parameters, 120s);
      }
      show(fmt::format("{} by one producer, {}", call, state), {&row, 1}, record_rate_columns());
    }
  }
  std::ranges::move(rows, std::back_inserter(results.rows));
}

void run(Bench& bench, Results& results) {
  const auto library = std::ranges::find(bench.libraries, ours, &Library::name);
  if (library == bench.libraries.end()) return;
  callers(bench, results, *library);
  rates(bench, results, *library);
}

}  // namespace

Suite record_suite() {
  return {.name = "record",
          .summary = "what publish() and record() cost with a spool, whatever server and disk do",
          .run = run,
          .scenarios = {
              {"caller", caller_scenario}, {"caller_rival", rival_scenario}, {"record_rate", rate_scenario}}};
}

}  // namespace fulmar::bench
