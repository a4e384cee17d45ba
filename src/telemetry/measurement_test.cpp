#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "fulmar/telemetry.hpp"

namespace fulmar {
namespace {

using Kind = MeasurementValue::Kind;

std::vector<MeasurementValue> values_of(const Measurement& m) {
  std::vector<MeasurementValue> values;
  MeasurementView view(m.ts_ms(), m.encoded());
  while (const auto value = view.next()) values.push_back(*value);
  return values;
}

TEST(Measurement, gives_back_every_kind_of_value_in_the_order_of_add) {
  Measurement m(1234);
  m.add("d", 1.5).add("i", 42).add("t", true).add("s", "text").add_json("j", "[1,2]");
  EXPECT_EQ(m.ts_ms(), 1234);
  const auto v = values_of(m);
  ASSERT_EQ(v.size(), 5u);
  EXPECT_EQ(v[0].name, "d");
  EXPECT_EQ(v[0].kind, Kind::number);
  EXPECT_EQ(v[0].number, 1.5);
  EXPECT_EQ(v[1].kind, Kind::integer);
  EXPECT_EQ(v[1].integer, 42);
  EXPECT_EQ(v[2].kind, Kind::boolean);
  EXPECT_TRUE(v[2].boolean);
  EXPECT_EQ(v[3].kind, Kind::text);
  EXPECT_EQ(v[3].text, "text");
  EXPECT_EQ(v[4].kind, Kind::json);
  EXPECT_EQ(v[4].text, "[1,2]");
}

TEST(Measurement, leaves_out_nan_and_infinities) {
  Measurement m;
  m.add("nan", std::nan(""))
      .add("inf", std::numeric_limits<double>::infinity())
      .add("f", -INFINITY)
      .add("ok", 1.0);
  const auto v = values_of(m);
  ASSERT_EQ(v.size(), 1u);
  EXPECT_EQ(v[0].name, "ok");
}

TEST(Measurement, an_unsigned_value_over_int64_becomes_a_number_and_not_negative) {
  Measurement m;
  m.add("big", std::numeric_limits<std::uint64_t>::max()).add("fits", std::uint64_t{7});
  const auto v = values_of(m);
  ASSERT_EQ(v.size(), 2u);
  EXPECT_EQ(v[0].kind, Kind::number);
  EXPECT_EQ(v[0].number, 18446744073709551616.0);
  EXPECT_EQ(v[1].integer, 7);
}

TEST(Measurement, grows_over_one_kibibyte_without_losing_what_was_there) {
  Measurement m;
  const std::string long_text(900, 'x');
  m.add("first", 1).add("a", long_text).add("b", long_text).add("last", 2);
  auto v = values_of(m);
  ASSERT_EQ(v.size(), 4u);
  EXPECT_EQ(v[0].integer, 1);
  EXPECT_EQ(v[2].text, long_text);
  EXPECT_EQ(v[3].integer, 2);

  m.clear(5);
  m.add("again", 3);
  v = values_of(m);
  ASSERT_EQ(v.size(), 1u);
  EXPECT_EQ(v[0].integer, 3);
  EXPECT_EQ(m.ts_ms(), 5);
}

TEST(Measurement, fills_its_inline_space_to_the_last_byte) {
  Measurement m;
  m.add("n", std::string(1024 - 7 - 1, 'x'));
  EXPECT_EQ(m.encoded().size(), 1024u);
  m.add("", "");
  EXPECT_EQ(values_of(m).size(), 2u);
}

TEST(Measurement, leaves_out_a_name_that_is_too_long) {
  Measurement m;
  m.add(std::string(65'536, 'n'), 1).add(std::string(65'535, 'n'), 2);
  const auto v = values_of(m);
  ASSERT_EQ(v.size(), 1u);
  EXPECT_EQ(v[0].integer, 2);
}

}  // namespace
}  // namespace fulmar
