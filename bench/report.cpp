#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "chart.hpp"
#include "columns.hpp"
#include "goals.hpp"

namespace fulmar::bench {
namespace {

constexpr std::array<std::string_view, 11> suite_names{"publish", "receive", "latency", "reconnect",
                                                       "memory",  "start",   "record",  "spool",
                                                       "restart", "queue",   "ring"};

// --- charts

std::vector<BarChart::Bar> bars(std::span<const Row> rows, std::string_view figure,
                                std::string (*text)(double), bool with_worst = false) {
  std::vector<BarChart::Bar> result;
  for (const auto& row : rows) {
    const double value = row.median(figure);
    BarChart::Bar bar{.series = row.library};
    if (std::isnan(value)) {
      bar.label = "not measured";
    } else {
      bar.value = value;
      bar.label = text(value);
      if (with_worst) {
        bar.whisker = row.max(figure);
        bar.label += fmt::format(" (max {})", text(bar.whisker));
      }
      for (const char* label : {"threads", "files"}) {
        if (!row.label(label).empty()) bar.label += fmt::format(" ({})", row.label(label));
      }
    }
    result.push_back(std::move(bar));
  }
  return result;
}

BarChart throughput_chart(const AllRows& all) {
  BarChart chart{
      .title = "Throughput of one connection", .axis = "messages a second: longer is better", .groups = {}};
  const auto group = [&](std::string label, std::string_view suite, const Labels& labels) {
    const auto rows = all.rows(suite, labels);
    if (!rows.empty()) chart.groups.push_back({std::move(label), bars(rows, "messages_per_s", short_number)});
  };
  group("publish, QoS 0", "publish", {{"qos", "0"}});
  for (const char* qos : {"1", "2"}) {
    for (const char* window : {"1000", "100", "20"}) {
      group(fmt::format("QoS {}, window {}", qos, window), "publish", {{"qos", qos}, {"window", window}});
    }
  }
  for (const char* qos : {"0", "1"}) group(fmt::format("receive, QoS {}", qos), "receive", {{"qos", qos}});
  return chart;
}

PercentileChart latency_chart(const AllRows& all, std::string_view manner, std::string title,
                              std::string note) {
  PercentileChart chart{.title = std::move(title), .note = std::move(note), .panels = {}, .goal_ns = 1'000};
  for (const auto& [state, name] : states) {
    PercentileChart::Panel panel{.label = std::string(name), .curves = {}};
    for (auto& row : all.rows("latency", {{"state", state}, {"manner", manner}})) {
      if (row.label("overflow") == "drop_newest") continue;
      panel.curves.push_back({row.library, std::move(row.distribution), row.label("wakeup") == "lazy"});
    }
    if (!panel.curves.empty()) chart.panels.push_back(std::move(panel));
  }
  return chart;
}

PercentileChart record_chart(const AllRows& all, std::string_view call) {
  PercentileChart chart{
      .title = fmt::format("{} with a spool", call),
      .note = "Time of a call over percentile; the dotted line is the goal, 1 µs. Dashed: write_ahead.",
      .panels = {},
      .goal_ns = 1'000};
  for (const auto& [state, name] : disk_states) {
    PercentileChart::Panel panel{.label = std::string(name), .curves = {}};
    for (auto& row : all.rows("record", {{"call", call}, {"state", state}, {"time", ""}})) {
      if (row.label("overflow").starts_with("drop")) continue;
      panel.curves.push_back(
          {row.library, std::move(row.distribution), row.label("durability") == "write_ahead"});
    }
    if (!panel.curves.empty()) chart.panels.push_back(std::move(panel));
  }
  return chart;
}

BarChart spool_chart(const AllRows& all) {
  BarChart chart{.title = "Entries of 128 bytes onto the disk and back",
                 .axis = "entries a second, batches of 256: longer is better",
                 .groups = {}};
  for (const auto& [what, sync, name] : {std::tuple{"append", "none", "append, not synced"},
                                         {"append", "100 ms", "append, synced every 100 ms"},
                                         {"append", "batch", "append, each batch synced"},
                                         {"drain", "none", "drain"}}) {
    const auto rows = all.rows("spool", {{"what", what}, {"sync", sync}, {"batch", "256"}});
    if (!rows.empty()) chart.groups.push_back({name, bars(rows, "entries_per_s", short_number)});
  }
  return chart;
}

PercentileChart start_chart(const AllRows& all) {
  PercentileChart chart{
      .title = "start() when the server is not there",
      .note = "The call's time over percentile; the dotted line is the goal, 100 µs at 99 %.",
      .panels = {},
      .goal_ns = 100'000};
  for (const char* state : {"down", "silent", "unresolvable"}) {
    PercentileChart::Panel panel{.label = state, .curves = {}};
    for (auto& row : all.rows("start", {{"state", state}})) {
      panel.curves.push_back({row.library, std::move(row.distribution)});
    }
    if (!panel.curves.empty()) chart.panels.push_back(std::move(panel));
  }
  return chart;
}

// --- the page

class Page {
 public:
  explicit Page(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void heading(std::string_view text) { text_ += fmt::format("\n## {}\n", text); }
  void paragraph(std::string_view text) { text_ += fmt::format("\n{}\n", text); }
  void table(std::string_view title, std::span<const Row> rows, std::span<const Column> columns) {
    if (!rows.empty()) text_ += fmt::format("\n**{}**\n\n{}", title, markdown_table(rows, columns));
  }
  template <typename Chart>
  void picture(std::string_view name, const Chart& chart, bool is_empty) {
    if (is_empty) return;
    text_ += fmt::format("\n![{}]({}.svg)\n", chart.title, name);
    keep(write_file(folder_ / fmt::format("{}.svg", name), to_svg(chart)));
  }
  void keep(Result<void> written) {
    if (!written && outcome_) outcome_ = std::move(written);
  }
  Result<void> finish() {
    keep(write_file(folder_ / "report.md", text_));
    return outcome_;
  }

 private:
  std::filesystem::path folder_;
  std::string text_ = "# How fast Fulmar is, beside its rivals\n";
  Result<void> outcome_{};
};

void introduce(Page& page, std::span<const Results> suites) {
  const auto& first = suites.front();
  page.paragraph(
      "Made by `./dev bench`; [benchmarks.md](../../docs/benchmarks.md) tells what each figure is and how it "
      "is taken. Medians; compare libraries with each other in one table, not with another machine's.");
  if (std::ranges::any_of(suites, &Results::quick)) {
    page.paragraph("**Made with `--quick`: too short to be a result.**");
  }
  const auto busiest = std::ranges::max(suites, {}, &Results::busy).busy;
  if (busiest > busy_max) {
    page.paragraph(fmt::format("**The machine was busy: others took up to {:.0f} % of it. Not a result.**",
                               busiest * 100));
  }
  const auto [begin, end] = std::ranges::minmax(suites, {}, &Results::measured);
  std::string facts = fmt::format("- Machine: {}\n- Measured: {}{}", first.machine, begin.measured,
                                  begin.measured == end.measured ? "" : " to " + end.measured);
  std::string versions;
  for (const auto& results : suites) {
    for (const auto& row : results.rows) {
      const auto one = fmt::format("{} {}", row.library, row.version);
      const bool is_library = results.suite != "ring" && (row.library == ours || is_rival(row));
      if (is_library && versions.find(one) == versions.npos) versions += (versions.empty() ? "" : ", ") + one;
    }
  }
  facts += fmt::format("\n- Libraries: {}", versions);
  std::vector<std::string> skipped;
  for (const auto& results : suites) {
    for (const auto& [library, reason] : results.skipped) {
      auto one = fmt::format("\n- Left out: {}: {}", library, reason);
      if (std::ranges::find(skipped, one) == skipped.end()) skipped.push_back(std::move(one));
    }
  }
  for (const auto& one : skipped) facts += one;
  // Scripts report what a time stamp costs them.
  for (const char* library : {"paho-python", "mqtt.js"}) {
    for (const auto& results : suites) {
      const auto found = std::ranges::find_if(results.rows, [&](const Row& row) {
        return row.library == library && !std::isnan(row.median("clock_ns"));
      });
      if (found == results.rows.end()) continue;
      facts += fmt::format("\n- A time stamp of {}'s language costs {}, subtracted from each call", library,
                           duration_text(found->median("clock_ns")));
      break;
    }
  }
  page.paragraph(facts);
}

void list_goals(Page& page, const std::vector<Goal>& wanted) {
  const auto met = std::ranges::count_if(wanted, &Goal::met);
  const auto measured =
      std::ranges::count_if(wanted, [](const Goal& goal) { return !goal.measured.empty(); });
  page.heading("Goals");
  page.paragraph(fmt::format("{} of {} measured goals are met.", met, measured));
  std::string lines =
      "| | goal | measured | | best rival, and how many times better ours is |\n|---|---|---|---|---|";
  for (const auto& goal : wanted) {
    lines += fmt::format("\n| {} | {} | {} | {} | {} |", goal.what, goal.wanted,
                         goal.measured.empty() ? "–" : goal.measured,
                         goal.measured.empty() ? "not measured"
                         : goal.met            ? "met"
                                               : "**missed**",
                         goal.rival);
  }
  page.paragraph(lines);
}

void throughput(Page& page, const AllRows& all) {
  if (all.suite("publish") == nullptr && all.suite("receive") == nullptr) return;
  page.heading("Throughput");
  const auto chart = throughput_chart(all);
  page.picture("throughput", chart, chart.groups.empty());
  for (const char* qos : {"0", "1", "2"}) {
    for (const char* window : {"0", "1000", "100", "20"}) {
      page.table(qos[0] == '0' ? "Publish, QoS 0" : fmt::format("Publish, QoS {}, window {}", qos, window),
                 all.rows("publish", {{"qos", qos}, {"window", window}}), publish_columns());
    }
  }
  for (const char* qos : {"0", "1"}) {
    page.table(fmt::format("Receive, QoS {}", qos), all.rows("receive", {{"qos", qos}}), receive_columns());
  }
}

void latency(Page& page, const AllRows& all) {
  if (all.suite("latency") == nullptr) return;
  page.heading("What a call of publish costs its caller");
  const char* lines =
      "QoS 1, 100 bytes. Time of a call over percentile; the dotted line is the goal, 1 µs. Dashed: lazy "
      "wake-up.";
  const auto burst = latency_chart(all, "burst", "publish(), called 10,000 times back to back", lines);
  page.picture("latency_burst", burst, burst.panels.empty());
  const auto paced = latency_chart(all, "paced", "publish(), called 10,000 times a second", lines);
  page.picture("latency_paced", paced, paced.panels.empty());
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> manners{
      {{"burst", "back to back"},
       {"paced", "10,000 a second, the caller busy in between"},
       {"paced_asleep", "10,000 a second, the caller asleep in between"}}};
  for (const auto& [state, state_name] : states) {
    for (const auto& [manner, manner_name] : manners) {
      page.table(fmt::format("{}, {}", state_name, manner_name),
                 all.rows("latency", {{"state", state}, {"manner", manner}}), latency_columns());
    }
  }
}

void reconnect(Page& page, const AllRows& all) {
  const auto rows = all.rows("reconnect", {});
  if (rows.empty()) return;
  page.heading("Reconnecting");
  page.paragraph(
      "From the server's acceptance of the connection, and from its listening again, to the acknowledgement "
      "of "
      "the first message, which waited meanwhile.");
  BarChart chart{.title = "First message acknowledged after the server is back",
                 .axis = "milliseconds, median; the line goes to the maximum: shorter is better",
                 .groups = {{"accepted to acknowledged", bars(rows, "reconnect_ms", milliseconds_text, true)},
                            {"the back-off included", bars(rows, "outage_ms", milliseconds_text, true)}}};
  page.picture("reconnect", chart, false);
  page.table("Reconnect", rows, reconnect_columns());
}

void memory(Page& page, const AllRows& all) {
  if (all.suite("memory") == nullptr) return;
  page.heading("Memory");
  BarChart clients{
      .title = "Memory of idle clients", .axis = "bytes of RSS a client: shorter is better", .groups = {}};
  for (const auto& [count, name] :
       {std::pair{"1", "one client"}, {"1000", "each of 1,000"}, {"10000", "each of 10,000"}}) {
    const auto rows = all.rows("memory", {{"clients", count}});
    if (rows.empty()) continue;
    clients.groups.push_back({name, bars(rows, "rss_bytes_per_client", bytes_text)});
  }
  page.picture("memory_clients", clients, clients.groups.empty());
  for (const char* count : {"1", "1000", "10000"}) {
    page.table(fmt::format("{} idle client{}", count, count == std::string_view("1") ? "" : "s"),
               all.rows("memory", {{"clients", count}}), clients_columns());
  }
  const auto waiting = all.rows("memory", {{"payload_bytes", "100"}});
  if (waiting.empty()) return;
  page.picture("memory_waiting",
               BarChart{.title = "Messages of 100 bytes that wait for a server that is away",
                        .axis = "bytes of memory a message: shorter is better",
                        .groups = {{"bytes a message", bars(waiting, "bytes_per_message", bytes_text)}}},
               false);
  page.table("Messages that wait", waiting, waiting_columns());
}

void start(Page& page, const AllRows& all) {
  if (all.suite("start") == nullptr) return;
  page.heading("Starting without a server");
  const auto chart = start_chart(all);
  page.picture("start", chart, chart.panels.empty());
  for (const char* state : {"down", "silent", "unresolvable"}) {
    page.table(fmt::format("start, server {}", state), all.rows("start", {{"state", state}}),
               start_columns());
  }
}

void record(Page& page, const AllRows& all) {
  if (all.suite("record") == nullptr) return;
  page.heading("What a call costs its caller with a spool");
  page.paragraph(
      "Bursts of 10,000 calls. Disk stalled: it answers nothing for 5 s, and 200,000 calls are made "
      "meanwhile. Paho C writes "
      "a file for each message, SQLite commits each to its write-ahead log; neither syncs.");
  for (const char* call : {"publish()", "record()"}) {
    const auto chart = record_chart(all, call);
    page.picture(call[0] == 'p' ? "spool_publish" : "spool_record", chart, chart.panels.empty());
    for (const auto& [state, name] : disk_states) {
      page.table(fmt::format("{}, {}", call, name), all.rows("record", {{"call", call}, {"state", state}}),
                 caller_columns());
    }
  }
  for (const char* call : {"publish()", "record()"}) {
    page.table(fmt::format("{} by one producer, until all are acknowledged", call),
               all.rows("record", {{"rate", call}, {"state", "up"}}), record_rate_columns());
    page.table(fmt::format("{} by one producer, server down, until all are stored", call),
               all.rows("record", {{"rate", call}, {"state", "down"}}), record_rate_columns());
  }
}

void spool(Page& page, const AllRows& all) {
  if (all.suite("spool") == nullptr) return;
  page.heading("The disk log");
  page.paragraph(
      "128-byte entries. A bare file is pwrite and fdatasync of as many bytes as ours writes, without "
      "checksum: what the disk "
      "leaves to anybody. Recycled: into space that was written before; growing: as in an outage.");
  const auto chart = spool_chart(all);
  page.picture("spool", chart, chart.groups.empty());
  for (const auto& [what, sync, name] : {std::tuple{"append", "none", "Append, not synced"},
                                         {"append", "100 ms", "Append, synced every 100 ms or 64 KiB"},
                                         {"append", "batch", "Append, each batch synced"},
                                         {"drain", "none", "Drain"},
                                         {"drain", "batch", "Drain, each batch synced"}}) {
    for (const char* batch : {"1", "64", "256", "4096"}) {
      page.table(fmt::format("{}, batches of {}", name, batch),
                 all.rows("spool", {{"what", what}, {"sync", sync}, {"batch", batch}}), store_columns());
    }
  }
  page.table("Open, 1 GiB waits", all.rows("spool", {{"what", "open"}}), open_columns());
}

void restart(Page& page, const AllRows& all) {
  if (all.suite("restart") == nullptr) return;
  page.heading("Starting with messages on disk");
  const auto waiting = all.rows("restart", {{"what", "waiting"}});
  std::vector<std::pair<std::string, std::string>> kinds;
  for (const auto& row : waiting) {
    const std::pair<std::string, std::string> kind{row.label("messages"), row.label("qos")};
    if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
  }
  for (const auto& [messages, qos] : kinds) {
    page.table(fmt::format("{} messages of 100 bytes, QoS {}", messages, qos),
               all.rows("restart", {{"what", "waiting"}, {"messages", messages}, {"qos", qos}}),
               restart_columns());
  }
  const auto day = all.rows("restart", {{"what", "day"}});
  if (day.empty()) return;
  page.table(fmt::format("A day of telemetry: {} records of 50 fields", day.front().label("messages")), day,
             restart_columns());
}

struct QueueCase {
  const char* what;
  const char* safety;
  const char* payload;
  const char* depth;
  const char* scheduled;
  const char* batch;
  const char* title;
};

constexpr std::array<QueueCase, 20> queue_cases{{
    {"one", "synced", "128", "1000", "0", "1", "synced, one by one"},
    {"one", "synced", "128", "1000", "0", "256", "synced, 256 in one go"},
    {"one", "synced", "1024", "1000", "0", "1", "synced, one by one, 1 kB"},
    {"one", "synced", "1024", "1000", "0", "256", "synced, 256 in one go, 1 kB"},
    {"one", "not synced", "128", "1000", "0", "1", "not synced, one by one"},
    {"one", "not synced", "1024", "1000", "0", "1", "not synced, one by one, 1 kB"},
    {"one", "not synced", "128", "1000", "0", "256", "not synced, 256 in one go"},
    {"one", "not synced", "128", "100000", "0", "1", "not synced, 100,000 items wait"},
    {"one", "not synced", "128", "1000000", "0", "1", "not synced, 1,000,000 items wait"},
    {"one", "not synced", "128", "1000", "100000", "1", "not synced, 1,000 wait behind 100,000 scheduled"},
    {"one", "not synced", "128", "1000000", "100000", "1",
     "not synced, 1,000,000 wait behind 100,000 scheduled"},
    {"many", "synced", "128", "1000", "0", "1", "eight processes, synced"},
    {"many", "synced", "1024", "1000", "0", "1", "eight processes, synced, 1 kB"},
    {"many", "not synced", "128", "1000", "0", "1", "eight processes, not synced"},
    {"many", "not synced", "128", "1000", "0", "8", "eight processes, not synced, 8 in one go"},
    {"many", "not synced", "1024", "1000", "0", "1", "eight processes, not synced, 1 kB"},
    {"wake", "not synced", "128", "0", "0", "1", "not synced"},
    {"wake", "synced", "128", "0", "0", "1", "synced"},
    {"death", "not synced", "128", "0", "0", "1", "from a worker's kill -9 to its item in other hands"},
    {"yaml", "synced", "128", "100", "0", "1", "YAML, 100 items"},
}};

std::vector<Row> queue_rows(const AllRows& all, const QueueCase& one) {
  return all.rows("queue", {{"what", one.what},
                            {"safety", one.safety},
                            {"payload_bytes", one.payload},
                            {"depth", one.depth},
                            {"scheduled", one.scheduled},
                            {"batch", one.batch}});
}

void queue(Page& page, const AllRows& all) {
  if (all.suite("queue") == nullptr) return;
  page.heading("The work queue");
  page.paragraph(
      "Items of 128 bytes where nothing else is said; 1,000 wait, so that nobody finds it empty. Synced: put "
      "and "
      "complete return when it is on the medium; not synced: it survives the end of any process. A bare file "
      "is a "
      "page written and synced: what the disk leaves to anybody. `fulmar postgresql` is our queue in "
      "PostgreSQL.");
  BarChart rates{
      .title = "Items through a work queue", .axis = "items a second: longer is better", .groups = {}};
  PercentileChart cycles{.title = "Eight processes: put, claim and complete",
                         .note = "Time of a cycle over percentile, all processes together.",
                         .panels = {}};
  PercentileChart waking{.title = "From put to another process's hands",
                         .note = "Time over percentile; the other process waits, asleep.",
                         .panels = {}};
  for (const auto& one : queue_cases) {
    const std::string_view what = one.what;
    const auto rows = queue_rows(all, one);
    if (rows.empty() || one.payload != std::string_view("128")) continue;
    if (what == "one" && one.scheduled == std::string_view("0")) {
      rates.groups.push_back(
          {fmt::format("enqueue, {}", one.title), bars(rows, "enqueue_per_s", short_number)});
      rates.groups.push_back(
          {fmt::format("claim + complete, {}", one.title), bars(rows, "finish_per_s", short_number)});
    } else if (what == "many") {
      rates.groups.push_back(
          {fmt::format("cycles, {}", one.title), bars(rows, "cycles_per_s", short_number)});
    }
    auto* chart = what == "many" ? &cycles : what == "wake" ? &waking : nullptr;
    if (chart == nullptr) continue;
    chart->panels.push_back({one.title, {}});
    for (const auto& row : rows) chart->panels.back().curves.push_back({row.library, row.distribution});
  }
  page.picture("queue", rates, rates.groups.empty());
  page.picture("queue_cycles", cycles, cycles.panels.empty());
  page.picture("queue_wake", waking, waking.panels.empty());
  for (const auto& one : queue_cases) {
    const std::string_view what = one.what;
    const auto columns = what == "many"    ? queue_cycle_columns()
                         : what == "wake"  ? queue_wake_columns()
                         : what == "death" ? queue_death_columns()
                                           : queue_rate_columns();
    const auto title = what == "one"    ? fmt::format("One process, {}", one.title)
                       : what == "wake" ? fmt::format("From put to another process's hands, {}", one.title)
                                        : std::string(one.title);
    page.table(title, queue_rows(all, one), columns);
  }
}

void ring(Page& page, const AllRows& all) {
  if (all.suite("ring") == nullptr) return;
  page.heading("Handing messages between threads");
  for (const char* producers : {"1", "4"}) {
    page.table(
        fmt::format("128-byte items, {} producer{}, one consumer", producers, producers[0] == '1' ? "" : "s"),
        all.rows("ring", {{"producers", producers}}), ring_columns());
  }
}

}  // namespace

std::string markdown_table(std::span<const Row> rows, std::span<const Column> columns) {
  std::string text = "| |";
  std::string rule = "|---|";
  for (const auto& column : columns) {
    text += fmt::format(" {} |", column.heading);
    rule += "---:|";
  }
  text += '\n' + rule + '\n';
  std::string notes;
  for (const auto& row : rows) {
    text += fmt::format("| {} |", row.title());
    for (const auto& column : columns)
      text += fmt::format(" {} |", number(row.median(column.figure) / column.unit));
    text += '\n';
    if (!row.note.empty()) notes += fmt::format("- {}: {}\n", row.title(), row.note);
  }
  const auto mine = std::ranges::find(rows, ours, &Row::library);
  if (mine != rows.end() && std::ranges::any_of(rows, is_rival)) {
    text += "| *better than the best rival* |";
    for (const auto& column : columns) {
      const auto* rival = best_rival(rows, column);
      text += fmt::format(" {} |", rival == nullptr ? ""
                                                    : ratio(mine->median(column.figure),
                                                            rival->median(column.figure), column.better));
    }
    text += '\n';
  }
  return notes.empty() ? text : text + '\n' + notes;
}

Result<void> write_report(const std::filesystem::path& figures_folder, const std::filesystem::path& folder) {
  std::vector<Results> suites;
  std::string last_problem;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (const auto name : suite_names) {
    const auto file = figures_folder / fmt::format("{}.json", name);
    auto results = read_json(file);
    if (!results) {
      last_problem = results.error().message;
      continue;
    }
    suites.push_back(std::move(*results));
    std::filesystem::copy_file(file, folder / file.filename(),
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error)
      return fail(Errc::io_error, fmt::format("cannot write into {}: {}", folder.string(), error.message()));
  }
  if (suites.empty()) return fail(Errc::io_error, last_problem);

  const AllRows all(suites);
  Page page(folder);
  introduce(page, suites);
  list_goals(page, goals(suites));
  throughput(page, all);
  latency(page, all);
  reconnect(page, all);
  memory(page, all);
  start(page, all);
  record(page, all);
  spool(page, all);
  restart(page, all);
  queue(page, all);
  ring(page, all);
  return page.finish();
}

}  // namespace fulmar::bench
