#include "telemetry/client_figures.hpp"

#include <gtest/gtest.h>

namespace fulmar::telemetry {
namespace {

TEST(ClientFigures, are_those_of_the_clients_spool_and_leave_the_books_alone) {
  TelemetryStats stats;
  stats.running = true;
  stats.recorded = stats.offline_stored = 700;
  Metrics client;
  client.replayed = 4;
  client.spool_messages = 3;
  add_client_figures(stats, client, ConnectionState::reconnecting, "/var/lib/rig/spool");
  EXPECT_EQ(stats.offline_stored, 700u);
  EXPECT_EQ(stats.offline_sent, 4u);
  EXPECT_EQ(stats.offline_count, 3u);
  EXPECT_EQ(stats.offline_file, "/var/lib/rig/spool");
  EXPECT_TRUE(stats.offline_mode);
  EXPECT_FALSE(stats.connected);
  add_client_figures(stats, client, ConnectionState::connected, "/var/lib/rig/spool");
  EXPECT_TRUE(stats.connected);
  EXPECT_FALSE(stats.offline_mode);
}

}  // namespace
}  // namespace fulmar::telemetry
