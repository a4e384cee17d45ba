#include "cli/message_json.hpp"

#include <cmath>
#include <cstdio>
#include <ctime>

#include <boost/json.hpp>

#include "cli/format.hpp"

namespace fulmar::cli {
namespace {

namespace json = boost::json;

// Boost.JSON would print 27.5 as 2.75E1; mosquitto_sub prints the shorter of 15 and 17 digits.
void append_number(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", value);
  if (std::strtod(text, nullptr) != value) std::snprintf(text, sizeof text, "%.17g", value);
  out += text;
}

void append_string(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    constexpr std::string_view named = "\"\\\b\f\n\r\t";
    constexpr std::string_view letters = "\"\\bfnrt";
    if (const auto index = named.find(c); index != std::string_view::npos) {
      out += '\\';
      out += letters[index];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escape;
    } else {
      out += c;
    }
  }
  out += '"';
}

class Writer {
 public:
  Writer(bool pretty, std::string& out) : pretty_(pretty), out_(out) {}

  void open() {
    out_ += '{';
    ++depth_;
    first_ = true;
  }
  void key(std::string_view name) {
    if (!first_) out_ += ',';
    first_ = false;
    new_line();
    append_string(name, out_);
    out_ += pretty_ ? ":\t" : ":";
  }
  void close() {
    --depth_;
    new_line();
    first_ = false;
    out_ += '}';
  }
  // Recursion is bounded: the parser accepts 32 levels.
  void value(const json::value& value);

 private:
  void new_line() {
    if (pretty_) out_.append(1, '\n').append(depth_, '\t');
  }

  bool pretty_;
  std::string& out_;
  std::size_t depth_ = 0;
  bool first_ = true;
};

void Writer::value(const json::value& value) {
  switch (value.kind()) {
    case json::kind::object:
      open();
      for (const auto& [name, member] : value.get_object()) {
        key(name);
        this->value(member);
      }
      close();
      break;
    case json::kind::array: {
      out_ += '[';
      ++depth_;
      bool first = true;
      for (const auto& element : value.get_array()) {
        if (!first) out_ += pretty_ ? ", " : ",";
        first = false;
        this->value(element);
      }
      --depth_;
      out_ += ']';
      break;
    }
    case json::kind::string: append_string(value.get_string(), out_); break;
    case json::kind::int64: out_ += std::to_string(value.get_int64()); break;
    case json::kind::uint64: out_ += std::to_string(value.get_uint64()); break;
    case json::kind::double_: append_number(value.get_double(), out_); break;
    case json::kind::bool_: out_ += value.get_bool() ? "true" : "false"; break;
    case json::kind::null: out_ += "null"; break;
  }
}

}  // namespace

std::string json_time(const WallTime& time) {
  const std::time_t seconds = time.seconds;
  std::tm local{};
  localtime_r(&seconds, &local);
  char date[64];
  char zone[16];
  char fraction[16];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &local);
  std::strftime(zone, sizeof zone, "%z", &local);
  std::snprintf(fraction, sizeof fraction, ".%06d", time.nanoseconds / 1'000);
  return std::string(date) + fraction + "Z" + zone;
}

bool append_message_json(const Message& message, const WallTime& time, const JsonStyle& style,
                         std::string& out) {
  json::value payload;  // null
  if (style.payload_is_json && !message.payload.empty()) {
    boost::system::error_code error;
    payload = json::parse({message.text().data(), message.text().size()}, error);
    if (error) return false;
  }
  Writer writer(style.pretty, out);
  writer.open();
  writer.key("tst");
  append_string(json_time(time), out);
  writer.key("topic");
  append_string(message.topic, out);
  writer.key("qos");
  out += std::to_string(static_cast<int>(message.qos));
  writer.key("retain");
  out += message.retain ? '1' : '0';
  writer.key("payloadlen");
  out += std::to_string(message.payload.size());
  writer.key("payload");
  if (style.payload_is_json || message.payload.empty()) {
    writer.value(payload);
  } else {
    append_string(message.text(), out);
  }
  writer.close();
  return true;
}

}  // namespace fulmar::cli
