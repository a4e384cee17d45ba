#include "client/reasons.hpp"

#include <cstdio>

namespace fulmar {

std::string hex(std::uint8_t code) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", code);
  return text;
}

std::string in_seconds(std::chrono::milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", static_cast<double>(time.count()) / 1000);
  return text;
}

std::string with_reason(std::string text, std::string_view reason_string) {
  if (!reason_string.empty()) text += ": \"" + std::string(reason_string) + "\"";
  return text;
}

std::string describe_refusal(const mqtt::Refused& refused) {
  std::string what;
  if (refused.version == ProtocolVersion::v3_1_1) {
    switch (refused.code) {
      case 1: what = "unacceptable protocol version"; break;
      case 2: what = "client identifier rejected"; break;
      case 3: what = "server unavailable"; break;
      case 4: what = "bad user name or password"; break;
      case 5: what = "not authorized"; break;
      default: what = "return code " + std::to_string(refused.code);
    }
  } else {
    what = mqtt::to_string(static_cast<mqtt::ReasonCode>(refused.code));
  }
  return with_reason("refused the connection: " + what + " (" + hex(refused.code) + ")",
                     refused.reason_string);
}

// Refusals that will not go away by themselves: the next attempts keep the greatest distance.
bool is_permanent(mqtt::ReasonCode code) {
  using enum mqtt::ReasonCode;
  switch (code) {
    case malformed_packet:
    case protocol_error:
    case unsupported_protocol_version:
    case client_identifier_not_valid:
    case bad_user_name_or_password:
    case not_authorized:
    case banned:
    case bad_authentication_method:
    case session_taken_over:
    case topic_name_invalid:
    case packet_too_large:
    case payload_format_invalid:
    case retain_not_supported:
    case qos_not_supported:
    case use_another_server:
    case server_moved: return true;
    default: return false;
  }
}

bool is_permanent(const mqtt::Refused& refused) {
  if (refused.version == ProtocolVersion::v3_1_1) return refused.code != 3;
  return is_permanent(static_cast<mqtt::ReasonCode>(refused.code));
}

}  // namespace fulmar
