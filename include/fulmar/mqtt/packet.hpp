#pragma once
// The packets of MQTT 3.1.1 and 5.0 as views, and their decoder.

#include <cstdint>
#include <string_view>

#include "fulmar/mqtt/types.hpp"

namespace fulmar::mqtt {

enum class DecodeError : std::uint8_t { none, /* one per rule */ };

// MQTT 5.0 properties of one packet, already validated; iterates over the encoded bytes.
class PropertiesView {
 public:
  PropertiesView() = default;
  explicit PropertiesView(BytesView encoded) : encoded_(encoded) {}
  BytesView encoded() const { return encoded_; }
  bool empty() const { return encoded_.empty(); }

 private:
  BytesView encoded_;
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

}  // namespace fulmar::mqtt
