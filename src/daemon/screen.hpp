#pragma once
// Screen: the live status on standard output. A terminal gets one screen that is drawn over in place; a pipe gets lines.
//
// Thread-safety: main thread, except restore_terminal().

#include <string>
#include <string_view>
#include <vector>

#include "daemon/status.hpp"

namespace fulmar::daemon {

class Screen {
 public:
  Screen();
  ~Screen();  // close()
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  bool is_terminal() const { return terminal_; }
  // False when standard output is closed.
  bool draw(const StatusSnapshot& snapshot);  // terminal
  bool print_line(std::string_view line);     // with the time before it
  void close();                               // leaves the last screen, gives the cursor back

  // Any thread: gives the cursor back when a screen was drawn.
  static void restore_terminal();

 private:
  const bool terminal_;
  bool drawn_ = false;
};

// Writes all of it; false when the descriptor is closed or broken.
bool write_all(int fd, std::string_view text);

}  // namespace fulmar::daemon
