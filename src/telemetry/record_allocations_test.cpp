// record() and the building of a record allocate nothing, in every state of the queue. Replaces operator new for the whole
// test program, to count what the calling thread allocates.

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <string>

#include "telemetry/pipeline.hpp"

namespace {
thread_local std::size_t allocations = 0;
}

// GCC takes free() for the wrong partner of a `new` that it has inlined.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(std::size_t size) {
  ++allocations;
  if (void* block = std::malloc(size)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }

namespace fulmar::telemetry {
namespace {

// What building and recording a record of about `bytes` allocates on this thread, `count` times.
std::size_t allocated_by(Pipeline& pipeline, Measurement& m, std::size_t bytes, int count) {
  const std::string text(bytes - 100, 'x');
  const std::size_t before = allocations;
  for (int i = 0; i < count; ++i) {
    m.clear();
    m.add("n", 21.5).add("i", i).add("b", true).add("text", text).add_json("j", R"({"x":1})");
    pipeline.record(m.ts_ms(), m.encoded());
  }
  return allocations - before;
}

TEST(Record, allocates_nothing_up_to_1_KiB_whatever_the_state) {
  auto pipeline = std::make_shared<Pipeline>(
      [](std::string_view, BytesView, const PublishOptions&, DeliveryHandler handler) {
        handler({.outcome = Delivery::Outcome::acknowledged});
        return Result<MessageId>(1);
      },
      TelemetryConfig{
          .queue_capacity = 1'000, .batch_size = 10, .batch_interval = std::chrono::milliseconds(10)});
  Measurement m;
  EXPECT_EQ(allocated_by(*pipeline, m, 1'024, 900), 0u) << "before start()";
  EXPECT_EQ(allocated_by(*pipeline, m, 1'024, 900), 0u) << "the queue is full";
  EXPECT_GT(pipeline->stats().dropped.queue_full, 0u);
  pipeline->start();
  EXPECT_EQ(allocated_by(*pipeline, m, 1'024, 10'000), 0u) << "the sender runs";
  pipeline->stop(Pipeline::Clock::now() + std::chrono::seconds(20));
  EXPECT_EQ(allocated_by(*pipeline, m, 1'024, 10), 0u) << "after stop()";
  EXPECT_GT(allocated_by(*pipeline, m, 4'096, 1), 0u) << "the counter counts";
}

}  // namespace
}  // namespace fulmar::telemetry
