#include "columns.hpp"

#include <array>

namespace fulmar::bench {

std::span<const Column> publish_columns() {
  static const std::array<Column, 8> columns{{
      {"messages_per_s", "messages/s", Better::more},
      {"cpu_s_per_million", "CPU s/M"},
      {"caller_ns_p50", "call p50 ns"},
      {"caller_ns_p99", "p99 ns"},
      {"caller_ns_p999", "p99.9 ns"},
      {"caller_ns_max", "max ns"},
      {"allocations_per_message", "alloc/msg"},
      {"syscalls_per_message", "syscalls/msg"},
  }};
  return columns;
}

std::span<const Column> receive_columns() {
  static const std::array<Column, 4> columns{{
      {"messages_per_s", "messages/s", Better::more},
      {"cpu_s_per_million", "CPU s/M"},
      {"allocations_per_message", "alloc/msg"},
      {"syscalls_per_message", "syscalls/msg"},
  }};
  return columns;
}

std::span<const Column> latency_columns() {
  static const std::array<Column, 5> columns{{
      {"caller_ns_p50", "call p50 ns"},
      {"caller_ns_p99", "p99 ns"},
      {"caller_ns_p999", "p99.9 ns"},
      {"caller_ns_max", "max ns"},
      {"calls", "calls", Better::neither},
  }};
  return columns;
}

std::span<const Column> reconnect_columns() {
  static const std::array<Column, 3> columns{{
      {"reconnect_ms", "reconnect ms"},
      {"outage_ms", "with back-off ms"},
      {"repeats", "repeats", Better::neither},
  }};
  return columns;
}

std::span<const Column> clients_columns() {
  static const std::array<Column, 2> columns{{
      {"rss_bytes_per_client", "RSS kB a client", Better::less, 1000},
      {"pss_bytes_per_client", "PSS kB a client", Better::less, 1000},
  }};
  return columns;
}

std::span<const Column> waiting_columns() {
  static const std::array<Column, 3> columns{{
      {"bytes_per_message", "bytes a message"},
      {"ns_per_message", "ns a message"},
      {"messages", "messages", Better::neither},
  }};
  return columns;
}

std::span<const Column> start_columns() {
  static const std::array<Column, 6> columns{{
      {"start_us_p50", "start p50 us"},
      {"start_us_p99", "p99 us"},
      {"start_us_max", "max us"},
      {"construct_us_p50", "construct p50 us"},
      {"construct_us_p99", "p99 us"},
      {"starts", "starts", Better::neither},
  }};
  return columns;
}

std::span<const Column> ring_columns() {
  static const std::array<Column, 1> columns{{{"ns_per_item", "ns an item"}}};
  return columns;
}

std::span<const Column> store_columns() {
  static const std::array<Column, 1> columns{{{"entries_per_s", "M entries/s", Better::more, 1e6}}};
  return columns;
}

std::span<const Column> open_columns() {
  static const std::array<Column, 3> columns{{
      {"open_ms", "open ms"},
      {"rss_bytes", "RSS kB more", Better::less, 1000},
      {"waiting_bytes", "waiting MB", Better::neither, 1e6},
  }};
  return columns;
}

std::span<const Column> caller_columns() {
  static const std::array<Column, 6> columns{{
      {"caller_ns_p50", "call p50 ns"},
      {"caller_ns_p99", "p99 ns"},
      {"caller_ns_p999", "p99.9 ns"},
      {"caller_ns_max", "max ns"},
      {"cores_busy", "cores busy", Better::neither},
      {"calls", "calls", Better::neither},
  }};
  return columns;
}

std::span<const Column> record_rate_columns() {
  static const std::array<Column, 3> columns{{
      {"records_per_s", "M records/s", Better::more, 1e6},
      {"records_per_batch", "records a batch", Better::neither},
      {"records", "records", Better::neither},
  }};
  return columns;
}

std::span<const Column> restart_columns() {
  static const std::array<Column, 6> columns{{
      {"first_publish_ms", "first PUBLISH ms"},
      {"acknowledged_s", "all acknowledged s"},
      {"messages_per_s", "messages/s", Better::more},
      {"peak_rss_bytes", "peak RSS MB", Better::less, 1e6},
      {"fill_per_s", "filled/s", Better::more},
      {"disk_bytes", "disk MB", Better::neither, 1e6},
  }};
  return columns;
}

std::span<const Column> queue_rate_columns() {
  static const std::array<Column, 6> columns{{
      {"enqueue_per_s", "enqueue/s", Better::more},
      {"finish_per_s", "claim + complete/s", Better::more},
      {"enqueue_us_p50", "enqueue p50 us"},
      {"enqueue_us_p99", "p99 us"},
      {"finish_us_p50", "claim + complete p50 us"},
      {"finish_us_p99", "p99 us"},
  }};
  return columns;
}

std::span<const Column> queue_cycle_columns() {
  static const std::array<Column, 5> columns{{
      {"cycles_per_s", "cycles/s", Better::more},
      {"slowest_per_s", "slowest process", Better::more},
      {"slowest_share", "of its fair share", Better::more},
      {"cycle_ms_p99", "worst p99 ms"},
      {"cycle_ms_max", "max ms"},
  }};
  return columns;
}

std::span<const Column> queue_wake_columns() {
  static const std::array<Column, 5> columns{{
      {"wake_us_p50", "put to hand p50 us"},
      {"wake_us_p99", "p99 us"},
      {"wake_us_max", "max us"},
      {"after_put_us_p50", "after put returned p50 us"},
      {"rounds", "rounds", Better::neither},
  }};
  return columns;
}

std::span<const Column> queue_death_columns() {
  static const std::array<Column, 4> columns{{
      {"death_us_p50", "p50 ms", Better::less, 1000},
      {"death_us_p99", "p99 ms", Better::less, 1000},
      {"death_us_max", "max ms", Better::less, 1000},
      {"rounds", "deaths", Better::neither},
  }};
  return columns;
}

}  // namespace fulmar::bench
