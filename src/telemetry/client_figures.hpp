#pragma once
// What the client under a Telemetry knows and its statistics show: the connection, and the messages on disk.
// Thread-safety: pure function.

#include <string>

#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"

namespace fulmar::telemetry {

// Fills connected and offline_mode (from `running`, so after it), and what is known of the client's spool: offline_sent,
// offline_count and offline_file.
void add_client_figures(TelemetryStats& stats, const Metrics& client, ConnectionState state,
                        const std::string& spool_dir);

}  // namespace fulmar::telemetry
