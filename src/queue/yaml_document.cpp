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

ReadOptions reading(const FileVersion& version) {
  return {.format = ItemFormat::yaml,
          .now = Time(Duration(version.changed_ns / 1000)),
          .unknown_into_metadata = false};
}

struct CutItems {
  std::size_t begin = 0, end = 0;  // of the items
  std::vector<std::string_view> pieces{};
};

// Cuts a document that text() made for one queue; nothing for others.
std::optional<CutItems> cut_items(std::string_view text) {
  constexpr std::string_view before = "\nitems:\n";
  CutItems cut;
  cut.begin = text.find(before);
  if (cut.begin == std::string_view::npos || text.find("\nqueues:\n") != std::string_view::npos)
    return std::nullopt;
  cut.begin += before.size();
  for (std::size_t at = cut.begin, piece = at;;) {
    const auto line = text.find('\n', at);
    if (line == std::string_view::npos) return std::nullopt;
    const bool inside = text.substr(at).starts_with("  ");
    if (!inside && at > piece) cut.pieces.push_back(text.substr(piece, at - piece));
    if (!inside && !text.substr(at).starts_with("- ")) {
      cut.end = at;
      return cut;
    }
    if (!inside) piece = at;
    at = line + 1;
  }
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

// --- reading ----------------------------------------------------------------------------------------------------------

Result<YamlDocument> YamlDocument::parse(const YamlFile::Content& content, const std::string& name,
                                         const YamlDocument* previous) {
  if (content.by_program) {
    if (auto document = parse_pieces(content, previous)) return std::move(*document);
  }
  return parse_whole(content, name);
}

YamlDocument::Entry YamlDocument::entry_of(ItemText&& text) {
  Entry entry;
  entry.item = {std::move(text.item), 0, text.lease_token, std::move(text.lease_request)};
  entry.piece.unknown = std::move(text.unknown);
  entry.max_retries_given = text.max_retries_given;
  return entry;
}

Result<YamlDocument> YamlDocument::parse_whole(const YamlFile::Content& content, const std::string& name) {
  YamlDocument document;
  document.version_ = content.version;
  std::vector<Entry> entries;
  // What was written by hand without an id or a time gets those of the file, for every reader the same.
  auto read = read_items(content.text, name, reading(content.version), [&](ItemText&& text) -> Result<void> {
    entries.push_back(entry_of(std::move(text)));
    return {};
  });
  if (!read && read.error().code == Errc::incompatible) return std::unexpected(std::move(read.error()));
  if (!read) return fail(Errc::damaged, std::move(read.error().message));
  if (!document.set_heads(std::move(*read)))
    return fail(Errc::damaged, name + ": the queue \"" + document.default_queue() +
                                   "\" is there twice; put its items into one list");
  document.fill(std::move(entries));
  return document;
}

// What text() wrote can be cut at the beginnings of its items, and those of the previous version are known by their text.
// Nothing: it has to be parsed whole.
std::optional<YamlDocument> YamlDocument::parse_pieces(const YamlFile::Content& content,
                                                       const YamlDocument* previous) {
  const std::string_view text = content.text;
  const auto cut = cut_items(text);
  if (!cut) return std::nullopt;
  std::unordered_map<std::string_view, const ItemId*> known;
  if (previous && previous->heads_.size() == 1) {
    for (const auto& [id, piece] : previous->pieces_) {
      if (!piece.text.empty()) known.emplace(piece.text, &id);
    }
  }
  std::vector<Entry> entries(cut->pieces.size());
  std::vector<std::size_t> fresh;
  std::string others(text.substr(0, cut->begin));
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto found = known.find(cut->pieces[i]);
    if (found == known.end()) {
      fresh.push_back(i);
      others += cut->pieces[i];
      continue;
    }
    entries[i].item = previous->table_.items.find(*found->second)->second;
    entries[i].item.order = 0;
    entries[i].piece = previous->pieces_.find(*found->second)->second;
  }
  others += text.substr(cut->end);

  YamlDocument document;
  document.version_ = content.version;
  std::size_t next = 0;
  auto read = read_items(others, "", reading(content.version), [&](ItemText&& one) -> Result<void> {
    if (next == fresh.size()) return fail(Errc::invalid_item, "");
    auto& entry = entries[fresh[next]] = entry_of(std::move(one));
    entry.piece.text = cut->pieces[fresh[next++]];
    return {};
  });
  if (!read || next != fresh.size() || !read->more.empty() || read->converted > 0 ||
      !document.set_heads(std::move(*read))) {
    return std::nullopt;
  }
  if (fresh.size() < entries.size() && document.default_queue() != previous->default_queue())
    return std::nullopt;
  std::unordered_set<std::string_view> ids;
  for (const auto& entry : entries) {
    if (!ids.insert(entry.item.item.id).second) return std::nullopt;
  }
  document.fill(std::move(entries));
  return document;
}

bool YamlDocument::set_heads(ReadSummary&& read) {
  heads_.front() = std::move(read.head);
  if (heads_.front().name.empty()) heads_.front().name = first_name;
  for (auto& head : read.more) {
    if (head.name == heads_.front().name) return false;
    heads_.push_back(std::move(head));
  }
  for (const auto& head : heads_) {
    if (!is_fresh(head)) table_.queues[head.name] = {head.settings, head.paused};
  }
  return true;
}

// The order of the text is the order of submission.
void YamlDocument::fill(std::vector<Entry>&& entries) {
  std::unordered_map<std::string, std::uint64_t> last;
  std::unordered_set<std::uint64_t> taken;
  for (auto& [item, piece, max_retries_given] : entries) {
    if (item.item.queue.empty()) item.item.queue = default_queue();
    const auto& queue = table_.queues[item.item.queue];
    if (!max_retries_given) item.item.max_retries = queue.settings.default_max_retries;
    auto& before = last[item.item.queue];
    item.order =
        std::max(id_number(item.item.id).value_or(id_number_at(item.item.created_at, 0)), before + 1);
    while (!taken.insert(item.order).second) ++item.order;
    before = item.order;
    pieces_[item.item.id] = std::move(piece);
    table_.put(std::move(item));
  }
}

// --- writing ----------------------------------------------------------------------------------------------------------

// Nothing may be written that cannot be read: a piece is read again before it goes into the file.
Result<std::string> YamlDocument::piece_for(const TableItem& item, const std::string& unknown,
                                            bool is_new) const {
  ItemText text;
  text.item = item.item;
  text.lease_token = item.token;
  text.lease_request = item.request_id;
  text.unknown = unknown;
  auto piece = item_as_yaml(text);
  if (!piece || !is_new) return piece;
  const auto options = reading({});
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
    const bool is_new = old == table_.items.end() || !same(old->second, item);
    if (!is_new && before != pieces_.end() && !before->second.text.empty()) {
      piece.text = before->second.text;
      continue;
    }
    auto text = piece_for(item, piece.unknown, is_new);
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
