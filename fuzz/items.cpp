// Items as text, whatever text it is: YAML documents and lines of JSON. What is read can be written in both formats and comes
// back as it was; a document cut into its items says the same as when it is parsed whole.
// Input: the setting, then the text.

#include <string>
#include <vector>

#include "fuzz_input.hpp"
#include "queue/item_files.hpp"
#include "queue/model.hpp"
#include "queue/yaml_document.hpp"
#include "queue/yaml_node.hpp"

namespace {

using namespace fulmar;
using namespace fulmar::queue;

struct Outcome {
  Result<ReadSummary> summary;
  std::vector<ItemText> items;
};

Outcome read(std::string_view text, ItemFormat format, bool unknown_into_metadata) {
  Outcome outcome{ReadSummary{}, {}};
  const ReadOptions options{.format = format,
                            .now = Time(Duration(1'770'372'000'000'000)),
                            .unknown_into_metadata = unknown_into_metadata};
  outcome.summary = read_items(text, "input", options, [&](ItemText&& item) -> Result<void> {
    outcome.items.push_back(std::move(item));
    return {};
  });
  return outcome;
}

std::string written(const std::vector<ItemText>& items, ItemFormat format) {
  std::string text;
  ItemWriter writer(format, [&](std::string_view piece) -> Result<void> {
    text += piece;
    return {};
  });
  for (const auto& item : items)
    fuzz::require(writer.write(item).has_value(), "what was read cannot be written");
  fuzz::require(writer.finish().has_value(), "the end cannot be written");
  return text;
}

// The same JSON, however it is spaced.
std::string normal(const std::string& json) {
  std::string text;
  if (!json.empty()) append_json(text, parse_json(json), JsonForm::compact);
  return text;
}

Item comparable(const ItemText& text) {
  Item item = text.item;
  item.queue.clear();
  item.payload = normal(item.payload);
  item.metadata = normal(item.metadata);
  item.result = normal(item.result);
  if (item.result == "null") item.result.clear();
  return item;
}

void come_back(const std::vector<ItemText>& items, ItemFormat format) {
  const auto text = written(items, format);
  const auto back = read(text, format, false);
  if (!back.summary) std::fprintf(stderr, "%s\n%s\n", back.summary.error().message.c_str(), text.c_str());
  fuzz::require(back.summary.has_value(), "what was written cannot be read");
  fuzz::require(back.items.size() == items.size(), "items are lost");
  for (std::size_t i = 0; i < items.size(); ++i) {
    const bool same = comparable(items[i]) == comparable(back.items[i]);
    if (!same) std::fprintf(stderr, "%s\n", text.c_str());
    fuzz::require(same, "an item changes");
  }
  if (format == ItemFormat::yaml) fuzz::require(written(back.items, format) == text, "the text changes");
}

bool same_table(const ItemTable& a, const ItemTable& b) {
  if (a.items.size() != b.items.size() || a.queues.size() != b.queues.size()) return false;
  for (const auto& [id, item] : a.items) {
    const auto other = b.items.find(id);
    if (other == b.items.end() || other->second.item != item.item || other->second.order != item.order ||
        other->second.token != item.token || other->second.request_id != item.request_id) {
      return false;
    }
  }
  return true;
}

void documents_agree(std::string_view text) {
  YamlFile::Content content{.text = std::string(text), .version = {.changed_ns = 1'770'372'000'000'000'000}};
  const auto first = YamlDocument::parse(content, "input");
  if (!first) return;
  const auto next = first->with(first->table());
  if (!next) return;  // in a document: a text that is refused
  content.text = next->text();
  const auto whole = YamlDocument::parse(content, "input");
  if (!whole) std::fprintf(stderr, "%s\n%s\n", whole.error().message.c_str(), content.text.c_str());
  fuzz::require(whole.has_value(), "a document that was written cannot be read");
  content.by_program = true;
  for (const YamlDocument* previous : {static_cast<const YamlDocument*>(nullptr), &*next, &*first}) {
    const auto cut = YamlDocument::parse(content, "input", previous);
    fuzz::require(cut.has_value() && same_table(cut->table(), whole->table()),
                  "the pieces say something else");
    fuzz::require(cut->default_queue() == whole->default_queue(), "the name of the queue changes");
    const auto again = cut->with(cut->table());
    fuzz::require(again.has_value() && again->text() == content.text,
                  "a document changes when it is written again");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2 || size > 1 << 16) return 0;
  const bool json_lines = data[0] & 1, into_metadata = data[0] & 2;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto outcome = read(text, json_lines ? ItemFormat::json_lines : ItemFormat::yaml, into_metadata);
  if (outcome.summary) {
    come_back(outcome.items, ItemFormat::yaml);
    come_back(outcome.items, ItemFormat::json_lines);
  }
  if (!json_lines) documents_agree(text);
  return 0;
}
