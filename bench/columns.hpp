#pragma once
// Which figures of each suite its tables show; the rows of a suite hold no others of interest.
// Thread-safety: constants.

#include <span>

#include "results.hpp"

namespace fulmar::bench {

std::span<const Column> publish_columns();
std::span<const Column> receive_columns();
std::span<const Column> latency_columns();
std::span<const Column> reconnect_columns();
std::span<const Column> clients_columns();
std::span<const Column> waiting_columns();
std::span<const Column> start_columns();
std::span<const Column> ring_columns();
std::span<const Column> store_columns();
std::span<const Column> open_columns();
std::span<const Column> caller_columns();
std::span<const Column> record_rate_columns();
std::span<const Column> restart_columns();
std::span<const Column> queue_rate_columns();
std::span<const Column> queue_cycle_columns();
std::span<const Column> queue_wake_columns();
std::span<const Column> queue_death_columns();

}  // namespace fulmar::bench
