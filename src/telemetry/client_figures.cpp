#include "telemetry/client_figures.hpp"

namespace fulmar::telemetry {

// The client keeps what waits in memory, so there is nothing on disk to tell of.
void add_client_figures(TelemetryStats& stats, const Metrics& /*client*/, ConnectionState state) {
  stats.connected = state == ConnectionState::connected;
  stats.offline_mode = stats.running && !stats.connected;
  stats.offline_stored = 0;
  stats.offline_sent = 0;
  stats.offline_count = 0;
  stats.offline_file.clear();
}

}  // namespace fulmar::telemetry
