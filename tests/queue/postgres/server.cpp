#include "tests/queue/postgres/server.hpp"

#include <gtest/gtest.h>

#include <cstdio>

namespace fulmar::queue {
namespace {

std::unique_ptr<test::Postgres> the_server;

class Server final : public testing::Environment {
 public:
  void SetUp() override {
    if (const auto why = test::Postgres::missing()) std::printf("SKIPPED WHOLE: %s\n", why->c_str());
  }
  void TearDown() override { the_server.reset(); }
};

// gtest owns it.
[[maybe_unused]] const auto* const environment = testing::AddGlobalTestEnvironment(new Server);

}  // namespace

test::Postgres& server() {
  if (!the_server) the_server = std::make_unique<test::Postgres>();
  the_server->start();  // where a test has left it down
  return *the_server;
}

}  // namespace fulmar::queue
