#include "telemetry/client_figures.hpp"

namespace fulmar::telemetry {

void add_client_figures(TelemetryStats& stats, const Metrics& client, ConnectionState state,
                        const std::string& spool_dir) {
  stats.connected = state == ConnectionState::connected;
  stats.offline_mode = stats.running && !stats.connected;
  stats.offline_sent = client.replayed;
  stats.offline_count = client.spool_messages;
  stats.offline_file = spool_dir;
}

}  // namespace fulmar::telemetry
