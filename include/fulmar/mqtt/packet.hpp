#pragma once
// The packets of MQTT 3.1.1 and 5.0 as views: what the decoder gives and the encoder takes.
// Nothing is owned: a decoded view points into the received bytes. Fields of 5.0 are empty in 3.1.1.
//
// Thread-safety: plain values.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <variant>

#include "fulmar/mqtt/decode_error.hpp"
#include "fulmar/mqtt/properties.hpp"
#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

struct WillView {
  std::string_view topic;
  BytesView payload;
  PropertiesView properties;
  QoS qos = QoS::at_most_once;
  bool retain = false;
};

struct ConnectView {
  ProtocolVersion version = ProtocolVersion::v5;
  bool clean_start = false;
  std::uint16_t keepalive_s = 0;
  PropertiesView properties;
  std::string_view client_id;
  std::optional<WillView> will;
  std::optional<std::string_view> username;
  std::optional<BytesView> password;
};

struct ConnackView {
  bool session_present = false;
  std::uint8_t code = 0;  // 3.1.1: return code 0..5; 5.0: reason code
  PropertiesView properties;
};

struct PublishView {
  std::string_view topic;
  BytesView payload;
  PropertiesView properties;
  std::uint16_t packet_id = 0;  // 0 for QoS 0
  QoS qos = QoS::at_most_once;
  bool retain = false;
  bool dup = false;
};

// PUBACK, PUBREC, PUBREL and PUBCOMP, told apart by `type`.
struct AckView {
  PacketType type = PacketType::puback;
  std::uint16_t packet_id = 0;
  ReasonCode reason = ReasonCode::success;  // 5.0
  PropertiesView properties;
};

enum class RetainHandling : std::uint8_t { send = 0, send_if_new = 1, do_not_send = 2 };

struct SubscriptionRequest {
  std::string_view filter;
  QoS qos = QoS::at_most_once;
  bool no_local = false;                                  // 5.0
  bool retain_as_published = false;                       // 5.0
  RetainHandling retain_handling = RetainHandling::send;  // 5.0
};

// The filters of a decoded SUBSCRIBE (`Item` = SubscriptionRequest) or UNSUBSCRIBE (`Item` = std::string_view): iterates
// over validated bytes.
template <typename Item>
class FiltersView {
 public:
  FiltersView() = default;
  FiltersView(BytesView encoded, std::size_t count) : encoded_(encoded), count_(count) {}

  class Iterator {
   public:
    explicit Iterator(BytesView rest) : rest_(rest) {
      if (!rest_.empty()) read();
    }
    const Item& operator*() const { return item_; }
    Iterator& operator++() {
      rest_ = rest_.subspan(size_);
      if (!rest_.empty()) read();
      return *this;
    }
    bool operator==(std::default_sentinel_t) const { return rest_.empty(); }

   private:
    void read();

    BytesView rest_;
    std::size_t size_ = 0;
    Item item_{};
  };

  Iterator begin() const { return Iterator(encoded_); }
  std::default_sentinel_t end() const { return {}; }
  std::size_t size() const { return count_; }
  BytesView encoded() const { return encoded_; }

 private:
  BytesView encoded_;
  std::size_t count_ = 0;
};
template <>
void FiltersView<SubscriptionRequest>::Iterator::read();
template <>
void FiltersView<std::string_view>::Iterator::read();

struct SubscribeView {
  std::uint16_t packet_id = 0;
  PropertiesView properties;
  FiltersView<SubscriptionRequest> filters;
};

struct UnsubscribeView {
  std::uint16_t packet_id = 0;
  PropertiesView properties;
  FiltersView<std::string_view> filters;
};

// SUBACK or UNSUBACK: a code per filter of the request. UNSUBACK has none in 3.1.1.
struct SubackView {
  PacketType type = PacketType::suback;
  std::uint16_t packet_id = 0;
  PropertiesView properties;
  BytesView codes;

  ReasonCode code(std::size_t index) const { return static_cast<ReasonCode>(codes[index]); }
};

struct DisconnectView {
  ReasonCode reason = ReasonCode::success;  // 5.0
  PropertiesView properties;
};

struct AuthView {  // 5.0
  ReasonCode reason = ReasonCode::success;
  PropertiesView properties;
};

struct PingreqView {};
struct PingrespView {};

using PacketView = std::variant<ConnectView, ConnackView, PublishView, AckView, SubscribeView, SubackView,
                                UnsubscribeView, PingreqView, PingrespView, DisconnectView, AuthView>;

// A SUBSCRIBE or UNSUBSCRIBE to be encoded.
struct SubscribePacket {
  std::uint16_t packet_id = 0;
  PropertiesView properties;
  std::span<const SubscriptionRequest> filters;
};

struct UnsubscribePacket {
  std::uint16_t packet_id = 0;
  PropertiesView properties;
  std::span<const std::string_view> filters;
};

}  // namespace fulmar::mqtt
