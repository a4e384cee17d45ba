#include "store.hpp"

namespace fulmar::bench {

std::vector<StoreKind> store_kinds() {
  return {own_store(true), bare_file_store(true), own_store(false), bare_file_store(false),
          sqlite_store(),  rocksdb_store(),       paho_c_store()};
}

}  // namespace fulmar::bench
