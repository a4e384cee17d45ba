#pragma once
// What actors have said, read from their output. A line without an end does not count.
//
// Thread-safety: plain values.

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

namespace fulmar::test {

struct QueueLedger {
  std::set<std::string> submitted{};
  std::map<std::string, int> completed{};  // how often
  std::set<std::string> claimed{};
  std::map<std::string, int> refused{};

  void read(const std::filesystem::path& file) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line) && !in.eof();) {
      const auto space = line.find(' ');
      if (space == std::string::npos) continue;
      const auto what = line.substr(0, space);
      auto id = line.substr(space + 1);
      id = id.substr(0, id.find(' '));
      if (what == "submitted") submitted.insert(id);
      if (what == "completed") ++completed[id];
      if (what == "claimed") claimed.insert(id);
      if (what == "refused") ++refused[id];
    }
  }
};

}  // namespace fulmar::test
