#pragma once
// Writing JSON: the few pieces a batch needs, appended to a string without intermediate objects.
// Thread-safety: pure functions.

#include <cstdint>
#include <string>
#include <string_view>

namespace fulmar::telemetry {

// "text" with everything escaped that JSON asks for. Each byte that is not part of valid UTF-8 (over-long forms and
// surrogates included) becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

void append_json_number(std::string& out, std::int64_t value);
// The shortest text that reads back as the same double. `value` is finite.
void append_json_number(std::string& out, double value);

// What a piece of text is as a JSON document.
enum class JsonKind : std::uint8_t { invalid, null, value };
JsonKind check_json(std::string_view text);  // at most 64 levels deep

}  // namespace fulmar::telemetry
