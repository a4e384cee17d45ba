#pragma once
// DecodeError: the rule of MQTT that a packet broke, one value per rule.
// Each has a text for people, the clause of the OASIS standard it comes from and the reason code that a DISCONNECT (or
// CONNACK) tells the peer [MQTT5 4.13].
//
// Thread-safety: plain values.

#include <cstdint>
#include <string_view>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

enum class DecodeError : std::uint8_t {
  none,
  // fixed header
  packet_type_reserved,
  header_flags_reserved,
  length_not_minimal,
  length_over_four_bytes,
  packet_too_large,
  // any field
  truncated,
  trailing_bytes,
  integer_not_minimal,
  integer_over_four_bytes,
  string_not_utf8,
  string_contains_null,
  packet_id_zero,
  // properties
  property_unknown,
  property_misplaced,
  property_of_other_side,
  property_repeated,
  property_value_invalid,
  property_length_wrong,
  authentication_data_without_method,
  response_topic_invalid,
  // PUBLISH
  qos_reserved,
  dup_at_qos_0,
  topic_empty,
  topic_contains_wildcard,
  topic_alias_zero,
  // CONNECT, CONNACK
  protocol_name_unknown,
  protocol_version_unknown,
  connect_flags_reserved,
  will_flags_without_will,
  will_qos_reserved,
  password_without_username,
  client_id_empty,
  connack_flags_reserved,
  session_present_on_refusal,
  // SUBSCRIBE, UNSUBSCRIBE and the reason codes of all packets
  no_filters,
  filter_invalid,
  subscription_options_reserved,
  subscription_qos_reserved,
  retain_handling_reserved,
  no_local_on_shared,
  no_codes,
  reason_code_unknown,
  // rules that only a session can see
  packet_unexpected,
  packet_before_connack,
  connack_repeated,
  session_present_after_clean_start,
  session_present_without_state,
  topic_alias_above_maximum,
  topic_alias_not_mapped,
  receive_maximum_exceeded,
  packet_id_of_other_qos,
  codes_do_not_match_filters,
  auth_without_method,
  auth_method_differs,
  auth_code_unexpected,
  problem_information_not_requested,
  acknowledgements_flood,
};

// What was wrong, for a log line: "a property stands twice".
std::string_view to_string(DecodeError error);

// The clause of the standard: "MQTT-1.5.4-1", or a section number where the standard gives no clause id: "MQTT5 2.2.2".
std::string_view clause_of(DecodeError error);

// malformed_packet, protocol_error or a more exact one.
ReasonCode reason_for(DecodeError error);

}  // namespace fulmar::mqtt
