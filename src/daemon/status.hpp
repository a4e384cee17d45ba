#pragma once
// What the daemon shows: a screen, a plain line, and the totals in the end. Pure rendering from a snapshot.
// Thread-safety: pure functions.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/queue_keeper.hpp"
#include "fulmar/client.hpp"
#include "fulmar/telemetry.hpp"
#include "telemetry/host_source.hpp"
#include "telemetry/line_source.hpp"

namespace fulmar::daemon {

struct StatusSnapshot {
  std::string version;
  std::string url;  // without the password
  ConnectionState state = ConnectionState::created;
  std::string reason;             // of the last change
  std::chrono::seconds since{0};  // the last change
  std::chrono::seconds uptime{0};
  struct Broker {
    std::int64_t pid = -1;  // -1: down now
    std::uint64_t restarts = 0;
  };
  std::optional<Broker> broker{};  // the daemon's own
  TelemetryStats telemetry{};
  Metrics client{};
  std::uint64_t outbox_bytes_max = 0;
  struct Disk {
    std::string folder;
    std::uint64_t bytes_max = 0;
    double sent_per_s = 0;  // messages taken from it to be sent
  };
  std::optional<Disk> disk{};  // the client's spool
  telemetry::HostSource::Stats host{};
  struct Input {
    std::string path;
    telemetry::LineSource::Stats stats{};
  };
  std::optional<Input> input{};               // what the records come from instead of this machine
  std::optional<QueueKeeper::Status> work{};  // the work queue
  double records_per_s = 0;
  double batches_per_s = 0;
  std::vector<std::string> events{};  // the latest ones, oldest first
};

// One screen: at most `rows` lines of at most `columns` characters, in order of importance.
std::vector<std::string> render_screen(const StatusSnapshot& s, std::size_t columns, std::size_t rows);
// One line for pipes and logs.
std::string render_line(const StatusSnapshot& s);
// "recorded N = acknowledged A + stored S + waiting W + dropped D", with the reasons when there are any. A record that was
// stored on disk before it was acknowledged stays among the stored ones.
std::string render_totals(const TelemetryStats& t);

// The first `columns` characters (code points) of the text, with an ellipsis when something is missing. Control
// characters become '.', so that a payload cannot drive the terminal.
std::string fit(std::string_view text, std::size_t columns);

// 0.1 ms: "0.100 ms"; 12 s: "12.0 s"; with three digits.
std::string show_duration(std::chrono::nanoseconds duration);
std::string show_bytes(std::uint64_t bytes);  // "60.0 KiB"

}  // namespace fulmar::daemon
