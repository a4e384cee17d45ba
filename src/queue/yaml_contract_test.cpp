#include "queue/contract.hpp"
#include "queue/yaml_repository.hpp"
#include "tests/support/temp_dir.hpp"

namespace fulmar::queue {
namespace {

class YamlPlace final : public StorePlace {
 public:
  Result<std::unique_ptr<Repository>> open(const RepositoryOptions& options) override {
    return open_yaml_repository("yaml:" + (directory_ / "queue.yaml").string(), options);
  }

 private:
  test::TempDir directory_;
};

INSTANTIATE_TEST_SUITE_P(yaml, QueueContract,
                         testing::Values(StoreKind{"file", [] { return std::make_unique<YamlPlace>(); }}),
                         store_name);

}  // namespace
}  // namespace fulmar::queue
