#include "cli/queue_text.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include <boost/json.hpp>

#include "cli/figures.hpp"
#include "cli/queue_options.hpp"
#include "queue/item_files.hpp"
#include "queue/model.hpp"

namespace fulmar::cli {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using queue::Item;
using queue::Status;
using queue::Time;

std::string in_ms(queue::Duration duration) {
  const auto ms = std::chrono::duration<double, std::milli>(duration).count();
  if (ms >= 100'000) return age_text(std::chrono::duration_cast<std::chrono::milliseconds>(duration));
  if (ms >= 1'000) return number_text(ms / 1'000, 1) + " s";
  return number_text(ms, ms < 10 ? 2 : 0) + " ms";
}

std::string relative(Time time, Time now) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - time);
  return ms.count() < 0 ? "in " + age_text(-ms) : age_text(ms) + " ago";
}

std::string at(Time time, Time now) { return queue::format_time(time) + "  " + relative(time, now); }

// The state as people ask for it.
std::string state_of(const Item& item, Time now) {
  if (item.status == Status::pending && !item.waiting_for.empty())
    return item.dependency_failed ? "blocked" : "waiting";
  if (item.status == Status::pending && item.scheduled_at && *item.scheduled_at > now) return "scheduled";
  return std::string(to_string(item.status));
}

std::string joined(std::span<const queue::ItemId> ids) {
  std::string text;
  for (const auto& id : ids) text.append(text.empty() ? "" : ", ").append(id);
  return text;
}

std::string note_of(const Item& item, Time now) {
  switch (item.status) {
    case Status::pending:
      if (!item.waiting_for.empty()) return "for " + joined(item.waiting_for);
      if (item.scheduled_at && *item.scheduled_at > now)
        return relative(*item.scheduled_at, now) +
               (item.error_message.empty() ? "" : ", after: " + item.error_message);
      return item.error_message;
    case Status::processing:
      return item.lease_owner + (item.lease_until && *item.lease_until <= now ? ": its lease is over" : "");
    case Status::failed: return item.error_message;
    case Status::completed:
    case Status::cancelled: return item.completed_at ? relative(*item.completed_at, now) : "";
  }
  return {};
}

// At most `columns` characters, not bytes.
std::string cut(std::string text, std::size_t columns) {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && ++seen > columns) return text.substr(0, i);
  return text;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result(text);
  std::ranges::replace_if(
      result, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '.');
  return result;
}

std::string item_json(const Item& item) {
  std::string text;
  queue::ItemWriter writer(queue::ItemFormat::json_lines, [&](std::string_view piece) -> Result<void> {
    text += piece;
    return {};
  });
  if (!writer.write(item) || !writer.finish()) return {};
  while (text.ends_with('\n')) text.pop_back();
  if (!item.waiting_for.empty() && text.ends_with('}')) {
    text.pop_back();
    text +=
        ",\"waiting_for\":" + json::serialize(json::array(item.waiting_for.begin(), item.waiting_for.end())) +
        ",\"dependency_failed\":" + (item.dependency_failed ? "true" : "false") + "}";
  }
  return text;
}

std::string lease_json(const queue::Lease& lease) {
  return "{\"lease\":" + json::serialize(json::value(lease_text(lease.key()))) + ",\"until\":\"" +
         queue::format_time(lease.until) + "\"," + item_json(lease.item).substr(1);
}

std::string stats_json(const queue::Stats& s, const std::string& queue) {
  const auto counts = [](const queue::Counts& c) {
    return json::object{{"total", c.total()},       {"pending", c.pending}, {"processing", c.processing},
                        {"completed", c.completed}, {"failed", c.failed},   {"cancelled", c.cancelled}};
  };
  const auto seconds = [](const std::optional<queue::Duration>& d) {
    return d ? json::value(std::chrono::duration<double>(*d).count()) : json::value(nullptr);
  };
  auto object = counts(s.counts);
  object["scheduled"] = s.scheduled;
  object["waiting"] = s.waiting;
  object["oldest_pending_age_s"] = seconds(s.oldest_pending_age);
  object["claim_latency_p50_s"] = seconds(s.claim_latency_p50);
  object["claim_latency_p99_s"] = seconds(s.claim_latency_p99);
  object["claim_latency_max_s"] = seconds(s.claim_latency_max);
  object["paused"] = s.paused;
  object["max_size"] = s.max_size ? json::value(*s.max_size) : json::value(nullptr);
  json::object types;
  for (const auto& [type, of_type] : s.by_type) types[type] = counts(of_type);
  object["by_type"] = std::move(types);
  object["queue"] = queue;
  return json::serialize(object);
}

std::vector<std::string> item_table(std::span<const Item> items, Time now, std::size_t columns) {
  std::size_t id_width = 13;
  std::size_t type_width = 4;
  for (const auto& item : items) {
    id_width = std::max(id_width, item.id.size());
    type_width = std::max(type_width, std::min<std::size_t>(item.type.size(), 24));
  }
  const auto row = [&](const std::string& id, const std::string& type, const std::string& state,
                       const std::string& priority, const std::string& tries, const std::string& age,
                       const std::string& note) {
    const auto left = [](std::string text, std::size_t width) {
      text.append(width - std::min(width, text.size()), ' ');
      return text + "  ";
    };
    const auto right = [](const std::string& text, std::size_t width) {
      return std::string(width - std::min(width, text.size()), ' ') + text + "  ";
    };
    auto line = left(id, id_width) + left(cut(printable(type), 24), type_width) + left(state, 10) +
                right(priority, 4) + right(tries, 5) + left(age, 12) + printable(note);
    line.erase(line.find_last_not_of(' ') + 1);
    return columns ? cut(std::move(line), columns) : line;
  };
  std::vector<std::string> rows{row("ID", "TYPE", "STATE", "PRIO", "TRIES", "AGE", "")};
  for (const auto& item : items) {
    rows.push_back(row(item.id, item.type, state_of(item, now), std::to_string(item.priority),
                       std::to_string(item.retry_count) + "/" + std::to_string(item.max_retries),
                       age_text(std::chrono::duration_cast<std::chrono::milliseconds>(now - item.created_at)),
                       note_of(item, now)));
  }
  return rows;
}

std::vector<std::string> item_sheet(const Item& item, Time now) {
  std::vector<std::string> lines;
  const auto line = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) lines.push_back(std::string(name) + std::string(14 - name.size(), ' ') + value);
  };
  const auto time = [&](std::string_view name, const std::optional<Time>& value) {
    if (value) line(name, at(*value, now));
  };
  line("id", item.id);
  line("queue", item.queue);
  line("type", printable(item.type));
  line("state", state_of(item, now));
  line("priority", std::to_string(item.priority));
  line("attempts", std::to_string(item.retry_count) + " failed of " + std::to_string(item.max_retries) +
                       (item.status == Status::processing ? ", one is running" : ""));
  time("created", item.created_at);
  time("scheduled", item.scheduled_at);
  time("started", item.started_at);
  time("finished", item.completed_at);
  line("worker", printable(item.lease_owner));
  time("lease until", item.lease_until);
  line("error", printable(item.error_message));
  line("unique key", printable(item.unique_key));
  line("depends on", joined(item.depends_on));
  if (!item.waiting_for.empty())
    line("waits for", joined(item.waiting_for) +
                          (item.dependency_failed ? "; one of them has failed: retry that one" : ""));
  line("payload", printable(item.payload));
  if (item.metadata != "{}") line("metadata", printable(item.metadata));
  line("result", printable(item.result));
  return lines;
}

std::vector<std::string> stats_sheet(const queue::Stats& s, const std::string& queue) {
  std::vector<std::string> lines;
  lines.push_back("queue " + queue +
                  (s.paused ? ", paused: nothing is claimed until 'fulmar queue resume'" : "") +
                  (s.max_size ? ", " + std::to_string(s.counts.live()) + " of at most " +
                                    std::to_string(*s.max_size) + " live items"
                              : ""));
  const auto claimable = s.counts.pending - std::min(s.counts.pending, s.scheduled + s.waiting);
  std::string pending = std::to_string(s.counts.pending);
  if (s.scheduled || s.waiting) {
    pending += " (" + std::to_string(claimable) + " ready";
    if (s.scheduled) pending += ", " + std::to_string(s.scheduled) + " scheduled";
    if (s.waiting) pending += ", " + std::to_string(s.waiting) + " waiting for others";
    pending += ")";
  }
  if (s.oldest_pending_age)
    pending += "; the oldest ready for " +
               age_text(std::chrono::duration_cast<std::chrono::milliseconds>(*s.oldest_pending_age));
  const auto line = [&](std::string_view name, const std::string& value) {
    lines.push_back("  " + std::string(name) + std::string(12 - name.size(), ' ') + value);
  };
  line("pending", pending);
  line("processing", std::to_string(s.counts.processing));
  line("completed", std::to_string(s.counts.completed));
  line("failed", std::to_string(s.counts.failed));
  line("cancelled", std::to_string(s.counts.cancelled));
  if (s.claim_latency_p50)
    line("claimed in", in_ms(*s.claim_latency_p50) + " (median), " +
                           in_ms(s.claim_latency_p99.value_or(0us)) + " (p99), " +
                           in_ms(s.claim_latency_max.value_or(0us)) + " at most");
  if (s.by_type.size() < 2) return lines;
  std::size_t width = 4;
  for (const auto& [type, counts] : s.by_type)
    width = std::max(width, std::min<std::size_t>(type.size(), 30));
  const auto row = [&](std::string type, const std::array<std::string, 5>& cells) {
    type.resize(std::max(width, type.size()), ' ');
    std::string text = "  " + type;
    for (const auto& cell : cells)
      text += std::string(12 - std::min<std::size_t>(cell.size(), 12), ' ') + cell;
    lines.push_back(std::move(text));
  };
  lines.emplace_back();
  row("TYPE", {"PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"});
  for (const auto& [type, c] : s.by_type)
    row(cut(printable(type), 30),
        {std::to_string(c.pending), std::to_string(c.processing), std::to_string(c.completed),
         std::to_string(c.failed), std::to_string(c.cancelled)});
  return lines;
}

}  // namespace fulmar::cli
