#include "tests/conformance/vector_file.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <stdexcept>

#include "tests/conformance/packet_text.hpp"

namespace fulmar::mqtt {
namespace {

using std::string;

constexpr const char* session_file = "session.txt";

string trimmed(const string& text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::vector<string> split(const string& text, char at) {
  std::vector<string> parts;
  std::istringstream stream(text);
  for (string part; std::getline(stream, part, at);) {
    if (!trimmed(part).empty()) parts.push_back(trimmed(part));
  }
  return parts;
}

// Comments begin with a # outside of quotes.
string without_comment(const string& line) {
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\'') quoted = !quoted;
    if (line[i] == '#' && !quoted) return line.substr(0, i);
  }
  return line;
}

// Appends the bytes of a line; notes the length fields.
void read_bytes(const string& text, Bytes& wire, std::vector<LengthField>& lengths) {
  bool quoted = false;
  std::size_t begin = 0;
  string digits;
  const auto flush = [&] {
    if (digits.size() % 2 != 0) throw std::runtime_error("an odd number of digits: " + digits);
    const auto more = bytes(digits);
    wire.insert(wire.end(), more.begin(), more.end());
    digits.clear();
  };
  for (const char c : text) {
    if (c == '\'') {
      flush();
      quoted = !quoted;
    } else if (quoted) {
      wire.push_back(static_cast<std::byte>(c));
    } else if (c == '(' || c == '[') {
      flush();
      begin = wire.size();
    } else if (c == ')' || c == ']') {
      flush();
      lengths.push_back({begin, wire.size() - begin, c == ')'});
    } else if (std::isxdigit(static_cast<unsigned char>(c))) {
      digits += c;
    } else if (c == ' ') {
      flush();
    } else {
      throw std::runtime_error(string("not a byte: ") + c);
    }
  }
  flush();
  if (quoted) throw std::runtime_error("a quote is not closed");
}

std::vector<ProtocolVersion> read_versions(const string& text) {
  std::vector<ProtocolVersion> versions;
  for (const auto& word : split(text, ' ')) {
    if (word != "3.1.1" && word != "5") throw std::runtime_error("not a version: " + word);
    versions.push_back(word == "5" ? ProtocolVersion::v5 : ProtocolVersion::v3_1_1);
  }
  return versions;
}

std::vector<Sender> read_senders(const string& text) {
  std::vector<Sender> senders;
  for (const auto& word : split(text, ' ')) {
    if (word != "client" && word != "server") throw std::runtime_error("not a sender: " + word);
    senders.push_back(word == "client" ? Sender::client : Sender::server);
  }
  return senders;
}

// A line's keyword and what follows it; no keyword: bytes.
std::pair<string, string> keyword_of(const string& line) {
  static const std::set<string> keywords = {"ok", "becomes", "error", "config",
                                            "do", "event",   "sends", "closes"};
  const auto end = std::min(line.find(' '), line.size());
  const auto word = line.substr(0, end);
  if (keywords.contains(word)) return {word, trimmed(line.substr(end))};
  return {"", line};
}

void check_name(const string& name) {
  const auto good = [](char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || !std::ranges::all_of(name, good))
    throw std::runtime_error("a name is lower_case: " + name);
}

// Calls `head` for a vector's first line and `line` for those that follow it.
void read_file(const std::filesystem::path& path,
               const std::function<void(const std::vector<string>&, const string&)>& head,
               const std::function<void(const string&, const string&)>& line) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  std::size_t number = 0;
  for (string text; std::getline(file, text);) {
    const auto where = path.filename().string() + ':' + std::to_string(++number);
    try {
      if (trimmed(text).empty() || text[0] == '#') continue;
      if (text[0] != ' ') {
        auto parts = split(text, '|');
        if (parts.size() < 2) throw std::runtime_error("a vector begins with: name | versions | senders");
        check_name(parts[0]);
        head(parts, where);
        continue;
      }
      const bool free_text = trimmed(text).starts_with("ok ") || trimmed(text).starts_with("event ");
      const auto [keyword, rest] = keyword_of(trimmed(free_text ? text : without_comment(text)));
      line(keyword, rest);
    } catch (const std::exception& error) {
      throw std::runtime_error(where + ": " + error.what());
    }
  }
}

void read_packets(const std::filesystem::path& path, std::vector<PacketVector>& vectors) {
  const auto head = [&](const std::vector<string>& parts, const string& where) {
    if (parts.size() != 3) throw std::runtime_error("a vector begins with: name | versions | senders");
    vectors.push_back(
        {parts[0], where, read_versions(parts[1]), read_senders(parts[2]), {}, {}, {}, 0, {}, {}});
  };
  read_file(path, head, [&](const string& keyword, const string& rest) {
    auto& vector = vectors.at(vectors.size() - 1);
    if (keyword.empty()) return read_bytes(rest, vector.wire, vector.lengths);
    if (keyword == "ok") {
      vector.meaning = rest;
    } else if (keyword == "becomes") {
      std::vector<LengthField> ignored;
      read_bytes(rest, vector.shortest, ignored);
    } else if (keyword == "error") {
      const auto words = split(rest, ' ');
      if (words.size() != 2) throw std::runtime_error("error RULE REASON");
      vector.error = decode_error_named(words[0]);
      vector.reason = static_cast<unsigned>(std::stoul(words[1], nullptr, 16));
    } else {
      throw std::runtime_error("what is " + keyword + " in a packet?");
    }
  });
}

void read_conversations(const std::filesystem::path& path, std::vector<Conversation>& all) {
  const auto head = [&](const std::vector<string>& parts, const string& where) {
    all.push_back({parts[0], where, read_versions(parts[1]), {}, {}, {}, {}, false});
  };
  read_file(path, head, [&](const string& keyword, const string& rest) {
    auto& conversation = all.at(all.size() - 1);
    std::vector<LengthField> ignored;
    if (keyword.empty()) {
      if (conversation.steps.empty() || !conversation.steps.back().action.empty())
        conversation.steps.emplace_back();
      read_bytes(rest, conversation.steps.back().server, ignored);
    } else if (keyword == "config") {
      conversation.config = split(rest, ' ');
    } else if (keyword == "do") {
      conversation.steps.push_back({split(rest, ' '), {}});
    } else if (keyword == "event") {
      conversation.events.push_back(rest);
    } else if (keyword == "sends") {
      read_bytes(rest, conversation.sends, ignored);
    } else if (keyword == "closes") {
      conversation.closes = true;
    } else {
      throw std::runtime_error("what is " + keyword + " in a conversation?");
    }
  });
}

template <typename Vectors>
void check_names_differ(const Vectors& vectors) {
  std::set<string> names;
  for (const auto& one : vectors) {
    if (!names.insert(one.name).second) throw std::runtime_error(one.where + ": a second " + one.name);
  }
}

}  // namespace

const std::vector<PacketVector>& packet_vectors() {
  static const auto all = [] {
    std::set<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(FULMAR_VECTORS)) {
      if (entry.path().extension() == ".txt" && entry.path().filename() != session_file)
        files.insert(entry.path());
    }
    std::vector<PacketVector> vectors;
    for (const auto& file : files) read_packets(file, vectors);
    check_names_differ(vectors);
    for (const auto& vector : vectors) {
      if (vector.meaning.empty() == (vector.error == DecodeError::none)) {
        throw std::runtime_error(vector.where + ": either ok or error");
      }
    }
    return vectors;
  }();
  return all;
}

const std::vector<Conversation>& conversations() {
  static const auto all = [] {
    std::vector<Conversation> read;
    read_conversations(std::filesystem::path(FULMAR_VECTORS) / session_file, read);
    check_names_differ(read);
    return read;
  }();
  return all;
}

}  // namespace fulmar::mqtt
