#pragma once
// Workload: what one child process of bench_publish does with one library in one configuration.
//
//   burst      messages published back to back that the library has room for, then everything drained and
//              2 ms of quiet, so that each burst finds the network thread asleep; every call is timed. The
//              first 100,000 messages only touch the library's memory.
//   sustained  as many messages as go through, the caller waiting whenever the library holds
//              `outstanding_max`; from the first call to the last acknowledgement (QoS 1) or the sink's last
//              read (QoS 0).
//   counts     a shorter sustained run with the probes for allocations and system calls switched on; in a
//              process of its own, so that the probes do not slow what is timed. QoS 1: at the end the sink
//              goes mute, and no more than the window may arrive.
//
// Every phase ends with a comparison of the sink's count with ours: a difference fails the run.

#include <cstdint>
#include <string>
#include <vector>

#include "driver.hpp"
#include "harness.hpp"

namespace fulmar::bench {

struct Case {
  std::string library;
  unsigned qos = 0;
  unsigned window = 0;  // as configured; QoS 0 does not use it
  unsigned payload_bytes = 100;
  std::uint64_t burst = 10'000;  // messages per burst
  std::uint64_t messages = 0;    // of the sustained run; 0 = as many as take `seconds`
  double seconds = 1;
  std::uint64_t outstanding = 0;  // 0 = the library's own
  bool counts = false;            // counts instead of burst and sustained
  std::uint16_t sink_port = 0;
  int sink_page_fd = -1;

  std::vector<std::string> to_arguments() const;  // "--child", then the members in order
  static Result<Case> from_arguments(const std::vector<std::string>& arguments);
};

std::vector<Library> libraries();

// Names as in Row (report.hpp).
Result<Figures> run_case(const Case& which);

}  // namespace fulmar::bench
