#pragma once
// text(...): strings and numbers joined into one string, for messages. (g++ 12 has no std::format.)

#include <concepts>
#include <string>
#include <string_view>

namespace fulmar::spool {

inline void append_text(std::string& to, std::string_view part) { to += part; }
inline void append_text(std::string& to, std::integral auto number) { to += std::to_string(number); }

template <typename... Parts>
std::string text(const Parts&... parts) {
  std::string joined;
  (append_text(joined, parts), ...);
  return joined;
}

}  // namespace fulmar::spool
