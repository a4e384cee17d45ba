#include "spool/simulated_file_system.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fulmar::spool {

class SimulatedFileSystem::OpenFile final : public File {
 public:
  OpenFile(SimulatedFileSystem& owner, NodePtr node, bool writable)
      : owner_(owner), node_(std::move(node)), writable_(writable), life_(owner.life_) {}

  Io<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) override {
    if (const int error = begin(Operation::read)) return std::unexpected(error);
    const auto& bytes = node_->now;
    if (offset >= bytes.size()) return std::size_t{0};
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), bytes.size() - offset));
    std::memcpy(into.data(), bytes.data() + offset, count);
    owner_.bytes_read_ += count;
    return count;
  }

  Io<std::size_t> write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (const int error = begin(Operation::write)) return std::unexpected(error);
    if (!writable_) return std::unexpected(EBADF);
    if (bytes.empty()) return std::size_t{0};
    if (owner_.short_writes_) bytes = bytes.first(1 + owner_.random_() % bytes.size());
    if (!owner_.fits(*node_, offset + bytes.size())) return std::unexpected(ENOSPC);
    if (node_->now.size() < offset + bytes.size()) {
      node_->now.resize(offset + bytes.size());
      node_->size_dirty = true;
    }
    std::memcpy(node_->now.data() + offset, bytes.data(), bytes.size());
    for (auto sector = offset / sector_bytes; sector * sector_bytes < offset + bytes.size(); ++sector) {
      node_->dirty.insert(sector);
    }
    return bytes.size();
  }

  // A sync that fails leaves its data in memory only, marked clean, as Linux does: the next one says "done".
  Io<void> sync_data() override {
    const int error = begin(Operation::sync_data);
    if (error == ESTALE) return std::unexpected(error);
    if (!error) {
      node_->durable.resize(node_->now.size());
      for (const auto sector : node_->dirty) copy_sector(*node_, sector, sector_bytes);
      node_->size_dirty = false;
    }
    node_->dirty.clear();
    if (error) return std::unexpected(error);
    return {};
  }

  Io<void> allocate(std::uint64_t size) override {
    if (const int error = begin(Operation::allocate)) return std::unexpected(error);
    return grow(size);
  }

  Io<void> resize(std::uint64_t size) override {
    if (const int error = begin(Operation::resize)) return std::unexpected(error);
    if (size < node_->now.size()) {
      node_->now.resize(size);
      node_->size_dirty = true;
      return {};
    }
    return grow(size);
  }

  static void copy_sector(Node& node, std::uint64_t sector, std::uint64_t count) {
    const auto from = sector * sector_bytes;
    const auto end = std::min<std::uint64_t>({from + count, node.now.size(), node.durable.size()});
    if (from < end) std::memcpy(node.durable.data() + from, node.now.data() + from, end - from);
  }

 private:
  int begin(Operation kind) {
    const int error = owner_.begin(kind);
    return life_ != owner_.life_ || owner_.powered_off() ? ESTALE : error;
  }
  Io<void> grow(std::uint64_t size) {
    if (!owner_.fits(*node_, size)) return std::unexpected(ENOSPC);
    const auto old = node_->now.size();
    node_->now.resize(size);
    node_->size_dirty = true;
    for (auto sector = old / sector_bytes; sector * sector_bytes < size; ++sector)
      node_->dirty.insert(sector);
    return {};
  }

  SimulatedFileSystem& owner_;
  NodePtr node_;
  bool writable_;
  std::uint64_t life_;
};

class SimulatedFileSystem::HeldLock final : public Lock {
 public:
  HeldLock(SimulatedFileSystem& owner, std::string path)
      : owner_(owner), path_(std::move(path)), life_(owner.life_) {}
  HeldLock(const HeldLock&) = delete;
  HeldLock& operator=(const HeldLock&) = delete;
  ~HeldLock() override {
    if (life_ == owner_.life_) owner_.locked_.erase(path_);
  }

 private:
  SimulatedFileSystem& owner_;
  std::string path_;
  std::uint64_t life_;
};

int SimulatedFileSystem::begin(Operation kind) {
  ++operations_;
  if (powered_off()) return EIO;
  const auto index = static_cast<std::size_t>(kind);
  const auto number = ++counts_[index];
  const Fault& fault = faults_[index];
  if (fault.at && (number == fault.at || (fault.for_good && number > fault.at))) return fault.error;
  return 0;
}

void SimulatedFileSystem::fail_at(Operation kind, std::uint64_t nth, int error, bool for_good) {
  const auto index = static_cast<std::size_t>(kind);
  faults_[index] = {counts_[index] + nth, error, for_good};
}

std::uint64_t SimulatedFileSystem::bytes_used() const {
  std::uint64_t bytes = 0;
  for (const auto& [name, node] : names_) bytes += node->now.size();
  return bytes;
}

bool SimulatedFileSystem::fits(const Node& node, std::uint64_t size) const {
  return size <= node.now.size() || bytes_used() + (size - node.now.size()) <= space_;
}

void SimulatedFileSystem::apply(Names& names, const Change& change) {
  if (!change.from.empty()) {
    const auto found = names.find(change.from);
    if (found == names.end() || found->second != change.node) return;  // a change it rests on was dropped
    names.erase(found);
  }
  if (!change.to.empty()) names[change.to] = change.node;
}

void SimulatedFileSystem::crash() {
  // Names: as a journal has it, a prefix of the changes; or as POSIX has it, any of them.
  const bool any = random_() % 2;
  const std::size_t kept = changes_.empty() ? 0 : random_() % (changes_.size() + 1);
  for (std::size_t i = 0; i < changes_.size(); ++i) {
    if (any ? random_() % 2 : i < kept) apply(durable_names_, changes_[i]);
  }
  changes_.clear();
  names_ = durable_names_;
  const auto drop_tenths = random_() % 11;
  for (auto& [name, node] : names_) {
    if (node->size_dirty && random_() % 2) node->durable.resize(node->now.size());
    std::uint64_t torn = ~std::uint64_t{0};
    if (!node->dirty.empty() && random_() % 2)
      torn = *std::next(node->dirty.begin(), static_cast<std::ptrdiff_t>(random_() % node->dirty.size()));
    for (const auto sector : node->dirty) {
      if (sector == torn) {
        OpenFile::copy_sector(*node, sector, 1 + random_() % (sector_bytes - 1));
      } else if (random_() % 10 >= drop_tenths) {
        OpenFile::copy_sector(*node, sector, sector_bytes);
      }
    }
    node->dirty.clear();
    node->size_dirty = false;
    node->now = node->durable;
  }
  power_off_at_ = 0;
  kill();
}

std::vector<std::byte>* SimulatedFileSystem::content(const Path& path) {
  const auto found = names_.find(path.string());
  return found == names_.end() ? nullptr : &found->second->now;
}

void SimulatedFileSystem::replace(const Path& path, std::vector<std::byte> bytes) {
  auto& node = names_[path.string()];
  if (!node) node = std::make_shared<Node>();
  node->now = std::move(bytes);
  node->durable = node->now;
  node->dirty.clear();
  durable_names_[path.string()] = node;
}

std::vector<std::string> SimulatedFileSystem::names(const Path& directory) const {
  std::vector<std::string> names;
  for (const auto& [name, node] : names_) {
    const Path path(name);
    if (path.parent_path() == directory) names.push_back(path.filename().string());
  }
  return names;
}

Io<std::unique_ptr<File>> SimulatedFileSystem::open(const Path& path, Mode mode) {
  if (const int error = begin(Operation::open)) return std::unexpected(error);
  const auto found = names_.find(path.string());
  if (mode == Mode::create) {
    if (found != names_.end()) return std::unexpected(EEXIST);
    const auto node = std::make_shared<Node>();
    names_[path.string()] = node;
    changes_.push_back({node, {}, path.string()});
    return std::make_unique<OpenFile>(*this, node, true);
  }
  if (found == names_.end()) return std::unexpected(ENOENT);
  return std::make_unique<OpenFile>(*this, found->second, mode == Mode::read_write);
}

Io<void> SimulatedFileSystem::make_directories(const Path&) {
  if (const int error = begin(Operation::make)) return std::unexpected(error);
  return {};
}

Io<std::vector<FileSystem::Item>> SimulatedFileSystem::list(const Path& directory) {
  if (const int error = begin(Operation::list)) return std::unexpected(error);
  std::vector<Item> items;
  for (const auto& [name, node] : names_) {
    const Path path(name);
    if (path.parent_path() == directory) items.push_back({path.filename().string(), node->now.size()});
  }
  return items;
}

Io<void> SimulatedFileSystem::rename(const Path& from, const Path& to) {
  if (const int error = begin(Operation::rename)) return std::unexpected(error);
  const auto found = names_.find(from.string());
  if (found == names_.end()) return std::unexpected(ENOENT);
  changes_.push_back({found->second, from.string(), to.string()});
  apply(names_, Change(changes_.back()));
  return {};
}

Io<void> SimulatedFileSystem::remove(const Path& path) {
  if (const int error = begin(Operation::remove)) return std::unexpected(error);
  const auto found = names_.find(path.string());
  if (found == names_.end()) return std::unexpected(ENOENT);
  changes_.push_back({found->second, path.string(), {}});
  apply(names_, Change(changes_.back()));
  return {};
}

Io<void> SimulatedFileSystem::sync_directory(const Path&) {
  if (const int error = begin(Operation::sync_directory)) return std::unexpected(error);
  changes_.clear();
  durable_names_ = names_;
  return {};
}

std::expected<std::unique_ptr<FileSystem::Lock>, FileSystem::LockRefused> SimulatedFileSystem::lock(
    const Path& path) {
  if (!locked_.insert(path.string()).second) return std::unexpected(LockRefused{EWOULDBLOCK, "4711"});
  return std::make_unique<HeldLock>(*this, path.string());
}

}  // namespace fulmar::spool
