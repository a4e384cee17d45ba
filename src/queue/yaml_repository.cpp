#include "queue/yaml_repository.hpp"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "queue/yaml_document.hpp"
#include "queue/yaml_replace.hpp"
#include "queue/yaml_watch.hpp"

namespace fulmar::queue {
namespace {

constexpr int attempts_max = 20;  // while somebody edits the file

Result<std::filesystem::path> path_of(std::string_view url) {
  auto path = url;
  constexpr std::string_view scheme = "yaml:";
  if (path.starts_with(scheme)) {
    path.remove_prefix(scheme.size());
    if (path.starts_with("//")) path.remove_prefix(2);
    if (!path.empty()) return std::filesystem::path(path);
  }
  return fail(Errc::invalid_url, "queue URL \"" + std::string(url) +
                                     "\": it has to be yaml: and the path of a file, as in yaml:jobs.yaml");
}

Error damaged(const Error& error, const YamlFile& file) {
  if (error.code == Errc::incompatible) return error;
  return {Errc::damaged,
          error.message + " (correct the file, or put its backup in its place: fulmar queue repair yaml:" +
              file.path().string() + ")",
          {}};
}

// One writer of this process at a time. (A std::timed_mutex says the same, but ThreadSanitizer does not see its locks.)
class Turns {
 public:
  // What has the turn until it is destroyed; nothing when the time was over before.
  std::shared_ptr<void> take(std::chrono::milliseconds at_most) {
    std::unique_lock guard(mutex_);
    if (!free_.wait_for(guard, at_most, [&] { return !taken_; })) return nullptr;
    taken_ = true;
    return {this, [](Turns* turns) { turns->give_back(); }};
  }

 private:
  void give_back() {
    {
      const std::lock_guard guard(mutex_);
      taken_ = false;
    }
    free_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable free_;
  bool taken_ = false;
};

class YamlRepository final : public Repository {
 public:
  YamlRepository(std::string url, YamlFile file, const RepositoryOptions& options)
      : url_(std::move(url)),
        file_(std::move(file)),
        options_(options),
        clock_(options.clock ? *options.clock : system_clock()),
        random_(options.seed),
        watch_(file_.path()) {}

  Result<void> open() {
    auto there = file_.version();
    if (!there) return std::unexpected(std::move(there.error()));
    if (!there->exists) {
      if (!options_.create || options_.read_only) {
        return fail(Errc::not_found,
                    file_.path().string() + ": there is no such file; correct the path, or create it");
      }
      if (auto made = make(); !made) return made;
    }
    auto document = current();
    if (!document) return std::unexpected(std::move(document.error()));
    default_queue_ = (*document)->default_queue();
    return {};
  }

  std::string_view url() const override { return url_; }
  std::string_view default_queue() const override { return default_queue_; }

  Result<void> run(Access access, Durability durability, Body body) override {
    if (access == Access::read) return read(body);
    if (options_.read_only)
      return fail(Errc::io_error, file_.path().string() + ": opened for reading only; open it for writing");
    const auto turn = writers_.take(options_.lock_timeout);
    if (!turn) {
      return fail(Errc::timeout, file_.path().string() +
                                     ": other threads of this process write all the time; "
                                     "use fewer of them, or a sqlite: queue");
    }
    auto lock = file_.lock(options_.lock_timeout);
    if (!lock) return std::unexpected(std::move(lock.error()));
    if (!std::exchange(swept_, true)) file_.remove_leftovers(*lock);
    for (int attempt = 1;; ++attempt) {
      auto done = write(*lock, durability, body);
      if (!done) return std::unexpected(std::move(done.error()));
      if (*done) return {};
      if (access == Access::write_alone || attempt == attempts_max) {
        return fail(Errc::io_error, file_.path().string() +
                                        ": it was edited by hand meanwhile; nothing was changed: try again");
      }
    }
  }

  std::uint32_t wake_word(std::string_view) override {
    const auto version = file_.version();
    std::uint64_t word = wakes_.load(std::memory_order_relaxed);
    if (version) {
      for (const auto part : {version->inode, version->size, static_cast<std::uint64_t>(version->changed_ns)})
        word = (word ^ part) * 0x9e3779b97f4a7c15;
    }
    return static_cast<std::uint32_t>(word >> 32);
  }
  void wait(std::string_view queue, std::uint32_t seen, std::chrono::nanoseconds at_most) override {
    watch_.wait(at_most, [&] { return wake_word(queue) != seen; });
  }
  void wake(std::string_view) override {
    wakes_.fetch_add(0x9e3779b97f4a7c15, std::memory_order_relaxed);
    watch_.notify();
  }
  Result<void> sync() override { return sync_directory(file_.path()); }

 private:
  using Document = std::shared_ptr<const YamlDocument>;

  Result<void> make() {
    auto lock = file_.lock(options_.lock_timeout);
    if (!lock) return std::unexpected(std::move(lock.error()));
    auto there = file_.version();
    if (!there) return std::unexpected(std::move(there.error()));
    if (there->exists) return {};
    std::error_code ignored;
    if (std::filesystem::exists(file_.backup_path(), ignored)) {
      log(LogLevel::warning, file_.path().string() +
                                 " is missing and made anew, though there is a backup; to go back to it, "
                                 "remove the new file and call fulmar queue repair yaml:" +
                                 file_.path().string());
    }
    FileVersion made;
    auto replaced = file_.replace(*lock, {}, YamlDocument().text(), true, made);
    if (!replaced) return std::unexpected(std::move(replaced.error()));
    return {};  // somebody else made it in this moment: as good
  }

  // The document as the file is now.
  Result<Document> current() {
    auto there = file_.version();
    if (!there) return std::unexpected(std::move(there.error()));
    const std::lock_guard guard(cache_mutex_);
    if (cache_ && there->exists && cache_->version() == *there) return cache_;
    auto content = file_.read();
    if (!content) return std::unexpected(std::move(content.error()));
    if (!content->version.exists && !options_.create)
      return fail(Errc::not_found, file_.path().string() + ": the file is gone; put it back");
    auto parsed = YamlDocument::parse(*content, file_.path().string(), cache_.get());
    if (!parsed) return std::unexpected(damaged(parsed.error(), file_));
    cache_ = std::make_shared<const YamlDocument>(std::move(*parsed));
    return cache_;
  }

  Result<void> read(Body& body) {
    auto document = current();
    if (!document) return std::unexpected(std::move(document.error()));
    ItemTable table = (*document)->table();
    RandomBits unused(1);
    TableOperations operations(table, clock_, unused);
    return body(operations);
  }

  // False: the file was edited meanwhile.
  Result<bool> write(const YamlFile::Lock& lock, Durability durability, Body& body) {
    auto document = current();
    if (!document) return std::unexpected(std::move(document.error()));
    ItemTable table = (*document)->table();
    TableOperations operations(table, clock_, random_);
    if (auto done = body(operations); !done) return std::unexpected(std::move(done.error()));
    if (!operations.changed()) return true;
    auto next = (*document)->with(std::move(table));
    if (!next) return std::unexpected(std::move(next.error()));
    FileVersion after;
    auto replaced =
        file_.replace(lock, (*document)->version(), next->text(), durability == Durability::commit, after);
    if (!replaced || !*replaced) return replaced;
    next->set_version(after);
    {
      const std::lock_guard guard(cache_mutex_);
      cache_ = std::make_shared<const YamlDocument>(std::move(*next));
    }
    watch_.notify();
    return true;
  }

  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  const std::string url_;
  const YamlFile file_;
  const RepositoryOptions options_;
  const Clock& clock_;
  std::string default_queue_;

  Turns writers_;      // held before the file's lock
  RandomBits random_;  // of who holds writers_, and
  bool swept_ = false;

  std::mutex cache_mutex_;
  Document cache_;

  std::atomic<std::uint64_t> wakes_{0};
  FileWatch watch_;
};

}  // namespace

Result<std::unique_ptr<Repository>> open_yaml_repository(std::string_view url,
                                                         const RepositoryOptions& options) {
  auto path = path_of(url);
  if (!path) return std::unexpected(std::move(path.error()));
  auto file = YamlFile::at(*path);
  if (!file) return std::unexpected(std::move(file.error()));
  auto repository = std::make_unique<YamlRepository>(std::string(url), std::move(*file), options);
  if (auto opened = repository->open(); !opened) return std::unexpected(std::move(opened.error()));
  return repository;
}

Result<YamlRepair> repair_yaml(std::string_view url, std::chrono::milliseconds lock_timeout, bool dry_run) {
  const auto path = path_of(url);
  if (!path) return std::unexpected(path.error());
  const auto file = YamlFile::at(*path);
  if (!file) return std::unexpected(file.error());
  const auto lock = file->lock(lock_timeout);
  if (!lock) return std::unexpected(lock.error());
  const auto content = file->read();
  if (!content) return std::unexpected(content.error());
  const auto document = YamlDocument::parse(*content, file->path().string());
  if (!document && document.error().code == Errc::incompatible) return std::unexpected(document.error());
  YamlRepair repair;
  repair.was_sound = document && content->version.exists;
  if (repair.was_sound) {
    repair.items = document->table().items.size();
    return repair;
  }
  repair.damage = document ? file->path().string() + ": the file is missing" : document.error().message;

  const auto backup = YamlFile::at(file->backup_path());
  if (!backup) return std::unexpected(backup.error());
  const auto kept = backup->read();
  if (!kept) return std::unexpected(kept.error());
  if (!kept->version.exists)
    return fail(Errc::not_found, repair.damage + "; and there is no backup " + file->backup_path().string() +
                                     ": correct the file by hand");
  const auto sound = YamlDocument::parse(*kept, file->backup_path().string());
  if (!sound)
    return fail(Errc::damaged,
                repair.damage + "; and the backup too, " + sound.error().message + ": correct one by hand");

  repair.items = sound->table().items.size();
  if (dry_run) return repair;

  if (content->version.exists) {  // by one more name, so that it is at no moment without one
    for (int number = 1;; ++number) {
      repair.set_aside = file->path().string() + ".damaged-" + std::to_string(number);
      if (::link(file->path().c_str(), repair.set_aside.c_str()) == 0) break;
      const int error = errno;
      if (error != EEXIST || number == 10'000)
        return std::unexpected(file_error(repair.set_aside, "keep the damaged file", error));
    }
  }
  FileVersion after;
  auto replaced = file->restore(*lock, kept->text, after);
  if (!replaced) return std::unexpected(std::move(replaced.error()));
  return repair;
}

}  // namespace fulmar::queue
