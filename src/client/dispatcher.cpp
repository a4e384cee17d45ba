#include "client/dispatcher.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "fulmar/mqtt/topic.hpp"

namespace fulmar {
namespace {

// Larger messages lie outside the ring, so that one does not need half of it.
constexpr std::size_t inline_max = std::size_t{64} << 10;
// Acknowledgements are told of in groups: at the latest when this many have come together or the ring is empty.
constexpr std::uint64_t acknowledge_group = 64;
// Then other lanes of the worker have their turn.
constexpr int turn_messages = 128;
// What a kept or copied message takes besides its bytes.
constexpr std::size_t overhead = 128;

struct LogItem final : Dispatcher::Item {
  LogItem(const LogSink& to, LogLevel at, std::string_view by, std::string what)
      : sink(to), level(at), component(by), text(std::move(what)) {}
  void run() override { sink(level, component, text); }
  const LogSink& sink;
  LogLevel level;
  std::string component;
  std::string text;
};

}  // namespace

// A handler on an executor has returned.
struct Dispatcher::Marked final : Item {
  Marked(CallFilter& to, const CallFilter::Key& what, std::uint64_t by)
      : filter(to), key(what), handler_id(by) {}
  void run() override { filter.mark(key, handler_id, Clock::now()); }
  CallFilter& filter;
  CallFilter::Key key;
  std::uint64_t handler_id;
};

struct Dispatcher::LinkUp final : Item {
  LinkUp(Dispatcher& to, bool resumed, std::uint16_t number)
      : dispatcher(to), session_present(resumed), link(number) {}
  void run() override { dispatcher.link_up(session_present, link); }
  Dispatcher& dispatcher;
  bool session_present;
  std::uint16_t link;
};

Dispatcher::Dispatcher(std::shared_ptr<DispatchWorker> worker, std::size_t inbound_bytes, HandlerTable& table,
                       std::function<void()> progress)
    : DispatchLane(std::move(worker)),
      table_(table),
      progress_(std::move(progress)),
      inbound_(inbound_bytes, 0x7fffffff),
      mailbox_(std::make_shared<AcknowledgementMailbox>(life(), progress_)) {
  table_.on_change([this] { schedule(); });
}

Dispatcher::~Dispatcher() {
  for (auto block = inbound_.front(); !block.empty(); block = inbound_.front()) {
    delete[] InboundMessage::read(block).apart;
    inbound_.pop();
  }
  trie_.for_each([](Entry& entry) {
    if (entry.queue) entry.queue->clear();
  });
}

void Dispatcher::start(std::shared_ptr<void> keep_alive) {
  resumed_.store(true, std::memory_order_seq_cst);
  DispatchLane::start(std::move(keep_alive));
}

void Dispatcher::post(std::unique_ptr<Item> item) {
  items_.push(std::move(item));
  schedule();
}

void Dispatcher::log(LogLevel level, std::string_view component, std::string text) {
  if (log_sink_) post(std::make_unique<LogItem>(log_sink_, level, component, std::move(text)));
}

Dispatcher::Counts Dispatcher::counts() const {
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  Counts counts;
  counts.unrouted = get(unrouted_);
  counts.kept = get(kept_count_);
  counts.handled = handled();
  counts.handled -= std::min(counts.handled, counts.unrouted + counts.kept);
  counts.duplicates = get(duplicates_);
  counts.handler_errors = get(handler_errors_);
  counts.waiting = inbound_.depth() + apart_messages_.load(std::memory_order_relaxed) + counts.kept;
  counts.latency = std::chrono::microseconds(get(latency_us_));
  return counts;
}

// --- I/O thread ------------------------------------------------------------------------------------------------------

void Dispatcher::connected(bool session_present) {
  ++link_;
  post(std::make_unique<LinkUp>(*this, session_present, link_));
}

bool Dispatcher::deliver(const mqtt::PublishView& message) {
  if (try_deliver(message)) return true;
  // Said before the second look, so that room made in between is either seen here or told of by progress(). An exchange:
  // when it comes after the lane's, it has the room from there.
  refused_.exchange(true, std::memory_order_seq_cst);
  return try_deliver(message);
}

bool Dispatcher::try_deliver(const mqtt::PublishView& message) {
  const std::size_t content = InboundMessage::content_size(message);
  const bool apart = content > std::min(inline_max, inbound_.block_max() / 2);
  // One message larger than the whole bound is let through alone: it was received already.
  if (const auto held = apart_bytes_.load(std::memory_order_seq_cst); held != 0) {
    if (held + inbound_.bytes() + content > inbound_.capacity_bytes()) return false;
  }
  const std::size_t size = sizeof(InboundMessage) + (apart ? 0 : content);
  std::byte* const block = inbound_.try_reserve(size);
  if (!block) return false;
  InboundMessage::write(block, message, apart, stamp_us_, link_);
  if (apart) apart_bytes_.fetch_add(content, std::memory_order_relaxed);
  inbound_.commit(block, size);
  ++delivered_;
  schedule();
  return true;
}

// --- the lane --------------------------------------------------------------------------------------------------------

bool Dispatcher::turn() {
  if (resumed_.load(std::memory_order_relaxed) && resumed_.exchange(false, std::memory_order_seq_cst)) {
    trie_.for_each([](Entry& entry) {
      if (entry.queue) entry.queue->resume();
    });
  }
  if (kept_ && kept_->size() != 0 && Clock::now() >= *keep_until_) stop_keeping();
  for (int i = 0; i < turn_messages; ++i) {
    // Before the looks that follow: connections and subscriptions that came before a message are known when it is handled.
    const auto block = inbound_.front();
    run_items();
    if (stopping()) return true;
    take_changes();
    if (run_kept()) continue;
    if (block.empty()) {
      tell_when_idle();
      return false;
    }
    run_message(block);
  }
  return true;
}

bool Dispatcher::has_work() {
  return !items_.empty() || !inbound_.front().empty() || table_.generation() != generation_ ||
         resumed_.load(std::memory_order_seq_cst);
}

void Dispatcher::last_turn() { run_items(); }

bool Dispatcher::run_items() {
  return items_.take_all([this](std::unique_ptr<Item> item) { guarded([&] { item->run(); }); });
}

void Dispatcher::take_changes() {
  if (table_.generation() == generation_) return;
  bool afresh = false;
  const auto changes = table_.take_changes(generation_, afresh);
  topic_.clear();  // no topic is empty
  matching_.clear();
  const auto let_go = [](Entry& entry) {
    if (entry.queue) entry.queue->resume();  // what waits there finds out that it is not wanted any more
  };
  if (afresh) {
    trie_.for_each(let_go);
    trie_.clear();
  }
  for (const auto& entry : changes) {
    if (!entry->active.load(std::memory_order_acquire)) {
      if (trie_.remove(*entry)) let_go(*entry);
      unsubscribed_.push_back(std::string(entry->levels()));
      if (unsubscribed_.size() > unsubscribed_max) unsubscribed_.pop_front();
      continue;
    }
    if (entry->executor && !entry->queue) {
      ExecutorQueue::Runner& runner = *this;
      entry->queue = std::make_shared<ExecutorQueue>(entry->executor, runner, life());
    }
    if (const auto replaced = trie_.insert(entry)) let_go(*replaced);
    kept_looked_at_ = 0;
  }
}

// The ring is empty. An exchange, for the sake of deliver(): see there.
void Dispatcher::tell_when_idle() {
  const bool refused = refused_.exchange(false, std::memory_order_seq_cst);
  if (!refused && !acknowledge_due_) return;
  acknowledge_due_ = false;
  told_ = handled_.load(std::memory_order_relaxed);
  progress_();
}

void Dispatcher::run_message(std::span<const std::byte> block) {
  const auto inbound = InboundMessage::read(block);
  auto message = inbound.message(block);
  const auto number = handled_.load(std::memory_order_relaxed) + 1;
  if (inbound.stamp_us != last_stamp_us_) {
    last_stamp_us_ = inbound.stamp_us;
    latency_us_.store(micros(Clock::now()) - inbound.stamp_us, std::memory_order_relaxed);
  }
  parts_open_ = 0;
  if (const auto entries = route(message); !entries.empty()) {
    call_handlers(entries, message, number);
  } else {
    keep(message, number, inbound.link);
  }
  const bool acknowledged = message.qos != QoS::at_most_once;
  if (acknowledged && parts_open_ != 0) post_note(number, parts_open_);
  if (inbound.apart) {
    delete[] inbound.apart;
    apart_bytes_.fetch_sub(inbound.content_size(), std::memory_order_seq_cst);
  }
  inbound_.pop();
  if (acknowledged) acknowledge_due_ = true;
  const bool room =
      refused_.load(std::memory_order_seq_cst) &&
      inbound_.bytes() + apart_bytes_.load(std::memory_order_relaxed) <= inbound_.capacity_bytes() / 2;
  const bool acknowledge = acknowledge_due_ && number - told_ >= acknowledge_group;
  if (!room && !acknowledge) {
    handled_.store(number, std::memory_order_release);
    return;
  }
  // seq_cst: the I/O thread announces its sleep and then looks at this; progress_ looks whether it has.
  handled_.exchange(number, std::memory_order_seq_cst);
  if (room) refused_.store(false, std::memory_order_relaxed);
  acknowledge_due_ = false;
  told_ = number;
  progress_();
}

// The handlers that want this message, in the order of their subscriptions.
std::span<HandlerTable::Entry* const> Dispatcher::route(const Message& message) {
  if (message.topic != topic_) {
    topic_ = message.topic;
    captures_for_ = nullptr;
    matching_.clear();
    trie_.match(topic_, matching_);
    if (matching_.size() > 1) std::ranges::sort(matching_, {}, [](const Entry* entry) { return entry->id; });
  }
  if (matching_.size() <= 1 || message.properties.empty()) return matching_;
  identifiers_.clear();
  for (const auto& property : message.properties) {
    if (property.id == mqtt::PropertyId::subscription_identifier) identifiers_.push_back(property.number);
  }
  if (identifiers_.empty()) return matching_;
  meant_.clear();
  for (auto* const entry : matching_) {
    if (std::ranges::find(identifiers_, entry->identifier) != identifiers_.end()) meant_.push_back(entry);
  }
  // None: identifiers of a former session or process, which say nothing about the handlers of today.
  return meant_.empty() ? matching_ : meant_;
}

void Dispatcher::call_handlers(std::span<Entry* const> entries, Message& message, std::uint64_t number) {
  std::optional<CallFilter::Key> key;
  if (call_filter_) key = call_filter_->key_of(message);
  for (auto* const entry : entries) {
    if (!entry->active.load(std::memory_order_acquire)) continue;
    if (key && call_filter_->seen(*key, entry->id, Clock::now())) {
      count(duplicates_);
    } else if (entry->executor) {
      give_to_executor(*entry, message, number, key);
    } else {
      call(*entry, message, number, key);
    }
  }
}

void Dispatcher::call(Entry& entry, Message& message, std::uint64_t number,
                      const std::optional<CallFilter::Key>& key) {
  message.captures_ = {};
  if (entry.has_wildcards) {
    if (captures_for_ != &entry) {
      captures_of(entry.levels(), topic_, captures_);
      captures_for_ = &entry;
    }
    message.captures_ = captures_;
  }
  Acknowledgement acknowledgement;
  if (entry.manual_ack && message.qos != QoS::at_most_once) {
    ++parts_open_;
    acknowledgement = acknowledgement_of(number);
  }
  message.acknowledgement_ = &acknowledgement;
  const bool returned = guarded([&] { entry.handler(message); });
  if (!returned) acknowledgement.acknowledge();  // nobody else could, when it was not taken
  if (returned && key) call_filter_->mark(*key, entry.id, Clock::now());
}

void Dispatcher::give_to_executor(Entry& entry, const Message& message, std::uint64_t number,
                                  const std::optional<CallFilter::Key>& key) {
  auto bare = message;
  bare.captures_ = {};
  ExecutorQueue::Job job{.entry = entry.shared_from_this(), .message = bare.copy()};
  job.bytes = message.topic.size() + message.properties.encoded().size() + message.payload.size() + overhead;
  if (message.qos != QoS::at_most_once) {
    ++parts_open_;
    job.acknowledgement = acknowledgement_of(number);
  }
  if (key) {
    job.marks = true;
    job.key = *key;
  }
  apart_bytes_.fetch_add(job.bytes, std::memory_order_relaxed);
  apart_messages_.fetch_add(1, std::memory_order_relaxed);
  entry.queue->push(std::move(job));
}

template <typename Function>
bool Dispatcher::guarded(Function&& function) {
  try {
    function();
    return true;
  } catch (const std::exception& error) {
    handler_threw(error.what());
  } catch (...) {
    handler_threw("an exception that is not a std::exception");
  }
  return false;
}

void Dispatcher::handler_threw(const char* what) {
  handler_errors_.fetch_add(1, std::memory_order_relaxed);
  log(LogLevel::error, "dispatch", std::string("a handler threw: ") + what);
}

// --- acknowledgement -------------------------------------------------------------------------------------------------

void Dispatcher::post_note(std::uint64_t number, int parts) {
  auto note = std::make_unique<Note>();
  note->number = number;
  note->parts = parts;
  mailbox_->post(std::move(note));
}

Acknowledgement Dispatcher::acknowledgement_of(std::uint64_t number) {
  auto note = std::make_unique<Note>();
  note->number = number;
  note->mailbox = mailbox_;
  return Acknowledgement(std::move(note));
}

// --- executors: on their threads, during a Call ----------------------------------------------------------------------

void Dispatcher::run_job(ExecutorQueue::Job& job) {
  auto& entry = *job.entry;
  bool returned = true;
  if (entry.active.load(std::memory_order_acquire)) {
    const Inside inside(*this);
    Message message = *job.message;
    std::vector<std::string_view> captures;
    if (entry.has_wildcards) {
      captures_of(entry.levels(), message.topic, captures);
      message.captures_ = captures;
    }
    if (entry.manual_ack) message.acknowledgement_ = &job.acknowledgement;
    returned = guarded([&] { entry.handler(message); });
    if (returned && job.marks) post(std::make_unique<Marked>(*call_filter_, job.key, entry.id));
    if (entry.manual_ack && returned) job.acknowledgement = {};
  }
  job.acknowledgement.acknowledge();
  made_room(job.bytes);
}

void Dispatcher::discard(ExecutorQueue::Job& job) {
  handler_errors_.fetch_add(1, std::memory_order_relaxed);
  log(LogLevel::error, "dispatch",
      "the executor of \"" + job.entry->filter + "\" dropped a message instead of running its handler");
  made_room(job.bytes);
}

void Dispatcher::executor_failed(const char* what) {
  log(LogLevel::error, "dispatch", std::string("an executor threw: ") + what);
}

void Dispatcher::made_room(std::size_t bytes) {
  apart_messages_.fetch_sub(1, std::memory_order_relaxed);
  const auto left = apart_bytes_.fetch_sub(bytes, std::memory_order_seq_cst) - bytes;
  if (left <= inbound_.capacity_bytes() / 2 && refused_.load(std::memory_order_seq_cst) &&
      refused_.exchange(false, std::memory_order_seq_cst)) {
    progress_();
  }
}

// --- messages before their handler -----------------------------------------------------------------------------------

void Dispatcher::keep(const Message& message, std::uint64_t number, std::uint16_t link) {
  if (!keep_for_ || keeping_over_) return count(unrouted_);
  // What comes for a filter that was unsubscribed is late, not early.
  const auto matches_topic = [&](const std::string& filter) { return mqtt::matches(filter, message.topic); };
  if (std::ranges::any_of(unsubscribed_, matches_topic)) return count(unrouted_);
  // The server sends it again, since this connection has not acknowledged it.
  if (message.qos == QoS::at_least_once && is_superseded(link)) return;
  if (!kept_) kept_ = std::make_unique<KeptMessages>(kept_count_max, inbound_.capacity_bytes() / 4);
  if (!keep_until_) keep_until_ = Clock::now() + *keep_for_;
  if (kept_->size() == 0) set_due(*keep_until_);
  if (kept_looked_at_ == kept_->size()) ++kept_looked_at_;
  if (message.qos != QoS::at_most_once) ++parts_open_;
  const auto bytes =
      message.topic.size() + message.properties.encoded().size() + message.payload.size() + overhead;
  // When it is given up at once, its note comes before its `open` one; the I/O thread counts both.
  kept_->add({.message = message.copy(), .number = number, .bytes = bytes, .link = link},
             [this](const KeptMessages::Kept& oldest) { give_up(oldest); });
  kept_count_.store(kept_->size(), std::memory_order_relaxed);
}

bool Dispatcher::run_kept() {
  if (!kept_ || kept_looked_at_ >= kept_->size()) return false;
  const auto& next = (*kept_)[kept_looked_at_];
  const auto entries = route(*next.message);
  if (entries.empty()) {
    ++kept_looked_at_;
    return true;
  }
  const auto kept = kept_->take(kept_looked_at_);
  kept_count_.store(kept_->size(), std::memory_order_relaxed);
  Message message = *kept.message;
  parts_open_ = 0;
  call_handlers(entries, message, kept.number);
  if (message.qos == QoS::at_most_once) return true;
  if (parts_open_ != 0) post_note(kept.number, parts_open_);
  post_note(kept.number, -1);
  return true;
}

void Dispatcher::give_up(const KeptMessages::Kept& kept) {
  if (kept_looked_at_ > 0) --kept_looked_at_;
  count(unrouted_);
  if (kept.message->qos != QoS::at_most_once) post_note(kept.number, -1);
  if (std::exchange(gave_up_, true)) return;
  log(LogLevel::warning, "dispatch",
      "no handler for messages that the session still gets, \"" +
          std::string(kept.message->topic.substr(0, 64)) +
          "\" among them: the oldest are given up; subscribe to them, or unsubscribe what is not wanted any "
          "more");
}

bool Dispatcher::is_superseded(std::uint16_t link) const {
  return lane_link_resumed_ && static_cast<std::int16_t>(static_cast<std::uint16_t>(link - lane_link_)) < 0;
}

void Dispatcher::link_up(bool session_present, std::uint16_t link) {
  lane_link_ = link;
  lane_link_resumed_ = session_present;
  keeping_over_ = gave_up_ = false;
  if (!keep_for_) return;
  keep_until_ = Clock::now() + *keep_for_;
  if (!kept_) return;
  for (std::size_t i = 0; i < kept_->size();) {
    const auto& kept = (*kept_)[i];
    if (kept.message->qos == QoS::at_least_once && is_superseded(kept.link)) {
      kept_->take(i);
    } else {
      ++i;
    }
  }
  kept_looked_at_ = kept_->size();
  kept_count_.store(kept_->size(), std::memory_order_relaxed);
  if (kept_->size() != 0) set_due(*keep_until_);
}

void Dispatcher::stop_keeping() {
  keeping_over_ = true;
  while (kept_->size() != 0) give_up(kept_->take(0));
  kept_looked_at_ = 0;
  kept_count_.store(0, std::memory_order_relaxed);
}

}  // namespace fulmar
