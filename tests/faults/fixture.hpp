#pragma once
// What the fault tests share: bounded waits, slack for slow builds, what a process holds, and numbered messages.

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "fulmar/client.hpp"
#include "tests/faults/ledger.hpp"
#include "tests/integration/inbox.hpp"
#include "tests/support/sanitizer.hpp"

namespace fulmar::test {

using Clock = std::chrono::steady_clock;

// No correct run takes so long, on any machine.
inline constexpr std::chrono::seconds patience{30};
// What a bound of the specification is exceeded by when the machine is busy with other tests.
inline constexpr std::chrono::milliseconds slack{sanitized ? 3'000 : 1'000};

std::chrono::milliseconds since(Clock::time_point begin);

// Publishes the ledger's next message on `topic`; it must be accepted.
void publish_next(Client& client, Ledger& ledger, QoS qos, std::string_view topic = "ledger");

// A configuration whose session the server keeps.
ClientConfig persistent_config(const std::string& url, const std::string& client_id,
                               ProtocolVersion protocol = ProtocolVersion::v5);

// Nothing lost, doubled, invented or overtaken.
inline const Ledger::Balance all_well{};

// Every state change of a client, with its time. Make it before start().
struct TimedChange {
  StateChange change;
  Clock::time_point at;
};
Collected<TimedChange> watch_states(Client& client);

// Of this process.
std::size_t open_descriptors();
std::size_t threads();
std::size_t resident_bytes();
std::chrono::microseconds cpu_time();

// For rows that take longer than a normal run has: how often, unless the environment variable says otherwise.
std::size_t times(const char* variable, std::size_t otherwise);

}  // namespace fulmar::test
