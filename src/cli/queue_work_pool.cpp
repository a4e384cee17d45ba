#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>

#include <boost/json.hpp>

#include "cli/queue_store.hpp"
#include "cli/queue_text.hpp"
#include "cli/queue_work.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {

using namespace std::chrono_literals;
using queue::Item;
using queue::Lease;

namespace {

constexpr auto claim_wait = 60s;    // then it asks again; woken before
constexpr auto empty_wait = 200ms;  // with --until-empty, while other commands run
constexpr auto trouble_pause_min = 100ms;
constexpr auto trouble_pause_max = 5s;

// Invalid bytes of a command's stderr become '?': an error message is text.
std::string valid_utf8(std::string text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80                      ? 1
                               : lead >> 5 == 6 && lead > 0xC1  ? 2
                               : lead >> 4 == 14                ? 3
                               : lead >> 3 == 30 && lead < 0xF5 ? 4
                                                                : 0;
    bool whole = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; whole && k < length; ++k)
      whole = (static_cast<unsigned char>(text[i + k]) & 0xC0) == 0x80;
    // Overlong forms, surrogates and what is above U+10FFFF.
    if (whole && length > 2) {
      const auto second = static_cast<unsigned char>(text[i + 1]);
      whole = !(lead == 0xE0 && second < 0xA0) && !(lead == 0xED && second > 0x9F) &&
              !(lead == 0xF0 && second < 0x90) && !(lead == 0xF4 && second > 0x8F);
    }
    if (!whole) text[i] = '?';
    i += whole ? length : 1;
  }
  return text;
}

std::string what_ended(const ChildEnd& end, const QueueCommandOptions& options) {
  if (end.out_of_time) return "killed after " + queue::duration_text(*options.time_limit) + " (--time-limit)";
  if (end.signal) {
    const char* name = sigabbrev_np(end.signal);
    return "killed by signal " + std::to_string(end.signal) + (name ? std::string(" (SIG") + name + ")" : "");
  }
  return "exit code " + std::to_string(end.code);
}

// The store may answer again: worth another try.
bool is_passing(Errc code) {
  return code == Errc::io_error || code == Errc::timeout || code == Errc::connection_failed ||
         code == Errc::connection_refused;
}

}  // namespace

WorkPool::WorkPool(const QueueCommandOptions& options, Queue& queue, const ProcessGuard& guard,
                   std::string program, queue::Duration lease, Hooks hooks)
    : options_(options),
      queue_(queue),
      guard_(guard),
      program_(std::move(program)),
      lease_(lease),
      hooks_(std::move(hooks)),
      left_of_count_(options.count ? options.count : UINT64_MAX) {}

WorkPool::~WorkPool() {
  give_up();
  while (!wait(100ms)) {
  }
}

void WorkPool::start() {
  threads_alive_ = options_.jobs;
  keeper_ = std::thread([this] { keep_leases(); });
  for (std::size_t i = 0; i < options_.jobs; ++i) threads_.emplace_back([this] { run_thread(); });
}

void WorkPool::drain() {
  auto expected = Stop::no;
  stop_.compare_exchange_strong(expected, Stop::drain);
  {
    const std::lock_guard lock(mutex_);
  }  // a thread that is about to wait has seen it, or is woken
  changed_.notify_all();
  queue_.interrupt();
}

void WorkPool::give_up() {
  stop_ = Stop::give_up;
  std::vector<std::shared_ptr<Hand>> running;
  {
    const std::lock_guard lock(mutex_);
    running.assign(hands_.begin(), hands_.end());
    for (const auto& hand : running) hand->given_up = true;
  }
  for (const auto& hand : running) hand->process.kill_group(SIGTERM);
  changed_.notify_all();
  queue_.interrupt();
}

bool WorkPool::wait(std::chrono::milliseconds at_most) {
  {
    std::unique_lock lock(mutex_);
    if (stopping()) {
      lock.unlock();
      queue_.interrupt();  // one that was between its look at stop_ and its wait
      lock.lock();
    }
    if (!changed_.wait_for(lock, at_most, [&] { return threads_alive_ == 0; })) return false;
    keeper_ends_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_)
    if (thread.joinable()) thread.join();
  if (keeper_.joinable()) keeper_.join();
  return true;
}

WorkPool::Totals WorkPool::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

std::optional<Error> WorkPool::fatal() const {
  const std::lock_guard lock(mutex_);
  return fatal_;
}

// --- claiming ---------------------------------------------------------------------------------------------------------

void WorkPool::run_thread() {
  Clock::duration pause = trouble_pause_min;
  while (!stopping() && take_one_of_count()) {
    Clock::time_point asked_at;
    auto lease = claim(asked_at);
    if (lease) {
      pause = trouble_pause_min;
      work_on(std::move(*lease), asked_at);
      continue;
    }
    bool troubled = false;
    {
      const std::lock_guard lock(mutex_);
      if (left_of_count_ != UINT64_MAX) ++left_of_count_;
      troubled = !trouble_told_.empty();
    }
    if (troubled) {
      pause_for(pause);
      pause = std::min<Clock::duration>(2 * pause, trouble_pause_max);
    }
  }
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    last = --threads_alive_ == 0;
  }
  changed_.notify_all();
  if (last && hooks_.ended) hooks_.ended();
}

bool WorkPool::take_one_of_count() {
  const std::lock_guard lock(mutex_);
  if (left_of_count_ == 0) return false;
  if (left_of_count_ != UINT64_MAX) --left_of_count_;
  return true;
}

std::optional<Lease> WorkPool::claim(Clock::time_point& asked_at) {
  asked_at = Clock::now();
  auto leases = queue_.claim(options_.claim);
  if (leases && leases->empty() && !stopping()) {
    bool others_work = false;
    {
      const std::lock_guard lock(mutex_);
      others_work = !hands_.empty();
    }
    if (options_.until_empty && !others_work) {
      drain();
      return std::nullopt;
    }
    asked_at = Clock::now();
    const std::chrono::nanoseconds at_most =
        options_.until_empty ? std::chrono::nanoseconds(empty_wait) : claim_wait;
    leases = queue_.wait_claim(options_.claim, at_most);
    // It may have waited: the lease began after this call had begun, at the earliest when it returned, less its length.
    if (leases && !leases->empty()) {
      const auto now = std::chrono::system_clock::now();
      const auto left = std::chrono::duration_cast<Clock::duration>(leases->front().until - now);
      asked_at = std::max(asked_at, std::min(Clock::now(), Clock::now() + left - lease_));
    }
  }
  if (!leases) {
    if (leases.error().code != Errc::cancelled) {
      if (is_passing(leases.error().code))
        trouble(leases.error());
      else
        stop_with(leases.error());
    }
    return std::nullopt;
  }
  {
    const std::lock_guard lock(mutex_);
    trouble_told_.clear();
  }
  if (leases->empty()) return std::nullopt;
  return std::move(leases->front());
}

// --- one item ---------------------------------------------------------------------------------------------------------

std::vector<std::string> WorkPool::environment_of(const Lease& lease) const {
  const Item& item = lease.item;
  return {"FULMAR_ITEM_ID=" + item.id,
          "FULMAR_ITEM_TYPE=" + item.type,
          "FULMAR_ITEM_ATTEMPT=" + std::to_string(item.retry_count + 1),
          "FULMAR_ITEM_MAX_RETRIES=" + std::to_string(item.max_retries),
          "FULMAR_ITEM_PRIORITY=" + std::to_string(item.priority),
          "FULMAR_ITEM_CREATED_AT=" + queue::format_time(item.created_at),
          "FULMAR_ITEM_METADATA=" + item.metadata,
          "FULMAR_ITEM_LEASE=" + lease_text(lease.key()),
          "FULMAR_QUEUE=" + options_.url,
          "FULMAR_QUEUE_NAME=" + queue_.name()};
}

void WorkPool::work_on(Lease lease, Clock::time_point asked_at) {
  const auto hand = std::make_shared<Hand>(std::move(lease), guard_);
  hand->ends = asked_at + lease_;
  hand->extend_at = asked_at + lease_ / 3;
  std::list<std::shared_ptr<Hand>>::iterator place;
  {
    const std::lock_guard lock(mutex_);
    place = hands_.insert(hands_.end(), hand);
    hand->given_up = stop_.load(std::memory_order_relaxed) == Stop::give_up;
  }
  changed_.notify_all();  // the keeper has a date more
  const auto begin = Clock::now();
  Result<ChildEnd> end = ChildEnd{};
  if (!hand->given_up) {
    const ChildSpec spec{.path = program_,
                         .words = options_.program,
                         .environment = environment_of(hand->lease),
                         .input = hand->lease.item.payload,
                         .output_bytes_max = options_.take_result ? queue::Limits::result_bytes : 0,
                         .time_limit = options_.time_limit,
                         .on_stderr = [this](std::string_view text) {
                           const std::lock_guard lock(telling_);
                           if (hooks_.on_stderr) hooks_.on_stderr(text);
                         }};
    end = hand->process.run(spec);
  }
  settle(*hand, end, Clock::now() - begin);
  {
    const std::lock_guard lock(mutex_);
    hands_.erase(place);
  }
  changed_.notify_all();
}

void WorkPool::settle(Hand& hand, const Result<ChildEnd>& end, Clock::duration took) {
  bool lost = false;
  bool given_up = false;
  {
    const std::lock_guard lock(mutex_);
    lost = hand.lost;
    given_up = hand.given_up;
  }
  const auto& item = hand.lease.item;
  if (lost)
    return tell(Kind::lost, &item, "the lease was lost: somebody else has the item; its command was killed",
                took);
  const bool finished = end && !end->signal && end->code == 0;
  if ((given_up && !finished) || !end) {
    const auto released = until_lease_ends(hand, [&] { return queue_.release(hand.lease.key()); });
    tell(Kind::given_back, &item, released ? "" : released.error().message, took);
    if (!end) stop_with(end.error());
    return;
  }
  if (finished && !end->out_of_time) return complete(hand, *end, took);
  const auto ended = what_ended(*end, options_);
  auto text = valid_utf8(ended + (end->error_end.empty() ? "" : ": " + end->error_end));
  queue::Failure failure{.lease = hand.lease.key(), .error = text, .retry_in = {}, .for_good = false};
  if (!end->signal && !end->out_of_time && end->code == exit_retry_later)
    failure.retry_in = options_.retry_in.value_or(60s);
  if (!end->signal && !end->out_of_time && end->code == exit_never) failure.for_good = true;
  fail(hand, failure, text, took);
}

std::string WorkPool::result_of(const Item& item, const ChildEnd& end) {
  if (!options_.take_result || end.output.empty()) return {};
  if (end.output_cut) {
    tell(
        Kind::trouble, &item,
        "its result has more than " + std::to_string(queue::Limits::result_bytes) + " bytes and is not kept");
    return {};
  }
  if (queue::is_json(end.output)) return end.output;
  auto text = boost::json::serialize(boost::json::value(valid_utf8(end.output)));
  if (text.size() <= queue::Limits::result_bytes) return text;
  tell(Kind::trouble, &item, "its result is too large as a JSON string and is not kept");
  return {};
}

// While the lease holds it is worth trying again; after that the item is somebody else's anyway.
template <typename Verb>
Result<void> WorkPool::until_lease_ends(Hand& hand, Verb&& verb) {
  for (Clock::duration pause = trouble_pause_min;;
       pause = std::min<Clock::duration>(2 * pause, trouble_pause_max)) {
    auto done = verb();
    if (done || !is_passing(done.error().code)) return done;
    {
      const std::lock_guard lock(mutex_);
      if (hand.lost || stop_.load(std::memory_order_relaxed) == Stop::give_up) return done;
    }
    trouble(done.error());
    if (!pause_for(pause))
      std::this_thread::sleep_for(trouble_pause_min);  // draining: this is what is waited for
  }
}

void WorkPool::complete(Hand& hand, const ChildEnd& end, std::chrono::duration<double> took) {
  const auto& item = hand.lease.item;
  const auto result = result_of(item, end);
  const auto done = until_lease_ends(hand, [&] { return queue_.complete(hand.lease.key(), result); });
  tell(done ? Kind::completed : Kind::lost, &item, done ? "" : "done, but not taken: " + done.error().message,
       took);
}

void WorkPool::fail(Hand& hand, const queue::Failure& failure, const std::string& text,
                    std::chrono::duration<double> took) {
  const auto done = until_lease_ends(hand, [&]() -> Result<void> {
    const auto refusals = queue_.fail_batch(std::span(&failure, 1));
    if (!refusals) return std::unexpected(refusals.error());
    if (!refusals->empty()) return std::unexpected(refusals->front().error);
    return {};
  });
  tell(done ? Kind::failed : Kind::lost, &hand.lease.item,
       done ? text : text + "; not taken: " + done.error().message, took);
}

// --- leases -----------------------------------------------------------------------------------------------------------

void WorkPool::keep_leases() {
  std::unique_lock lock(mutex_);
  while (!keeper_ends_) {
    auto next = Clock::now() + 1h;
    std::vector<std::shared_ptr<Hand>> due;
    for (const auto& hand : hands_) {
      if (hand->lost) continue;
      const auto date = std::min(hand->extend_at, hand->ends);
      if (date <= Clock::now())
        due.push_back(hand);
      else
        next = std::min(next, date);
    }
    if (due.empty()) {
      changed_.wait_until(lock, next);
      continue;
    }
    lock.unlock();
    extend(due);
    lock.lock();
  }
}

void WorkPool::lose(Hand& hand) {
  {
    const std::lock_guard lock(mutex_);
    hand.lost = true;
  }
  hand.process.kill_group(SIGKILL);
}

void WorkPool::extend(const std::vector<std::shared_ptr<Hand>>& due) {
  std::vector<queue::LeaseKey> keys;
  for (const auto& hand : due) keys.push_back(hand->lease.key());
  const auto asked_at = Clock::now();
  const auto refusals = queue_.extend_batch(keys, lease_);
  if (!refusals) {
    trouble(refusals.error());
    const auto now = Clock::now();
    for (const auto& hand : due) {
      if (now >= hand->ends) {
        lose(*hand);
        continue;
      }
      const std::lock_guard lock(mutex_);
      hand->extend_at = now + std::clamp<Clock::duration>(lease_ / 20, 10ms, 1s);
    }
    return;
  }
  std::vector<bool> refused(due.size());
  for (const auto& refusal : *refusals) {
    refused[refusal.index] = true;
    lose(*due[refusal.index]);
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < due.size(); ++i) {
    if (refused[i]) continue;
    due[i]->ends = asked_at + lease_;
    due[i]->extend_at = asked_at + lease_ / 3;
  }
}

// --- telling ----------------------------------------------------------------------------------------------------------

void WorkPool::tell(Kind kind, const Item* item, std::string text, std::chrono::duration<double> took) {
  {
    const std::lock_guard lock(mutex_);
    switch (kind) {
      case Kind::completed: ++totals_.completed; break;
      case Kind::failed: ++totals_.failed; break;
      case Kind::lost: ++totals_.lost; break;
      case Kind::given_back: ++totals_.given_back; break;
      case Kind::trouble: break;
    }
  }
  const std::lock_guard lock(telling_);
  if (hooks_.event) hooks_.event({kind, item, std::move(text), took});
}

void WorkPool::trouble(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (trouble_told_ == error.message) return;
    trouble_told_ = error.message;
  }
  tell(Kind::trouble, nullptr, error.message + "; trying again");
}

void WorkPool::stop_with(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!fatal_) fatal_ = std::move(error);
  }
  drain();
}

bool WorkPool::pause_for(Clock::duration time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [&] { return stopping(); });
}

}  // namespace fulmar::cli
