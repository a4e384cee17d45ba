#pragma once
// The one server of the test program, started by the first test that asks for it.

#include "queue/postgres.hpp"
#include "tests/support/postgres.hpp"

namespace fulmar::queue {

test::Postgres& server();

}  // namespace fulmar::queue
