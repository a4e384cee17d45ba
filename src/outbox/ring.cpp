#include "outbox/ring.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

namespace fulmar::outbox {
namespace {

// A commit word holds the block's length in words, itself included; padding up to the ring's end is marked.
constexpr std::uint64_t padding = std::uint64_t{1} << 63;

// How far the consumer maps ahead at most, and at a time: the first bounds what is mapped and not yet needed, the second how
// long one call takes (64 pages, some 20 us).
constexpr std::size_t populated_ahead_max = std::size_t{4} << 20;
constexpr std::size_t populated_at_once_max = std::size_t{256} << 10;

std::uint32_t words_for(std::size_t bytes) {
  const std::size_t rounded = std::bit_ceil(std::clamp<std::size_t>(bytes, 4096, std::size_t{1} << 33));
  return static_cast<std::uint32_t>(rounded / 8);
}

}  // namespace

Ring::Ring(std::size_t bytes, std::size_t count_max)
    : capacity_(words_for(bytes)),
      count_max_(static_cast<std::uint32_t>(std::clamp<std::size_t>(count_max, 1, 0x7fffffff))) {
  static_assert(sizeof(std::atomic<Word>) == word_size && std::atomic<Word>::is_always_lock_free);
  // Anonymous pages are zero and come with the first touch: an idle ring costs nothing.
  void* memory = mmap(nullptr, capacity_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  words_ = static_cast<std::atomic<Word>*>(memory);
}

Ring::~Ring() { munmap(words_, capacity_bytes()); }

std::byte* Ring::try_reserve(std::size_t size, std::uint64_t* sequence) {
  if (size > block_max()) return nullptr;
  const auto need = static_cast<std::uint32_t>((size + word_size - 1) / word_size + 1);
  std::uint64_t seen = head_.load(std::memory_order_relaxed);
  // acquire: pairs with the release in the refresh below, and so with the consumer's release of tail_ after zeroing.
  std::uint64_t tail_packed = seen_tail_.load(std::memory_order_acquire);
  bool fresh = false;
  for (;;) {
    if (seen & closed_bit) return nullptr;
    const Mark head = Mark::of(seen);
    const Mark tail = Mark::of(tail_packed);
    const std::uint32_t to_end = capacity_ - (head.position & (capacity_ - 1));
    const std::uint32_t pad = need > to_end ? to_end : 0;
    const std::uint32_t used = head.words_since(tail);
    const std::uint32_t count = head.sequence - tail.sequence;
    // A head older than the tail shows as more than the capacity in use, and is looked at again.
    if (used > capacity_ || need + pad > capacity_ - used || count >= count_max_) {
      const std::uint64_t now = head_.load(std::memory_order_relaxed);
      if (fresh && now == seen) return nullptr;
      seen = now;
      seen_popped_.store(popped_.load(std::memory_order_relaxed), std::memory_order_relaxed);
      tail_packed = tail_.load(std::memory_order_acquire);  // pairs with pop()
      seen_tail_.store(tail_packed, std::memory_order_release);
      fresh = true;
      continue;
    }
    const Mark next{head.position + pad + need, head.sequence + 1};
    // release: pairs with pushed(), so that whoever sees the block counted sees what its producer did before.
    if (!head_.compare_exchange_weak(seen, next.packed(), std::memory_order_release,
                                     std::memory_order_relaxed))
      continue;

    if (sequence) {
      // seen_popped_ is at most one lap behind, so the low half decides.
      const std::uint64_t base = seen_popped_.load(std::memory_order_relaxed);
      *sequence = base + (head.sequence - static_cast<std::uint32_t>(base));
    }
    prefetch_blocks_ahead(next.position, need);
    // release: pairs with the consumer's acquire in front(). The padding needs no more than its mark.
    if (pad) word(head.position).store(padding | pad, std::memory_order_release);
    return reinterpret_cast<std::byte*>(&word(head.position + pad)) + word_size;
  }
}

// A producer writes into lines that lie in the consumer's cache, which zeroed them; a store into one waits for the other core,
// and the exchange in commit() waits for all of them. So this asks for the lines of the block after the next, taking it to be
// as large as this one, while there is still time: nearer is too late, and further ahead the consumer's own prefetching, which
// runs ahead of what it reads, takes them back. Harmless where the guess is wrong.
void Ring::prefetch_blocks_ahead(std::uint32_t position, std::uint32_t block_words) {
  constexpr std::uint32_t line_words = 64 / word_size;
  constexpr std::uint32_t words_max =
      8 * line_words;  // the processor sees a longer run of stores coming by itself
  for (std::uint32_t at = 0; at < std::min(block_words, words_max); at += line_words) {
    std::atomic<Word>& line = word(position + block_words + at);
#if defined(__x86_64__)
    asm volatile("prefetchw %0"
                 :
                 : "m"(line));  // g++ makes it a prefetch for reading unless told of a processor
#else
    __builtin_prefetch(&line, 1);
#endif
  }
}

void Ring::commit(std::byte* block, std::size_t size) {
  auto* commit_word = reinterpret_cast<std::atomic<Word>*>(block - word_size);
  // exchange: release for the block's bytes, and a full barrier before the producer looks whether the consumer sleeps.
  commit_word->exchange((size + word_size - 1) / word_size + 1, std::memory_order_seq_cst);
}

std::span<std::byte> Ring::front() {
  Mark tail = Mark::of(tail_.load(std::memory_order_relaxed));  // only the consumer writes it
  // seq_cst: acquire for the block's bytes, and the second half of the handshake with SleepFlag.
  std::uint64_t length = word(tail.position).load(std::memory_order_seq_cst);
  if (length & padding) {
    word(tail.position).store(0, std::memory_order_relaxed);
    tail.position += static_cast<std::uint32_t>(length);
    tail_.store(tail.packed(), std::memory_order_release);
    length = word(tail.position).load(std::memory_order_seq_cst);
  }
  if (length == 0) return {};
  return {reinterpret_cast<std::byte*>(&word(tail.position)) + word_size, (length - 1) * word_size};
}

void Ring::pop() {
  Mark tail = Mark::of(tail_.load(std::memory_order_relaxed));
  const auto length = static_cast<std::uint32_t>(word(tail.position).load(std::memory_order_relaxed));
  std::memset(static_cast<void*>(&word(tail.position)), 0, std::size_t{length} * word_size);  // invariant 3
  tail.position += length;
  ++tail.sequence;
  popped_.store(popped_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  tail_.store(tail.packed(), std::memory_order_release);  // pairs with try_reserve: the zeroes come first
}

bool Ring::populate_ahead(std::size_t ahead_min) {
  if (populated()) return false;
  const std::size_t head = std::size_t{Mark::of(head_.load(std::memory_order_relaxed)).position} * word_size;
  if (head == 0) return false;
  if (head >= capacity_bytes()) {  // the first lap is over: every page has been touched
    populated_ = capacity_bytes();
    return false;
  }
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t ahead = std::clamp(head, std::min(ahead_min, populated_ahead_max), populated_ahead_max);
  const std::size_t wanted = std::min(capacity_bytes(), (head + ahead + page - 1) / page * page);
  const std::size_t from = std::max(populated_, head / page * page);
  const bool under_way = populated_ < populate_to_;
  if (from >= wanted || (!under_way && from > head && from - head >= ahead / 2)) return false;
  populate_to_ = wanted;

  const std::size_t size = std::min(wanted - from, populated_at_once_max);
  // Pages that a producer touches meanwhile keep what it wrote: the kernel maps only those that are not there.
  if (madvise(reinterpret_cast<std::byte*>(words_) + from, size, MADV_POPULATE_WRITE) != 0) {
    // A kernel before 5.14 does not know it, and only the producers themselves can touch their pages then.
    if (errno != EINTR && errno != EAGAIN) populated_ = capacity_bytes();
    return false;
  }
  populated_ = from + size;
  return populated_ < wanted;
}

std::size_t Ring::depth() const {
  const Mark tail = Mark::of(tail_.load(std::memory_order_acquire));
  return Mark::of(head_.load(std::memory_order_relaxed)).sequence - tail.sequence;
}

std::size_t Ring::bytes() const {
  const Mark tail = Mark::of(tail_.load(std::memory_order_acquire));
  return std::size_t{Mark::of(head_.load(std::memory_order_relaxed)).words_since(tail)} * word_size;
}

std::uint64_t Ring::pushed() const {
  const std::uint64_t base = popped_.load(std::memory_order_acquire);
  return base + (Mark::of(head_.load(std::memory_order_acquire)).sequence - static_cast<std::uint32_t>(base));
}

}  // namespace fulmar::outbox
