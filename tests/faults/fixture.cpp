#include "tests/faults/fixture.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/sanitizer.hpp"

namespace fulmar::test {

using std::chrono::milliseconds;

milliseconds since(Clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
}

void publish_next(Client& client, Ledger& ledger, QoS qos, std::string_view topic) {
  const auto accepted = client.publish(topic, ledger.next(), {.qos = qos});
  ASSERT_TRUE(accepted) << accepted.error().message;
  ledger.accepted();
}

ClientConfig persistent_config(const std::string& url, const std::string& client_id,
                               ProtocolVersion protocol) {
  auto config = config_for(url, client_id, protocol);
  config.clean_start = false;
  config.session_expiry = std::chrono::minutes(10);
  return config;
}

Collected<TimedChange> watch_states(Client& client) {
  Collected<TimedChange> changes;
  client.on_state_change([changes](const StateChange& change) { changes.add({change, Clock::now()}); });
  return changes;
}

namespace {

std::size_t entries_of(const char* directory) {
  std::size_t count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    ++count;
  }
  return count;
}

}  // namespace

std::size_t open_descriptors() { return entries_of("/proc/self/fd"); }
std::size_t threads() { return without_sanitizers_thread(entries_of("/proc/self/task")); }

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

std::chrono::microseconds cpu_time() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

std::size_t times(const char* variable, std::size_t otherwise) {
  const char* value = std::getenv(variable);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

}  // namespace fulmar::test
