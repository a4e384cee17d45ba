#pragma once
// Traffic: one connected library, what was published through it and what the sink saw of it.
//
// Every phase ends with a comparison of the sink's count with ours: a difference fails the run.
//
// Not thread-safe: of the one thread that publishes.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "driver.hpp"
#include "harness.hpp"
#include "sink.hpp"

namespace fulmar::bench {

inline constexpr std::string_view publish_topic = "bench/publish/topic1";
static_assert(publish_topic.size() == 20);

std::int64_t steady_ns();  // of the steady clock, as in SinkPage

class Traffic {
 public:
  struct Limits {
    unsigned qos = 0;
    unsigned payload_bytes = 100;
    std::uint64_t outstanding_max = 1;  // messages left with the library before it is waited for
    std::uint64_t burst = 10'000;       // messages of one burst
  };

  Traffic(Driver& driver, SinkPage& sink, const Limits& limits);

  // Publishes until `count` messages or `seconds` are over, with back-pressure.
  Result<void> publish(std::uint64_t count, double seconds);
  // Waits until all is completed and in the sink.
  Result<void> drain();
  // One burst, every call timed, until `deadline` in ticks; `histogram` may be nullptr. Returns the number of calls
  // that the library refused; counts them as published only when they were taken.
  std::uint64_t burst(const CallClock& clock, Histogram* histogram, std::uint64_t deadline = UINT64_MAX);
  // After drain(): how many messages a library sends that gets no acknowledgement. The last thing that a run can do.
  Result<std::uint64_t> in_flight_at_most(std::uint64_t window);

  std::uint64_t published() const { return published_; }
  // When the last message had come through; call it after drain().
  std::int64_t finished_ns(std::int64_t drained_ns) const;
  const std::string& payload() const { return payload_; }

 private:
  static std::unexpected<Error> refused() { return fail(Errc::outbox_full, "the library refused a message"); }
  std::unexpected<Error> stuck() const;
  Result<void> wait_for_room(std::uint64_t& room) const;
  std::uint64_t arrived() const { return sink_.publishes_total() - sink_before_; }

  Driver& driver_;
  SinkPage& sink_;
  const Limits limits_;
  const std::string payload_;
  const std::uint64_t sink_before_;
  const std::uint64_t violations_before_;
  std::uint64_t published_ = 0;
  std::vector<std::uint64_t> stamps_;
};

}  // namespace fulmar::bench
