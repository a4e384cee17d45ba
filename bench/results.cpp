#include "results.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include <boost/json.hpp>

namespace fulmar::bench {

namespace json = boost::json;

namespace {

std::string range(const Row& row, const Column& column) {
  const auto found = row.figures.find(column.figure);
  if (found == row.figures.end() || found->second.size() < 2) return "";
  const auto [min, max] = std::ranges::minmax(found->second);
  const auto low = number(min / column.unit);
  const auto high = number(max / column.unit);
  return low == high ? "" : fmt::format("{}-{}", low, high);
}

// Six significant digits are more than any figure here deserves.
double rounded(double value) { return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr); }

bool is_whole_number(std::string_view text) {
  return !text.empty() && text.size() < 10 &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

json::object to_json(const Row& row) {
  json::object object{{"library", row.library}, {"version", row.version}};
  for (const auto& [name, value] : row.labels) {
    if (is_whole_number(value))
      object[name] = std::stoi(value);
    else
      object[name] = value;
  }
  json::object repetitions;
  for (const auto& [name, values] : row.figures) {
    object[name] = rounded(row.median(name));
    json::array all;
    for (const double value : values) all.emplace_back(rounded(value));
    repetitions[name] = std::move(all);
  }
  object["repetitions"] = std::move(repetitions);
  if (!row.distribution.empty()) {
    json::array buckets;
    for (const auto& [bound, count] : row.distribution) buckets.push_back(json::array{rounded(bound), count});
    object["distribution"] = std::move(buckets);
  }
  if (!row.note.empty()) object["note"] = row.note;
  return object;
}

Row row_of(const json::object& object) {
  Row row{.library = std::string(object.at("library").as_string()),
          .version = std::string(object.at("version").as_string()),
          .labels = {},
          .figures = {}};
  for (const auto& [name, values] : object.at("repetitions").as_object()) {
    for (const auto& value : values.as_array()) row.figures[name].push_back(value.to_number<double>());
  }
  if (const auto* buckets = object.if_contains("distribution")) {
    for (const auto& bucket : buckets->as_array()) {
      row.distribution.emplace_back(bucket.at(0).to_number<double>(),
                                    bucket.at(1).to_number<std::uint64_t>());
    }
  }
  if (const auto* note = object.if_contains("note")) row.note = note->as_string();
  for (const auto& [name, value] : object) {
    const std::string key = name;
    if (key == "library" || key == "version" || key == "note" || row.figures.contains(key)) continue;
    if (value.is_string()) row.labels.emplace_back(key, value.as_string());
    if (value.is_int64()) row.labels.emplace_back(key, std::to_string(value.as_int64()));
  }
  return row;
}

// An array of objects, one a line.
std::string lines_of(const json::array& array) {
  std::string text = "[";
  for (const auto& element : array) text += (text.size() > 1 ? ",\n  " : "\n  ") + json::serialize(element);
  return text + "\n ]";
}

}  // namespace

std::string Row::title() const {
  auto text = version.empty() ? library : fmt::format("{} {}", library, version);
  for (const std::string_view name :
       {"wakeup", "overflow", "threads", "files", "cache", "durability", "time", "server", "store"}) {
    if (const auto value = label(name); !value.empty()) text += fmt::format(", {}", value);
  }
  return text;
}

void Row::add(const Figures& repetition) {
  for (const auto& [name, value] : repetition) figures[name].push_back(value);
}

void Row::add_note(std::string_view text) {
  if (text.empty() || note.find(text) != note.npos) return;
  note += (note.empty() ? "" : "; ") + std::string(text);
}

double Row::median(std::string_view figure) const {
  const auto found = figures.find(figure);
  return found == figures.end() || found->second.empty() ? not_measured : bench::median(found->second);
}

double Row::max(std::string_view figure) const {
  const auto found = figures.find(figure);
  return found == figures.end() || found->second.empty() ? not_measured : std::ranges::max(found->second);
}

std::string_view Row::label(std::string_view name) const {
  const auto found = std::ranges::find(labels, name, &std::pair<std::string, std::string>::first);
  return found == labels.end() ? std::string_view() : found->second;
}

std::string number(double value) {
  if (std::isnan(value)) return "-";
  if (value == 0) return "0";
  if (std::abs(value) < 100) return fmt::format("{:.3g}", value);
  const double unit = std::pow(10.0, std::floor(std::log10(std::abs(value))) - 2);
  auto digits = fmt::format("{:.0f}", std::round(value / unit) * unit);
  const std::ptrdiff_t sign = value < 0 ? 1 : 0;
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > sign; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ' ');
  }
  return digits;
}

std::string ratio(double mine, double theirs, Better better) {
  if (better == Better::neither) return "";
  if (std::isnan(mine) || std::isnan(theirs)) return "-";
  const double times = better == Better::more ? mine / theirs : theirs / mine;
  if (std::isnan(times)) return "=";                                       // 0 against 0
  return std::isinf(times) ? "none" : fmt::format("x {}", number(times));  // ours costs nothing
}

std::string table(std::span<const Row> rows, std::span<const Column> columns) {
  std::vector<std::vector<std::string>> lines;
  auto& heading = lines.emplace_back(std::vector<std::string>{"library"});
  for (const auto& column : columns) heading.push_back(column.heading);

  const auto mine = std::ranges::find(rows, ours, &Row::library);
  for (const auto& row : rows) {
    auto& values = lines.emplace_back(std::vector<std::string>{row.title()});
    std::vector<std::string> ranges{"  min-max"};
    for (const auto& column : columns) {
      values.push_back(number(row.median(column.figure) / column.unit));
      ranges.push_back(range(row, column));
    }
    if (std::ranges::any_of(ranges.begin() + 1, ranges.end(),
                            [](const auto& text) { return !text.empty(); })) {
      lines.push_back(std::move(ranges));
    }
  }
  for (const auto& row : rows) {
    if (mine == rows.end() || row.library == ours || row.figures.empty() || row.version.empty()) continue;
    auto& ratios =
        lines.emplace_back(std::vector<std::string>{fmt::format("{} better than {}", ours, row.library)});
    for (const auto& column : columns) {
      ratios.push_back(ratio(mine->median(column.figure), row.median(column.figure), column.better));
    }
  }

  std::vector<std::size_t> widths(columns.size() + 1);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    text += fmt::format("  {:<{}}", line[0], widths[0]);
    for (std::size_t i = 1; i < line.size(); ++i) text += fmt::format("  {:>{}}", line[i], widths[i]);
    text += '\n';
  }
  for (const auto& row : rows) {
    if (!row.note.empty()) text += fmt::format("  {}: {}\n", row.title(), row.note);
  }
  return text;
}

std::string utc_now() { return fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr))); }

Result<void> write_json(const std::filesystem::path& file, const Results& results) {
  json::array skipped;
  for (const auto& [library, reason] : results.skipped) {
    skipped.push_back(json::object{{"library", library}, {"reason", reason}});
  }
  json::array rows;
  for (const auto& row : results.rows) rows.push_back(to_json(row));
  const auto quoted = [](std::string_view text) { return json::serialize(json::value(text)); };
  return write_file(
      file,
      fmt::format(
          "{{\"suite\": {},\n \"machine\": {},\n \"measured\": {},\n \"quick\": {},\n \"busy\": {:.2f},\n "
          "\"skipped\": {},\n \"rows\": {}}}\n",
          quoted(results.suite), quoted(results.machine), quoted(results.measured), results.quick,
          results.busy, lines_of(skipped), lines_of(rows)));
}

Result<Results> read_json(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  if (!in)
    return fail(Errc::io_error, fmt::format("cannot read {}: run the suite that writes it", file.string()));
  try {
    const auto value = json::parse(text.str());
    Results results{.suite = std::string(value.at("suite").as_string()),
                    .machine = std::string(value.at("machine").as_string()),
                    .measured = std::string(value.at("measured").as_string()),
                    .quick = value.at("quick").as_bool(),
                    .busy = value.at("busy").to_number<double>()};
    for (const auto& one : value.at("skipped").as_array()) {
      results.skipped.emplace_back(one.at("library").as_string(), one.at("reason").as_string());
    }
    for (const auto& row : value.at("rows").as_array()) results.rows.push_back(row_of(row.as_object()));
    return results;
  } catch (const std::exception& problem) {
    return fail(Errc::io_error, fmt::format("{} is not a result of this benchmark ({}): run the suite again",
                                            file.string(), problem.what()));
  }
}

Result<void> write_file(const std::filesystem::path& file, std::string_view text) {
  std::error_code error;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), error);
  std::ofstream out(file);
  out << text << std::flush;
  if (!out) {
    return fail(Errc::io_error, fmt::format("cannot write {}: {}; choose another folder with --output",
                                            file.string(), std::strerror(errno)));
  }
  return {};
}

}  // namespace fulmar::bench
