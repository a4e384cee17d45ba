#pragma once
// Pipeline: queue, sender thread and books of Telemetry, with the client as a function.
//
// Threads: record() on producers' threads; run() is the sender's; outcomes arrive on the client's dispatch thread.
// The Pipeline is shared with the delivery handlers that are still out, so it may outlive its Telemetry.
//
// The sender leaves records in the queue until there is something to do with them: it sleeps until record number
// `wake_at_` is committed, or until the open batch is due. What a wake-up costs, a producer pays, so there is
//   - one for the first record after a while without, because nobody else can say when its batch is due;
//   - one for a full batch. While batches fill up the next one is due from when the sender began to wait for it, at most a
//     tenth of an interval or 100 ms early, and needs no wake-up for its first record;
//   - none while batches fill up faster than in `linger` (1 ms): the sender then looks by itself once in that time, and is
//     woken by a quarter of the queue.
// In the queue's first lap it maps memory ahead of the producers [ring.hpp 5].

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "fulmar/telemetry.hpp"
#include "outbox/doorbell.hpp"
#include "outbox/ring.hpp"
#include "telemetry/batch.hpp"
#include "telemetry/shared_histogram.hpp"

namespace fulmar::telemetry {

class Pipeline : public std::enable_shared_from_this<Pipeline> {
 public:
  using Clock = std::chrono::steady_clock;
  // Errc::outbox_full = try again later; not_supported_by_server = perhaps without the user property; any other error is
  // final for this payload.
  using Publisher = std::function<Result<MessageId>(std::string_view topic, BytesView payload,
                                                    const PublishOptions& options, DeliveryHandler handler)>;

  Pipeline(Publisher publish, TelemetryConfig config);
  ~Pipeline();

  bool record(std::int64_t ts_ms, BytesView values);
  Telemetry::Offer offer(std::int64_t ts_ms, BytesView values);  // without an entry in the books unless taken
  void start();
  bool flush(Clock::time_point deadline);
  TelemetryStats stop(Clock::time_point deadline);
  TelemetryStats stats() const;

 private:
  // Every block of the queue starts with this.
  struct BlockHead {
    std::int64_t ts_ms = 0;  // of a barrier: its number
    std::uint32_t size = 0;  // bytes of values behind it
    bool barrier = false;
  };
  static_assert(sizeof(BlockHead) == 16);
  static constexpr std::uint64_t never = ~std::uint64_t{0};

  bool enqueue(std::int64_t ts_ms, BytesView values);  // false: no room

  // --- sender thread
  void run();
  bool work();        // takes and sends what can be taken and sent; false: nothing more to do now
  bool take_block();  // the oldest block of the queue; false: it stays, the batch must go first and cannot
  bool hand_over();   // the open batch to the client; false: no room there, the batch is kept
  void map_ahead();   // spares record() the page faults of the queue's first lap
  void sleep();
  Result<MessageId> offer_batch(std::string_view payload, std::uint64_t number);
  void give_up_batch(const Error& error);
  std::uint64_t records_until_full() const;
  std::uint64_t quarter_of_ring() const;  // in records
  std::uint64_t records_in(double bytes) const;
  void warn_of_missing_fields();
  void log(LogLevel level, std::string_view text) const;

  // --- dispatch thread
  void settle(std::uint64_t batch, std::uint64_t records, const Delivery& delivery);

  void call_sender();  // any thread: have a look now, whatever wake_at_ says

  const Publisher publish_;
  const TelemetryConfig config_;
  const std::string run_id_;
  outbox::Ring ring_;
  outbox::Doorbell bell_;
  std::thread thread_;

  // Producers compare their record's number with it; the sender sets it before it sleeps. seq_cst on both sides, with the
  // ring's commit before the load and the look at the ring after the store: one of the two sees the other.
  alignas(64) std::atomic<std::uint64_t> wake_at_{never};
  std::atomic<bool> closed_{false};     // no more records
  std::atomic<bool> attention_{false};  // call_sender() was called

  // The books. Each counts one kind of event once, so a record that got lost would show as waiting for ever.
  alignas(64) std::atomic<std::uint64_t> queue_full_{0};
  std::atomic<std::uint64_t> after_stop_{0};
  std::atomic<std::uint64_t> barriers_{0};  // blocks of the ring that are no records
  std::atomic<std::uint64_t> taken_{0};     // records that have left the ring
  std::atomic<std::uint64_t> handed_records_{0}, handed_batches_{0};
  std::atomic<std::uint64_t> sent_records_{0}, sent_batches_{0};
  std::atomic<std::uint64_t> stored_records_{0};
  std::atomic<std::uint64_t> refused_records_{0}, refused_batches_{0};
  std::atomic<std::uint64_t> undelivered_{0}, empty_{0}, invalid_values_{0};
  SharedHistogram enqueue_ns_, batch_records_;
  std::atomic<Clock::rep> batch_since_{0};  // when the open batch got its first record; 0 = there is none
  std::atomic<bool> blocked_{false};        // the client had no room
  std::atomic<bool> client_gone_{false};    // the client was shut down
  std::atomic<bool> stopping_{false};       // leave when everything is handed over
  std::atomic<bool> abandon_{false};        // leave now
  std::atomic<bool> stopped_{false};        // what is still in the ring stays there

  // The sender's own; of stop()'s once the sender has ended.
  BatchBuilder batch_;
  Clock::time_point batch_due_{};
  bool flush_batch_ = false;         // hand the open batch over whatever its size
  double record_bytes_ = 256;        // of payload, smoothed
  std::uint64_t pushed_before_ = 0;  // blocks in the queue's life when it slept last
  Clock::time_point slept_at_{};     // and when that was
  bool filled_up_ = false;           // the last batch went because it was full
  std::optional<Clock::time_point>
      gathers_since_;  // the next batch is due from then on; none: from its first record
  bool missing_fields_reported_ = false;

  std::mutex stop_mutex_;     // one stop() at a time
  mutable std::mutex mutex_;  // never taken by record()
  std::condition_variable changed_;
  std::uint64_t last_batch_number_ = 0;  // written by the sender only
  // Batches without an outcome, by number: since when they have been built.
  std::map<std::uint64_t, Clock::rep> outstanding_;
  std::uint64_t barriers_issued_ = 0;
  std::uint64_t barriers_met_ = 0;  // the highest that the sender has come across
  bool sender_done_ = false;
  std::string last_batch_;
  std::uint64_t last_batch_records_ = 0, last_batch_bytes_ = 0;
};

}  // namespace fulmar::telemetry
