#include "queue/contract.hpp"

#include "tests/queue/postgres/server.hpp"

namespace fulmar::queue {
namespace {

class PostgresPlace final : public StorePlace {
 public:
  Result<std::unique_ptr<Repository>> open(const RepositoryOptions& options) override {
    return open_postgres(url_, options);
  }

 private:
  std::string url_ = server().fresh_url();
};

std::vector<StoreKind> kinds() {
  if (test::Postgres::missing()) return {};
  return {{"postgresql", [] { return std::make_unique<PostgresPlace>(); }}};
}

INSTANTIATE_TEST_SUITE_P(postgres, QueueContract, testing::ValuesIn(kinds()), store_name);

}  // namespace
}  // namespace fulmar::queue
