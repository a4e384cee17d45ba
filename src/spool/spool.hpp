#pragma once
// Spool: a Log with a thread of its own, so that its owner (the I/O thread) never waits for the disk. What goes in is
// copied into a bounded buffer; what comes back are events that the owner polls.
//
// Thread-safety: one owner thread for everything but stats(), which any thread may call. `wake` is called on the spool's
// thread. Nothing here blocks but stop() and the destructor; the one lock is held by either side only to move a few words.
//
// The owner's turn:   poll(handler) → append / acknowledge / release / give_back ... → submit()
//
// Invariants
//   1. Every append() that returned true gets exactly one of `Assigned` and `Rejected`, in the order of appending, and
//      every sequence assigned is covered by a later `Stored` (in due course, or when the disk works again, or at stop).
//   2. `Stored{synced}` is told only of entries that are on the medium (Log, "what survives").
//   3. Sequences are assigned ascending, and chunks are read ascending between two rewind()s. An entry appended before
//      want(true) was submitted is in the chunks that follow, unless it was acknowledged or skip_through() passed it.
//   4. Memory: staging_bytes, and one entry larger than a quarter of it; chunks_max chunks; unsynced_bytes_max; 64 Ki
//      appends whose fate was not polled yet. With any disk, also one that does not answer.
//   5. Group commit: while one sync runs, everything that comes gathers for the next. With nothing that wants a sync,
//      one is made every `sync_interval` or `sync_bytes`, whichever comes first.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "fulmar/result.hpp"
#include "spool/log.hpp"

namespace fulmar::spool {

struct SpoolOptions {
  Options log{};
  std::chrono::milliseconds sync_interval{100};
  std::size_t sync_bytes = 64 << 10;
  std::chrono::milliseconds cursor_interval{
      1'000};  // acknowledgements are written down (not synced) after this time, or 64 of them
  std::chrono::milliseconds retry_interval{1'000};  // after a failure of the disk
  std::size_t staging_bytes = 1 << 20;
  std::size_t chunk_bytes = 256 << 10;
  std::size_t chunks_max = 2;
  std::function<std::int64_t()> wall_ms{};  // milliseconds since 1970; default: the system's clock
  std::function<std::chrono::steady_clock::time_point()> now{};  // of the intervals; default: the system's
};

// --- events -----------------------------------------------------------------------------------------------------------

struct Opened {
  Stats stats{};
  Sequence first{};  // the oldest entry that is not acknowledged, or `next` when there is none
  Sequence next{};   // that the next entry gets
};
// It is tried again every `retry_interval`, and this is told again when the reason has changed, until Opened. Appends are
// rejected meanwhile.
struct OpenFailed {
  Error error{};
};
struct Assigned {
  std::uint64_t token{};
  Sequence sequence{};
};
// Once one is rejected, unless for its size, all that was appended before the owner polls that is rejected too: a smaller
// one behind it does not overtake it.
struct Rejected {
  std::uint64_t token{};
  Refusal reason{};
  std::uint32_t round{};  // the spool's own
};
struct Stored {        // all entries up to these
  Sequence written{};  // survive the end of this process
  Sequence synced{};   // survive power loss
};
struct ReleasesSaved {  // all release()s up to the one with this token are on the medium
  std::uint64_t token{};
};
// Entries read; valid until give_back(index).
struct Chunk {
  std::size_t index{};
  std::span<const Entry> entries{};
  std::uint64_t
      reading{};  // how many rewind()s were before; poll() itself gives back those of an earlier reading
};
// Everything up to `through` was in the chunks so far, or is acknowledged or gone. Told again after more was appended.
struct ReadToEnd {
  Sequence through{};
  std::uint64_t reading{};
};
struct Dropped {
  enum class Why : std::uint8_t { overflow, age, lost };
  Why why{};
  std::uint64_t entries{};
  Sequence low{};  // everything up to here is gone or acknowledged
};
// So many of those that were told as dropped were acknowledged before the owner could know of it.
struct NotDropped {
  std::uint64_t entries{};
};
struct
    Failing {  // the disk takes nothing; appends are rejected. What is assigned and not stored is kept and tried again
  Error error{};
};
struct Recovered {};
struct Notice {  // for the log
  Level level{};
  std::string text{};
};
using Event = std::variant<Opened, OpenFailed, Assigned, Rejected, Stored, ReleasesSaved, Chunk, ReadToEnd,
                           Dropped, NotDropped, Failing, Recovered, Notice>;

class Spool {
 public:
  enum class Promise : std::uint8_t {
    written,  // synced as the interval says
    synced,   // synced as soon as the disk can
  };

  // `wake`: there is something to poll, or room again after an append() that returned false. `files` must outlive the
  // spool's thread: see stop().
  Spool(SpoolOptions options, std::function<void()> wake, FileSystem& files = posix_file_system());
  ~Spool();  // stop() with 5 s
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Starts the thread, which opens the log. Call once. A failure to open it comes as OpenFailed.
  Result<void> start();
  // Instead of start(), where everything has to happen in one order, as in a simulation: there is no thread. step() does
  // its work, on the owner's; `wake` is called within it. True when there was something to do.
  Result<void> start_stepped();
  bool step();
  // Submits, stores and syncs everything that was appended, saves the cursor, gives the directory free and ends the
  // thread. False when that was not over in time; the thread then ends by itself when the disk answers, and calls no
  // `wake` any more. Events may be polled afterwards; chunks are void.
  bool stop(std::chrono::milliseconds deadline);

  // --- owner thread
  // Copies the entry. False: no room now; try again after `wake`. `expires_ms`: wall clock, 0 for never.
  bool append(std::span<const Bytes> parts, std::int64_t expires_ms, std::uint64_t token, Promise promise);
  // Of sequences that were assigned or read, once each. Within 8192 of the oldest that is not acknowledged; one beyond is not
  // remembered, counted (acknowledgements_refused), and its entry is read again after a restart.
  void acknowledge(Sequence sequence);
  // The entry is halfway done (Entry::released when it is read again). ReleasesSaved tells when that is on the medium.
  void release(Sequence sequence, std::uint64_t token);
  void forget_releases(std::uint64_t token);  // of all; ReleasesSaved tells when that is on the medium
  void want(bool entries);                    // read ahead, or stop doing so
  void skip_through(Sequence sequence);       // do not read what is at or below it
  void rewind();                              // read from the oldest entry that is not acknowledged
  void give_back(std::size_t chunk);
  void sync();  // as if an entry had asked for it
  // What was said since the last submit() goes to the thread. Cheap; call it once per turn.
  void submit();

  // Calls handler(Event&) for all events there are. Returns how many.
  template <typename Handler>
  std::size_t poll(Handler&& handler) {
    std::vector<Event>& events = take_events();
    for (auto& event : events) handler(event);
    const std::size_t count = events.size();
    events.clear();
    return count;
  }

  // --- any thread: as of the thread's last turn
  Stats stats() const;
  std::uint64_t acknowledgements_refused() const;

 private:
  struct State;
  std::vector<Event>& take_events();

  std::shared_ptr<State> state_;
};

}  // namespace fulmar::spool
