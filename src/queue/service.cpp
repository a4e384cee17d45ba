#include "queue/service.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include <boost/json.hpp>

namespace fulmar {
namespace {

using namespace queue;
using namespace std::chrono_literals;

constexpr std::size_t purged_at_once = 500;
constexpr std::size_t exported_at_once = 256;
// What the store cannot wake anybody for is looked at this often.
constexpr std::chrono::nanoseconds look_at_least_every = 1s;
constexpr std::int64_t upkeep_every_ns = 1'000'000'000;

std::string this_worker() {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return std::string(host).substr(0, 100) + ":" + std::to_string(::getpid());
}

std::int64_t monotonic_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

// The error of the only element of a batch.
Result<void> only(Result<std::vector<Refusal>> refusals) {
  if (!refusals) return std::unexpected(std::move(refusals.error()));
  if (refusals->empty()) return {};
  return std::unexpected(std::move(refusals->front().error));
}

// Refuses what is not valid before the transaction, and gives the rest to `verb` under its own numbers again.
template <typename Element, typename Valid, typename Verb>
Result<std::vector<Refusal>> validated(std::span<const Element> elements, Valid&& valid, Verb&& verb) {
  if (auto ok = validate_batch(elements.size()); !ok) return std::unexpected(ok.error());
  std::vector<Refusal> refused;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (auto ok = valid(elements[i]); !ok) refused.push_back({i, std::move(ok.error())});
  }
  if (refused.empty()) return verb(elements);
  std::vector<Element> good;
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0, bad = 0; i < elements.size(); ++i) {
    if (bad < refused.size() && refused[bad].index == i) {
      ++bad;
      continue;
    }
    good.push_back(elements[i]);
    numbers.push_back(i);
  }
  auto result = verb(std::span<const Element>(good));
  if (!result) return result;
  for (auto& refusal : *result) refused.push_back({numbers[refusal.index], std::move(refusal.error)});
  std::ranges::sort(refused, {}, &Refusal::index);
  return refused;
}

}  // namespace

// --- Impl -------------------------------------------------------------------------------------------------------------

void Queue::Impl::use_settings(const Settings& settings) {
  const auto durability = store_->durability.value_or(settings.durability);
  durability_ = durability;
  claim_durability_ = settings.durable_claim ? durability : Durability::none;
}

Result<void> Queue::Impl::load_settings() {
  auto settings = look([&](Operations& op) { return op.settings(name_); });
  if (!settings) return std::unexpected(settings.error());
  use_settings(*settings);
  return {};
}

Result<ClaimRequest> Queue::Impl::complete_request(const ClaimRequest& request) const {
  if (auto ok = validate(request); !ok) return std::unexpected(ok.error());
  ClaimRequest complete = request;
  if (complete.worker.empty()) complete.worker = store_->worker;
  return complete;
}

void Queue::Impl::upkeep_now_and_then() {
  if (within_) return;
  auto next = store_->next_upkeep_ns.load(std::memory_order_relaxed);
  const auto now = monotonic_ns();
  if (now < next || !store_->next_upkeep_ns.compare_exchange_strong(next, now + upkeep_every_ns)) return;
  auto done = run(Access::write, Durability::none, [](Operations& op) { return op.upkeep(); });
  if (!done && store_->log) store_->log(LogLevel::warning, "upkeep: " + done.error().message);
  if (done && done->more) store_->next_upkeep_ns = 0;
}

// --- opening ----------------------------------------------------------------------------------------------------------

Queue::Queue(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Queue::~Queue() = default;
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;

Result<Queue> Queue::open(std::string_view url, QueueOptions options) {
  if (!options.name.empty()) {
    if (auto ok = validate_queue_name(options.name); !ok) return std::unexpected(ok.error());
  }
  if (options.settings) {
    if (auto ok = validate(*options.settings); !ok) return std::unexpected(ok.error());
  }
  RepositoryOptions repository;
  repository.create = options.create;
  repository.read_only = options.read_only;
  repository.lock_timeout = options.lock_timeout;
  repository.set_damaged_aside = options.set_damaged_aside;
  repository.allow_network_file_system = options.allow_network_file_system;
  if (options.settings) {
    repository.sync_interval = std::chrono::ceil<std::chrono::milliseconds>(options.settings->sync_interval);
  }
  repository.log = options.log;
  auto opened = open_repository(url, repository);
  if (!opened) return std::unexpected(opened.error());
  auto store = std::make_shared<Impl::Store>();
  store->repository = std::move(*opened);
  store->durability = options.durability;
  store->log = std::move(options.log);
  store->worker = this_worker();
  if (options.name.empty()) options.name = store->repository->default_queue();
  Queue result(std::make_shared<Impl>(std::move(store), std::move(options.name)));
  if (options.settings) {
    auto kept = result.settings();
    if (!kept) return std::unexpected(kept.error());
    if (*kept != *options.settings) {
      if (auto ok = result.set_settings(*options.settings); !ok) return std::unexpected(ok.error());
    }
  }
  if (auto ok = result.impl_->load_settings(); !ok) return std::unexpected(ok.error());
  return result;
}

Result<Queue> Queue::in(std::string_view name) {
  if (auto ok = validate_queue_name(name); !ok) return std::unexpected(ok.error());
  Queue other(std::make_shared<Impl>(impl_->shared_store(), std::string(name), impl_->within()));
  if (auto ok = other.impl_->load_settings(); !ok) return std::unexpected(ok.error());
  return other;
}

const std::string& Queue::name() const { return impl_->name(); }
std::string_view Queue::url() const { return impl_->store().repository->url(); }

// --- in ---------------------------------------------------------------------------------------------------------------

Result<ItemId> Queue::submit(std::string_view type, std::string_view payload) {
  NewItem item;
  item.type = type;
  item.payload = payload;
  auto submitted = submit(item);
  if (!submitted) return std::unexpected(std::move(submitted.error()));
  return std::move(submitted->id);
}

Result<Submitted> Queue::submit(const NewItem& item) {
  auto submitted = submit_batch({&item, 1});
  if (!submitted) return std::unexpected(std::move(submitted.error()));
  return std::move(submitted->front());
}

Result<std::vector<Submitted>> Queue::submit_batch(std::span<const NewItem> items) {
  if (auto ok = validate_batch(items.size()); !ok) return std::unexpected(ok.error());
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto ok = validate(items[i]);
    if (ok) continue;
    if (items.size() > 1)
      ok.error().message = "item " + std::to_string(i + 1) + " of the batch: " + ok.error().message;
    return std::unexpected(ok.error());
  }
  if (items.empty()) return std::vector<Submitted>{};
  return impl_->change([&](Operations& op) { return op.submit(name(), items); });
}

// --- leases -----------------------------------------------------------------------------------------------------------

Result<std::vector<Lease>> Queue::claim(const ClaimRequest& request) {
  auto complete = impl_->complete_request(request);
  if (!complete) return std::unexpected(complete.error());
  impl_->upkeep_now_and_then();
  auto claimed = impl_->lease([&](Operations& op) { return op.claim(name(), *complete); });
  if (!claimed) return std::unexpected(std::move(claimed.error()));
  return std::move(claimed->leases);
}

Result<std::vector<Lease>> Queue::wait_claim(const ClaimRequest& request, std::chrono::nanoseconds at_most) {
  if (impl_->within()) {
    return fulmar::fail(Errc::invalid_item,
                        "wait_claim() within a transaction would wait for ever; use claim()");
  }
  auto complete = impl_->complete_request(request);
  if (!complete) return std::unexpected(complete.error());
  auto& store = impl_->store();
  const auto interrupts = store.interrupts.load();
  const auto deadline =
      std::chrono::steady_clock::now() + std::min<std::chrono::nanoseconds>(at_most, 24h * 365);
  for (;;) {
    // Before the look, so that what comes after it changes the word.
    const auto word = store.repository->wake_word(name());
    impl_->upkeep_now_and_then();
    auto claimed = impl_->lease([&](Operations& op) { return op.claim(name(), *complete); });
    if (!claimed) return std::unexpected(std::move(claimed.error()));
    if (!claimed->leases.empty()) return std::move(claimed->leases);
    if (store.interrupts.load() != interrupts)
      return fulmar::fail(Errc::cancelled, "waiting for work was interrupted");
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= 0ns) return std::vector<Lease>{};
    auto time = std::min<std::chrono::nanoseconds>(left, look_at_least_every);
    // A little late rather than a little early, which would be another look for nothing.
    if (claimed->look_again_in)
      time = std::min<std::chrono::nanoseconds>(time, *claimed->look_again_in + 100us);
    store.repository->wait(name(), word, time);
  }
}

void Queue::interrupt() {
  ++impl_->store().interrupts;
  impl_->store().repository->wake(name());
}

Result<std::vector<Refusal>> Queue::extend_batch(std::span<const LeaseKey> leases, Duration length) {
  if (auto ok = validate_lease(length); !ok) return std::unexpected(ok.error());
  if (auto ok = validate_batch(leases.size()); !ok) return std::unexpected(ok.error());
  auto extended = impl_->lease([&](Operations& op) { return op.extend(leases, length); });
  if (!extended) return std::unexpected(std::move(extended.error()));
  return std::move(extended->refusals);
}

Result<Time> Queue::extend(const LeaseKey& lease, std::optional<Duration> length) {
  if (length) {
    if (auto ok = validate_lease(*length); !ok) return std::unexpected(ok.error());
  }
  auto extended = impl_->lease([&](Operations& op) -> Result<Extended> {
    if (length) return op.extend({&lease, 1}, *length);
    auto settings = op.settings(name());
    if (!settings) return std::unexpected(settings.error());
    return op.extend({&lease, 1}, settings->lease);
  });
  if (!extended) return std::unexpected(std::move(extended.error()));
  if (!extended->refusals.empty()) return std::unexpected(std::move(extended->refusals.front().error));
  return extended->until;
}

Result<std::vector<Refusal>> Queue::complete_batch(std::span<const Completion> completions) {
  return validated(
      completions, [](const Completion& completion) { return validate_result(completion.result); },
      [&](std::span<const Completion> good) {
        return impl_->change([&](Operations& op) { return op.complete(good); });
      });
}

Result<void> Queue::complete(const LeaseKey& lease, std::string_view result) {
  const Completion completion{lease, std::string(result)};
  return only(complete_batch({&completion, 1}));
}

Result<std::vector<Refusal>> Queue::fail_batch(std::span<const Failure> failures) {
  return validated(
      failures,
      [](const Failure& failure) -> Result<void> {
        if (!failure.retry_in || *failure.retry_in >= Duration(0)) return {};
        return fulmar::fail(Errc::invalid_item, "retry_in is negative; 0 is at once");
      },
      [&](std::span<const Failure> good) {
        return impl_->change([&](Operations& op) { return op.fail(good); });
      });
}

Result<void> Queue::fail(const LeaseKey& lease, std::string_view error, std::optional<Duration> retry_in) {
  const Failure failure{lease, std::string(error), retry_in, false};
  return only(fail_batch({&failure, 1}));
}

Result<void> Queue::release(const LeaseKey& lease) {
  return only(impl_->lease([&](Operations& op) { return op.release({&lease, 1}); }));
}

Result<std::vector<Lease>> Queue::complete_and_claim(std::span<const Completion> completions,
                                                     const ClaimRequest& request,
                                                     std::vector<Refusal>* refusals) {
  auto complete = impl_->complete_request(request);
  if (!complete) return std::unexpected(complete.error());
  std::vector<Lease> leases;
  auto refused = validated(
      completions, [](const Completion& completion) { return validate_result(completion.result); },
      [&](std::span<const Completion> good) {
        return impl_->change([&](Operations& op) -> Result<std::vector<Refusal>> {
          auto done = op.complete(good);
          if (!done) return done;
          auto claimed = op.claim(name(), *complete);
          if (!claimed) return std::unexpected(std::move(claimed.error()));
          leases = std::move(claimed->leases);
          return done;
        });
      });
  if (!refused) return std::unexpected(std::move(refused.error()));
  if (refusals) *refusals = std::move(*refused);
  impl_->upkeep_now_and_then();
  return leases;
}

// --- tasks ------------------------------------------------------------------------------------------------------------

Result<ItemId> Queue::submit_task(std::string_view task_id, int priority) {
  NewItem item;
  item.payload = boost::json::serialize(boost::json::object{{"task_id", std::string(task_id)}});
  item.priority = priority;
  auto submitted = submit(item);
  if (!submitted) return std::unexpected(std::move(submitted.error()));
  return std::move(submitted->id);
}

Result<std::optional<Item>> Queue::get_next_task() {
  auto leases = claim({});
  if (!leases) return std::unexpected(std::move(leases.error()));
  if (leases->empty()) return std::nullopt;
  auto& lease = leases->front();
  const std::lock_guard lock(impl_->store().tasks_mutex);
  impl_->store().tasks[lease.item.id] = lease.token;
  return std::move(lease.item);
}

Result<void> Queue::complete_task(std::string_view id) {
  LeaseKey key{ItemId(id), 0};
  {
    const std::lock_guard lock(impl_->store().tasks_mutex);
    const auto at = impl_->store().tasks.find(key.id);
    if (at == impl_->store().tasks.end()) {
      return fulmar::fail(
          Errc::not_found,
          "task " + key.id + ": get_next_task() of this object has not given it, or it is complete");
    }
    key.token = at->second;
    impl_->store().tasks.erase(at);
  }
  return complete(key);
}

// --- by id ------------------------------------------------------------------------------------------------------------

Result<std::vector<Refusal>> Queue::cancel_batch(std::span<const ItemId> ids) {
  if (auto ok = validate_batch(ids.size()); !ok) return std::unexpected(ok.error());
  return impl_->change([&](Operations& op) { return op.cancel(ids); });
}

Result<std::vector<Refusal>> Queue::retry_batch(std::span<const ItemId> ids) {
  if (auto ok = validate_batch(ids.size()); !ok) return std::unexpected(ok.error());
  return impl_->change([&](Operations& op) { return op.retry(ids); });
}

Result<std::vector<Refusal>> Queue::remove_batch(std::span<const ItemId> ids) {
  if (auto ok = validate_batch(ids.size()); !ok) return std::unexpected(ok.error());
  return impl_->change([&](Operations& op) { return op.remove(ids); });
}

Result<void> Queue::cancel(std::string_view id) {
  const ItemId one(id);
  return only(cancel_batch({&one, 1}));
}

Result<void> Queue::retry(std::string_view id) {
  const ItemId one(id);
  return only(retry_batch({&one, 1}));
}

Result<void> Queue::remove(std::string_view id) {
  const ItemId one(id);
  return only(remove_batch({&one, 1}));
}

Result<Item> Queue::get(std::string_view id) {
  return impl_->look([&](Operations& op) { return op.get(id); });
}

// --- the whole --------------------------------------------------------------------------------------------------------

Result<Listed> Queue::list(const Filter& filter, const Page& page) {
  if (auto ok = validate(page); !ok) return std::unexpected(ok.error());
  return impl_->look([&](Operations& op) { return op.list(name(), filter, page); });
}

Result<std::vector<Item>> Queue::peek(std::size_t items_max) {
  return impl_->look([&](Operations& op) { return op.peek(name(), items_max); });
}

Result<std::uint64_t> Queue::purge(const Filter& filter, const std::function<void(std::uint64_t)>& progress) {
  std::uint64_t removed = 0;
  for (;;) {
    auto step = impl_->change([&](Operations& op) { return op.purge(name(), filter, purged_at_once); });
    if (!step) return step;
    removed += *step;
    if (progress) progress(removed);
    if (*step < purged_at_once) return removed;
  }
}

Result<void> Queue::pause() {
  return impl_->change([&](Operations& op) { return op.set_paused(name(), true); });
}

Result<void> Queue::resume() {
  return impl_->change([&](Operations& op) { return op.set_paused(name(), false); });
}

Result<Stats> Queue::stats() {
  return impl_->look([&](Operations& op) { return op.stats(name()); });
}

Result<Settings> Queue::settings() {
  return impl_->look([&](Operations& op) { return op.settings(name()); });
}

Result<void> Queue::set_settings(const Settings& settings) {
  if (auto ok = validate(settings); !ok) return ok;
  auto done = impl_->change([&](Operations& op) { return op.set_settings(name(), settings); });
  if (done) impl_->use_settings(settings);
  return done;
}

Result<std::vector<std::string>> Queue::queues() {
  return impl_->look([&](Operations& op) { return op.queues(); });
}

Result<Upkeep> Queue::upkeep() {
  return impl_->run(Access::write, Durability::none, [](Operations& op) { return op.upkeep(); });
}

Result<void> Queue::sync() {
  if (impl_->within()) return {};  // the end of the transaction decides
  return impl_->store().repository->sync();
}

// --- export, import ---------------------------------------------------------------------------------------------------

Result<std::uint64_t> Queue::export_items(const std::function<Result<void>(const Item&)>& sink,
                                          const Filter& filter) {
  Page page;
  page.items_max = exported_at_once;
  std::uint64_t exported = 0;
  do {
    auto listed = list(filter, page);
    if (!listed) return std::unexpected(std::move(listed.error()));
    for (const auto& item : listed->items) {
      if (auto ok = sink(item); !ok) return std::unexpected(std::move(ok.error()));
      ++exported;
    }
    page.after = std::move(listed->next);
  } while (!page.after.empty());
  return exported;
}

Result<ImportReport> Queue::import_items(std::span<const Item> items, OnConflict conflict) {
  for (const auto& item : items) {
    if (auto ok = validate(item); !ok) return std::unexpected(ok.error());
  }
  return impl_->change([&](Operations& op) { return op.import(name(), items, conflict); });
}

// --- transactions -----------------------------------------------------------------------------------------------------

Result<void> Queue::with_transaction(const std::function<Result<void>(Queue&)>& body) {
  if (impl_->within()) return body(*this);  // joins the outer one
  auto function = [&](Operations& op) -> Result<void> {
    Queue inside(std::make_shared<Impl>(impl_->shared_store(), name(), &op));
    try {
      return body(inside);
    } catch (const std::exception& error) {
      return fulmar::fail(Errc::handler_failed,
                          std::string("the transaction's function threw: ") + error.what());
    } catch (...) {
      return fulmar::fail(Errc::handler_failed,
                          "the transaction's function threw something that is no std::exception");
    }
  };
  return impl_->run(Access::write_alone, impl_->durability(), function);
}

}  // namespace fulmar
