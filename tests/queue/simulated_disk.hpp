#pragma once
// SimulatedDisk: a disk under SQLite that tells what it may hold when the power goes. A VFS that passes everything on to the
// usual one and keeps, of each file, what was synced and what was written since.
//
// After a power cut a file has what was synced, and any part of what was written since: none, all, the beginning, or a
// choice, in pieces of 512 bytes. Names are there at once. A sync that is made to fail behaves as on Linux: what was written
// since the last one may never reach the disk, and the next sync succeeds as though nothing were wrong.
//
// While one lives it is SQLite's default VFS. There is one at a time; nothing of it may be open when it is destroyed.
//
// Thread-safety: any thread; `on_event` is called on the thread that writes or syncs, under no lock.

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace fulmar::test {

class SimulatedDisk {
 public:
  enum class Event : std::uint8_t { write, sync };

  explicit SimulatedDisk(std::uint32_t seed);
  ~SimulatedDisk();
  SimulatedDisk(const SimulatedDisk&) = delete;
  SimulatedDisk& operator=(const SimulatedDisk&) = delete;

  // Before a write or a sync is made. `path` is the file's.
  std::function<void(Event, const std::string& path)> on_event;
  // Who syncs: SQLite does it in full, as part of a checkpoint; the queue syncs the data of a WAL.
  enum class SyncBy : std::uint8_t { sqlite, queue };
  // Is this sync to fail?
  std::function<bool(const std::string& path, SyncBy by)> fails;

  // What the disk holds if the power goes now, as files in `to` with the same names.
  void power_cut(const std::filesystem::path& to);

 private:
  struct Change {
    std::int64_t at = 0;
    std::string data{};      // or
    bool truncates = false;  // to `at`
    bool lost = false;       // a sync of it failed
  };
  struct File {
    std::string synced{};
    std::vector<Change> since{};
  };
  struct Handle;  // what SQLite has of an open file
  struct Methods;
  static void apply(std::string& content, const Change& change);
  std::string remnant(const File& file);

  sqlite3_vfs* const below_;
  sqlite3_vfs vfs_{};
  std::mutex mutex_;
  std::minstd_rand random_;
  std::map<std::string, File> files_;
};

}  // namespace fulmar::test
