#pragma once
// RecordReader: records from text, JSON lines or CSV, however the bytes are cut.
//
// JSON, one object a line: {"ts":<ms>,"values":{"name":value,...}}, or flat: {"ts":<ms>,"name":value,...}. `ts` is the
// sample time in milliseconds since the epoch; absent or 0, record() fills it in. Nested objects and arrays are kept as
// JSON, their numbers as they were written.
//
// CSV [RFC 4180]: the first line names the columns. A column ts, timestamp or time is the sample time in milliseconds. A
// value is an integer, a number, true or false, or else text, whether quoted or not; 007 is a text, so that nothing of it is
// lost. White space around a value that is not quoted is no part of it. A quoted value may hold line ends.
//
// No values are null and, in CSV, nothing, null, nan and inf. Integers from -2^63 to 2^64-1 are kept exactly. Lines with
// nothing on them are skipped. LF and CR LF end a line. A byte order mark in front is skipped. RecordFormat::automatic: JSON
// when the first line begins with { or [, else CSV.
//
// Whatever is wrong with a line is told with its number and costs this line only; bounded by line_bytes_max.
//
// Not thread-safe. Pure: bytes in, records out.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/telemetry.hpp"

namespace fulmar::telemetry {

enum class RecordFormat : std::uint8_t { automatic, json, csv };
std::string_view to_string(RecordFormat format);                      // "auto", "json", "csv"
std::optional<RecordFormat> record_format_of(std::string_view name);  // by these names

// Adds a value of CSV to the record, its kind inferred as below. The text of what is wrong; empty when nothing is.
std::string add_inferred(Measurement& record, std::string_view name, std::string_view text);

struct BadLine {
  std::uint64_t line = 0;  // from 1; of a record over several lines the first
  std::string what;        // "not JSON: syntax error at column 7"
};

class RecordReader {
 public:
  static constexpr std::size_t line_bytes_default = std::size_t{1} << 20;

  explicit RecordReader(RecordFormat format, std::size_t line_bytes_max = line_bytes_default);

  // More of the text. Call next() until it says `more` before the next feed().
  void feed(std::string_view bytes);
  // There is no more: the last line may lack its end.
  void end();

  enum class Found : std::uint8_t {
    record,    // in `record`
    bad_line,  // in `bad`
    more,      // feed() or end() first
    nothing,   // the end
    unusable,  // in `bad`: the header of CSV makes no sense, so nothing behind it does; stays so
  };
  Found next(Measurement& record, BadLine& bad);

  std::uint64_t lines() const { return line_ - 1; }  // that have been read to their end
  // What has been fed and not yet come out, in bytes.
  std::size_t buffered() const { return buffer_.size() - begin_; }

 private:
  std::string_view rest() const { return std::string_view(buffer_).substr(begin_); }
  std::optional<std::string_view> front_line();  // without its end; nothing: it has not come to its end yet
  void consume(std::size_t bytes);  // whole lines from the front, the end of the last one included
  bool skip_line();                 // false: the rest of it is still to come
  Found bad_line(BadLine& bad, std::string what);
  Found too_long(BadLine& bad);
  // Nothing once the format is known; else what there is to say meanwhile.
  std::optional<Found> find_format(BadLine& bad);
  Found next_json(Measurement& record, BadLine& bad);
  Found next_csv(Measurement& record, BadLine& bad);
  std::string take_header();                       // empty, or what is wrong with it
  std::string put_row(Measurement& record) const;  // empty, or what is wrong with it

  enum class Cut : std::uint8_t { row, more, wrong };
  Cut cut_row(std::string& wrong);  // the row at the front into values_
  // Whether `text`, the front of rest(), goes to the end of a last row that is not too long.
  bool at_end(std::string_view text) const {
    return ended_ && text.size() == rest().size() && text.size() <= line_bytes_max_;
  }
  Cut cut_quoted(std::string_view text, std::size_t& at, std::string& wrong);
  Cut cut_plain(std::string_view text, std::size_t& at, std::string& wrong);
  Cut out_of_text(std::string& wrong) const;

  RecordFormat format_;
  const std::size_t line_bytes_max_;
  std::string buffer_;
  std::size_t begin_ = 0;   // of the text not yet consumed
  std::size_t seen_ = 0;    // bytes behind begin_ known to hold no line end
  std::uint64_t line_ = 1;  // number of the line at begin_
  bool begun_ = false;      // the byte order mark is behind us
  bool ended_ = false;
  bool skipping_ = false;  // the rest of an over-long line
  bool unusable_ = false;

  // CSV
  struct Column {
    std::string name;
    bool is_time = false;
  };
  std::vector<Column> columns_;
  struct Value {
    std::size_t begin = 0, size = 0;  // in unquoted_
  };
  std::vector<Value> values_;
  std::string unquoted_;
  std::size_t row_bytes_ = 0;  // of the row cut last, with its line end
};

}  // namespace fulmar::telemetry
