#pragma once
// Envelope: the JSON object that events travel in, {"id","type","ts","source","data"} and "correlate" where it answers
// something.
//
// Thread-safety: plain values.

#include <cstddef>
#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar {

struct Envelope {
  static constexpr std::size_t size_max = std::size_t{16} << 20;  // bytes of JSON, both ways
  static constexpr std::size_t depth_max = 64;                    // objects and arrays within each other

  std::string id;         // ULID: 26 characters that sort by time; others' may look different
  std::string type;       // "health.status"
  double ts = 0;          // seconds since 1970, wall clock
  std::string source;     // the publisher's ClientConfig::source_name
  std::string data;       // a JSON object, as text
  std::string correlate;  // id of what this answers; may be empty
  std::string
      reply_to;  // topic for the answer, where one is wanted and MQTT 3.1.1 has no place for it; may be empty

  // Reads `json`: an object with at least `id`, `type`, `data` (an object), and `ts` or, without it, `timestamp`. The other
  // texts may be absent or null. Unknown keys are ignored. A known key that comes twice is an error, since readers would
  // differ in which one holds. `data` comes without white space and otherwise as it was written, its numbers digit by digit.
  // Errors: invalid_envelope, naming the key.
  static Result<Envelope> parse(std::string_view json);
  // One line of JSON; `correlate` and `reply_to` only when not empty. Errors: invalid_envelope, naming the field: `id` or
  // `type` is empty, a text is not UTF-8 or contains U+0000, `ts` is not finite, `data` is not a JSON object.
  Result<std::string> to_json() const;
};

// A new ULID: 48 bits of wall clock in ms, 80 bits besides; within one process it grows, except when the wall clock is set
// back by more than a second. Thread-safe, without a lock.
std::string new_ulid();

}  // namespace fulmar
