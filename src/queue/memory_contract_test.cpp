#include "queue/contract.hpp"
#include "queue/memory_repository.hpp"

namespace fulmar::queue {
namespace {

class MemoryPlace final : public StorePlace {
 public:
  Result<std::unique_ptr<Repository>> open(const RepositoryOptions& options) override {
    return std::make_unique<MemoryRepository>(options);
  }
  bool survives_closing() const override { return false; }
};

INSTANTIATE_TEST_SUITE_P(memory, QueueContract,
                         testing::Values(StoreKind{"table", [] { return std::make_unique<MemoryPlace>(); }}),
                         store_name);

}  // namespace
}  // namespace fulmar::queue
