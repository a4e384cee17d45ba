#include "queue/item_line.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>

#include <boost/json.hpp>

#include "base/near_miss.hpp"
#include "queue/model.hpp"

namespace fulmar::queue {
namespace {

namespace json = boost::json;

constexpr std::string_view blanks = " \t\r\n";

// The end of the string that begins at `begin` with its quote: behind the closing one.
std::size_t string_end(std::string_view text, std::size_t begin) {
  for (std::size_t at = begin + 1; at < text.size(); ++at) {
    if (text[at] == '\\')
      ++at;
    else if (text[at] == '"')
      return at + 1;
  }
  return text.size();
}

// The end of the value that begins at `begin`.
std::size_t value_end(std::string_view text, std::size_t begin) {
  if (text[begin] == '"') return string_end(text, begin);
  if (text[begin] != '{' && text[begin] != '[')
    return std::min(text.find_first_of(",}] \t\r\n", begin), text.size());
  std::size_t depth = 0;
  for (std::size_t at = begin; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      at = string_end(text, at);
      continue;
    }
    depth += c == '{' || c == '[';
    depth -= c == '}' || c == ']';
    ++at;
    if (depth == 0) return at;
  }
  return text.size();
}

// The problem; empty = none.
std::string expected(std::string_view member, std::string_view value, std::string_view what) {
  std::string text(value.substr(0, 40));
  if (value.size() > 40) text += "...";
  return std::string(member) + " is " + text + "; expected " + std::string(what);
}

std::optional<std::string> text_of(std::string_view value) {
  if (!value.starts_with('"')) return std::nullopt;
  return std::string(json::parse(value).as_string());
}

std::string take_member(NewItem& item, std::string_view name, std::string_view value, Time now) {
  constexpr auto names =
      std::to_array<std::string_view>({"payload", "type", "priority", "at", "scheduled_at", "in",
                                       "max_retries", "metadata", "unique_key", "depends_on", "id"});
  const auto text = text_of(value);
  const auto take_text = [&](std::string& target) {
    if (!text) return expected(name, value, "a string");
    target = *text;
    return std::string();
  };
  if (name == "payload") return item.payload = value, "";
  if (name == "metadata") return item.metadata = value, "";
  if (name == "type") return take_text(item.type);
  if (name == "unique_key") return take_text(item.unique_key);
  if (name == "id") return take_text(item.id);
  if (name == "priority") {
    const auto priority = parse_priority(text ? *text : value);
    if (!priority) return expected(name, value, "a whole number, or critical, high, medium or low");
    return item.priority = *priority, "";
  }
  if (name == "max_retries") {
    const auto number = json::parse(value);
    const auto* attempts = number.if_int64();
    if (!attempts || *attempts < 1 || *attempts > Limits::attempts)
      return expected(name, value, "a whole number from 1 to 1000000");
    return item.max_retries = static_cast<int>(*attempts), "";
  }
  if (name == "at" || name == "scheduled_at") {
    if (value == "null") return {};
    item.scheduled_at = text ? parse_time(*text) : std::nullopt;
    return item.scheduled_at ? ""
                             : expected(name, value, "a time in ISO 8601, e.g. \"2026-02-06T10:00:00Z\"");
  }
  if (name == "in") {
    const auto span = parse_duration(text ? *text : value);
    if (!span) return expected(name, value, "a time span, e.g. \"5m\", or seconds");
    return item.scheduled_at = now + *span, "";
  }
  if (name == "depends_on") {
    if (text) return item.depends_on = {*text}, "";
    const auto list = json::parse(value);
    item.depends_on.clear();
    const auto* ids = list.if_array();
    if (!ids || !std::ranges::all_of(*ids, [](const json::value& id) { return id.is_string(); }))
      return expected(name, value, "an id or a list of ids");
    for (const auto& id : *ids) item.depends_on.emplace_back(id.as_string());
    return {};
  }
  const auto meant = near_miss(name, names);
  return "unknown member '" + std::string(name) + "'" +
         (meant.empty() ? "; an item has payload, type, priority, at, in, max_retries, metadata, unique_key, "
                          "depends_on and id"
                        : ", did you mean '" + std::string(meant) + "'?");
}

}  // namespace

std::vector<std::string_view> elements_of(std::string_view list) {
  std::vector<std::string_view> elements;
  for (auto at = list.find('[') + 1;;) {
    const auto begin = list.find_first_not_of(", \t\r\n", at);
    if (begin == std::string_view::npos || list[begin] == ']') return elements;
    const auto end = value_end(list, begin);
    elements.push_back(list.substr(begin, end - begin));
    at = end;
  }
}

std::vector<std::pair<std::string_view, std::string_view>> members_of(std::string_view object) {
  std::vector<std::pair<std::string_view, std::string_view>> members;
  for (auto at = object.find('"'); at < object.size();) {
    const auto name_end = string_end(object, at);
    const auto name = object.substr(at + 1, name_end - at - 2);
    const auto colon = object.find(':', name_end);
    const auto begin = object.find_first_not_of(blanks, std::min(colon, object.size() - 1) + 1);
    if (begin == std::string_view::npos) break;
    const auto end = value_end(object, begin);
    members.emplace_back(name, object.substr(begin, end - begin));
    at = object.find('"', end);
  }
  return members;
}

Result<NewItem> item_of_line(std::string_view line, const NewItem& defaults, Time now) {
  if (!is_json_object(line))
    return fail(Errc::invalid_item,
                "no JSON object; it has to look like {\"payload\":{\"image\":17},\"priority\":5}");
  auto item = defaults;
  for (const auto& [name, value] : members_of(line))
    if (auto wrong = take_member(item, name, value, now); !wrong.empty())
      return fail(Errc::invalid_item, std::move(wrong));
  if (auto valid = validate(item); !valid) return std::unexpected(std::move(valid.error()));
  return item;
}

}  // namespace fulmar::queue
