#pragma once
// A line of JSON that describes an item to submit: of `fulmar queue add --lines`, and of a message that hands in work.
//   {"payload":{"image":17},"type":"resize","priority":"high","in":"5m"}
// Members: payload, type, priority (a number or a word), at or scheduled_at (ISO 8601), in ("5m", or seconds), max_retries,
// metadata, unique_key, depends_on (an id or a list of them), id. What a line does not say it takes from `defaults`.
//
// Payload and metadata are kept as they are written: numbers are not rounded, members not sorted.
//
// Thread-safety: pure functions. Errors: invalid_item.

#include <string_view>
#include <utility>
#include <vector>

#include "fulmar/queue_types.hpp"
#include "fulmar/result.hpp"

namespace fulmar::queue {

Result<NewItem> item_of_line(std::string_view line, const NewItem& defaults, Time now);

// The elements of a JSON list, as they are written. The text has to be a JSON list.
std::vector<std::string_view> elements_of(std::string_view list);
// The members of a JSON object, as they are written: the name without its quotes and with its escapes, the value as text.
// The text has to be a JSON object.
std::vector<std::pair<std::string_view, std::string_view>> members_of(std::string_view object);

}  // namespace fulmar::queue
