#include "fulmar/mqtt/decode_error.hpp"

#include <array>
#include <cstddef>

namespace fulmar::mqtt {
namespace {

struct Rule {
  DecodeError error;
  std::string_view text;
  std::string_view clause;
  ReasonCode reason;
};

constexpr auto malformed = ReasonCode::malformed_packet;
constexpr auto protocol = ReasonCode::protocol_error;

using enum DecodeError;
constexpr std::array rules = {
    Rule{none, "no error", "", ReasonCode::success},
    Rule{packet_type_reserved, "the packet type is reserved", "MQTT5 2.1.2", malformed},
    Rule{header_flags_reserved, "reserved flags of the fixed header are set", "MQTT-2.1.3-1", malformed},
    Rule{length_not_minimal, "the remaining length has more bytes than it needs", "MQTT-1.5.5-1", malformed},
    Rule{length_over_four_bytes, "the remaining length has more than four bytes", "MQTT5 1.5.5", malformed},
    Rule{packet_too_large, "the packet is larger than the maximum packet size", "MQTT-3.1.2-24",
         ReasonCode::packet_too_large},
    Rule{truncated, "a field ends behind the end of its packet", "MQTT5 4.13.1", malformed},
    Rule{trailing_bytes, "bytes follow the last field", "MQTT5 4.13.1", malformed},
    Rule{integer_not_minimal, "a variable byte integer has more bytes than it needs", "MQTT-1.5.5-1",
         malformed},
    Rule{integer_over_four_bytes, "a variable byte integer has more than four bytes", "MQTT5 1.5.5",
         malformed},
    Rule{string_not_utf8, "a string is not UTF-8", "MQTT-1.5.4-1", malformed},
    Rule{string_contains_null, "a string contains U+0000", "MQTT-1.5.4-2", malformed},
    Rule{packet_id_zero, "the packet identifier is 0", "MQTT-2.2.1-3", protocol},
    Rule{property_unknown, "a property identifier is unknown", "MQTT5 2.2.2.2", malformed},
    Rule{property_misplaced, "a property does not belong into this packet", "MQTT5 2.2.2.2", malformed},
    Rule{property_of_other_side, "a property is the other side's to send", "MQTT-3.14.2-2", protocol},
    Rule{property_repeated, "a property stands twice", "MQTT5 2.2.2.2", protocol},
    Rule{property_value_invalid, "the value of a property is not allowed", "MQTT5 2.2.2.2", protocol},
    Rule{property_length_wrong, "the property length reaches past the end of its packet", "MQTT5 2.2.2.1",
         malformed},
    Rule{authentication_data_without_method, "authentication data without an authentication method",
         "MQTT5 3.1.2.11.10", protocol},
    Rule{response_topic_invalid, "the response topic is empty or contains a wildcard", "MQTT-3.3.2-14",
         protocol},
    Rule{qos_reserved, "the QoS is 3", "MQTT-3.3.1-4", malformed},
    Rule{dup_at_qos_0, "DUP is set at QoS 0", "MQTT-3.3.1-2", malformed},
    Rule{topic_empty, "the topic name is empty", "MQTT-4.7.3-1", protocol},
    Rule{topic_contains_wildcard, "the topic name contains a wildcard", "MQTT-3.3.2-2", malformed},
    Rule{topic_alias_zero, "the topic alias is 0", "MQTT-3.3.2-8", ReasonCode::topic_alias_invalid},
    Rule{protocol_name_unknown, "the protocol name is not MQTT", "MQTT-3.1.2-1",
         ReasonCode::unsupported_protocol_version},
    Rule{protocol_version_unknown, "the protocol version is neither 4 nor 5", "MQTT-3.1.2-2",
         ReasonCode::unsupported_protocol_version},
    Rule{connect_flags_reserved, "the reserved flag of CONNECT is set", "MQTT-3.1.2-3", malformed},
    Rule{will_flags_without_will, "will QoS or will retain without a will", "MQTT-3.1.2-11", malformed},
    Rule{will_qos_reserved, "the will QoS is 3", "MQTT-3.1.2-12", malformed},
    Rule{password_without_username, "a password without a user name", "MQTT-3.1.2-22", malformed},
    Rule{client_id_empty, "an empty client identifier without a clean session", "MQTT-3.1.3-8",
         ReasonCode::client_identifier_not_valid},
    Rule{connack_flags_reserved, "reserved flags of CONNACK are set", "MQTT-3.2.2-1", malformed},
    Rule{session_present_on_refusal, "session present in a CONNACK that refuses", "MQTT-3.2.2-6", protocol},
    Rule{no_filters, "no topic filter", "MQTT-3.8.3-2", protocol},
    Rule{filter_invalid, "a topic filter is empty or has a misplaced wildcard", "MQTT-4.7.1-1", malformed},
    Rule{subscription_options_reserved, "reserved subscription options are set", "MQTT-3.8.3-5", malformed},
    Rule{subscription_qos_reserved, "the maximum QoS of a subscription is 3", "MQTT5 3.8.3.1", protocol},
    Rule{retain_handling_reserved, "the retain handling is 3", "MQTT5 3.8.3.1", protocol},
    Rule{no_local_on_shared, "no local on a shared subscription", "MQTT-3.8.3-4", protocol},
    Rule{no_codes, "no reason code", "MQTT-3.8.4-6", protocol},
    Rule{reason_code_unknown, "the reason code does not belong into this packet", "MQTT5 2.4", protocol},
    Rule{packet_unexpected, "the other side never sends such a packet", "MQTT5 4.13.1", protocol},
    Rule{packet_before_connack, "a packet before CONNACK", "MQTT-3.2.0-1", protocol},
    Rule{connack_repeated, "a second CONNACK", "MQTT-3.2.0-2", protocol},
    Rule{session_present_after_clean_start, "session present although a clean start was asked for",
         "MQTT-3.2.2-2", protocol},
    Rule{session_present_without_state, "session present, but there is no session state here", "MQTT-3.2.2-4",
         protocol},
    Rule{topic_alias_above_maximum, "the topic alias is above the topic alias maximum", "MQTT-3.3.2-11",
         ReasonCode::topic_alias_invalid},
    Rule{topic_alias_not_mapped, "an empty topic name with a topic alias that has no topic yet",
         "MQTT5 3.3.2.3.4", protocol},
    Rule{receive_maximum_exceeded, "more unacknowledged messages than the receive maximum", "MQTT-3.3.4-9",
         ReasonCode::receive_maximum_exceeded},
    Rule{packet_id_of_other_qos, "the packet identifier is in use with another QoS", "MQTT-2.2.1-4",
         protocol},
    Rule{codes_do_not_match_filters, "not one reason code per topic filter", "MQTT-3.8.4-6", protocol},
    Rule{auth_without_method, "AUTH although no authentication method was agreed", "MQTT-4.12.0-6", protocol},
    Rule{auth_method_differs, "the authentication method is not the one of CONNECT", "MQTT-4.12.0-5",
         protocol},
    Rule{auth_code_unexpected, "AUTH with a reason code that does not belong here", "MQTT-4.12.0-2",
         protocol},
    Rule{problem_information_not_requested, "a reason string or user property that was not asked for",
         "MQTT-3.1.2-29", protocol},
    Rule{acknowledgements_flood, "more packets to answer than flow control allows", "MQTT5 4.9",
         ReasonCode::message_rate_too_high},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (static_cast<std::size_t>(rules[i].error) != i) return false;
  }
  return static_cast<std::size_t>(acknowledgements_flood) + 1 == rules.size();
}
static_assert(in_order(), "one rule per DecodeError, in its order");

const Rule& rule_of(DecodeError error) {
  const auto index = static_cast<std::size_t>(error);
  return rules[index < rules.size() ? index : 0];
}

}  // namespace

std::string_view to_string(DecodeError error) { return rule_of(error).text; }
std::string_view clause_of(DecodeError error) { return rule_of(error).clause; }
ReasonCode reason_for(DecodeError error) { return rule_of(error).reason; }

}  // namespace fulmar::mqtt
