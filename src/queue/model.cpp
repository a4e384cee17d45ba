#include "queue/model.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <unordered_map>
#include <utility>

namespace fulmar::queue {
namespace {

// What a verb makes of an item, for the message; nothing where the state stays.
std::string_view aim(Verb verb) {
  switch (verb) {
    case Verb::claim:
    case Verb::extend: return "processing";
    case Verb::complete: return "completed";
    case Verb::fail: return "failed";
    case Verb::release:
    case Verb::retry: return "pending";
    case Verb::cancel: return "cancelled";
    case Verb::remove: return "removed";
  }
  return "";
}

bool allowed(Status from, Verb verb) {
  switch (verb) {
    case Verb::claim: return from == Status::pending;
    case Verb::extend:
    case Verb::complete:
    case Verb::fail:
    case Verb::release: return from == Status::processing;
    case Verb::cancel: return is_live(from);
    case Verb::retry: return from == Status::failed || from == Status::cancelled;
    case Verb::remove: return from != Status::processing;
  }
  return false;
}

std::string_view advice(Status from, Verb verb) {
  switch (verb) {
    case Verb::extend:
    case Verb::complete:
    case Verb::fail:
    case Verb::release: return from == Status::pending ? "claim it first" : "it is over";
    case Verb::cancel: return "only what is pending or processing can be cancelled";
    case Verb::retry: return "only what has failed or was cancelled can be retried";
    case Verb::remove: return "complete, fail or cancel it first";
    case Verb::claim: return "only what is pending can be claimed";
  }
  return "";
}

constexpr std::string_view digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::size_t id_digits = 13;
constexpr std::uint64_t id_max = (std::uint64_t{1} << 63) - 1;
constexpr int id_low_bits = 11;

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return result;
}

// Reads a number of exactly `length` digits from the front.
std::optional<int> take_number(std::string_view& text, std::size_t length) {
  if (text.size() < length) return std::nullopt;
  int value = 0;
  for (const char c : text.substr(0, length)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  text.remove_prefix(length);
  return value;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

char* put(char* to, unsigned value, int width) {
  for (int i = width; i-- > 0; value /= 10) to[i] = static_cast<char>('0' + value % 10);
  return to + width;
}

}  // namespace

// --- states -----------------------------------------------------------------------------------------------------------

std::string_view to_string(Status status) {
  switch (status) {
    case Status::pending: return "pending";
    case Status::processing: return "processing";
    case Status::completed: return "completed";
    case Status::failed: return "failed";
    case Status::cancelled: return "cancelled";
  }
  return "unknown";
}

std::string_view to_string(Verb verb) {
  switch (verb) {
    case Verb::claim: return "claim";
    case Verb::extend: return "extend";
    case Verb::complete: return "complete";
    case Verb::fail: return "fail";
    case Verb::release: return "release";
    case Verb::cancel: return "cancel";
    case Verb::retry: return "retry";
    case Verb::remove: return "remove";
  }
  return "unknown";
}

std::string_view to_string(Durability durability) {
  switch (durability) {
    case Durability::commit: return "commit";
    case Durability::interval: return "interval";
    case Durability::none: return "none";
  }
  return "unknown";
}

bool is_live(Status status) { return status == Status::pending || status == Status::processing; }

Result<void> check_transition(std::string_view id, Status from, Verb verb) {
  if (allowed(from, verb)) return {};
  std::string message = "item ";
  message.append(id).append(": cannot ").append(to_string(verb)).append(" what is ").append(to_string(from));
  message.append(" (").append(to_string(from)).append(" -> ").append(aim(verb)).append("); ");
  message.append(advice(from, verb));
  return fulmar::fail(Errc::illegal_transition, std::move(message));
}

Error lease_lost(std::string_view id) {
  return {Errc::lease_lost,
          "item " + std::string(id) +
              ": the lease is lost: it expired or was ended, and the attempt belongs to somebody else; stop "
              "working on it",
          {}};
}

Error not_found(std::string_view id) {
  return {Errc::not_found,
          "item " + std::string(id) + ": there is none with this id; it may have been removed",
          {}};
}

// --- failure ----------------------------------------------------------------------------------------------------------

Duration backoff(const Settings& settings, int failed_attempts, std::uint64_t random) {
  Duration ceiling = std::max(settings.backoff_min, Duration(1));
  for (int i = 1; i < failed_attempts && ceiling < settings.backoff_max; ++i) ceiling *= 2;
  ceiling = std::max(std::min(ceiling, settings.backoff_max), Duration(1));
  const auto half = static_cast<std::uint64_t>(ceiling.count()) / 2;
  const auto above = static_cast<std::uint64_t>(ceiling.count()) - half + 1;
  return Duration(static_cast<std::int64_t>(half + random % above));
}

AfterFailure after_failure(int retry_count, int max_retries, const Settings& settings, Time now,
                           std::uint64_t random, std::optional<Duration> retry_in, bool for_good) {
  AfterFailure after;
  after.retry_count = retry_count + 1;
  if (for_good || after.retry_count >= max_retries) {
    after.status = Status::failed;
  } else {
    after.status = Status::pending;
    after.scheduled_at = now + (retry_in ? *retry_in : backoff(settings, after.retry_count, random));
  }
  return after;
}

// --- claims -----------------------------------------------------------------------------------------------------------

bool is_eligible(const Item& item, Time now) {
  return item.status == Status::pending && item.waiting_for.empty() &&
         (!item.scheduled_at || *item.scheduled_at <= now);
}

bool claimed_before(const Item& a, const Item& b) {
  if (a.priority != b.priority) return a.priority > b.priority;
  if (a.created_at != b.created_at) return a.created_at < b.created_at;
  return a.id < b.id;
}

Time claimable_since(const Item& item) {
  return item.scheduled_at ? std::max(item.created_at, *item.scheduled_at) : item.created_at;
}

// --- dependencies -----------------------------------------------------------------------------------------------------

std::vector<ItemId> find_cycle(std::string_view id, std::span<const ItemId> depends_on,
                               const std::function<std::vector<ItemId>(const ItemId&)>& dependencies_of) {
  // Depth first, without recursion: chains may be as long as the queue.
  std::unordered_map<ItemId, ItemId> came_from;
  std::vector<ItemId> open;
  const auto visit = [&](std::span<const ItemId> next, const ItemId& from) {
    for (const auto& dependency : next) {
      if (came_from.emplace(dependency, from).second) open.push_back(dependency);
    }
  };
  const ItemId start(id);
  visit(depends_on, start);
  while (!open.empty()) {
    const ItemId current = std::move(open.back());
    open.pop_back();
    if (current == start) {
      std::vector<ItemId> path{start};
      for (ItemId at = came_from.at(start); at != start; at = came_from.at(at)) path.push_back(at);
      path.push_back(start);
      std::ranges::reverse(path);
      return path;
    }
    const auto next = dependencies_of(current);
    visit(next, current);
  }
  return {};
}

Error cycle_error(std::span<const ItemId> path) {
  std::string text = "dependencies form a cycle: ";
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i > 0) text += " -> ";
    text += path[i];
  }
  text += "; none of these could ever run";
  return {Errc::invalid_item, std::move(text), {}};
}

// --- ids --------------------------------------------------------------------------------------------------------------

std::string id_text(std::uint64_t number) {
  std::string text(id_digits, '0');
  for (std::size_t i = id_digits; i-- > 0; number >>= 5) text[i] = digits[number & 31];
  return text;
}

std::optional<std::uint64_t> id_number(std::string_view text) {
  static constexpr auto values = [] {
    std::array<std::int8_t, 256> table{};
    table.fill(-1);
    for (std::size_t i = 0; i < digits.size(); ++i) {
      table[static_cast<unsigned char>(digits[i])] = static_cast<std::int8_t>(i);
    }
    return table;
  }();
  if (text.size() != id_digits || text[0] > '7') return std::nullopt;
  std::uint64_t number = 0;
  for (const char c : text) {
    const auto value = values[static_cast<unsigned char>(c)];
    if (value < 0) return std::nullopt;
    number = number << 5 | static_cast<std::uint64_t>(value);
  }
  return number;
}

std::uint64_t id_number_at(Time created_at, std::uint64_t random) {
  const auto us = std::max<std::int64_t>(created_at.time_since_epoch().count(), 0);
  const std::uint64_t low = random & ((1U << id_low_bits) - 1);
  return std::min(static_cast<std::uint64_t>(us), id_max >> id_low_bits) << id_low_bits | low;
}

void IdSequence::seen(std::uint64_t number) { last_ = std::max(last_, number); }

std::uint64_t IdSequence::next(Time now, std::uint64_t random) {
  last_ = std::max(last_ + 1, id_number_at(now, random));
  return last_;
}

// --- words ------------------------------------------------------------------------------------------------------------

std::optional<Status> parse_status(std::string_view word) {
  static constexpr std::pair<std::string_view, Status> words[] = {
      {"pending", Status::pending},        {"queued", Status::pending},
      {"blocked", Status::pending},        {"processing", Status::processing},
      {"in_progress", Status::processing}, {"in-progress", Status::processing},
      {"running", Status::processing},     {"completed", Status::completed},
      {"complete", Status::completed},     {"done", Status::completed},
      {"failed", Status::failed},          {"cancelled", Status::cancelled},
      {"canceled", Status::cancelled}};
  const auto text = lower(word);
  for (const auto& [name, status] : words) {
    if (text == name) return status;
  }
  return std::nullopt;
}

std::optional<int> parse_priority(std::string_view word) {
  static constexpr std::pair<std::string_view, int> words[] = {
      {"critical", 100}, {"high", 75}, {"medium", 50}, {"low", 25}};
  const auto text = lower(word);
  for (const auto& [name, priority] : words) {
    if (text == name) return priority;
  }
  int number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc{} || end != word.data() + word.size() || word.empty()) return std::nullopt;
  return number;
}

std::optional<Durability> parse_durability(std::string_view word) {
  for (const auto level : {Durability::commit, Durability::interval, Durability::none}) {
    if (word == to_string(level)) return level;
  }
  return std::nullopt;
}

std::optional<Duration> parse_duration(std::string_view text) {
  static constexpr std::pair<std::string_view, double> units[] = {
      {"us", 1},   {"ms", 1e3},    {"s", 1e6},      {"min", 60e6},
      {"m", 60e6}, {"h", 3'600e6}, {"d", 86'400e6}, {"w", 604'800e6}};
  constexpr double us_max = 36'500 * 86'400e6;
  double us = 0;
  if (text.empty()) return std::nullopt;
  const bool one_number = text.find_first_not_of("0123456789.") == std::string_view::npos;
  while (!text.empty()) {
    const auto length = std::min(text.find_first_not_of("0123456789."), text.size());
    const auto number = text.substr(0, length);
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc{} || end != number.data() + number.size() || text[0] == '.') return std::nullopt;
    text.remove_prefix(length);
    const auto word = text.substr(0, std::min(text.find_first_of("0123456789."), text.size()));
    const auto unit =
        std::ranges::find(units, one_number ? "s" : word, &std::pair<std::string_view, double>::first);
    if (unit == std::end(units)) return std::nullopt;
    us += value * unit->second;
    text.remove_prefix(word.size());
  }
  if (us > us_max) return std::nullopt;
  return Duration(std::llround(us));
}

std::string duration_text(Duration duration) {
  static constexpr std::pair<std::int64_t, std::string_view> units[] = {
      {86'400'000'000, "d"}, {3'600'000'000, "h"}, {60'000'000, "m"},
      {1'000'000, "s"},      {1'000, "ms"},        {1, "us"}};
  std::string text;
  auto rest = duration.count();
  for (const auto& [us, unit] : units) {
    if (rest < us) continue;
    text.append(text.empty() ? "" : " ").append(std::to_string(rest / us)).append(unit);
    rest %= us;
  }
  return text.empty() ? "0s" : text;
}

std::string format_time(Time time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  auto rest = static_cast<std::uint64_t>((time - day).count());
  const auto us = static_cast<unsigned>(rest % 1'000'000);
  const auto seconds = static_cast<unsigned>(rest / 1'000'000);
  char text[32];
  char* at = put(text, static_cast<unsigned>(std::clamp(static_cast<int>(date.year()), 0, 9999)), 4);
  *at++ = '-';
  at = put(at, static_cast<unsigned>(date.month()), 2);
  *at++ = '-';
  at = put(at, static_cast<unsigned>(date.day()), 2);
  *at++ = 'T';
  at = put(at, seconds / 3600, 2);
  *at++ = ':';
  at = put(at, seconds / 60 % 60, 2);
  *at++ = ':';
  at = put(at, seconds % 60, 2);
  *at++ = '.';
  at = put(at, us, 6);
  *at++ = 'Z';
  return {text, at};
}

std::optional<Time> parse_time(std::string_view text) {
  using namespace std::chrono;
  const auto year_number = take_number(text, 4);
  if (!year_number || !take(text, '-')) return std::nullopt;
  const auto month_number = take_number(text, 2);
  if (!month_number || !take(text, '-')) return std::nullopt;
  const auto day_number = take_number(text, 2);
  if (!day_number) return std::nullopt;
  const year_month_day date(year(*year_number), month(static_cast<unsigned>(*month_number)),
                            std::chrono::day(static_cast<unsigned>(*day_number)));
  if (!date.ok()) return std::nullopt;
  Time time = sys_days(date);
  if (text.empty()) return time;
  if (!take(text, 'T') && !take(text, 't') && !take(text, ' ')) return std::nullopt;
  const auto hour = take_number(text, 2);
  if (!hour || *hour > 23 || !take(text, ':')) return std::nullopt;
  const auto minute = take_number(text, 2);
  if (!minute || *minute > 59) return std::nullopt;
  int second = 0;
  if (take(text, ':')) {
    const auto number = take_number(text, 2);
    if (!number || *number > 60) return std::nullopt;  // a leap second is the next one
    second = *number;
  }
  time += hours(*hour) + minutes(*minute) + seconds(second);
  if (take(text, '.') || take(text, ',')) {
    std::int64_t unit = 100'000;
    std::size_t length = 0;
    for (; length < text.size() && text[length] >= '0' && text[length] <= '9'; ++length, unit /= 10) {
      time += microseconds((text[length] - '0') * unit);
    }
    if (length == 0) return std::nullopt;
    text.remove_prefix(length);
  }
  if (text.empty() || text == "Z" || text == "z") return time;
  const int sign = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
  if (sign == 0) return std::nullopt;
  text.remove_prefix(1);
  const auto offset_hours = take_number(text, 2);
  if (!offset_hours || *offset_hours > 23) return std::nullopt;
  int offset_minutes = 0;
  if (!text.empty()) {
    take(text, ':');
    const auto number = take_number(text, 2);
    if (!number || *number > 59 || !text.empty()) return std::nullopt;
    offset_minutes = *number;
  }
  return time - sign * (hours(*offset_hours) + minutes(offset_minutes));
}

}  // namespace fulmar::queue
