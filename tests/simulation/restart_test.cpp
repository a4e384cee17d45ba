#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "allocation_meter.hpp"
#include "fulmar/mqtt/codec.hpp"
#include "restart_world.hpp"

namespace fulmar::simulation {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t worlds = 400;
#else
constexpr std::uint64_t worlds = 4'000;
#endif

TEST(Restart, delivers_every_message_of_the_log_exactly_once_wherever_the_process_was_killed) {
  RestartWorld::Totals sum;
  for (std::uint64_t seed = 1; seed <= worlds; ++seed) {
    RestartWorld world(seed);
    ASSERT_TRUE(world.run()) << world.report();
    const auto& totals = world.totals();
    sum.delivered += totals.delivered;
    sum.kills += totals.kills;
    sum.connections += totals.connections;
    sum.sessions_lost += totals.sessions_lost;
    sum.resumed_released += totals.resumed_released;
    sum.taken_back += totals.taken_back;
  }
  // Worlds in which nothing happens prove nothing.
  EXPECT_GT(sum.delivered, worlds * 10);
  EXPECT_GT(sum.kills, worlds * 5);
  EXPECT_GT(sum.connections, worlds * 10);
  EXPECT_GT(sum.sessions_lost, worlds / 2);
  EXPECT_GT(sum.resumed_released, worlds / 2);
  EXPECT_GT(sum.taken_back, worlds / 2);
  RecordProperty("delivered", std::to_string(sum.delivered));
  RecordProperty("kills", std::to_string(sum.kills));
  RecordProperty("resumed_released", std::to_string(sum.resumed_released));
}

// Several times round the identifiers, with a hundred in flight and gaps between their positions.
TEST(Restart, messages_of_the_log_allocate_nothing_in_the_steady_state) {
  using namespace mqtt;
  SessionConfig config;
  config.clean_start = false;
  config.session_expiry_s = 3'600;
  config.stored_ids = true;
  Session session(config);
  const Instant now{std::chrono::hours(1)};
  std::vector<std::byte> wire(1 << 16);
  std::byte answer[64];
  const auto receive = [&](const auto& packet) {
    session.receive({answer, encode(answer, packet, ProtocolVersion::v5)}, now);
  };
  session.connection_opened(now);
  session.transmit(wire, now);
  receive(ConnackView{false, 0, {}});
  Event event;
  while (session.next_event(event)) {
  }

  RecordParts parts;
  parts.topic = "t";
  parts.qos = QoS::exactly_once;
  std::vector<std::uint64_t> block(RecordView::size_for(parts) / 8);
  write_record(reinterpret_cast<std::byte*>(block.data()), parts);
  const RecordView record(reinterpret_cast<const std::byte*>(block.data()));
  std::uint64_t completed = 0;
  std::uint64_t before = 0;
  for (std::uint64_t i = 0; i < 60'000; ++i) {
    if (i == 20'000) before = AllocationMeter::allocations();
    const Metered metered;
    ASSERT_TRUE(session.publish_stored(record, i * 3, Resumed::fresh));
    session.transmit(wire, now);
    if (i < 100) continue;
    const auto position = (i - 100) * 3;
    const auto id = static_cast<std::uint16_t>(0x8000 + position % 0x4000);
    receive(AckView{PacketType::pubrec, id, ReasonCode::success, {}});
    ASSERT_TRUE(session.next_event(event));
    ASSERT_TRUE(std::holds_alternative<PubrecReceived>(event));
    ASSERT_FALSE(session.next_event(event));
    ASSERT_TRUE(session.release(position));
    receive(AckView{PacketType::pubcomp, id, ReasonCode::success, {}});
    while (session.next_event(event)) completed += std::holds_alternative<Completed>(event);
  }
  EXPECT_EQ(completed, 59'900u);
  EXPECT_EQ(AllocationMeter::allocations(), before);
  EXPECT_GT(before, 0u);
}

TEST(Restart, replays_one_seed) {
  const char* seed = std::getenv("FULMAR_SIM_SEED");
  if (seed == nullptr || *seed == '\0') GTEST_SKIP() << "set FULMAR_SIM_SEED as a failure has printed it";
  RestartWorld world(std::strtoull(seed, nullptr, 10));
  EXPECT_TRUE(world.run()) << world.report();
  if (std::getenv("FULMAR_SIM_HISTORY") != nullptr) std::puts(world.report().c_str());
}

}  // namespace
}  // namespace fulmar::simulation
