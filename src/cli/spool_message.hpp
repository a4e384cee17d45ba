#pragma once
// A message of a spool as a line of JSON: the members of message_json.hpp and those that only a stored message has.
//   {"tst":"2020-05-06T22:12:00.000000Z+0100","topic":"a","qos":1,"retain":0,"payloadlen":5,"payload":"hello",
//    "properties":{...},"expires":"...","sequence":7,"acknowledged":false,"released":false}
// tst is when it was stored. A payload that is not UTF-8 is base64 in "payload_base64" instead of "payload".
//
// Thread-safety: pure function.

#include <string>

#include "spool/log.hpp"

namespace fulmar::cli {

// Appends the line with its end to `out`. False, with `out` unchanged: no message that this version knows.
bool append_stored_message(const spool::Entry& entry, bool acknowledged, std::string& out);

}  // namespace fulmar::cli
