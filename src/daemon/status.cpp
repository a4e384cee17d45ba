#include "daemon/status.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace fulmar::daemon {
namespace {

std::string uptime_text(std::chrono::seconds time) {
  const auto s = time.count();
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

std::string connection_text(const StatusSnapshot& s) {
  const std::string_view state = to_string(s.state);
  if (s.reason.starts_with(state)) return s.reason;
  return s.reason.empty() ? std::string(state) : fmt::format("{}: {}", state, s.reason);
}

std::string broker_text(const StatusSnapshot& s) {
  if (!s.broker) return s.url;
  const std::string pid = s.broker->pid < 0 ? "down" : fmt::format("pid {}", s.broker->pid);
  return fmt::format("{} (our own, {}, {} restart{})", s.url, pid, s.broker->restarts,
                     s.broker->restarts == 1 ? "" : "s");
}

std::string dropped_text(const TelemetryStats::Dropped& d) {
  std::string reasons;
  const auto add = [&](std::string_view what, std::uint64_t n) {
    if (n) reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", what, n);
  };
  add("queue full", d.queue_full);
  add("refused", d.refused);
  add("not delivered before the end", d.undelivered);
  add("empty", d.empty);
  return reasons.empty() ? fmt::format("{}", d.total()) : fmt::format("{} ({})", d.total(), reasons);
}

std::string waiting_text(const TelemetryStats& t) {
  if (t.oldest_unsent_age < std::chrono::seconds(2))
    return fmt::format("{}", t.waiting);  // a batch on its way
  return fmt::format("{} (the oldest for {})", t.waiting, show_duration(t.oldest_unsent_age));
}

// Rates people can read: 10.0, 1234.
std::string rate(double per_s) {
  return per_s < 100 ? fmt::format("{:.1f}", per_s) : fmt::format("{:.0f}", per_s);
}

std::string disk_text(const StatusSnapshot::Disk& disk, const Metrics& m) {
  std::string text = fmt::format("{} message{}", m.spool_messages, m.spool_messages == 1 ? "" : "s");
  if (m.spool_messages > 0 && m.spool_oldest_age >= std::chrono::seconds(2))
    text += fmt::format(", the oldest for {}", show_duration(m.spool_oldest_age));
  text += fmt::format("   files {} of {}", show_bytes(m.spool_bytes), show_bytes(disk.bytes_max));
  if (disk.sent_per_s > 0) text += fmt::format("   sending {}/s", rate(disk.sent_per_s));
  if (m.dropped_spool > 0) text += fmt::format("   dropped {}", m.dropped_spool);
  return text + (m.spool_failing ? "   FAILING: new messages wait in memory" : "");
}

std::string cost_text(std::uint64_t ns) { return show_duration(std::chrono::nanoseconds(ns)); }

std::string input_text(const StatusSnapshot::Input& input) {
  const auto& s = input.stats;
  std::string text = input.path == "-" ? "standard input" : input.path;
  if (s.bytes_total > 0)
    text +=
        fmt::format("   {:.0f}%", 100 * static_cast<double>(s.bytes) / static_cast<double>(s.bytes_total));
  text += fmt::format("   line {}   bad lines {}", s.lines, s.bad_lines);
  return text + (s.failure ? "   failed" : s.ended ? "   at its end" : "");
}

std::string work_text(const QueueKeeper::Status& w) {
  if (!w.known) return w.trouble.empty() ? "not opened yet" : w.trouble;
  const auto& c = w.stats.counts;
  std::string text = fmt::format("{}   pending {}", w.name, c.pending);
  if (w.stats.scheduled) text += fmt::format(" ({} scheduled)", w.stats.scheduled);
  if (w.stats.oldest_pending_age && *w.stats.oldest_pending_age >= std::chrono::seconds(2))
    text += fmt::format(" (the oldest for {})", show_duration(*w.stats.oldest_pending_age));
  text += fmt::format("   processing {}   completed {}   failed {}   cancelled {}", c.processing, c.completed,
                      c.failed, c.cancelled);
  if (w.expired) text += fmt::format("   leases expired {}", w.expired);
  if (w.stats.paused) text += "   PAUSED";
  return text + (w.trouble.empty() ? "" : "   NOT ANSWERING: " + w.trouble);
}

}  // namespace

std::string fit(std::string_view text, std::size_t columns) {
  std::string out;
  std::size_t used = 0, last_start = 0;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t length = 1;
    while (i + length < text.size() && (static_cast<unsigned char>(text[i + length]) & 0xc0) == 0x80)
      ++length;
    if (used == columns) {
      if (columns == 0) return out;
      out.resize(last_start);
      return out + "…";
    }
    last_start = out.size();
    const auto first = static_cast<unsigned char>(text[i]);
    const bool c1 = first == 0xc2 && length == 2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (first < 0x20 || first == 0x7f || c1)
      out += '.';
    else
      out.append(text.substr(i, length));
    ++used;
    i += length;
  }
  return out;
}

std::string show_duration(std::chrono::nanoseconds duration) {
  const auto ns = static_cast<double>(duration.count());
  const auto digits = [](double value, std::string_view unit) {
    const int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
    return fmt::format("{:.{}f} {}", value, decimals, unit);
  };
  if (ns < 1e3) return digits(ns, "ns");
  if (ns < 1e6) return digits(ns / 1e3, "us");
  if (ns < 1e9) return digits(ns / 1e6, "ms");
  return digits(ns / 1e9, "s");
}

std::string show_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array<std::string_view, 4> units{"KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (value /= 1024; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::vector<std::string> render_screen(const StatusSnapshot& s, std::size_t columns, std::size_t rows) {
  const TelemetryStats& t = s.telemetry;
  const auto& p = s.host.period;
  std::vector<std::string> lines;
  const auto line = [&](std::string_view label, const std::string& text) {
    lines.push_back(fmt::format("{:<12} {}", label, text));
  };
  lines.push_back(fmt::format("fulmard {}   up {}", s.version, uptime_text(s.uptime)));
  line("broker", broker_text(s));
  line("connection", fmt::format("{} (for {})", connection_text(s), uptime_text(s.since)));
  line("records",
       fmt::format("{}/s   recorded {}   acknowledged {}{}   waiting {}   dropped {}", rate(s.records_per_s),
                   t.recorded, t.messages_sent, s.disk ? fmt::format("   stored {}", t.offline_stored) : "",
                   waiting_text(t), dropped_text(t.dropped)));
  // The client's figures: they have the batches from its disk too, of which telemetry hears no more.
  line("batches", fmt::format("{}/s   acknowledged {}   refused {}", rate(s.batches_per_s),
                              s.client.acknowledged, s.client.refused));
  line("queue", fmt::format("{} of {} records{}", t.queue_size, t.queue_max,
                            t.blocked ? "   (the client's outbox is full: batches wait)" : ""));
  line("outbox",
       fmt::format("{} batches, {} of {}   in flight {}", s.client.outbox_messages,
                   show_bytes(s.client.outbox_bytes), show_bytes(s.outbox_bytes_max), s.client.in_flight));
  if (s.disk) line("on disk", fmt::format("{}   {}", disk_text(*s.disk, s.client), s.disk->folder));
  if (s.input)
    line("input", input_text(*s.input));
  else
    line("sampling",
         fmt::format("target {}   p50 {}   p99.9 {}   max {}   missed {}",
                     show_duration(std::chrono::nanoseconds(std::llround(s.host.target_s * 1e9))),
                     show_duration(p.p50), show_duration(p.p999), show_duration(p.max), s.host.missed));
  if (s.work) line("work queue", work_text(*s.work));
  if (const auto& cost = t.enqueue_ns; cost.count() > 0)
    line("record()", fmt::format("p50 <= {}   p99.9 <= {}   ({} calls timed)", cost_text(cost.quantile(0.5)),
                                 cost_text(cost.quantile(0.999)), cost.count()));
  line("last batch", t.last_batch.empty() ? std::string("none yet")
                                          : fmt::format("{} records, {}: {}", t.last_batch_records,
                                                        show_bytes(t.last_batch_bytes), t.last_batch));
  if (!s.events.empty()) lines.emplace_back();
  for (const std::string& event : s.events) lines.push_back(event);
  lines.emplace_back();
  lines.emplace_back("Ctrl-C stops");

  if (lines.size() > rows) lines.resize(rows);
  for (std::string& text : lines) text = fit(text, columns);
  return lines;
}

std::string render_line(const StatusSnapshot& s) {
  const TelemetryStats& t = s.telemetry;
  const std::string source =
      s.input ? "input " + input_text(*s.input)
              : fmt::format("period p50 {} p99.9 {} max {} (target {})", show_duration(s.host.period.p50),
                            show_duration(s.host.period.p999), show_duration(s.host.period.max),
                            show_duration(std::chrono::nanoseconds(std::llround(s.host.target_s * 1e9))));
  return fmt::format(
      "{}; {} records/s, {} batches/s; recorded {}, acknowledged {}, {}waiting {}, dropped {}; "
      "queue {}/{}, outbox {}/{}, in flight {}{}; {}{}; last batch {}",
      to_string(s.state), rate(s.records_per_s), rate(s.batches_per_s), t.recorded, t.messages_sent,
      s.disk ? fmt::format("stored {}, ", t.offline_stored) : "", waiting_text(t), t.dropped.total(),
      t.queue_size, t.queue_max, show_bytes(s.client.outbox_bytes), show_bytes(s.outbox_bytes_max),
      s.client.in_flight, s.disk ? "; on disk " + disk_text(*s.disk, s.client) : "", source,
      s.work ? "; work queue " + work_text(*s.work) : "",
      t.last_batch.empty()
          ? "none"
          : fmt::format("{} records, {}", t.last_batch_records, show_bytes(t.last_batch_bytes)));
}

std::string render_totals(const TelemetryStats& t) {
  return fmt::format("recorded {} = acknowledged {} + stored {} + waiting {} + dropped {}", t.recorded,
                     t.messages_sent, t.offline_stored, t.waiting, dropped_text(t.dropped));
}

}  // namespace fulmar::daemon
