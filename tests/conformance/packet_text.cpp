#include "tests/conformance/packet_text.hpp"

#include <array>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace fulmar::mqtt {
namespace {

using std::string;

constexpr std::array<std::string_view, decode_error_count> error_names = {
    "none",
    "packet_type_reserved",
    "header_flags_reserved",
    "length_not_minimal",
    "length_over_four_bytes",
    "packet_too_large",
    "truncated",
    "trailing_bytes",
    "integer_not_minimal",
    "integer_over_four_bytes",
    "string_not_utf8",
    "string_contains_null",
    "packet_id_zero",
    "property_unknown",
    "property_misplaced",
    "property_of_other_side",
    "property_repeated",
    "property_value_invalid",
    "property_length_wrong",
    "authentication_data_without_method",
    "response_topic_invalid",
    "qos_reserved",
    "dup_at_qos_0",
    "topic_empty",
    "topic_contains_wildcard",
    "topic_alias_zero",
    "protocol_name_unknown",
    "protocol_version_unknown",
    "connect_flags_reserved",
    "will_flags_without_will",
    "will_qos_reserved",
    "password_without_username",
    "client_id_empty",
    "connack_flags_reserved",
    "session_present_on_refusal",
    "no_filters",
    "filter_invalid",
    "subscription_options_reserved",
    "subscription_qos_reserved",
    "retain_handling_reserved",
    "no_local_on_shared",
    "no_codes",
    "reason_code_unknown",
    "packet_unexpected",
    "packet_before_connack",
    "connack_repeated",
    "session_present_after_clean_start",
    "session_present_without_state",
    "topic_alias_above_maximum",
    "topic_alias_not_mapped",
    "receive_maximum_exceeded",
    "packet_id_of_other_qos",
    "codes_do_not_match_filters",
    "auth_without_method",
    "auth_method_differs",
    "auth_code_unexpected",
    "problem_information_not_requested",
    "acknowledgements_flood",
};

constexpr std::pair<PropertyId, std::string_view> property_names[] = {
    {PropertyId::payload_format_indicator, "payload_format_indicator"},
    {PropertyId::message_expiry_interval, "message_expiry_interval"},
    {PropertyId::content_type, "content_type"},
    {PropertyId::response_topic, "response_topic"},
    {PropertyId::correlation_data, "correlation_data"},
    {PropertyId::subscription_identifier, "subscription_identifier"},
    {PropertyId::session_expiry_interval, "session_expiry_interval"},
    {PropertyId::assigned_client_identifier, "assigned_client_identifier"},
    {PropertyId::server_keep_alive, "server_keep_alive"},
    {PropertyId::authentication_method, "authentication_method"},
    {PropertyId::authentication_data, "authentication_data"},
    {PropertyId::request_problem_information, "request_problem_information"},
    {PropertyId::will_delay_interval, "will_delay_interval"},
    {PropertyId::request_response_information, "request_response_information"},
    {PropertyId::response_information, "response_information"},
    {PropertyId::server_reference, "server_reference"},
    {PropertyId::reason_string, "reason_string"},
    {PropertyId::receive_maximum, "receive_maximum"},
    {PropertyId::topic_alias_maximum, "topic_alias_maximum"},
    {PropertyId::topic_alias, "topic_alias"},
    {PropertyId::maximum_qos, "maximum_qos"},
    {PropertyId::retain_available, "retain_available"},
    {PropertyId::user_property, "user_property"},
    {PropertyId::maximum_packet_size, "maximum_packet_size"},
    {PropertyId::wildcard_subscription_available, "wildcard_subscription_available"},
    {PropertyId::subscription_identifier_available, "subscription_identifier_available"},
    {PropertyId::shared_subscription_available, "shared_subscription_available"},
};

string render(const PropertiesView& properties) {
  if (properties.empty()) return "";
  string text = " {";
  for (const auto& property : properties) {
    if (text.size() > 2) text += ' ';
    text += string(name_of(property.id)) + '=';
    switch (kind_of(property.id)) {
      case PropertyKind::string_pair:
        text += in_quotes(property.name) + ':' + in_quotes(property.text);
        break;
      case PropertyKind::string:
      case PropertyKind::binary: text += in_quotes(property.text); break;
      default: text += std::to_string(property.number); break;
    }
  }
  return text + '}';
}

string flag(bool set, const char* name) { return set ? string(" ") + name : string(); }
string number(const char* name, std::uint64_t value) {
  return string(" ") + name + '=' + std::to_string(value);
}
string qos_text(QoS qos) { return number("qos", static_cast<unsigned>(qos)); }
string code_text(unsigned code) { return " code=" + hex_byte(code); }

struct Renderer {
  ProtocolVersion version;

  string operator()(const ConnectView& p) const {
    string text = p.version == ProtocolVersion::v5 ? "CONNECT 5" : "CONNECT 3.1.1";
    text += flag(p.clean_start, "clean") + number("keepalive", p.keepalive_s) +
            " client=" + in_quotes(p.client_id);
    text += render(p.properties);
    if (p.will) {
      text += " will(" + qos_text(p.will->qos).substr(1) + flag(p.will->retain, "retain") +
              " topic=" + in_quotes(p.will->topic) + " payload=" + in_quotes(as_text(p.will->payload)) +
              render(p.will->properties) + ')';
    }
    if (p.username) text += " user=" + in_quotes(*p.username);
    if (p.password) text += " password=" + in_quotes(as_text(*p.password));
    return text;
  }
  string operator()(const ConnackView& p) const {
    return "CONNACK" + flag(p.session_present, "session") + code_text(p.code) + render(p.properties);
  }
  string operator()(const PublishView& p) const {
    return "PUBLISH" + qos_text(p.qos) + flag(p.dup, "dup") + flag(p.retain, "retain") +
           (p.qos == QoS::at_most_once ? "" : number("id", p.packet_id)) + " topic=" + in_quotes(p.topic) +
           " payload=" + in_quotes(as_text(p.payload)) + render(p.properties);
  }
  string operator()(const AckView& p) const {
    return string(to_string(p.type)) + number("id", p.packet_id) + code(p.reason) + render(p.properties);
  }
  string operator()(const SubscribeView& p) const {
    string text = "SUBSCRIBE" + number("id", p.packet_id) + render(p.properties);
    for (const auto& item : p.filters) {
      text += ' ' + in_quotes(item.filter) + qos_text(item.qos) + flag(item.no_local, "no_local") +
              flag(item.retain_as_published, "as_published");
      if (item.retain_handling != RetainHandling::send) {
        text += number("handling", static_cast<unsigned>(item.retain_handling));
      }
    }
    return text;
  }
  string operator()(const UnsubscribeView& p) const {
    string text = "UNSUBSCRIBE" + number("id", p.packet_id) + render(p.properties);
    for (const auto filter : p.filters) text += ' ' + in_quotes(filter);
    return text;
  }
  string operator()(const SubackView& p) const {
    string text = string(to_string(p.type)) + number("id", p.packet_id) + render(p.properties);
    for (std::size_t i = 0; i < p.codes.size(); ++i) text += ' ' + hex_byte(static_cast<unsigned>(p.code(i)));
    return text;
  }
  string operator()(const DisconnectView& p) const {
    return "DISCONNECT" + code(p.reason) + render(p.properties);
  }
  string operator()(const AuthView& p) const { return "AUTH" + code(p.reason) + render(p.properties); }
  string operator()(PingreqView) const { return "PINGREQ"; }
  string operator()(PingrespView) const { return "PINGRESP"; }

  string code(ReasonCode reason) const {
    return version == ProtocolVersion::v5 ? code_text(static_cast<unsigned>(reason)) : "";
  }
};

struct EventRenderer {
  string operator()(std::monostate) const { return "nothing"; }
  string operator()(const Connected& e) const {
    string text = "connected" + flag(e.session_present, "session");
    if (!e.assigned_client_id.empty()) text += " client=" + in_quotes(e.assigned_client_id);
    return text + render(e.properties);
  }
  string operator()(const Refused& e) const {
    return string("refused") + (e.version == ProtocolVersion::v5 ? " 5" : " 3.1.1") + code_text(e.code) +
           render(e.properties);
  }
  string operator()(const Received& e) const {
    return "received " + Renderer{ProtocolVersion::v5}(e.message);
  }
  string operator()(const Completed& e) const {
    static constexpr const char* outcomes[] = {"sent", "acknowledged", "refused", "expired"};
    return "completed" + number("token", e.token) + ' ' + outcomes[static_cast<std::size_t>(e.outcome)] +
           code_text(static_cast<unsigned>(e.reason));
  }
  string operator()(const SubscriptionAcknowledged& e) const {
    string text = (e.unsubscribe ? "unsubscribed" : "subscribed") + number("token", e.token);
    for (const auto reason : e.codes) text += ' ' + hex_byte(static_cast<unsigned>(reason));
    return text + render(e.properties);
  }
  string operator()(const Closing& e) const {
    const auto reason = ' ' + hex_byte(static_cast<unsigned>(e.reason));
    switch (e.by) {
      case Closing::By::protocol_violation: return "violation " + string(name_of(e.rule)) + reason;
      case Closing::By::server_disconnect: return "server_disconnect" + reason + render(e.properties);
      case Closing::By::keep_alive: return "keep_alive" + reason;
      case Closing::By::us: return "disconnected" + reason;
    }
    return "?";
  }
  string operator()(const PubrecReceived& e) const { return "pubrec_received" + number("token", e.token); }
  string operator()(const Authentication& e) const {
    return "authentication" + code_text(static_cast<unsigned>(e.reason)) + render(e.properties);
  }
};

}  // namespace

string render(const PacketView& packet, ProtocolVersion version) {
  return std::visit(Renderer{version}, packet);
}
string render(const Event& event) { return std::visit(EventRenderer(), event); }

string in_quotes(std::string_view text) {
  string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c >= ' ' && c <= '~') {
      result += c;
    } else {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      result += escape;
    }
  }
  return result + '"';
}

string hex_byte(unsigned value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%02x", value);
  return text;
}

std::string_view name_of(DecodeError error) { return error_names.at(static_cast<std::size_t>(error)); }

std::string_view name_of(PropertyId id) {
  for (const auto& [known, name] : property_names) {
    if (known == id) return name;
  }
  return "unknown_property";
}

DecodeError decode_error_named(std::string_view name) {
  for (std::size_t i = 0; i < error_names.size(); ++i) {
    if (error_names[i] == name) return static_cast<DecodeError>(i);
  }
  throw std::invalid_argument("no DecodeError is named \"" + string(name) + '"');
}

}  // namespace fulmar::mqtt
