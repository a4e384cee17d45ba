#include "spool/spool.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "outbox/doorbell.hpp"
#include "outbox/ring.hpp"

namespace fulmar::spool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t unpolled_max = 64 << 10;
constexpr std::size_t notices_max = 64;
// What a kill makes come twice, beside what was in flight. A save without a sync is one pwrite, and there is at most one
// a turn, however many came.
constexpr std::uint64_t acknowledgements_per_save = 64;

// In front of each entry in the staging ring. A large entry's bytes lie in `large` instead of behind it.
struct Staged {
  std::uint64_t token;
  std::int64_t expires_ms;
  std::uint64_t size;
  std::vector<std::byte>* large;
  std::uint32_t round;  // of the owner, when it was appended
  bool sync;
};

struct Said {
  enum class What : std::uint8_t { acknowledge, release, forget_releases, want, skip, rewind, sync };
  What what{};
  std::uint64_t number{};  // a sequence, or whether entries are wanted
  std::uint64_t token{};
};

}  // namespace

struct Spool::State {
  State(SpoolOptions given, std::function<void()> on_wake, FileSystem& file_system)
      : options(std::move(given)),
        wake(std::move(on_wake)),
        files(file_system),
        staging(options.staging_bytes, unpolled_max),
        large_bytes(staging.capacity_bytes() / 4),
        batches(options.chunks_max, ReadBatch(options.chunk_bytes)),
        lent(std::make_unique<std::atomic<bool>[]>(options.chunks_max)) {
    if (!options.wall_ms) {
      options.wall_ms = [] {
        return std::chrono::duration_cast<std::chrono::milliseconds>(
                   std::chrono::system_clock::now().time_since_epoch())
            .count();
      };
    }
    if (!options.now) options.now = Clock::now;
  }

  // --- both
  SpoolOptions options;
  std::function<void()> wake;
  FileSystem& files;
  outbox::Ring staging;  // of Staged: the owner's appends
  outbox::Doorbell bell;
  const std::size_t large_bytes;
  std::atomic<bool> large_on_its_way{false};
  std::atomic<bool> owner_waits{false};  // an append() returned false
  std::atomic<bool> news{false};         // there is something in `said`, or a chunk was given back
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> acknowledgements_refused{0};
  std::vector<ReadBatch> batches;
  std::unique_ptr<std::atomic<bool>[]> lent;  // by chunk: the owner has it

  mutable std::mutex mutex;  // of what follows; held to move or copy it only
  std::vector<Said> said;
  std::vector<Event> events;
  Stats stats;
  std::size_t notices = 0;   // in events
  bool owner_knows = false;  // wake() was called since the owner polled
  bool done = false;
  std::condition_variable done_changed;

  std::mutex wake_mutex;  // held while wake() runs
  bool abandoned = false;

  // --- owner
  std::thread thread;
  std::vector<Said> saying;
  std::vector<Event> taken;
  std::uint32_t owners_round = 0;
  std::size_t unpolled = 0;  // appends whose fate was not polled
  std::uint64_t reading = 0;
  bool spoke = false;
  bool stepped = false;  // there is no thread
  bool stopped = false;

  // --- the spool's thread, or the owner in step()
  std::unique_ptr<Log> log;
  std::vector<Event> fresh;
  std::vector<Said> heard;
  Stats told;  // what Dropped events have told of
  Stored stored;
  std::uint32_t round = 0;  // appends of earlier ones are rejected, and why:
  Refusal rejected_why = Refusal::full;
  bool failing = false, wants = false, may_read = false, told_end = false;
  bool sync_wanted = false;
  std::uint64_t reading_now = 0;
  std::uint64_t acknowledged = 0;         // since the cursor was saved
  std::uint64_t not_dropped = 0;          // see the event
  std::optional<std::uint64_t> released;  // token of the last release that is not saved
  std::optional<Clock::time_point> unsynced_since, cursor_due, aging_due, recover_at, save_again_at,
      read_again_at, open_again_at;
  std::string open_error;                   // the last one that was told
  std::optional<std::uint64_t> forget_all;  // said while there was no log

  void run();
  void open();
  bool turn();
  void take_appends();
  void take_said();
  void store();
  void save();
  void read_ahead();
  void tell_losses();
  void close();
  void publish();
  bool has_work();
  Clock::time_point next_deadline() const;
  void notice(Level level, std::string_view text);
};

// --- the spool's thread ------------------------------------------------------------------------------------------------

void Spool::State::run() {
  pthread_setname_np(pthread_self(), "fulmar-spool");
  open();
  publish();
  for (;;) {
    const bool last =
        stopping.load(std::memory_order_seq_cst);  // before looking, so that nothing said before is missed
    const bool worked = turn();
    publish();
    if (last && !has_work()) break;
    if (worked || has_work()) continue;
    bell.announce();
    if (has_work() || stopping.load(std::memory_order_seq_cst)) {
      bell.awake();
    } else {
      bell.sleep_until(next_deadline());
    }
  }
  close();
  publish();
  {
    const std::lock_guard hold(mutex);
    done = true;
  }
  done_changed.notify_all();
}

void Spool::State::open() {
  auto opened = Log::open(files, options.log, options.wall_ms(),
                          [this](Level level, std::string_view text) { notice(level, text); });
  if (!opened) {
    open_again_at = options.now() + options.retry_interval;
    if (std::exchange(open_error, opened.error().message) != opened.error().message) {
      fresh.emplace_back(OpenFailed{opened.error()});
    }
    return;
  }
  open_again_at.reset();
  log = std::move(*opened);
  told = log->stats();
  stored = {log->written(), log->synced()};
  fresh.emplace_back(Opened{told, log->acknowledged_low() + 1, log->appended() + 1});
  if (told.lost) fresh.emplace_back(Dropped{Dropped::Why::lost, told.lost, log->acknowledged_low()});
  if (forget_all) {
    log->forget_releases();
    released = std::exchange(forget_all, {});
  }
}

void Spool::State::notice(Level level, std::string_view text) {
  const auto kept =
      std::ranges::count_if(fresh, [](const Event& event) { return std::holds_alternative<Notice>(event); });
  if (static_cast<std::size_t>(kept) < notices_max) fresh.emplace_back(Notice{level, std::string(text)});
}

bool Spool::State::has_work() { return news.load(std::memory_order_seq_cst) || !staging.front().empty(); }

bool Spool::State::turn() {
  news.store(false, std::memory_order_seq_cst);
  {
    const std::lock_guard hold(mutex);
    std::swap(heard, said);
  }
  if (!log && open_again_at && options.now() >= *open_again_at) open();
  const auto before = staging.popped();
  take_appends();  // before what was said after them
  take_said();
  if (log) {
    store();
    save();
    tell_losses();
    read_ahead();
  }
  if (owner_waits.load(std::memory_order_seq_cst) && staging.popped() != before) {
    owner_waits.store(false, std::memory_order_relaxed);
    const std::lock_guard hold(wake_mutex);
    if (!abandoned && wake) wake();
  }
  return staging.popped() != before;
}

// Until the ring is empty or as much is waiting for a sync as one should take.
void Spool::State::take_appends() {
  const std::size_t enough = std::max<std::size_t>(options.sync_bytes, 1 << 20);
  const std::int64_t now_ms = options.wall_ms();
  for (auto block = staging.front(); !block.empty(); block = staging.front()) {
    Staged entry{};
    std::memcpy(&entry, block.data(), sizeof entry);
    const std::unique_ptr<std::vector<std::byte>> large(entry.large);
    const Bytes part = large ? Bytes(*large) : Bytes(block).subspan(sizeof entry, entry.size);
    auto appended = std::expected<Sequence, Refusal>(std::unexpected(rejected_why));
    if (!log) {
      appended = std::unexpected(Refusal::failing);
    } else if (entry.round >= round) {
      appended = log->append({now_ms, entry.expires_ms, {&part, 1}});
    }
    staging.pop();
    if (large) large_on_its_way.store(false, std::memory_order_release);
    if (!appended) {
      if (appended.error() != Refusal::too_large) {
        round = std::max(round, entry.round + 1);
        rejected_why = appended.error();
      }
      fresh.emplace_back(Rejected{entry.token, appended.error(), entry.round});
      continue;
    }
    fresh.emplace_back(Assigned{entry.token, *appended});
    sync_wanted |= entry.sync;
    may_read = true;
    told_end = false;
    if (log->unsynced_bytes() >= enough) break;
  }
}

void Spool::State::take_said() {
  for (const auto& one : heard) {
    if (!log) {  // there is nothing to do it to, but these hold for what will be found
      if (one.what == Said::What::forget_releases) forget_all = one.token;
      if (one.what == Said::What::want) wants = one.number;
      continue;
    }
    switch (one.what) {
      case Said::What::acknowledge:
        switch (log->acknowledge(one.number)) {
          case Acknowledgements::Outcome::done: ++acknowledged; break;
          case Acknowledgements::Outcome::already: ++not_dropped; break;
          case Acknowledgements::Outcome::beyond_window:
            acknowledgements_refused.fetch_add(1, std::memory_order_relaxed);
            break;
        }
        break;
      case Said::What::forget_releases:
        log->forget_releases();
        released = one.token;
        break;
      case Said::What::release:
        if (log->release(one.number) == Acknowledgements::Outcome::beyond_window) {
          acknowledgements_refused.fetch_add(1, std::memory_order_relaxed);
        }
        released = one.token;
        break;
      case Said::What::want: wants = one.number; break;
      case Said::What::skip: log->skip_through(one.number); break;
      case Said::What::rewind:
        log->rewind();
        ++reading_now;
        told_end = false;
        break;
      case Said::What::sync: sync_wanted = true; break;
    }
    may_read = true;
  }
  heard.clear();
}

void Spool::State::store() {
  const auto now = options.now();
  if (log->failing() && recover_at && now >= *recover_at) {
    if (log->recover()) {
      failing = false;
      recover_at.reset();
      fresh.emplace_back(Recovered{});
    } else {
      recover_at = now + options.retry_interval;
    }
  }
  if (!log->failing() && log->unsynced_bytes()) {
    if (!unsynced_since) unsynced_since = now;
    const bool due = sync_wanted || log->unsynced_bytes() >= options.sync_bytes ||
                     now >= *unsynced_since + options.sync_interval;
    // What a sync leaves undone, a failure, is kept by the log and shows in failing().
    std::ignore = due ? log->sync() : log->write();
  }
  if (!log->unsynced_bytes()) {
    sync_wanted = false;
    unsynced_since.reset();
  }
  if (log->failing() && !failing) {
    failing = true;
    recover_at = now + options.retry_interval;
    fresh.emplace_back(Failing{log->last_error()});
  }
  if (log->written() != stored.written || log->synced() != stored.synced) {
    stored = {log->written(), log->synced()};
    fresh.emplace_back(stored);
  }
}

void Spool::State::save() {
  const auto now = options.now();
  if (options.log.age_max && (!aging_due || now >= *aging_due)) {
    aging_due = now + options.cursor_interval;
    log->drop_aged(options.wall_ms());
  }
  if (acknowledged && !cursor_due) cursor_due = now + options.cursor_interval;
  const bool due =
      released || acknowledged >= acknowledgements_per_save || (cursor_due && now >= *cursor_due);
  if (!due || (save_again_at && now < *save_again_at)) return;
  if (!log->save_cursor(released.has_value())) {
    save_again_at = now + options.retry_interval;
    return;
  }
  if (released) fresh.emplace_back(ReleasesSaved{*released});
  released.reset();
  save_again_at.reset();
  cursor_due.reset();
  acknowledged = 0;
}

void Spool::State::tell_losses() {
  const Stats now = log->stats();
  const auto tell = [&](Dropped::Why why, std::uint64_t count, std::uint64_t before) {
    if (count != before) fresh.emplace_back(Dropped{why, count - before, log->acknowledged_low()});
  };
  tell(Dropped::Why::overflow, now.dropped_overflow, told.dropped_overflow);
  tell(Dropped::Why::age, now.dropped_age, told.dropped_age);
  tell(Dropped::Why::lost, now.lost, told.lost);
  told = now;
  if (not_dropped) fresh.emplace_back(NotDropped{std::exchange(not_dropped, 0)});
}

void Spool::State::read_ahead() {
  if (read_again_at && options.now() >= *read_again_at) {
    read_again_at.reset();
    may_read = true;
  }
  while (wants && may_read) {
    std::size_t index = 0;
    while (index < batches.size() && lent[index].load(std::memory_order_acquire))
      ++index;  // pairs with give_back
    if (index == batches.size()) return;
    ReadBatch& batch = batches[index];
    if (const auto read = log->read(batch, options.wall_ms()); !read) {
      notice(Level::error, read.error().message);
      may_read = false;
      read_again_at = options.now() + options.retry_interval;
      return;
    }
    if (batch.empty()) {
      may_read = false;
      if (!told_end && log->read_to_end()) {
        told_end = true;
        fresh.emplace_back(ReadToEnd{log->appended(), reading_now});
      }
      return;
    }
    lent[index].store(true, std::memory_order_relaxed);
    fresh.emplace_back(Chunk{index, batch.entries(), reading_now});
  }
}

void Spool::State::close() {
  if (!log) return;
  if (log->failing()) std::ignore = log->recover();
  std::ignore = log->sync();
  if (!log->failing() && log->save_cursor(true) && released) fresh.emplace_back(ReleasesSaved{*released});
  if (const auto left = log->appended() - log->synced()) {
    notice(Level::error, std::to_string(left) +
                             " entries could not be stored before the stop: " + log->last_error().message);
  }
  if (log->synced() != stored.synced) fresh.emplace_back(Stored{log->written(), log->synced()});
  told = log->stats();
  log.reset();
}

// Moves the events to where the owner finds them, and wakes it once for all that it has not polled.
void Spool::State::publish() {
  bool must_wake = false;
  {
    const std::lock_guard hold(mutex);
    stats = told;
    for (auto& event : fresh) {
      if (std::holds_alternative<Notice>(event) && ++notices > notices_max) continue;
      if (std::holds_alternative<Stored>(event) && !events.empty()) {
        if (auto* last = std::get_if<Stored>(&events.back())) {
          *last = std::get<Stored>(event);
          continue;
        }
      }
      events.push_back(std::move(event));
    }
    if (!fresh.empty() && !owner_knows) owner_knows = must_wake = true;
  }
  fresh.clear();
  if (!must_wake) return;
  const std::lock_guard hold(wake_mutex);
  if (!abandoned && wake) wake();
}

Clock::time_point Spool::State::next_deadline() const {
  auto next = Clock::time_point::max();
  if (unsynced_since && !failing) next = std::min(next, *unsynced_since + options.sync_interval);
  if (cursor_due || released) next = std::min(next, save_again_at.value_or(cursor_due.value_or(next)));
  for (const auto& due : {aging_due, recover_at, read_again_at, open_again_at})
    next = std::min(next, due.value_or(next));
  return next;
}

// --- the owner ---------------------------------------------------------------------------------------------------------

Spool::Spool(SpoolOptions options, std::function<void()> wake, FileSystem& files)
    : state_(std::make_shared<State>(std::move(options), std::move(wake), files)) {}

Spool::~Spool() { stop(std::chrono::seconds(5)); }

Result<void> Spool::start() {
  if (auto valid = state_->options.log.validate(); !valid) return valid;
  try {
    state_->thread = std::thread([state = state_] { state->run(); });
  } catch (const std::system_error& error) {
    return fail(Errc::io_error, std::string("the spool's thread cannot be started: ") + error.what());
  }
  return {};
}

Result<void> Spool::start_stepped() {
  if (auto valid = state_->options.log.validate(); !valid) return valid;
  state_->stepped = true;
  state_->open();
  state_->publish();
  return {};
}

bool Spool::step() {
  State& state = *state_;
  if (!state.stepped || state.stopped) return false;
  const bool had_work = state.has_work();
  const bool worked = state.turn();
  state.publish();
  return had_work || worked;
}

bool Spool::stop(std::chrono::milliseconds deadline) {
  State& state = *state_;
  if (state.stepped) {
    if (std::exchange(state.stopped, true)) return true;
    submit();
    do {
      state.turn();
    } while (state.has_work());
    state.close();
    state.publish();
    return true;
  }
  if (!state.thread.joinable()) return !state.abandoned;
  state.stopped = true;
  submit();
  state.stopping.store(true, std::memory_order_seq_cst);
  state.bell.ring();
  bool done = false;
  {
    std::unique_lock hold(state.mutex);
    done = state.done_changed.wait_for(hold, deadline, [&] { return state.done; });
  }
  if (done) {
    state.thread.join();
    return true;
  }
  const std::lock_guard hold(state.wake_mutex);
  state.abandoned = true;
  state.thread.detach();
  return false;
}

bool Spool::append(std::span<const Bytes> parts, std::int64_t expires_ms, std::uint64_t token,
                   Promise promise) {
  State& state = *state_;
  if (state.stopped || state.unpolled >= unpolled_max) return false;
  std::size_t size = 0;
  for (const auto& part : parts) size += part.size();
  Staged entry{token, expires_ms, size, nullptr, state.owners_round, promise == Promise::synced};
  const bool is_large = sizeof entry + size > state.large_bytes;
  const std::size_t needed = sizeof entry + (is_large ? 0 : size);

  const auto reserve = [&]() -> std::byte* {
    if (is_large && state.large_on_its_way.load(std::memory_order_acquire)) return nullptr;
    return state.staging.try_reserve(needed);
  };
  std::byte* block = reserve();
  if (!block) {
    // Say that we wait, then look again: the thread makes room, then looks whether somebody waits.
    state.owner_waits.store(true, std::memory_order_seq_cst);
    block = reserve();
    if (!block) {
      submit();
      return false;
    }
    state.owner_waits.store(false, std::memory_order_relaxed);
  }
  std::byte* place = block + sizeof entry;
  if (is_large) {
    state.large_on_its_way.store(true, std::memory_order_relaxed);
    entry.large = new std::vector<std::byte>(size);  // the thread that takes the block owns it
    place = entry.large->data();
  }
  std::memcpy(block, &entry, sizeof entry);
  for (const auto& part : parts) {
    if (!part.empty()) std::memcpy(place, part.data(), part.size());
    place += part.size();
  }
  state.staging.commit(block, needed);
  ++state.unpolled;
  state.spoke = true;
  return true;
}

void Spool::acknowledge(Sequence sequence) {
  state_->saying.push_back({Said::What::acknowledge, sequence, 0});
}
void Spool::forget_releases(std::uint64_t token) {
  state_->saying.push_back({Said::What::forget_releases, 0, token});
}
void Spool::release(Sequence sequence, std::uint64_t token) {
  state_->saying.push_back({Said::What::release, sequence, token});
}
void Spool::want(bool entries) { state_->saying.push_back({Said::What::want, entries, 0}); }
void Spool::skip_through(Sequence sequence) { state_->saying.push_back({Said::What::skip, sequence, 0}); }
void Spool::sync() { state_->saying.push_back({Said::What::sync, 0, 0}); }
void Spool::rewind() {
  ++state_->reading;
  state_->saying.push_back({Said::What::rewind, 0, 0});
}

void Spool::give_back(std::size_t chunk) {
  State& state = *state_;
  if (chunk >= state.batches.size()) return;
  state.lent[chunk].store(false, std::memory_order_release);  // pairs with read_ahead
  state.news.store(true, std::memory_order_seq_cst);
  state.spoke = true;
}

void Spool::submit() {
  State& state = *state_;
  if (!state.saying.empty()) {
    {
      const std::lock_guard hold(state.mutex);
      if (state.said.empty()) {
        std::swap(state.said, state.saying);
      } else {
        state.said.insert(state.said.end(), state.saying.begin(), state.saying.end());
      }
    }
    state.saying.clear();
    state.news.store(true, std::memory_order_seq_cst);
    state.spoke = true;
  }
  if (std::exchange(state.spoke, false)) state.bell.ring();
}

std::vector<Event>& Spool::take_events() {
  State& state = *state_;
  {
    const std::lock_guard hold(state.mutex);
    std::swap(state.taken, state.events);
    state.notices = 0;
    state.owner_knows = false;
  }
  std::erase_if(state.taken, [&](const Event& event) {
    if (std::holds_alternative<Assigned>(event) || std::holds_alternative<Rejected>(event)) --state.unpolled;
    if (const auto* rejected = std::get_if<Rejected>(&event);
        rejected && rejected->reason != Refusal::too_large) {
      state.owners_round = std::max(state.owners_round, rejected->round + 1);
    }
    if (const auto* end = std::get_if<ReadToEnd>(&event)) return end->reading != state.reading;
    const auto* chunk = std::get_if<Chunk>(&event);
    if (!chunk || chunk->reading == state.reading) return false;
    give_back(chunk->index);
    return true;
  });
  return state.taken;
}

Stats Spool::stats() const {
  const std::lock_guard hold(state_->mutex);
  return state_->stats;
}

std::uint64_t Spool::acknowledgements_refused() const {
  return state_->acknowledgements_refused.load(std::memory_order_relaxed);
}

}  // namespace fulmar::spool
