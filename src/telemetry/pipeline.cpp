#include "telemetry/pipeline.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "fulmar/envelope.hpp"

namespace fulmar::telemetry {
namespace {

constexpr std::size_t last_batch_shown = 160;             // bytes
constexpr std::uint64_t fields_judged_after = 100;        // records
constexpr std::chrono::milliseconds retry_interval{100};  // when the client is full and nobody rings
// How long records may lie in the queue instead of waking the sender, at rates that fill a batch in that time.
constexpr std::chrono::milliseconds linger{1};
// While batches fill up: how long the first record of the next one may lie in the queue unseen.
constexpr std::chrono::milliseconds first_record_wait_max{100};
// As retry_interval, in the queue's first lap and while records come: memory is to be mapped ahead of them.
constexpr std::chrono::milliseconds map_interval{1};
// So much at least: a batch, which comes while the sender sleeps.
constexpr std::size_t mapped_ahead_min = std::size_t{64} << 10;
constexpr std::chrono::microseconds commit_wait{
    50};  // for a producer that was interrupted between reserve and commit

std::size_t ring_bytes(const TelemetryConfig& config) {
  if (config.queue_bytes) return config.queue_bytes;
  return std::clamp<std::size_t>(config.queue_capacity << 10, std::size_t{1} << 20, std::size_t{256} << 20);
}

std::int64_t wall_clock_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

// The beginning of a text, not cut inside a UTF-8 sequence.
std::string_view beginning(std::string_view text, std::size_t size) {
  if (text.size() <= size) return text;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  return text.substr(0, size);
}

}  // namespace

Pipeline::Pipeline(Publisher publish, TelemetryConfig config)
    : publish_(std::move(publish)),
      config_(std::move(config)),
      run_id_(new_ulid()),
      ring_(ring_bytes(config_), config_.queue_capacity),
      batch_(config_, run_id_) {}

Pipeline::~Pipeline() {
  if (thread_.joinable()) stop(Clock::now());
}

// --- producers

// One call in 256 of a thread is timed: two readings of the clock cost as much as the call itself.
bool Pipeline::record(std::int64_t ts_ms, BytesView values) {
  if (closed_.load(std::memory_order_relaxed)) {
    after_stop_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  thread_local std::uint8_t calls = 0;
  const bool timed = ++calls == 0;
  const auto begin = timed ? Clock::now() : Clock::time_point{};
  const bool taken = enqueue(ts_ms, values);
  if (!taken) {
    queue_full_.fetch_add(1, std::memory_order_relaxed);
    if (wake_at_.load(std::memory_order_relaxed) != never)
      bell_.ring();  // full of bytes before it is full of records
  }
  if (timed) enqueue_ns_.add(static_cast<std::uint64_t>((Clock::now() - begin).count()));
  return taken;
}

Telemetry::Offer Pipeline::offer(std::int64_t ts_ms, BytesView values) {
  if (closed_.load(std::memory_order_relaxed)) return Telemetry::Offer::stopped;
  if (sizeof(BlockHead) + values.size() > ring_.block_max()) return Telemetry::Offer::too_large;
  if (enqueue(ts_ms, values)) return Telemetry::Offer::taken;
  if (wake_at_.load(std::memory_order_relaxed) != never) bell_.ring();
  return Telemetry::Offer::queue_full;
}

bool Pipeline::enqueue(std::int64_t ts_ms, BytesView values) {
  std::uint64_t number = 0;
  std::byte* block = ring_.try_reserve(sizeof(BlockHead) + values.size(), &number);
  if (!block) return false;
  new (block) BlockHead{ts_ms ? ts_ms : wall_clock_ms(), static_cast<std::uint32_t>(values.size()), false};
  if (!values.empty()) std::memcpy(block + sizeof(BlockHead), values.data(), values.size());
  ring_.commit(block, sizeof(BlockHead) + values.size());
  if (number + 1 >= wake_at_.load(std::memory_order_seq_cst)) bell_.ring();
  return true;
}

bool Pipeline::flush(Clock::time_point deadline) {
  std::uint64_t barrier = 0;
  {
    const std::lock_guard lock(mutex_);
    barrier = ++barriers_issued_;
  }
  // The barrier walks through the queue as a record does, so it arrives behind all that was recorded before it.
  barriers_.fetch_add(1, std::memory_order_relaxed);
  std::byte* block = ring_.try_reserve(sizeof(BlockHead));
  while (!block && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    block = ring_.try_reserve(sizeof(BlockHead));
  }
  if (!block) {
    barriers_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  new (block) BlockHead{static_cast<std::int64_t>(barrier), 0, true};
  ring_.commit(block, sizeof(BlockHead));
  call_sender();

  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return barriers_met_ >= barrier || sender_done_; });
  if (barriers_met_ < barrier) return false;
  const std::uint64_t last = last_batch_number_;
  return changed_.wait_until(lock, deadline,
                             [&] { return outstanding_.empty() || outstanding_.begin()->first > last; });
}

TelemetryStats Pipeline::stop(Clock::time_point deadline) {
  const std::lock_guard one(stop_mutex_);
  closed_.store(true, std::memory_order_relaxed);
  if (stopped_.load(std::memory_order_relaxed)) return stats();
  stopping_.store(true, std::memory_order_release);  // pairs with the acquire in run()
  call_sender();
  {
    std::unique_lock lock(mutex_);
    if (thread_.joinable()) changed_.wait_until(lock, deadline, [&] { return sender_done_; });
    changed_.wait_until(lock, deadline, [&] { return outstanding_.empty(); });
  }
  abandon_.store(true, std::memory_order_release);
  call_sender();
  if (thread_.joinable()) thread_.join();
  undelivered_.fetch_add(batch_.count(), std::memory_order_relaxed);
  batch_.reset();
  batch_since_.store(0, std::memory_order_relaxed);
  stopped_.store(true, std::memory_order_release);
  return stats();
}

void Pipeline::call_sender() {
  attention_.store(true, std::memory_order_seq_cst);  // pairs with the exchange in sleep(), as a commit does
  bell_.ring();
}

TelemetryStats Pipeline::stats() const {
  // From the outcome back to the queue: a record on its way is then counted as waiting, never twice or as minus one.
  constexpr auto order = std::memory_order_acquire;
  TelemetryStats s;
  const bool stopped = stopped_.load(order);
  s.messages_sent = sent_records_.load(order);
  s.batches_sent = sent_batches_.load(order);
  s.offline_stored = stored_records_.load(order);
  s.dropped.refused = refused_records_.load(order);
  s.errors = refused_batches_.load(order);
  s.dropped.undelivered = undelivered_.load(order);
  s.dropped.empty = empty_.load(order);
  s.messages_queued = handed_records_.load(order);
  s.batches_queued = handed_batches_.load(order);
  s.invalid_values = invalid_values_.load(order);
  const std::uint64_t taken = taken_.load(order);
  const std::uint64_t after_stop = after_stop_.load(order);
  s.dropped.queue_full = queue_full_.load(order);
  const std::uint64_t barriers = barriers_.load(order);
  const std::uint64_t queued = std::max(ring_.pushed(), taken + barriers) - barriers;  // records ever queued
  s.recorded = queued + s.dropped.queue_full + after_stop;
  s.queue_size = queued - taken;
  s.dropped.undelivered += after_stop;
  if (stopped) s.dropped.undelivered += s.queue_size;
  if (stopped) s.queue_size = 0;
  s.waiting = s.recorded - s.messages_sent - s.offline_stored - s.dropped.total();
  s.queue_max = config_.queue_capacity;
  s.blocked = blocked_.load(order);
  s.enqueue_ns = enqueue_ns_.snapshot();
  s.batch_records = batch_records_.snapshot();
  s.run_id = run_id_;
  const Clock::rep open = batch_since_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  Clock::rep oldest = outstanding_.empty() ? open : outstanding_.begin()->second;
  if (oldest != 0)
    s.oldest_unsent_age = std::max({}, std::chrono::floor<std::chrono::milliseconds>(
                                           Clock::now().time_since_epoch() - Clock::duration(oldest)));
  s.running = thread_.joinable() && !sender_done_;
  s.last_batch = last_batch_;
  s.last_batch_records = last_batch_records_;
  s.last_batch_bytes = last_batch_bytes_;
  return s;
}

// --- sender

void Pipeline::start() {
  const std::lock_guard one(stop_mutex_);
  const std::lock_guard lock(mutex_);
  if (thread_.joinable() || closed_.load(std::memory_order_relaxed)) return;
  thread_ = std::thread([this] { run(); });
}

void Pipeline::run() {
  pthread_setname_np(pthread_self(), "fulmar-batches");
  while (!abandon_.load(std::memory_order_acquire)) {
    if (work()) continue;
    if (stopping_.load(std::memory_order_acquire)) {
      if (client_gone_.load(std::memory_order_relaxed)) break;
      if (ring_.depth() == 0 && batch_.count() == 0) break;
      if (ring_.depth() == 0 && !flush_batch_) {
        flush_batch_ = true;
        continue;
      }
    }
    sleep();
  }
  warn_of_missing_fields();
  const std::lock_guard lock(mutex_);
  sender_done_ = true;
  changed_.notify_all();
}

bool Pipeline::work() {
  bool progress = false;
  while (!ring_.front().empty()) {
    if (!take_block()) return false;
    progress = true;
    if (abandon_.load(std::memory_order_relaxed)) return false;
  }
  if (batch_.count() > 0 && (flush_batch_ || batch_.complete() || Clock::now() >= batch_due_)) {
    if (!hand_over()) return false;
    flush_batch_ = filled_up_ = false;
    progress = true;
  }
  return progress;
}

bool Pipeline::take_block() {
  const std::span<std::byte> block = ring_.front();
  BlockHead head;
  std::memcpy(&head, block.data(), sizeof head);
  if (head.barrier) {
    if (batch_.count() > 0 && !hand_over()) return false;
    ring_.pop();
    const std::lock_guard lock(mutex_);
    barriers_met_ = std::max(barriers_met_, static_cast<std::uint64_t>(head.ts_ms));
    changed_.notify_all();
    return true;
  }

  const MeasurementView record(head.ts_ms, block.subspan(sizeof head, head.size));
  const std::size_t before = batch_.bytes();
  switch (batch_.add(record)) {
    case BatchBuilder::Added::full:  // the record stays for the next batch
      filled_up_ = hand_over();
      return filled_up_;
    case BatchBuilder::Added::empty: empty_.fetch_add(1, std::memory_order_release); break;
    case BatchBuilder::Added::yes:
      if (batch_.count() == 1) {
        const auto now = Clock::now();
        batch_due_ = std::exchange(gathers_since_, {}).value_or(now) + config_.batch_interval;
        batch_since_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
      }
      record_bytes_ += (static_cast<double>(batch_.bytes() - before) - record_bytes_) / 16;
      break;
  }
  ring_.pop();
  const std::uint64_t taken = taken_.fetch_add(1, std::memory_order_release) + 1;
  invalid_values_.store(batch_.invalid_values(), std::memory_order_relaxed);
  if (taken == fields_judged_after) warn_of_missing_fields();
  if (!batch_.complete()) return true;
  filled_up_ = hand_over();
  return filled_up_;
}

bool Pipeline::hand_over() {
  map_ahead();
  const std::uint64_t records = batch_.count();
  const std::uint64_t number = last_batch_number_ + 1;  // the same until the batch has gone
  const std::string_view payload = batch_.finish(number);
  {
    const std::lock_guard lock(mutex_);
    // Its outcome may arrive before the client has answered.
    outstanding_.emplace(number, batch_since_.load(std::memory_order_relaxed));
  }
  const auto accepted = offer_batch(payload, number);
  if (accepted) {
    handed_records_.fetch_add(records, std::memory_order_release);
    handed_batches_.fetch_add(1, std::memory_order_release);
    batch_records_.add(records);
    const std::lock_guard lock(mutex_);
    last_batch_number_ = number;
    last_batch_ = beginning(payload, last_batch_shown);
    last_batch_records_ = records;
    last_batch_bytes_ = payload.size();
  } else {
    const std::lock_guard lock(mutex_);
    outstanding_.erase(number);
    changed_.notify_all();
  }
  if (!accepted &&
      (accepted.error().code == Errc::outbox_full || accepted.error().code == Errc::shutting_down)) {
    client_gone_.store(accepted.error().code == Errc::shutting_down, std::memory_order_relaxed);
    if (!blocked_.exchange(true, std::memory_order_seq_cst))
      log(LogLevel::warning, "the client takes no batch now (" + accepted.error().message +
                                 "); records wait in the queue of " + std::to_string(config_.queue_capacity));
    return false;
  }
  if (!accepted) {
    give_up_batch(accepted.error());
    const std::lock_guard lock(mutex_);
    last_batch_number_ = number;  // a gap for whoever looks at the numbers
  }
  if (blocked_.exchange(false, std::memory_order_relaxed))
    log(LogLevel::info, "the client takes batches again");
  batch_.reset();
  batch_since_.store(0, std::memory_order_relaxed);
  return true;
}

// With the sequence where it can be sent: the client says no once it knows that the connection speaks 3.1.1.
Result<MessageId> Pipeline::offer_batch(std::string_view payload, std::uint64_t number) {
  const auto handler = [&] {
    return [self = shared_from_this(), number, records = batch_.count()](const Delivery& d) {
      self->settle(number, records, d);
    };
  };
  PublishOptions options{.qos = config_.qos};
  if (!config_.batch_property.empty()) {
    const std::string sequence = run_id_ + '/' + std::to_string(number);
    const std::array properties{UserProperty{config_.batch_property, sequence}};
    options.user_properties = properties;
    auto accepted = publish_(config_.topic, as_bytes(payload), options, handler());
    if (accepted || accepted.error().code != Errc::not_supported_by_server) return accepted;
    options.user_properties = {};
  }
  return publish_(config_.topic, as_bytes(payload), options, handler());
}

void Pipeline::give_up_batch(const Error& error) {
  refused_records_.fetch_add(batch_.count(), std::memory_order_release);
  const std::uint64_t batches = refused_batches_.fetch_add(1, std::memory_order_release) + 1;
  if ((batches & (batches - 1)) != 0) return;  // the 1st, 2nd, 4th, 8th ...
  log(LogLevel::error, "batch of " + std::to_string(batch_.count()) + " records (" +
                           std::to_string(batch_.bytes()) + " bytes) dropped: " + error.message + " (" +
                           std::to_string(batches) + " so far)");
}

void Pipeline::map_ahead() {
  while (ring_.populate_ahead(mapped_ahead_min)) {
  }
}

void Pipeline::sleep() {
  map_ahead();
  const auto now = Clock::now();
  const std::uint64_t pushed = ring_.pushed();
  const std::uint64_t came = pushed - std::exchange(pushed_before_, pushed);
  const auto meanwhile = now - std::exchange(slept_at_, now);
  const auto batch =
      std::min(std::uint64_t{config_.batch_size}, records_in(static_cast<double>(config_.batch_bytes)));
  const bool fast = came > 0 && meanwhile <= came * std::chrono::nanoseconds(linger) / batch;
  Clock::time_point deadline = Clock::time_point::max();
  std::uint64_t records = 1;
  gathers_since_.reset();
  if (batch_.count() > 0) {
    deadline = batch_due_;
    records = records_until_full();
  } else if (std::exchange(filled_up_, false)) {
    gathers_since_ = now;
    deadline = now + std::min(config_.batch_interval / 10, first_record_wait_max);
    records = records_until_full();
  }
  if (fast) {
    deadline = std::min<Clock::time_point>(deadline, now + linger);
    records = std::max(records, std::min<std::uint64_t>(config_.queue_capacity / 4, quarter_of_ring()));
  }
  std::uint64_t wake_at = ring_.popped() + records;
  if (blocked_.load(std::memory_order_relaxed)) {
    const bool mapped = ring_.populated();
    deadline = now + (came > 0 && !mapped ? map_interval : retry_interval);
    wake_at = came > 0 || mapped ? never : pushed + 1;
  } else if (ring_.depth() > 0) {
    deadline = now + commit_wait;
    wake_at = never;
  }
  bell_.announce();
  wake_at_.store(wake_at, std::memory_order_seq_cst);
  if (attention_.exchange(false, std::memory_order_seq_cst) || ring_.pushed() >= wake_at)
    bell_.awake();
  else
    bell_.sleep_until(deadline);
  wake_at_.store(never, std::memory_order_relaxed);
}

// How many more records fill the open batch, but never so many that the queue could fill while the sender sleeps.
std::uint64_t Pipeline::records_until_full() const {
  const auto left =
      records_in(static_cast<double>(config_.batch_bytes) - static_cast<double>(batch_.bytes()));
  return std::min({left, std::uint64_t{config_.batch_size - batch_.count()},
                   std::uint64_t{std::max<std::size_t>(config_.queue_capacity / 2, 1)}, quarter_of_ring()});
}

std::uint64_t Pipeline::quarter_of_ring() const {
  return records_in(static_cast<double>(ring_.capacity_bytes()) / 4);
}

// One at least.
std::uint64_t Pipeline::records_in(double bytes) const {
  return static_cast<std::uint64_t>(std::max(bytes / std::max(record_bytes_, 1.0), 1.0));
}

void Pipeline::warn_of_missing_fields() {
  if (std::exchange(missing_fields_reported_, true)) return;
  const auto missing = batch_.fields_never_seen();
  if (missing.empty() || taken_.load(std::memory_order_relaxed) == 0) return;
  std::string names;
  for (const std::string_view name : missing) names.append(names.empty() ? "" : ", ").append(name);
  log(LogLevel::warning, "the field filter names values that no record has: " + names);
}

void Pipeline::log(LogLevel level, std::string_view text) const {
  if (config_.log) config_.log(level, "telemetry", text);
}

// --- outcomes

void Pipeline::settle(std::uint64_t batch, std::uint64_t records, const Delivery& delivery) {
  switch (delivery.outcome) {
    case Delivery::Outcome::sent:
    case Delivery::Outcome::acknowledged:
      sent_records_.fetch_add(records, std::memory_order_release);
      sent_batches_.fetch_add(1, std::memory_order_release);
      break;
    case Delivery::Outcome::refused: {
      refused_records_.fetch_add(records, std::memory_order_release);
      const std::uint64_t batches = refused_batches_.fetch_add(1, std::memory_order_release) + 1;
      if ((batches & (batches - 1)) == 0)  // the 1st, 2nd, 4th, 8th ...
        log(LogLevel::error,
            "the server refused a batch of " + std::to_string(records) + " records for '" + config_.topic +
                "': " + std::string(to_string(static_cast<mqtt::ReasonCode>(delivery.reason_code))) +
                " (reason code " + std::to_string(delivery.reason_code) + "); dropped (" +
                std::to_string(batches) + " so far)");
      break;
    }
    case Delivery::Outcome::stored: stored_records_.fetch_add(records, std::memory_order_release); break;
    case Delivery::Outcome::expired:
    case Delivery::Outcome::dropped: undelivered_.fetch_add(records, std::memory_order_release); break;
  }
  {
    const std::lock_guard lock(mutex_);
    outstanding_.erase(batch);
    changed_.notify_all();
  }
  if (blocked_.load(std::memory_order_seq_cst)) call_sender();  // there may be room now
}

}  // namespace fulmar::telemetry
