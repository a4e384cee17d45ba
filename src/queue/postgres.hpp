#pragma once
// The repository of postgresql:// URLs: queues in a PostgreSQL database (12 or newer, UTF-8), for many machines.
//
//   postgresql://user:password@host:5432/database?parameter=value     everything that libpq takes; several hosts too
//
//   verbs (PostgresOperations) ─▶ Transaction ─▶ Connection ─▶ server        up to 16 connections, made when needed
//   wait() ◀─ Watch: LISTEN on a connection and a thread of its own
//
// Connections are of one session each: a pooler in between has to keep sessions together (no transaction pooling).
//
// Durability: `commit` waits for the server's disk; `interval` and `none` do not (synchronous_commit off), and the server
// writes within a second; nothing of it is lost when a client dies. Claims and extensions never wait, unless
// Settings::durable_claim. With fsync off in the server nothing survives its power loss: a warning says so.
//
// A server that goes away: what is under way fails with connection_failed, and was not made, or with io_error, when the
// commit was on its way and nobody knows. The next call makes a new connection. Access::write is tried again by itself
// where the transaction was surely undone: after a deadlock, or on a connection that had died unnoticed.
//
// Errors, besides those of the verbs: invalid_url, connection_failed, timeout, not_found (no tables, and not to be made),
// incompatible (a newer version's tables, an older server, another encoding), io_error. Passwords are never in a message.

#include <memory>
#include <string_view>

#include "queue/repository.hpp"

namespace fulmar::queue {

bool is_postgres_url(std::string_view url);
Result<std::unique_ptr<Repository>> open_postgres(std::string_view url,
                                                  const RepositoryOptions& options = {});

}  // namespace fulmar::queue
