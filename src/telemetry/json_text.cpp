#include "telemetry/json_text.hpp"

#include <array>
#include <charconv>

#include <boost/json/basic_parser_impl.hpp>

namespace fulmar::telemetry {
namespace {

// Length of the valid UTF-8 sequence of two to four bytes at the start of `text`; 0 when there is none.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  std::size_t length = 0;
  unsigned char low = 0x80, high = 0xbf;  // what the second byte may be
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;   // no over-long forms
    if (lead == 0xed) high = 0x9f;  // no surrogates
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;  // nothing above U+10FFFF
  }
  if (length == 0 || text.size() < length || byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  return length;
}

void append_escaped(std::string& out, unsigned char c) {
  switch (c) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\b': out += "\\b"; return;
    case '\f': out += "\\f"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  constexpr std::string_view digits = "0123456789abcdef";
  out += "\\u00";
  out += digits[c >> 4];
  out += digits[c & 15];
}

constexpr bool plain(unsigned char c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

// Accepts every document and remembers only whether it is a bare null.
struct NullWatcher {
  static constexpr std::size_t max_object_size = std::size_t(-1);
  static constexpr std::size_t max_array_size = std::size_t(-1);
  static constexpr std::size_t max_key_size = std::size_t(-1);
  static constexpr std::size_t max_string_size = std::size_t(-1);
  using Ec = boost::json::error_code;
  using Text = boost::json::string_view;

  bool on_document_begin(Ec&) { return true; }
  bool on_document_end(Ec&) { return true; }
  bool on_object_begin(Ec&) { return enter(); }
  bool on_object_end(std::size_t, Ec&) { return leave(); }
  bool on_array_begin(Ec&) { return enter(); }
  bool on_array_end(std::size_t, Ec&) { return leave(); }
  bool on_key_part(Text, std::size_t, Ec&) { return true; }
  bool on_key(Text, std::size_t, Ec&) { return true; }
  bool on_string_part(Text, std::size_t, Ec&) { return true; }
  bool on_string(Text, std::size_t, Ec&) { return true; }
  bool on_number_part(Text, Ec&) { return true; }
  bool on_int64(std::int64_t, Text, Ec&) { return true; }
  bool on_uint64(std::uint64_t, Text, Ec&) { return true; }
  bool on_double(double, Text, Ec&) { return true; }
  bool on_bool(bool, Ec&) { return true; }
  bool on_null(Ec&) {
    is_null = depth == 0;
    return true;
  }
  bool on_comment_part(Text, Ec&) { return true; }
  bool on_comment(Text, Ec&) { return true; }

  bool enter() { return ++depth > 0; }
  bool leave() { return --depth >= 0; }

  int depth = 0;
  bool is_null = false;
};

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    std::size_t run = 0;
    while (run < text.size() && plain(static_cast<unsigned char>(text[run]))) ++run;
    out.append(text.substr(0, run));
    text.remove_prefix(run);
    if (text.empty()) break;
    const auto c = static_cast<unsigned char>(text.front());
    std::size_t used = 1;
    if (c < 0x80) {
      append_escaped(out, c);
    } else if (const std::size_t length = sequence_length(text)) {
      out.append(text.substr(0, length));
      used = length;
    } else {
      out += "\xef\xbf\xbd";
    }
    text.remove_prefix(used);
  }
  out += '"';
}

void append_json_number(std::string& out, std::int64_t value) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_json_number(std::string& out, double value) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

JsonKind check_json(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::json::basic_parser<NullWatcher> parser(options);
  boost::json::error_code error;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
  // The parser stops at the end of the document; only white space may follow.
  if (error || !parser.done() || text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    return JsonKind::invalid;
  return parser.handler().is_null ? JsonKind::null : JsonKind::value;
}

}  // namespace fulmar::telemetry
