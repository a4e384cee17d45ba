// Work queues: ours beside beanstalkd, Redis and PostgreSQL, each server started for the run, on the disk of the figures.
//
//   one    one process puts, then claims and completes: synced or not, one by one or 256 in one go, at a depth of 1,000,
//          100,000 or 1,000,000 items, and behind 100,000 that are scheduled for tomorrow
//   many   eight processes put, claim and complete in turn
//   wake   from the call of put to the item in another process's hands
//   death  from the kill of a worker to its item in another process's hands
//   yaml   ours in a file of 100 items that people edit

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>

#include "columns.hpp"
#include "queue_scenarios.hpp"
#include "queues/work_queue.hpp"
#include "scratch_folder.hpp"
#include "suite.hpp"

namespace fulmar::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view bare = "bare file";

struct Case {
  std::string_view what;
  Safety safety = Safety::synced;
  unsigned payload_bytes = 128;
  std::uint64_t depth = 1'000;
  std::uint64_t scheduled = 0;
  unsigned batch = 1;
  unsigned processes = 1;
  bool quick = false;  // part of a quick run
};

constexpr auto synced = Safety::synced;
constexpr auto not_synced = Safety::not_synced;

constexpr std::array<Case, 19> cases{{
    {.what = "one", .safety = synced, .quick = true},
    {.what = "one", .safety = synced, .batch = 256, .quick = true},
    {.what = "one", .safety = synced, .payload_bytes = 1024},
    {.what = "one", .safety = synced, .payload_bytes = 1024, .batch = 256},
    {.what = "one", .safety = not_synced, .quick = true},
    {.what = "one", .safety = not_synced, .payload_bytes = 1024},
    {.what = "one", .safety = not_synced, .batch = 256},
    {.what = "one", .safety = not_synced, .depth = 100'000},
    {.what = "one", .safety = not_synced, .depth = 1'000'000},
    {.what = "one", .safety = not_synced, .depth = 1'000, .scheduled = 100'000},
    {.what = "one", .safety = not_synced, .depth = 1'000'000, .scheduled = 100'000},
    {.what = "many", .safety = synced, .processes = 8, .quick = true},
    {.what = "many", .safety = synced, .payload_bytes = 1024, .processes = 8},
    {.what = "many", .safety = not_synced, .processes = 8, .quick = true},
    {.what = "many", .safety = not_synced, .batch = 8, .processes = 8, .quick = true},
    {.what = "many", .safety = not_synced, .payload_bytes = 1024, .processes = 8},
    {.what = "wake", .safety = not_synced, .depth = 0, .quick = true},
    {.what = "wake", .safety = synced, .depth = 0, .quick = true},
    {.what = "death", .safety = not_synced, .depth = 0, .quick = true},
}};
constexpr Case yaml_case{.what = "yaml", .safety = synced, .depth = 100, .quick = true};

std::string_view safety_text(Safety safety) { return safety == synced ? "synced" : "not synced"; }

std::string title_of(const Case& one) {
  if (one.what == "wake")
    return fmt::format("from put to another process's hands, {}", safety_text(one.safety));
  if (one.what == "death") return "from a worker's kill -9 to its item in another process's hands";
  auto text = fmt::format("{}, {} bytes, {}", one.processes == 1 ? "one process" : "eight processes",
                          one.payload_bytes, safety_text(one.safety));
  if (one.batch > 1) text += fmt::format(", {} in one go", one.batch);
  text += fmt::format(", {} items wait", number(static_cast<double>(one.depth)));
  if (one.scheduled > 0)
    text += fmt::format(" and {} are scheduled", number(static_cast<double>(one.scheduled)));
  return one.what == "yaml" ? "YAML: " + text : text;
}

std::span<const Column> columns_of(const Case& one) {
  if (one.what == "many") return queue_cycle_columns();
  if (one.what == "wake") return queue_wake_columns();
  if (one.what == "death") return queue_death_columns();
  return queue_rate_columns();
}

std::vector<std::pair<std::string, std::string>> labels_of(const Case& one) {
  return {{"what", std::string(one.what)},
          {"safety", std::string(safety_text(one.safety))},
          {"payload_bytes", std::to_string(one.payload_bytes)},
          {"depth", std::to_string(one.depth)},
          {"scheduled", std::to_string(one.scheduled)},
          {"batch", std::to_string(one.batch)},
          {"processes", std::to_string(one.processes)}};
}

class Runner {
 public:
  Runner(Bench& bench, Results& results) : bench_(bench), results_(results) {}

  void run(const Case& one, const std::vector<QueueKind>& kinds) {
    const auto& options = bench_.options;
    std::vector<const QueueKind*> contestants;
    std::vector<Row> rows;
    for (const auto& kind : kinds) {
      if (!kind.missing.empty() || !chosen(kind.library) || (one.scheduled > 0 && !kind.schedules)) continue;
      if (one.what == "death" && !kind.notices_death) continue;
      contestants.push_back(&kind);
      rows.push_back(
          {.library = kind.library, .version = version_of(kind), .labels = labels_of(one), .figures = {}});
      rows.back().add_note(kind.note);
    }
    // The wall that all who sync stand before, in turn with them.
    const bool wall = one.what == "one" && one.safety == synced && one.batch == 1 && chosen(bare);
    if (wall)
      rows.push_back({.library = std::string(bare), .version = "", .labels = labels_of(one), .figures = {}});
    for (unsigned repetition = 0; repetition < options.repetitions_or(3, 1); ++repetition) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i < contestants.size())
          measure(one, *contestants[i], rows[i]);
        else
          measure_wall(rows[i]);
      }
    }
    show(title_of(one), rows, columns_of(one));
    std::ranges::move(rows, std::back_inserter(results_.rows));
  }

  bool chosen(std::string_view library) const {
    const auto& only = bench_.options.only;
    return only.empty() || std::ranges::find(only, library) != only.end();
  }

 private:
  struct Standing {
    std::unique_ptr<ScratchFolder> folder;
    Server server;
  };

  const std::string& version_of(const QueueKind& kind) {
    auto& version = versions_[kind.library];
    if (version.empty()) version = kind.version();
    return version;
  }

  void failed(Row& row, const Error& error) {
    std::fputs(fmt::format("{}: {}\n", row.title(), error.message).c_str(), stderr);
    row.add_note("failed: " + error.message);
    bench_.failed = true;
  }

  void measure(const Case& one, const QueueKind& kind, Row& row) {
    if (kind.renew == nullptr) {
      const ScratchFolder folder(bench_.options.output);
      const auto server = kind.start(folder.path(), one.safety);
      if (!server) return failed(row, server.error());
      return run_child_on(one, server->address(), row);
    }
    auto found = standing_.find(kind.library);
    if (found == standing_.end()) {
      auto folder = std::make_unique<ScratchFolder>(bench_.options.output);
      auto server = kind.start(folder->path(), one.safety);
      if (!server) return failed(row, server.error());
      found = standing_.emplace(kind.library, Standing{std::move(folder), std::move(*server)}).first;
    }
    const auto address = kind.renew(found->second.server);
    if (!address) return failed(row, address.error());
    run_child_on(one, *address, row);
  }

  void run_child_on(const Case& one, const std::string& address, Row& row) {
    const auto& options = bench_.options;
    Parameters parameters;
    parameters.set("scenario", one.what == "yaml" ? "queue_one" : fmt::format("queue_{}", one.what))
        .set("address", address)
        .set("safety", safety_text(one.safety))
        .set("payload_bytes", one.payload_bytes)
        .set("depth", one.depth)
        .set("scheduled", one.scheduled)
        .set("batch", one.batch)
        .set("processes", one.processes)
        .set("rounds", one.what == "death" ? (options.quick ? 10 : 40) : (options.quick ? 100 : 500))
        .set("seconds", options.seconds_or(0.8, 0.3));
    bench_.run(row, {.name = row.library}, parameters, std::chrono::seconds(120));
  }

  void measure_wall(Row& row) {
    const ScratchFolder folder(bench_.options.output);
    Parameters parameters;
    parameters.set("scenario", "queue_wall")
        .set("folder", folder.path().string())
        .set("seconds", bench_.options.seconds_or(0.8, 0.3));
    bench_.run(row, {.name = row.library}, parameters, std::chrono::seconds(60));
  }

  Bench& bench_;
  Results& results_;
  std::map<std::string, std::string, std::less<>> versions_;
  std::map<std::string, Standing, std::less<>> standing_;  // servers that take long to start
};

void run(Bench& bench, Results& results) {
  const auto kinds = queue_kinds();
  // Those of the suites before have nothing to do with this one.
  results.skipped.clear();
  for (const auto& kind : kinds) {
    if (kind.missing.empty()) continue;
    results.skipped.emplace_back(kind.library, kind.missing);
    std::puts(fmt::format("{}: skipped: {}", kind.library, kind.missing).c_str());
  }
  Runner runner(bench, results);
  for (const auto& one : cases) {
    if (!bench.options.quick || one.quick) runner.run(one, kinds);
  }
  if (const auto yaml = own_yaml_queue(); yaml.missing.empty())
    runner.run(yaml_case, {yaml});
  else
    results.skipped.emplace_back("fulmar, YAML", yaml.missing);
}

}  // namespace

Suite queue_suite() {
  return {.name = "queue",
          .summary = "durable work queues that processes share",
          .run = run,
          .scenarios = {{"queue_one", queue_one},
                        {"queue_many", queue_many},
                        {"queue_wake", queue_wake},
                        {"queue_death", queue_death},
                        {"queue_wall", queue_wall}}};
}

}  // namespace fulmar::bench
