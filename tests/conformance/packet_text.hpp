#pragma once
// Packets, events and errors as one line of text: what the vector files say and the tests compare.
//
// Strings and binary data stand in double quotes; bytes outside of printable ASCII as \xNN.

#include <string>
#include <string_view>

#include "fulmar/mqtt/codec.hpp"
#include "fulmar/mqtt/session.hpp"

namespace fulmar::mqtt {

// PUBLISH qos=1 id=7 topic="a" payload="x" {topic_alias=3 user_property="k":"v"}
std::string render(const PacketView& packet, ProtocolVersion version);

// received PUBLISH ..., violation topic_alias_zero 0x94, ...
std::string render(const Event& event);

std::string in_quotes(std::string_view text);
std::string hex_byte(unsigned value);  // "0x94"

// The enumerators' own names: "topic_alias_zero".
std::string_view name_of(DecodeError error);
std::string_view name_of(PropertyId id);

// Throws std::invalid_argument for names that are none.
DecodeError decode_error_named(std::string_view name);

inline constexpr std::size_t decode_error_count =
    static_cast<std::size_t>(DecodeError::acknowledgements_flood) + 1;

}  // namespace fulmar::mqtt
