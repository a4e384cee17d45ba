#include "cli/format.hpp"

#include <algorithm>
#include <ctime>

#include "cli/message_json.hpp"

namespace fulmar::cli {
namespace {

constexpr std::uint32_t width_max = 1'000'000;

std::unexpected<Error> bad_format(std::string what) {
  return fail(Errc::invalid_config, "-F: " + std::move(what));
}

std::tm local(const WallTime& time) {
  const std::time_t seconds = time.seconds;
  std::tm broken_down{};
  localtime_r(&seconds, &broken_down);
  return broken_down;
}

std::string strftime_text(const char* format, const WallTime& time) {
  const auto broken_down = local(time);
  char text[128];
  return {text, std::strftime(text, sizeof text, format, &broken_down)};
}

std::string nine_digits(std::int32_t nanoseconds) {
  auto digits = std::to_string(nanoseconds);
  return std::string(9 - std::min<std::size_t>(9, digits.size()), '0') + digits;
}

void append_hex(BytesView bytes, bool upper, std::string& out) {
  const char* digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  for (const std::byte byte : bytes) {
    out += digits[std::to_integer<unsigned>(byte) >> 4];
    out += digits[std::to_integer<unsigned>(byte) & 15u];
  }
}

}  // namespace

WallTime WallTime::now() {
  std::timespec time{};
  std::timespec_get(&time, TIME_UTC);
  return {.seconds = time.tv_sec, .nanoseconds = static_cast<std::int32_t>(time.tv_nsec)};
}

Format Format::payload() { return {}; }

Format Format::verbose() {
  Format format;
  format.shape_ = Shape::verbose;
  return format;
}

void Format::literal(char c) {
  if (pieces_.empty() || !std::holds_alternative<std::string>(pieces_.back()))
    pieces_.emplace_back(std::string());
  std::get<std::string>(pieces_.back()) += c;
}

Result<Format::Field> Format::compile_field(std::string_view& rest) {
  Field field;
  const auto number = [&] {
    std::uint64_t value = 0;
    while (!rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
      value =
          std::min<std::uint64_t>(value * 10 + static_cast<std::uint64_t>(rest.front() - '0'), width_max + 1);
      rest.remove_prefix(1);
    }
    return value;
  };
  for (; !rest.empty() && (rest.front() == '-' || rest.front() == '0'); rest.remove_prefix(1)) {
    (rest.front() == '-' ? field.left : field.zero) = true;
  }
  const auto width = number();
  if (width > width_max) return bad_format("a field width may be up to " + std::to_string(width_max));
  field.width = static_cast<std::uint32_t>(width);
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    field.max = static_cast<std::int64_t>(number());
  }
  if (rest.empty()) return bad_format("incomplete format specifier at the end");
  field.kind = rest.front();
  rest.remove_prefix(1);
  constexpr std::string_view known = "%IJUjlpqrtxX";
  constexpr std::string_view unavailable = "ACDEFPRSm";
  if (unavailable.find(field.kind) != std::string_view::npos) {
    return bad_format(std::string("%") + field.kind +
                      " is not supported: packet identifiers and properties are not shown");
  }
  if (known.find(field.kind) == std::string_view::npos) {
    return bad_format(std::string("invalid format specifier '") + field.kind + "'; expected one of " +
                      "%t %p %x %X %l %q %r %I %U %j %J %%");
  }
  return field;
}

Result<Format> Format::compile(std::string_view text, bool pretty) {
  Format format;
  format.shape_ = Shape::pieces;
  format.pretty_ = pretty;
  for (auto rest = text; !rest.empty();) {
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c != '%' && c != '@' && c != '\\') {
      format.literal(c);
      continue;
    }
    if (rest.empty()) {
      return bad_format(std::string("incomplete ") + (c == '\\' ? "escape" : "format") +
                        " specifier at the end");
    }
    if (c == '%') {
      auto field = format.compile_field(rest);
      if (!field) return std::unexpected(field.error());
      if (field->kind == '%') {
        format.literal('%');
        continue;
      }
      format.needs_time_ |= std::string_view("IUjJ").find(field->kind) != std::string_view::npos;
      format.pieces_.emplace_back(*field);
      continue;
    }
    const char kind = rest.front();
    rest.remove_prefix(1);
    if (c == '@') {
      if (kind == '@') {
        format.literal('@');
      } else {
        format.needs_time_ = true;
        format.pieces_.emplace_back(Clock{kind});
      }
      continue;
    }
    constexpr std::string_view letters = "\\0aenrtv";
    constexpr std::string_view meanings{"\\\0\a\033\n\r\t\v", 8};
    const auto index = letters.find(kind);
    if (index == std::string_view::npos) {
      return bad_format(std::string("invalid escape specifier '") + kind +
                        R"('; expected one of \\ \0 \a \e \n \r \t \v)");
    }
    format.literal(meanings[index]);
  }
  return format;
}

bool Format::render_field(const Field& field, const Message& message, const WallTime& time,
                          std::string& out) const {
  // `size` is how much the value itself takes; pads to the width around appending it.
  const auto padded = [&](std::size_t size, bool zeros_allowed, auto&& append) {
    const std::size_t missing = field.width > size ? field.width - size : 0;
    if (!field.left) out.append(missing, field.zero && zeros_allowed ? '0' : ' ');
    append();
    if (field.left) out.append(missing, ' ');
  };
  const auto text = [&](std::string_view value) {
    if (field.max >= 0) value = value.substr(0, static_cast<std::size_t>(field.max));
    padded(value.size(), false, [&] { out += value; });
  };
  switch (field.kind) {
    case 't': text(message.topic); return true;
    case 'I': text(strftime_text("%Y-%m-%dT%H:%M:%S%z", time)); return true;
    case 'p': {
      const auto value =
          field.width > 0 ? message.text().substr(0, std::size_t{field.width}) : message.text();
      padded(value.size(), false, [&] { out += value; });
      return true;
    }
    case 'x':
    case 'X': {
      // mosquitto_sub shortens the payload to the width in bytes and halves that, whatever the payload's
      // length.
      const auto size = field.width > 0 ? std::min<std::size_t>(message.payload.size(), field.width) / 2
                                        : message.payload.size();
      padded(size * 2, true, [&] { append_hex(message.payload.first(size), field.kind == 'X', out); });
      return true;
    }
    case 'l': {
      const auto digits = std::to_string(message.payload.size());
      padded(digits.size(), true, [&] { out += digits; });
      return true;
    }
    case 'q': out += static_cast<char>('0' + static_cast<int>(message.qos)); return true;
    case 'r': out += message.retain ? '1' : '0'; return true;
    case 'U': out += std::to_string(time.seconds) + '.' + nine_digits(time.nanoseconds); return true;
    default:  // j, J
      return append_message_json(message, time, {.payload_is_json = field.kind == 'J', .pretty = pretty_},
                                 out);
  }
}

bool Format::render(const Message& message, const WallTime& time, bool end_of_line, std::string& out) const {
  if (shape_ != Shape::pieces && message.payload.empty()) {
    if (shape_ == Shape::payload) return true;
    if (end_of_line) out.append(message.topic).append(" (null)\n");
    return true;
  }
  bool complete = true;
  if (shape_ == Shape::pieces) {
    for (const auto& piece : pieces_) {
      if (const auto* fixed = std::get_if<std::string>(&piece)) {
        out += *fixed;
      } else if (const auto* field = std::get_if<Field>(&piece)) {
        complete &= render_field(*field, message, time, out);
      } else if (const char kind = std::get<Clock>(piece).kind; kind == 'N') {
        out += nine_digits(time.nanoseconds);
      } else {
        const char format[] = {'%', kind, '\0'};
        out += strftime_text(format, time);
      }
    }
  } else {
    if (shape_ == Shape::verbose) {
      out += message.topic;
      out += ' ';
    }
    out += message.text();
  }
  if (end_of_line) out += '\n';
  return complete;
}

}  // namespace fulmar::cli
