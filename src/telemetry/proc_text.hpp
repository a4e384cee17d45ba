#pragma once
// Reading the texts of /proc. Lines that are not understood are skipped: kernels add columns and lines.
// The result vectors are reused, so that a loop over them settles to no allocation.
//
// Thread-safety: pure functions.

#include <cstdint>
#include <string_view>
#include <vector>

namespace fulmar::telemetry {

// Jiffies since boot. /proc/stat
struct CpuTimes {
  std::uint64_t busy = 0;   // user, nice, system, irq, softirq, steal
  std::uint64_t total = 0;  // busy, idle and iowait
};
struct CpuTable {
  CpuTimes all;
  struct Core {
    unsigned number = 0;
    CpuTimes times;
  };
  std::vector<Core> cores;
};
// False when there is no "cpu" line.
bool parse_stat(std::string_view text, CpuTable& table);
// Percent of the time between two readings, 0..100; negative when nothing can be said (no time passed, or a counter went
// back, as it does when a core comes back).
double cpu_percent(const CpuTimes& before, const CpuTimes& after);

// /proc/loadavg
struct LoadAverage {
  double one = 0, five = 0, fifteen = 0;
};
bool parse_loadavg(std::string_view text, LoadAverage& load);

// Bytes. /proc/meminfo
struct MemoryInfo {
  std::uint64_t total = 0, available = 0, swap_total = 0, swap_free = 0;
};
// False without MemTotal and MemAvailable.
bool parse_meminfo(std::string_view text, MemoryInfo& memory);

// Since boot. /proc/diskstats; partitions and virtual devices are in it too.
struct DiskCounters {
  std::string_view name;  // of the text
  std::uint64_t reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, busy_ms = 0;
};
void parse_diskstats(std::string_view text, std::vector<DiskCounters>& disks);

// Since the interface came up. /proc/net/dev
struct NetworkCounters {
  std::string_view name;  // of the text
  std::uint64_t received_bytes = 0, received_packets = 0, sent_bytes = 0, sent_packets = 0;
};
void parse_net_dev(std::string_view text, std::vector<NetworkCounters>& interfaces);

// Interfaces that say nothing about the machine's traffic: loopback, and the inner ends of virtual ones.
bool is_virtual_interface(std::string_view name);

// Millidegrees in the text of /sys/class/thermal/*/temp.
bool parse_temperature(std::string_view text, double& celsius);

}  // namespace fulmar::telemetry
