#pragma once
// Store: something that keeps entries on disk in the order in which they came, as the suite `spool` measures it: ours, the
// barest loop over a file, and what others would use for it.
//
// An entry is 128 bytes and begins with its number: 0, 1, 2, ... What is drained is checked: nothing may be missing,
// doubled, changed or out of order.
//
// Not thread-safe: one thread has it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fulmar/result.hpp"
#include "sink.hpp"

namespace fulmar::bench {

inline constexpr std::size_t entry_bytes = 128;
using StoredEntry = std::array<std::byte, entry_bytes>;
StoredEntry numbered_entry(std::uint64_t number);
// An error when `entry` is not the one of that number.
Result<void> check_entry(std::span<const std::byte> entry, std::uint64_t number);

class Store {
 public:
  enum class Reach : std::uint8_t {
    gathered,  // may wait in memory for sync()
    written,   // in the kernel: survives the end of the process
    synced,    // on the medium: survives power loss
  };

  virtual ~Store() = default;
  // In an empty directory.
  virtual Result<void> open(const std::filesystem::path& directory) = 0;
  // The call that is measured: `count` more entries.
  virtual Result<void> append(std::size_t count, Reach reach) = 0;
  virtual Result<void> sync() = 0;  // all that was appended
  // Takes out the oldest `count` entries, or those that are left, and keeps in mind that they are gone. Returns how many.
  virtual Result<std::size_t> drain(std::size_t count, Reach reach) = 0;
};

// What came of starting on files that were left, in seconds since the start.
struct Replay {
  double first_s = 0;  // the first message arrived
  double all_s = 0;
};

struct StoreKind {
  std::string library;
  std::string version{};
  std::string files{};  // what becomes of its files, where it has the choice: "growing", "recycled"
  std::unique_ptr<Store> (*make)() = nullptr;  // nullptr: it is missing, for this reason:
  std::string missing{};
  bool syncs = true;   // can be told to reach the medium
  bool drains = true;  // can be read without anything else
  // Only an MQTT client's: starts on what append() left in `folder` and sends it to the sink, `count` messages.
  Result<Replay> (*replay)(const std::filesystem::path& folder, std::uint16_t port, const SinkPage& sink,
                           std::uint64_t count) = nullptr;
};

StoreKind own_store(bool recycled);
StoreKind bare_file_store(bool recycled);
StoreKind sqlite_store();
StoreKind rocksdb_store();
StoreKind paho_c_store();
// In the order of the tables.
std::vector<StoreKind> store_kinds();

}  // namespace fulmar::bench
