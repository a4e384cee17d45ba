#include "telemetry/record_reader.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include <boost/json/basic_parser_impl.hpp>

#include "telemetry/json_text.hpp"

namespace fulmar::telemetry {
namespace {

constexpr std::string_view blanks = " \t\r";
constexpr std::size_t name_bytes_max = std::numeric_limits<std::uint16_t>::max();

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// What a message shows of a text that may be long.
std::string shown(std::string_view text) {
  constexpr std::size_t shown_max = 40;
  if (text.size() > shown_max) return shown(text.substr(0, shown_max - 3)) + "...";
  std::string out = "'";
  for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '.' : c;
  return out + '\'';
}

bool same_word(std::string_view text, std::string_view lower) {
  return std::ranges::equal(text, lower, {}, [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
}

std::string bad_time(std::string_view name, std::string_view text) {
  return std::string(name) + " is " + shown(text) + ": expected milliseconds since the epoch";
}

// 1e308 is the end of a double; 1e-400 is nothing but a zero.
bool read_double(std::string_view text, double approximate, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) value = std::abs(approximate) < 1 ? 0 : HUGE_VAL;
  return std::isfinite(value);
}

std::optional<std::int64_t> whole_milliseconds(double value) {
  constexpr double exact_max = 9'007'199'254'740'992.0;  // 2^53
  if (!(std::abs(value) <= exact_max) || value != std::floor(value)) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

// Boost.JSON's parser tells what it comes across; the fields of the record are put together from that.
class RecordHandler {
 public:
  static constexpr std::size_t max_object_size = std::size_t(-1);
  static constexpr std::size_t max_array_size = std::size_t(-1);
  static constexpr std::size_t max_key_size = std::size_t(-1);
  static constexpr std::size_t max_string_size = std::size_t(-1);
  using Ec = boost::json::error_code;
  using Text = boost::json::string_view;

  explicit RecordHandler(Measurement& record) : record_(record) {}

  // What is wrong with the object though it is JSON; empty when nothing is.
  std::string problem() const {
    if (problem_.empty() && has_values_ && has_others_)
      return "'values' is not alone: expected {\"ts\":...,\"values\":{...}} or a flat object";
    return problem_;
  }

  bool on_document_begin(Ec&) { return true; }
  bool on_document_end(Ec&) { return true; }

  bool on_object_begin(Ec& ec) {
    if (depth_ == 0) return ++depth_ > 0;
    if (!nested() && depth_ == 1 && name_ == "values") {
      if (std::exchange(has_values_, true)) return wrong("'values' is there twice", ec);
      in_values_ = true;
      return ++depth_ > 0;
    }
    return open('{', ec);
  }
  bool on_object_end(std::size_t, Ec&) { return close('}'); }
  bool on_array_begin(Ec& ec) { return open('[', ec); }
  bool on_array_end(std::size_t, Ec&) { return close(']'); }

  bool on_key_part(Text part, std::size_t, Ec&) { return append(text_, part); }
  bool on_key(Text part, std::size_t, Ec& ec) {
    append(text_, part);
    if (nested()) {
      if (comma_due_) nested_ += ',';
      append_json_string(nested_, text_);
      nested_ += ':';
      comma_due_ = false;
    } else {
      name_ = text_;
    }
    text_.clear();
    return name_.size() <= name_bytes_max || wrong("a name is longer than 65535 bytes", ec);
  }
  bool on_string_part(Text part, std::size_t, Ec&) { return append(text_, part); }
  bool on_string(Text part, std::size_t, Ec& ec) {
    append(text_, part);
    bool good = true;
    if (nested()) {
      before_value();
      append_json_string(nested_, text_);
    } else if (is_time()) {
      good = wrong(bad_time(name_, text_), ec);
    } else if (field(ec)) {
      record_.add(name_, std::string_view(text_));
    } else {
      good = false;
    }
    text_.clear();
    return good;
  }
  bool on_number_part(Text part, Ec&) { return append(text_, part); }
  bool on_int64(std::int64_t value, Text part, Ec& ec) {
    append(text_, part);
    if (nested()) return nested_number();
    text_.clear();
    if (is_time()) return record_.at(value), true;
    if (!field(ec)) return false;
    record_.add(name_, value);
    return true;
  }
  bool on_uint64(std::uint64_t, Text part, Ec& ec) {
    append(text_, part);
    if (nested()) return nested_number();
    const std::string digits = std::exchange(text_, {});
    if (is_time()) return wrong(bad_time(name_, digits), ec);
    if (!field(ec)) return false;
    record_.add_json(name_, digits);  // exactly: neither an int64 nor a double holds it
    return true;
  }
  bool on_double(double approximate, Text part, Ec& ec) {
    append(text_, part);
    if (nested()) return nested_number();
    const std::string digits = std::exchange(text_, {});
    // Boost's own double may be off by one in the last place, which would show in the shortest text.
    double value = 0;
    if (!read_double(digits, approximate, value))
      return wrong(shown(name_) + " is " + shown(digits) + ": more than a double can hold", ec);
    if (is_time()) {
      const auto time = whole_milliseconds(value);
      if (time) record_.at(*time);
      return time || wrong(bad_time(name_, digits), ec);
    }
    if (!field(ec)) return false;
    record_.add(name_, value);
    return true;
  }
  bool on_bool(bool value, Ec& ec) {
    if (nested()) return word(value ? "true" : "false");
    if (is_time()) return wrong(bad_time(name_, value ? "true" : "false"), ec);
    if (!field(ec)) return false;
    record_.add(name_, value);
    return true;
  }
  bool on_null(Ec& ec) {
    if (nested()) return word("null");
    return is_time() || field(ec);
  }
  bool on_comment_part(Text, Ec&) { return true; }
  bool on_comment(Text, Ec&) { return true; }

 private:
  static bool append(std::string& to, Text part) {
    to.append(part.data(), part.size());
    return true;
  }
  bool nested() const { return nested_from_ > 0; }
  bool is_time() const { return depth_ == 1 && name_ == "ts"; }
  bool wrong(std::string what, Ec& ec) {
    problem_ = std::move(what);
    ec = boost::json::error::syntax;  // ends the parsing
    return false;
  }
  // A value begins that is a field's; false: it is nobody's.
  bool field(Ec& ec) {
    if (depth_ == 0) return wrong("expected an object: {\"name\":value,...}", ec);
    has_others_ = has_others_ || !in_values_;
    return true;
  }

  void before_value() {
    if (comma_due_) nested_ += ',';
    comma_due_ = true;
  }
  bool word(std::string_view text) {
    before_value();
    nested_ += text;
    return true;
  }
  bool nested_number() {
    word(text_);
    text_.clear();
    return true;
  }
  bool open(char bracket, Ec& ec) {
    if (!nested()) {
      if (is_time()) return wrong(bad_time(name_, std::string(1, bracket)), ec);
      if (!field(ec)) return false;
      nested_.clear();
      comma_due_ = false;
      nested_from_ = depth_;
    }
    before_value();
    nested_ += bracket;
    comma_due_ = false;
    return ++depth_ > 0;
  }
  bool close(char bracket) {
    --depth_;
    if (!nested()) {
      in_values_ = in_values_ && depth_ != 1;
      return true;
    }
    nested_ += bracket;
    comma_due_ = true;
    if (depth_ == nested_from_) {
      nested_from_ = 0;
      record_.add_json(name_, nested_);
    }
    return true;
  }

  Measurement& record_;
  std::string problem_;
  int depth_ = 0;  // open objects and arrays
  bool in_values_ = false, has_values_ = false, has_others_ = false;
  std::string name_;     // of the field
  std::string text_;     // a key, a text or a number that comes in parts
  int nested_from_ = 0;  // the depth around the nested value that is being copied
  std::string nested_;
  bool comma_due_ = false;
};

// Empty, or what is wrong.
std::string read_json_line(std::string_view line, Measurement& record) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::json::basic_parser<RecordHandler> parser(options, record);
  boost::json::error_code error;
  const std::size_t used = parser.write_some(false, line.data(), line.size(), error);
  if (auto problem = parser.handler().problem(); !problem.empty()) return problem;
  if (error)
    return "not JSON: " + error.message().substr(0, error.message().find(" [")) + " at column " +
           std::to_string(used + 1);
  const auto behind = line.find_first_not_of(blanks, used);
  if (behind != std::string_view::npos)
    return "more text behind the object, at column " + std::to_string(behind + 1);
  return {};
}

// [+-] and digits, without leading zeros; what comes behind them may be anything.
bool begins_as_number(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text.front() == '-' || text.front() == '+') return false;
  const bool leading_zero = text.size() > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9';
  return !leading_zero;
}

// The whole text as a Number; out_of_range tells the error apart from a text that is none.
template <typename Number>
std::errc read_whole(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return end == text.data() + text.size() ? error : std::errc::invalid_argument;
}

std::string put_time(Measurement& record, std::string_view name, std::string_view text) {
  if (text.empty()) return {};
  std::int64_t time = 0;
  if (read_whole(text, time) == std::errc{}) return record.at(time), std::string();
  double number = 0;
  if (read_whole(text, number) == std::errc{})
    if (const auto whole = whole_milliseconds(number)) return record.at(*whole), std::string();
  return bad_time(name, text);
}

}  // namespace

std::string_view to_string(RecordFormat format) {
  switch (format) {
    case RecordFormat::automatic: return "auto";
    case RecordFormat::json: return "json";
    case RecordFormat::csv: return "csv";
  }
  return "";
}

std::optional<RecordFormat> record_format_of(std::string_view name) {
  for (const auto format : {RecordFormat::automatic, RecordFormat::json, RecordFormat::csv})
    if (name == to_string(format)) return format;
  return std::nullopt;
}

std::string add_inferred(Measurement& record, std::string_view name, std::string_view text) {
  if (text.empty() || same_word(text, "null")) return {};
  if (same_word(text, "true")) return record.add(name, true), std::string();
  if (same_word(text, "false")) return record.add(name, false), std::string();
  if (!begins_as_number(text)) return record.add(name, text), std::string();
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  std::int64_t integer = 0;
  if (read_whole(digits, integer) == std::errc{}) return record.add(name, integer), std::string();
  std::uint64_t large = 0;
  if (read_whole(digits, large) == std::errc{}) return record.add_json(name, digits), std::string();
  double number = 0;
  const std::errc error = read_whole(digits, number);
  if (error == std::errc{}) return record.add(name, number), std::string();  // nan and inf are left out
  if (error != std::errc::result_out_of_range) return record.add(name, text), std::string();
  const auto exponent = std::min(digits.find_first_of("eE"), digits.size());
  if (digits.substr(exponent).contains('-')) return record.add(name, 0.0), std::string();
  return shown(name) + " is " + shown(text) + ": more than a double can hold";
}

RecordReader::RecordReader(RecordFormat format, std::size_t line_bytes_max)
    : format_(format), line_bytes_max_(line_bytes_max) {}

void RecordReader::feed(std::string_view bytes) {
  buffer_.erase(0, begin_);
  begin_ = 0;
  buffer_ += bytes;
}

void RecordReader::end() { ended_ = true; }

RecordReader::Found RecordReader::next(Measurement& record, BadLine& bad) {
  if (unusable_) return bad_line(bad, "the columns are not known"), Found::unusable;
  record.clear();
  if (const auto found = find_format(bad)) return *found;
  return format_ == RecordFormat::json ? next_json(record, bad) : next_csv(record, bad);
}

std::optional<RecordReader::Found> RecordReader::find_format(BadLine& bad) {
  constexpr std::string_view mark = "\xef\xbb\xbf";
  if (!begun_) {
    if (!ended_ && rest().size() < mark.size() && mark.starts_with(rest())) return Found::more;
    if (rest().starts_with(mark)) begin_ += mark.size();
    begun_ = true;
  }
  while (format_ == RecordFormat::automatic) {
    if (skipping_ && !skip_line()) return Found::more;
    const auto first = rest().find_first_not_of(blanks);
    if (first == std::string_view::npos || first > line_bytes_max_) {
      if (rest().size() > line_bytes_max_) return too_long(bad);
      if (!ended_) return Found::more;
      consume(rest().size());
      return Found::nothing;
    }
    if (rest()[first] == '\n')
      consume(first + 1);
    else
      format_ = rest()[first] == '{' || rest()[first] == '[' ? RecordFormat::json : RecordFormat::csv;
  }
  return std::nullopt;
}

std::optional<std::string_view> RecordReader::front_line() {
  const auto end = rest().find('\n', seen_);
  if (end != std::string_view::npos) return rest().substr(0, end);
  seen_ = rest().size();
  if (ended_ && !rest().empty()) return rest();
  return std::nullopt;
}

void RecordReader::consume(std::size_t bytes) {
  const auto gone = rest().substr(0, bytes);
  line_ += static_cast<std::uint64_t>(std::ranges::count(gone, '\n'));
  if (!gone.empty() && gone.back() != '\n' && ended_) ++line_;
  begin_ += gone.size();
  seen_ = 0;
}

bool RecordReader::skip_line() {
  const auto end = rest().find('\n');
  skipping_ = end == std::string_view::npos && !ended_;
  consume(end == std::string_view::npos ? rest().size() : end + 1);
  return !skipping_;
}

RecordReader::Found RecordReader::bad_line(BadLine& bad, std::string what) {
  bad = {.line = line_, .what = std::move(what)};
  return Found::bad_line;
}

RecordReader::Found RecordReader::too_long(BadLine& bad) {
  skipping_ = true;
  return bad_line(bad, "longer than " + std::to_string(line_bytes_max_) + " bytes");
}

RecordReader::Found RecordReader::next_json(Measurement& record, BadLine& bad) {
  for (;;) {
    if (skipping_ && !skip_line()) return Found::more;
    const auto line = front_line();
    if (!line && rest().size() <= line_bytes_max_) return ended_ ? Found::nothing : Found::more;
    if (!line || line->size() > line_bytes_max_) return too_long(bad);
    std::string wrong;
    const bool blank = trimmed(*line).empty();
    if (!blank) wrong = read_json_line(*line, record);
    const Found found = wrong.empty() ? Found::record : bad_line(bad, std::move(wrong));
    consume(line->size() + 1);
    if (!blank) return found;
  }
}

// --- CSV

RecordReader::Found RecordReader::next_csv(Measurement& record, BadLine& bad) {
  for (;;) {
    if (skipping_ && !skip_line()) return Found::more;
    if (rest().empty()) return ended_ ? Found::nothing : Found::more;
    std::string wrong;
    const Cut cut = cut_row(wrong);
    if (cut == Cut::more) return Found::more;
    const auto row = rest().substr(0, row_bytes_);
    if (cut == Cut::row && row.find_first_not_of(" \t\r\n") == std::string_view::npos) {
      consume(row_bytes_);
      continue;
    }
    if (columns_.empty()) {
      if (cut == Cut::row) wrong = take_header();
      unusable_ = !wrong.empty();
      if (unusable_) return bad_line(bad, std::move(wrong)), Found::unusable;
      consume(row_bytes_);
      continue;
    }
    if (cut == Cut::row) wrong = put_row(record);
    if (wrong.empty()) return consume(row_bytes_), Found::record;
    bad_line(bad, std::move(wrong));
    // A quote that is not closed would take the lines behind it along: only the first one is given up.
    if (cut == Cut::row)
      consume(row_bytes_);
    else
      skipping_ = true;
    return Found::bad_line;
  }
}

RecordReader::Cut RecordReader::out_of_text(std::string& wrong) const {
  if (rest().size() <= line_bytes_max_) return Cut::more;
  wrong = "longer than " + std::to_string(line_bytes_max_) + " bytes";
  return Cut::wrong;
}

// Looks no further than a row may go, so that an over-long one is called that whatever else is wrong with it.
RecordReader::Cut RecordReader::cut_row(std::string& wrong) {
  const std::string_view text = rest().substr(0, line_bytes_max_ + 1);
  values_.clear();
  unquoted_.clear();
  for (std::size_t at = 0;;) {
    const std::size_t begin = unquoted_.size();
    const auto first = std::min(text.find_first_not_of(" \t", at), text.size());
    const bool quoted = first < text.size() && text[first] == '"';
    if (quoted) at = first;
    const Cut cut = quoted ? cut_quoted(text, at, wrong) : cut_plain(text, at, wrong);
    if (cut != Cut::row) return cut;
    values_.push_back({.begin = begin, .size = unquoted_.size() - begin});
    if (at < text.size() && text[at] == ',') {
      ++at;
      continue;
    }
    row_bytes_ = std::min(at + 1, text.size());
    return Cut::row;
  }
}

// `at` is at the opening quote, and then at what comes behind the value: a comma, a line end, or the end.
RecordReader::Cut RecordReader::cut_quoted(std::string_view text, std::size_t& at, std::string& wrong) {
  const std::string which = "value " + std::to_string(values_.size() + 1);
  for (++at;;) {
    const auto quote = text.find('"', at);
    if (quote == std::string_view::npos) {
      if (!at_end(text)) return out_of_text(wrong);
      wrong = "the quote of " + which + " is not closed";
      return Cut::wrong;
    }
    unquoted_ += text.substr(at, quote - at);
    at = quote + 1;
    if (at < text.size() && text[at] == '"') {
      unquoted_ += '"';
      ++at;
      continue;
    }
    at = std::min(text.find_first_not_of(blanks, at), text.size());
    if (at == text.size() && !at_end(text)) return out_of_text(wrong);
    if (at == text.size() || text[at] == ',' || text[at] == '\n') return Cut::row;
    wrong = "text behind the closing quote of " + which;
    return Cut::wrong;
  }
}

RecordReader::Cut RecordReader::cut_plain(std::string_view text, std::size_t& at, std::string& wrong) {
  const auto end = std::min(text.find_first_of(",\n\"", at), text.size());
  if (end == text.size() && !at_end(text)) return out_of_text(wrong);
  if (end < text.size() && text[end] == '"') {
    wrong = "a quote inside value " + std::to_string(values_.size() + 1) +
            ": a value with quotes is quoted as a whole, and they are doubled";
    return Cut::wrong;
  }
  unquoted_ += trimmed(text.substr(at, end - at));
  at = end;
  return Cut::row;
}

std::string RecordReader::take_header() {
  std::vector<Column> columns;
  bool has_time = false, only_numbers = true;
  for (const Value& value : values_) {
    const auto name = std::string_view(unquoted_).substr(value.begin, value.size);
    const auto nth = "column " + std::to_string(columns.size() + 1);
    if (name.empty()) return "the header gives " + nth + " no name";
    if (name.size() > name_bytes_max) return "the name of " + nth + " is longer than 65535 bytes";
    if (std::ranges::find(columns, name, &Column::name) != columns.end())
      return "the header names " + shown(name) + " twice";
    const bool is_time =
        !has_time && (same_word(name, "ts") || same_word(name, "timestamp") || same_word(name, "time"));
    has_time = has_time || is_time;
    double number = 0;
    only_numbers = only_numbers && read_whole(name, number) == std::errc{};
    columns.push_back({.name = std::string(name), .is_time = is_time});
  }
  if (only_numbers) return "the first line of CSV has to name the columns; this one holds numbers";
  if (has_time && columns.size() == 1) return "the header names no column besides " + shown(columns[0].name);
  columns_ = std::move(columns);
  return {};
}

std::string RecordReader::put_row(Measurement& record) const {
  if (values_.size() != columns_.size())
    return std::to_string(values_.size()) + (values_.size() == 1 ? " value" : " values") +
           ", but the header names " + std::to_string(columns_.size()) + " columns";
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const auto text = std::string_view(unquoted_).substr(values_[i].begin, values_[i].size);
    std::string wrong = columns_[i].is_time ? put_time(record, columns_[i].name, text)
                                            : add_inferred(record, columns_[i].name, text);
    if (!wrong.empty()) return wrong;
  }
  return {};
}

}  // namespace fulmar::telemetry
