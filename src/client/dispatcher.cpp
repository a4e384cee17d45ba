#include "client/dispatcher.hpp"

#include <pthread.h>

#include <cstring>
#include <exception>

#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/topic.hpp"

namespace fulmar {
namespace {

// Larger payloads lie outside the ring, so that one message does not need half of it.
constexpr std::size_t inline_payload_max = std::size_t{64} << 10;
// Acknowledgements are told of in groups: at the latest when this many have come together or the ring is empty.
constexpr std::uint64_t acknowledge_group = 64;

struct InboundHeader {
  std::byte* payload;  // owned, or null: the payload follows the topic
  std::size_t payload_size;
  std::uint16_t topic_size;
  QoS qos;
  bool retain;
  bool dup;
};

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

Dispatcher::Dispatcher(std::size_t inbound_bytes, HandlerTable& table, std::function<void()> progress)
    : table_(table), progress_(std::move(progress)), inbound_(inbound_bytes, 0x7fffffff) {}

Dispatcher::~Dispatcher() {
  for (auto block = inbound_.front(); !block.empty(); block = inbound_.front()) {
    InboundHeader header{};
    std::memcpy(&header, block.data(), sizeof header);
    delete[] header.payload;
    inbound_.pop();
  }
}

void Dispatcher::start(std::shared_ptr<void> keep_alive) {
  thread_ = std::thread([this, alive = std::move(keep_alive)] { run(); });
}

void Dispatcher::stop() {
  stopping_.store(true, std::memory_order_seq_cst);
  bell_.ring();
}

void Dispatcher::join() {
  if (!thread_.joinable()) return;
  if (on_thread()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void Dispatcher::post(std::unique_ptr<Item> item) {
  items_.push(std::move(item));
  bell_.ring();
}

void Dispatcher::log(LogLevel level, std::string_view component, std::string text) {
  if (log_sink_) post(std::make_unique<LogItem>(log_sink_, level, component, std::move(text)));
}

bool Dispatcher::deliver(const mqtt::PublishView& message) {
  if (try_deliver(message)) return true;
  // Said before the second look, so that room made in between is either seen here or told of by progress().
  refused_.store(true, std::memory_order_seq_cst);
  return try_deliver(message);
}

bool Dispatcher::try_deliver(const mqtt::PublishView& message) {
  const bool apart = message.payload.size() > inline_payload_max;
  const std::size_t size =
      sizeof(InboundHeader) + message.topic.size() + (apart ? std::size_t{0} : message.payload.size());
  // One message larger than the whole bound is let through alone: it was received already.
  if (apart) {
    const std::size_t held = referenced_bytes_.load(std::memory_order_seq_cst);
    if (held != 0 && held + message.payload.size() > inbound_.capacity_bytes()) return false;
  }
  std::byte* block = inbound_.try_reserve(size);
  if (!block) return false;
  InboundHeader header{nullptr,     message.payload.size(), static_cast<std::uint16_t>(message.topic.size()),
                       message.qos, message.retain,         message.dup};
  if (apart) {
    header.payload = new std::byte[message.payload.size()];
    std::memcpy(header.payload, message.payload.data(), message.payload.size());
    referenced_bytes_.fetch_add(message.payload.size(), std::memory_order_relaxed);
  }
  std::memcpy(block, &header, sizeof header);
  std::memcpy(block + sizeof header, message.topic.data(), message.topic.size());
  if (!apart && !message.payload.empty()) {
    std::memcpy(block + sizeof header + message.topic.size(), message.payload.data(), message.payload.size());
  }
  inbound_.commit(block, size);
  ++delivered_;
  bell_.ring();
  return true;
}

template <typename Call>
void Dispatcher::guarded(Call&& call) {
  std::string what;
  try {
    call();
    return;
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
    what = "an exception that is not a std::exception";
  }
  handler_errors_.fetch_add(1, std::memory_order_relaxed);
  log(LogLevel::error, "dispatch", "a handler threw: " + what);
}

bool Dispatcher::run_items() {
  return items_.take_all([this](std::unique_ptr<Item> item) { guarded([&] { item->run(); }); });
}

bool Dispatcher::run_message() {
  const auto block = inbound_.front();
  if (block.empty()) {
    if (const bool refused = refused_.exchange(false, std::memory_order_seq_cst);
        refused || acknowledge_due_) {
      acknowledge_due_ = false;
      progress_();
    }
    return false;
  }
  InboundHeader header{};
  std::memcpy(&header, block.data(), sizeof header);
  const char* topic = reinterpret_cast<const char*>(block.data()) + sizeof header;
  Message message;
  message.topic = {topic, header.topic_size};
  message.payload = header.payload
                        ? BytesView(header.payload, header.payload_size)
                        : BytesView(block.data() + sizeof header + header.topic_size, header.payload_size);
  message.qos = header.qos;
  message.retain = header.retain;
  message.dup = header.dup;

  if (const auto generation = table_.generation(); generation != handlers_generation_) {
    handlers_generation_ = generation;
    handlers_ = table_.snapshot();
  }
  const auto handlers = handlers_;  // a handler may change the table
  for (const auto& entry : *handlers) {
    if (!entry->active.load(std::memory_order_acquire) || !mqtt::matches(entry->filter, message.topic))
      continue;
    guarded([&] { entry->handler(message); });
  }

  if (header.payload) {
    delete[] header.payload;
    referenced_bytes_.fetch_sub(header.payload_size, std::memory_order_seq_cst);
  }
  inbound_.pop();
  const std::uint64_t handled = handled_.fetch_add(1, std::memory_order_seq_cst) + 1;
  if (header.qos != QoS::at_most_once) acknowledge_due_ = true;
  if (refused_.load(std::memory_order_seq_cst) && inbound_.bytes() <= inbound_.capacity_bytes() / 2) {
    refused_.store(false, std::memory_order_relaxed);
    progress_();
  } else if (acknowledge_due_ && handled - told_ >= acknowledge_group) {
    acknowledge_due_ = false;
    told_ = handled;
    progress_();
  }
  return true;
}

void Dispatcher::run() {
  pthread_setname_np(pthread_self(), "fulmar-dispatch");
  thread_id_.store(std::this_thread::get_id(), std::memory_order_release);
  for (;;) {
    if (stopping_.load(std::memory_order_seq_cst)) {
      run_items();
      break;
    }
    const bool items = run_items();
    const bool message = run_message();
    if (items || message) continue;
    bell_.announce();
    if (!items_.empty() || !inbound_.front().empty() || stopping_.load(std::memory_order_seq_cst)) {
      bell_.awake();
      continue;
    }
    bell_.sleep();
  }
  thread_id_.store(std::thread::id{}, std::memory_order_release);
}

}  // namespace fulmar
