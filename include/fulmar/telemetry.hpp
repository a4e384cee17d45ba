#pragma once
// Telemetry: a wait-free queue of measurements in front of a batching sender.
//
//   record() ─▶ bounded lock-free queue ─▶ sender thread: batches ─▶ Client ─▶ broker
//
// The sender publishes a batch when `batch_size` records are there, when `batch_bytes` would be exceeded, or when
// `batch_interval` has passed since the first record of the batch; it empties the queue each time it wakes. A batch that
// the client refuses because its outbox is full is kept and offered again; the records behind it wait in the queue. Run
// the client with Overflow::reject for that: under drop_newest a full outbox loses whole batches.
//
// Thread-safety: record() from any number of threads; everything else from any thread.
//
// Invariants
//   1. record() takes no lock, formats nothing, allocates nothing and makes no system call but the wake-up of a sleeping
//      sender, in every state of the client [house invariant 1].
//   2. Every record offered has exactly one place: recorded = messages_sent + offline_stored + waiting + dropped.total(),
//      at any moment.
//   3. Records leave in the order of record(); batches are handed to the client in that order.

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "fulmar/client.hpp"
#include "fulmar/result.hpp"

namespace fulmar {

// One record: a timestamp and named values, built in place; no formatting, and no allocation for records of <= 1 KiB.
// The timestamp is the sample time in milliseconds since the epoch; 0 = filled in by record().
//
// Null values do not exist: NaN and infinities (JSON has none) are left out, as is a nested JSON null. Names and texts
// are UTF-8; the sender replaces each invalid byte by U+FFFD. A name longer than 65,535 bytes or a text longer than
// 4 GiB is left out. The same name twice gives the same key twice.
//
// Reuse one object (clear()) on a hot path. Not thread-safe.
class Measurement {
 public:
  explicit Measurement(std::int64_t ts_ms = 0) : ts_ms_(ts_ms) {}

  Measurement& add(std::string_view name, double value);
  Measurement& add(std::string_view name, std::int64_t value);
  Measurement& add(std::string_view name, bool value);
  Measurement& add(std::string_view name, std::string_view text);
  Measurement& add(std::string_view name, float value) { return add(name, static_cast<double>(value)); }
  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Measurement& add(std::string_view name, T value) {
    if (!std::in_range<std::int64_t>(value)) return add(name, static_cast<double>(value));
    return add(name, static_cast<std::int64_t>(value));
  }
  Measurement& add(std::string_view name, const char* text) { return add(name, std::string_view(text)); }
  // Nested JSON, already serialised; checked by the sender, which leaves it out when it is not valid JSON.
  Measurement& add_json(std::string_view name, std::string_view json);

  Measurement& at(std::int64_t ts_ms) {  // the sample time, when it is known last
    ts_ms_ = ts_ms;
    return *this;
  }
  void clear(std::int64_t ts_ms = 0);
  std::int64_t ts_ms() const { return ts_ms_; }
  // What record() copies; read it with MeasurementView. Valid until the next change.
  BytesView encoded() const {
    return {spill_.empty() ? inline_.data() : spill_.data(), spill_.empty() ? size_ : spill_.size()};
  }

 private:
  void append(std::string_view name, std::uint8_t kind, const void* data, std::size_t size);

  std::int64_t ts_ms_;
  std::size_t size_ = 0;                // in use of inline_, when spill_ is empty
  std::array<std::byte, 1024> inline_;  // deliberately not initialised
  std::vector<std::byte> spill_{};      // everything, once a record is over 1 KiB
};

// One value of a record. `text` is set for kinds text and json; views belong to the record.
struct MeasurementValue {
  enum class Kind : std::uint8_t { integer, number, boolean, text, json };
  std::string_view name;
  Kind kind = Kind::integer;
  std::int64_t integer = 0;
  double number = 0;  // finite
  bool boolean = false;
  std::string_view text;
};

// Reads a record's values in the order of add().
class MeasurementView {
 public:
  MeasurementView(std::int64_t ts_ms, BytesView encoded) : ts_ms_(ts_ms), rest_(encoded) {}

  std::int64_t ts_ms() const { return ts_ms_; }
  std::optional<MeasurementValue> next();  // nothing after the last one

 private:
  std::int64_t ts_ms_;
  BytesView rest_;
};

// How records become a batch's payload: open, records with a separator between them, close. Derive and implement the one
// function to add a format. Called on the sender thread only.
class BatchFormat {
 public:
  struct Framing {
    std::string_view open, separator, close;
  };
  explicit BatchFormat(Framing framing) : framing_(framing) {}
  virtual ~BatchFormat() = default;

  const Framing& framing() const { return framing_; }
  // Appends one record to the payload. Every record has at least one value, and nested JSON is valid.
  virtual void append(std::string& payload, MeasurementView record) const = 0;

 private:
  Framing framing_;
};

// [{"ts":<ms>,"values":{...}},...], always an array. Numbers are the shortest text that reads back as the same double.
std::shared_ptr<const BatchFormat> thingsboard_format();

struct TelemetryConfig {
  std::string topic = "v1/devices/me/telemetry";
  std::string attributes_topic = "v1/devices/me/attributes";
  QoS qos = QoS::at_least_once;
  std::size_t queue_capacity = 1'000;  // records; 2..2^24
  std::size_t queue_bytes = 0;       // 1 MiB..16 GiB; 0 = 1 KiB a record, at least 1 MiB and at most 256 MiB
  std::size_t batch_size = 100;      // records; 1..10'000
  std::size_t batch_bytes = 60'000;  // of payload; 1'000..16 MiB; one record over it is a batch of its own
  std::chrono::milliseconds batch_interval{1'000};  // since the first record of the batch; 10 ms..1 h
  std::vector<std::string> fields{};                // the names to keep; empty = all
  bool batch_wrapper = false;                       // {"items":<batch>,"count":n} around each batch
  bool wrapper_sequence = false;  // ,"run":"<run_id>","batch":<number> in the wrapper; needs batch_wrapper
  // 5.0: the user property that says "<run_id>/<number>" with each batch; empty = none. The number counts the batches of a
  // Telemetry from 1 in the order of their records: one that comes again is a batch sent twice, a gap is a batch refused.
  std::string batch_property = "fulmar-batch";
  std::shared_ptr<const BatchFormat> format{};  // null = thingsboard_format()
  LogSink log{};                                // called on the sender thread; must not block

  // Every problem at once, one line each, naming the field and the value; empty when valid.
  std::vector<std::string> problems() const;
};

// Counts by powers of two. Bucket 0 holds the values up to 1, bucket i those in (2^(i-1), 2^i], the last one all above.
struct PowerHistogram {
  static constexpr std::size_t buckets = 28;
  std::array<std::uint64_t, buckets> counts{};
  std::uint64_t sum = 0;  // of the values

  static constexpr std::uint64_t upper_end(std::size_t bucket) { return std::uint64_t{1} << bucket; }
  std::uint64_t count() const;
  // The upper end of the bucket in which that share of the values (0..1) is reached; 0 when there are none.
  std::uint64_t quantile(double share) const;
};

struct TelemetryStats {
  struct Dropped {
    std::uint64_t queue_full = 0;   // the queue had no room
    std::uint64_t refused = 0;      // the client or the server refused the batch for good
    std::uint64_t undelivered = 0;  // given up without an outcome by the client or stop()
    std::uint64_t empty = 0;        // no value left: all null, invalid or filtered out
    std::uint64_t total() const { return queue_full + refused + undelivered + empty; }
  };

  std::uint64_t recorded = 0;         // records offered to record()
  std::uint64_t messages_queued = 0;  // records handed to the client in batches
  std::uint64_t messages_sent = 0;    // records in acknowledged batches (QoS 0: sent)
  // Records in batches that the client told `stored`: written to its spool and synced before there was another outcome.
  // They are delivered later, perhaps by a later process; this is their place in the books for good. With
  // Durability::write_ahead every batch is told so.
  std::uint64_t offline_stored = 0;
  std::uint64_t batches_queued = 0;  // batches handed to the client
  std::uint64_t batches_sent = 0;    // acknowledged batches
  std::uint64_t errors = 0;          // batches that the client or the server refused for good
  std::uint64_t invalid_values = 0;  // nested JSON left out because it is none
  Dropped dropped;                   // records
  std::uint64_t waiting = 0;         // gauge: records without an outcome, wherever they are
  std::uint64_t queue_size = 0;      // gauge: those of them still in the queue
  std::uint64_t queue_max = 0;       // the bound of queue_size
  bool blocked = false;              // the client's outbox is full; the sender waits for room
  bool running = false;
  bool connected = false;     // the client is
  bool offline_mode = false;  // running without a connection: batches wait in the client

  // The client's spool. These two count messages (batches, and whatever else this client publishes), those that former
  // processes left there too: Metrics::replayed and Metrics::spool_messages. Zero without a spool.
  std::uint64_t offline_sent = 0;   // taken from it by this client to be sent
  std::uint64_t offline_count = 0;  // gauge: there now, each until its acknowledgement
  std::string offline_file{};       // its folder, ClientConfig::spool_dir; empty without one

  PowerHistogram enqueue_ns{};     // what record() took its caller, one call in 256 of each thread
  PowerHistogram batch_records{};  // records in the batches handed to the client
  // Since the sender took the oldest record that has no outcome; 0 when there is none.
  std::chrono::milliseconds oldest_unsent_age{0};
  std::string run_id{};      // a ULID, new for each Telemetry
  std::string last_batch{};  // the beginning of the last batch, for people
  std::uint64_t last_batch_records = 0;
  std::uint64_t last_batch_bytes = 0;
};

class Telemetry {
 public:
  // `client` must outlive it. Throws std::invalid_argument with every problem of the configuration.
  Telemetry(Client& client, TelemetryConfig config);
  ~Telemetry();  // stop(1 s)
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  // Wait-free: one copy into the queue. False when the queue is full or after stop(); counted in `dropped` then.
  bool record(const Measurement& measurement);
  // As record(), for a source that can wait: what is not taken is not counted, and may be offered again.
  enum class Offer : std::uint8_t {
    taken,
    queue_full,  // later
    too_large,   // never: the record is larger than half of queue_bytes
    stopped,
  };
  Offer offer(const Measurement& measurement);
  // Publishes {"name": value, ...} to attributes_topic, formatted on the caller's thread. `handler` runs once on the
  // client's dispatch thread with the outcome; not when an error is returned.
  Result<MessageId> publish_attributes(const Measurement& attributes, DeliveryHandler handler = {});

  // Starts the sender; records offered before wait in the queue. Idempotent.
  void start();
  // Barrier: true when everything recorded before the call has an outcome (acknowledged or stored, or dropped and counted);
  // false when the deadline passed first.
  bool flush(std::chrono::milliseconds deadline);
  // Takes no more records, sends what waits and returns when everything has an outcome or the deadline has passed. What
  // was not handed to the client by then is dropped (`undelivered`); what was is `waiting` until the client settles it.
  // Idempotent; a stopped Telemetry cannot be started again.
  TelemetryStats stop(std::chrono::milliseconds deadline = std::chrono::seconds(5));
  TelemetryStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fulmar
