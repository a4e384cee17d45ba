#pragma once
// The commands of `fulmar queue`, each a function from its options to the exit code. Errors are told on stderr.
// Thread-safety: one at a time, on the main thread.

#include "cli/queue_options.hpp"

namespace fulmar::cli {

int queue_add(const QueueCommandOptions& options);
int queue_next(const QueueCommandOptions& options);

int queue_list(const QueueCommandOptions& options);
int queue_show(const QueueCommandOptions& options);
int queue_stats(const QueueCommandOptions& options);
int queue_watch(const QueueCommandOptions& options);

int queue_work(const QueueCommandOptions& options);

int queue_export(const QueueCommandOptions& options);
int queue_import(const QueueCommandOptions& options);
int queue_migrate(const QueueCommandOptions& options);
int queue_repair(const QueueCommandOptions& options);
int queue_purge(const QueueCommandOptions& options);

}  // namespace fulmar::cli
