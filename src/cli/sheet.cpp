#include "cli/sheet.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

#include "cli/exit_code.hpp"
#include "cli/report.hpp"

namespace fulmar::cli {

Sheet::Sheet() { std::signal(SIGPIPE, SIG_IGN); }

bool Sheet::flush() {
  for (std::string_view rest = text_; !rest.empty() && error_ == 0;) {
    const auto written = write(STDOUT_FILENO, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) error_ = errno;
    rest.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
  }
  text_.clear();
  return error_ == 0;
}

bool Sheet::reader_is_gone() const { return error_ == EPIPE; }

int Sheet::end(int code) {
  if (flush()) return code;
  if (reader_is_gone()) return exit_success;
  Report(false).error(std::string("cannot write to stdout: ") + std::strerror(error_));
  return exit_failure;
}

}  // namespace fulmar::cli
