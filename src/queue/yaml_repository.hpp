#pragma once
// The yaml: store: a queue in a file that people read, edit and keep in git. item_files.hpp has the format, yaml_file.hpp how
// the file is locked and replaced, item_table.hpp the verbs.
//
// A transaction that changes something holds the file's lock over reading, changing and writing all of it, so an operation
// costs in proportion to the number of items: below 5 ms for a hundred. For thousands, sqlite: is the store.
//
// What was read is kept as long as the file is the same one (device, inode, size, time of change): reading transactions
// take no lock and share it.
//
// Invariants
//   1. A file that is not readable as a queue is never overwritten: `damaged`, with line and column, until somebody corrects
//      it or repair_yaml() puts the backup in its place.
//   2. Nothing is written that would not be read back as it is.
//   3. An edit by hand is not overwritten: when the file changed under a transaction, it begins again on what is there now
//      (write_alone: it fails).
//
// Durability: `none` and `interval` leave the directory unsynced: after power loss the file may be the version before. The
// file itself is always synced before it gets its name.

#include <filesystem>
#include <memory>

#include "queue/repository.hpp"

namespace fulmar::queue {

// `url`: yaml:PATH. Errors: invalid_url, not_found, io_error, damaged, timeout.
Result<std::unique_ptr<Repository>> open_yaml_repository(std::string_view url,
                                                         const RepositoryOptions& options);

struct YamlRepair {
  bool was_sound = false;             // nothing was done
  std::uint64_t items = 0;            // in the file, now
  std::filesystem::path set_aside{};  // the damaged file, when there was one
  std::string damage{};               // what was wrong with it
};

// Puts the backup in the place of a file that is damaged or missing, and keeps the damaged one beside. Errors: damaged (the
// backup too), not_found (there is no backup), io_error, timeout, invalid_url.
// `dry_run`: tells what would be done; set_aside is empty then.
Result<YamlRepair> repair_yaml(std::string_view url, std::chrono::milliseconds lock_timeout,
                               bool dry_run = false);

}  // namespace fulmar::queue
