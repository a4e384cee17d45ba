#pragma once
// Format: how `fulmar sub` prints a message, compiled once from the format string of -F (the language of
// mosquitto_sub) or from the fixed forms "payload" and "topic payload".
//
//   %t topic  %p payload  %x %X payload in hexadecimal  %l its length  %q QoS  %r retain flag
//   %I ISO 8601 time  %U Unix time with nanoseconds  %j %J the message as JSON  %% a percent sign
//   @C strftime's %C  @N nanoseconds of the second  @@ an at sign     \\ \0 \a \e \n \r \t \v
//   %[-][0][width][.max]C: padded on the left, with - on the right, with 0 by zeros (%l %x %X); .max shortens %t
//   and %I.
//   A width of %p, %x and %X also shortens: %8p is 8 bytes of payload at most, %8x is 4 bytes or 8 digits.
//
// Thread-safety: immutable after compile(); render() may run on any thread.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fulmar/client.hpp"
#include "fulmar/result.hpp"

namespace fulmar::cli {

// Wall-clock time of a message.
struct WallTime {
  std::int64_t seconds = 0;  // since the epoch
  std::int32_t nanoseconds = 0;

  static WallTime now();
};

class Format {
 public:
  // The payload and nothing else; an empty payload prints nothing, not even an end of line.
  static Format payload();
  // "topic payload"; an empty payload prints "topic (null)".
  static Format verbose();
  // Errc::invalid_config: what is wrong with the text and what is possible.
  static Result<Format> compile(std::string_view text, bool pretty = false);

  // Appends the message to `out`, with the end of line when `end_of_line`. False when %J met a payload that
  // is not JSON: its place is left empty then.
  bool render(const Message& message, const WallTime& time, bool end_of_line, std::string& out) const;
  bool needs_time() const { return needs_time_; }

 private:
  struct Field {
    char kind = 0;  // the letter after %
    bool left = false;
    bool zero = false;
    std::uint32_t width = 0;
    std::int64_t max = -1;  // -1 = no limit
  };
  struct Clock {
    char kind = 0;  // the letter after @
  };
  using Piece = std::variant<std::string, Field, Clock>;
  enum class Shape : std::uint8_t { payload, verbose, pieces };

  Result<Field> compile_field(std::string_view& rest);
  void literal(char c);
  bool render_field(const Field& field, const Message& message, const WallTime& time, std::string& out) const;

  Shape shape_ = Shape::payload;
  bool pretty_ = false;
  bool needs_time_ = false;
  std::vector<Piece> pieces_;
};

}  // namespace fulmar::cli
