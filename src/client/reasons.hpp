#pragma once
// Why a link was refused or lost: for people, and for the next attempt. Pure functions.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "fulmar/mqtt/session.hpp"

namespace fulmar {

std::string hex(std::uint8_t code);                      // "0x87"
std::string in_seconds(std::chrono::milliseconds time);  // "2.5 s"
// `text`, and the server's own words behind it where it gave any.
std::string with_reason(std::string text, std::string_view reason_string);
// "refused the connection: not authorized (0x87)"
std::string describe_refusal(const mqtt::Refused& refused);

// Refusals that will not go away by themselves: the next attempts keep the greatest distance.
bool is_permanent(mqtt::ReasonCode code);
bool is_permanent(const mqtt::Refused& refused);

}  // namespace fulmar
