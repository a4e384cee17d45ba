#include "goals.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "chart.hpp"

namespace fulmar::bench {

const Results* AllRows::suite(std::string_view name) const {
  const auto found = std::ranges::find(suites_, name, &Results::suite);
  return found == suites_.end() ? nullptr : &*found;
}

std::vector<Row> AllRows::rows(std::string_view suite_name, const Labels& labels) const {
  std::vector<Row> result;
  if (const auto* results = suite(suite_name)) {
    std::ranges::copy_if(results->rows, std::back_inserter(result), [&](const Row& row) {
      return std::ranges::all_of(labels,
                                 [&](const auto& label) { return row.label(label.first) == label.second; });
    });
  }
  return result;
}

bool is_rival(const Row& row) {
  constexpr std::array<std::string_view, 4> bare{"eventfd", "empty call", "bare copy", "bare file"};
  return !row.library.starts_with(ours) && std::ranges::find(bare, row.library) == bare.end();
}

// The rival with the best median, or nullptr.
const Row* best_rival(std::span<const Row> rows, const Column& column) {
  const Row* best = nullptr;
  for (const auto& row : rows) {
    const double value = row.median(column.figure);
    if (!is_rival(row) || std::isnan(value)) continue;
    const double so_far = best != nullptr ? best->median(column.figure) : not_measured;
    if (best == nullptr || (column.better == Better::more ? value > so_far : value < so_far)) best = &row;
  }
  return best;
}

// A rate or a count: "4.34 M", "21.6 k".
std::string short_number(double value) {
  constexpr std::array<std::pair<double, const char*>, 3> units{{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}}};
  for (const auto& [unit, name] : units) {
    if (value >= unit * 0.9995) return fmt::format("{:.3g}{}", value / unit, name);
  }
  return fmt::format("{:.3g}", value);
}

std::string bytes_text(double bytes) {
  constexpr std::array<std::pair<double, const char*>, 2> units{{{1e6, "MB"}, {1e3, "kB"}}};
  for (const auto& [unit, name] : units) {
    if (bytes >= unit * 0.9995) return fmt::format("{:.3g} {}", bytes / unit, name);
  }
  return fmt::format("{:.3g} B", bytes);
}

std::string milliseconds_text(double ms) { return duration_text(ms * 1e6); }
std::string microseconds_text(double us) { return duration_text(us * 1e3); }

namespace {

class Judge {
 public:
  explicit Judge(const AllRows& all) : rows_(all) {}

  // At least `least`, or `times` the best rival where that is given.
  void at_least(std::string what, std::string_view suite, const Labels& labels, const char* figure,
                double least, double times = 0) {
    const auto rows = rows_.rows(suite, labels);
    const Column column{figure, "", Better::more};
    const double value = worst(rows, column, &Row::median);
    const auto* rival = best_rival(rows, column);
    const bool ahead = times > 0 && rival != nullptr && value >= times * rival->median(figure);
    auto wanted = fmt::format("≥ {}/s", short_number(least));
    if (times > 0) wanted += fmt::format(" or {:g} × the best rival", times);
    add(std::move(what), wanted, std::isnan(value) ? "" : short_number(value) + "/s",
        rival_text(rows, column, value), value >= least || ahead);
  }

  // At least `least`, or that share of the bare file loop beside it.
  void at_least_or_share(std::string what, std::string_view suite, const Labels& labels, const char* figure,
                         double least, double share) {
    const auto rows = rows_.rows(suite, labels);
    const Column column{figure, "", Better::more};
    const double value = worst(rows, column, &Row::median);
    const auto bare = std::ranges::find(rows, "bare file", &Row::library);
    const double bare_value = bare == rows.end() ? not_measured : bare->median(figure);
    auto measured = std::isnan(value) ? "" : short_number(value) + "/s";
    if (!measured.empty() && !std::isnan(bare_value)) {
      measured += fmt::format(", {:.0f} % of a bare loop's", value / bare_value * 100);
    }
    add(std::move(what), fmt::format("≥ {}/s or {:.0f} % of a bare loop's", short_number(least), share * 100),
        std::move(measured), rival_text(rows, column, value), value >= least || value >= share * bare_value);
  }

  // At most `most`, the worst of our rows; `take` is Row::median or Row::max.
  template <typename Text>
  void at_most(std::string what, std::string_view suite, const Labels& labels, const char* figure,
               double most, Text&& text, double (Row::*take)(std::string_view) const = &Row::median) {
    const auto rows = rows_.rows(suite, labels);
    const Column column{figure, ""};
    const double value = worst(rows, column, take);
    add(std::move(what), most == 0 ? "0" : fmt::format("≤ {}", text(most)),
        std::isnan(value) ? "" : text(value), rival_text(rows, column, value),
        value <= (most == 0 ? 0.0005 : most));
  }

  // p99.9 of publish() in a state of the server at most `most` ns. Shown beside that of a bare copy, which knows no states.
  void tail_at_most(std::string what, const Labels& labels, double most) {
    constexpr const char* tail = "caller_ns_p999";
    const auto rows = rows_.rows("latency", labels);
    const Column column{tail, ""};
    const double value = worst(rows, column, &Row::median);
    auto measured = std::isnan(value) ? "" : duration_text(value);
    Labels bare_labels;
    std::ranges::copy_if(labels, std::back_inserter(bare_labels),
                         [](const auto& label) { return label.first == "manner"; });
    for (const auto& row : rows_.rows("latency", bare_labels)) {
      if (row.library != "bare copy" || measured.empty()) continue;
      measured += fmt::format(", a bare copy {}", duration_text(row.median(tail)));
    }
    add(std::move(what), fmt::format("≤ {}", duration_text(most)), std::move(measured),
        rival_text(rows, column, value), value <= most);
  }

  // At least `least` as a plain number.
  void at_least_plain(std::string what, std::string_view suite, const Labels& labels, const char* figure,
                      double least) {
    const auto rows = rows_.rows(suite, labels);
    const Column column{figure, "", Better::more};
    const double value = worst(rows, column, &Row::median);
    add(std::move(what), fmt::format("≥ {:g}", least), std::isnan(value) ? "" : fmt::format("{:.2f}", value),
        rival_text(rows, column, value), value >= least);
  }

  // A rate of the work queue at a million items is at least `share` of that at a thousand; both behind as many scheduled.
  void as_fast_when_deep(std::string what, std::string_view scheduled, const char* figure, double share) {
    const auto at = [&](std::string_view depth, std::string_view behind) {
      return worst(rows_.rows("queue", {{"what", "one"},
                                        {"safety", "not synced"},
                                        {"payload_bytes", "128"},
                                        {"batch", "1"},
                                        {"depth", depth},
                                        {"scheduled", behind}}),
                   {figure, "", Better::more}, &Row::median);
    };
    const double part = at("1000000", scheduled) / at("1000", "0");
    add(std::move(what), fmt::format("≥ {:.0f} % of that at 1,000", share * 100),
        std::isnan(part) ? "" : fmt::format("{:.0f} %", part * 100), "", part >= share);
  }

  // Not above a bare loop in the same run, but for the noise of both.
  void not_above_bare_loop(std::string what, const Labels& labels, const char* figure) {
    const auto rows = rows_.rows("latency", labels);
    double mine = not_measured;
    double bare = not_measured;
    for (const auto& row : rows) {
      if (row.library == ours && row.label("wakeup") == "eager") mine = row.median(figure);
      if (row.library == "eventfd") bare = row.median(figure);
    }
    const bool both = !std::isnan(mine) && !std::isnan(bare);
    add(std::move(what),
        both ? fmt::format("≤ a bare loop's {}, ± 10 %", duration_text(bare)) : "≤ a bare loop's",
        both ? duration_text(mine) : "", "", mine <= bare * 1.1);
  }

  std::vector<Goal> goals;

 private:
  static double worst(std::span<const Row> rows, const Column& column,
                      double (Row::*take)(std::string_view) const) {
    double value = not_measured;
    for (const auto& row : rows) {
      const double one = (row.*take)(column.figure);
      if (row.library != ours || std::isnan(one)) continue;
      if (std::isnan(value) || (column.better == Better::more ? one < value : one > value)) value = one;
    }
    return value;
  }

  static std::string rival_text(std::span<const Row> rows, const Column& column, double value) {
    const auto* rival = best_rival(rows, column);
    if (rival == nullptr || std::isnan(value)) return "";
    return fmt::format("{}: {}", rival->library, ratio(value, rival->median(column.figure), column.better));
  }

  void add(std::string what, std::string wanted, std::string measured, std::string rival, bool met) {
    const bool is_measured = !measured.empty();
    goals.push_back(
        {std::move(what), std::move(wanted), std::move(measured), std::move(rival), met && is_measured});
  }

  const AllRows& rows_;
};

std::string plain_text(double value) { return fmt::format("{:.3g}", value); }

void queue_goals(Judge& judge) {
  const auto labels = [](std::string_view what, std::string_view safety, std::string_view depth,
                         std::string_view batch) {
    return Labels{{"what", what},   {"safety", safety}, {"payload_bytes", "128"},
                  {"depth", depth}, {"batch", batch},   {"scheduled", "0"}};
  };
  const auto alone = labels("one", "synced", "1000", "1");
  judge.at_least_or_share("queue, synced, enqueue", "queue", alone, "enqueue_per_s", 6.5e3, 0.85);
  judge.at_least_or_share("queue, synced, claim and complete", "queue", alone, "finish_per_s", 6e3, 0.78);
  const auto batches = labels("one", "synced", "1000", "256");
  judge.at_least("queue, synced, 256 in one go, enqueue", "queue", batches, "enqueue_per_s", 230e3);
  judge.at_least("queue, synced, 256 in one go, claim and complete", "queue", batches, "finish_per_s", 120e3);
  const auto eight = labels("many", "synced", "1000", "1");
  judge.at_least("queue, synced, eight processes, cycles", "queue", eight, "cycles_per_s", 6.5e3);
  judge.at_least_plain("queue, synced, eight processes, the slowest one's part of its fair share", "queue",
                       eight, "slowest_share", 0.9);
  judge.at_most("queue, synced, eight processes, worst p99 of a cycle", "queue", eight, "cycle_ms_p99", 4,
                milliseconds_text);
  const auto deep = labels("one", "not synced", "1000000", "1");
  judge.at_least("queue, not synced, 1,000,000 wait, enqueue", "queue", deep, "enqueue_per_s", 45e3);
  judge.at_least("queue, not synced, 1,000,000 wait, claim and complete", "queue", deep, "finish_per_s",
                 28e3);
  const auto eight_relaxed = labels("many", "not synced", "1000", "8");
  judge.at_least("queue, not synced, eight processes, 8 in one go, cycles", "queue", eight_relaxed,
                 "cycles_per_s", 25e3);
  judge.at_most("queue, not synced, eight processes, 8 in one go, worst p99", "queue", eight_relaxed,
                "cycle_ms_p99", 5, milliseconds_text);
  for (const auto& [figure, name] :
       {std::pair{"enqueue_per_s", "enqueue"}, {"finish_per_s", "claim and complete"}}) {
    judge.as_fast_when_deep(fmt::format("queue, 1,000,000 wait, {}", name), "0", figure, 0.9);
    judge.as_fast_when_deep(fmt::format("queue, 1,000,000 wait behind 100,000 scheduled, {}", name), "100000",
                            figure, 0.9);
  }
  judge.at_most("queue, kill -9 of a worker to its item in other hands, p99", "queue", {{"what", "death"}},
                "death_us_p99", 150e3, microseconds_text);
  judge.at_most("queue, put to other hands, not synced, p50", "queue", labels("wake", "not synced", "0", "1"),
                "wake_us_p50", 60, microseconds_text);
  judge.at_most("queue, put to other hands, synced, p50", "queue", labels("wake", "synced", "0", "1"),
                "wake_us_p50", 300, microseconds_text);
  judge.at_most("queue, put to other hands, worst p99", "queue", {{"what", "wake"}}, "wake_us_p99", 2'000,
                microseconds_text);
  judge.at_most("queue, a YAML file of 100 items, enqueue, p50", "queue", {{"what", "yaml"}},
                "enqueue_us_p50", 5'000, microseconds_text);
  judge.at_most("queue, a YAML file of 100 items, claim and complete, p50", "queue", {{"what", "yaml"}},
                "finish_us_p50", 10'000, microseconds_text);
}

}  // namespace

std::vector<Goal> goals(std::span<const Results> suites) {
  const AllRows all(suites);
  Judge judge(all);
  judge.at_least("publish, QoS 0", "publish", {{"qos", "0"}}, "messages_per_s", 5e6, 10);
  judge.at_least("QoS 1, window 1000", "publish", {{"qos", "1"}, {"window", "1000"}}, "messages_per_s", 4e6,
                 10);
  judge.at_least("QoS 1, window 100", "publish", {{"qos", "1"}, {"window", "100"}}, "messages_per_s", 1e6);
  judge.at_least("QoS 1, window 20", "publish", {{"qos", "1"}, {"window", "20"}}, "messages_per_s", 0.35e6);
  judge.at_least("QoS 2, window 1000", "publish", {{"qos", "2"}, {"window", "1000"}}, "messages_per_s", 2e6,
                 10);
  judge.at_least("QoS 2, window 100", "publish", {{"qos", "2"}, {"window", "100"}}, "messages_per_s", 0.6e6);
  judge.at_least("receive, QoS 0", "receive", {{"qos", "0"}}, "messages_per_s", 8e6);
  judge.at_most("processor seconds a million, QoS 1, window 1000", "publish",
                {{"qos", "1"}, {"window", "1000"}}, "cpu_s_per_million", 0.3, plain_text);
  judge.at_most("allocations a message published, worst case", "publish", {}, "allocations_per_message", 0,
                plain_text);
  judge.at_most("allocations a message received, worst case", "receive", {}, "allocations_per_message", 0,
                plain_text);
  judge.at_most("system calls a message published, window 1000", "publish", {{"window", "1000"}},
                "syscalls_per_message", 0.1, plain_text);
  judge.at_most("system calls a message received, worst case", "receive", {}, "syscalls_per_message", 0.1,
                plain_text);

  constexpr const char* median = "caller_ns_p50";
  constexpr const char* tail = "caller_ns_p999";
  judge.at_most("publish() in a burst, p50, up", "latency", {{"state", "up"}, {"manner", "burst"}}, median,
                60, duration_text);
  judge.at_most("publish() in a burst, p99, up", "latency", {{"state", "up"}, {"manner", "burst"}},
                "caller_ns_p99", 400, duration_text);
  for (const auto& [state, name] : states) {
    judge.tail_at_most(fmt::format("publish() in a burst, p99.9, {}", name),
                       {{"state", state}, {"manner", "burst"}}, 1'000);
  }
  for (const auto& [manner, caller] : {std::pair{"paced", "busy"}, {"paced_asleep", "asleep"}}) {
    for (const auto& [state, name] : states) {
      judge.tail_at_most(
          fmt::format("publish() at 10 kHz, lazy, caller {} in between, p99.9, {}", caller, name),
          {{"state", state}, {"manner", manner}, {"wakeup", "lazy"}}, 1'000);
    }
  }
  judge.not_above_bare_loop("publish() at 10 kHz, eager, p50", {{"state", "up"}, {"manner", "paced"}},
                            median);
  judge.not_above_bare_loop("publish() at 10 kHz, eager, p99", {{"state", "up"}, {"manner", "paced"}},
                            "caller_ns_p99");
  judge.at_most("publish() with 1,000,000 messages waiting, mean", "memory", {{"payload_bytes", "100"}},
                "ns_per_message", 60, duration_text);
  judge.at_most("memory of a message that waits", "memory", {{"payload_bytes", "100"}}, "bytes_per_message",
                180, bytes_text);
  judge.at_most("memory of one idle client", "memory", {{"clients", "1"}}, "rss_bytes_per_client", 3.5e6,
                bytes_text);
  judge.at_most("memory of each of 1,000 clients on shared threads", "memory",
                {{"clients", "1000"}, {"threads", "shared threads"}}, "rss_bytes_per_client", 8 << 10,
                bytes_text);
  judge.at_most("memory of each of 10,000 clients on shared threads", "memory",
                {{"clients", "10000"}, {"threads", "shared threads"}}, "rss_bytes_per_client", 10'000,
                bytes_text);
  judge.at_most("reconnect, median", "reconnect", {}, "reconnect_ms", 1.5, milliseconds_text);
  judge.at_most("reconnect, maximum", "reconnect", {}, "reconnect_ms", 5, milliseconds_text, &Row::max);
  for (const char* state : {"down", "silent", "unresolvable"}) {
    judge.at_most(fmt::format("start(), p99, server {}", state), "start", {{"state", state}}, "start_us_p99",
                  100, microseconds_text);
  }
  for (const char* call : {"publish()", "record()"}) {
    for (const auto& [state, name] : disk_states) {
      const Labels labels{{"call", call}, {"state", state}, {"time", ""}};
      judge.at_most(fmt::format("{} with a spool, p50, {}", call, name), "record", labels, median, 60,
                    duration_text);
      judge.at_most(fmt::format("{} with a spool, p99.9, {}", call, name), "record", labels, tail, 1'000,
                    duration_text);
    }
  }
  judge.at_least("record() by one producer into acknowledged batches", "record",
                 {{"rate", "record()"}, {"state", "up"}}, "records_per_s", 2e6);
  judge.at_least("record() by one producer to disk, server down", "record",
                 {{"rate", "record()"}, {"state", "down"}}, "records_per_s", 0.2e6);
  judge.at_least("publish() by one producer to disk, server down", "record",
                 {{"rate", "publish()"}, {"state", "down"}}, "records_per_s", 1.5e6);
  for (const char* files : {"recycled", "growing"}) {
    judge.at_least_or_share(fmt::format("spool, append, each batch of 256 synced, files {}", files), "spool",
                            {{"what", "append"}, {"sync", "batch"}, {"batch", "256"}, {"files", files}},
                            "entries_per_s", 1e6, 0.9);
  }
  judge.at_least("spool, drain", "spool", {{"what", "drain"}, {"sync", "none"}, {"batch", "4096"}},
                 "entries_per_s", 10e6);
  judge.at_most("spool, open with 1 GiB that waits", "spool", {{"what", "open"}}, "open_ms", 20,
                milliseconds_text);
  judge.at_most("spool, memory to open 1 GiB that waits", "spool", {{"what", "open"}}, "rss_bytes", 2e6,
                bytes_text);
  judge.at_most("restart, first PUBLISH", "restart", {{"what", "waiting"}}, "first_publish_ms", 1'000,
                milliseconds_text);
  judge.at_most("restart, peak memory", "restart", {{"what", "waiting"}}, "peak_rss_bytes", 64e6, bytes_text);
  judge.at_most("restart, a day of telemetry acknowledged", "restart", {{"what", "day"}}, "acknowledged_s",
                10, [](double s) { return duration_text(s * 1e9); });
  judge.at_most("restart, peak memory for a day of telemetry", "restart", {{"what", "day"}}, "peak_rss_bytes",
                64e6, bytes_text);
  queue_goals(judge);
  judge.at_most("a 128-byte item between threads, 1 producer", "ring", {{"producers", "1"}}, "ns_per_item",
                20, duration_text);
  judge.at_most("a 128-byte item between threads, 4 producers", "ring", {{"producers", "4"}}, "ns_per_item",
                50, duration_text);
  return std::move(judge.goals);
}

}  // namespace fulmar::bench
