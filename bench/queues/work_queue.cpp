#include "work_queue.hpp"

#include <fmt/format.h>

#include <charconv>

namespace fulmar::bench {
namespace {

// Spaced as a YAML store gives a payload back, which keeps what it means and not its spaces.
constexpr std::string_view before_number = R"({"n": ")";
constexpr std::string_view after_number = R"(", "x": ")";
constexpr std::string_view end = R"("})";
constexpr std::size_t digits = 12;

}  // namespace

std::string numbered_item(std::uint64_t number, std::size_t bytes) {
  auto item = fmt::format("{}{:012}{}", before_number, number, after_number);
  item.append(bytes > item.size() + end.size() ? bytes - item.size() - end.size() : 0, 'x');
  return item.append(end);
}

Result<std::uint64_t> number_of_item(std::string_view item, std::size_t bytes) {
  std::uint64_t number = 0;
  if (item.size() == bytes && item.starts_with(before_number) && item.ends_with(end)) {
    const auto text = item.substr(before_number.size(), digits);
    if (std::from_chars(text.data(), text.data() + text.size(), number).ptr == text.data() + text.size())
      return number;
  }
  return fail(Errc::io_error,
              fmt::format("an item of {} bytes came back as {}: {}", bytes, item.size(), item.substr(0, 60)));
}

}  // namespace fulmar::bench
