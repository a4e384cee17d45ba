#include "telemetry/host_source.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;

constexpr auto cpu_window = 90ms;  // one period of 10 Hz, however it jitters
constexpr auto slow_interval = 1s;
constexpr auto stop_latency = 50ms;

// Enough digits for people and small batches.
double rounded(double value) { return std::round(value * 100) / 100; }

// Counters restart from zero when a device comes back: then there is no rate this time.
void add_rate(Measurement& record, std::string_view name, std::uint64_t before, std::uint64_t after,
              double seconds) {
  if (after < before || seconds <= 0) return;
  record.add(name, std::llround(static_cast<double>(after - before) / seconds));
}

// Part of a value's name: letters, digits and '_' only.
std::string as_name(std::string_view text) {
  std::string name;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    name += plain ? c : '_';
  }
  return name;
}

std::int64_t wall_clock_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// --- ProcFile

ProcFile::ProcFile(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ >= 0) buffer_.resize(4096);
}

ProcFile::~ProcFile() {
  if (fd_ >= 0) ::close(fd_);
}

ProcFile::ProcFile(ProcFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}

std::string_view ProcFile::read() {
  if (fd_ < 0) return {};
  for (;;) {
    const ssize_t got = ::pread(fd_, buffer_.data(), buffer_.size(), 0);
    if (got < 0) return {};
    const auto size = static_cast<std::size_t>(got);
    if (size < buffer_.size()) return {buffer_.data(), size};
    buffer_.resize(buffer_.size() * 2);  // the kernel gives a whole text in one read when it fits
  }
}

// --- HostSampler

HostSampler::HostSampler(std::filesystem::path root)
    : root_(std::move(root)),
      stat_(root_ / "proc/stat"),
      loadavg_(root_ / "proc/loadavg"),
      meminfo_(root_ / "proc/meminfo"),
      diskstats_(root_ / "proc/diskstats"),
      net_dev_(root_ / "proc/net/dev") {
  find_thermometers();
}

void HostSampler::find_thermometers() {
  std::error_code error;
  std::map<std::string, int> seen;
  for (const auto& zone : std::filesystem::directory_iterator(root_ / "sys/class/thermal", error)) {
    if (!zone.path().filename().string().starts_with("thermal_zone")) continue;
    std::string type;
    if (ProcFile file(zone.path() / "type"); file.is_open()) type = file.read();
    if (const auto end = type.find('\n'); end != std::string::npos) type.resize(end);
    ProcFile file(zone.path() / "temp");
    if (type.empty() || !file.is_open()) continue;
    const std::string base = as_name(type);
    const int before = seen[base]++;
    thermometers_.push_back({.name = "temp_" + base + (before ? "_" + std::to_string(before + 1) : "") + "_c",
                             .file = std::move(file)});
  }
}

void HostSampler::sample(Clock::time_point now, Measurement& record) {
  const double seconds =
      last_ == Clock::time_point{} ? 0 : std::chrono::duration<double>(now - last_).count();
  last_ = now;
  sample_cpu(now, record);
  sample_slow(now, record);
  sample_memory(record);
  sample_disks(seconds, record);
  sample_network(seconds, record);
}

void HostSampler::sample_cpu(Clock::time_point now, Measurement& record) {
  // The window is the youngest sample that is old enough; all older ones are done with, and their tables are reused.
  CpuSample next{.at = now, .table = {}};
  while (cpu_history_.size() > 1 && cpu_history_[1].at <= now - cpu_window) {
    next.table = std::move(cpu_history_.front().table);
    cpu_history_.pop_front();
  }
  if (!parse_stat(stat_.read(), next.table)) return;
  if (!cpu_history_.empty()) {
    const CpuTable& before = cpu_history_.front().table;
    if (const double pct = cpu_percent(before.all, next.table.all); pct >= 0)
      record.add("cpu_pct", rounded(pct));
    for (const CpuTable::Core& core : next.table.cores) {
      while (core_names_.size() <= core.number)
        core_names_.push_back("cpu" + std::to_string(core_names_.size()) + "_pct");
      const auto same = std::ranges::find(before.cores, core.number, &CpuTable::Core::number);
      if (same == before.cores.end()) continue;  // the core has just come up
      if (const double pct = cpu_percent(same->times, core.times); pct >= 0)
        record.add(core_names_[core.number], rounded(pct));
    }
  }
  cpu_history_.push_back(std::move(next));
}

void HostSampler::sample_slow(Clock::time_point now, Measurement& record) {
  if (now >= slow_due_) {
    slow_due_ = now + slow_interval;
    load_valid_ = parse_loadavg(loadavg_.read(), load_);
    for (Thermometer& t : thermometers_) t.valid = parse_temperature(t.file.read(), t.celsius);
  }
  if (load_valid_) record.add("load_1m", load_.one).add("load_5m", load_.five).add("load_15m", load_.fifteen);
  for (const Thermometer& t : thermometers_)
    if (t.valid) record.add(t.name, rounded(t.celsius));
}

void HostSampler::sample_memory(Measurement& record) {
  MemoryInfo memory;
  if (!parse_meminfo(meminfo_.read(), memory) || memory.total == 0) return;
  const double free = static_cast<double>(memory.available) / static_cast<double>(memory.total);
  record.add("mem_total_bytes", memory.total)
      .add("mem_available_bytes", memory.available)
      .add("mem_used_pct", rounded(100 - 100 * free))
      .add("swap_used_bytes", memory.swap_total - std::min(memory.swap_free, memory.swap_total));
}

void HostSampler::sample_disks(double seconds, Measurement& record) {
  parse_diskstats(diskstats_.read(), disks_);
  for (const DiskCounters& disk : disks_) {
    auto at = disk_rates_.find(disk.name);
    if (at == disk_rates_.end()) {
      const std::string prefix = "disk_" + as_name(disk.name) + "_";
      DiskRates rates{.read_bytes = prefix + "read_bytes_per_s",
                      .write_bytes = prefix + "write_bytes_per_s",
                      .reads = prefix + "reads_per_s",
                      .writes = prefix + "writes_per_s",
                      .busy = prefix + "busy_pct",
                      .last = {}};
      // Partitions have no folder here; loop, ram and mapped devices have no device behind them.
      std::error_code error;
      rates.physical = std::filesystem::exists(root_ / "sys/block" / disk.name / "device", error);
      at = disk_rates_.emplace(disk.name, std::move(rates)).first;
    }
    DiskRates& rates = at->second;
    if (!rates.physical) continue;
    if (!rates.fresh) {
      add_rate(record, rates.read_bytes, rates.last.read_bytes, disk.read_bytes, seconds);
      add_rate(record, rates.write_bytes, rates.last.written_bytes, disk.written_bytes, seconds);
      add_rate(record, rates.reads, rates.last.reads, disk.reads, seconds);
      add_rate(record, rates.writes, rates.last.writes, disk.writes, seconds);
      if (disk.busy_ms >= rates.last.busy_ms && seconds > 0) {
        const double busy_s = static_cast<double>(disk.busy_ms - rates.last.busy_ms) / 1000;
        record.add(rates.busy, rounded(std::min(100.0, 100 * busy_s / seconds)));
      }
    }
    rates.last = disk;
    rates.fresh = false;
  }
}

void HostSampler::sample_network(double seconds, Measurement& record) {
  parse_net_dev(net_dev_.read(), interfaces_);
  for (const NetworkCounters& interface : interfaces_) {
    auto at = network_rates_.find(interface.name);
    if (at == network_rates_.end()) {
      const std::string prefix = "net_" + as_name(interface.name) + "_";
      NetworkRates rates{.received_bytes = prefix + "rx_bytes_per_s",
                         .sent_bytes = prefix + "tx_bytes_per_s",
                         .received_packets = prefix + "rx_packets_per_s",
                         .sent_packets = prefix + "tx_packets_per_s",
                         .last = {}};
      rates.wanted = !is_virtual_interface(interface.name);
      at = network_rates_.emplace(interface.name, std::move(rates)).first;
    }
    NetworkRates& rates = at->second;
    if (!rates.wanted) continue;
    if (!rates.fresh) {
      add_rate(record, rates.received_bytes, rates.last.received_bytes, interface.received_bytes, seconds);
      add_rate(record, rates.sent_bytes, rates.last.sent_bytes, interface.sent_bytes, seconds);
      add_rate(record, rates.received_packets, rates.last.received_packets, interface.received_packets,
               seconds);
      add_rate(record, rates.sent_packets, rates.last.sent_packets, interface.sent_packets, seconds);
    }
    rates.last = interface;
    rates.fresh = false;
  }
}

// --- HostSource

HostSource::HostSource(Config config, Sink sink)
    : period_(std::chrono::nanoseconds(std::llround(1e9 / std::clamp(config.rate_hz, 0.1, 1000.0)))),
      sink_(std::move(sink)) {}

HostSource::~HostSource() { stop(); }

void HostSource::start() {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void HostSource::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

HostSource::Stats HostSource::stats() const {
  return {.target_s = std::chrono::duration<double>(period_).count(),
          .samples = samples_.load(std::memory_order_relaxed),
          .missed = missed_.load(std::memory_order_relaxed),
          .period = periods_.snapshot()};
}

bool HostSource::sleep_until(std::chrono::steady_clock::time_point deadline) const {
  while (!stopping_.load(std::memory_order_relaxed)) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return true;
    const auto until = std::min(deadline, now + stop_latency).time_since_epoch();
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
    const timespec at{.tv_sec = seconds.count(), .tv_nsec = static_cast<long>((until - seconds).count())};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
  }
  return false;
}

void HostSource::run() {
  pthread_setname_np(pthread_self(), "fulmar-host");
  prctl(PR_SET_TIMERSLACK, 1'000UL, 0UL, 0UL, 0UL);  // ns; 50 us is the default
  // Ahead of work that is not paced, where the system allows it: it takes little and should be on time.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), -15);
  HostSampler sampler;
  Measurement record;
  sampler.sample(std::chrono::steady_clock::now(), record);  // the base of the first rates

  // Deadlines are multiples of the period after the start, so that a late sample does not shift those that follow.
  auto deadline = std::chrono::steady_clock::now() + period_;
  auto last = std::chrono::steady_clock::time_point{};
  while (sleep_until(deadline)) {
    const auto now = std::chrono::steady_clock::now();
    if (last != std::chrono::steady_clock::time_point{}) periods_.record(now - last);
    last = now;
    record.clear(wall_clock_ms());
    sampler.sample(now, record);
    sink_(record);
    samples_.fetch_add(1, std::memory_order_relaxed);

    deadline += period_;
    const auto late = std::chrono::steady_clock::now() - deadline;
    if (late > std::chrono::nanoseconds::zero()) {
      const auto periods = late / period_ + 1;
      missed_.fetch_add(static_cast<std::uint64_t>(periods), std::memory_order_relaxed);
      deadline += periods * period_;
    }
  }
}

}  // namespace fulmar::telemetry
