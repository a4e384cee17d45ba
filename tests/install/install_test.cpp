// An installed Fulmar is all that a program needs: found by CMake and by pkg-config, compiled, linked and run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/install/compiler.hpp"
#include "tests/support/broker.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// The project of a user, far from the source tree.
class Install : public testing::Test {
 protected:
  void SetUp() override {
    fs::copy(fs::path(FULMAR_SOURCE) / "tests/install/consumer", project(), fs::copy_options::recursive);
  }
  fs::path project() const { return directory_ / "consumer"; }

  TempDir directory_;
};

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

TEST_F(Install, is_found_by_cmake_and_its_programs_talk_to_a_broker) {
  const fs::path build = project() / "build";
  const auto configured = run_program({FULMAR_CMAKE, "-G", "Ninja", "-S", project().string(), "-B",
                                       build.string(), "-DCMAKE_PREFIX_PATH=" + installed().string(),
                                       std::string("-DCMAKE_CXX_COMPILER=") + FULMAR_CXX});
  ASSERT_EQ(configured.exit_code, 0) << configured.output;
  const auto built = run_program({FULMAR_CMAKE, "--build", build.string(), "-j2"});
  ASSERT_EQ(built.exit_code, 0) << built.output;

  const Broker broker;
  const auto plain = run_program({(build / "plain").string(), broker.url()});
  EXPECT_EQ(plain.exit_code, 0);
  EXPECT_EQ(plain.output, "received: installed\n");
  const auto with_asio = run_program({(build / "with_asio").string(), broker.url()});
  EXPECT_EQ(with_asio.exit_code, 0);
  EXPECT_EQ(with_asio.output, "outcome: acknowledged\n");
  const auto queue = run_program(
      {(build / "queue").string(), broker.url(), "sqlite:" + (directory_ / "consumer.db").string()});
  EXPECT_EQ(queue.exit_code, 0);
  EXPECT_EQ(queue.output, "done: {\"text\":\"installed\"}\n");
}

TEST_F(Install, is_found_by_pkg_config_without_further_flags) {
  const auto pc = find_installed("fulmar.pc");
  ASSERT_FALSE(pc.empty());
  for (const auto& [package, program] : {std::pair("fulmar", "plain"), std::pair("fulmar-queue", "queue")}) {
    const auto flags = run_program(
        {"env", "PKG_CONFIG_PATH=" + pc.parent_path().string(), "pkg-config", "--cflags", "--libs", package});
    ASSERT_EQ(flags.exit_code, 0) << flags.output;
    const auto source = (project() / program).string() + ".cpp";
    std::vector<std::string> command{FULMAR_CXX, "-std=c++23", source, "-o", (project() / program).string()};
    for (auto& word : words(flags.output)) command.push_back(std::move(word));
    const auto compiled = run_program(std::move(command));
    ASSERT_EQ(compiled.exit_code, 0) << flags.output << compiled.output;
  }

  const Broker broker;
  EXPECT_EQ(run_program({(project() / "plain").string(), broker.url()}).output, "received: installed\n");
}

TEST_F(Install, has_the_programs_in_their_own_component) {
  for (const std::string program : {"fulmar", "fulmard"}) {
    const auto ran = run_program({(installed() / "bin" / program).string(), "--version"});
    EXPECT_EQ(ran.exit_code, 0);
    EXPECT_THAT(ran.output, HasSubstr(program));
  }
  const fs::path library = directory_ / "library";
  ASSERT_EQ(run_program({FULMAR_CMAKE, "--install", FULMAR_BUILD, "--prefix", library.string(), "--component",
                         "library"})
                .exit_code,
            0);
  EXPECT_FALSE(fs::exists(library / "bin"));
}

TEST_F(Install, shows_no_private_header_and_names_no_place_of_the_build) {
  std::size_t headers = 0;
  for (const auto& entry : fs::recursive_directory_iterator(installed() / "include")) {
    if (!entry.is_regular_file()) continue;
    ++headers;
    EXPECT_EQ(*fs::relative(entry.path(), installed() / "include").begin(), "fulmar") << entry.path();
    EXPECT_EQ(entry.path().extension(), ".hpp") << entry.path();
  }
  EXPECT_GT(headers, 10u);
  const auto found = run_program({"grep", "-rIl", "--include=*.cmake", "--include=*.pc", "-e", FULMAR_SOURCE,
                                  "-e", FULMAR_BUILD, installed().string()});
  EXPECT_THAT(found.output, IsEmpty()) << "these would break on another machine";
}

}  // namespace
}  // namespace fulmar::test
