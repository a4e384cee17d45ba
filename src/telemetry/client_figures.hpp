#pragma once
// What the client under a Telemetry knows and its statistics show: the connection, and the messages on disk.
// Thread-safety: pure function.

#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"

namespace fulmar::telemetry {

// Fills connected and offline_mode (from `running`, so after it), and the figures of the client's spool: offline_sent and
// offline_count.
void add_client_figures(TelemetryStats& stats, const Metrics& client, ConnectionState state);

}  // namespace fulmar::telemetry
