#include "queue/item_table.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace fulmar::queue {
namespace {

constexpr std::size_t upkeep_rows_max = 500;

bool contains(const auto& range, const auto& value) { return std::ranges::find(range, value) != range.end(); }

// Runs `one` for each, and gathers what it refuses.
template <typename Element, typename One>
std::vector<Refusal> each(std::span<const Element> elements, One&& one) {
  std::vector<Refusal> refusals;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (Result<void> done = one(elements[i]); !done) refusals.push_back({i, std::move(done.error())});
  }
  return refusals;
}

// The order of claims.
bool claimed_earlier(const TableItem* a, const TableItem* b) {
  if (a->item.priority != b->item.priority) return a->item.priority > b->item.priority;
  return a->order < b->order;
}

void end_lease(TableItem& item) {
  item.item.lease_owner.clear();
  item.item.lease_until.reset();
  item.token = 0;
  item.request_id.clear();
}

}  // namespace

// --- errors -----------------------------------------------------------------------------------------------------------

Error already_there(std::string_view id) {
  return {Errc::already_exists, "item " + std::string(id) + " is there already", {}};
}

Error id_taken(std::string_view id) {
  auto error = already_there(id);
  error.message += "; choose another id";
  return error;
}

Error unique_key_taken(std::string_view id, std::string_view unique_key, std::string_view by) {
  return {Errc::already_exists,
          "item " + std::string(id) + ": its unique key \"" + std::string(unique_key) +
              "\" belongs to the live item " + std::string(by),
          {}};
}

Error queue_full(std::string_view queue, std::uint64_t live, std::uint64_t max_size) {
  return {Errc::queue_full,
          "queue " + std::string(queue) + " is full: " + std::to_string(live) + " live items of max_size " +
              std::to_string(max_size) + "; complete or cancel some, or raise max_size",
          {}};
}

Error unknown_dependency(std::string_view of, std::string_view dependency) {
  return {Errc::not_found,
          (of.empty() ? std::string("a new item") : "item " + std::string(of)) + " depends on " +
              std::string(dependency) + ", which is neither in the store nor in the same batch",
          {}};
}

Error is_needed(std::string_view id) {
  return {Errc::illegal_transition,
          "item " + std::string(id) +
              ": cannot remove what an item that is not completed depends on; remove that one first",
          {}};
}

// --- the table --------------------------------------------------------------------------------------------------------

TableItem& ItemTable::put(TableItem item) {
  if (item.order == 0) {
    item.order = id_number(item.item.id).value_or(id_number_at(item.item.created_at, 0));
    const auto taken = [&] {
      return std::ranges::any_of(items, [&](const auto& entry) { return entry.second.order == item.order; });
    };
    while (taken()) ++item.order;
  }
  ids.seen(item.order);
  ItemId id = item.item.id;
  return items.insert_or_assign(std::move(id), std::move(item)).first->second;
}

TableQueue& TableOperations::make_queue(std::string_view queue) {
  const auto at = table_.queues.find(queue);
  if (at != table_.queues.end()) return at->second;
  changed_ = true;
  return table_.queues[std::string(queue)];
}

const Settings& TableOperations::settings_of(std::string_view queue) const {
  static const Settings defaults;
  const auto at = table_.queues.find(queue);
  return at == table_.queues.end() ? defaults : at->second.settings;
}

TableItem* TableOperations::find(std::string_view id) {
  const auto at = table_.items.find(id);
  return at == table_.items.end() ? nullptr : &at->second;
}

Result<TableItem*> TableOperations::leased(const LeaseKey& lease, Verb verb) {
  auto* item = find(lease.id);
  if (!item) return std::unexpected(not_found(lease.id));
  if (auto ok = check_transition(lease.id, item->item.status, verb); !ok) return std::unexpected(ok.error());
  if (item->token != lease.token) return std::unexpected(lease_lost(lease.id));
  return item;
}

TableItem* TableOperations::live_with_key(std::string_view queue, std::string_view unique_key,
                                          std::string_view but) {
  if (unique_key.empty()) return nullptr;
  for (auto& [id, item] : table_.items) {
    if (item.item.queue == queue && item.item.unique_key == unique_key && is_live(item.item.status) &&
        id != but) {
      return &item;
    }
  }
  return nullptr;
}

std::uint64_t TableOperations::live_count(std::string_view queue) const {
  return static_cast<std::uint64_t>(std::ranges::count_if(table_.items, [&](const auto& entry) {
    return entry.second.item.queue == queue && is_live(entry.second.item.status);
  }));
}

Item TableOperations::with_derived(const Item& item) const {
  Item result = item;
  result.waiting_for.clear();
  result.dependency_failed = false;
  for (const auto& dependency : item.depends_on) {
    const auto at = table_.items.find(dependency);
    const bool there = at != table_.items.end();
    if (there && at->second.item.status == Status::completed) continue;
    result.waiting_for.push_back(dependency);
    if (there && !is_live(at->second.item.status)) result.dependency_failed = true;
  }
  return result;
}

bool TableOperations::somebody_depends_on(const ItemId& id) const {
  return std::ranges::any_of(table_.items, [&](const auto& entry) {
    return entry.second.item.status != Status::completed && contains(entry.second.item.depends_on, id);
  });
}

std::vector<TableItem*> TableOperations::of_queue(std::string_view queue) {
  std::vector<TableItem*> items;
  for (auto& [id, item] : table_.items) {
    if (item.item.queue == queue) items.push_back(&item);
  }
  std::ranges::sort(items, {}, &TableItem::order);
  return items;
}

std::vector<TableItem*> TableOperations::eligible(std::string_view queue, Time now) {
  auto items = of_queue(queue);
  std::erase_if(items, [&](const TableItem* item) { return !is_eligible(with_derived(item->item), now); });
  std::ranges::sort(items, claimed_earlier);
  return items;
}

void TableOperations::became_claimable(const Item& item) { claimable_.insert(item.queue); }

// --- queues -----------------------------------------------------------------------------------------------------------

Result<std::vector<std::string>> TableOperations::queues() {
  std::vector<std::string> names;
  for (const auto& [name, queue] : table_.queues) names.push_back(name);
  return names;
}

Result<Settings> TableOperations::settings(std::string_view queue) { return settings_of(queue); }

Result<void> TableOperations::set_settings(std::string_view queue, const Settings& settings) {
  auto& kept = make_queue(queue).settings;
  changed_ |= kept != settings;
  kept = settings;
  return {};
}

Result<void> TableOperations::set_paused(std::string_view queue, bool paused) {
  auto& kept = make_queue(queue).paused;
  changed_ |= kept != paused;
  if (kept && !paused) claimable_.emplace(queue);
  kept = paused;
  return {};
}

Result<bool> TableOperations::paused(std::string_view queue) {
  const auto at = table_.queues.find(queue);
  return at != table_.queues.end() && at->second.paused;
}

// --- in ---------------------------------------------------------------------------------------------------------------

Result<std::vector<Submitted>> TableOperations::submit(std::string_view queue,
                                                       std::span<const NewItem> items) {
  const Time now = clock_.now();
  const Settings settings = settings_of(queue);
  // Everything is looked at before anything is changed.
  std::map<ItemId, const NewItem*, std::less<>> given;
  std::map<std::string, std::size_t, std::less<>> keys;
  std::vector<Submitted> result(items.size());
  std::vector<std::size_t> twin(items.size());  // the item of the batch that an item is the same as
  std::uint64_t created = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& item = items[i];
    twin[i] = i;
    if (const auto* live = live_with_key(queue, item.unique_key)) {
      result[i] = {live->item.id, false};
      continue;
    }
    if (!item.unique_key.empty()) {
      const auto [at, fresh] = keys.emplace(item.unique_key, i);
      if (!fresh) {
        twin[i] = at->second;
        result[i].created = false;
        continue;
      }
    }
    ++created;
    if (item.id.empty()) continue;
    if (find(item.id) || !given.emplace(item.id, &item).second) return std::unexpected(id_taken(item.id));
    result[i].id = item.id;
  }
  const auto dependencies_of = [&](const ItemId& id) -> std::vector<ItemId> {
    if (const auto at = given.find(id); at != given.end()) return at->second->depends_on;
    const auto* there = find(id);
    return there ? there->item.depends_on : std::vector<ItemId>{};
  };
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& item = items[i];
    if (!result[i].created) continue;
    for (const auto& dependency : item.depends_on) {
      if (!find(dependency) && !given.contains(dependency)) {
        return std::unexpected(unknown_dependency(item.id, dependency));
      }
    }
    if (item.id.empty() || item.depends_on.empty()) continue;
    if (const auto path = find_cycle(item.id, item.depends_on, dependencies_of); !path.empty()) {
      return std::unexpected(cycle_error(path));
    }
  }
  if (settings.max_size && created > 0) {
    const auto live = live_count(queue);
    if (live + created > *settings.max_size)
      return std::unexpected(queue_full(queue, live, *settings.max_size));
  }

  make_queue(queue);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& from = items[i];
    if (!result[i].created) {
      if (twin[i] != i) result[i].id = result[twin[i]].id;
      continue;
    }
    TableItem to;
    to.order = table_.ids.next(now, random_());
    if (result[i].id.empty()) result[i].id = id_text(to.order);
    to.item.id = result[i].id;
    to.item.queue = queue;
    to.item.type = from.type;
    to.item.payload = from.payload;
    to.item.priority = from.priority;
    to.item.created_at = now;
    to.item.scheduled_at = from.scheduled_at;
    to.item.max_retries = from.max_retries.value_or(settings.default_max_retries);
    to.item.metadata = from.metadata;
    to.item.unique_key = from.unique_key;
    to.item.depends_on = from.depends_on;
    became_claimable(table_.put(std::move(to)).item);
    changed_ = true;
  }
  return result;
}

Result<ImportReport> TableOperations::import(std::string_view queue, std::span<const Item> items,
                                             OnConflict conflict) {
  ImportReport report;
  ItemTable after = table_;  // an error changes nothing
  after.queues.try_emplace(std::string(queue));
  for (const auto& from : items) {
    TableItem to{from};
    to.item.queue = queue;
    if (to.item.status == Status::processing) to.item.status = Status::pending;
    to.item.lease_owner.clear();
    to.item.lease_until.reset();
    to.item.waiting_for.clear();
    to.item.dependency_failed = false;
    const auto same_id = after.items.find(to.item.id);
    auto same_key = after.items.end();
    if (!to.item.unique_key.empty() && is_live(to.item.status)) {
      same_key = std::ranges::find_if(after.items, [&](const auto& entry) {
        const Item& other = entry.second.item;
        return other.queue == queue && other.unique_key == to.item.unique_key && is_live(other.status) &&
               other.id != to.item.id;
      });
    }
    const bool taken = same_id != after.items.end() || same_key != after.items.end();
    if (taken && conflict == OnConflict::refuse) {
      return std::unexpected(same_id != after.items.end()
                                 ? already_there(to.item.id)
                                 : unique_key_taken(to.item.id, to.item.unique_key, same_key->first));
    }
    if (taken && conflict == OnConflict::skip) {
      ++report.skipped;
      continue;
    }
    if (same_id != after.items.end()) after.items.erase(same_id);
    if (same_key != after.items.end()) after.items.erase(same_key);
    ++(taken ? report.replaced : report.added);
    after.put(std::move(to));
  }
  const auto dependencies_of = [&](const ItemId& id) {
    const auto at = after.items.find(id);
    return at == after.items.end() ? std::vector<ItemId>{} : at->second.item.depends_on;
  };
  for (const auto& item : items) {
    if (item.depends_on.empty()) continue;
    const auto path = find_cycle(item.id, dependencies_of(item.id), dependencies_of);
    if (!path.empty()) return std::unexpected(cycle_error(path));
  }
  changed_ |= report.added + report.replaced > 0 || !table_.queues.contains(queue);
  claimable_.emplace(queue);
  table_ = std::move(after);
  return report;
}

// --- leases -----------------------------------------------------------------------------------------------------------

void TableOperations::finish(TableItem& item, Status status, Time now) {
  item.item.status = status;
  item.item.completed_at = now;
  end_lease(item);
  changed_ = true;
}

void TableOperations::end_attempt(TableItem& item, std::string_view error, Time now,
                                  std::optional<Duration> retry_in, bool for_good) {
  const auto after = after_failure(item.item.retry_count, item.item.max_retries, settings_of(item.item.queue),
                                   now, random_(), retry_in, for_good);
  item.item.retry_count = after.retry_count;
  item.item.error_message = cut_error(error);
  if (after.status == Status::failed) return finish(item, Status::failed, now);
  item.item.status = Status::pending;
  item.item.scheduled_at = after.scheduled_at;
  end_lease(item);
  changed_ = true;
  became_claimable(item.item);
}

std::uint64_t TableOperations::expire(std::string_view queue, Time now) {
  std::uint64_t expired = 0;
  for (auto& [id, item] : table_.items) {
    if (item.item.status != Status::processing || (!queue.empty() && item.item.queue != queue)) continue;
    if (item.item.lease_until && *item.item.lease_until > now) continue;
    end_attempt(item, lease_expired_message, now, Duration(0));
    ++expired;
  }
  return expired;
}

Result<Claimed> TableOperations::claim(std::string_view queue, const ClaimRequest& request) {
  const Time now = clock_.now();
  Claimed claimed;
  expire(queue, now);
  if (const auto at = table_.queues.find(queue); at != table_.queues.end() && at->second.paused)
    return claimed;
  if (!request.request_id.empty()) {
    auto items = of_queue(queue);
    std::erase_if(items, [&](const TableItem* item) {
      return item->item.status != Status::processing || item->request_id != request.request_id ||
             item->item.lease_owner != request.worker;
    });
    std::ranges::sort(items, claimed_earlier);
    for (const auto* item : items)
      claimed.leases.push_back({with_derived(item->item), item->token, *item->item.lease_until});
    if (!claimed.leases.empty()) return claimed;
  }
  const Duration lease = request.lease.value_or(settings_of(queue).lease);
  for (auto* item : eligible(queue, now)) {
    if (claimed.leases.size() == request.items_max) break;
    if (!request.types.empty() && !contains(request.types, item->item.type)) continue;
    item->item.status = Status::processing;
    item->item.started_at = now;
    item->item.lease_owner = request.worker;
    item->item.lease_until = now + lease;
    item->token = random_.token();
    item->request_id = request.request_id;
    changed_ = true;
    claimed.leases.push_back({with_derived(item->item), item->token, now + lease});
  }
  std::optional<Time> next;
  for (const auto& [id, item] : table_.items) {
    if (item.item.queue != queue) continue;
    std::optional<Time> at;
    if (item.item.status == Status::processing) at = item.item.lease_until;
    if (item.item.status == Status::pending && item.item.scheduled_at > now) at = item.item.scheduled_at;
    if (at && (!next || *at < *next)) next = at;
  }
  if (next) claimed.look_again_in = *next - now;
  return claimed;
}

Result<Extended> TableOperations::extend(std::span<const LeaseKey> leases, Duration lease) {
  Extended extended;
  extended.until = clock_.now() + lease;
  extended.refusals = each(leases, [&](const LeaseKey& key) -> Result<void> {
    const auto item = leased(key, Verb::extend);
    if (!item) return std::unexpected(item.error());
    (*item)->item.lease_until = extended.until;
    changed_ = true;
    return {};
  });
  return extended;
}

Result<std::vector<Refusal>> TableOperations::complete(std::span<const Completion> completions) {
  const Time now = clock_.now();
  return each(completions, [&](const Completion& completion) -> Result<void> {
    const auto item = leased(completion.lease, Verb::complete);
    if (!item) return std::unexpected(item.error());
    (*item)->item.result = completion.result;
    finish(**item, Status::completed, now);
    for (const auto& [id, other] : table_.items) {
      if (contains(other.item.depends_on, completion.lease.id)) became_claimable(other.item);
    }
    return {};
  });
}

Result<std::vector<Refusal>> TableOperations::fail(std::span<const Failure> failures) {
  const Time now = clock_.now();
  return each(failures, [&](const Failure& failure) -> Result<void> {
    const auto item = leased(failure.lease, Verb::fail);
    if (!item) return std::unexpected(item.error());
    end_attempt(**item, failure.error, now, failure.retry_in, failure.for_good);
    return {};
  });
}

Result<std::vector<Refusal>> TableOperations::release(std::span<const LeaseKey> leases) {
  return each(leases, [&](const LeaseKey& key) -> Result<void> {
    const auto item = leased(key, Verb::release);
    if (!item) return std::unexpected(item.error());
    (*item)->item.status = Status::pending;
    end_lease(**item);
    changed_ = true;
    became_claimable((*item)->item);
    return {};
  });
}

// --- by id ------------------------------------------------------------------------------------------------------------

Result<std::vector<Refusal>> TableOperations::cancel(std::span<const ItemId> ids) {
  const Time now = clock_.now();
  return each(ids, [&](const ItemId& id) -> Result<void> {
    auto* item = find(id);
    if (!item) return std::unexpected(not_found(id));
    if (auto ok = check_transition(id, item->item.status, Verb::cancel); !ok) return ok;
    finish(*item, Status::cancelled, now);
    return {};
  });
}

Result<void> TableOperations::can_retry(const TableItem& item) {
  if (auto ok = check_transition(item.item.id, item.item.status, Verb::retry); !ok) return ok;
  if (const auto* other = live_with_key(item.item.queue, item.item.unique_key, item.item.id)) {
    return std::unexpected(unique_key_taken(item.item.id, item.item.unique_key, other->item.id));
  }
  if (const auto max_size = settings_of(item.item.queue).max_size) {
    const auto live = live_count(item.item.queue);
    if (live + 1 > *max_size) return std::unexpected(queue_full(item.item.queue, live, *max_size));
  }
  return {};
}

Result<std::vector<Refusal>> TableOperations::retry(std::span<const ItemId> ids) {
  return each(ids, [&](const ItemId& id) -> Result<void> {
    auto* item = find(id);
    if (!item) return std::unexpected(not_found(id));
    if (auto ok = can_retry(*item); !ok) return ok;
    item->item.status = Status::pending;
    item->item.retry_count = 0;
    item->item.scheduled_at.reset();
    item->item.completed_at.reset();
    changed_ = true;
    became_claimable(item->item);
    return {};
  });
}

Result<void> TableOperations::can_remove(const TableItem& item) const {
  if (auto ok = check_transition(item.item.id, item.item.status, Verb::remove); !ok) return ok;
  if (somebody_depends_on(item.item.id)) return std::unexpected(is_needed(item.item.id));
  return {};
}

Result<std::vector<Refusal>> TableOperations::remove(std::span<const ItemId> ids) {
  return each(ids, [&](const ItemId& id) -> Result<void> {
    const auto* item = find(id);
    if (!item) return std::unexpected(not_found(id));
    if (auto ok = can_remove(*item); !ok) return ok;
    table_.items.erase(id);
    changed_ = true;
    return {};
  });
}

Result<Item> TableOperations::get(std::string_view id) {
  const auto* item = find(id);
  if (!item) return std::unexpected(not_found(id));
  return with_derived(item->item);
}

// --- many -------------------------------------------------------------------------------------------------------------

bool TableOperations::matches(const Item& item, const Filter& filter) const {
  if (!filter.statuses.empty() && !contains(filter.statuses, item.status)) return false;
  if (!filter.types.empty() && !contains(filter.types, item.type)) return false;
  if (!filter.unique_key.empty() && item.unique_key != filter.unique_key) return false;
  if (filter.created_before && item.created_at >= *filter.created_before) return false;
  if (filter.finished_before && (!item.completed_at || *item.completed_at >= *filter.finished_before))
    return false;
  if (filter.only_waiting_for_dependencies &&
      (item.status != Status::pending || with_derived(item).waiting_for.empty())) {
    return false;
  }
  return true;
}

Result<Listed> TableOperations::list(std::string_view queue, const Filter& filter, const Page& page) {
  Listed listed;
  std::uint64_t after = 0;
  if (!page.after.empty()) {
    const auto* end = page.after.data() + page.after.size();
    if (std::from_chars(page.after.data(), end, after).ptr != end) {
      return fulmar::fail(Errc::invalid_item,
                          "page cursor \"" + page.after + "\": it has to be Listed::next of a page before");
    }
  }
  auto items = of_queue(queue);
  if (page.newest_first) std::ranges::reverse(items);
  std::uint64_t last = 0;
  for (const auto* item : items) {
    if (!page.after.empty() && (page.newest_first ? item->order >= after : item->order <= after)) continue;
    if (!matches(item->item, filter)) continue;
    if (listed.items.size() == page.items_max) {
      listed.next = std::to_string(last);
      break;
    }
    listed.items.push_back(with_derived(item->item));
    if (!page.bodies) {
      listed.items.back().payload = listed.items.back().metadata = "{}";
      listed.items.back().result.clear();
    }
    last = item->order;
  }
  return listed;
}

Result<std::vector<Item>> TableOperations::peek(std::string_view queue, std::size_t items_max) {
  std::vector<Item> items;
  if (*paused(queue)) return items;
  for (const auto* item : eligible(queue, clock_.now())) {
    if (items.size() == items_max) break;
    items.push_back(with_derived(item->item));
  }
  return items;
}

Result<std::uint64_t> TableOperations::purge(std::string_view queue, const Filter& filter,
                                             std::size_t items_max) {
  std::uint64_t removed = 0;
  for (const auto* item : of_queue(queue)) {
    if (removed == items_max) break;
    if (!matches(item->item, filter) || !can_remove(*item)) continue;
    table_.items.erase(ItemId(item->item.id));
    changed_ = true;
    ++removed;
  }
  return removed;
}

Result<Stats> TableOperations::stats(std::string_view queue) {
  const Time now = clock_.now();
  Stats stats;
  std::optional<Time> oldest;
  std::vector<std::pair<Time, Duration>> latencies;  // by when it was finished
  for (const auto* kept : of_queue(queue)) {
    const Item item = with_derived(kept->item);
    for (auto* counts : {&stats.counts, &stats.by_type[item.type]}) {
      switch (item.status) {
        case Status::pending: ++counts->pending; break;
        case Status::processing: ++counts->processing; break;
        case Status::completed: ++counts->completed; break;
        case Status::failed: ++counts->failed; break;
        case Status::cancelled: ++counts->cancelled; break;
      }
    }
    if (item.status == Status::pending) {
      if (!item.waiting_for.empty()) {
        ++stats.waiting;
      } else if (item.scheduled_at > now) {
        ++stats.scheduled;
      } else if (!oldest || claimable_since(item) < *oldest) {
        oldest = claimable_since(item);
      }
    }
    if (item.completed_at && item.started_at) {
      latencies.emplace_back(*item.completed_at,
                             std::max(*item.started_at - claimable_since(item), Duration(0)));
    }
  }
  if (oldest) stats.oldest_pending_age = now - *oldest;
  if (!latencies.empty()) {
    std::ranges::sort(latencies, std::greater<>{});
    std::vector<Duration> recent;
    for (const auto& [when, latency] : latencies) {
      if (recent.size() == 1000) break;
      recent.push_back(latency);
    }
    std::ranges::sort(recent);
    stats.claim_latency_p50 = recent[(recent.size() - 1) / 2];
    stats.claim_latency_p99 = recent[(recent.size() - 1) * 99 / 100];
    stats.claim_latency_max = recent.back();
  }
  stats.paused = *paused(queue);
  stats.max_size = settings_of(queue).max_size;
  return stats;
}

Result<Upkeep> TableOperations::upkeep() {
  const Time now = clock_.now();
  Upkeep upkeep;
  upkeep.expired = expire({}, now);
  for (const auto& [name, queue] : table_.queues) {
    std::vector<TableItem*> finished = of_queue(name);
    std::erase_if(finished, [](const TableItem* item) { return is_live(item->item.status); });
    std::ranges::sort(finished, {},
                      [](const TableItem* item) { return item->item.completed_at.value_or(Time{}); });
    auto number = finished.size();
    for (const auto* item : finished) {
      const auto age = now - item->item.completed_at.value_or(now);
      const auto& keep =
          item->item.status == Status::completed ? queue.settings.keep_completed : queue.settings.keep_failed;
      const bool too_many = queue.settings.keep_finished_max && number > *queue.settings.keep_finished_max;
      if (!too_many && !(keep && age > *keep)) continue;
      if (!can_remove(*item)) continue;
      if (upkeep.removed == upkeep_rows_max) {
        upkeep.more = true;
        return upkeep;
      }
      table_.items.erase(ItemId(item->item.id));
      --number;
      ++upkeep.removed;
      changed_ = true;
    }
  }
  return upkeep;
}

}  // namespace fulmar::queue
