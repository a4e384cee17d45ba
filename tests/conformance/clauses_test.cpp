// clauses.tsv: every clause that binds a client is there, and everything that it names as a proof exists.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/conformance/vector_file.hpp"

namespace fulmar::mqtt {
namespace {

// How many normative statements of each standard bind a client or are a server's rule that a client must check.
constexpr std::size_t clauses_of_3_1_1 = 90;
constexpr std::size_t clauses_of_5_0 = 165;
static_assert(clauses_of_3_1_1 + clauses_of_5_0 == 255);

struct Clause {
  std::string where;
  std::string version;
  std::string id;
  std::string requirement;
  std::string proof;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

std::vector<Clause> clauses() {
  std::vector<Clause> all;
  std::ifstream file(FULMAR_CLAUSES);
  EXPECT_TRUE(file.good()) << FULMAR_CLAUSES;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    const auto columns = split(line, '\t');
    const auto where = "clauses.tsv:" + std::to_string(number);
    EXPECT_EQ(columns.size(), 4u) << where << ": version, clause, requirement, proof, divided by tabs";
    if (columns.size() == 4) all.push_back({where, columns[0], columns[1], columns[2], columns[3]});
  }
  return all;
}

// Suite.test of every program, without what a parameterized suite puts before and behind the names.
std::set<std::string> tests_of_programs() {
  std::set<std::string> names;
  for (const auto& program : split(FULMAR_TEST_PROGRAMS, ':')) {
    FILE* pipe = popen(("'" + program + "' --gtest_list_tests").c_str(), "r");
    EXPECT_NE(pipe, nullptr) << program;
    if (pipe == nullptr) continue;
    std::string suite;
    char buffer[4096];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) {
      std::string line = buffer;
      line.resize(std::min(line.find_first_of("#\n"), line.size()));
      line.resize(line.find_last_not_of(' ') + 1);
      if (line.starts_with("  ")) {
        names.insert(suite + line.substr(2, line.find('/') - 2));
      } else if (line.ends_with('.')) {
        suite = line.substr(line.find('/') == std::string::npos ? 0 : line.find('/') + 1);
      }
    }
    EXPECT_EQ(pclose(pipe), 0) << program << " --gtest_list_tests";
  }
  return names;
}

TEST(Clauses, are_the_255_that_bind_a_client_each_once) {
  std::map<std::string, std::set<std::string>> ids;
  for (const auto& clause : clauses()) {
    EXPECT_THAT(clause.id, testing::MatchesRegex("MQTT-[0-9]+[-.][0-9]+[.][0-9]+-[0-9]+")) << clause.where;
    EXPECT_TRUE(ids[clause.version].insert(clause.id).second) << clause.where << ": a second " << clause.id;
    EXPECT_FALSE(clause.requirement.empty()) << clause.where;
  }
  EXPECT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids["3.1.1"].size(), clauses_of_3_1_1);
  EXPECT_EQ(ids["5.0"].size(), clauses_of_5_0);
}

TEST(Clauses, are_proved_by_tests_and_vectors_that_exist_or_do_not_bind_this_library) {
  const auto tests = tests_of_programs();
  ASSERT_GT(tests.size(), 100u) << "the test programs list no tests: " << FULMAR_TEST_PROGRAMS;
  std::set<std::string> vectors;
  for (const auto& one : packet_vectors()) vectors.insert("vectors/" + one.name);
  for (const auto& one : conversations()) vectors.insert("vectors/" + one.name);
  for (const auto& clause : clauses()) {
    if (clause.proof.starts_with("none: ")) {
      EXPECT_GT(clause.proof.size(), 20u) << clause.where << ": say why " << clause.id << " does not bind";
      continue;
    }
    std::size_t proofs = 0;
    for (const auto& proof : split(clause.proof, ' ')) {
      const bool vector = proof.starts_with("vectors/");
      EXPECT_TRUE((vector ? vectors : tests).contains(proof))
          << clause.where << ": " << clause.id << " is proved by " << proof << ", which does not exist";
      proofs += !vector;
    }
    EXPECT_GT(proofs, 0u) << clause.where << ": no test is named for " << clause.id;
  }
}

}  // namespace
}  // namespace fulmar::mqtt
