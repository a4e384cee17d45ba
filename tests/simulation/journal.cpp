#include "journal.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>

namespace fulmar::simulation {

std::string Journal::text_of(const Note& note) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(note.at.time_since_epoch()).count();
  std::string text = "  " + std::to_string(us) + " us  ";
  std::size_t value = 0;
  for (std::string_view rest = note.what; !rest.empty();) {
    const auto hole = rest.find("{}");
    text += rest.substr(0, hole);
    if (hole == std::string_view::npos) break;
    text += std::to_string(note.values[value++]);
    rest.remove_prefix(hole + 2);
  }
  return text;
}

void Journal::print(const std::string& line) { std::puts(line.c_str()); }

std::string Journal::text() const {
  std::string text;
  for (auto i = count_ - std::min<std::uint64_t>(count_, kept); i < count_; ++i) {
    text += text_of(notes_[i % kept]) + '\n';
  }
  return text;
}

}  // namespace fulmar::simulation
