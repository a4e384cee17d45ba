#pragma once
// InboundAcknowledgements: which received QoS 1 and 2 messages the server may be told of. A message is known by its number
// in the order of delivery. The lane counts the messages whose handlers have returned; what it leaves open behind that
// count (manual acknowledgement, executors, messages that wait for a handler) it tells by notes, which come through a
// mailbox from any thread.
//
// Invariants
//   1. A message is acknowledged once: when the lane's count has passed it and every part that was left open is done.
//   2. The lane posts a message's `open` note before its count passes the message.
//   3. A number of a former connection acknowledges nothing, unless it is of QoS 2 and the server has kept the session: such
//      a message does not come again.
//
// Thread-safety: AcknowledgementMailbox from any thread; InboundAcknowledgements is the I/O thread's.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "client/dispatch_pool.hpp"
#include "fulmar/message.hpp"
#include "fulmar/mqtt/types.hpp"
#include "mqtt/growing_ring.hpp"
#include "outbox/handoff.hpp"

namespace fulmar {

class AcknowledgementMailbox;

// A note, and what an Acknowledgement holds.
struct Acknowledgement::State {
  State* next = nullptr;
  std::shared_ptr<AcknowledgementMailbox> mailbox;  // while it is not in there
  std::uint64_t number = 0;
  int parts = -1;  // > 0: so many are left open; -1: one is done
  std::uint8_t reason = 0;
};

class AcknowledgementMailbox {
 public:
  using Note = Acknowledgement::State;

  // `arrived` is called while the lane runs, after a note that is done.
  AcknowledgementMailbox(std::shared_ptr<DispatchLane::Life> life, std::function<void()> arrived)
      : life_(std::move(life)), arrived_(std::move(arrived)) {}

  void post(std::unique_ptr<Note> note) {
    const bool done = note->parts < 0;
    note->mailbox.reset();
    notes_.push(std::move(note));
    if (!done) return;
    if (const auto call = life_->enter()) arrived_();  // the call keeps alive what it tells
  }
  bool empty() const { return notes_.empty(); }

 private:
  friend class InboundAcknowledgements;
  outbox::Handoff<Note> notes_;
  const std::shared_ptr<DispatchLane::Life> life_;
  const std::function<void()> arrived_;
};

class InboundAcknowledgements {
 public:
  explicit InboundAcknowledgements(std::shared_ptr<AcknowledgementMailbox> mailbox)
      : mailbox_(std::move(mailbox)) {}

  // A message with a packet identifier was handed to the lane; numbers grow.
  void delivered(std::uint64_t number, std::uint16_t packet_id, QoS qos) {
    entries_.push_back(
        {.number = number, .packet_id = packet_id, .qos = qos, .settled = false, .reason = 0, .open = 0});
  }
  // Is there something for take()?
  bool ready(std::uint64_t handled) {
    return !mailbox_->empty() || (next_ < entries_.size() && entries_[next_].number <= handled);
  }
  // Calls acknowledge(packet_id, reason) for all that may be acknowledged. `handled` is the lane's count, read before this.
  template <typename Acknowledge>
  void take(std::uint64_t handled, Acknowledge&& acknowledge) {
    mailbox_->notes_.take_all([&](std::unique_ptr<AcknowledgementMailbox::Note> note) {
      Entry* entry = find(note->number);
      if (entry == nullptr) return;
      entry->open += note->parts;
      if (note->reason >= 0x80 && entry->reason < 0x80) entry->reason = note->reason;
      if (entry->number <= passed_) settle(*entry, acknowledge);
    });
    for (; next_ < entries_.size() && entries_[next_].number <= handled; ++next_) {
      passed_ = entries_[next_].number;
      settle(entries_[next_], acknowledge);
    }
    while (next_ > 0 && entries_.front().settled) {
      entries_.pop_front();
      --next_;
    }
  }
  // On CONNACK (invariant 3).
  void connected(bool session_present);
  void clear();
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::uint64_t number;
    std::uint16_t packet_id;
    QoS qos;
    bool settled;
    std::uint8_t reason;  // the first that refuses
    int open;             // parts left open, less those done
  };

  Entry* find(std::uint64_t number);
  template <typename Acknowledge>
  void settle(Entry& entry, Acknowledge& acknowledge) {
    if (entry.open > 0 || entry.settled) return;
    entry.settled = true;
    acknowledge(entry.packet_id, static_cast<mqtt::ReasonCode>(entry.reason));
  }

  const std::shared_ptr<AcknowledgementMailbox> mailbox_;
  mqtt::GrowingRing<Entry> entries_;  // by number
  std::size_t next_ = 0;              // the first that the lane's count had not passed
  std::uint64_t passed_ = 0;          // the number before it
};

}  // namespace fulmar
