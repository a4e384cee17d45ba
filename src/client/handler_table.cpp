#include "client/handler_table.hpp"

#include <algorithm>

namespace fulmar {

std::uint64_t HandlerTable::set(std::string_view filter, MessageHandler handler) {
  auto entry = std::make_shared<Entry>();
  entry->filter = filter;
  entry->handler = std::move(handler);
  const std::lock_guard lock(mutex_);
  entry->id = ++last_id_;
  auto entries = std::make_shared<Snapshot>(*entries_);
  const auto same =
      std::ranges::find(*entries, filter, [](const auto& e) -> const std::string& { return e->filter; });
  if (same == entries->end()) {
    entries->push_back(entry);
  } else {
    (*same)->active.store(false, std::memory_order_release);
    *same = entry;
  }
  entries_ = std::move(entries);
  generation_.fetch_add(1, std::memory_order_release);
  return entry->id;
}

bool HandlerTable::remove(std::string_view filter, std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::ranges::find_if(*entries_, [&](const auto& e) { return e->id == id && e->filter == filter; });
  if (found == entries_->end()) return false;
  (*found)->active.store(false, std::memory_order_release);
  auto entries = std::make_shared<Snapshot>(*entries_);
  entries->erase(entries->begin() + (found - entries_->begin()));
  entries_ = std::move(entries);
  generation_.fetch_add(1, std::memory_order_release);
  return true;
}

std::shared_ptr<const HandlerTable::Snapshot> HandlerTable::snapshot() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

}  // namespace fulmar
