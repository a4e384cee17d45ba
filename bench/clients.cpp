// bench_clients: what MQTT clients cost, ours and its rivals, in one run against one sink. docs/benchmarks.md tells how.

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include <CLI/CLI.hpp>

#include "probes.hpp"
#include "queues/work_queue.hpp"
#include "report.hpp"
#include "suites/suite.hpp"

namespace fulmar::bench {
namespace {

int run_scenario(const std::vector<std::string>& arguments) {
  ::prctl(PR_SET_NAME, "bench_caller");
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // so that a caller who waits wakes up in time, whatever the library
  const auto parameters = Parameters::parse(arguments);
  for (const auto& suite : suites()) {
    for (const auto& [name, scenario] : suite.scenarios) {
      if (name != parameters.text("scenario")) continue;
      const auto result = scenario(parameters);
      if (result)
        report(*result);
      else
        report_failure(result.error().message);
      std::fflush(nullptr);
      // Not every library comes to an end when its server does not read.
      std::_Exit(result ? 0 : 1);
    }
  }
  report_failure("--child is for the program itself");
  return 1;
}

std::vector<Library> all_libraries(const Options& options) {
  return {fulmar_library(),   mosquitto_library(),   paho_c_library(),
          paho_cpp_library(), paho_python_library(), mqttjs_library(options.npm)};
}

// The sink and a process with ten thousand clients need as many descriptors. Beyond the hard limit only root gets.
void raise_descriptor_limit() {
  constexpr rlim_t wanted = 30'000;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit more{.rlim_cur = std::max(limit.rlim_max, wanted),
                    .rlim_max = std::max(limit.rlim_max, wanted)};
  if (::setrlimit(RLIMIT_NOFILE, &more) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

bool run_suite(const Suite& suite, const Options& options, const std::vector<Library>& libraries) {
  auto sink = Sink::start();
  if (!sink) {
    std::cerr << "bench_clients: " << sink.error().message << '\n';
    return false;
  }
  Results results{.suite = std::string(suite.name),
                  .machine = machine(),
                  .measured = utc_now(),
                  .quick = options.quick,
                  .busy = busy_elsewhere(std::chrono::milliseconds(500))};
  Bench bench{.options = options, .libraries = {}, .sink = *sink};
  for (const auto& library : libraries) {
    if (!library.missing.empty()) results.skipped.emplace_back(library.name, library.missing);
    const bool chosen =
        options.only.empty() || std::ranges::find(options.only, library.name) != options.only.end();
    if (library.missing.empty() && chosen) bench.libraries.push_back(library);
  }
  std::cout << fmt::format("\n=== {}: {}\n", suite.name, suite.summary);
  if (results.busy > busy_max) {
    std::cout << fmt::format("The machine is busy: others take {:.0f} % of it. These are no results.\n",
                             results.busy * 100);
  }
  suite.run(bench, results);
  const auto file = fmt::format("{}/{}.json", options.output, suite.name);
  if (auto written = write_json(file, results); !written) {
    std::cerr << "bench_clients: " << written.error().message << '\n';
    return false;
  }
  std::cout << fmt::format("\nFigures: {}. Reproduce: ./dev bench {}\n", file, suite.name) << std::flush;
  return !bench.failed;
}

int make_report(const Options& options) {
  const auto folder = options.output + "/report";
  if (const auto written = write_report(options.output, folder); !written) {
    std::cerr << "bench_clients: " << written.error().message << '\n';
    return 1;
  }
  std::cout << fmt::format("{}/report.md\n", folder);
  return 0;
}

int main_with(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments.front() == "--child") return run_scenario(arguments);

  Options options;
  CLI::App app{"bench_clients: what MQTT clients cost, ours and its rivals, in one run against one sink"};
  std::vector<std::string> chosen;
  std::vector<std::string> names{"all"};
  for (const auto& suite : suites()) names.emplace_back(suite.name);
  names.emplace_back("report");
  app.add_option("SUITE", chosen,
                 fmt::format("what to measure ({}), or to make a report of what was", fmt::join(names, ", ")))
      ->check(CLI::IsMember(names));
  app.add_option("--only", options.only, "measure this library only; may be repeated");
  app.add_option("--qos", options.qos, "publish, receive: 0,1,2")->delimiter(',')->check(CLI::Range(0, 2));
  app.add_option("--windows", options.windows, "publish: QoS 1 and 2 messages in flight: 1000,100,20")
      ->delimiter(',')
      ->check(CLI::Range(1, 65'535));
  app.add_option("--payload", options.payload_bytes, "bytes of payload")->check(CLI::Range(0, 1'000'000));
  app.add_option("--repetitions", options.repetitions, "repetitions")->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.seconds, "how long one measurement takes")
      ->check(CLI::Range(0.01, 60.0));
  app.add_option("--messages", options.messages,
                 "publish: messages of a sustained run, instead of --seconds");
  app.add_option("--outstanding", options.outstanding,
                 "publish: messages a library may hold, instead of what suits it best");
  app.add_option("--output", options.output, "folder of the figures")->capture_default_str();
  app.add_option("--npm", options.npm, "folder with node_modules that has mqtt")->capture_default_str();
  app.add_flag("--quick", options.quick, "shorter and fewer: a look, not a result");
  CLI11_PARSE(app, argc, argv);

  if (std::ranges::find(chosen, "report") != chosen.end()) return make_report(options);
  raise_descriptor_limit();
  const auto libraries = all_libraries(options);
  std::vector<std::string> known;
  for (const auto& library : libraries) {
    known.push_back(library.name);
    if (!library.missing.empty())
      std::cout << fmt::format("{}: skipped: {}\n", library.name, library.missing);
  }
  for (const auto& kind : queue_kinds()) {
    if (kind.library != ours) known.push_back(kind.library);
  }
  for (const auto& name : options.only) {
    if (std::ranges::find(known, name) != known.end()) continue;
    std::cerr << fmt::format("bench_clients: no such library: {} ({})\n", name, fmt::join(known, ", "));
    return 2;
  }
  if (const auto probe = SyscallCounter::open(); !probe) std::cout << probe.error().message << '\n';
  std::cout << machine() << "\nMedians of interleaved repetitions, below them min-max.\n" << std::flush;

  bool complete = true;
  const bool all = chosen.empty() || std::ranges::find(chosen, "all") != chosen.end();
  for (const auto& suite : suites()) {
    if (all || std::ranges::find(chosen, suite.name) != chosen.end()) {
      complete &= run_suite(suite, options, libraries);
    }
  }
  return complete ? 0 : 1;
}

}  // namespace
}  // namespace fulmar::bench

int main(int argc, char** argv) { return fulmar::bench::main_with(argc, argv); }
