// The C++ in the documentation compiles against an installed Fulmar.
//
// A block fenced as ```cpp is a whole program when it defines main(). Any other is a fragment, and is compiled as the body of
// a function with a `client` and a `config`, after its own #include lines, within the preamble below.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

#include "tests/install/compiler.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view preamble = R"(
#include <cstdio>
#include <fulmar/client.hpp>
#include <fulmar/envelope.hpp>
#include <fulmar/telemetry.hpp>
using namespace std::chrono_literals;
)";
constexpr std::string_view fragment_begins =
    "static void run([[maybe_unused]] fulmar::Client& client, [[maybe_unused]] fulmar::ClientConfig config) "
    "{{\n";

struct Block {
  fs::path page;
  int line = 0;  // of its first line of code
  std::string code;

  bool is_program() const { return code.contains("int main("); }
};

std::vector<Block> blocks_of(const fs::path& page) {
  std::vector<Block> blocks;
  std::ifstream file(page);
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (!inside && line == "```cpp") {
      blocks.push_back({page, number + 1, {}});
      inside = true;
    } else if (inside && line.starts_with("```")) {
      inside = false;
    } else if (inside) {
      blocks.back().code += line + '\n';
    }
  }
  return blocks;
}

std::vector<fs::path> pages() {
  const fs::path root(FULMAR_SOURCE);
  std::vector<fs::path> pages{root / "README.md"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  }
  std::ranges::sort(pages);
  return pages;
}

// Compiler errors then name the page and its line.
std::string place(const Block& block) {
  return "#line " + std::to_string(block.line) + " \"" + block.page.string() + "\"\n";
}

// All fragments as one source: the headers are read once.
std::string fragments(const std::vector<Block>& blocks) {
  std::string includes, bodies;
  int number = 0;
  for (const auto& block : blocks) {
    if (block.is_program()) continue;
    bodies += "namespace fragment_" + std::to_string(++number) + " {\n" + std::string(fragment_begins) +
              place(block);
    std::istringstream lines(block.code);
    for (std::string line; std::getline(lines, line);) {
      const bool include = line.starts_with("#include");
      if (include) includes += line + '\n';
      bodies += (include ? "" : line) + '\n';
    }
    bodies += "}}\n}\n";
  }
  return includes + std::string(preamble) + bodies;
}

void expect_to_compile(const std::string& source) {
  const TempDir directory;
  std::ofstream(directory / "page.cpp") << source;
  const auto ran = run_program(compile_command({"-fsyntax-only", "-Wno-shadow", "-Wno-unused",
                                                "-Wno-unused-function", (directory / "page.cpp").string()}));
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
}

TEST(Documentation, has_programs_and_fragments_that_compile) {
  std::vector<Block> blocks;
  for (const auto& page : pages()) {
    for (auto& block : blocks_of(page)) blocks.push_back(std::move(block));
  }
  EXPECT_GT(blocks.size(), 20u) << "are they fenced as ```cpp?";
  for (const auto& block : blocks) {
    if (block.is_program()) expect_to_compile(place(block) + block.code);
  }
  expect_to_compile(fragments(blocks));
}

// [text](target): relative ones lead to a file of the tree, and to a heading of it where they name one.
TEST(Documentation, has_no_dead_links_within_the_tree) {
  const auto text_of = [](const fs::path& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const auto headings_of = [&](const fs::path& path) {
    std::vector<std::string> anchors;
    std::istringstream lines(text_of(path));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with('#')) continue;
      std::string anchor;
      for (const char c : line.substr(std::min(line.find_first_not_of("# "), line.size()))) {
        if (std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_')
          anchor += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        if (c == ' ') anchor += '-';
      }
      anchors.push_back(std::move(anchor));
    }
    return anchors;
  };
  int followed = 0;
  for (const auto& page : pages()) {
    const auto text = text_of(page);
    for (std::size_t at = text.find("]("); at != std::string::npos; at = text.find("](", at + 1)) {
      const auto end = text.find(')', at);
      ASSERT_NE(end, std::string::npos);
      const auto target = text.substr(at + 2, end - at - 2);
      if (target.contains("://") || target.contains(' ') || target.empty()) continue;
      const auto hash = std::min(target.find('#'), target.size());
      const auto file = hash == 0 ? page : page.parent_path() / target.substr(0, hash);
      ++followed;
      EXPECT_TRUE(fs::exists(file)) << page << " links to " << target;
      if (hash < target.size() && fs::exists(file)) {
        EXPECT_THAT(headings_of(file), testing::Contains(target.substr(hash + 1)))
            << page << " links to " << target;
      }
    }
  }
  EXPECT_GT(followed, 30);
}

}  // namespace
}  // namespace fulmar::test
