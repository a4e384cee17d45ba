#pragma once
// Outflow: the way of messages from the outbox to the session: straight, or over the disk while they must not or cannot go
// straight. It decides which, and keeps the order on both ways and in between [house invariant 4]:
//
//   outbox ──────────────── feed() ────────────────▶ session
//      └── look() ──▶ Backlog (the disk) ── feed() ──▶
//
// Invariants
//   1. A message leaves the outbox only for the session or for the backlog; there is no third place.
//   2. While anything is in the backlog, or it is not known yet whether, nothing passes it by.
//   3. What is in flight and came straight is on disk too before anything younger is put there.
//
// Not thread-safe: used on the loop's thread.

#include <cstdint>
#include <memory>
#include <optional>

#include "client/backlog.hpp"
#include "fulmar/client_config.hpp"
#include "fulmar/mqtt/session.hpp"
#include "outbox/ring.hpp"

namespace fulmar {

class Outflow {
 public:
  using Instant = mqtt::Instant;

  // So long without a link, and messages go to disk; and then they are looked for as often.
  static constexpr auto spill_after = std::chrono::milliseconds(50);
  // Tokens of the client's own messages, which never go to disk; those of users are addresses.
  static constexpr std::uint64_t health_token = 1;
  static constexpr std::uint64_t heartbeat_token = 2;
  static constexpr bool is_own(std::uint64_t token) {
    return token == health_token || token == heartbeat_token;
  }

  // As the link and those who wait are in this turn.
  struct Situation {
    bool up = false;           // there is a link, and a session on it
    bool leaving = false;      // DISCONNECT is the last packet on it
    bool store_asked = false;  // everything is to be on disk
    bool flush_asked = false;  // everything is to be acknowledged, or on disk when there is no link
    std::uint64_t until = 0;   // messages of the outbox with smaller sequences are this turn's
    bool sending() const { return up && !leaving; }
  };

  Outflow(const ClientConfig& config, outbox::Ring& outbox, mqtt::Session& session)
      : config_(config), outbox_(outbox), session_(session) {}

  // With a spool: between these, messages go over the disk when they have to. Null without one.
  void open(std::unique_ptr<Backlog> backlog);
  void close() { backlog_.reset(); }
  Backlog* backlog() const { return backlog_.get(); }

  // Each turn, with a backlog: what it has to tell, and what must not or cannot go straight from the outbox to the disk.
  void look(const Situation& situation, Instant now);
  // What may go to the session now, as far as it has room. on_straight(header) for each that came straight.
  template <typename OnStraight>
  void feed(const Situation& situation, Instant now, OnStraight&& on_straight) {
    if (!situation.sending()) return;
    if (backlog_) {
      backlog_->feed(session_, now);
      note_straight();
    }
    if (diverting_) return;
    for (std::size_t room = session_.publish_room(); room > 0 && outbox_.popped() < situation.until; --room) {
      const auto block = outbox_.front();
      if (block.empty()) break;
      const mqtt::RecordView record(block.data());
      // The next turn takes it to the disk, and what is behind it.
      if (record.header().write_ahead && backlog_ && !backlog_->failing()) break;
      if (!session_.publish(record)) break;
      on_straight(record.header());
      outbox_.pop();
    }
  }
  // Whether the session may transmit: see Backlog::holds_back().
  bool may_transmit(Instant now) const { return !backlog_ || !backlog_->holds_back(now); }
  // Messages do not go straight now.
  bool diverting() const { return diverting_; }
  // A message that comes now could go to the disk.
  bool could_store(bool up) const {
    return backlog_ && diverting_ && backlog_->has_room() &&
           (up || config_.durability == Durability::write_ahead);
  }

  enum class Rest : std::uint8_t {
    settled,  // nothing of it is left
    on_disk,  // it stays there, or was dropped from there: that was told or will be, and counted
    stored,   // it stays there, which is to be told
  };
  // The session has ended with a message; `dropped`: it gave it up unsent or unanswered.
  Rest settle(std::uint64_t sequence, bool dropped);

  // Every message with a smaller sequence has an outcome, or is in the spool and synced.
  std::uint64_t settled_below() const;

 private:
  bool must_divert(const Situation& situation, Instant now) const;
  bool divert_in_flight();
  void note_straight();

  const ClientConfig& config_;
  outbox::Ring& outbox_;
  mqtt::Session& session_;
  std::unique_ptr<Backlog> backlog_;
  bool diverting_ = false;            // messages go to the disk, not straight to the session
  std::uint64_t diverted_below_ = 0;  // of those that the session has, smaller sequences are on disk too
  std::optional<Instant> offline_since_{};
};

}  // namespace fulmar
