#include "net/resolver.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <deque>

#include <boost/asio/io_context.hpp>

namespace fulmar::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

Result<Resolver::Addresses> resolve(const std::string& host) {
  asio::io_context context;
  Resolver resolver(context.get_executor());
  std::optional<Result<Resolver::Addresses>> answer;
  const auto guard = asio::make_work_guard(context);
  resolver.resolve(host, 1883, [&](auto result) {
    answer = std::move(result);
    context.stop();
  });
  context.run_for(20s);
  if (!answer) return fail(Errc::timeout, "no answer");
  return *answer;
}

TEST(Resolver, takes_addresses_as_they_are) {
  const auto v4 = resolve("127.0.0.1");
  ASSERT_TRUE(v4) << v4.error().message;
  EXPECT_EQ(v4->front().address().to_string(), "127.0.0.1");
  EXPECT_EQ(v4->front().port(), 1883);
  const auto v6 = resolve("::1");
  ASSERT_TRUE(v6);
  EXPECT_TRUE(v6->front().address().is_v6());
}

TEST(Resolver, finds_localhost) {
  const auto addresses = resolve("localhost");
  ASSERT_TRUE(addresses) << addresses.error().message;
  EXPECT_TRUE(addresses->front().address().is_loopback());
}

TEST(Resolver, names_the_host_that_cannot_be_resolved) {
  const auto answer = resolve("no such host.invalid");
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("no such host.invalid"), std::string::npos) << answer.error().message;
}

TEST(Resolver, never_waits_when_it_is_destroyed_or_cancelled) {
  const auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) {
    asio::io_context context;
    Resolver resolver(context.get_executor());
    resolver.resolve("slow-" + std::to_string(i) + ".invalid", 1,
                     [](auto) { ADD_FAILURE() << "was cancelled"; });
    if (i % 2) {
      resolver.cancel();
      context.run_for(1ms);
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - before, 2s);
}

TEST(Resolver, answers_many_more_questions_than_it_has_threads) {
  asio::io_context context;
  const auto guard = asio::make_work_guard(context);
  constexpr int questions = 10 * Background::threads_max;
  int answers = 0, cancelled = 0;
  std::deque<Resolver> resolvers;
  for (int i = 0; i < questions; ++i) {
    auto& resolver = resolvers.emplace_back(context.get_executor());
    resolver.resolve("localhost", 1883, [&](const Result<Resolver::Addresses>& result) {
      EXPECT_TRUE(result) << result.error().message;
      if (++answers + cancelled == questions) context.stop();
    });
    if (i % 3 == 0) {  // some that run, some that wait, some that are answered and not told yet
      resolver.cancel();
      ++cancelled;
    }
  }
  context.run_for(30s);
  EXPECT_EQ(answers + cancelled, questions);
}

}  // namespace
}  // namespace fulmar::net
