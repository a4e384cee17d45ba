#include "cli/figures.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

namespace fulmar::cli {

std::string count_of(std::uint64_t count, std::string_view one, std::string_view many) {
  return std::to_string(count) + " " + std::string(count == 1 ? one : many);
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1'024) return std::to_string(bytes) + " B";
  constexpr std::array units{" KiB", " MiB", " GiB", " TiB"};
  auto value = static_cast<double>(bytes) / 1'024;
  std::size_t unit = 0;
  for (; value >= 1'023.95 && unit + 1 < units.size(); ++unit) value /= 1'024;
  return number_text(value, 1) + units[unit];
}

std::string age_text(std::chrono::milliseconds age) {
  const auto s = std::max<std::int64_t>(age.count(), 0) / 1'000;
  const auto two = [](std::int64_t large, const char* of, std::int64_t small, const char* rest) {
    return std::to_string(large) + of + (small ? " " + std::to_string(small) + rest : "");
  };
  if (s < 60) return std::to_string(s) + " s";
  if (s < 3'600) return two(s / 60, " min", s % 60, " s");
  if (s < 86'400) return two(s / 3'600, " h", s / 60 % 60, " min");
  return two(s / 86'400, " d", s / 3'600 % 24, " h");
}

std::string time_text(std::chrono::system_clock::time_point time) {
  const auto seconds = std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(time));
  std::tm local{};
  localtime_r(&seconds, &local);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return text.data();
}

std::string number_text(double value, int decimals) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

}  // namespace fulmar::cli
