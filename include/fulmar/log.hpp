#pragma once
// How grave a line of the log is: one scale for the client and the work queue, each of which has its own sink.

#include <cstdint>

namespace fulmar {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

}  // namespace fulmar
