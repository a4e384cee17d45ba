// What may come in: the validations of model.hpp.
#include <algorithm>
#include <utility>

#include <boost/json/basic_parser_impl.hpp>

#include "queue/model.hpp"

namespace fulmar::queue {
namespace {

// Takes every event of the parser and keeps none: whether the text is JSON is all that is asked.
struct Checker {
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);
  using Code = boost::json::error_code;
  using View = boost::json::string_view;

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }
  bool on_object_begin(Code&) { return true; }
  bool on_object_end(std::size_t, Code&) { return true; }
  bool on_array_begin(Code&) { return true; }
  bool on_array_end(std::size_t, Code&) { return true; }
  bool on_key_part(View, std::size_t, Code&) { return true; }
  bool on_key(View, std::size_t, Code&) { return true; }
  bool on_string_part(View, std::size_t, Code&) { return true; }
  bool on_string(View, std::size_t, Code&) { return true; }
  bool on_number_part(View, Code&) { return true; }
  bool on_int64(std::int64_t, View, Code&) { return true; }
  bool on_uint64(std::uint64_t, View, Code&) { return true; }
  bool on_double(double, View, Code&) { return true; }
  bool on_bool(bool, Code&) { return true; }
  bool on_null(Code&) { return true; }
  bool on_comment_part(View, Code&) { return true; }
  bool on_comment(View, Code&) { return true; }
};

std::unexpected<Error> wrong(std::string message) {
  return fulmar::fail(Errc::invalid_item, std::move(message));
}

std::unexpected<Error> too_large(std::string_view field, std::size_t size, std::size_t bound) {
  return fulmar::fail(Errc::payload_too_large,
                      std::string(field) + " has " + std::to_string(size) + " bytes; at most " +
                          std::to_string(bound) + " are allowed: store it elsewhere and hand in its address");
}

// The first characters of a value, for a message.
std::string quoted(std::string_view value) {
  std::string text = "\"";
  for (const char c : value.substr(0, 40)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return text + (value.size() > 40 ? "...\"" : "\"");
}

bool is_visible(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool has_control(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

Result<void> check_text(std::string_view field, std::string_view text, std::size_t bound, bool may_be_empty) {
  if (text.empty() && !may_be_empty) return wrong(std::string(field) + " is empty");
  if (text.size() > bound) {
    return wrong(std::string(field) + " " + quoted(text) + " has " + std::to_string(text.size()) +
                 " bytes; at most " + std::to_string(bound) + " are allowed");
  }
  if (has_control(text))
    return wrong(std::string(field) + " " + quoted(text) + " contains a control character");
  return {};
}

Result<void> check_id(std::string_view field, std::string_view id) {
  if (id.empty() || id.size() > Limits::id_bytes || !is_visible(id)) {
    return wrong(std::string(field) + " " + quoted(id) +
                 " is no id: 1 to 128 visible ASCII characters without white space");
  }
  return {};
}

Result<void> check_object(std::string_view field, std::string_view text, std::size_t bound) {
  if (text.size() > bound) return too_large(field, text.size(), bound);
  if (!is_json_object(text)) {
    return wrong(std::string(field) + " " + quoted(text) +
                 " is not a JSON object; it has to look like {\"name\": value}");
  }
  return {};
}

Result<void> check_dependencies(std::string_view id, const std::vector<ItemId>& depends_on) {
  if (depends_on.size() > Limits::dependencies) {
    return wrong("depends_on has " + std::to_string(depends_on.size()) + " ids; at most " +
                 std::to_string(Limits::dependencies) + " are allowed");
  }
  for (const auto& dependency : depends_on) {
    if (auto ok = check_id("depends_on", dependency); !ok) return ok;
    if (dependency == id) return std::unexpected(cycle_error(std::vector<ItemId>{dependency, dependency}));
  }
  return {};
}

// What new and imported items have in common.
template <typename AnyItem>
Result<void> check_common(const AnyItem& item) {
  if (auto ok = check_text("type", item.type, Limits::type_bytes, false); !ok) return ok;
  if (auto ok = check_object("payload", item.payload, Limits::payload_bytes); !ok) return ok;
  if (auto ok = check_object("metadata", item.metadata, Limits::metadata_bytes); !ok) return ok;
  if (auto ok = check_text("unique_key", item.unique_key, Limits::unique_key_bytes, true); !ok) return ok;
  return check_dependencies(item.id, item.depends_on);
}

Result<void> check_number(std::string_view field, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return {};
  return wrong(std::string(field) + " is " + std::to_string(value) + "; allowed are " + std::to_string(low) +
               " to " + std::to_string(high));
}

Result<void> check_period(std::string_view field, Duration value, Duration low, Duration high) {
  if (value >= low && value <= high) return {};
  return wrong(std::string(field) + " is " + duration_text(value) + "; allowed are " + duration_text(low) +
               " to " + duration_text(high));
}

constexpr Duration period_max = std::chrono::hours(24 * 36500);  // what a settings' period may be

}  // namespace

bool is_json(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::json::basic_parser<Checker> parser(options);
  boost::json::error_code error;
  const auto used = parser.write_some(false, text.data(), text.size(), error);
  if (error) return false;
  return std::ranges::all_of(text.substr(used),
                             [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; });
}

bool is_json_object(std::string_view text) {
  if (text == "{}") return true;
  const auto first = text.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && text[first] == '{' && is_json(text);
}

Result<void> validate_queue_name(std::string_view name) {
  const bool ok = !name.empty() && name.size() <= Limits::name_bytes && std::ranges::all_of(name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-' || c == '.';
  });
  if (ok) return {};
  return wrong("queue name " + quoted(name) + ": it has to be 1 to 64 letters, digits, '_', '-' or '.'");
}

Result<void> validate(const NewItem& item) {
  if (!item.id.empty()) {
    if (auto ok = check_id("id", item.id); !ok) return ok;
  }
  if (item.max_retries) {
    if (auto ok = check_number("max_retries", *item.max_retries, 1, Limits::attempts); !ok) return ok;
  }
  return check_common(item);
}

Result<void> validate(const Item& item) {
  if (auto ok = check_id("id", item.id); !ok) return ok;
  const auto in_item = [&](Result<void> checked) {
    if (!checked) checked.error().message = "item " + item.id + ": " + checked.error().message;
    return checked;
  };
  if (auto ok = check_number("max_retries", item.max_retries, 0, Limits::attempts); !ok) return in_item(ok);
  if (auto ok = check_number("retry_count", item.retry_count, 0, Limits::attempts); !ok) return in_item(ok);
  if (auto ok = validate_result(item.result); !ok) return in_item(ok);
  return in_item(check_common(item));
}

Result<void> validate(const ClaimRequest& request) {
  if (auto ok = check_text("worker", request.worker, Limits::worker_bytes, true); !ok) return ok;
  if (auto ok = check_text("request_id", request.request_id, Limits::worker_bytes, true); !ok) return ok;
  if (auto ok = check_number("number of items to claim", static_cast<std::int64_t>(request.items_max), 1,
                             Limits::claim_items);
      !ok) {
    return ok;
  }
  for (const auto& type : request.types) {
    if (auto ok = check_text("type", type, Limits::type_bytes, false); !ok) return ok;
  }
  return request.lease ? validate_lease(*request.lease) : Result<void>{};
}

Result<void> validate(const Settings& settings) {
  if (auto ok = check_number("default_max_retries", settings.default_max_retries, 1, Limits::attempts); !ok)
    return ok;
  if (auto ok = validate_lease(settings.lease); !ok) return ok;
  if (settings.max_size) {
    if (auto ok =
            check_number("max_size", static_cast<std::int64_t>(*settings.max_size), 1, std::int64_t{1} << 40);
        !ok) {
      return ok;
    }
  }
  const std::pair<std::string_view, std::optional<Duration>> periods[] = {
      {"backoff_min", settings.backoff_min},
      {"backoff_max", settings.backoff_max},
      {"keep_completed", settings.keep_completed},
      {"keep_failed", settings.keep_failed},
      {"sync_interval", settings.sync_interval}};
  for (const auto& [field, period] : periods) {
    if (!period) continue;
    if (auto ok = check_period(field, *period, Duration(0), period_max); !ok) {
      return ok;
    }
  }
  if (settings.backoff_min > settings.backoff_max) {
    return wrong("backoff_min is greater than backoff_max; swap them");
  }
  return {};
}

Result<void> validate(const Page& page) {
  return check_number("items of a page", static_cast<std::int64_t>(page.items_max), 1, Limits::page_items);
}

Result<void> validate_lease(Duration lease) {
  return check_period("lease", lease, Limits::lease_min, Limits::lease_max);
}

Result<void> validate_result(std::string_view result) {
  if (result.empty()) return {};
  if (result.size() > Limits::result_bytes) return too_large("result", result.size(), Limits::result_bytes);
  if (!is_json(result))
    return wrong("result " + quoted(result) + " is not JSON; a text needs quotes around it");
  return {};
}

Result<void> validate_batch(std::size_t items) {
  if (items <= Limits::batch_items) return {};
  return wrong("a batch of " + std::to_string(items) + "; at most " + std::to_string(Limits::batch_items) +
               " at once: split it");
}

std::string_view cut_error(std::string_view message) {
  if (message.size() <= Limits::error_bytes) return message;
  std::size_t end = Limits::error_bytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;
  return message.substr(0, end);
}

}  // namespace fulmar::queue
