#pragma once
// `fulmar telemetry`: sends records in batches until their source has ended, and ends when every one of them has
// an outcome. The broker may be away, at the start too: the records wait, and a source that can wait does so.

#include "cli/options.hpp"

namespace fulmar::cli {

// The exit code. The first SIGINT or SIGTERM ends the source and sends what waits, the second one ends the process.
int run_telemetry(const TelemetryOptions& options);

}  // namespace fulmar::cli
