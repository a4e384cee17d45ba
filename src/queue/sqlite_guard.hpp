#pragma once
// What the three files of SqliteOperations share.

#include "queue/sqlite_operations.hpp"

// As SqliteOperations::read_item() expects them.
#define ITEM_COLUMNS                                                                                    \
  "i.id,i.qid,i.state,i.prio,i.due,i.lease,i.token,i.worker,i.created,i.started,i.finished,i.attempts," \
  "i.attempts_max,i.type,i.ukey,i.ext,b.payload,b.meta,b.deps,n.error,n.result"
#define ITEM_TABLES " FROM item i JOIN body b ON b.id=i.id LEFT JOIN note n ON n.id=i.id "

namespace fulmar::queue {

template <typename Verb>
std::invoke_result_t<Verb&> SqliteOperations::guarded(Verb&& verb) {
  if (failure_) return std::unexpected(to_error(*failure_, path_));  // the transaction is lost
  try {
    return verb();
  } catch (SqliteFailure& failure) {
    failure_ = std::move(failure);
    return std::unexpected(to_error(*failure_, path_));
  }
}

}  // namespace fulmar::queue
