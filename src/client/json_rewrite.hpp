#pragma once
// JsonRewriter: writes a JSON value again, on one line, from the events of a parser that has checked it.
//
// compact    what was written, without white space; numbers keep their digits, so nothing is lost.
// canonical  the same text for the same value, whoever wrote it, today and in later versions:
//   - the members of each object sorted by the bytes of their names as written here; equal names stay in their order;
//   - strings with the shortest escape that JSON has: \" \\ \b \f \n \r \t, \u00xx in small letters for the other control
//     characters, everything else as UTF-8;
//   - integers of -2^63..2^64-1 by their digits, -0 as 0. A number with a fraction or an exponent, or beyond that range, is
//     the nearest IEEE double; when that is an integer of the range, by its digits too (1.0 and 1e0 as 1), else as the
//     shortest decimal that reads back as the same double (std::to_chars: 0.1, 1e+20); beyond a double as it was written.
//
// Not thread-safe. Keeps its memory from one start() to the next.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fulmar {

enum class JsonStyle : std::uint8_t { compact, canonical };

class JsonRewriter {
 public:
  // Appends to `out`, which outlives the value.
  void start(std::string& out, JsonStyle style);

  void begin_object() { begin('{', true); }
  void end_object();
  void begin_array() { begin('[', false); }
  void end_array();
  void key(std::string_view name);  // unescaped
  void string(std::string_view text);
  void number(std::string_view text);
  void literal(std::string_view text) { element(), out_->append(text); }  // true, false, null

 private:
  struct Member {  // where it stands in the text
    std::size_t begin, name_end, end;
  };
  struct Level {
    bool object;
    bool empty;
    std::size_t first_member;  // in members_
  };

  void begin(char bracket, bool object);
  void element();
  void sort_members(std::size_t first);

  std::string* out_ = nullptr;
  JsonStyle style_ = JsonStyle::compact;
  std::vector<Level> levels_;
  std::vector<Member> members_;  // of the open objects; canonical only
  std::string sorted_;
};

// Checks that `text` is one JSON object, nested at most `depth_max` deep, and appends it to `out`. Says what is wrong, or
// nothing; `out` may have a part of it then.
std::optional<std::string> rewrite_json_object(std::string_view text, JsonStyle style, std::size_t depth_max,
                                               std::string& out);

// "text" with the escapes above; `text` is UTF-8.
void append_json_text(std::string& out, std::string_view text);

// `value`, finite, as seconds: decimal digits without an exponent, always with a fraction.
void append_json_seconds(std::string& out, double value);

}  // namespace fulmar
