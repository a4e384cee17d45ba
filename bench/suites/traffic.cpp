#include "traffic.hpp"

#include <fmt/format.h>

#include <thread>

namespace fulmar::bench {
namespace {

using std::chrono::steady_clock;

constexpr auto pause_time = std::chrono::microseconds(50);
constexpr auto stuck_time_limit = std::chrono::seconds(30);

}  // namespace

std::int64_t steady_ns() { return std::chrono::nanoseconds(steady_clock::now().time_since_epoch()).count(); }

Traffic::Traffic(Driver& driver, SinkPage& sink, const Limits& limits)
    : driver_(driver),
      sink_(sink),
      limits_(limits),
      payload_(limits.payload_bytes, 'x'),
      sink_before_(sink.publishes_total()),
      violations_before_(sink.violations.load()) {}

Result<void> Traffic::publish(std::uint64_t count, double seconds) {
  const auto deadline = steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                                  std::chrono::duration<double>(std::min(seconds, 1e6)));
  std::uint64_t credit = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (credit == 0 || i % 256 == 0) {
      if (steady_clock::now() >= deadline) break;
      if (auto room = wait_for_room(credit); !room) return room;
    }
    if (!driver_.publish(publish_topic, payload_, limits_.qos)) return refused();
    --credit;
    ++published_;
  }
  return {};
}

Result<void> Traffic::drain() {
  const auto deadline = steady_clock::now() + stuck_time_limit;
  while (driver_.completed() < published_ || arrived() < published_) {
    if (steady_clock::now() > deadline) return stuck();
    std::this_thread::sleep_for(pause_time);
  }
  if (arrived() != published_ || sink_.violations.load() != violations_before_) {
    return fail(Errc::protocol_violation,
                fmt::format("the sink received {} messages of {} and {} malformed packets", arrived(),
                            published_, sink_.violations.load() - violations_before_));
  }
  return {};
}

std::uint64_t Traffic::burst(const CallClock& clock, Histogram* histogram, std::uint64_t deadline) {
  stamps_.resize(limits_.burst + 1);
  std::uint64_t refused = 0;
  std::uint64_t i = 0;
  for (; i < limits_.burst; ++i) {
    stamps_[i] = CallClock::now();
    if (stamps_[i] > deadline) break;
    if (!driver_.publish(publish_topic, payload_, limits_.qos)) ++refused;
  }
  if (i == limits_.burst) stamps_[i] = CallClock::now();
  published_ += i - refused;
  for (std::uint64_t call = 0; histogram != nullptr && call < i; ++call) {
    const auto ticks = stamps_[call + 1] - stamps_[call];
    histogram->add(ticks - std::min(ticks, clock.overhead_ticks()));
  }
  return refused;
}

Result<std::uint64_t> Traffic::in_flight_at_most(std::uint64_t window) {
  if (!sink_.become(SinkBehaviour::mute)) return fail(Errc::timeout, "the sink did not go mute");
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(window + 100, limits_.burst); ++i) {
    if (!driver_.publish(publish_topic, payload_, limits_.qos)) return refused();
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  return arrived() - published_;
}

std::int64_t Traffic::finished_ns(std::int64_t drained_ns) const {
  return limits_.qos == 0 ? sink_.last_publish_ns.load(std::memory_order_relaxed) : drained_ns;
}

std::unexpected<Error> Traffic::stuck() const {
  return fail(Errc::timeout,
              fmt::format("stuck for {} s: {} published, {} completed, {} arrived at the sink",
                          stuck_time_limit.count(), published_, driver_.completed(), arrived()));
}

Result<void> Traffic::wait_for_room(std::uint64_t& room) const {
  const auto free = [&] {
    const auto held = published_ - driver_.completed();
    return limits_.outstanding_max - std::min(held, limits_.outstanding_max);
  };
  room = free();
  for (const auto deadline = steady_clock::now() + stuck_time_limit; room == 0; room = free()) {
    if (steady_clock::now() > deadline) return stuck();
    std::this_thread::sleep_for(pause_time);
  }
  return {};
}

}  // namespace fulmar::bench
