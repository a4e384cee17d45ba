#pragma once
// Packets as text for tests: bytes("30 (0003 'abc' 00)") and back.
//
// Not for the library itself.

#include <cctype>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "fulmar/mqtt/types.hpp"
#include "mqtt/wire_writer.hpp"

namespace fulmar::mqtt {

using Bytes = std::vector<std::byte>;

// Hexadecimal pairs, spaces between them as one likes; text between single quotes stands for itself; a part in parentheses
// has its length in front, as a variable byte integer.
inline Bytes bytes(std::string_view text) {
  Bytes result;
  std::vector<std::size_t> open;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\'') {
      quoted = !quoted;
    } else if (quoted) {
      result.push_back(static_cast<std::byte>(text[i]));
    } else if (text[i] == '(') {
      open.push_back(result.size());
    } else if (text[i] == ')') {
      std::byte length[4];
      const auto begin = static_cast<std::ptrdiff_t>(open.back());
      std::byte* const end = put_variable(length, static_cast<std::uint32_t>(result.size() - open.back()));
      result.insert(result.begin() + begin, &length[0], end);
      open.pop_back();
    } else if (std::isxdigit(static_cast<unsigned char>(text[i]))) {
      result.push_back(static_cast<std::byte>(digit(text[i]) << 4 | digit(text[i + 1])));
      ++i;
    }
  }
  return result;
}

inline std::string hex(BytesView data) {
  std::string text;
  char pair[4];
  for (const auto byte : data) {
    std::snprintf(pair, sizeof pair, "%02x ", static_cast<unsigned>(byte));
    text += pair;
  }
  if (!text.empty()) text.pop_back();
  return text;
}

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

}  // namespace fulmar::mqtt
