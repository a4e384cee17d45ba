#include "telemetry/proc_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace fulmar::telemetry {
namespace {

// Takes the next line off the text.
std::string_view next_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

std::string_view next_word(std::string_view& line) {
  const std::size_t begin = std::min(line.find_first_not_of(" \t"), line.size());
  line.remove_prefix(begin);
  const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end);
  return word;
}

template <typename T>
bool read_number(std::string_view word, T& value) {
  const auto result = std::from_chars(word.data(), word.data() + word.size(), value);
  return !word.empty() && result.ec == std::errc() && result.ptr == word.data() + word.size();
}

// The leading numbers of a line, as many as there are.
template <std::size_t N>
std::size_t read_numbers(std::string_view line, std::array<std::uint64_t, N>& values) {
  std::size_t count = 0;
  while (count < N && read_number(next_word(line), values[count])) ++count;
  return count;
}

bool read_cpu_times(std::string_view line, CpuTimes& times) {
  enum { user, nice, system, idle, iowait, irq, softirq, steal, columns };  // guest time is part of user
  std::array<std::uint64_t, columns> v{};
  if (read_numbers(line, v) < idle + 1) return false;
  times.busy = v[user] + v[nice] + v[system] + v[irq] + v[softirq] + v[steal];
  times.total = times.busy + v[idle] + v[iowait];
  return true;
}

}  // namespace

bool parse_stat(std::string_view text, CpuTable& table) {
  table.cores.clear();
  bool found = false;
  while (text.starts_with("cpu")) {  // the cpu lines come first
    std::string_view line = next_line(text);
    const std::string_view number = next_word(line).substr(3);
    if (number.empty()) {
      found = read_cpu_times(line, table.all);
      continue;
    }
    CpuTable::Core core;
    if (read_number(number, core.number) && read_cpu_times(line, core.times)) table.cores.push_back(core);
  }
  return found;
}

double cpu_percent(const CpuTimes& before, const CpuTimes& after) {
  if (after.total <= before.total || after.busy < before.busy) return -1;
  const auto busy = static_cast<double>(after.busy - before.busy);
  return std::min(100.0, 100.0 * busy / static_cast<double>(after.total - before.total));
}

bool parse_loadavg(std::string_view text, LoadAverage& load) {
  return read_number(next_word(text), load.one) && read_number(next_word(text), load.five) &&
         read_number(next_word(text), load.fifteen);
}

bool parse_meminfo(std::string_view text, MemoryInfo& memory) {
  memory = {};
  bool total = false, available = false;
  while (!text.empty()) {
    std::string_view line = next_line(text);
    const std::string_view key = next_word(line);
    std::uint64_t* to = nullptr;
    if (key == "MemTotal:") to = &memory.total;
    if (key == "MemAvailable:") to = &memory.available;
    if (key == "SwapTotal:") to = &memory.swap_total;
    if (key == "SwapFree:") to = &memory.swap_free;
    std::uint64_t kib = 0;
    if (!to || !read_number(next_word(line), kib)) continue;
    *to = kib << 10;
    total |= to == &memory.total;
    available |= to == &memory.available;
    if (to == &memory.swap_free) break;  // the last of those we want
  }
  return total && available;
}

void parse_diskstats(std::string_view text, std::vector<DiskCounters>& disks) {
  constexpr std::uint64_t sector = 512;  // in this file, whatever the disk's own
  enum {
    reads,
    merged_reads,
    sectors_read,
    ms_reading,
    writes,
    merged_writes,
    sectors_written,
    ms_writing,
    in_flight,
    ms_busy,
    columns
  };
  disks.clear();
  while (!text.empty()) {
    std::string_view line = next_line(text);
    next_word(line);  // major
    next_word(line);  // minor
    const std::string_view name = next_word(line);
    std::array<std::uint64_t, columns> v{};
    if (name.empty() || read_numbers(line, v) < columns) continue;
    disks.push_back(
        {name, v[reads], v[sectors_read] * sector, v[writes], v[sectors_written] * sector, v[ms_busy]});
  }
}

void parse_net_dev(std::string_view text, std::vector<NetworkCounters>& interfaces) {
  constexpr std::size_t rx_bytes = 0, rx_packets = 1, tx_bytes = 8, tx_packets = 9, columns = 10;
  interfaces.clear();
  while (!text.empty()) {
    std::string_view line = next_line(text);
    const std::size_t colon = line.find(':');  // "eth0:123" and "eth0: 123" are both seen
    if (colon == std::string_view::npos) continue;
    std::string_view head = line.substr(0, colon);
    const std::string_view name = next_word(head);
    std::array<std::uint64_t, columns> v{};
    if (name.empty() || read_numbers(line.substr(colon + 1), v) < columns) continue;
    interfaces.push_back({name, v[rx_bytes], v[rx_packets], v[tx_bytes], v[tx_packets]});
  }
}

bool is_virtual_interface(std::string_view name) {
  constexpr std::array<std::string_view, 4> prefixes{"veth", "ifb", "dummy", "br-"};
  return name == "lo" ||
         std::ranges::any_of(prefixes, [&](std::string_view p) { return name.starts_with(p); });
}

bool parse_temperature(std::string_view text, double& celsius) {
  std::int64_t millidegrees = 0;
  if (!read_number(text.substr(0, text.find_last_not_of(" \n") + 1), millidegrees)) return false;
  celsius = static_cast<double>(millidegrees) / 1000;
  return true;
}

}  // namespace fulmar::telemetry
