#pragma once
// Envelope: the JSON object that events travel in, {"id","type","ts","source","data"} and "correlate" where it answers
// something.
//
// Thread-safety: plain values.

#include <string>
#include <string_view>

#include "fulmar/result.hpp"

namespace fulmar {

struct Envelope {
  std::string id;         // ULID: 26 characters that sort by time
  std::string type;       // "health.status"
  double ts = 0;          // seconds since 1970, wall clock
  std::string source;     // the publisher's ClientConfig::source_name
  std::string data;       // a JSON object, as text
  std::string correlate;  // id of what this answers; may be empty
  std::string
      reply_to;  // topic for the answer, where one is wanted and MQTT 3.1.1 has no place for it; may be empty

  // Reads `json`: an object with at least `id`, `type`, `data` (an object), and `ts` or `timestamp`. Unknown keys are ignored.
  // Nested at most 64 deep. Errors: invalid_envelope, naming the key.
  static Result<Envelope> parse(std::string_view json);
  // One line of JSON. Errors: invalid_envelope when `data` is not a JSON object or a text is not UTF-8.
  Result<std::string> to_json() const;
};

// A new ULID: 48 bits of wall clock in ms, 80 random bits; within one process and one ms it grows. Thread-safe.
std::string new_ulid();

}  // namespace fulmar
