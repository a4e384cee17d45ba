#pragma once
// Deduplicator: which envelopes a handler has handled already. The same envelope counts for each handler apart, and only
// after that handler succeeded: a failed one gets it again when the publisher sends it again.
//
// An envelope's key is `type|id|seq=N` when data.seq is written as an integer, else `type|id|hash=H` with H =
// canonical_hash(data). What is kept of it are the first 128 bits of its SHA-256, each part preceded by its length, so that
// no `|` within a type or id makes two keys one. What is not an envelope has no key and is never a duplicate.
//
// Invariants
//   1. At most `max_entries` pairs of envelope and handler are remembered; when full, the oldest goes [house invariant 5].
//   2. Each for `ttl` from its mark() on; being seen again does not prolong that.
//   3. Every operation is O(1), averaged over the entries that it makes or forgets, and allocates nothing once constructed
//      but for envelopes larger than all before.
//
// Not thread-safe: owned by the dispatch thread.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/envelope.hpp"
#include "fulmar/message.hpp"

namespace fulmar {

class Deduplicator {
 public:
  using Instant = std::chrono::steady_clock::time_point;
  using Key = std::array<std::uint64_t, 2>;

  // `ttl` > 0, 1 <= `max_entries` < 2^31; about 50 bytes an entry are taken at once.
  Deduplicator(std::chrono::milliseconds ttl, std::size_t max_entries);
  ~Deduplicator();
  Deduplicator(const Deduplicator&) = delete;
  Deduplicator& operator=(const Deduplicator&) = delete;

  // Once per message, before its handlers.
  std::optional<Key> key_of(const Message& message);
  // Has this handler handled it within `ttl` before `now`?
  bool seen(const Key& key, std::uint64_t handler_id, Instant now);
  // The handler has returned without an error.
  void mark(const Key& key, std::uint64_t handler_id, Instant now);

  std::size_t size() const { return count_; }

 private:
  using Index = std::uint32_t;  // of a slot, plus 1; 0 = none
  struct Slot {
    Key key;
    std::uint64_t handler_id;
    Instant marked;
    Index next;  // in its bucket
  };

  class Digest;

  Index& bucket_of(const Key& key, std::uint64_t handler_id);
  bool find(const Key& key, std::uint64_t handler_id);
  void forget_oldest();
  void forget_expired(Instant now);

  const std::chrono::milliseconds ttl_;
  const std::size_t capacity_;
  std::unique_ptr<Slot[]> slots_;  // a ring in the order of mark()
  std::vector<Index> buckets_;     // a power of two
  std::size_t oldest_ = 0;
  std::size_t count_ = 0;
  EnvelopeReader reader_{JsonStyle::canonical};
  std::unique_ptr<Digest> digest_;
};

// The first 128 bits of the SHA-256 of `data` in canonical form (see JsonRewriter), as 32 hexadecimal digits. The same in
// every process and version. Errors: invalid_envelope when `data` is not a JSON object.
Result<std::string> canonical_hash(std::string_view data);

}  // namespace fulmar
