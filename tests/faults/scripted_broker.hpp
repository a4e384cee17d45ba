#pragma once
// ScriptedBroker: an MQTT server that does right by default and wrong where a test's script says so.
//
// By default it keeps sessions (unless told not to), answers everything that a client sends, delivers each QoS 2 message
// once [MQTT-4.3.3-2], and routes nothing: messages to the client come from the test through Link::publish(). What the
// client publishes is written into ledger().
//
// Thread-safety: every function of ScriptedBroker from any thread. Scripts and Link live on the broker's thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "fulmar/mqtt/codec.hpp"
#include "tests/faults/ledger.hpp"
#include "tests/faults/socket.hpp"

namespace fulmar::test {

// 5.0 properties in a buffer of their own.
class Properties {
 public:
  Properties& add(mqtt::PropertyId id, std::uint32_t number);
  Properties& add(mqtt::PropertyId id, std::string_view text);
  mqtt::PropertiesView view() const { return mqtt::PropertiesView(BytesView(encoded_)); }

 private:
  template <typename Value>
  Properties& append(mqtt::PropertyId id, Value value);
  std::vector<std::byte> encoded_;
};

class ScriptedBroker {
 public:
  // What the server remembers of a client.
  struct Session {
    std::set<std::uint16_t> received;  // QoS 2 identifiers, from PUBLISH to PUBREL
    std::vector<std::string> filters;  // subscribed, in order
    std::size_t subscribes = 0;        // SUBSCRIBE packets, over all connections
  };

  // One connection.
  class Link {
   public:
    std::size_t number = 0;  // of the connection, from 1
    ProtocolVersion version = ProtocolVersion::v5;
    std::string client_id;
    Session* session = nullptr;  // once CONNECT has come
    bool session_present = false;

    void send(const mqtt::PacketView& packet);
    void send_bytes(BytesView bytes);
    void send_bytes(std::vector<std::byte>&& bytes);  // does not copy them when nothing waits
    void acknowledge(mqtt::PacketType type, std::uint16_t packet_id,
                     mqtt::ReasonCode reason = mqtt::ReasonCode::success);
    void publish(std::string_view topic, std::string_view payload, QoS qos = QoS::at_most_once,
                 std::uint16_t packet_id = 0, bool dup = false);
    void disconnect(mqtt::ReasonCode reason, mqtt::PropertiesView properties = {});  // 5.0; the socket stays
    void end(Ending ending = Ending::fin);                                           // after what was sent

   private:
    friend class ScriptedBroker;
    Socket socket_;
    std::size_t waiting() const { return output_.size() - sent_; }

    std::vector<std::byte> input_, output_;
    std::size_t sent_ = 0;  // of the output
    std::optional<Ending> ending_;
    bool over_ = false;
  };

  // Sees a packet before the server does; true: the server does nothing about it.
  using Script = std::function<bool(Link&, const mqtt::PacketView&)>;

  ScriptedBroker();  // throws std::system_error
  ~ScriptedBroker();
  ScriptedBroker(const ScriptedBroker&) = delete;
  ScriptedBroker& operator=(const ScriptedBroker&) = delete;

  std::uint16_t port() const { return port_; }
  std::string url() const { return "mqtt://127.0.0.1:" + std::to_string(port_); }

  // Call these before the client connects, or be aware that the broker is at work.
  void on(mqtt::PacketType type, Script script);
  void set_connack(Properties properties);  // of the next CONNACKs
  void keep_sessions(bool keep);            // false: every connection finds a new session
  void forget_sessions();

  // Runs on the broker's thread with the newest connection that is open and greeted; false when there is none.
  bool with_link(const std::function<void(Link&)>& action);
  // with_link() as soon as there is one; false when there is none within the time.
  bool when_connected(const std::function<void(Link&)>& action,
                      std::chrono::milliseconds timeout = std::chrono::seconds(20));

  std::size_t connections() const;  // accepted so far
  std::size_t open_connections() const;
  std::size_t packets(mqtt::PacketType type) const;  // that came so far
  std::size_t malformed() const;                     // packets of the client's that broke a rule
  Ledger& ledger() { return ledger_; }

  // The server's own answer: for scripts that want it, later or twice.
  void answer(Link& link, const mqtt::PacketView& packet);

 private:
  void serve();
  void read(Link& link);
  void take(Link& link, const mqtt::PacketView& packet);
  void write(Link& link);

  void reply(Link& link, const mqtt::ConnectView& packet);
  void reply(Link& link, const mqtt::PublishView& packet);
  void reply(Link& link, const mqtt::AckView& packet);
  void reply(Link& link, const mqtt::SubscribeView& packet);
  void reply(Link& link, const mqtt::UnsubscribeView& packet);
  void reply(Link& link, mqtt::PingreqView packet);
  void reply(Link& link, const mqtt::DisconnectView& packet);
  template <typename Other>
  void reply(Link&, const Other&) {}

  Socket listener_;
  std::uint16_t port_ = 0;
  Wake wake_;
  Ledger ledger_;
  mutable std::recursive_mutex mutex_;  // all below; recursive, as scripts call back
  std::list<Link> links_;
  std::map<std::string, Session> sessions_;
  std::array<Script, 16> scripts_;
  std::array<std::size_t, 16> packets_{};
  Properties connack_;
  bool keep_sessions_ = true;
  std::size_t connections_ = 0;
  std::size_t malformed_ = 0;
  bool done_ = false;
  std::thread thread_;
};

mqtt::PacketType type_of(const mqtt::PacketView& packet);

}  // namespace fulmar::test
