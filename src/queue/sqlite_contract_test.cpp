#include "queue/contract.hpp"
#include "queue/sqlite_repository.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::queue {
namespace {

class SqlitePlace final : public StorePlace {
 public:
  Result<std::unique_ptr<Repository>> open(const RepositoryOptions& options) override {
    return open_repository("sqlite:" + (directory_ / "queue.db").string(), options);
  }
  bool detects_dead_workers() const override { return true; }

 private:
  test::TempDir directory_;
};

INSTANTIATE_TEST_SUITE_P(sqlite, QueueContract,
                         testing::Values(StoreKind{"sqlite", [] { return std::make_unique<SqlitePlace>(); }}),
                         store_name);

}  // namespace
}  // namespace fulmar::queue
