#include "client/backlog.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "client/stored_message.hpp"

namespace fulmar {

using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t forget_token = ~std::uint64_t{0};  // others are positions
constexpr auto forgetting_max = 1s;                        // a disk that takes longer holds up nothing
constexpr std::size_t inline_payload_max = std::size_t{64} << 10;  // larger ones travel by reference

LogLevel level_of(spool::Level level) {
  switch (level) {
    case spool::Level::info: return LogLevel::info;
    case spool::Level::warning: return LogLevel::warning;
    case spool::Level::error: break;
  }
  return LogLevel::error;
}

std::string entries(std::uint64_t count) {
  return std::to_string(count) + (count == 1 ? " message" : " messages");
}

spool::SpoolOptions timed(spool::SpoolOptions options, const Backlog::Surroundings& surroundings) {
  options.now = surroundings.now;
  options.wall_ms = [wall_now = surroundings.wall_now] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(wall_now().time_since_epoch()).count();
  };
  return options;
}

}  // namespace

spool::SpoolOptions Backlog::options_for(const ClientConfig& config) {
  spool::SpoolOptions options;
  options.log.directory = config.spool_dir;
  options.log.bytes_max = config.spool_bytes;
  if (config.spool_max_age) options.log.age_max = *config.spool_max_age;
  options.log.overflow =
      config.overflow == Overflow::drop_oldest ? spool::Overflow::drop_oldest : spool::Overflow::reject;
  return options;
}

std::uint64_t Backlog::entry_bytes_max(const ClientConfig& config) {
  constexpr std::uint64_t framing = 256;  // headers of a segment and of a record, with room to grow
  return options_for(config).log.effective_segment_bytes() - framing;
}

Backlog::Backlog(const ClientConfig& config, Host host, std::uint64_t expected)
    : write_ahead_(config.durability == Durability::write_ahead),
      host_(std::move(host)),
      expected_(expected),
      spool_(options_for(config), host_.wake) {
  if (auto started = spool_.start(); !started) on(spool::OpenFailed{started.error()});
}

Backlog::Backlog(const ClientConfig& config, Host host, std::uint64_t expected, Surroundings surroundings)
    : write_ahead_(config.durability == Durability::write_ahead),
      host_(std::move(host)),
      expected_(expected),
      now_(surroundings.now),
      wall_now_(surroundings.wall_now),
      spool_(timed(options_for(config), surroundings), host_.wake, surroundings.files) {
  if (auto started = spool_.start_stepped(); !started) on(spool::OpenFailed{started.error()});
}

Backlog::~Backlog() {
  for (const auto& put : unassigned_) release(put.block);
  for (auto* block : unstored_) release(block);
}

void Backlog::poll(mqtt::Session& session) {
  session_ = &session;
  room_ = true;
  spool_.poll([this](spool::Event& event) { std::visit([this](const auto& what) { on(what); }, event); });
  session_ = nullptr;
}

void Backlog::submit() { spool_.submit(); }

// --- to the disk -----------------------------------------------------------------------------------------------------

std::byte* Backlog::copy(mqtt::RecordView record) {
  const auto size = record.block_size();
  std::byte* block = pool_.acquire(size);
  std::memcpy(block, record.block(), size);
  if (auto* shared = record.shared_payload()) shared->acquire();
  return block;
}

void Backlog::release(std::byte* block) {
  if (!block) return;
  const mqtt::RecordView record(block);
  const auto size = record.block_size();
  if (auto* shared = record.shared_payload()) shared->release();
  pool_.release(block, size);
}

bool Backlog::append(mqtt::RecordView record, bool sync) {
  const StoredMessageParts message(record, now_(), wall_now_());
  const auto promise = sync ? spool::Spool::Promise::synced : spool::Spool::Promise::written;
  room_ = spool_.append(message.parts, 0, ++last_token_, promise);
  return room_;
}

bool Backlog::put(mqtt::RecordView record, bool sync) {
  if (!takes() || !append(record, sync)) return false;
  unassigned_.push_back({copy(record), record.header().sequence, record.header().token});
  return true;
}

bool Backlog::put_shadow(mqtt::RecordView record) {
  if (!opened_ || failing_) return false;
  if (shadow_of(record.header().sequence)) return true;
  if (!append(record, true)) return false;
  unassigned_.push_back({nullptr, record.header().sequence, 0});
  shadows_.emplace(record.header().sequence, Shadow{});
  return true;
}

// One at a time, so that none overtakes another when there is room for a part of them only.
void Backlog::retry() {
  std::byte* block = unstored_.front();
  const mqtt::RecordView record(block);
  if (!append(record, write_ahead_ || record.header().write_ahead)) return;
  unassigned_.push_back({block, record.header().sequence, record.header().token, true});
  unstored_.pop_front();
}

void Backlog::sync() {
  if (!unsynced_.empty() || !unassigned_.empty()) spool_.sync();
}

// --- what the spool says ---------------------------------------------------------------------------------------------

void Backlog::on(const spool::Opened& event) {
  opened_ = true;
  if (std::exchange(failed_, false)) {
    host_.log(LogLevel::info, "the spool can be used now");
    if (forgetting_) forgetting_until_ = now_() + forgetting_max;  // the notes of what is there go first
  }
  assigned_ = synced_ = recovered_through_ = event.next - 1;
  delivered_ = event.first - 1;
  const auto there = event.stats.entries + event.stats.lost;  // what is lost is told as dropped next
  if (there > expected_) host_.recovered(there - expected_);
  if (event.stats.entries > 0) {
    host_.log(LogLevel::info, entries(event.stats.entries) + " wait in the spool");
  }
}

void Backlog::on(const spool::OpenFailed& event) {
  failed_ = true;
  host_.log(
      LogLevel::error,
      "the spool cannot be used, messages that wait are kept in memory until it can: " + event.error.message);
}

void Backlog::on(const spool::Assigned& event) {
  const auto put = unassigned_.front();
  unassigned_.pop_front();
  assigned_ = event.sequence;
  unsynced_.push_back({event.sequence, put.sequence, put.token, put.block == nullptr});
  if (put.block) {
    if (mqtt::RecordView(put.block).header().write_ahead) ahead_through_ = event.sequence;
    release(put.block);
    ++spooled_;
    return;
  }
  auto& shadow = shadows_.at(put.sequence);
  shadow.position = event.sequence;
  shadow_positions_.insert(event.sequence);
  if (!shadow.settled) return;
  spool_.acknowledge(event.sequence);
  forget_settled_shadows();
}

void Backlog::on(const spool::Rejected& event) {
  const auto put = unassigned_.front();
  unassigned_.pop_front();
  takes_again_ = false;
  if (!put.block) {
    shadows_.erase(put.sequence);
  } else if (put.again) {
    unstored_.push_front(put.block);
  } else {
    unstored_.push_back(put.block);
  }
  if (!put.block) straight(put.sequence);
  if (event.reason == spool::Refusal::failing || std::exchange(full_told_, true)) return;
  host_.log(LogLevel::warning,
            "the spool takes no more, messages wait in memory: " + std::string(to_string(event.reason)));
}

void Backlog::on(const spool::Stored& event) {
  synced_ = event.synced;
  while (!unsynced_.empty() && unsynced_.front().position <= synced_) {
    const auto& one = unsynced_.front();
    if (one.token) host_.stored(one.sequence, one.token);
    unsynced_.pop_front();
  }
  takes_again_ = true;
}

void Backlog::on(const spool::ReleasesSaved& event) {
  if (event.token == forget_token) {
    forgetting_ = false;
    return;
  }
  // Tokens are positions; all up to this one, in the order of release(). It may be of a session that was lost.
  if (std::ranges::find(releases_, event.token) == releases_.end()) return;
  while (!releases_.empty()) {
    const auto position = releases_.front();
    releases_.pop_front();
    session_->release(position);
    if (position == event.token) break;
  }
}

void Backlog::on(const spool::Chunk& event) { chunks_.push_back(event); }

void Backlog::on(const spool::ReadToEnd& event) { end_ = std::max(end_, event.through); }

void Backlog::on(const spool::Dropped& event) {
  given_up_ = std::max(given_up_, event.low);
  // The messages of shadows are with the session: nothing of them is dropped but the copy.
  std::uint64_t copies = 0;
  for (auto at = shadows_.begin(); at != shadows_.end();) {
    const auto& [sequence, shadow] = *at;
    if (shadow.settled || shadow.position == 0 || shadow.position > given_up_) {
      ++at;
      continue;
    }
    straight(sequence);
    shadow_positions_.erase(shadow.position);
    at = shadows_.erase(at);
    ++copies;
  }
  host_.dropped(event.entries);
  if (copies > 0) host_.not_dropped(copies);
  if (chunks_.empty()) delivered_ = std::max(delivered_, event.low);
  takes_again_ = true;
}

void Backlog::on(const spool::Failing& event) {
  failing_ = true;
  host_.log(LogLevel::error, "the spool's disk fails, messages go on in memory: " + event.error.message);
}

void Backlog::on(const spool::Recovered&) {
  failing_ = false;
  takes_again_ = true;
  host_.log(LogLevel::info, "the spool's disk works again");
}

void Backlog::on(const spool::Notice& event) { host_.log(level_of(event.level), event.text); }

// --- to the session --------------------------------------------------------------------------------------------------

bool Backlog::drained() const {
  return !opening() && unassigned_.empty() && unstored_.empty() && chunks_.empty() && delivered_ >= assigned_;
}

void Backlog::want(bool entries) {
  const bool wanted = entries && opened_ && delivered_ < assigned_;
  if (wanted != std::exchange(wanting_, wanted)) spool_.want(wanted);
}

void Backlog::feed(mqtt::Session& session, mqtt::Instant now) {
  const auto wall_now = wall_now_();
  while (!chunks_.empty()) {
    const auto& chunk = chunks_.front();
    for (; chunk_at_ < chunk.entries.size(); ++chunk_at_) {
      const auto& entry = chunk.entries[chunk_at_];
      const bool ahead = write_ahead_ || entry.sequence <= ahead_through_;
      if (ahead && entry.sequence > synced_ && !failing()) return;
      if (!feed_entry(session, entry, now, wall_now)) return;
      delivered_ = std::max(delivered_, entry.sequence);
    }
    spool_.give_back(chunk.index);
    chunks_.pop_front();
    chunk_at_ = 0;
  }
  delivered_ = std::max(delivered_, end_);
  forget_settled_shadows();
  if (delivered_ < assigned_ || !unassigned_.empty()) return;
  while (!unstored_.empty() && session.publish_room() > 0) {
    std::byte* block = unstored_.front();
    const mqtt::RecordView record(block);
    if (!session.publish(record)) return;  // its reference to a shared payload passes to the session
    straight(record.header().sequence);
    pool_.release(block, record.block_size());
    unstored_.pop_front();
  }
}

bool Backlog::feed_entry(mqtt::Session& session, const spool::Entry& entry, mqtt::Instant now,
                         WallClock::time_point wall_now) {
  if (entry.sequence <= given_up_ || shadow_positions_.contains(entry.sequence)) return true;
  if (session.publish_room() == 0) return false;
  auto parts = read_stored_message(entry.bytes, now, wall_now);
  if (!parts) {
    host_.log(LogLevel::error, "entry " + std::to_string(entry.sequence) +
                                   " of the spool is no message of this version; it is left out");
    host_.dropped(1);
    spool_.acknowledge(entry.sequence);
    return true;
  }
  parts->sequence = from_disk | entry.sequence;
  if (parts->payload.size() > inline_payload_max) {
    parts->shared = new mqtt::SharedPayload;
    parts->shared->bytes = std::make_unique_for_overwrite<std::byte[]>(parts->payload.size());
    parts->shared->size = parts->payload.size();
    std::memcpy(parts->shared->bytes.get(), parts->payload.data(), parts->payload.size());
  }
  scratch_.resize(mqtt::RecordView::size_for(*parts) / sizeof(std::uint64_t));
  auto* block = reinterpret_cast<std::byte*>(scratch_.data());
  mqtt::write_record(block, *parts);
  // It may have been read before the session was lost.
  const bool known = !session_lost_ && entry.sequence <= recovered_through_;
  const auto how = !known           ? mqtt::Resumed::fresh
                   : entry.released ? mqtt::Resumed::released
                                    : mqtt::Resumed::maybe_sent;
  // One that is not synced is a plain message: should the power fail, its position would be given to another one, and the
  // server could hold this one under the identifier that follows from it.
  const bool has_position = entry.sequence <= synced_;
  const bool taken = parts->qos == QoS::exactly_once && has_position
                         ? session.publish_stored(mqtt::RecordView(block), entry.sequence, how)
                         : session.publish(mqtt::RecordView(block));
  if (!taken) {
    if (parts->shared) parts->shared->release();
    return false;
  }
  ++replayed_;
  return true;
}

// --- back from the session -------------------------------------------------------------------------------------------

bool Backlog::settled(std::uint64_t sequence) {
  takes_again_ = true;
  const auto position = sequence & ~from_disk;
  if (position <= given_up_) return false;
  spool_.acknowledge(position);
  return true;
}

void Backlog::straight(std::uint64_t sequence) {
  straight_ = std::min(straight_.value_or(sequence), sequence);
}

Backlog::Shadow* Backlog::shadow_of(std::uint64_t sequence) {
  const auto found = shadows_.find(sequence);
  return found != shadows_.end() ? &found->second : nullptr;
}

void Backlog::direct_settled(std::uint64_t sequence) {
  auto* shadow = shadow_of(sequence);
  if (!shadow) return;
  shadow->settled = true;
  if (shadow->position) spool_.acknowledge(shadow->position);
  forget_settled_shadows();
}

void Backlog::forget_settled_shadows() {
  while (!shadows_.empty()) {
    const auto& oldest = shadows_.begin()->second;
    // Read ahead it may be still.
    if (!oldest.settled || oldest.position == 0 || oldest.position > delivered_) return;
    shadow_positions_.erase(oldest.position);
    shadows_.erase(shadows_.begin());
  }
}

void Backlog::received(std::uint64_t position) {
  releases_.push_back(position);
  spool_.release(position, position);
}

void Backlog::session_lost(mqtt::Instant now) {
  releases_.clear();
  session_lost_ = forgetting_ = true;
  forgetting_until_ = now + forgetting_max;
  spool_.forget_releases(forget_token);
}

bool Backlog::is_stored(std::uint64_t sequence) const {
  if (is_from_disk(sequence)) return (sequence & ~from_disk) <= synced_;
  const auto found = shadows_.find(sequence);
  return found != shadows_.end() && found->second.position && found->second.position <= synced_;
}

std::optional<std::uint64_t> Backlog::oldest_unsynced() const {
  std::optional<std::uint64_t> oldest;
  const auto consider = [&](std::uint64_t sequence) {
    oldest = std::min(oldest.value_or(sequence), sequence);
  };
  if (!unsynced_.empty()) consider(unsynced_.front().sequence);
  if (!unassigned_.empty()) consider(unassigned_.front().sequence);
  if (!unstored_.empty()) consider(mqtt::RecordView(unstored_.front()).header().sequence);
  return oldest;
}

bool Backlog::stop(std::chrono::milliseconds deadline, const std::function<void(Unsettled)>& unsettled) {
  for (const auto& chunk : chunks_) spool_.give_back(chunk.index);
  chunks_.clear();
  const bool ended = spool_.stop(deadline);
  spool_.poll([this](spool::Event& event) {
    if (!std::holds_alternative<spool::ReleasesSaved>(event)) {
      std::visit([this](const auto& what) { on(what); }, event);
    }
  });
  for (const auto& one : unsynced_) {
    if (one.token) unsettled({one.sequence, one.token, true});
  }
  unsynced_.clear();
  const auto give_up = [&](std::byte* block) {
    const auto& header = mqtt::RecordView(block).header();
    unsettled({header.sequence, header.token, false});
    release(block);
  };
  for (const auto& put : unassigned_) {
    if (put.block) give_up(put.block);
  }
  unassigned_.clear();
  for (auto* block : unstored_) give_up(block);
  unstored_.clear();
  return ended;
}

}  // namespace fulmar
