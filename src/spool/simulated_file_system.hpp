#pragma once
// SimulatedFileSystem: files in memory as a disk and a kernel treat them, for tests. What was not synced may be lost: a
// crash keeps or drops each 512-byte sector by itself, tears one, and keeps or drops each change of a name. The disk can
// be full, any operation can be made to fail, writes can be short. The same seed gives the same run.
//
// Not thread-safe. Outlives the Files and Locks it gave out.

#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "spool/file_system.hpp"

namespace fulmar::spool {

class SimulatedFileSystem final : public FileSystem {
 public:
  enum class Operation : std::uint8_t {
    open,
    read,
    write,
    sync_data,
    allocate,
    resize,
    list,
    rename,
    remove,
    sync_directory,
    make
  };
  static constexpr std::size_t kinds = 11;

  explicit SimulatedFileSystem(std::uint64_t seed = 1) : random_(seed) {}

  // --- what the test does
  // From the `nth` operation from now on nothing has an effect and everything fails, as the power is gone: call crash()
  // when the program under test has noticed.
  void power_off_at(std::uint64_t nth) { power_off_at_ = operations_ + nth; }
  bool powered_off() const { return power_off_at_ && operations_ >= power_off_at_; }
  std::uint64_t operation_count() const { return operations_; }
  // The machine stops: everything that was not synced may be gone. Locks are free; Files from before do nothing.
  void crash();
  // The process stops: everything that was written is still there.
  void kill() {
    ++life_;
    power_off_at_ = 0;
    locked_.clear();
  }
  void set_space(std::uint64_t bytes) { space_ = bytes; }  // of all files; names and lengths cost nothing
  std::uint64_t bytes_used() const;
  void set_short_writes(bool on) { short_writes_ = on; }
  // Operation number `nth` (from 1) from now on of this kind fails once; all from then on when `for_good`.
  void fail_at(Operation kind, std::uint64_t nth, int error, bool for_good = false);
  void heal() { faults_ = {}; }
  std::uint64_t count(Operation kind) const { return counts_[static_cast<std::size_t>(kind)]; }
  std::uint64_t bytes_read() const { return bytes_read_; }
  // The bytes of a file as a process sees them, to be looked at or damaged; synced at once. Null when there is none.
  std::vector<std::byte>* content(const Path& path);
  void replace(const Path& path, std::vector<std::byte> bytes);  // made when there is none
  std::vector<std::string> names(const Path& directory) const;

  // --- FileSystem
  Io<std::unique_ptr<File>> open(const Path& path, Mode mode) override;
  Io<void> make_directories(const Path& path) override;
  Io<std::vector<Item>> list(const Path& directory) override;
  Io<void> rename(const Path& from, const Path& to) override;
  Io<void> remove(const Path& path) override;
  Io<void> sync_directory(const Path& directory) override;
  std::expected<std::unique_ptr<Lock>, LockRefused> lock(const Path& path) override;
  std::optional<std::string> remote_kind(const Path&) override { return remote_kind_; }
  std::uint64_t random() override { return random_(); }

  std::optional<std::string> remote_kind_{};

 private:
  struct Node {
    std::vector<std::byte> now;      // as processes see it
    std::vector<std::byte> durable;  // as the medium has it
    std::set<std::uint64_t> dirty;   // sectors in which they differ
    bool size_dirty = false;
  };
  using NodePtr = std::shared_ptr<Node>;
  using Names = std::map<std::string, NodePtr>;
  struct Change {
    NodePtr node;
    std::string from, to;  // created: from empty; removed: to empty
  };
  struct Fault {
    std::uint64_t at = 0;
    int error = 0;
    bool for_good = false;
  };
  class OpenFile;
  class HeldLock;
  static constexpr std::uint64_t sector_bytes = 512;

  static void apply(Names& names, const Change& change);
  int begin(Operation kind);  // counts, and says with what it fails
  bool fits(const Node& node, std::uint64_t size) const;

  Names names_, durable_names_;
  std::vector<Change> changes_;
  std::set<std::string> locked_;
  std::mt19937_64 random_;
  std::uint64_t life_ = 1;
  std::uint64_t space_ = ~std::uint64_t{0};
  bool short_writes_ = false;
  std::array<Fault, kinds> faults_{};
  std::array<std::uint64_t, kinds> counts_{};
  std::uint64_t bytes_read_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t power_off_at_ = 0;
};

}  // namespace fulmar::spool
