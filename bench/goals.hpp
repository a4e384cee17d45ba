#pragma once
// Goals: what was promised, and what came of it in these figures.
//
// Thread-safety: plain functions of plain values.

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "results.hpp"

namespace fulmar::bench {

struct Goal {
  std::string what;
  std::string wanted;
  std::string measured{};  // empty: not measured
  std::string rival{};     // the best rival and how many times better ours is; empty: there is none
  bool met = false;
};
std::vector<Goal> goals(std::span<const Results> suites);

// --- for goals and report alike

using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

// The rows of all suites; views the results.
class AllRows {
 public:
  explicit AllRows(std::span<const Results> suites) : suites_(suites) {}
  const Results* suite(std::string_view name) const;  // nullptr when it was not measured
  std::vector<Row> rows(std::string_view suite, const Labels& labels) const;

 private:
  std::span<const Results> suites_;
};

bool is_rival(const Row& row);  // neither ours nor a bare loop
// The rival with the best median, or nullptr.
const Row* best_rival(std::span<const Row> rows, const Column& column);

// The states of the suite `latency`, and what people call them.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 5> states{
    {{"up", "up"},
     {"down", "down"},
     {"silent", "silent"},
     {"zero_window", "zero window"},
     {"full", "outbox full"}}};

// Those of the suite `record`.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 5> disk_states{
    {{"up", "up"},
     {"down", "down"},
     {"silent", "silent"},
     {"stalled", "disk stalled"},
     {"full", "spool full"}}};

std::string short_number(double value);  // a rate or a count: "4.34 M", "21.6 k"
std::string bytes_text(double bytes);    // "169 B", "3.4 kB", "1.2 MB"
std::string milliseconds_text(double ms);
std::string microseconds_text(double us);

}  // namespace fulmar::bench
