#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>

#include "harness.hpp"

namespace fulmar::bench {
namespace {

constexpr std::array<Column, 8> all_columns{{
    {"messages_per_s", "messages/s", &Row::messages_per_s, true},
    {"cpu_s_per_million", "CPU s/M", &Row::cpu_s_per_million, false},
    {"caller_ns_p50", "call p50 ns", &Row::caller_ns_p50, false},
    {"caller_ns_p99", "p99 ns", &Row::caller_ns_p99, false},
    {"caller_ns_p999", "p99.9 ns", &Row::caller_ns_p999, false},
    {"caller_ns_max", "max ns", &Row::caller_ns_max, false},
    {"allocations_per_message", "alloc/msg", &Row::allocations_per_message, false},
    {"syscalls_per_message", "syscalls/msg", &Row::syscalls_per_message, false},
}};

std::vector<double> measured(const Cell& cell, const Column& column) {
  std::vector<double> values;
  for (const auto& row : cell.repetitions) {
    if (!std::isnan(row.*column.value)) values.push_back(row.*column.value);
  }
  return values;
}

// Three significant digits, with thousands separated: "1 230 000", "45.1", "0.00412".
std::string number(double value) {
  if (std::isnan(value)) return "-";
  if (value == 0) return "0";
  if (std::abs(value) < 100) return fmt::format("{:.3g}", value);
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - 2);
  auto digits = fmt::format("{:.0f}", std::round(value / unit) * unit);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ' ');
  }
  return digits;
}

std::string range(const std::vector<double>& values) {
  if (values.size() < 2) return "";
  const auto [min, max] = std::ranges::minmax(values);
  return number(min) == number(max) ? "" : fmt::format("{}-{}", number(min), number(max));
}

std::string ratio(double ours, double theirs, bool more_is_better) {
  if (std::isnan(ours) || std::isnan(theirs)) return "-";
  const double better = more_is_better ? ours / theirs : theirs / ours;
  if (std::isnan(better)) return "=";                                        // 0 against 0
  return std::isinf(better) ? "none" : fmt::format("x {}", number(better));  // ours costs nothing
}

}  // namespace

std::span<const Column> columns() { return all_columns; }

Row Cell::median() const {
  Row row = repetitions.front();
  for (const auto& column : all_columns) {
    const auto values = measured(*this, column);
    row.*column.value = values.empty() ? not_measured : bench::median(values);
  }
  return row;
}

std::string table(std::span<const Cell> cells, std::string_view ours) {
  std::vector<std::vector<std::string>> lines;
  auto& heading = lines.emplace_back(std::vector<std::string>{"library"});
  for (const auto& column : all_columns) heading.emplace_back(column.heading);

  const auto mine =
      std::ranges::find_if(cells, [&](const Cell& cell) { return cell.repetitions.front().library == ours; });
  for (const auto& cell : cells) {
    const Row median = cell.median();
    auto& values =
        lines.emplace_back(std::vector<std::string>{fmt::format("{} {}", median.library, median.version)});
    std::vector<std::string> ranges{"  min-max"};
    for (const auto& column : all_columns) {
      values.push_back(number(median.*column.value));
      ranges.push_back(range(measured(cell, column)));
    }
    lines.push_back(std::move(ranges));
  }
  for (const auto& cell : cells) {
    if (mine == cells.end() || cell.repetitions.front().library == ours) continue;
    const Row theirs = cell.median();
    const Row us = mine->median();
    auto& ratios =
        lines.emplace_back(std::vector<std::string>{fmt::format("{} better than {}", ours, theirs.library)});
    for (const auto& column : all_columns) {
      ratios.push_back(ratio(us.*column.value, theirs.*column.value, column.more_is_better));
    }
  }

  std::vector<std::size_t> widths(all_columns.size() + 1);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    text += fmt::format("  {:<{}}", line[0], widths[0]);
    for (std::size_t i = 1; i < line.size(); ++i) text += fmt::format("  {:>{}}", line[i], widths[i]);
    text += '\n';
  }
  return text;
}

Result<void> write_json(const std::filesystem::path& file, std::span<const Cell> cells) {
  std::string text = "[";
  for (const auto& cell : cells) {
    const Row row = cell.median();
    text += fmt::format(
        R"({}{{"library": "{}", "version": "{}", "qos": {}, "window": {}, "payload_bytes": {})",
        text.size() > 1 ? ",\n " : "\n ", row.library, row.version, row.qos, row.window, row.payload_bytes);
    for (const auto& column : all_columns) {
      const double value = row.*column.value;
      text += fmt::format(R"(, "{}": {})", column.name,
                          std::isnan(value) ? "null" : fmt::format("{:.6g}", value));
    }
    text += '}';
  }
  text += "\n]\n";

  std::error_code error;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), error);
  std::ofstream out(file);
  out << text << std::flush;
  if (!out) {
    return fail(Errc::io_error, fmt::format("cannot write {}: {}; choose another file with --json",
                                            file.string(), std::strerror(errno)));
  }
  return {};
}

}  // namespace fulmar::bench
