#pragma once
// What a command says on stderr: one line for each thing, "Error: ..." or "Warning: ...".
// Thread-safety: any thread; a line is one write.

#include <string>
#include <string_view>

namespace fulmar::cli {

class Report {
 public:
  explicit Report(bool quiet) : quiet_(quiet) {}

  // Silenced by --quiet.
  void error(std::string_view text) const;
  void warning(std::string_view text) const;
  void plain(std::string_view text) const;
  // A mistake on the command line: never silenced, and followed by where to read on.
  static void usage(std::string_view command, std::string_view text);

 private:
  bool quiet_;
};

}  // namespace fulmar::cli
