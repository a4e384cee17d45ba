#include "cli/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "cli/figures.hpp"

namespace fulmar::cli {
namespace {

constexpr std::size_t bar_width = 10;

std::string clock_text(double seconds) {
  const auto s = static_cast<std::uint64_t>(std::clamp(seconds, 0.0, 1e9));
  std::array<char, 64> text{};
  if (s < 3600)
    std::snprintf(text.data(), text.size(), "%02u:%02u", static_cast<unsigned>(s / 60),
                  static_cast<unsigned>(s % 60));
  else
    std::snprintf(text.data(), text.size(), "%llu:%02u:%02u", static_cast<unsigned long long>(s / 3600),
                  static_cast<unsigned>(s / 60 % 60), static_cast<unsigned>(s % 60));
  return text.data();
}

std::string bar(double share) {
  const auto full = static_cast<std::size_t>(share * static_cast<double>(bar_width));
  return "[" + std::string(full, '#') + std::string(bar_width - full, '.') + "]";
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = write(fd, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

struct Part {
  int rank;  // the highest is left out first
  std::string text;
};

std::string fitted(std::vector<Part> parts, std::size_t columns) {
  const auto joined = [&] {
    std::string line;
    for (const auto& part : parts) line.append(line.empty() ? "" : "  ").append(part.text);
    return line;
  };
  std::string line = joined();
  for (; line.size() > columns && parts.size() > 1; line = joined())
    parts.erase(std::ranges::max_element(parts, {}, &Part::rank));
  return line.substr(0, columns);
}

void add_share(double share, std::vector<Part>& parts) {
  share = std::clamp(share, 0.0, 1.0);
  const auto percent = number_text(std::floor(share * 100), 0);
  parts.push_back({0, std::string(3 - std::min<std::size_t>(percent.size(), 3), ' ') + percent + "%"});
  parts.push_back({7, bar(share)});
}

void add_estimate(double share, std::chrono::duration<double> elapsed, std::vector<Part>& parts) {
  if (share > 0 && share < 1 && elapsed.count() >= 1)
    parts.push_back({2, "ETA " + clock_text(std::ceil(elapsed.count() * (1 - share) / share))});
}

}  // namespace

std::string render_progress(const ReadProgress& p, std::size_t columns) {
  const double share = p.all_bytes ? static_cast<double>(p.done_bytes) / static_cast<double>(p.all_bytes) : 1;
  std::vector<Part> parts;
  add_share(share, parts);
  parts.push_back({1, count_of(p.messages, "message", "messages")});
  if (p.elapsed.count() > 0)
    parts.push_back(
        {4, number_text(static_cast<double>(p.done_bytes) / 1e6 / p.elapsed.count(), 0) + " MB/s"});
  add_estimate(share, p.elapsed, parts);
  return fitted(std::move(parts), columns);
}

std::string render_progress(const CountProgress& p, std::size_t columns) {
  auto share = p.share;
  if (p.all && *p.all > 0) share = static_cast<double>(p.done) / static_cast<double>(*p.all);
  std::vector<Part> parts;
  if (share) add_share(*share, parts);
  parts.push_back(
      {1, (p.all ? std::to_string(p.done) + " of " : "") + count_of(p.all.value_or(p.done), p.one, p.many)});
  if (p.elapsed.count() > 0)
    parts.push_back({4, number_text(static_cast<double>(p.done) / p.elapsed.count(), 0) + "/s"});
  if (share) add_estimate(*share, p.elapsed, parts);
  return fitted(std::move(parts), columns);
}

std::string render_progress(const Progress& p, std::size_t columns) {
  std::vector<Part> parts;
  if (p.share) add_share(*p.share, parts);
  parts.push_back({1, count_of(p.records, "record", "records")});
  parts.push_back({4, number_text(p.per_s, p.per_s < 100 ? 1 : 0) + "/s"});
  parts.push_back({8, count_of(p.batches, "batch", "batches")});
  parts.push_back({3, std::to_string(p.waiting) + " waiting"});
  if (p.stored) parts.push_back({3, std::to_string(p.stored) + " stored"});
  if (p.lost) parts.push_back({2, std::to_string(p.lost) + " lost"});
  if (p.bad_lines) parts.push_back({5, count_of(p.bad_lines, "bad line", "bad lines")});
  parts.push_back({6, p.connection});
  if (p.share) add_estimate(*p.share, p.elapsed, parts);
  return fitted(std::move(parts), columns);
}

std::string render_summary(const TelemetryStats& s, std::string_view sent, std::uint64_t bad_lines,
                           std::chrono::duration<double> elapsed) {
  std::string text = count_of(s.recorded, "record", "records") + ": " + std::to_string(s.messages_sent) +
                     " " + std::string(sent);
  if (s.offline_stored) text += ", " + std::to_string(s.offline_stored) + " stored for later";
  if (s.waiting) text += ", " + std::to_string(s.waiting) + " waiting";
  if (s.dropped.empty) text += ", " + std::to_string(s.dropped.empty) + " without a value";
  if (const auto lost = s.dropped.total() - s.dropped.empty) {
    std::string reasons;
    const auto add = [&](std::uint64_t n, std::string_view what) {
      if (n) reasons.append(reasons.empty() ? "" : ", ").append(what).append(" ").append(std::to_string(n));
    };
    add(s.dropped.queue_full, "queue full");
    add(s.dropped.refused, "refused");
    add(s.dropped.undelivered, "not delivered before the end");
    text += ", " + std::to_string(lost) + " lost (" + reasons + ")";
  }
  text += "; " + count_of(s.batches_sent, "batch", "batches");
  if (bad_lines) text += "; " + count_of(bad_lines, "bad line", "bad lines") + " skipped";
  return text + "; " + number_text(elapsed.count(), 1) + " s";
}

template <typename P>
void ProgressLine::draw(const P& progress) {
  if (!enabled()) return;
  winsize size{};
  if (ioctl(fd_, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
  const auto line = render_progress(progress, size.ws_col - 1u);
  const std::lock_guard lock(mutex_);
  drawn_ = true;
  write_all(fd_, "\r" + line + "\x1b[K");
}

void ProgressLine::show(const Progress& progress) { draw(progress); }
void ProgressLine::show(const ReadProgress& progress) { draw(progress); }
void ProgressLine::show(const CountProgress& progress) { draw(progress); }

void ProgressLine::clear() {
  const std::lock_guard lock(mutex_);
  clear_locked();
}

void ProgressLine::interrupt(const std::function<void()>& write) {
  const std::lock_guard lock(mutex_);
  clear_locked();
  write();
}

void ProgressLine::clear_locked() {
  if (drawn_) write_all(fd_, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace fulmar::cli
