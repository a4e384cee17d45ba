#include "client/outflow.hpp"

#include <algorithm>
#include <utility>

namespace fulmar {

void Outflow::open(std::unique_ptr<Backlog> backlog) {
  backlog_ = std::move(backlog);
  diverting_ = true;
  diverted_below_ = outbox_.popped();
  offline_since_.reset();
}

void Outflow::look(const Situation& situation, Instant now) {
  backlog_->poll(session_);
  note_straight();
  if (situation.up) {
    offline_since_.reset();
  } else if (!offline_since_) {
    offline_since_ = now;
  }
  backlog_->want(situation.sending());
  if (!must_divert(situation, now)) {
    diverting_ = false;
    return;
  }
  diverting_ = true;
  if (backlog_->may_retry() && divert_in_flight()) backlog_->retry();
  if (!backlog_->takes() || !divert_in_flight()) return;
  while (outbox_.popped() < situation.until) {
    const auto block = outbox_.front();
    if (block.empty()) break;
    const mqtt::RecordView record(block.data());
    if (!backlog_->put(record, record.header().write_ahead)) break;
    if (auto* shared = record.shared_payload()) shared->release();
    outbox_.pop();
  }
  diverted_below_ = outbox_.popped();
  if (situation.store_asked || situation.flush_asked) backlog_->sync();
}

bool Outflow::must_divert(const Situation& situation, Instant now) const {
  if (backlog_->opening() || !backlog_->drained()) return true;
  if (backlog_->failing()) return false;
  const auto next = outbox_.front();
  if (next.empty() ? config_.durability == Durability::write_ahead
                   : mqtt::RecordView(next.data()).header().write_ahead) {
    return true;
  }
  if (situation.store_asked) return true;
  if (situation.flush_asked && !situation.up) return true;
  const bool filling =
      outbox_.bytes() > outbox_.capacity_bytes() / 2 || outbox_.depth() > config_.outbox_messages / 2;
  if (situation.sending()) return filling && session_.publish_room() == 0;
  return filling || (offline_since_ && now >= *offline_since_ + spill_after);
}

// What is in flight goes before what is diverted, also after a restart. False: there is more, and no room now.
bool Outflow::divert_in_flight() {
  bool all = true;
  session_.for_each_pending([&](mqtt::RecordView record, std::optional<std::uint64_t>) {
    const auto& header = record.header();
    if (!all || is_own(header.token) || Backlog::is_from_disk(header.sequence) ||
        header.sequence < diverted_below_) {
      return;
    }
    all = backlog_->put_shadow(record);
    if (all) diverted_below_ = header.sequence + 1;
  });
  return all;
}

void Outflow::note_straight() {
  if (const auto sequence = backlog_->take_straight()) diverted_below_ = std::min(diverted_below_, *sequence);
}

Outflow::Rest Outflow::settle(std::uint64_t sequence, bool dropped) {
  if (Backlog::is_from_disk(sequence)) {
    if (dropped || !backlog_->settled(sequence)) return Rest::on_disk;
  } else if (backlog_) {
    if (dropped && backlog_->is_stored(sequence)) return Rest::stored;
    if (!dropped) backlog_->direct_settled(sequence);
  }
  return Rest::settled;
}

std::uint64_t Outflow::settled_below() const {
  const auto oldest = session_.oldest();
  if (!backlog_) return oldest.value_or(outbox_.popped());
  std::uint64_t below = outbox_.popped();
  if (const auto unsynced = backlog_->oldest_unsynced()) below = std::min(below, *unsynced);
  // Those that are on disk too do not count; those behind messages from the disk are not told apart.
  if (oldest && diverted_below_ < outbox_.popped()) {
    below = std::min(below, Backlog::is_from_disk(*oldest) ? diverted_below_ : *oldest);
  }
  return below;
}

}  // namespace fulmar
