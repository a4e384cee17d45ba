#include <gmock/gmock.h>

#include "tests/queue/postgres/server.hpp"

namespace fulmar::queue {
namespace {

class PostgresQueue : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = test::Postgres::missing()) GTEST_SKIP() << *why;
    url_ = server().fresh_url();
  }
  std::string url_;
};

TEST_F(PostgresQueue, opens) {
  auto opened = open_postgres(url_);
  ASSERT_TRUE(opened) << opened.error().message;
}

}  // namespace
}  // namespace fulmar::queue
