#include "suite.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <thread>

#include "probes.hpp"

namespace fulmar::bench {

bool Bench::run(Row& row, const Library& library, Parameters parameters, std::chrono::seconds time_limit) {
  sink.page().become(SinkBehaviour::acknowledge);  // whatever the last child left
  // The last child's connections end after it; a thousand take a while.
  for (int i = 0; i < 2'000 && sink.page().connections.load() != 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  parameters.set("library", library.name).set("port", sink.port()).set("page", sink.page_fd());
  std::optional<SyscallCounter> syscalls;  // a script cannot count its own
  if (!library.command.empty() && parameters.text("scenario").ends_with("_counts")) {
    if (auto opened = SyscallCounter::open_inherited()) {
      syscalls.emplace(std::move(*opened));
      parameters.set("syscalls_fd", syscalls->fd());
    }
  }
  const auto report = run_child(library.command, parameters.arguments(), time_limit,
                                [&](std::string_view command) { return sink_control(sink.page(), command); });
  if (!report) {
    std::string where;
    for (const auto& [name, value] : row.labels) where += fmt::format(", {} {}", name, value);
    std::cerr << fmt::format("{}{}: {}\n", library.name, where, report.error().message);
    row.add_note("failed: " + report.error().message);
    failed = true;
    return false;
  }
  row.add(report->figures);
  for (const auto& [name, values] : report->samples) {
    auto& all = row.figures[name];
    all.insert(all.end(), values.begin(), values.end());
  }
  if (const auto caller = report->distributions.find("caller"); caller != report->distributions.end()) {
    merge(row.distribution, caller->second);
  }
  if (library.name == ours && report->figures.empty() && report->samples.empty()) {
    std::cerr << fmt::format("{}: {}\n", row.title(),
                             report->note);  // a rival may be unable to; ours may not
    failed = true;
  }
  if (row.note.empty()) row.add_note(report->note);  // once, however often it is measured
  return true;
}

Row Bench::row(const Library& library, std::vector<std::pair<std::string, std::string>> labels) const {
  return {.library = library.name, .version = library.version, .labels = std::move(labels), .figures = {}};
}

void show(std::string_view title, std::span<const Row> rows, std::span<const Column> columns) {
  std::cout << '\n' << title << '\n' << table(rows, columns) << std::flush;
}

std::vector<Suite> suites() {
  return {publish_suite(), receive_suite(), latency_suite(), reconnect_suite(), memory_suite(),
          start_suite(),   record_suite(),  spool_suite(),   restart_suite(),   queue_suite()};
}

Result<Library> library_of(const Parameters& parameters) {
  const auto name = parameters.text("library");
  for (auto* make : {fulmar_library, mosquitto_library, paho_c_library, paho_cpp_library}) {
    auto library = make();
    if (library.name == name && library.make != nullptr) return library;
  }
  return fail(Errc::invalid_config, fmt::format("{}: no such library in this build", name));
}

Result<SinkPage*> sink_of(const Parameters& parameters) {
  return Sink::map_page(parameters.number<int>("page"));
}

void add_percentiles(Figures& figures, std::string_view prefix, const Histogram& histogram,
                     const CallClock& clock) {
  constexpr std::pair<const char*, double> all[]{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};
  for (const auto& [name, fraction] : all) {
    figures[fmt::format("{}{}", prefix, name)] =
        clock.ns(static_cast<double>(histogram.percentile(fraction)));
  }
  figures[fmt::format("{}max", prefix)] = clock.ns(static_cast<double>(histogram.max()));
}

}  // namespace fulmar::bench
