#pragma once
// Numbers, sizes and times as people read them.
// Thread-safety: pure functions.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace fulmar::cli {

std::string count_of(std::uint64_t count, std::string_view one,
                     std::string_view many);                        // "1 file", "2 files"
std::string size_text(std::uint64_t bytes);                         // "60.0 KiB"
std::string age_text(std::chrono::milliseconds age);                // "2 h 13 min"
std::string time_text(std::chrono::system_clock::time_point time);  // local: "2026-01-02 03:04:05"
std::string number_text(double value, int decimals);

}  // namespace fulmar::cli
