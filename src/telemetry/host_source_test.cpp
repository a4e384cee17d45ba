#include "telemetry/host_source.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <latch>
#include <map>
#include <mutex>

namespace fulmar::telemetry {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::DoubleEq;
using testing::Key;
using testing::Not;
using testing::Pair;
namespace fs = std::filesystem;

// A root of our own with the files of /proc and /sys that the sampler reads.
class FakeHost {
 public:
  FakeHost() {
    std::string pattern = (fs::temp_directory_path() / "fulmar-host-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    for (const auto folder :
         {"proc/net", "sys/block/sda/device", "sys/block/loop0", "sys/class/thermal/thermal_zone0"})
      fs::create_directories(root_ / folder);
    write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
    write("sys/class/thermal/thermal_zone0/temp", "45500\n");
    write("proc/loadavg", "0.5 1 1.5 1/1 1\n");
    write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
    counters(0);
  }
  ~FakeHost() {
    std::error_code error;
    fs::remove_all(root_, error);
  }
  const fs::path& root() const { return root_; }

  // Rewrites the counters as they are after `t` units of work.
  void counters(unsigned t) {
    const auto n = [](unsigned value) { return std::to_string(value); };
    write("proc/stat", "cpu  " + n(25 * t) + " 0 0 " + n(1000 + 75 * t) + " 0 0 0 0 0 0\n" +  //
                           "cpu0 " + n(50 * t) + " 0 0 " + n(500 + 50 * t) + " 0 0 0 0 0 0\n");
    write("proc/diskstats", "8 0 sda " + n(10 * t) + " 0 " + n(200 * t) + " 0 " + n(20 * t) + " 0 " +
                                n(400 * t) + " 0 0 " + n(500 * t) +
                                " 0\n8 1 sda1 1 0 1 0 1 0 1 0 0 1 1\n7 0 loop0 1 0 1 0 1 0 1 0 0 1 1\n");
    write("proc/net/dev", "  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: " + n(1000 * t) + " " + n(10 * t) +
                              " 0 0 0 0 0 0 " + n(3000 * t) + " " + n(30 * t) + " 0 0 0 0 0 0\n");
  }

 private:
  // Files are kept open by the sampler, so they are rewritten in place.
  void write(const fs::path& path, const std::string& text) {
    std::ofstream(root_ / path, std::ios::trunc) << text;
  }
  fs::path root_;
};

std::map<std::string, double> values_of(const Measurement& m) {
  std::map<std::string, double> values;
  MeasurementView view(m.ts_ms(), m.encoded());
  while (const auto v = view.next())
    values[std::string(v->name)] =
        v->kind == MeasurementValue::Kind::integer ? static_cast<double>(v->integer) : v->number;
  return values;
}

TEST(HostSampler, computes_usage_and_rates_between_two_samples) {
  FakeHost host;
  HostSampler sampler(host.root());
  const HostSampler::Clock::time_point t0{1h};
  Measurement first, second;
  sampler.sample(t0, first);
  host.counters(1);
  sampler.sample(t0 + 2s, second);

  EXPECT_THAT(values_of(first), Not(Contains(Key("cpu_pct"))));
  EXPECT_THAT(values_of(first), Contains(Pair("mem_used_pct", DoubleEq(75))));
  const auto v = values_of(second);
  EXPECT_THAT(v, Contains(Pair("cpu_pct", DoubleEq(25))));
  EXPECT_THAT(v, Contains(Pair("cpu0_pct", DoubleEq(50))));
  EXPECT_THAT(v, Contains(Pair("load_5m", DoubleEq(1))));
  EXPECT_THAT(v, Contains(Pair("disk_sda_read_bytes_per_s", DoubleEq(100 * 512))));
  EXPECT_THAT(v, Contains(Pair("disk_sda_write_bytes_per_s", DoubleEq(200 * 512))));
  EXPECT_THAT(v, Contains(Pair("disk_sda_writes_per_s", DoubleEq(10))));
  EXPECT_THAT(v, Contains(Pair("disk_sda_busy_pct", DoubleEq(25))));
  EXPECT_THAT(v, Contains(Pair("net_eth0_rx_bytes_per_s", DoubleEq(500))));
  EXPECT_THAT(v, Contains(Pair("net_eth0_tx_packets_per_s", DoubleEq(15))));
  EXPECT_THAT(v, Contains(Pair("temp_x86_pkg_temp_c", DoubleEq(45.5))));
}

TEST(HostSampler, leaves_out_partitions_loop_devices_and_the_loopback) {
  FakeHost host;
  HostSampler sampler(host.root());
  Measurement m;
  for (unsigned i = 0; i < 3; ++i) {
    host.counters(i);
    m.clear();
    sampler.sample(HostSampler::Clock::time_point{1h + 1s * i}, m);
  }
  for (const auto& [name, value] : values_of(m)) {
    EXPECT_FALSE(name.starts_with("disk_sda1") || name.starts_with("disk_loop") || name.starts_with("net_lo"))
        << name;
  }
}

TEST(HostSampler, has_no_rate_when_a_counter_went_back) {
  FakeHost host;
  HostSampler sampler(host.root());
  Measurement m;
  host.counters(5);
  sampler.sample(HostSampler::Clock::time_point{1h}, m);
  host.counters(1);
  m.clear();
  sampler.sample(HostSampler::Clock::time_point{1h + 1s}, m);
  EXPECT_THAT(values_of(m), Not(Contains(Key("net_eth0_rx_bytes_per_s"))));
  EXPECT_THAT(values_of(m), Not(Contains(Key("cpu_pct"))));
  EXPECT_THAT(values_of(m), Contains(Key("mem_used_pct")));
}

TEST(HostSampler, looks_at_a_cpu_window_of_many_samples_when_sampling_fast) {
  FakeHost host;
  HostSampler sampler(host.root());
  Measurement m;
  // 1 ms apart with the counters moving only at the end of the window, as jiffies do.
  for (unsigned i = 0; i <= 200; ++i) {
    if (i == 195) host.counters(1);
    m.clear();
    sampler.sample(HostSampler::Clock::time_point{1h + 1ms * i}, m);
    if (i >= 195) {
      EXPECT_THAT(values_of(m), Contains(Pair("cpu_pct", DoubleEq(25)))) << i;
    }
  }
}

TEST(HostSampler, does_without_any_file) {
  HostSampler sampler("/nonexistent");
  Measurement m;
  sampler.sample(HostSampler::Clock::now(), m);
  EXPECT_TRUE(m.encoded().empty());
}

TEST(HostSampler, reads_this_machine) {
  HostSampler sampler;
  Measurement m;
  sampler.sample(HostSampler::Clock::now(), m);
  const auto v = values_of(m);
  EXPECT_THAT(v, Contains(Key("mem_total_bytes")));
  EXPECT_THAT(v, Contains(Key("load_1m")));
}

TEST(HostSource, samples_at_its_rate_and_measures_its_own_period) {
  std::mutex mutex;
  std::vector<std::int64_t> timestamps;
  HostSource source({.rate_hz = 200}, [&](const Measurement& m) {
    const std::lock_guard lock(mutex);
    timestamps.push_back(m.ts_ms());
  });
  source.start();
  for (int i = 0; i < 2000 && source.stats().samples < 50; ++i) std::this_thread::sleep_for(5ms);
  source.stop();
  const auto s = source.stats();
  ASSERT_GE(s.samples, 50u);
  EXPECT_DOUBLE_EQ(s.target_s, 0.005);
  EXPECT_EQ(s.samples, timestamps.size());
  EXPECT_EQ(s.period.count, s.samples - 1);
  EXPECT_GE(s.period.max, 4ms);
  EXPECT_GT(s.period.p50, 4ms);
  EXPECT_TRUE(std::ranges::is_sorted(timestamps));
}

TEST(HostSource, counts_the_periods_that_a_slow_sink_made_it_miss_and_keeps_to_its_grid) {
  std::atomic<int> calls{0};
  HostSource source({.rate_hz = 100}, [&](const Measurement&) {
    if (++calls == 2) std::this_thread::sleep_for(55ms);
  });
  source.start();
  for (int i = 0; i < 2000 && calls < 4; ++i) std::this_thread::sleep_for(5ms);
  source.stop();
  EXPECT_GE(source.stats().missed, 5u);
  EXPECT_GE(source.stats().period.max, 55ms);
}

TEST(HostSource, stops_promptly_while_it_sleeps_for_long) {
  HostSource source({.rate_hz = 0.1}, [](const Measurement&) {});
  source.start();
  const auto begin = std::chrono::steady_clock::now();
  source.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

}  // namespace
}  // namespace fulmar::telemetry
