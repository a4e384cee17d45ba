#include "tests/queue/simulated_disk.hpp"

#include <algorithm>
#include <fstream>

namespace fulmar::test {

// SQLite asks for szOsFile bytes: ours, and behind them those of the file below.
struct SimulatedDisk::Handle {
  sqlite3_file base;
  SimulatedDisk* disk;
  File* file;  // null: a temporary one
  const char* path;

  sqlite3_file* below() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  static Handle& of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
};

// The methods of a file and of the VFS, as SQLite calls them.
struct SimulatedDisk::Methods {
  static sqlite3_file* below(sqlite3_file* file) { return Handle::of(file).below(); }
  static const sqlite3_io_methods& io(sqlite3_file* file) { return *below(file)->pMethods; }

  static int close(sqlite3_file* file) { return io(file).xClose(below(file)); }
  static int read(sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
    return io(file).xRead(below(file), to, size, at);
  }
  static int write(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
    auto& handle = Handle::of(file);
    if (!handle.file) return io(file).xWrite(below(file), data, size, at);
    if (handle.disk->on_event) handle.disk->on_event(Event::write, handle.path);
    const std::lock_guard lock(handle.disk->mutex_);
    const int code = io(file).xWrite(below(file), data, size, at);
    if (code == SQLITE_OK)
      handle.file->since.push_back(
          {.at = at, .data = std::string(static_cast<const char*>(data), static_cast<std::size_t>(size))});
    return code;
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    auto& handle = Handle::of(file);
    const std::lock_guard lock(handle.disk->mutex_);
    const int code = io(file).xTruncate(below(file), size);
    if (code == SQLITE_OK && handle.file) handle.file->since.push_back({.at = size, .truncates = true});
    return code;
  }
  static int sync(sqlite3_file* file, int flags) {
    auto& handle = Handle::of(file);
    auto& disk = *handle.disk;
    if (!handle.file) return SQLITE_OK;
    if (disk.on_event) disk.on_event(Event::sync, handle.path);
    const bool failed =
        disk.fails &&
        disk.fails(handle.path, (flags & SQLITE_SYNC_DATAONLY) ? SyncBy::queue : SyncBy::sqlite);
    const std::lock_guard lock(disk.mutex_);
    auto& since = handle.file->since;
    if (failed) {
      for (auto& change : since) change.lost = true;
      return SQLITE_IOERR_FSYNC;
    }
    // What a failed sync has left behind is on the disk in part, and no later sync changes that.
    for (auto& change : since) {
      if (!change.lost || disk.random_() % 2 == 0) apply(handle.file->synced, change);
    }
    since.clear();
    return SQLITE_OK;
  }
  static int file_size(sqlite3_file* file, sqlite3_int64* size) {
    return io(file).xFileSize(below(file), size);
  }
  static int lock(sqlite3_file* file, int level) { return io(file).xLock(below(file), level); }
  static int unlock(sqlite3_file* file, int level) { return io(file).xUnlock(below(file), level); }
  static int check_reserved_lock(sqlite3_file* file, int* result) {
    return io(file).xCheckReservedLock(below(file), result);
  }
  static int control(sqlite3_file* file, int verb, void* argument) {
    return io(file).xFileControl(below(file), verb, argument);
  }
  static int sector_size(sqlite3_file* file) { return io(file).xSectorSize(below(file)); }
  static int characteristics(sqlite3_file* file) { return io(file).xDeviceCharacteristics(below(file)); }
  static int shm_map(sqlite3_file* file, int page, int size, int extend, void volatile** memory) {
    return io(file).xShmMap(below(file), page, size, extend, memory);
  }
  static int shm_lock(sqlite3_file* file, int offset, int count, int flags) {
    return io(file).xShmLock(below(file), offset, count, flags);
  }
  static void shm_barrier(sqlite3_file* file) { io(file).xShmBarrier(below(file)); }
  static int shm_unmap(sqlite3_file* file, int remove) { return io(file).xShmUnmap(below(file), remove); }

  static SimulatedDisk& disk(sqlite3_vfs* vfs) { return *static_cast<SimulatedDisk*>(vfs->pAppData); }
  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
    // Version 2: no memory-mapped reading of the database, which would go past us.
    static const sqlite3_io_methods methods{2,
                                            close,
                                            read,
                                            write,
                                            truncate,
                                            sync,
                                            file_size,
                                            lock,
                                            unlock,
                                            check_reserved_lock,
                                            control,
                                            sector_size,
                                            characteristics,
                                            shm_map,
                                            shm_lock,
                                            shm_barrier,
                                            shm_unmap,
                                            nullptr,
                                            nullptr};
    auto& handle = Handle::of(file);
    auto& self = disk(vfs);
    handle.disk = &self;
    handle.path = name;
    handle.file = nullptr;
    const int code = self.below_->xOpen(self.below_, name, handle.below(), flags, out_flags);
    handle.base.pMethods = handle.below()->pMethods ? &methods : nullptr;
    if (code != SQLITE_OK || !name) return code;
    const std::lock_guard lock(self.mutex_);
    handle.file = &self.files_[name];
    return code;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int sync_directory) {
    auto& self = disk(vfs);
    const std::lock_guard lock(self.mutex_);
    const int code = self.below_->xDelete(self.below_, name, sync_directory);
    if (code == SQLITE_OK) self.files_[name] = {};  // handles may still point at it
    return code;
  }
};

SimulatedDisk::SimulatedDisk(std::uint32_t seed) : below_(sqlite3_vfs_find(nullptr)), random_(seed) {
  vfs_ = *below_;
  vfs_.szOsFile = static_cast<int>(sizeof(Handle)) + below_->szOsFile;
  vfs_.zName = "simulated";
  vfs_.pAppData = this;
  vfs_.xOpen = &Methods::open;
  vfs_.xDelete = &Methods::remove;
  sqlite3_vfs_register(&vfs_, 1);
}

SimulatedDisk::~SimulatedDisk() {
  sqlite3_vfs_unregister(&vfs_);
  sqlite3_vfs_register(below_, 1);
}

void SimulatedDisk::apply(std::string& content, const Change& change) {
  const auto at = static_cast<std::size_t>(change.at);
  if (change.truncates) {
    content.resize(at);
    return;
  }
  content.resize(std::max(content.size(), at + change.data.size()));
  content.replace(at, change.data.size(), change.data);
}

std::string SimulatedDisk::remnant(const File& file) {
  enum Kept : std::uint8_t { nothing, everything, beginning, choice };
  constexpr std::size_t sector = 512;
  const auto kept = static_cast<Kept>(random_() % 4);
  const auto until = kept == beginning ? random_() % (file.since.size() + 1) : file.since.size();
  std::string content = file.synced;
  for (std::size_t i = 0; i < until && kept != nothing; ++i) {
    const auto& change = file.since[i];
    if (kept != choice && !change.lost) {
      apply(content, change);
      continue;
    }
    if (change.truncates) {
      if (random_() % 2 == 0) apply(content, change);
      continue;
    }
    for (std::size_t from = 0; from < change.data.size(); from += sector) {
      if (random_() % 2 == 0) continue;
      apply(content,
            {.at = change.at + static_cast<std::int64_t>(from), .data = change.data.substr(from, sector)});
    }
  }
  return content;
}

void SimulatedDisk::power_cut(const std::filesystem::path& to) {
  const std::lock_guard lock(mutex_);
  for (const auto& [path, file] : files_) {
    const auto content = remnant(file);
    if (content.empty() && file.synced.empty()) continue;
    std::ofstream(to / std::filesystem::path(path).filename(), std::ios::binary) << content;
  }
}

}  // namespace fulmar::test
