#pragma once
// HostSource: this machine's own measurements from /proc and /sys, sampled at a fixed rate by a thread of its own.
//
// Names: cpu_pct, cpu<N>_pct · load_1m, load_5m, load_15m · mem_total_bytes, mem_available_bytes, mem_used_pct,
// swap_used_bytes · disk_<name>_{read,write}_bytes_per_s, disk_<name>_{reads,writes}_per_s, disk_<name>_busy_pct ·
// net_<name>_{rx,tx}_bytes_per_s, net_<name>_{rx,tx}_packets_per_s · temp_<type>_c.
//
// Rates are those since the sample before. CPU usage is that of the last 90 ms at least (the kernel counts in 10 ms).
// Load and temperatures are read once a second and repeated in between. Disks are whole physical disks; loopback and
// inner virtual interfaces are left out. A value that cannot be known now (a counter went back) is left out of the record.
//
// Thread-safety: HostSampler belongs to one thread; HostSource's functions may be called from any thread.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fulmar/telemetry.hpp"
#include "telemetry/period_histogram.hpp"
#include "telemetry/proc_text.hpp"

namespace fulmar::telemetry {

// A file of /proc that is opened once and read again from its start each time.
class ProcFile {
 public:
  explicit ProcFile(const std::filesystem::path& path);
  ~ProcFile();
  ProcFile(ProcFile&& other) noexcept;
  ProcFile& operator=(ProcFile&&) = delete;

  bool is_open() const { return fd_ >= 0; }
  std::string_view read();  // the whole text, valid until the next read(); empty when it cannot be read

 private:
  int fd_ = -1;
  std::vector<char> buffer_;
};

// Takes one sample after another. Reads files only; allocates only when a disk or an interface is new.
class HostSampler {
 public:
  using Clock = std::chrono::steady_clock;
  // Another root than "/" is for tests.
  explicit HostSampler(std::filesystem::path root = "/");

  // Adds the values at `now` to the record. The first call has no rates.
  void sample(Clock::time_point now, Measurement& record);

 private:
  struct CpuSample {
    Clock::time_point at;
    CpuTable table;
  };
  struct DiskRates {
    std::string read_bytes, write_bytes, reads, writes, busy;  // names of the values
    DiskCounters last;                                         // `last.name` is not used
    bool fresh = true;
    bool physical = false;
  };
  struct NetworkRates {
    std::string received_bytes, sent_bytes, received_packets, sent_packets;
    NetworkCounters last;
    bool fresh = true;
    bool wanted = false;
  };
  struct Thermometer {
    std::string name;
    ProcFile file;
    double celsius = 0;
    bool valid = false;
  };

  void sample_cpu(Clock::time_point now, Measurement& record);
  void sample_memory(Measurement& record);
  void sample_disks(double seconds, Measurement& record);
  void sample_network(double seconds, Measurement& record);
  void sample_slow(Clock::time_point now, Measurement& record);
  void find_thermometers();

  const std::filesystem::path root_;
  ProcFile stat_, loadavg_, meminfo_, diskstats_, net_dev_;
  std::deque<CpuSample> cpu_history_;
  std::vector<std::string> core_names_;
  std::vector<DiskCounters> disks_;
  std::vector<NetworkCounters> interfaces_;
  std::map<std::string, DiskRates, std::less<>> disk_rates_;
  std::map<std::string, NetworkRates, std::less<>> network_rates_;
  std::vector<Thermometer> thermometers_;
  LoadAverage load_;
  bool load_valid_ = false;
  Clock::time_point last_{};
  Clock::time_point slow_due_{};
};

class HostSource {
 public:
  struct Config {
    double rate_hz = 10;  // 0.1..1000
  };
  struct Stats {
    double target_s = 0;  // the period asked for
    std::uint64_t samples = 0;
    std::uint64_t missed = 0;          // periods without a sample, because the thread came too late
    PeriodHistogram::Snapshot period;  // measured between the beginnings of consecutive samples
  };
  // Called on the sampling thread with every record; must not block.
  using Sink = std::function<void(const Measurement&)>;

  HostSource(Config config, Sink sink);
  ~HostSource();  // stop()
  HostSource(const HostSource&) = delete;
  HostSource& operator=(const HostSource&) = delete;

  void start();  // idempotent
  void stop();   // returns within 50 ms and the time of one sample; idempotent
  Stats stats() const;

 private:
  void run();
  // False when it was stopped instead.
  bool sleep_until(std::chrono::steady_clock::time_point deadline) const;

  const std::chrono::nanoseconds period_;
  const Sink sink_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> samples_{0}, missed_{0};
  PeriodHistogram periods_;
  std::thread thread_;
};

}  // namespace fulmar::telemetry
