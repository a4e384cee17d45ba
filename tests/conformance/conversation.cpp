#include "tests/conformance/conversation.hpp"

#include <algorithm>
#include <memory>
#include <ostream>
#include <stdexcept>

#include "fulmar/mqtt/session.hpp"
#include "mqtt/scripted_server.hpp"
#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

class Runner {
 public:
  Runner(const Conversation& conversation, ProtocolVersion version)
      : session_(config_of(conversation.config, version)) {
    open();
    if (!raw_) {
      receive(version == ProtocolVersion::v5 ? bytes("20 03 00 00 00") : bytes("20 02 00 00"));
      transcript_ = {};
    }
  }

  void receive(BytesView piece) {
    inbox_.insert(inbox_.end(), piece.begin(), piece.end());
    session_.receive(inbox_, now_);
    drain();
    inbox_.erase(inbox_.begin(), inbox_.end() - static_cast<std::ptrdiff_t>(session_.unread()));
    flush();
  }

  void act(const std::vector<std::string>& action) {
    const auto& what = action.at(0);
    const std::vector<std::string_view> words(action.begin() + 1, action.end());
    bool done = true;
    if (what == "subscribe") {
      std::vector<SubscriptionRequest> requests;
      for (const auto word : words) requests.push_back({.filter = word});
      done = session_.subscribe(requests, 0, ++token_);
    } else if (what == "unsubscribe") {
      done = session_.unsubscribe(words, ++token_);
    } else if (what == "publish") {
      RecordParts parts;
      parts.topic = "t";
      parts.qos = static_cast<QoS>(words.at(0).at(0) - '0');
      parts.payload = as_bytes(words.at(1));
      parts.sequence = parts.token = ++token_;
      done = session_.publish(OwnedRecord(parts).view());
    } else if (what == "reconnect") {
      session_.connection_closed(now_);
      inbox_.clear();
      open();
    } else if (what == "authenticate") {
      done = session_.authenticate(as_bytes(words.at(0)));
    } else if (what == "reauthenticate") {
      done = session_.reauthenticate(as_bytes(words.at(0)));
    } else {
      throw std::runtime_error("unknown action " + what);
    }
    if (!done) transcript_.events.push_back("refused to " + what);
    flush();
  }

  Transcript finish() {
    transcript_.closes = session_.should_close();
    transcript_.sent = hex(sent_);
    return transcript_;
  }

 private:
  SessionConfig config_of(const std::vector<std::string>& words, ProtocolVersion version) {
    SessionConfig config;
    config.version = version;
    config.client_id = "c";
    for (const auto& word : words) {
      const auto value = word.substr(std::min(word.find('=') + 1, word.size()));
      const auto is = [&word](const char* key) { return word.starts_with(key); };
      if (word == "raw") {
        raw_ = true;
      } else if (word == "persistent") {
        config.clean_start = false;
        config.session_expiry_s = 3600;
      } else if (word == "no_adopt") {
        config.adopt_session = false;
      } else if (word == "no_acknowledge") {
        acknowledges_ = false;
      } else if (word == "no_problem_information") {
        config.request_problem_information = false;
      } else if (is("receive_maximum=")) {
        config.receive_maximum = static_cast<std::uint16_t>(std::stoul(value));
      } else if (is("topic_alias_maximum=")) {
        config.topic_alias_maximum = static_cast<std::uint16_t>(std::stoul(value));
      } else if (is("maximum_packet_size=")) {
        config.maximum_packet_size = static_cast<std::uint32_t>(std::stoul(value));
      } else if (is("method=")) {
        config.authentication_method = value;
      } else {
        throw std::runtime_error("unknown configuration " + word);
      }
    }
    return config;
  }

  // CONNECT is not written down.
  void open() {
    const auto before = sent_;
    session_.connection_opened(now_);
    flush();
    sent_ = before;
  }
  void flush() {
    Bytes buffer(4096);
    while (const auto size = session_.transmit(buffer, now_)) {
      sent_.insert(sent_.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
    }
    drain();
  }
  void drain() {
    Event event;
    while (session_.next_event(event)) {
      transcript_.events.push_back(render(event));
      const auto* received = std::get_if<Received>(&event);
      if (received != nullptr && acknowledges_) session_.acknowledge(received->message.packet_id);
    }
  }

  bool raw_ = false;
  bool acknowledges_ = true;
  Session session_;
  Instant now_{std::chrono::hours(1)};
  std::uint64_t token_ = 0;
  Bytes inbox_;
  Bytes sent_;
  Transcript transcript_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Transcript& transcript) {
  for (const auto& event : transcript.events) out << "\n    event " << event;
  return out << "\n    sends " << transcript.sent << (transcript.closes ? "\n    closes" : "") << '\n';
}

Transcript run(const Conversation& conversation, ProtocolVersion version, Pieces pieces) {
  Runner runner(conversation, version);
  std::size_t before = 0;
  for (const auto& step : conversation.steps) {
    if (!step.action.empty()) {
      runner.act(step.action);
      continue;
    }
    const BytesView all(step.server);
    for (std::size_t at = 0; at < all.size();) {
      std::size_t size = std::min(pieces.size, all.size() - at);
      if (pieces.split_at > before + at && pieces.split_at < before + all.size())
        size = pieces.split_at - before - at;
      runner.receive(all.subspan(at, size));
      at += size;
    }
    before += all.size();
  }
  return runner.finish();
}

std::size_t server_bytes(const Conversation& conversation) {
  std::size_t size = 0;
  for (const auto& step : conversation.steps) size += step.server.size();
  return size;
}

}  // namespace fulmar::mqtt
