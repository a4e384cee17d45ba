#pragma once
// ReceivedIds: the packet identifiers of inbound QoS 1 and 2 messages and how far each has come.
//
// A QoS 1 message goes delivered -> (handled) -> gone; a QoS 2 message delivered -> (handled) -> recorded -> gone. `handled`
// is acknowledged by the caller while its PUBACK or PUBREC waits for those of earlier messages [MQTT-4.6.0-2,
// MQTT-4.6.0-3]. QoS 2 identifiers outlive the connection [MQTT-4.1.0-1].
//
// Not thread-safe. O(1); memory grows with the number of live identifiers and starts empty.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

class ReceivedIds {
 public:
  enum class Stage : std::uint8_t { delivered, handled, recorded };

  struct Entry {
    std::uint16_t id = 0;  // 0 = empty
    ReasonCode reason = ReasonCode::success;
    Stage stage : 2 = Stage::delivered;
    bool exactly_once : 1 = false;
    bool counted : 1 = false;   // received on this connection and so counted against our receive maximum
    bool in_order : 1 = false;  // its acknowledgement has a place in the order of this connection
  };
  static_assert(sizeof(Entry) == 4);

  std::size_t size() const { return size_; }

  // The entry is valid until the next insert() or erase().
  Entry* find(std::uint16_t id) {
    if (size_ == 0) return nullptr;
    for (std::size_t i = home_of(id);; i = (i + 1) & mask()) {
      if (entries_[i].id == id) return &entries_[i];
      if (entries_[i].id == 0) return nullptr;
    }
  }

  // `id` is not there yet and not 0.
  Entry& insert(std::uint16_t id) {
    if ((size_ + 1) * 2 > entries_.size()) grow();
    ++size_;
    return place(id);
  }

  void erase(Entry* entry) {
    // Backward shift: what probed past the hole moves into it, so that no tombstones are needed.
    std::size_t hole = static_cast<std::size_t>(entry - entries_.data());
    for (std::size_t i = (hole + 1) & mask(); entries_[i].id != 0; i = (i + 1) & mask()) {
      const std::size_t home = home_of(entries_[i].id);
      if (((i - home) & mask()) >= ((i - hole) & mask())) {
        entries_[hole] = entries_[i];
        hole = i;
      }
    }
    entries_[hole] = Entry();
    --size_;
  }

  // A new connection begins: QoS 1 messages come again, QoS 2 identifiers stay.
  void connection_lost() {
    std::vector<Entry> old;
    old.swap(entries_);
    size_ = 0;
    for (auto entry : old) {
      if (entry.id == 0 || !entry.exactly_once) continue;
      entry.counted = entry.in_order = false;
      insert(entry.id) = entry;
    }
  }

  void clear() {
    entries_ = std::vector<Entry>();  // `= {}` would keep the memory
    size_ = 0;
  }

 private:
  std::size_t mask() const { return entries_.size() - 1; }
  // Scattered: identifiers come in sequence, and a run of neighbours would be walked through at each erase().
  std::size_t home_of(std::uint16_t id) const { return id * std::size_t{40'503} & mask(); }

  Entry& place(std::uint16_t id) {
    std::size_t i = home_of(id);
    while (entries_[i].id != 0) i = (i + 1) & mask();
    entries_[i].id = id;
    return entries_[i];
  }
  void grow() {
    std::vector<Entry> old(entries_.empty() ? 16 : entries_.size() * 2);
    old.swap(entries_);
    for (const auto& entry : old) {
      if (entry.id != 0) place(entry.id) = entry;
    }
  }

  std::vector<Entry> entries_;  // open addressing; a power of two, at most half full
  std::size_t size_ = 0;
};

}  // namespace fulmar::mqtt
