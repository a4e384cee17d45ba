#pragma once
// Backlog: the messages of one client that wait on disk, in a spool, instead of in the outbox; their way there, and back into
// the session in their order.
//
//   outbox ── put() ──▶ spool (its own thread) ── feed() ──▶ session ── settled() ──▶ gone from the disk
//
// Order [house invariant 4]: what the session has in flight, what is on disk, what the disk did not take, the outbox. So that
// it holds after a restart too, messages in flight that came straight from the outbox are copied to the disk before
// others are put there ("shadows"); they stay with the session, and feed() leaves them out.
//
// Invariants
//   1. A message put here is on disk, or in `unassigned_` or `unstored_`, until the session has it; the spool keeps it until
//      it is settled.
//   2. `stored` is told only of what was synced.
//   3. Bounded by the bounds of the spool: put() says no when those are reached [house invariant 5].
//   4. A disk that fails or is full holds up nothing: what it does not take goes to the session from memory.
//
// Not thread-safe: used on the loop's thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <boost/container/deque.hpp>

#include "fulmar/client.hpp"
#include "fulmar/client_config.hpp"
#include "fulmar/mqtt/record.hpp"
#include "fulmar/mqtt/session.hpp"
#include "mqtt/block_pool.hpp"
#include "spool/spool.hpp"

namespace fulmar {

class Backlog {
 public:
  using WallClock = std::chrono::system_clock;

  // Sequences of messages from the disk: this bit and the position in the spool.
  static constexpr std::uint64_t from_disk = std::uint64_t{1} << 63;
  static bool is_from_disk(std::uint64_t sequence) { return (sequence & from_disk) != 0; }

  struct Host {
    std::function<void()> wake;  // any thread: there is something to poll()
    std::function<void(LogLevel, std::string)> log;
    std::function<void(std::uint64_t sequence, std::uint64_t token)> stored;  // of a message with a token
    std::function<void(std::uint64_t count)> dropped;      // by the spool, from among those it had
    std::function<void(std::uint64_t count)> not_dropped;  // so many of them had an outcome after all
    std::function<void(std::uint64_t count)> recovered;    // were there already
  };

  // What is around it, for a simulation: other files, time that does not pass by itself, and a spool without a thread,
  // whose work is done by step().
  struct Surroundings {
    spool::FileSystem& files;
    std::function<mqtt::Instant()> now;
    std::function<WallClock::time_point()> wall_now;
  };

  // The options of the spool that a configuration asks for, and the largest entry that fits.
  static spool::SpoolOptions options_for(const ClientConfig& config);
  static std::uint64_t entry_bytes_max(const ClientConfig& config);

  Backlog(const ClientConfig& config, Host host,
          std::uint64_t expected);  // `expected`: entries that are known to be there
  Backlog(const ClientConfig& config, Host host, std::uint64_t expected, Surroundings surroundings);
  ~Backlog();
  Backlog(const Backlog&) = delete;
  Backlog& operator=(const Backlog&) = delete;

  // Each turn: poll() first, submit() last.
  void poll(mqtt::Session& session);
  void submit();
  bool step() { return spool_.step(); }  // with Surroundings only

  // --- to the disk
  // Copies the record, which stays the caller's; false when there is no room now (wake() follows), or the disk fails.
  bool put(mqtt::RecordView record, bool sync);
  // The same of one that the session holds, unless there is one already; in the order of their sequences.
  bool put_shadow(mqtt::RecordView record);
  // The oldest of those that the disk did not take once more, when that has a chance: what is in flight goes before it.
  bool may_retry() const {
    return opened_ && !failing_ && takes_again_ && unassigned_.empty() && !unstored_.empty();
  }
  void retry();
  // Whether put() has a chance.
  bool takes() const { return opened_ && !failing_ && unstored_.empty(); }
  // Whether it has since the last poll(): not while the disk is behind, and the spool wakes the owner when it has caught up.
  bool has_room() const { return takes() && room_; }
  // Not known yet what the spool holds: nothing may pass it by.
  bool opening() const { return !opened_ && !failed_; }
  bool failing() const { return failed_ || failing_; }
  void sync();  // soon, not at the interval

  // --- to the session
  // Everything put here is with the session.
  bool drained() const;
  // Publishes what the session has room for. `up`: there is a link to send it on.
  void feed(mqtt::Session& session, mqtt::Instant now);
  void want(bool entries);
  // The smallest sequence, since it was asked last, of a message that the session has and the disk did not take.
  std::optional<std::uint64_t> take_straight() { return std::exchange(straight_, {}); }

  // --- back from the session
  // Of a message from the disk, by its sequence. False: it was counted as dropped while the session had it.
  bool settled(std::uint64_t sequence);
  // Of one that came straight from the outbox; the shadow of it, if there is one, goes too.
  void direct_settled(std::uint64_t sequence);
  void received(std::uint64_t position);  // its PUBREC came
  // What the server had received it has forgotten. The session transmits nothing until the notes of that are gone from the
  // disk: a process that found them would release what this one has published anew, and the server may not have it.
  void session_lost(mqtt::Instant now);
  bool forgetting() const { return forgetting_; }
  bool holds_back(mqtt::Instant now) const { return forgetting_ && !failing() && now < forgetting_until_; }
  // Whether it is on the medium: synced.
  bool is_stored(std::uint64_t sequence) const;

  // The sequence of the oldest message put here, and not with the session before, that is not synced.
  std::optional<std::uint64_t> oldest_unsynced() const;

  struct Unsettled {
    std::uint64_t sequence = 0;
    std::uint64_t token = 0;
    bool maybe_stored = false;  // given to the disk, which did not say in time that it has it
  };
  // Ends the spool, on any thread that may wait; false when the disk did not answer in time. Messages that it did not take
  // are handed to `unsettled`, and so are those with a token that are not synced.
  bool stop(std::chrono::milliseconds deadline, const std::function<void(Unsettled)>& unsettled);
  spool::Stats stats() const { return spool_.stats(); }
  std::uint64_t spooled() const { return spooled_; }
  std::uint64_t replayed() const { return replayed_; }

 private:
  struct Put {
    std::byte* block = nullptr;  // a copy of the record; null for a shadow
    std::uint64_t sequence = 0;
    std::uint64_t token = 0;
    bool again = false;  // it was in unstored_, at the front
  };
  struct Unsynced {
    spool::Sequence position = 0;
    std::uint64_t sequence = 0;
    std::uint64_t token = 0;
    bool shadow = false;
  };
  struct Shadow {
    spool::Sequence position = 0;  // 0: not assigned yet
    bool settled = false;
  };

  bool append(mqtt::RecordView record, bool sync);
  std::byte* copy(mqtt::RecordView record);
  void release(std::byte* block);
  void straight(std::uint64_t sequence);
  bool feed_entry(mqtt::Session& session, const spool::Entry& entry, mqtt::Instant now,
                  WallClock::time_point wall_now);
  Shadow* shadow_of(std::uint64_t sequence);
  void forget_settled_shadows();

  void on(const spool::Opened& event);
  void on(const spool::OpenFailed& event);
  void on(const spool::Assigned& event);
  void on(const spool::Rejected& event);
  void on(const spool::Stored& event);
  void on(const spool::ReleasesSaved& event);
  void on(const spool::Chunk& event);
  void on(const spool::ReadToEnd& event);
  void on(const spool::Dropped& event);
  void on(const spool::NotDropped& event) { host_.not_dropped(event.entries); }
  void on(const spool::Failing& event);
  void on(const spool::Recovered& event);
  void on(const spool::Notice& event);

  const bool write_ahead_;
  const Host host_;
  const std::uint64_t expected_;
  std::function<mqtt::Instant()> now_ = mqtt::Instant::clock::now;
  std::function<WallClock::time_point()> wall_now_ = WallClock::now;
  spool::Spool spool_;
  mqtt::BlockPool pool_;
  mqtt::Session* session_ = nullptr;  // during poll()

  bool opened_ = false;
  bool failed_ = false;   // could not be opened so far
  bool failing_ = false;  // the disk does not take what it is given
  bool room_ = true;      // append() has not said no since the last poll()
  bool full_told_ = false;
  bool wanting_ = false;
  bool takes_again_ = false;  // something has changed since it took no more
  std::optional<std::uint64_t> straight_;
  std::uint64_t last_token_ = 0;

  boost::container::deque<Put> unassigned_;       // with the spool, which has not said yet that it takes them
  boost::container::deque<std::byte*> unstored_;  // the disk did not take them; before the outbox
  boost::container::deque<Unsynced> unsynced_;
  std::map<std::uint64_t, Shadow> shadows_;          // by the sequence of the message
  std::set<spool::Sequence> shadow_positions_;       // of those that are assigned
  boost::container::deque<std::uint64_t> releases_;  // positions, on their way to the medium
  boost::container::deque<spool::Chunk> chunks_;
  std::size_t chunk_at_ = 0;  // in the first of them

  bool session_lost_ = false;  // since this object was made: notes of former processes are void
  bool forgetting_ = false;    // notes, on the disk
  mqtt::Instant forgetting_until_{};

  spool::Sequence assigned_ = 0;   // the last one
  spool::Sequence delivered_ = 0;  // all up to it are with the session, or gone
  spool::Sequence end_ = 0;        // there was nothing more to read up to it
  spool::Sequence synced_ = 0;
  spool::Sequence given_up_ = 0;           // what was not settled up to it the spool has dropped
  spool::Sequence ahead_through_ = 0;      // the last of those that must be synced before they are sent
  spool::Sequence recovered_through_ = 0;  // a former run may have sent these
  std::uint64_t spooled_ = 0, replayed_ = 0;
  std::vector<std::uint64_t> scratch_;
};

}  // namespace fulmar
