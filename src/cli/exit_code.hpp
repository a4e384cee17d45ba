#pragma once
// The exit codes of `fulmar pub` and `fulmar sub`, which are those of mosquitto_pub and mosquitto_sub, and of
// `fulmar telemetry`, `fulmar spool` and `fulmar queue`.
// A refusal by the server exits with the code of its CONNACK: 1 to 5 in MQTT 3.1.1, 128 and above in 5.0.

namespace fulmar::cli {

enum ExitCode : int {
  exit_success = 0,
  exit_failure = 1,          // bad option, unreadable input, no connection
  exit_connection_lost = 7,  // pub: the connection went before everything was delivered
  exit_records_lost = 7,     // telemetry: not every record was delivered
  exit_timed_out = 27,       // sub -W, telemetry -W
  exit_bad_lines = 65,       // telemetry: lines of the input were no records; all others are delivered
  exit_spool_damaged = 65,   // spool verify and export: damage was found

  // queue; docs/queue.md has the same table
  exit_nothing = 10,             // next: nothing can be claimed now
  exit_not_found = 11,           // no such item, queue or store
  exit_illegal_transition = 12,  // the state of the item does not allow it
  exit_lease_lost = 13,
  exit_queue_full = 14,
  exit_already_exists = 15,
  exit_invalid_item = 16,   // what was handed in is no item: not JSON, too large, a cycle
  exit_store_failed = 17,   // the store cannot be opened, read or written, or did not answer in time
  exit_incompatible = 18,   // the store was made by a newer version
  exit_store_damaged = 65,  // the store, or lines or items of an input, cannot be read
};

}  // namespace fulmar::cli
