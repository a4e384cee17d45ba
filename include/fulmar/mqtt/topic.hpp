#pragma once
// Topic names and topic filters: validity and matching [MQTT5 4.7].
// Thread-safety: pure functions.

#include <string_view>

namespace fulmar::mqtt {

// Is it well-formed UTF-8 without U+0000 and surrogates [MQTT-1.5.4-1, MQTT-1.5.4-2]?
bool is_valid_utf8(std::string_view text);

enum class TopicError : unsigned char {
  none,
  empty,             // [MQTT-4.7.3-1]
  too_long,          // over 65535 bytes [MQTT-4.7.3-3]
  not_utf8,          // [MQTT-1.5.4-1]
  contains_null,     // [MQTT-4.7.3-2]
  wildcard_in_name,  // + or # in a topic name [MQTT-3.3.2-2]
  misplaced_plus,    // + not alone in its level [MQTT-4.7.1-2]
  misplaced_hash,    // # not alone in the last level [MQTT-4.7.1-1]
  bad_share,         // $share without group or filter [MQTT-4.8.2-1, MQTT-4.8.2-2]
};

std::string_view to_string(TopicError error);

TopicError check_topic_name(std::string_view name);
TopicError check_topic_filter(std::string_view filter);  // $share/group/filter included

// Does `name` match `filter`? Both valid. `$share/group/` is skipped; a leading wildcard never matches a topic that begins
// with $ [MQTT-4.7.2-1]; `a/#` matches `a` too.
bool matches(std::string_view filter, std::string_view name);

}  // namespace fulmar::mqtt
