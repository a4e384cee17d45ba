#pragma once
// InFlight: the slots of everything that waits for an answer under a packet identifier: PUBLISH of QoS 1 and 2, SUBSCRIBE
// and UNSUBSCRIBE, which share one space of identifiers [MQTT-2.2.1-3].
//
// The upper part of that space can be reserved for messages of a log, whose identifiers follow from their positions there:
// the same message has the same one in every process that works on that log. Such a message takes any free slot, and a
// table leads from its identifier to the slot; it is as large as the span of positions in flight, and empty without any.
//
// Invariants
//   1. A packet identifier is the index of its slot, but for reserved ones; finding, taking and freeing one is O(1).
//      take() never gives a reserved one.
//   2. A freed identifier is given again as late as possible: the free ones queue up, and some are always spare, so that a
//      late duplicate of an acknowledgement does not hit a new message.
//   3. Each slot in use stands in exactly one list; `messages` is in the order of first transmission [MQTT-4.6.0-1].
//
// Not thread-safe. The slab grows with the window and starts empty.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mqtt/held_record.hpp"

namespace fulmar::mqtt {

class InFlight {
 public:
  enum class Kind : std::uint8_t {
    unused,
    publish_qos_1,  // waits for PUBACK
    publish_qos_2,  // waits for PUBREC
    recorded,       // PUBREC came; its PUBREL waits for the caller or for an earlier one
    release,        // PUBREL sent, waits for PUBCOMP
    subscribe,
    unsubscribe,
    // QoS 2 that was given up or that a former process may have sent: the server may hold its identifier as long as its
    // session.
    abandoned,
  };

  struct Slot {
    union {
      HeldRecord record;  // of a PUBLISH
      std::uint64_t token;
    };
    std::uint32_t
        number;  // recorded, release: in the order of the PUBRECs; SUBSCRIBE and UNSUBSCRIBE: how many filters
    std::uint16_t next;
    std::uint16_t previous;
    Kind kind;
    bool
        on_wire;  // transmitted on this connection and so counted against the send quota; abandoned: PUBREL was sent
    bool released;     // recorded: the caller has released it; abandoned: a former process may have used it
    std::uint16_t id;  // on the wire; while unused, that of its index
  };
  static_assert(sizeof(Slot) == 24);

  struct List {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    std::uint32_t size = 0;
  };

  static constexpr std::size_t ids_max = 65'535;
  static constexpr std::uint16_t reserved_first = 0x8000;
  static constexpr std::uint16_t reserved_count = 0x4000;

  static constexpr std::uint16_t reserved_id(std::uint64_t position) {
    return static_cast<std::uint16_t>(reserved_first + position % reserved_count);
  }

  // `reserve`: take() keeps to the identifiers below reserved_first.
  explicit InFlight(bool reserve = false) : slots_max_(reserve ? reserved_first - 1 : ids_max) {}

  List messages;  // PUBLISH, whatever it waits for
  List requests;  // SUBSCRIBE and UNSUBSCRIBE
  List abandoned;

  bool has_free() const { return used_ < slots_max_; }
  std::size_t used() const { return used_; }

  bool reserves() const { return slots_max_ < ids_max; }
  bool is_reserved(std::uint16_t id) const {
    return reserves() && id >= reserved_first && id < reserved_first + reserved_count;
  }

  // has_free() holds.
  std::uint16_t take() {
    const std::uint16_t id = next_free();
    free_first_ = slots_[id].next;
    --free_;
    ++used_;
    return id;
  }
  // What take() gives next; has_free() holds.
  std::uint16_t next_free() {
    if (free_ < used_ / 4 + spare) grow();
    return free_first_;
  }
  // The same as it is without making more; 0: none.
  std::uint16_t first_free() const { return free_ == 0 ? std::uint16_t{0} : free_first_; }
  // Returns the slot for a reserved identifier; has_free() holds, and find(id) is 0.
  std::uint16_t take_reserved(std::uint16_t id) {
    while (by_remainder_.empty() || by_remainder_[remainder(id)] != 0) grow_table();
    const auto slot = take();
    slots_[slot].id = id;
    by_remainder_[remainder(id)] = slot;
    return slot;
  }
  void free(std::uint16_t id) {
    Slot& slot = slots_[id];
    if (slot.id != id) {
      by_remainder_[remainder(slot.id)] = 0;
      slot.id = id;
    }
    slot.kind = Kind::unused;
    slot.next = 0;
    --used_;
    if (free_++ == 0) {
      free_first_ = id;
    } else {
      slots_[free_last_].next = id;
    }
    free_last_ = id;
  }

  // Any identifier from the wire: the slot of what is in flight under it, 0 = nothing.
  std::uint16_t find(std::uint16_t id) const {
    if (id < slots_.size()) {
      const Slot& slot = slots_[id];
      return slot.kind != Kind::unused && slot.id == id ? id : std::uint16_t{0};
    }
    if (by_remainder_.empty() || !is_reserved(id)) return 0;
    const auto slot = by_remainder_[remainder(id)];
    return slots_[slot].id == id ? slot : std::uint16_t{0};
  }
  Slot& operator[](std::uint16_t id) { return slots_[id]; }
  const Slot& operator[](std::uint16_t id) const { return slots_[id]; }

  void append(List& list, std::uint16_t id) {
    Slot& slot = slots_[id];
    slot.next = 0;
    slot.previous = list.last;
    (list.last != 0 ? slots_[list.last].next : list.first) = id;
    list.last = id;
    ++list.size;
  }
  void remove(List& list, std::uint16_t id) {
    const Slot& slot = slots_[id];
    (slot.previous != 0 ? slots_[slot.previous].next : list.first) = slot.next;
    (slot.next != 0 ? slots_[slot.next].previous : list.last) = slot.previous;
    --list.size;
  }

  // Gives the memory back; only when nothing is in flight.
  void shrink() {
    if (used_ != 0) return;
    by_remainder_ = std::vector<std::uint16_t>();
    slots_ = std::vector<Slot>();  // `= {}` would keep the memory
    free_ = 0;
  }

 private:
  static constexpr std::size_t spare = 8;

  void grow() {
    const std::size_t old_size = std::max<std::size_t>(slots_.size(), 1);
    if (old_size > slots_max_) return;
    const std::size_t size = std::min(old_size == 1 ? 17 : (old_size - 1) * 2 + 1, slots_max_ + 1);
    slots_.reserve(size);
    slots_.resize(size, Slot{});
    used_ += size - old_size;  // as if the new ones were in use
    for (std::size_t id = old_size; id < size; ++id) {
      slots_[id].id = static_cast<std::uint16_t>(id);
      free(static_cast<std::uint16_t>(id));
    }
  }

  std::size_t remainder(std::uint16_t id) const { return id & (by_remainder_.size() - 1); }

  // Two identifiers with different remainders keep them so in a larger table; in one of reserved_count none are equal.
  void grow_table() {
    std::vector<std::uint16_t> old(std::max<std::size_t>(by_remainder_.size() * 2, 16));
    old.swap(by_remainder_);
    for (const auto slot : old) {
      if (slot != 0) by_remainder_[remainder(slots_[slot].id)] = slot;
    }
  }

  std::size_t slots_max_;

  std::vector<Slot> slots_;  // [0] is not used
  std::size_t used_ = 0;
  std::size_t free_ = 0;
  std::uint16_t free_first_ = 0;
  std::uint16_t free_last_ = 0;
  std::vector<std::uint16_t>
      by_remainder_;  // slots of reserved identifiers, 0 = none; empty or a power of two
};

}  // namespace fulmar::mqtt
