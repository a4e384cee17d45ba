#pragma once
// App: the daemon's parts, put together: broker child (when it brings its own), client, telemetry, host source, and what
// is shown of them.
//
// Not thread-safe: run() belongs to the main thread.

#include <string>
#include <string_view>

#include "daemon/config.hpp"

namespace fulmar::daemon {

// What the program returns.
enum ExitCode : int {
  exit_ok = 0,          // stopped as asked, everything acknowledged or stored
  exit_failed = 1,      // something the daemon cannot run without does not work
  exit_bad_config = 2,  // wrong flags or configuration; nothing was started
  exit_undelivered =
      3,  // stopped as asked, but records were lost or the broker was never reached: the totals say more
  exit_killed = 130,  // the second Ctrl-C
};

struct AppOptions {
  LoadedConfig loaded;
  bool live = false;
  std::string_view version;
};

// Runs until SIGINT, SIGTERM or a closed standard output. One line for each error on standard error.
int run_app(AppOptions options);

}  // namespace fulmar::daemon
