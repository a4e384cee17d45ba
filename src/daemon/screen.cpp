#include "daemon/screen.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>

namespace fulmar::daemon {
namespace {

constexpr std::string_view hide_cursor = "\x1b[?25l";
constexpr std::string_view show_cursor = "\x1b[?25h";
constexpr std::string_view clear_all = "\x1b[2J";
constexpr std::string_view home = "\x1b[H";
constexpr std::string_view clear_to_end_of_line = "\x1b[K";
constexpr std::string_view clear_below = "\x1b[J";

// The terminal is one, whoever has drawn on it.
std::atomic<bool> cursor_hidden{false};

}  // namespace

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

Screen::Screen() : terminal_(::isatty(STDOUT_FILENO) == 1) {}

Screen::~Screen() { close(); }

bool Screen::draw(const StatusSnapshot& snapshot) {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    size.ws_col = 80;
    size.ws_row = 24;
  }
  // One row stays free for the shell's prompt afterwards. Drawn over in place and in one write: no flicker.
  const auto lines = render_screen(snapshot, size.ws_col, size.ws_row > 1u ? size.ws_row - 1u : 1u);
  std::string frame;
  if (!drawn_) frame.append(hide_cursor).append(clear_all);
  drawn_ = true;
  cursor_hidden.store(true, std::memory_order_relaxed);
  frame += home;
  for (const std::string& line : lines) frame.append(line).append(clear_to_end_of_line).append("\r\n");
  frame += clear_below;
  return write_all(STDOUT_FILENO, frame);
}

bool Screen::print_line(std::string_view line) {
  const std::time_t now = std::time(nullptr);
  return write_all(STDOUT_FILENO, fmt::format("{:%H:%M:%S} {}\n", fmt::localtime(now), line));
}

void Screen::close() {
  restore_terminal();
  drawn_ = false;
}

void Screen::restore_terminal() {
  if (cursor_hidden.exchange(false, std::memory_order_relaxed)) write_all(STDOUT_FILENO, show_cursor);
}

}  // namespace fulmar::daemon
