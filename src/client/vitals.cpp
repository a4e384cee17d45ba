#include "client/vitals.hpp"

#include <algorithm>
#include <utility>

namespace fulmar {

namespace {

void append_member(std::string& out, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  out += ",\"";
  out += name;
  out += "\":";
  append_json_text(out, value);
}

void append_timestamp(std::string& out, WallTime wall) {
  out += ",\"timestamp\":";
  append_json_seconds(out, seconds_of(wall));
  out += '}';
}

}  // namespace

std::string health_topic(std::string_view client_id) { return "system/health/" + std::string(client_id); }
std::string heartbeat_topic(std::string_view client_id) {
  return "system/keepalive/" + std::string(client_id);
}

std::string_view source_of(const ClientConfig& config) {
  return config.source_name.empty() ? config.client_id : config.source_name;
}

Result<std::string> health_payload(std::string_view source, bool ok, std::string_view event,
                                   std::string_view error, WallTime wall) {
  if (!ok && event.empty() && error.empty()) {
    return fail(Errc::invalid_envelope, "health with ok = false needs an event or an error that says why");
  }
  std::string data = ok ? "{\"ok\":true" : "{\"ok\":false";
  append_member(data, "event", event);
  append_member(data, "err", error);
  append_timestamp(data, wall);
  const auto id = new_ulid();
  return write_envelope(
      {.id = id, .type = "health.status", .ts = seconds_of(wall), .source = source, .data = data});
}

Vitals::Vitals(const ClientConfig& config, Sink sink)
    : config_(config),
      sink_(std::move(sink)),
      health_topic_(health_topic(config.client_id)),
      heartbeat_topic_(heartbeat_topic(config.client_id)) {}

std::optional<WillMessage> Vitals::will(WallTime wall) const {
  if (config_.will || !config_.enable_health) return config_.will;
  auto payload = health_payload(source_of(config_), false, "lost", {}, wall);
  if (!payload) return std::nullopt;  // the source is UTF-8: ClientConfig::problems()
  WillMessage lost;
  lost.topic = health_topic_;
  lost.payload = std::move(*payload);
  lost.qos = QoS::at_least_once;
  lost.retain = true;
  return lost;
}

void Vitals::connected(Instant now, WallTime wall) {
  connected_ = true;
  beating_ = false;
  last_sent_ = now;
  publish_health(true, std::exchange(was_connected_, true) ? "reconnected" : "ready", wall);
  if (!config_.enable_heartbeat) return;
  next_beat_ = now;
  beat(now, wall);
}

void Vitals::disconnected() { connected_ = beating_ = false; }

void Vitals::leaving(WallTime wall) {
  if (connected_) publish_health(true, "shutdown", wall);
}

void Vitals::heartbeat_sent(Instant now) {
  if (!beating_) return;  // of a link before this one
  beating_ = false;
  last_sent_ = now;
}

std::optional<Vitals::Instant> Vitals::next_timeout() const {
  if (!connected_ || !config_.enable_heartbeat) return std::nullopt;
  const auto given_up = last_sent_ + patience();
  return beating_ ? given_up : std::min(next_beat_, given_up);
}

void Vitals::on_timeout(Instant now, WallTime wall) {
  if (!connected_ || !config_.enable_heartbeat || beating_ || now < next_beat_ || must_reconnect(now)) return;
  beat(now, wall);
}

bool Vitals::must_reconnect(Instant now) const {
  return connected_ && config_.enable_heartbeat && now - last_sent_ >= patience();
}

void Vitals::publish_health(bool ok, std::string_view event, WallTime wall) {
  if (!config_.enable_health) return;
  if (const auto payload = health_payload(source_of(config_), ok, event, {}, wall))
    sink_({health_topic_, *payload, QoS::at_least_once, true, false});
}

void Vitals::beat(Instant now, WallTime wall) {
  const auto interval = config_.heartbeat_interval;
  const auto behind = (now - next_beat_) / interval;  // whole intervals that were missed
  next_beat_ += (behind + 1) * interval;
  std::string payload = R"({"ok":true,"event":"heartbeat")";
  append_timestamp(payload, wall);
  // Before the call: the sink may say at once that it was sent.
  beating_ = true;
  if (!sink_({heartbeat_topic_, payload, QoS::at_most_once, false, true})) {
    beating_ = false;
    last_sent_ = now;
  }
}

}  // namespace fulmar
