#pragma once
// InFlight: the slots of everything that waits for an answer under a packet identifier: PUBLISH of QoS 1 and 2, SUBSCRIBE
// and UNSUBSCRIBE, which share one space of identifiers [MQTT-2.2.1-3].
//
// Invariants
//   1. A packet identifier is the index of its slot; taking and freeing one is O(1).
//   2. A freed identifier is given again as late as possible: the free ones queue up, and some are always spare, so that a
//      late duplicate of an acknowledgement does not hit a new message.
//   3. Each slot in use stands in exactly one list; `messages` is in the order of first transmission [MQTT-4.6.0-1].
//
// Not thread-safe. The slab grows with the window and starts empty.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fulmar::mqtt {

class InFlight {
 public:
  enum class Kind : std::uint8_t {
    unused,
    publish_qos_1,  // waits for PUBACK
    publish_qos_2,  // waits for PUBREC
    release,        // PUBREL sent, waits for PUBCOMP
    subscribe,
    unsubscribe,
    abandoned,  // QoS 2 that was given up: the server may hold its identifier until its session ends
  };

  struct Slot {
    union {
      std::byte* block;  // the record of a PUBLISH
      std::uint64_t token;
    };
    std::uint32_t
        number;  // release: in the order of the PUBRECs; SUBSCRIBE and UNSUBSCRIBE: how many filters
    std::uint16_t next;
    std::uint16_t previous;
    Kind kind;
    bool
        on_wire;  // transmitted on this connection and so counted against the send quota; abandoned: PUBREL was sent
  };
  static_assert(sizeof(Slot) == 24);

  struct List {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    std::uint32_t size = 0;
  };

  static constexpr std::size_t ids_max = 65'535;

  List messages;  // PUBLISH, whatever it waits for
  List requests;  // SUBSCRIBE and UNSUBSCRIBE
  List abandoned;

  bool has_free() const { return used_ < ids_max; }
  std::size_t used() const { return used_; }

  // has_free() holds.
  std::uint16_t take() {
    if (free_ < used_ / 4 + spare) grow();
    const std::uint16_t id = free_first_;
    free_first_ = slots_[id].next;
    --free_;
    ++used_;
    return id;
  }
  void free(std::uint16_t id) {
    Slot& slot = slots_[id];
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

  // Any identifier from the wire: null when nothing is in flight under it.
  Slot* find(std::uint16_t id) {
    return id < slots_.size() && slots_[id].kind != Kind::unused ? &slots_[id] : nullptr;
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
    slots_ = std::vector<Slot>();  // `= {}` would keep the memory
    free_ = 0;
  }

 private:
  static constexpr std::size_t spare = 8;

  void grow() {
    const std::size_t old_size = std::max<std::size_t>(slots_.size(), 1);
    if (old_size > ids_max) return;
    const std::size_t size = std::min<std::size_t>(old_size == 1 ? 17 : (old_size - 1) * 2 + 1, ids_max + 1);
    slots_.reserve(size);
    slots_.resize(size, Slot{{nullptr}, 0, 0, 0, Kind::unused, false});
    used_ += size - old_size;  // as if the new ones were in use
    for (std::size_t id = old_size; id < size; ++id) free(static_cast<std::uint16_t>(id));
  }

  std::vector<Slot> slots_;  // [0] is not used
  std::size_t used_ = 0;
  std::size_t free_ = 0;
  std::uint16_t free_first_ = 0;
  std::uint16_t free_last_ = 0;
};

}  // namespace fulmar::mqtt
