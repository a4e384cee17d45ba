#include "telemetry/record_reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "telemetry/batch.hpp"

namespace fulmar::telemetry {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Found = RecordReader::Found;

// A record as "TS {values}", a bad line as "LINE: what"; fed `step` bytes at a time.
std::vector<std::string> read(RecordFormat format, std::string_view text, std::size_t step = 1'000'000,
                              std::size_t line_bytes_max = RecordReader::line_bytes_default) {
  RecordReader reader(format, line_bytes_max);
  std::vector<std::string> seen;
  Measurement record;
  BadLine bad;
  for (;;) {
    switch (reader.next(record, bad)) {
      case Found::record: {
        std::string line = std::to_string(record.ts_ms()) + " ";
        append_values_object(line, {record.ts_ms(), record.encoded()});
        seen.push_back(line);
        break;
      }
      case Found::bad_line: seen.push_back(std::to_string(bad.line) + ": " + bad.what); break;
      case Found::unusable:
        seen.push_back("unusable " + std::to_string(bad.line) + ": " + bad.what);
        return seen;
      case Found::more:
        if (text.empty()) {
          reader.end();
        } else {
          reader.feed(text.substr(0, step));
          text.remove_prefix(std::min(step, text.size()));
        }
        break;
      case Found::nothing: return seen;
    }
    if (seen.size() > 1'000) return seen;
  }
}
std::vector<std::string> json(std::string_view text) { return read(RecordFormat::json, text); }
std::vector<std::string> csv(std::string_view text) { return read(RecordFormat::csv, text); }

// --- JSON

TEST(JsonLines, both_shapes_give_the_same_record) {
  EXPECT_THAT(json("{\"ts\":5,\"values\":{\"a\":1,\"b\":2.5}}\n{\"ts\":5,\"a\":1,\"b\":2.5}\n"),
              ElementsAre("5 {\"a\":1,\"b\":2.5}", "5 {\"a\":1,\"b\":2.5}"));
  EXPECT_THAT(json("{\"values\":{\"a\":1},\"ts\":7}"), ElementsAre("7 {\"a\":1}")) << "in any order";
}

TEST(JsonLines, every_kind_of_value_keeps_its_kind) {
  EXPECT_THAT(json(R"({"i":-3,"n":1e3,"t":true,"f":false,"s":"a\u00e9\n\"b","z":null,"e":""})"),
              ElementsAre(R"(0 {"i":-3,"n":1000,"t":true,"f":false,"s":"aé\n\"b","e":""})"));
}

TEST(JsonLines, nested_values_stay_json_with_their_numbers_as_written) {
  EXPECT_THAT(
      json(R"({"a": {"x" : [1, 2.50, {"y":null}, [], {}], "s":"q\"\u00e9"}, "b":[[true ,false]], "c":1})"),
      ElementsAre(R"(0 {"a":{"x":[1,2.50,{"y":null},[],{}],"s":"q\"é"},"b":[[true,false]],"c":1})"));
  EXPECT_THAT(json(R"({"ts":1,"values":{"pos":{"lat":53.1,"values":{"v":1}},"d":2}})"),
              ElementsAre(R"(1 {"pos":{"lat":53.1,"values":{"v":1}},"d":2})"));
  EXPECT_THAT(json(R"({"values":[1,2],"a":3})"), ElementsAre(R"(0 {"values":[1,2],"a":3})"))
      << "only an object called values is the other shape";
}

TEST(JsonLines, numbers_are_read_exactly) {
  EXPECT_THAT(
      json(R"({"a":0.1,"b":21.57,"c":123456789.123456789,"d":9007199254740993,"e":18446744073709551615})"),
      ElementsAre(R"(0 {"a":0.1,"b":21.57,"c":123456789.12345679,"d":9007199254740993,)"
                  R"("e":18446744073709551615})"));
  EXPECT_THAT(json(R"({"a":1e-999})"), ElementsAre(R"(0 {"a":0})"));
}

TEST(JsonLines, a_line_that_is_wrong_is_told_with_its_number_and_costs_no_other) {
  EXPECT_THAT(json("{\"a\":1}\n\n{\"a\":}\n{\"a\":2}\n"),
              ElementsAre("0 {\"a\":1}", "3: not JSON: syntax error at column 6", "0 {\"a\":2}"));
  EXPECT_THAT(json("{\"a\":1"), ElementsAre(HasSubstr("1: not JSON: incomplete JSON")));
  EXPECT_THAT(json("{\"a\":1} x"), ElementsAre("1: more text behind the object, at column 9"));
  EXPECT_THAT(json("[1]\n7\n\"x\"\nnull\n"),
              ElementsAre(HasSubstr("1: expected an object"), HasSubstr("2: expected an object"),
                          HasSubstr("3: expected an object"), HasSubstr("4: expected an object")));
  EXPECT_THAT(json("{\"a\":1e999}"), ElementsAre("1: 'a' is '1e999': more than a double can hold"));
  EXPECT_THAT(json("{\"values\":{\"a\":1},\"b\":2}"), ElementsAre(HasSubstr("'values' is not alone")));
  EXPECT_THAT(json("{\"values\":{\"a\":1},\"values\":{\"a\":2}}"), ElementsAre(HasSubstr("there twice")));
  EXPECT_THAT(json("{\"a\":\"\xff\"}"), ElementsAre(HasSubstr("1: not JSON:")));
}

TEST(JsonLines, the_time_is_in_milliseconds_or_the_line_is_wrong) {
  EXPECT_THAT(json("{\"ts\":1.7e12,\"a\":1}"), ElementsAre("1700000000000 {\"a\":1}"));
  EXPECT_THAT(json("{\"ts\":null,\"a\":1}"), ElementsAre("0 {\"a\":1}"));
  for (const std::string_view ts :
       {"\"2026-01-01\"", "true", "1.5", "{}", "[1]", "18446744073709551615", "1e300"})
    EXPECT_THAT(json("{\"ts\":" + std::string(ts) + ",\"a\":1}"),
                ElementsAre(HasSubstr("expected milliseconds since the epoch")))
        << ts;
}

// --- CSV

TEST(Csv, the_header_names_the_values_and_each_value_has_its_own_kind) {
  EXPECT_THAT(csv("ts,a,b,c,d\n5,1,2.5,true,idle\n6,-7,1e3,FALSE,on fire\n"),
              ElementsAre(R"(5 {"a":1,"b":2.5,"c":true,"d":"idle"})",
                          R"(6 {"a":-7,"b":1000,"c":false,"d":"on fire"})"));
}

TEST(Csv, the_time_may_have_one_of_three_names_and_stand_anywhere) {
  for (const std::string name : {"ts", "timestamp", "time", "Time"})
    EXPECT_THAT(csv("a," + name + "\n1,5\n2,\n"), ElementsAre("5 {\"a\":1}", "0 {\"a\":2}")) << name;
  EXPECT_THAT(csv("ts,time,a\n5,noon,1\n"), ElementsAre(R"(5 {"time":"noon","a":1})"));
  EXPECT_THAT(csv("ts,a\nnoon,1\n1.5,1\n"),
              ElementsAre("2: ts is 'noon': expected milliseconds since the epoch",
                          "3: ts is '1.5': expected milliseconds since the epoch"));
}

TEST(Csv, nothing_null_nan_and_inf_are_no_values) {
  EXPECT_THAT(csv("a,b,c,d,e,f\n,null,nan,inf,-inf,1\n"), ElementsAre("0 {\"f\":1}"));
  EXPECT_THAT(csv("a,b\n,\n"), ElementsAre("0 {}")) << "a record without a value, for the sender to count";
}

TEST(Csv, what_only_looks_like_a_number_stays_a_text) {
  EXPECT_THAT(csv("a,b,c,d,e\n007,1.2.3,0x10,12abc,--1\n"),
              ElementsAre(R"(0 {"a":"007","b":"1.2.3","c":"0x10","d":"12abc","e":"--1"})"));
  EXPECT_THAT(csv("a,b,c,d,e\n0,0.5,-0.5,+3,.5\n"),
              ElementsAre(R"(0 {"a":0,"b":0.5,"c":-0.5,"d":3,"e":0.5})"));
  EXPECT_THAT(csv("a,b\n18446744073709551615,99999999999999999999\n"),
              ElementsAre(R"(0 {"a":18446744073709551615,"b":1e+20})"));
  EXPECT_THAT(csv("a,b\n1e999,1\n1e-999,1\n"),
              ElementsAre("2: 'a' is '1e999': more than a double can hold", R"(0 {"a":0,"b":1})"));
}

TEST(Csv, quoted_values_may_hold_commas_quotes_and_line_ends) {
  EXPECT_THAT(csv("\"a,1\",b\n\"x, \"\"y\"\"\",\"two\nlines\"\n\"5\" , \"\"\n"),
              ElementsAre(R"(0 {"a,1":"x, \"y\"","b":"two\nlines"})", R"(0 {"a,1":5})"));
  EXPECT_THAT(csv("a\n\"1\n2\"\nx,y\n"), ElementsAre(HasSubstr("1\\n2"), HasSubstr("4: 2 values")))
      << "a record over two lines counts as two";
}

TEST(Csv, white_space_and_line_ends_of_all_kinds) {
  EXPECT_THAT(csv("\xef\xbb\xbf"
                  "a , b\r\n 1,\ttwo words \r\n\r\n\n3,4"),
              ElementsAre(R"(0 {"a":1,"b":"two words"})", R"(0 {"a":3,"b":4})"));
}

TEST(Csv, a_row_that_is_wrong_is_told_with_its_number_and_costs_no_other) {
  EXPECT_THAT(csv("a,b\n1\n1,2,3\n1,2\n"),
              ElementsAre("2: 1 value, but the header names 2 columns",
                          "3: 3 values, but the header names 2 columns", R"(0 {"a":1,"b":2})"));
  EXPECT_THAT(csv("a,b\n1,x\"y\n\"x\"y,2\n3,4\n"),
              ElementsAre(HasSubstr("2: a quote inside value 2"),
                          "3: text behind the closing quote of value 1", R"(0 {"a":3,"b":4})"));
  EXPECT_THAT(csv("a,b\n1,\"open\n3,4\n5,6\n"), ElementsAre("2: the quote of value 2 is not closed",
                                                            R"(0 {"a":3,"b":4})", R"(0 {"a":5,"b":6})"))
      << "a quote that is never closed does not take the rest of the file along";
}

TEST(Csv, a_header_that_makes_no_sense_is_the_end) {
  EXPECT_THAT(csv("a,,b\n1,2,3\n"), ElementsAre("unusable 1: the header gives column 2 no name"));
  EXPECT_THAT(csv("a,b,a\n"), ElementsAre("unusable 1: the header names 'a' twice"));
  EXPECT_THAT(csv("\n1,2.5\n"),
              ElementsAre(HasSubstr("unusable 2: the first line of CSV has to name the columns")));
  EXPECT_THAT(csv("ts\n5\n"), ElementsAre("unusable 1: the header names no column besides 'ts'"));
  EXPECT_THAT(csv("\"a\n1\n"), ElementsAre("unusable 1: the quote of value 1 is not closed"));
}

// --- both

TEST(RecordReader, how_the_bytes_are_cut_makes_no_difference) {
  const std::string jsons =
      "\n{\"ts\":5,\"values\":{\"a\":-12.5,\"s\":\"x\\\"\\u00e9\",\"n\":{\"k\":[1,2]}}}\r\n{\"a\":\n "
      "{\"b\":true} \n[1]";
  const std::string csvs =
      "\xef\xbb\xbf"
      "time,a,\"b \"\"c\"\"\"\r\n5,1,\"x\n,\"\"y\"\"\" \r\n\r\n6,2\n7,\"o\n8,1.5,z";
  for (const auto& text : {jsons, csvs}) {
    const auto whole = read(RecordFormat::automatic, text);
    EXPECT_GE(whole.size(), 4u);
    for (std::size_t step = 1; step < text.size(); ++step)
      EXPECT_EQ(read(RecordFormat::automatic, text, step), whole) << step;
  }
}

TEST(RecordReader, tells_json_from_csv_by_the_first_line) {
  EXPECT_THAT(read(RecordFormat::automatic, "\n \n{\"a\":1}\n"), ElementsAre("0 {\"a\":1}"));
  EXPECT_THAT(read(RecordFormat::automatic, "a\n1\n"), ElementsAre("0 {\"a\":1}"));
  EXPECT_THAT(read(RecordFormat::automatic, ""), ElementsAre());
  EXPECT_THAT(read(RecordFormat::automatic, " \n\n"), ElementsAre());
  EXPECT_THAT(read(RecordFormat::csv, "{\"a\":1}\n"),
              ElementsAre(HasSubstr("unusable 1: a quote inside value 1")));
}

TEST(RecordReader, an_over_long_line_is_skipped_in_bounded_memory) {
  const std::string line = "{\"a\":\"" + std::string(500, 'x') + "\"}\n";
  for (const std::size_t step : {1u, 7u, 10'000u}) {
    EXPECT_THAT(read(RecordFormat::json, line + "{\"a\":1}\n", step, 100),
                ElementsAre("1: longer than 100 bytes", "0 {\"a\":1}"));
    EXPECT_THAT(read(RecordFormat::csv, "a,b\n\"" + std::string(500, 'x') + "\",2\n3,4\n", step, 100),
                ElementsAre("2: longer than 100 bytes", R"(0 {"a":3,"b":4})"));
  }
  RecordReader reader(RecordFormat::json, 100);
  Measurement record;
  BadLine bad;
  std::size_t told = 0;
  for (int i = 0; i < 1'000; ++i) {
    reader.feed(std::string(1'000, 'x'));
    while (reader.next(record, bad) == Found::bad_line) ++told;
    EXPECT_LE(reader.buffered(), 1'100u);
  }
  EXPECT_EQ(told, 1u);
}

TEST(RecordReader, an_over_long_line_is_called_that_whatever_else_is_wrong_with_it) {
  const std::string blanks(200, ' ');
  for (const std::size_t step : {1u, 64u, 10'000u}) {
    EXPECT_THAT(read(RecordFormat::csv, "a\n" + blanks + "x\"y\n5\n", step, 100),
                ElementsAre("2: longer than 100 bytes", R"(0 {"a":5})"));
    EXPECT_THAT(read(RecordFormat::automatic, "\n" + blanks + "{\"a\":1}\n{\"a\":2}\n", step, 100),
                ElementsAre("2: longer than 100 bytes", R"(0 {"a":2})"));
  }
}

TEST(RecordReader, a_line_of_just_the_limit_is_taken) {
  const std::string line = "{\"a\":\"" + std::string(92, 'x') + "\"}";
  ASSERT_EQ(line.size(), 100u);
  EXPECT_EQ(read(RecordFormat::json, line + "\n", 1'000, 100).at(0).substr(0, 2), "0 ");
  EXPECT_EQ(read(RecordFormat::json, line + "\n", 1'000, 99).at(0), "1: longer than 99 bytes");
  for (const std::string end : {"", "\n"}) {
    EXPECT_THAT(read(RecordFormat::csv, "a,b\n" + std::string(98, 'x') + ",1" + end, 1'000, 100),
                ElementsAre(HasSubstr("\"b\":1")));
    EXPECT_THAT(read(RecordFormat::csv, "a,b\n" + std::string(98, 'x') + ",1" + end, 1'000, 99),
                ElementsAre("2: longer than 99 bytes"));
  }
}

TEST(RecordReader, counts_the_lines_it_has_read) {
  RecordReader reader(RecordFormat::automatic);
  Measurement record;
  BadLine bad;
  reader.feed("{\"a\":1}\n\n{\"a\":2}\n{");
  while (reader.next(record, bad) != Found::more) {
  }
  EXPECT_EQ(reader.lines(), 3u);
  reader.end();
  EXPECT_EQ(reader.next(record, bad), Found::bad_line);
  EXPECT_EQ(bad.line, 4u);
  EXPECT_EQ(reader.next(record, bad), Found::nothing);
  EXPECT_EQ(reader.lines(), 4u);
}

}  // namespace
}  // namespace fulmar::telemetry
