#pragma once
// Telemetry: a wait-free queue of measurements in front of a batching sender.
//
// Thread-safety: record() from any number of threads; everything else from any thread.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "fulmar/client.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

// One record: a timestamp and named values, built in place without formatting or allocating for records of <= 1 KiB.
// The sample time is in milliseconds since the epoch; 0 = filled in by record().
class Measurement {
 public:
  explicit Measurement(std::int64_t ts_ms = 0) : ts_ms_(ts_ms) {}
  Measurement& add(std::string_view name, double value);
  Measurement& add(std::string_view name, std::int64_t value);
  Measurement& add(std::string_view name, bool value);
  Measurement& add(std::string_view name, std::string_view text);
  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Measurement& add(std::string_view name, T value) {
    return add(name, static_cast<std::int64_t>(value));
  }
  Measurement& add(std::string_view name, const char* text) { return add(name, std::string_view(text)); }
  // Nested JSON, already serialised; checked by the sender.
  Measurement& add_json(std::string_view name, std::string_view json);

  void clear(std::int64_t ts_ms = 0);
  std::int64_t ts_ms() const { return ts_ms_; }
  BytesView encoded() const;

 private:
  void append(std::string_view name, unsigned char kind, const void* data, std::size_t size);
  std::int64_t ts_ms_;
  std::size_t size_ = 0;
  std::byte inline_[1024];
  std::vector<std::byte> spill_;  // for records over 1 KiB
};

struct TelemetryConfig {
  std::string topic = "v1/devices/me/telemetry";
  std::string attributes_topic = "v1/devices/me/attributes";
  QoS qos = QoS::at_least_once;
  std::size_t queue_capacity = 1'000;   // records; 2..2^24
  std::size_t batch_size = 100;         // records; 1..10'000
  std::size_t batch_bytes = 60'000;     // of payload; 1'000..16 MiB
  std::chrono::milliseconds batch_interval{1'000};  // since the first record of the batch; >= 10 ms
  std::vector<std::string> fields;      // empty = all

  std::vector<std::string> problems() const;
};

struct TelemetryStats {
  std::uint64_t recorded = 0;         // record() said yes
  std::uint64_t messages_queued = 0;  // records handed to the client in batches
  std::uint64_t messages_sent = 0;    // records in acknowledged batches
  std::uint64_t batches_sent = 0;     // acknowledged batches
  std::uint64_t errors = 0;           // batches that the client or the server refused
  std::uint64_t dropped = 0;          // records: queue full, refused, or waiting at stop()
  std::uint64_t queue_size = 0;       // gauge: records not yet handed to the client
  std::uint64_t queue_max = 0;        // the bound of queue_size
  std::uint64_t waiting = 0;          // gauge: records in batches without an outcome yet
  bool running = false;
  std::string last_batch;             // the beginning of the last batch, for people
};

class Telemetry {
 public:
  // `client` must outlive it. Throws std::invalid_argument with every problem of the configuration.
  Telemetry(Client& client, TelemetryConfig config);
  ~Telemetry();  // stop(1 s)
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  // Wait-free: one copy into a bounded queue. False when the queue is full (counted in `dropped`) or after stop().
  bool record(const Measurement& measurement);
  // Publishes {"name": value, ...} to attributes_topic.
  Result<MessageId> publish_attributes(const Measurement& attributes);

  void start();
  bool flush(std::chrono::milliseconds deadline);  // everything recorded before is acknowledged
  TelemetryStats stop(std::chrono::milliseconds deadline = std::chrono::seconds(5));
  TelemetryStats stats() const;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace fulmar
