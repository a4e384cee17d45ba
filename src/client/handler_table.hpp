#pragma once
// HandlerTable: what the user has subscribed to, by filter. Users' threads change it; the dispatch lane takes the changes
// over into a trie of its own before its next message, so no handler ever runs under a lock and routing takes none. The I/O
// thread does not know it.
//
// Invariants
//   1. No call of a handler begins after the function that removed or replaced it has returned (`active`); one that runs goes
//      on.
//   2. A change that was made before a message was delivered is seen by that message.
//   3. granted() of each entry is fulfilled exactly once, at the latest when the table ends.
//   4. Changes that nobody takes are bounded by the number of subscriptions.
//   5. Handlers are destroyed under no lock, and never on the I/O thread.
//
// Thread-safety: all functions from any thread, except take_changes(): the lane.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fulmar/client.hpp"

namespace fulmar {

class ExecutorQueue;

class HandlerTable {
 public:
  struct Entry : std::enable_shared_from_this<Entry> {
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry();

    std::string filter;
    std::uint64_t id = 0;
    // What a server of 5.0 tags the messages of this subscription with. Filters without wildcards cannot overlap each other
    // and share one, so that many of them fit into a packet; every other filter has its own, as long as it is subscribed.
    std::uint32_t identifier = 0;
    MessageHandler handler;
    Client::GrantedHandler granted_handler;
    Executor executor;
    bool manual_ack = false;
    bool has_wildcards = false;
    std::shared_ptr<ExecutorQueue> queue;  // the lane's; with an executor
    std::atomic<bool> active{true};        // false: unsubscribed or replaced

    // The filter without $share/group/.
    std::string_view levels() const;
    std::shared_future<Result<QoS>> granted() const { return granted_; }
    // The first outcome counts. Not on the I/O thread: it may wake somebody who waits.
    void grant(Result<QoS> outcome);

   private:
    friend class HandlerTable;
    std::atomic<bool> answered_{false};
    std::promise<Result<QoS>> promise_;
    std::shared_future<Result<QoS>> granted_ = promise_.get_future().share();
  };
  using EntryPtr = std::shared_ptr<Entry>;

  static constexpr std::uint32_t identifier_of_plain_filters = 1;
  static constexpr std::uint32_t identifier_max = 268'435'455;  // [MQTT5 3.8.2.1.2]

  explicit HandlerTable(std::size_t entries_max = ~std::size_t{0}) : entries_max_(entries_max) {}
  ~HandlerTable();
  HandlerTable(const HandlerTable&) = delete;
  HandlerTable& operator=(const HandlerTable&) = delete;

  // Adds a handler or replaces that of the same filter. Errors: outbox_full, when there are `entries_max` filters.
  Result<EntryPtr> set(std::string_view filter, MessageHandler handler, const SubscribeOptions& options = {},
                       Client::GrantedHandler granted = {});
  // Removes the entry if it is still the one with this id; any when `id` is 0. Returns the id that was removed, or 0.
  std::uint64_t remove(std::string_view filter, std::uint64_t id = 0);
  // The server's answer to the entry of this id: fulfils granted() and calls the granted handler.
  void answered(const std::string& filter, std::uint64_t id, std::uint8_t reason_code);
  // Fulfils every granted() that is open with this error.
  void end_grants(const Error& error);

  std::size_t size() const;

  // Grows with every change: see take_changes().
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // The entries that were added or removed since the last call, in order; look at `active`. `generation` is that of the
  // last of them. `afresh`: they are all there are, and former ones are to be forgotten.
  std::vector<EntryPtr> take_changes(std::uint64_t& generation, bool& afresh);
  // Called after every change.
  void on_change(std::function<void()> notify) { notify_ = std::move(notify); }  // before the first change

 private:
  void note(EntryPtr changed, std::vector<EntryPtr>& superseded);

  mutable std::mutex mutex_;
  std::unordered_map<std::string_view, EntryPtr> entries_;  // keys are views of the entries' filters
  std::vector<EntryPtr> changes_;
  bool afresh_ = false;
  const std::size_t entries_max_;
  std::uint64_t last_id_ = 0;
  std::uint32_t last_identifier_ = identifier_of_plain_filters;
  std::atomic<std::uint64_t> generation_{0};
  std::function<void()> notify_;
};

}  // namespace fulmar
