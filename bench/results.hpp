#pragma once
// What was measured: rows, their tables and their JSON.
//
// A suite's file is {"suite", "machine", "measured" (UTC), "quick" (too short to be a result), "busy" (what others
// took of the machine before it began, 0 to 1), "skipped": [{"library",
// "reason"}], "rows"}. A row has "library", "version", the labels ("qos": 1, "state": "down") and the median of each
// figure by name; "repetitions" has each figure's values, "distribution" [[upper bound in ns, count], ...], "note" what a
// reader must know. A figure that was not measured is not there.
//
// Thread-safety: plain values.

#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fulmar/result.hpp"
#include "harness.hpp"

namespace fulmar::bench {

inline constexpr std::string_view ours = "fulmar";  // the library that the others are compared with

inline constexpr double busy_max = 0.1;  // more of the machine than that taken by others: not a result

inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

// One library in one configuration.
struct Row {
  std::string library;
  std::string version;
  std::vector<std::pair<std::string, std::string>> labels;
  std::map<std::string, std::vector<double>, std::less<>> figures;  // each repetition's
  Distribution distribution{};                                      // of all repetitions, ns
  std::string note{};

  std::string title() const;  // "fulmar 0.1.0, lazy": the library and what was chosen for it
  void add(const Figures& repetition);
  void add_note(std::string_view text);          // once, however often it comes
  double median(std::string_view figure) const;  // or not_measured
  double max(std::string_view figure) const;
  std::string_view label(std::string_view name) const;  // empty when it has none
};

struct Results {
  std::string suite;
  std::string machine{};
  std::string measured{};
  bool quick = false;
  double busy = 0;  // how much of the machine others took before it began, 0 to 1
  std::vector<std::pair<std::string, std::string>> skipped{};  // library, reason
  std::vector<Row> rows{};
};

enum class Better : std::uint8_t { less, more, neither };

struct Column {
  std::string figure;
  std::string heading;
  Better better = Better::less;
  double unit = 1;  // shown is the figure divided by it
};

// Three significant digits, thousands apart: "1 230 000", "45.1", "0.0041"; "-" when not measured.
std::string number(double value);
// "x 5": ours is five times faster, or costs a fifth; "none": ours costs nothing; "=": neither does;
// empty where neither is better.
std::string ratio(double mine, double theirs, Better better);

// Rows of one configuration, ours compared with each other one: the medians, below them min-max, and per
// rival how many times better ours is.
std::string table(std::span<const Row> rows, std::span<const Column> columns);

std::string utc_now();  // "2026-01-02 03:04 UTC"
Result<void> write_json(const std::filesystem::path& file, const Results& results);
Result<Results> read_json(const std::filesystem::path& file);
Result<void> write_file(const std::filesystem::path& file, std::string_view text);  // and its folder

}  // namespace fulmar::bench
