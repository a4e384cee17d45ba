#include "telemetry/proc_text.hpp"

#include <gtest/gtest.h>

namespace fulmar::telemetry {
namespace {

TEST(ProcText, reads_the_total_and_every_core) {
  CpuTable table;
  ASSERT_TRUE(
      parse_stat("cpu  100 10 50 800 20 5 15 3 7 0\n"
                 "cpu0 60 10 30 400 10 5 5 0 7 0\n"
                 "cpu2 40 0 20 400 10 0 10 3 0 0\n"
                 "intr 12 3 4\nctxt 9\n",
                 table));
  EXPECT_EQ(table.all.busy, 100u + 10 + 50 + 5 + 15 + 3);  // guest time is part of user already
  EXPECT_EQ(table.all.total, table.all.busy + 820);
  ASSERT_EQ(table.cores.size(), 2u);
  EXPECT_EQ(table.cores[1].number, 2u);  // core 1 is offline
  EXPECT_EQ(table.cores[1].times.busy, 73u);
}

TEST(ProcText, reads_the_short_cpu_line_of_old_kernels_and_refuses_nonsense) {
  CpuTable table;
  EXPECT_TRUE(parse_stat("cpu  1 2 3 4\n", table));
  EXPECT_EQ(table.all.total, 10u);
  EXPECT_FALSE(parse_stat("", table));
  EXPECT_FALSE(parse_stat("cpu  x y z\n", table));
  EXPECT_TRUE(table.cores.empty());
}

TEST(ProcText, cpu_percent_is_the_busy_share_of_the_time_between) {
  EXPECT_DOUBLE_EQ(cpu_percent({100, 1000}, {125, 1100}), 25.0);
  EXPECT_DOUBLE_EQ(cpu_percent({100, 1000}, {200, 1100}), 100.0);
  EXPECT_LT(cpu_percent({100, 1000}, {100, 1000}), 0) << "no time passed";
  EXPECT_LT(cpu_percent({100, 1000}, {90, 1100}), 0) << "the counter went back";
}

TEST(ProcText, reads_the_load) {
  LoadAverage load;
  ASSERT_TRUE(parse_loadavg("0.52 1.25 10.00 2/345 6789\n", load));
  EXPECT_DOUBLE_EQ(load.one, 0.52);
  EXPECT_DOUBLE_EQ(load.five, 1.25);
  EXPECT_DOUBLE_EQ(load.fifteen, 10.0);
  EXPECT_FALSE(parse_loadavg("0.52 1.25\n", load));
  EXPECT_FALSE(parse_loadavg("", load));
}

TEST(ProcText, reads_memory_in_bytes) {
  MemoryInfo memory;
  ASSERT_TRUE(
      parse_meminfo("MemTotal:       2048 kB\nMemFree:         100 kB\nMemAvailable:   1024 kB\n"
                    "SwapTotal:       512 kB\nSwapFree:        256 kB\nDirty:  1 kB\n",
                    memory));
  EXPECT_EQ(memory.total, 2048u * 1024);
  EXPECT_EQ(memory.available, 1024u * 1024);
  EXPECT_EQ(memory.swap_total, 512u * 1024);
  EXPECT_EQ(memory.swap_free, 256u * 1024);
  EXPECT_FALSE(parse_meminfo("MemTotal: 2048 kB\n", memory));
}

TEST(ProcText, reads_disks_in_bytes_whatever_the_number_of_columns) {
  std::vector<DiskCounters> disks;
  parse_diskstats(
      "   8       0 sda 10 1 200 5 20 2 400 8 0 30 13\n"
      "   8       1 sda1 1 0 2 0 3 0 4 0 0 5 6 7 8 9 10 11 12\n"
      "garbage\n"
      " 259       0 nvme0n1 1 0 2 0\n",
      disks);
  ASSERT_EQ(disks.size(), 2u);
  EXPECT_EQ(disks[0].name, "sda");
  EXPECT_EQ(disks[0].reads, 10u);
  EXPECT_EQ(disks[0].read_bytes, 200u * 512);
  EXPECT_EQ(disks[0].writes, 20u);
  EXPECT_EQ(disks[0].written_bytes, 400u * 512);
  EXPECT_EQ(disks[0].busy_ms, 30u);
  EXPECT_EQ(disks[1].name, "sda1");
}

TEST(ProcText, reads_interfaces_with_and_without_a_space_after_the_colon) {
  std::vector<NetworkCounters> interfaces;
  parse_net_dev(
      "Inter-|   Receive                            |  Transmit\n"
      " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls\n"
      "    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n"
      "  eth0:1000 20 0 0 0 0 0 0 3000 40 0 0 0 0 0 0\n",
      interfaces);
  ASSERT_EQ(interfaces.size(), 2u);
  EXPECT_EQ(interfaces[0].name, "lo");
  EXPECT_EQ(interfaces[1].name, "eth0");
  EXPECT_EQ(interfaces[1].received_bytes, 1000u);
  EXPECT_EQ(interfaces[1].received_packets, 20u);
  EXPECT_EQ(interfaces[1].sent_bytes, 3000u);
  EXPECT_EQ(interfaces[1].sent_packets, 40u);
}

TEST(ProcText, knows_interfaces_that_are_not_the_machines_own) {
  for (const auto name : {"lo", "veth12ab", "ifb0", "dummy0", "br-12ab"})
    EXPECT_TRUE(is_virtual_interface(name)) << name;
  for (const auto name : {"eth0", "enp3s0", "wlan0", "lora0", "br0"})
    EXPECT_FALSE(is_virtual_interface(name)) << name;
}

TEST(ProcText, reads_temperatures_below_zero_too) {
  double celsius = 0;
  ASSERT_TRUE(parse_temperature("45500\n", celsius));
  EXPECT_DOUBLE_EQ(celsius, 45.5);
  ASSERT_TRUE(parse_temperature("-2000", celsius));
  EXPECT_DOUBLE_EQ(celsius, -2);
  EXPECT_FALSE(parse_temperature("", celsius));
  EXPECT_FALSE(parse_temperature("hot\n", celsius));
}

}  // namespace
}  // namespace fulmar::telemetry
