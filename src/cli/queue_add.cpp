// add and next: in, and out by hand.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/json.hpp>

#include "cli/exit_code.hpp"
#include "cli/figures.hpp"
#include "cli/input.hpp"
#include "cli/progress.hpp"
#include "cli/queue_commands.hpp"
#include "cli/queue_store.hpp"
#include "cli/queue_text.hpp"
#include "cli/report.hpp"
#include "cli/sheet.hpp"
#include "queue/item_line.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using queue::Limits;
using queue::NewItem;

constexpr auto frame = 200ms;  // of the progress line

queue::Time now() { return std::chrono::time_point_cast<queue::Duration>(std::chrono::system_clock::now()); }

// A file or stdin ("-"); closed in the end.
class Input {
 public:
  explicit Input(const std::string& path) : name_(path == "-" ? "stdin" : "'" + path + "'") {
    fd_ = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  ~Input() {
    if (fd_ > STDIN_FILENO) close(fd_);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  Result<void> opened() const { return fd_ < 0 ? error("open") : Result<void>{}; }
  Result<void> error(std::string_view what) const {
    return fail(Errc::io_error, "cannot " + std::string(what) + " " + name_ + ": " + std::strerror(errno));
  }
  // Appends to `text`; false at the end.
  Result<bool> read_some(std::string& text) {
    constexpr std::size_t step = std::size_t{256} << 10;
    const auto size = text.size();
    text.resize(size + step);
    ssize_t got = -1;
    do {
      got = read(fd_, text.data() + size, step);
    } while (got < 0 && errno == EINTR);
    text.resize(size + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0) return std::unexpected(error("read").error());
    return got > 0;
  }
  bool has_more_at_once() const {
    pollfd file{.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&file, 1, 0) > 0;
  }
  const std::string& name() const { return name_; }
  // How much of a file has been read; of a pipe nothing is known.
  std::optional<double> share() const {
    struct stat status{};
    const auto at = lseek(fd_, 0, SEEK_CUR);
    if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0 || at < 0)
      return std::nullopt;
    return static_cast<double>(at) / static_cast<double>(status.st_size);
  }

 private:
  int fd_ = -1;
  std::string name_;
};

Result<std::string> payload_from(const std::string& path) {
  Input input(path);
  if (auto opened = input.opened(); !opened) return std::unexpected(opened.error());
  std::string payload;
  for (;;) {
    const auto more = input.read_some(payload);
    if (!more) return std::unexpected(more.error());
    if (!*more) break;
    if (payload.size() > Limits::payload_bytes)
      return fail(Errc::payload_too_large, "the payload in " + input.name() + " has more than " +
                                               std::to_string(Limits::payload_bytes) +
                                               " bytes: store it elsewhere and hand in its address");
  }
  while (!payload.empty() && (payload.back() == '\n' || payload.back() == '\r')) payload.pop_back();
  if (payload.empty())
    return fail(Errc::invalid_item, "the payload in " + input.name() + " is empty: expected a JSON object");
  return payload;
}

// --- one --------------------------------------------------------------------------------------------------------------

int add_one(const QueueCommandOptions& options) {
  auto item = options.item;
  std::string path = options.file.value_or("");
  if (!options.arguments.empty() && options.arguments[0] == "-") path = "-";
  if (!path.empty()) {
    auto payload = payload_from(path);
    if (!payload) return failed(payload.error());
    item.payload = std::move(*payload);
  } else if (!options.arguments.empty()) {
    item.payload = options.arguments[0];
  }
  // Before the store comes into being for nothing.
  if (const auto valid = queue::validate(item); !valid) return failed(valid.error());
  auto queue = open_queue(options, QueueUse::fill);
  if (!queue) return failed(queue.error());
  const auto submitted = queue->submit(item);
  if (!submitted) return failed(submitted.error());
  Sheet sheet;
  if (options.json) {
    sheet.line(
        boost::json::serialize(boost::json::object{{"id", submitted->id}, {"created", submitted->created}}));
  } else {
    sheet.line(submitted->id);
    if (!submitted->created)
      Report(options.quiet)
          .plain("not added: a live item has the unique key '" + item.unique_key + "' already");
  }
  return sheet.end(exit_success);
}

// --- many -------------------------------------------------------------------------------------------------------------

// Hands in what came together: in batches while lines come fast, each at once when they come slowly.
class LineAdder {
 public:
  LineAdder(const QueueCommandOptions& options, Queue& queue)
      : options_(options),
        queue_(queue),
        report_(false),
        line_(!options.quiet && isatty(STDERR_FILENO) == 1 && !(options.ids && isatty(STDOUT_FILENO) == 1)
                  ? STDERR_FILENO
                  : -1) {}

  int run(Input& input);

 private:
  static constexpr std::size_t batch_items = 1'000;
  static constexpr std::size_t batch_bytes = std::size_t{4} << 20;
  static constexpr std::size_t line_bytes_max = Limits::payload_bytes + Limits::metadata_bytes + (256 << 10);
  static constexpr std::uint64_t told_max = 10;

  void take(std::string_view line);
  void bad_line(std::uint64_t number, std::string_view what);
  Result<void> hand_in();
  Result<void> hand_in_singly();
  void added(const queue::Submitted& submitted);
  void show_progress(const Input& input);
  int end(const Result<void>& done);

  const QueueCommandOptions& options_;
  Queue& queue_;
  const Report report_;
  ProgressLine line_;
  Sheet sheet_;
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point next_frame_ = begin_ + frame;
  std::vector<NewItem> batch_;
  std::vector<std::uint64_t> numbers_;  // of their lines
  std::size_t bytes_ = 0;
  std::uint64_t lines_ = 0;
  std::uint64_t added_ = 0;
  std::uint64_t there_already_ = 0;
  std::uint64_t bad_ = 0;
};

void LineAdder::bad_line(std::uint64_t number, std::string_view what) {
  if (++bad_ > told_max) return;
  line_.interrupt([&] { report_.warning("line " + std::to_string(number) + ": " + std::string(what)); });
}

void LineAdder::take(std::string_view line) {
  ++lines_;
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  Result<NewItem> item = options_.item;
  if (options_.payload_lines) {
    item->payload = line;
    if (auto valid = queue::validate(*item); !valid) item = std::unexpected(std::move(valid.error()));
  } else {
    item = queue::item_of_line(line, options_.item, now());
  }
  if (!item) return bad_line(lines_, item.error().message);
  bytes_ += line.size();
  batch_.push_back(std::move(*item));
  numbers_.push_back(lines_);
}

void LineAdder::added(const queue::Submitted& submitted) {
  ++(submitted.created ? added_ : there_already_);
  if (options_.ids) sheet_.line(submitted.id);
}

Result<void> LineAdder::hand_in() {
  if (batch_.empty()) return {};
  auto submitted = queue_.submit_batch(batch_);
  Result<void> done;
  if (submitted) {
    for (const auto& one : *submitted) added(one);
  } else if (const auto code = submitted.error().code; code == Errc::invalid_item ||
                                                       code == Errc::already_exists ||
                                                       code == Errc::not_found || code == Errc::queue_full) {
    done = hand_in_singly();  // to do what can be done, and to name the line of what cannot
  } else {
    done = std::unexpected(std::move(submitted.error()));
  }
  batch_.clear();
  numbers_.clear();
  bytes_ = 0;
  if (options_.ids && !sheet_.flush()) return fail(Errc::cancelled, "");
  return done;
}

void LineAdder::show_progress(const Input& input) {
  const auto now = Clock::now();
  if (!line_.enabled() || now < next_frame_) return;
  next_frame_ = now + frame;
  line_.show(CountProgress{.done = added_, .all = {}, .share = input.share(), .elapsed = now - begin_});
}

Result<void> LineAdder::hand_in_singly() {
  for (std::size_t i = 0; i < batch_.size(); ++i) {
    const auto submitted = queue_.submit(batch_[i]);
    if (submitted) {
      added(*submitted);
    } else if (const auto code = submitted.error().code;
               code == Errc::invalid_item || code == Errc::already_exists || code == Errc::not_found) {
      bad_line(numbers_[i], submitted.error().message);
    } else {
      auto error = submitted.error();
      error.message = "line " + std::to_string(numbers_[i]) + ": " + error.message +
                      "; this line and those after it were not added";
      return std::unexpected(std::move(error));
    }
  }
  return {};
}

int LineAdder::run(Input& input) {
  LineSplitter splitter;
  bool too_long = false;  // the line at hand, which is left out
  Result<void> done;
  for (bool more = true; more && done;) {
    std::string text;
    const auto got = input.read_some(text);
    if (!got) return end(std::unexpected(got.error()));
    more = *got;
    std::string_view piece = text;
    if (too_long) {  // its rest
      const auto end_of_line = piece.find('\n');
      too_long = end_of_line == std::string_view::npos;
      piece.remove_prefix(too_long ? piece.size() : end_of_line + 1);
    }
    splitter.feed(piece, [&](std::string_view line) {
      if (!done) return;
      take(line);
      if (batch_.size() >= batch_items || bytes_ >= batch_bytes) done = hand_in();
    });
    if (splitter.rest().size() > line_bytes_max) {
      bad_line(++lines_, "has more than " + std::to_string(line_bytes_max) + " bytes: no item is that large");
      splitter = {};
      too_long = true;
    }
    if (!more && !splitter.rest().empty()) take(splitter.rest());
    if (done && (!more || !input.has_more_at_once())) done = hand_in();
    show_progress(input);
  }
  return end(done);
}

int LineAdder::end(const Result<void>& done) {
  line_.clear();
  if (!done && done.error().code == Errc::cancelled)
    return sheet_.end(exit_success);  // nobody reads the ids any more
  if (bad_ > told_max) report_.warning(std::to_string(bad_ - told_max) + " more lines were no items");
  if (!options_.ids && !options_.quiet) {
    const auto seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    sheet_.line(count_of(added_, "item", "items") + " added" +
                (there_already_ ? ", " + std::to_string(there_already_) + " there already" : "") +
                (bad_ ? ", " + count_of(bad_, "bad line", "bad lines") + " left out" : "") + "; " +
                number_text(seconds, seconds < 1 ? 2 : 1) + " s");
  }
  const int code = sheet_.end(bad_ ? exit_bad_lines : exit_success);
  return done ? code : failed(done.error());
}

}  // namespace

int queue_add(const QueueCommandOptions& options) {
  if (!options.lines && !options.payload_lines) return add_one(options);
  Input input(options.file.value_or("-"));
  if (const auto opened = input.opened(); !opened) return failed(opened.error());
  auto queue = open_queue(options, QueueUse::fill);
  if (!queue) return failed(queue.error());
  return LineAdder(options, *queue).run(input);
}

int queue_next(const QueueCommandOptions& options) {
  auto queue = open_queue(options, options.peek ? QueueUse::look : QueueUse::change);
  if (!queue) return failed(queue.error());
  Sheet sheet;
  if (options.peek) {
    const auto items = queue->peek(options.claim.items_max);
    if (!items) return failed(items.error());
    for (const auto& item : *items) sheet.line(item_json(item));
    return sheet.end(items->empty() ? exit_nothing : exit_success);
  }
  auto request = options.claim;
  request.tied_to_process = false;  // this process goes away now, and another one finishes the item
  const auto leases = options.wait ? queue->wait_claim(request, *options.wait) : queue->claim(request);
  if (!leases) return failed(leases.error());
  for (const auto& lease : *leases) sheet.line(lease_json(lease));
  const int code = sheet.end(leases->empty() ? exit_nothing : exit_success);
  if (!sheet.reader_is_gone()) return code;
  // Nobody has read the leases: nobody could finish them.
  for (const auto& lease : *leases)
    if (const auto released = queue->release(lease.key()); !released) return failed(released.error());
  return code;
}

}  // namespace fulmar::cli
