// bench_publish: what publishing costs with our client and with its rivals, in one run against one sink.

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include "harness.hpp"
#include "probes.hpp"
#include "report.hpp"
#include "sink.hpp"
#include "workload.hpp"

namespace fulmar::bench {
namespace {

constexpr std::string_view ours = "fulmar";

struct Options {
  std::vector<std::string> only;
  std::vector<unsigned> qos{0, 1};
  std::vector<unsigned> windows{1000, 100, 20};
  unsigned payload_bytes = 100;
  unsigned repetitions = 5;
  double seconds = 1;
  std::uint64_t messages = 0;
  std::uint64_t outstanding = 0;
  std::string json = "build/bench/publish.json";
  bool quick = false;
};

struct Configuration {
  unsigned qos;
  unsigned window;
};

std::vector<Configuration> configurations(const Options& options) {
  std::vector<Configuration> all;
  for (const unsigned qos : options.qos) {
    for (const unsigned window : options.windows) {
      all.push_back({qos, window});
      if (qos == 0) break;  // there is no window
    }
  }
  return all;
}

std::string title(const Configuration& configuration, const Options& options) {
  const auto window =
      configuration.qos == 0 ? std::string() : fmt::format(", window {}", configuration.window);
  return fmt::format("QoS {}{}, {} B payload", configuration.qos, window, options.payload_bytes);
}

// "10000 (paho-c, QoS 1: the window)", as the libraries ask for.
std::string burst_sizes(const std::vector<Library>& libraries) {
  auto text = std::to_string(Case{}.burst);
  for (const auto& library : libraries) {
    if (library.burst_max(1, 100) == 100) text += fmt::format(" ({}, QoS 1: the window)", library.name);
  }
  return text;
}

void fill(Row& row, const Figures& figures) {
  for (const auto& column : columns()) {
    if (const auto figure = figures.find(column.name); figure != figures.end())
      row.*column.value = figure->second;
  }
}

// All libraries in one configuration, interleaved: A B C A B C ...
std::vector<Cell> measure(const Configuration& configuration, const std::vector<Library>& libraries,
                          const Sink& sink, const Options& options, bool& failed) {
  std::vector<Cell> cells(libraries.size());
  for (unsigned repetition = 0; repetition < options.repetitions; ++repetition) {
    for (std::size_t i = 0; i < libraries.size(); ++i) {
      Case which{.library = std::string(libraries[i].name),
                 .qos = configuration.qos,
                 .window = configuration.window,
                 .payload_bytes = options.payload_bytes,
                 .messages = options.messages,
                 .seconds = options.seconds,
                 .outstanding = options.outstanding,
                 .sink_port = sink.port(),
                 .sink_page_fd = sink.page_fd()};
      Row row{.library = which.library,
              .version = libraries[i].version,
              .qos = configuration.qos,
              .window = configuration.qos == 0 ? 0 : configuration.window,
              .payload_bytes = options.payload_bytes};
      bool complete = true;
      for (const bool counts : {false, true}) {
        if (counts && repetition != 0) continue;  // counts do not vary as times do
        which.counts = counts;
        if (counts) which.seconds = options.seconds / 2;
        sink.page().behaviour.store(SinkBehaviour::acknowledge);  // whatever the last child left
        const auto figures = run_child(which.to_arguments(), std::chrono::seconds(120));
        if (figures) {
          fill(row, *figures);
          continue;
        }
        std::cerr << fmt::format("bench_publish: {}, {}: {}\n", which.library, title(configuration, options),
                                 figures.error().message);
        failed = true;
        complete = false;
      }
      if (complete) cells[i].repetitions.push_back(std::move(row));
    }
  }
  std::erase_if(cells, [](const Cell& cell) { return cell.repetitions.empty(); });
  return cells;
}

int run(const Options& options) {
  std::vector<Library> chosen;
  for (auto& library : libraries()) {
    if (!options.only.empty() && std::ranges::find(options.only, library.name) == options.only.end())
      continue;
    if (library.make == nullptr)
      std::cout << fmt::format("{}: skipped: {}\n", library.name, library.missing);
    else
      chosen.push_back(std::move(library));
  }
  auto sink = Sink::start();
  if (!sink) {
    std::cerr << "bench_publish: " << sink.error().message << '\n';
    return 1;
  }
  if (const auto probe = SyscallCounter::open(); !probe) std::cout << probe.error().message << '\n';
  std::cout
      << machine() << '\n'
      << fmt::format(
             "Median of {} interleaved repetitions, below it min-max. Calls are timed in bursts of {}.\n",
             options.repetitions, burst_sizes(chosen))
      << std::flush;

  bool failed = false;
  std::vector<Cell> all;
  for (const auto& configuration : configurations(options)) {
    auto cells = measure(configuration, chosen, *sink, options, failed);
    std::cout << '\n' << title(configuration, options) << '\n' << table(cells, ours) << std::flush;
    std::ranges::move(cells, std::back_inserter(all));
  }
  if (auto written = write_json(options.json, all); !written) {
    std::cerr << "bench_publish: " << written.error().message << '\n';
    return 1;
  }
  std::cout << fmt::format("\nFigures: {}. Reproduce: ./dev bench\n", options.json);
  return failed ? 1 : 0;
}

int run_as_child(const std::vector<std::string>& arguments) {
  const auto which = Case::from_arguments(arguments);
  const auto figures = which ? run_case(*which) : Result<Figures>(std::unexpected(which.error()));
  if (figures)
    report_figures(*figures);
  else
    report_failure(figures.error().message);
  std::fflush(nullptr);
  return figures ? 0 : 1;
}

int main_with(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments.front() == "--child") return run_as_child(arguments);

  Options options;
  CLI::App app{
      "bench_publish: what publishing costs with our client and with its rivals, against the same sink"};
  std::vector<std::string> names;
  for (const auto& library : libraries()) names.emplace_back(library.name);
  app.add_option("--only", options.only, "measure this library only; may be repeated")
      ->check(CLI::IsMember(names));
  app.add_option("--qos", options.qos, "0, 1 or both: 0,1")->delimiter(',')->check(CLI::Range(0, 2));
  app.add_option("--windows", options.windows, "messages in flight for QoS 1: 1000,100,20")
      ->delimiter(',')
      ->check(CLI::Range(1, 65'535));
  app.add_option("--payload", options.payload_bytes, "bytes of payload")->check(CLI::Range(0, 1'000'000));
  auto* repetitions =
      app.add_option("--repetitions", options.repetitions, "repetitions")->check(CLI::Range(1, 1000));
  auto* seconds = app.add_option("--seconds", options.seconds, "how long a sustained run takes")
                      ->check(CLI::Range(0.01, 60.0));
  app.add_option("--messages", options.messages, "messages of a sustained run, instead of --seconds");
  app.add_option("--outstanding", options.outstanding,
                 "messages a library may hold, instead of what suits it best");
  app.add_option("--json", options.json, "where the figures go")->capture_default_str();
  app.add_flag("--quick", options.quick, "window 1000 only, 3 repetitions of 0.2 s: a look, not a result");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) {
    if (repetitions->count() == 0) options.repetitions = 3;
    if (seconds->count() == 0) options.seconds = 0.2;
    if (app.count("--windows") == 0) options.windows = {1000};
  }
  return run(options);
}

}  // namespace
}  // namespace fulmar::bench

int main(int argc, char** argv) { return fulmar::bench::main_with(argc, argv); }
