#include "telemetry/batch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "telemetry/json_text.hpp"

namespace fulmar::telemetry {
namespace {

using Added = BatchBuilder::Added;
using testing::ElementsAre;
using testing::IsEmpty;

MeasurementView view(const Measurement& m) { return {m.ts_ms(), m.encoded()}; }

TEST(BatchBuilder, writes_the_thingsboard_array) {
  BatchBuilder batch(TelemetryConfig{}, "RUN");
  EXPECT_EQ(batch.add(view(Measurement(1000).add("a", 1.5).add("b", 2).add("c", false))), Added::yes);
  EXPECT_EQ(batch.add(view(Measurement(2000).add("s", "x\"y").add_json("j", R"({"k":[1]})"))), Added::yes);
  EXPECT_EQ(batch.finish(7), R"([{"ts":1000,"values":{"a":1.5,"b":2,"c":false}},)"
                             R"({"ts":2000,"values":{"s":"x\"y","j":{"k":[1]}}}])");
}

TEST(BatchBuilder, writes_an_array_for_a_single_record_too) {
  BatchBuilder batch(TelemetryConfig{}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  EXPECT_EQ(batch.finish(7), R"([{"ts":1,"values":{"a":1}}])");
}

TEST(BatchBuilder, wraps_the_batch_when_asked_to) {
  BatchBuilder batch(TelemetryConfig{.batch_wrapper = true}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  batch.add(view(Measurement(2).add("a", 2)));
  EXPECT_EQ(batch.finish(7), R"({"items":[{"ts":1,"values":{"a":1}},{"ts":2,"values":{"a":2}}],"count":2})");
}

TEST(BatchBuilder, says_in_the_wrapper_which_batch_it_is_when_asked_to) {
  BatchBuilder batch(TelemetryConfig{.batch_wrapper = true, .wrapper_sequence = true}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  EXPECT_EQ(batch.finish(7), R"({"items":[{"ts":1,"values":{"a":1}}],"count":1,"run":"RUN","batch":7})");
}

TEST(BatchBuilder, starts_anew_after_reset) {
  BatchBuilder batch(TelemetryConfig{.batch_size = 1}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  EXPECT_TRUE(batch.complete());
  EXPECT_EQ(batch.add(view(Measurement(2).add("a", 2))), Added::full);
  batch.finish(7);
  batch.reset();
  EXPECT_EQ(batch.add(view(Measurement(2).add("a", 2))), Added::yes);
  EXPECT_EQ(batch.finish(7), R"([{"ts":2,"values":{"a":2}}])");
}

TEST(BatchBuilder, a_finished_batch_can_be_offered_again_and_takes_nothing_more) {
  BatchBuilder batch(TelemetryConfig{}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  const std::string once(batch.finish(7));
  EXPECT_EQ(batch.add(view(Measurement(2).add("a", 2))), Added::full);
  EXPECT_EQ(batch.finish(7), once);
}

TEST(BatchBuilder, never_exceeds_batch_bytes_and_loses_nothing_at_the_edge) {
  for (const bool wrapper : {false, true}) {
    BatchBuilder batch(
        TelemetryConfig{.batch_bytes = 1000, .batch_wrapper = wrapper, .wrapper_sequence = wrapper}, "RUN");
    std::size_t records = 0, batches = 0;
    for (int i = 0; i < 200; ++i) {
      const Measurement m =
          Measurement(i + 1).add("name", std::string(static_cast<std::size_t>(i % 50), 'x'));
      if (batch.add(view(m)) == Added::full) {
        records += batch.count();
        ++batches;
        EXPECT_LE(batch.finish(7).size(), 1000u);
        EXPECT_EQ(check_json(batch.finish(7)), JsonKind::value) << batch.finish(7);
        batch.reset();
        ASSERT_EQ(batch.add(view(m)), Added::yes);
      }
    }
    EXPECT_EQ(records + batch.count(), 200u);
    EXPECT_GT(batches, 8u);
  }
}

TEST(BatchBuilder, a_record_over_batch_bytes_is_a_batch_of_its_own) {
  BatchBuilder batch(TelemetryConfig{.batch_bytes = 1000}, "RUN");
  const Measurement large = Measurement(1).add("text", std::string(5000, 'x'));
  EXPECT_EQ(batch.add(view(Measurement(1).add("a", 1))), Added::yes);
  EXPECT_EQ(batch.add(view(large)), Added::full);
  batch.finish(7);
  batch.reset();
  EXPECT_EQ(batch.add(view(large)), Added::yes);
  EXPECT_EQ(batch.add(view(Measurement(1).add("a", 1))), Added::full);
  EXPECT_GT(batch.finish(7).size(), 5000u);
}

TEST(BatchBuilder, keeps_only_the_fields_asked_for_and_knows_which_never_came) {
  BatchBuilder batch(TelemetryConfig{.fields = {"keep", "absent", "also"}}, "RUN");
  EXPECT_EQ(batch.add(view(Measurement(1).add("keep", 1).add("drop", 2).add("keepx", 3))), Added::yes);
  EXPECT_EQ(batch.add(view(Measurement(2).add("drop", 2))), Added::empty);
  EXPECT_EQ(batch.finish(7), R"([{"ts":1,"values":{"keep":1}}])");
  EXPECT_THAT(batch.fields_never_seen(), ElementsAre("absent", "also"));
  EXPECT_THAT(BatchBuilder(TelemetryConfig{}, "RUN").fields_never_seen(), IsEmpty());
}

TEST(BatchBuilder, leaves_out_nested_json_that_is_null_or_none_and_counts_the_latter) {
  BatchBuilder batch(TelemetryConfig{}, "RUN");
  EXPECT_EQ(batch.add(view(Measurement(1).add("a", 1).add_json("n", "null").add_json("bad", "{]"))),
            Added::yes);
  EXPECT_EQ(batch.add(view(Measurement(2).add_json("n", "null"))), Added::empty);
  EXPECT_EQ(batch.finish(7), R"([{"ts":1,"values":{"a":1}}])");
  EXPECT_EQ(batch.invalid_values(), 1u);
}

TEST(BatchBuilder, a_record_without_values_is_empty) {
  BatchBuilder batch(TelemetryConfig{}, "RUN");
  EXPECT_EQ(batch.add(view(Measurement(1))), Added::empty);
  EXPECT_EQ(batch.count(), 0u);
}

class Lines final : public BatchFormat {
 public:
  Lines() : BatchFormat({"", "\n", "\n"}) {}
  void append(std::string& payload, MeasurementView record) const override {
    append_values_object(payload, record);
  }
};

TEST(BatchBuilder, takes_a_format_of_the_users_own) {
  BatchBuilder batch(TelemetryConfig{.format = std::make_shared<Lines>()}, "RUN");
  batch.add(view(Measurement(1).add("a", 1)));
  batch.add(view(Measurement(2).add("a", 2)));
  EXPECT_EQ(batch.finish(7), "{\"a\":1}\n{\"a\":2}\n");
}

}  // namespace
}  // namespace fulmar::telemetry
