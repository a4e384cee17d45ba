#include "queue/yaml_document.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "queue/model.hpp"
#include "queue/yaml_node.hpp"

namespace fulmar::queue {
namespace {

const std::string first_name = "default";

bool same(const TableItem& a, const TableItem& b) {
  return a.token == b.token && a.request_id == b.request_id && a.item == b.item;
}

// Nobody has written to it, nor set anything.
bool is_fresh(const DocumentHead& head) {
  return head.name == first_name && !head.paused && head.settings == Settings{} && head.unknown.empty();
}

std::vector<const TableItem*> of_queue(const ItemTable& table, std::string_view queue) {
  std::vector<const TableItem*> items;
  for (const auto& [id, item] : table.items) {
    if (item.item.queue == queue) items.push_back(&item);
  }
  std::ranges::sort(items, {}, &TableItem::order);
  return items;
}

// As lines of a list's element: "- " before the first, spaces before the others.
std::string indented(std::string_view text) {
  std::string out;
  bool first = true;
  while (!text.empty()) {
    const auto end = text.find('\n');
    out.append(first ? "- " : "  ").append(text.substr(0, end)) += '\n';
    first = false;
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

}  // namespace

Result<YamlDocument> YamlDocument::parse(const YamlFile::Content& content, const std::string& name) {
  YamlDocument document;
  document.version_ = content.version;
  ReadOptions options{.format = ItemFormat::yaml, .unknown_into_metadata = false};
  // What was written by hand without an id or a time gets those of the file, for every reader the same.
  options.now = Time(Duration(content.version.changed_ns / 1000));
  std::vector<ItemText> texts;
  auto read = read_items(content.text, name, options, [&](ItemText&& text) -> Result<void> {
    texts.push_back(std::move(text));
    return {};
  });
  if (!read) return fail(Errc::damaged, std::move(read.error().message));

  auto& heads = document.heads_;
  heads.front() = std::move(read->head);
  if (heads.front().name.empty()) heads.front().name = first_name;
  for (auto& head : read->more) {
    if (head.name == heads.front().name)
      return fail(Errc::damaged,
                  name + ": the queue \"" + head.name + "\" is there twice; put its items into one list");
    heads.push_back(std::move(head));
  }
  for (const auto& head : heads) {
    if (is_fresh(head)) continue;
    document.table_.queues[head.name] = {head.settings, head.paused};
  }
  for (auto& text : texts) {
    if (text.item.queue.empty()) text.item.queue = document.default_queue();
    auto& queue = document.table_.queues[text.item.queue];
    if (!text.max_retries_given) text.item.max_retries = queue.settings.default_max_retries;
  }
  // The order of the text is the order of submission.
  std::unordered_map<std::string, std::uint64_t> last;
  std::unordered_set<std::uint64_t> taken;
  for (auto& text : texts) {
    TableItem item{std::move(text.item), 0, text.lease_token, std::move(text.lease_request)};
    auto& before = last[item.item.queue];
    item.order =
        std::max(id_number(item.item.id).value_or(id_number_at(item.item.created_at, 0)), before + 1);
    while (!taken.insert(item.order).second) ++item.order;
    before = item.order;
    document.pieces_[item.item.id].unknown = std::move(text.unknown);
    document.table_.put(std::move(item));
  }
  return document;
}

// Nothing may be written that cannot be read: a piece is read again before it goes into the file.
Result<std::string> YamlDocument::piece_for(const TableItem& item, const std::string& unknown) const {
  ItemText text;
  text.item = item.item;
  text.lease_token = item.token;
  text.lease_request = item.request_id;
  text.unknown = unknown;
  auto piece = item_as_yaml(text);
  if (!piece) return piece;
  const ReadOptions options{.format = ItemFormat::yaml, .unknown_into_metadata = false};
  bool same = false;
  const auto read = read_items("items:\n" + *piece, "item " + item.item.id, options, [&](ItemText&& back) {
    same = back.item.id == item.item.id && back.item.status == item.item.status && back.unknown == unknown &&
           back.item.error_message == item.item.error_message && back.lease_token == item.token;
    return Result<void>{};
  });
  if (!read || !same) {
    return fail(Errc::invalid_item,
                "item " + item.item.id + " cannot be written as YAML" +
                    (read ? std::string("; use a sqlite: queue for it") : ": " + read.error().message));
  }
  return piece;
}

Result<YamlDocument> YamlDocument::with(ItemTable table) const {
  YamlDocument next;
  next.heads_ = heads_;
  auto& heads = next.heads_;
  for (const auto& [name, queue] : table.queues) {
    auto head = std::ranges::find(heads, name, &DocumentHead::name);
    if (head == heads.end()) {
      // A queue that is as new gives its place to the first one that is not.
      const bool free = heads.size() == 1 && !table.queues.contains(heads.front().name);
      head = free ? heads.begin() : heads.insert(heads.end(), DocumentHead{});
      head->name = name;
    }
    head->settings = queue.settings;
    head->paused = queue.paused;
  }
  for (const auto& [id, item] : table.items) {
    Piece& piece = next.pieces_[id];
    const auto before = pieces_.find(id);
    const auto old = table_.items.find(id);
    if (before != pieces_.end()) piece.unknown = before->second.unknown;
    if (before != pieces_.end() && old != table_.items.end() && !before->second.text.empty() &&
        same(old->second, item)) {
      piece.text = before->second.text;
      continue;
    }
    auto text = piece_for(item, piece.unknown);
    if (!text) return std::unexpected(std::move(text.error()));
    piece.text = std::move(*text);
  }
  next.table_ = std::move(table);
  return next;
}

std::string YamlDocument::text() const {
  std::string out;
  const auto append = [&](std::string& to, const DocumentHead& head) {
    const auto items = of_queue(table_, head.name);
    to += yaml_before_items(head, !items.empty());
    for (const auto* item : items) to += pieces_.find(item->item.id)->second.text;
    to += yaml_after_items(head);
  };
  append(out, heads_.front());
  if (heads_.size() == 1) return out;
  out += "queues:\n";
  for (std::size_t i = 1; i < heads_.size(); ++i) {
    std::string further;
    append(further, heads_[i]);
    out += indented(further);
  }
  return out;
}

}  // namespace fulmar::queue
