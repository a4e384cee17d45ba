#pragma once
// Suites: what is measured. Each has two halves in one file: a scenario, which a child process runs with one library and
// one set of parameters, and the suite, which has the children started one after the other, the libraries taking turns
// (A B C A B C ...), and collects their figures into rows.
//
// A script (drivers/) runs the scenarios of the same name with the same parameters and reports the same figures, but for
// what it cannot know, such as allocations.
//
// Thread-safety: suites belong to the single-threaded parent.

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "driver.hpp"
#include "harness.hpp"
#include "results.hpp"
#include "sink.hpp"

namespace fulmar::bench {

struct Options {
  std::vector<std::string> only{};
  std::vector<unsigned> qos{};      // empty: what the suite measures
  std::vector<unsigned> windows{};  // empty: what the suite measures
  unsigned payload_bytes = 100;
  unsigned repetitions = 0;  // 0: the suite's
  double seconds = 0;        // 0: the suite's
  std::uint64_t messages = 0;
  std::uint64_t outstanding = 0;
  std::string output = "build/bench";
  std::string npm = "build/bench/npm";
  bool quick = false;

  unsigned repetitions_or(unsigned full, unsigned quickly) const {
    return repetitions != 0 ? repetitions : quick ? quickly : full;
  }
  double seconds_or(double full, double quickly) const {
    return seconds != 0 ? seconds : quick ? quickly : full;
  }
};

struct Bench {
  const Options& options;
  std::vector<Library> libraries;  // that are there
  Sink& sink;
  bool failed = false;

  // Runs a child and adds what it measured to `row` ("caller" is its distribution). A failure is told on stderr, becomes
  // the row's note, and false.
  bool run(Row& row, const Library& library, Parameters parameters, std::chrono::seconds time_limit);
  Row row(const Library& library, std::vector<std::pair<std::string, std::string>> labels) const;
};

// Prints a table as soon as its rows are complete.
void show(std::string_view title, std::span<const Row> rows, std::span<const Column> columns);

struct Suite {
  std::string_view name;
  std::string_view summary;
  void (*run)(Bench& bench, Results& results);
  std::vector<std::pair<std::string_view, Result<ChildReport> (*)(const Parameters&)>> scenarios;
};

Suite publish_suite();
Suite receive_suite();
Suite latency_suite();
Suite reconnect_suite();
Suite memory_suite();
Suite start_suite();
Suite spool_suite();
Suite record_suite();
Suite restart_suite();
Suite queue_suite();
std::vector<Suite> suites();  // in the order of the report

// --- for the scenarios

// The library of the parameter `library`; an error when this build has none of that name.
Result<Library> library_of(const Parameters& parameters);
Result<SinkPage*> sink_of(const Parameters& parameters);
// "p50", "p99", "p999" and "max" under `prefix`, in ns.
void add_percentiles(Figures& figures, std::string_view prefix, const Histogram& histogram,
                     const CallClock& clock);

}  // namespace fulmar::bench
