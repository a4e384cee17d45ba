#pragma once
// The rows that benchmarks of publishing report, their JSON and their table.
//
// JSON: an array of objects with the members of Row by name; a figure that was not measured is null.

#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "fulmar/result.hpp"

namespace fulmar::bench {

inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

struct Row {
  std::string library;
  std::string version;
  unsigned qos = 0;
  unsigned window = 0;  // QoS 1 and 2 messages in flight at most; 0 for QoS 0, where there is none
  unsigned payload_bytes = 0;
  double messages_per_s = not_measured;
  double cpu_s_per_million = not_measured;
  double caller_ns_p50 = not_measured;
  double caller_ns_p99 = not_measured;
  double caller_ns_p999 = not_measured;
  double caller_ns_max = not_measured;
  double allocations_per_message = not_measured;
  double syscalls_per_message = not_measured;
};

// The measured members of a row, in the order of the table.
struct Column {
  const char* name;  // as in JSON
  const char* heading;
  double Row::* value;
  bool more_is_better;
};
std::span<const Column> columns();

// Every repetition of one library in one configuration; `median` is what JSON gets.
struct Cell {
  std::vector<Row> repetitions;
  Row median() const;
};

// The cells of one configuration, `ours` (a library) compared with each other: the medians, below
// them min-max, and per rival how many times better ours is ("x 5.0": five times faster, or a fifth of the
// cost).
std::string table(std::span<const Cell> cells, std::string_view ours);

Result<void> write_json(const std::filesystem::path& file, std::span<const Cell> cells);

}  // namespace fulmar::bench
