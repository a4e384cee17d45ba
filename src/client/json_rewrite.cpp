#include "client/json_rewrite.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include <boost/json/basic_parser_impl.hpp>

namespace fulmar {
namespace {

void append_escape(std::string& out, unsigned char c) {
  constexpr std::string_view named = "\"\\\b\f\n\r\t";
  constexpr std::string_view letters = "\"\\bfnrt";
  constexpr std::string_view digits = "0123456789abcdef";
  out += '\\';
  if (const auto at = named.find(static_cast<char>(c)); at != std::string_view::npos) {
    out += letters[at];
  } else {
    out += "u00";
    out += digits[c >> 4];
    out += digits[c & 15];
  }
}

template <typename Number>
void append_digits(std::string& out, Number number) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
  out.append(text.data(), end);
}

template <typename Number>
bool is_number(std::string_view text, Number& into) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc{} && end == text.data() + text.size();
}

void append_canonical_number(std::string& out, std::string_view text) {
  std::int64_t small = 0;
  if (is_number(text, small)) return append_digits(out, small);
  std::uint64_t large = 0;
  if (is_number(text, large)) return append_digits(out, large);
  double value = 0;
  if (!is_number(text, value)) {
    out.append(text);
    return;
  }
  // 2^63 and 2^64 are exact doubles, the greatest integers below are not.
  if (std::trunc(value) == value && value >= -0x1p63 && value < 0x1p64) {
    if (value < 0x1p63) return append_digits(out, static_cast<std::int64_t>(value));
    return append_digits(out, static_cast<std::uint64_t>(value));
  }
  append_digits(out, value);
}

}  // namespace

void append_json_text(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain, i - plain);
    append_escape(out, c);
    plain = i + 1;
  }
  out.append(text, plain);
  out += '"';
}

void append_json_seconds(std::string& out, double value) {
  std::array<char, 400> text;  // 1.8e308 has 309 digits, 4.9e-324 has 326 characters
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed).ptr;
  const std::string_view digits(text.data(), end);
  out += digits;
  if (!digits.contains('.')) out += ".0";
}

void JsonRewriter::start(std::string& out, JsonStyle style) {
  out_ = &out;
  style_ = style;
  levels_.clear();
  members_.clear();
}

void JsonRewriter::element() {
  if (levels_.empty() || levels_.back().object) return;  // a member's comma stands before its name
  if (!levels_.back().empty) *out_ += ',';
  levels_.back().empty = false;
}

void JsonRewriter::begin(char bracket, bool object) {
  element();
  *out_ += bracket;
  levels_.push_back({object, true, members_.size()});
}

void JsonRewriter::key(std::string_view name) {
  auto& level = levels_.back();
  if (!level.empty) {
    if (style_ == JsonStyle::canonical) members_.back().end = out_->size();
    *out_ += ',';
  }
  level.empty = false;
  const std::size_t begin = out_->size();
  append_json_text(*out_, name);
  if (style_ == JsonStyle::canonical) members_.push_back({begin, out_->size(), 0});
  *out_ += ':';
}

void JsonRewriter::end_object() {
  const auto level = levels_.back();
  levels_.pop_back();
  if (style_ == JsonStyle::canonical && !level.empty) {
    members_.back().end = out_->size();
    sort_members(level.first_member);
    members_.resize(level.first_member);
  }
  *out_ += '}';
}

void JsonRewriter::end_array() {
  levels_.pop_back();
  *out_ += ']';
}

void JsonRewriter::sort_members(std::size_t first) {
  const std::span members(members_.begin() + static_cast<std::ptrdiff_t>(first), members_.end());
  const auto name = [this](const Member& member) {  // between its quotes
    return std::string_view(*out_).substr(member.begin + 1, member.name_end - member.begin - 2);
  };
  const auto before = [&](const Member& a, const Member& b) {
    const auto order = name(a) <=> name(b);
    return order < 0 || (order == 0 && a.begin < b.begin);
  };
  if (std::ranges::is_sorted(members, before)) return;
  const std::size_t begin = members.front().begin;
  std::ranges::sort(members, before);
  sorted_.clear();
  for (const auto& member : members) {
    if (!sorted_.empty()) sorted_ += ',';
    sorted_.append(*out_, member.begin, member.end - member.begin);
  }
  out_->replace(begin, sorted_.size(), sorted_);
}

void JsonRewriter::string(std::string_view text) {
  element();
  append_json_text(*out_, text);
}

void JsonRewriter::number(std::string_view text) {
  element();
  if (style_ == JsonStyle::canonical) {
    append_canonical_number(*out_, text);
  } else {
    out_->append(text);
  }
}

namespace {

// Passes on what the parser sees.
struct Copier {
  static constexpr std::size_t max_object_size = std::size_t(-1);
  static constexpr std::size_t max_array_size = std::size_t(-1);
  static constexpr std::size_t max_key_size = std::size_t(-1);
  static constexpr std::size_t max_string_size = std::size_t(-1);
  using Ec = boost::json::error_code;
  using Text = boost::json::string_view;

  explicit Copier(JsonRewriter& rewriter) : to(rewriter) {}

  bool on_document_begin(Ec&) { return true; }
  bool on_document_end(Ec&) { return true; }
  bool on_object_begin(Ec&) { return to.begin_object(), true; }
  bool on_object_end(std::size_t, Ec&) { return to.end_object(), true; }
  bool on_array_begin(Ec&) { return to.begin_array(), true; }
  bool on_array_end(std::size_t, Ec&) { return to.end_array(), true; }
  bool on_key_part(Text part, std::size_t, Ec&) { return keep(part); }
  bool on_key(Text last, std::size_t, Ec&) {
    to.key(whole(last));
    pieces.clear();
    return true;
  }
  bool on_string_part(Text part, std::size_t, Ec&) { return keep(part); }
  bool on_string(Text last, std::size_t, Ec&) {
    to.string(whole(last));
    pieces.clear();
    return true;
  }
  bool on_number_part(Text, Ec&) { return true; }  // not with all the text at hand
  bool on_int64(std::int64_t, Text text, Ec&) { return number(text); }
  bool on_uint64(std::uint64_t, Text text, Ec&) { return number(text); }
  bool on_double(double, Text text, Ec&) { return number(text); }
  bool on_bool(bool value, Ec&) { return to.literal(value ? "true" : "false"), true; }
  bool on_null(Ec&) { return to.literal("null"), true; }
  bool on_comment_part(Text, Ec&) { return true; }
  bool on_comment(Text, Ec&) { return true; }

  bool number(Text text) { return to.number({text.data(), text.size()}), true; }
  bool keep(Text part) { return pieces.append(part.data(), part.size()), true; }
  std::string_view whole(Text last) {
    if (pieces.empty()) return {last.data(), last.size()};
    keep(last);
    return pieces;
  }

  JsonRewriter& to;
  std::string pieces;
};

}  // namespace

std::optional<std::string> rewrite_json_object(std::string_view text, JsonStyle style, std::size_t depth_max,
                                               std::string& out) {
  if (const auto first = text.find_first_not_of(" \t\r\n");
      first == std::string_view::npos || text[first] != '{') {
    return "is not a JSON object";
  }
  JsonRewriter rewriter;
  rewriter.start(out, style);
  boost::json::parse_options options;
  options.max_depth = depth_max;
  boost::json::basic_parser<Copier> parser(options, rewriter);
  boost::json::error_code ec;
  const auto used = parser.write_some(false, text.data(), text.size(), ec);
  if (!ec && used != text.size()) ec = boost::json::error::extra_data;
  if (!ec) return std::nullopt;
  return "is not valid JSON of at most " + std::to_string(depth_max) + " levels: " + ec.message();
}

}  // namespace fulmar
