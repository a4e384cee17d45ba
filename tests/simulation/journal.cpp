#include "journal.hpp"

#include <algorithm>
#include <string_view>

namespace fulmar::simulation {

std::string Journal::text() const {
  std::string text;
  for (auto i = count_ - std::min<std::uint64_t>(count_, kept); i < count_; ++i) {
    const auto& note = notes_[i % kept];
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(note.at.time_since_epoch()).count();
    text += "  " + std::to_string(us) + " us  ";
    std::size_t value = 0;
    for (std::string_view rest = note.what; !rest.empty();) {
      const auto hole = rest.find("{}");
      text += rest.substr(0, hole);
      if (hole == std::string_view::npos) break;
      text += std::to_string(note.values[value++]);
      rest.remove_prefix(hole + 2);
    }
    text += '\n';
  }
  return text;
}

}  // namespace fulmar::simulation
