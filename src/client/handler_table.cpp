#include "client/handler_table.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "client/executor_queue.hpp"
#include "fulmar/mqtt/packet.hpp"

namespace fulmar {
namespace {

constexpr std::string_view share_prefix = "$share/";
constexpr std::size_t changes_min = 64;

Result<QoS> outcome_of(std::string_view filter, std::uint8_t reason_code) {
  if (reason_code <= 2) return static_cast<QoS>(reason_code);
  char hex[8];
  std::snprintf(hex, sizeof hex, "0x%02x", reason_code);
  std::string what = "the server refused the filter \"" + std::string(filter.substr(0, 64)) + "\": ";
  what += mqtt::to_string(static_cast<mqtt::ReasonCode>(reason_code));
  what += " (" + std::string(hex) + ")";
  return std::unexpected(Error{Errc::refused, std::move(what), reason_code});
}

}  // namespace

HandlerTable::Entry::~Entry() { grant(fail(Errc::shutting_down, "the client is gone")); }

std::string_view HandlerTable::Entry::levels() const {
  const std::string_view whole = filter;
  if (!whole.starts_with(share_prefix)) return whole;
  return whole.substr(whole.find('/', share_prefix.size()) + 1);
}

void HandlerTable::Entry::grant(Result<QoS> outcome) {
  if (!answered_.exchange(true, std::memory_order_relaxed)) promise_.set_value(std::move(outcome));
}

HandlerTable::~HandlerTable() { end_grants({Errc::shutting_down, "the client is gone", std::nullopt}); }

Result<HandlerTable::EntryPtr> HandlerTable::set(std::string_view filter, MessageHandler handler,
                                                 const SubscribeOptions& options,
                                                 Client::GrantedHandler granted) {
  auto entry = std::make_shared<Entry>();
  entry->filter = filter;
  entry->handler = std::move(handler);
  entry->granted_handler = std::move(granted);
  entry->executor = options.executor;
  entry->manual_ack = options.manual_ack;
  entry->has_wildcards = filter.find_first_of("+#") != std::string_view::npos;
  const bool overlaps = entry->has_wildcards || filter.starts_with(share_prefix);
  EntryPtr replaced;
  std::vector<EntryPtr> superseded;  // destroyed without the lock
  {
    const std::lock_guard lock(mutex_);
    const auto same = entries_.find(filter);
    if (same == entries_.end() && entries_.size() >= entries_max_) {
      return fail(Errc::outbox_full, "cannot subscribe to \"" + std::string(filter.substr(0, 64)) +
                                         "\": " + std::to_string(entries_max_) +
                                         " filters are subscribed; raise max_subscriptions");
    }
    entry->id = ++last_id_;
    if (same != entries_.end()) {
      entry->identifier = same->second->identifier;
      replaced = std::move(same->second);
      replaced->active.store(false, std::memory_order_seq_cst);
      entries_.erase(same);
    } else if (!overlaps) {
      entry->identifier = identifier_of_plain_filters;
    } else {
      // After 2^28 filters they are given again; should the former owner still be there, its copies reach both.
      last_identifier_ =
          last_identifier_ == identifier_max ? identifier_of_plain_filters + 1 : last_identifier_ + 1;
      entry->identifier = last_identifier_;
    }
    entries_.emplace(entry->filter, entry);
    note(entry, superseded);
  }
  if (replaced) {
    replaced->grant(fail(Errc::cancelled, "the filter \"" + entry->filter + "\" was subscribed again"));
  }
  if (notify_) notify_();
  return entry;
}

std::uint64_t HandlerTable::remove(std::string_view filter, std::uint64_t id) {
  EntryPtr removed;
  std::vector<EntryPtr> superseded;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(filter);
    if (found == entries_.end() || (id != 0 && found->second->id != id)) return 0;
    removed = std::move(found->second);
    removed->active.store(false, std::memory_order_seq_cst);
    entries_.erase(found);
    note(removed, superseded);
  }
  removed->grant(fail(Errc::cancelled, "the filter \"" + removed->filter + "\" was unsubscribed"));
  if (notify_) notify_();
  return removed->id;
}

void HandlerTable::answered(const std::string& filter, std::uint64_t id, std::uint8_t reason_code) {
  EntryPtr entry;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(filter);
    if (found == entries_.end() || found->second->id != id) return;
    entry = found->second;
  }
  entry->grant(outcome_of(filter, reason_code));
  if (entry->granted_handler) entry->granted_handler(reason_code);
}

void HandlerTable::end_grants(const Error& error) {
  std::vector<EntryPtr> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [filter, entry] : entries_) open.push_back(entry);
  }
  for (const auto& entry : open) entry->grant(std::unexpected(error));
}

std::size_t HandlerTable::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

void HandlerTable::note(EntryPtr changed, std::vector<EntryPtr>& superseded) {
  changes_.push_back(std::move(changed));
  if (changes_.size() > changes_min + 2 * entries_.size()) {
    superseded.swap(changes_);
    for (const auto& [filter, entry] : entries_) changes_.push_back(entry);
    std::ranges::sort(changes_, {}, [](const EntryPtr& entry) { return entry->id; });
    afresh_ = true;
  }
  generation_.fetch_add(1, std::memory_order_seq_cst);
}

std::vector<HandlerTable::EntryPtr> HandlerTable::take_changes(std::uint64_t& generation, bool& afresh) {
  const std::lock_guard lock(mutex_);
  generation = generation_.load(std::memory_order_relaxed);
  afresh = std::exchange(afresh_, false);
  return std::exchange(changes_, {});
}

}  // namespace fulmar
