#pragma once
// A message as a JSON object, byte for byte as mosquitto_sub's %j and %J print it:
//   {"tst":"2020-05-06T22:12:00.000000Z+0100","topic":"a","qos":0,"retain":0,"payloadlen":5,"payload":"hello"}
// Bytes of the payload that are not UTF-8 stand as they are; an empty payload is null.
//
// Thread-safety: pure function.

#include <string>

#include "fulmar/client.hpp"

namespace fulmar::cli {

struct WallTime;

struct JsonStyle {
  bool payload_is_json = false;  // the payload as a JSON value instead of a string
  bool pretty = false;           // several lines, indented by tabs
};

// Appends to `out`. False, with `out` unchanged, when the payload should be JSON and is not.
bool append_message_json(const Message& message, const WallTime& time, const JsonStyle& style,
                         std::string& out);

// "2020-05-06T22:12:00.000000Z+0100": local time as in the objects' "tst".
std::string json_time(const WallTime& time);

}  // namespace fulmar::cli
